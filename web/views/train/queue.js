// SPDX-License-Identifier: MIT
import { html } from "../../lib/html.js";

export function Queue() {
  return html`<section class="card"></section>`;
}
