// SPDX-License-Identifier: MIT
// Whether this server, and this key, train at all; where not, why, and what to do.

import { html } from "../../lib/html.js";

export function Gate({ children }) {
  return children;
}
