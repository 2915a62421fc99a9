// SPDX-License-Identifier: MIT
import { html } from "../../lib/html.js";

export function Nothing() {
  return html`<section class="card"></section>`;
}
