// SPDX-License-Identifier: MIT
import { html } from "../../lib/html.js";

export function Job({ id }) {
  return html`<section class="card"></section>`;
}
