// SPDX-License-Identifier: MIT
// A table of numbers: shape, labels, colours by size, hover and arrow keys that read a cell aloud in full. It is a real <table>; of large ones a
// corner is shown, and more on demand.

import { html, useEffect, useMemo, useRef, useState } from "./html.js";
import { count, number } from "./format.js";

const GROWN = 4; // how many times as much is shown once more was asked for
const blocked = (x) => x === null || x === undefined || x === -Infinity || Number.isNaN(x);

/** Digits after the point with which numbers up to `most` stay readable in a narrow column. */
const digitsFor = (most) => (most < 100 ? 4 : most < 1000 ? 2 : 1);

/** "−0.1234"; "−∞" for what a mask forbids. */
export function cellText(x, digits = 4) {
  if (blocked(x)) return "−∞";
  const text = Math.abs(x).toFixed(digits);
  return x < 0 && Number(text) !== 0 ? `−${text}` : text;
}

/** Largest magnitude among the numbers that are not blocked. */
function magnitude(data) {
  let most = 0;
  for (const x of data) if (!blocked(x) && Math.abs(x) > most) most = Math.abs(x);
  return most;
}

function EditCell({ value, label, onChange }) {
  const [typed, setTyped] = useState(null);
  const text = typed ?? String(Number(value.toPrecision(7)));
  const wrong = text.trim() === "" || !Number.isFinite(Number(text));
  const change = (event) => {
    setTyped(event.target.value);
    const x = Number(event.target.value);
    if (event.target.value.trim() !== "" && Number.isFinite(x)) onChange(x);
  };
  return html`<input type="number" step="0.01" aria-label=${label} aria-invalid=${wrong ? "true" : undefined} value=${text} onInput=${change}
    onBlur=${() => setTyped(null)} />`;
}

/** How a cell is coloured: heat "signed" (two colours), "share" (one) or "none". */
function Cell({ x, most, heat, digits, row, column, className }) {
  if (blocked(x)) return html`<td class="masked" data-r=${row} data-c=${column}><span>−∞</span></td>`;
  const share = heat === "none" || most === 0 ? 0 : Math.min(Math.abs(x) / most, 1);
  return html`<td class=${`${x < 0 ? "neg" : "pos"} ${className ?? ""}`} data-r=${row} data-c=${column}
    style=${{ "--heat": `${(share * 45).toFixed(1)}%` }}>${cellText(x, digits)}</td>`;
}

function Readout({ at, props }) {
  const { data, columns, rowLabels, columnLabels } = props;
  if (!at) return html`<p class="matrix-readout" role="status"></p>`;
  const x = data[at.r * columns + at.c];
  const where = `${rowLabels?.[at.r] ?? `row ${at.r}`}, ${columnLabels?.[at.c] ?? `column ${at.c}`}`;
  return html`<p class="matrix-readout" role="status">${where}: ${blocked(x) ? "not allowed by the mask (−∞)" : number(x, 7)}</p>`;
}

/** Where the arrow keys lead from `at`, within rows x columns. */
function moved(at, key, rows, columns) {
  const { r, c } = at ?? { r: 0, c: 0 };
  const clamp = (v, n) => Math.min(Math.max(v, 0), n - 1);
  const ways = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], Home: [0, -columns], End: [0, columns] };
  const from = at ? ways[key] : [0, 0];
  return { r: clamp(r + from[0], rows), c: clamp(c + from[1], columns) };
}
const KEYS = ["ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight", "Home", "End"];

/** Which cell the pointer or the arrow keys are at; its row's and column's labels light up without drawing the table anew. */
function useCursor(root, rows, columns, onPick) {
  const [at, setAt] = useState(null);
  useEffect(() => {
    for (const lit of root.current.querySelectorAll(".lit")) lit.classList.remove("lit");
    if (!at) return;
    const parts = [`th[data-r="${at.r}"]`, `th[data-c="${at.c}"]`, `td[data-r="${at.r}"][data-c="${at.c}"]`];
    for (const node of root.current.querySelectorAll(parts.join())) node.classList.add("lit");
  });
  const onPointerOver = (event) => {
    const cell = event.target.closest("td[data-r]");
    if (cell) setAt({ r: Number(cell.dataset.r), c: Number(cell.dataset.c) });
  };
  const onKeyDown = (event) => {
    if (event.target !== event.currentTarget) return;
    if (event.key === "Enter" && at && onPick) onPick(at.r, at.c);
    if (!KEYS.includes(event.key)) return;
    event.preventDefault();
    event.stopPropagation(); // the arrows of a page around this one would turn it
    const next = moved(at, event.key, rows, columns);
    setAt(next);
    root.current.querySelector(`td[data-r="${next.r}"][data-c="${next.c}"]`)?.scrollIntoView({ block: "nearest", inline: "nearest" });
  };
  return [at, { onPointerOver, onPointerLeave: () => setAt(null), onKeyDown, onBlur: () => setAt(null) }];
}

