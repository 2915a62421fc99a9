// SPDX-License-Identifier: MIT
import { html } from "../../lib/html.js";

export function NewJob({ file }) {
  return html`<section class="card"></section>`;
}
