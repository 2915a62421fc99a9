// SPDX-License-Identifier: MIT
// What every step of the walk is made of: the paragraph, arrays side by side, what to try, a finding; and the worked example's state.

import { html, useState } from "../../../lib/html.js";
import { Matrix } from "../../../lib/matrix.js";
import { createStore, useStore } from "../../../lib/store.js";
import { arrayOf } from "./data.js";
import { INPUTS, WORDS } from "./example.js";

export const Say = ({ children }) => html`<div class="walk-say">${children}</div>`;
export const Arrays = ({ children }) => html`<div class="walk-arrays">${children}</div>`;
export const Try = ({ children }) => html`<aside class="walk-try" aria-label="What to try"><h3>Try</h3><ul>${children}</ul></aside>`;
export const Waiting = () => html`<p class="hint walk-waiting" role="status">Computing…</p>`;
/** What the numbers above say; good: as it should be. */
export const Finding = ({ good = true, label, children }) => html`<p class=${`walk-finding ${good ? "good" : "odd"}`}><span
  class=${`tag ${good ? "good" : "bad"}`}>${label}</span> <span>${children}</span></p>`;

/** An array of data.js as a table. */
export const Table = ({ a, ...rest }) => html`<${Matrix} data=${a.data} rows=${a.shape[0]} columns=${a.shape[1]} ...${rest} />`;

/** How tables of a sentence are drawn so that two or three fit beside each other; the full number is read on hover. */
export const SQUARE = { maxRows: 8, maxColumns: 8 };
export const SHARES = { ...SQUARE, heat: "share", scale: 1, digits: 2 };
export const VECTORS = { maxRows: 8, maxColumns: 4, digits: 3 };
/** Digits of scores: their whole part is long. */
export const scoreDigits = (a) => (a.data.some((x) => Math.abs(x) >= 10 && Number.isFinite(x)) ? 1 : 2);

// ---------------------------------------------------------------- the worked example

const NAMES = ["x₀", "x₁", "x₂"];
export const exampleInputs = createStore(INPUTS);
const set = (r, c, x) => exampleInputs.set((rows) => rows.map((row, i) => (i === r ? row.map((old, k) => (k === c ? x : old)) : row)));

/** The six words' inputs, which may be changed. */
export function ExampleInputs() {
  const rows = useStore(exampleInputs);
  const own = rows !== INPUTS;
  return html`<${Table} name="inputs x" a=${arrayOf(rows)} rowLabels=${WORDS} columnLabels=${NAMES} heat="none" onEdit=${set}
    note=${own ? html`These are your numbers. <button type="button" class="quiet"
      onClick=${() => exampleInputs.set(INPUTS)}>Back to the example's</button>`
    : "Change a number and watch every table below follow."} />`;
}

/** Which row is looked at by hand; journey at first. */
export function usePicked(rows) {
  const [picked, setPicked] = useState(1);
  return [Math.min(picked, rows - 1), setPicked];
}