function More({ n, what, more }) {
  const text = `… ${count(n)} more ${what}${n === 1 ? "" : "s"}`;
  return more ? html`<button type="button" class="quiet" onClick=${more}>${text}</button>` : html`<span class="hint">${text}</span>`;
}

/**
 * data: flat, row after row; null, NaN or -Infinity is what a mask forbids. rows, columns: its shape. digits: after the point, or a list of them
 * by row. picked: a row that stands out; onPick(row, column): rows can be picked. mark(row, column): a class for a cell. onEdit(row, column, x):
 * cells are fields. note: a line below.
 */
export function Matrix(props) {
  const { name, data, rows, columns, rowLabels, columnLabels, heat = "signed", picked, onPick, mark, onEdit, maxRows = 16, maxColumns = 12, scale,
    note, className = "" } = props;
  const root = useRef();
  const [wide, setWide] = useState(false), [tall, setTall] = useState(false);
  const shownRows = Math.min(rows, tall ? maxRows * GROWN : maxRows), shownColumns = Math.min(columns, wide ? maxColumns * GROWN : maxColumns);
  const [at, handlers] = useCursor(root, shownRows, shownColumns, onPick);
  const most = useMemo(() => scale ?? magnitude(data), [data, scale]);
  const digits = props.digits ?? digitsFor(most), digitsOf = (r) => (Array.isArray(digits) ? digits[r] : digits);
  const rest = columns - shownColumns;
  const table = useMemo(() => {
    const head = Array.from({ length: shownColumns }, (_, c) => html`<th scope="col" data-c=${c}>${columnLabels?.[c] ?? c}</th>`);
    const body = Array.from({ length: shownRows }, (_, r) => {
      const label = rowLabels?.[r] ?? String(r);
      const cells = Array.from({ length: shownColumns }, (_, c) => (onEdit
        ? html`<td class="edit" data-r=${r} data-c=${c}><${EditCell} value=${data[r * columns + c]}
          label=${`${name}, ${label}, ${columnLabels?.[c] ?? `column ${c}`}`} onChange=${(x) => onEdit(r, c, x)} /></td>`
        : html`<${Cell} x=${data[r * columns + c]} most=${most} heat=${heat} digits=${digitsOf(r)} row=${r} column=${c}
          className=${mark?.(r, c)} />`));
      return html`<tr class=${r === picked ? "picked" : ""}>
        <th scope="row" data-r=${r}>${onPick && !onEdit ? html`<button type="button" class="quiet" aria-pressed=${r === picked}
          onClick=${() => onPick(r, 0)}>${label}</button>` : label}</th>
        ${cells}${rest > 0 && html`<td class="cut">…</td>`}</tr>`;
    });
    return html`<thead><tr><td class="corner"></td>${head}${rest > 0 && html`<th scope="col" class="cut">…</th>`}</tr></thead>
      <tbody>${body}</tbody>`;
  }, [data, rows, columns, shownRows, shownColumns, rowLabels, columnLabels, heat, picked, mark, onPick, onEdit, most, String(digits), name]);
  return html`<figure class=${`matrix ${className}`}>
    <figcaption><strong>${name}</strong> <span class="stats">${rows} × ${columns}</span></figcaption>
    <div class="matrix-frame">
      <div class="matrix-scroll" ref=${root} tabindex="0" role="group"
        aria-label=${`${name}, ${rows} by ${columns} numbers. Arrow keys go from cell to cell.`} ...${handlers}>
        <table aria-label=${name}>${table}</table>
      </div>
      <${Readout} at=${at} props=${props} />
    </div>
    ${(rest > 0 || shownRows < rows) && html`<div class="matrix-more">
      ${rest > 0 && html`<${More} n=${rest} what="column" more=${!wide && (() => setWide(true))} />`}
      ${shownRows < rows && html`<${More} n=${rows - shownRows} what="row" more=${!tall && (() => setTall(true))} />`}</div>`}
    ${note && html`<p class="hint">${note}</p>`}
  </figure>`;
}
