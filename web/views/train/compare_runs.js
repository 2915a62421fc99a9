// SPDX-License-Identifier: MIT
import { html } from "../../lib/html.js";

export function CompareRuns({ ids }) {
  return html`<section class="card"></section>`;
}
