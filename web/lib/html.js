// SPDX-License-Identifier: MIT
// The one import of every view: html`...` (htm bound to Preact) and the hooks.

import { h, Fragment, render } from "/vendor/preact.js";
import htm from "/vendor/htm.js";

export const html = htm.bind(h);
export { Fragment, render };
export { useCallback, useEffect, useId, useLayoutEffect, useMemo, useReducer, useRef, useState } from "/vendor/hooks.js";
