// SPDX-License-Identifier: MIT
// What the walk's steps ask the server and compute from its arrays. An array is {shape, data}, data a Float32Array, row after row.

import { html, useEffect } from "../../../lib/html.js";
import { useInspect } from "../../../lib/inspect.js";
import { fail } from "../../../lib/server.js";
import { number, visible } from "../../../lib/format.js";

/** The answer to `body` (null: nothing is asked); null until it is there. `stale`: an answer to an earlier question stands until then. */
export function useLook(body, stale = false) {
  const { answer, error, busy, again } = useInspect(body && { ...body, encoding: "float32" });
  useEffect(() => { if (error) fail(error, again); }, [error]);
  return answer && body && (stale || !busy) ? answer : null;
}

// ---------------------------------------------------------------- arrays

/** The i-th part along the first dimension. */
export function part(a, i) {
  const size = a.data.length / a.shape[0];
  return { shape: a.shape.slice(1), data: a.data.subarray(i * size, (i + 1) * size) };
}

export const arrayOf = (rows) => ({ shape: [rows.length, rows[0].length], data: Float32Array.from(rows.flat()) });
export const rowsOf = (a, most = a.shape[0], columns = a.shape[1]) =>
  Array.from({ length: Math.min(most, a.shape[0]) }, (_, r) => Array.from(a.data.subarray(r * a.shape[1], r * a.shape[1] + columns)));

/** a b, or a bᵀ where `turned`. */
export function product(a, b, turned = false) {
  const [n, inner] = a.shape, columns = turned ? b.shape[0] : b.shape[1];
  const data = new Float32Array(n * columns);
  for (let r = 0; r < n; r++) {
    for (let c = 0; c < columns; c++) {
      let sum = 0;
      for (let k = 0; k < inner; k++) sum += a.data[r * inner + k] * (turned ? b.data[c * inner + k] : b.data[k * columns + c]);
      data[r * columns + c] = sum;
    }
  }
  return { shape: [n, columns], data };
}

/** Row by row softmax(x * scale). */
export function softmax(a, scale = 1) {
  const [n, columns] = a.shape, data = new Float32Array(n * columns);
  for (let r = 0; r < n; r++) {
    const row = Array.from(a.data.subarray(r * columns, (r + 1) * columns), (x) => x * scale);
    const most = Math.max(...row), powers = row.map((x) => Math.exp(x - most)), sum = powers.reduce((x, y) => x + y, 0);
    powers.forEach((x, c) => { data[r * columns + c] = x / sum; });
  }
  return { shape: a.shape, data };
}

export const mapped = (a, fn) => ({ shape: a.shape, data: a.data.map((x, i) => fn(x, Math.floor(i / a.shape[1]), i % a.shape[1])) });
/** [rows][1] */
export function rowSums(a) {
  const [n, columns] = a.shape;
  const sum = (_, r) => a.data.subarray(r * columns, (r + 1) * columns).reduce((x, y) => x + y, 0);
  return { shape: [n, 1], data: Float32Array.from({ length: n }, sum) };
}
export const norm = (xs) => Math.sqrt(xs.reduce((sum, x) => sum + x * x, 0));
export const rowNorms = (a) => Array.from({ length: a.shape[0] }, (_, r) => norm(a.data.subarray(r * a.shape[1], (r + 1) * a.shape[1])));
export const greatestDifference = (a, b) => a.data.reduce((most, x, i) => Math.max(most, Number.isFinite(x) ? Math.abs(x - b.data[i]) : 0), 0);
/** [H][T][D] -> [T][H * D]: the heads side by side. */
export function sideBySide(a) {
  const [heads, n, size] = a.shape, data = new Float32Array(a.data.length);
  for (let h = 0; h < heads; h++) {
    for (let t = 0; t < n; t++) data.set(a.data.subarray((h * n + t) * size, (h * n + t + 1) * size), (t * heads + h) * size);
  }
  return { shape: [n, heads * size], data };
}

// ---------------------------------------------------------------- words

/** A number of any size without "e": 1.0·10⁻⁷. */
export function small(x, digits = 2) {
  const [mantissa, exponent] = number(x, digits).split("e");
  if (exponent === undefined) return mantissa;
  return `${mantissa}·10${Array.from(String(Number(exponent)), (c) => (c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[c])).join("")}`;
}
export const labelsOf = (texts) => texts.map((text) => visible(text));
/** A formula: `said` is how it is read aloud. */
export const Formula = ({ said, children }) => html`<p class="walk-formula" role="math" aria-label=${said}>
  <span aria-hidden="true">${children}</span></p>`;
