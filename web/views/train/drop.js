// SPDX-License-Identifier: MIT
import { html } from "../../lib/html.js";

export function DropZone() {
  return html`<section class="card"></section>`;
}
