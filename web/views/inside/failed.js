// SPDX-License-Identifier: MIT
// What a part of Inside shows where its answer did not come.

import { html } from "../../lib/html.js";
import { Card, Empty } from "../../lib/ui.js";

export function Failed({ title, error, again }) {
  const action = html`<button type="button" onClick=${again}>Try again</button>`;
  return html`<${Card}><${Empty} title=${title} action=${action}>${error.message}<//><//>`;
}
