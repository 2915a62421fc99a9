// SPDX-License-Identifier: MIT
// What the steps of the walk share: asking the server, arithmetic on its arrays, the number table, a step's parts, the worked example.
// An array is {shape, data}, data a Float32Array, row after row.

import { count, number, visible } from "../../../lib/format.js";
import { html, useEffect, useMemo, useRef, useState } from "../../../lib/html.js";
import { arrow, range, useInspect } from "../../../lib/inspect.js";
import { fail } from "../../../lib/server.js";
import { createStore, useStore } from "../../../lib/store.js";

// ---------------------------------------------------------------- asking

/** The answer to `body` (null: nothing is asked); null until it is there. `stale`: an answer to an earlier question stands until then. */
export function useLook(body, stale) {
  const { answer, error, busy, again } = useInspect(body && { ...body, encoding: "float32" });
  useEffect(() => { if (error) fail(error, again); }, [error]);
  return answer && body && (stale || !busy) ? answer : null;
}

/** What the model has of the text. */
export const useText = ({ model, tokens }, what, rest, stale) => useLook({ model, prompt: tokens.ids, what, ...rest }, stale);

// ---------------------------------------------------------------- arithmetic

export const sum = (xs) => xs.reduce((x, y) => x + y, 0);
export const norm = (xs) => Math.sqrt(xs.reduce((all, x) => all + x * x, 0));
export const row = (a, r) => a.data.subarray(r * a.shape[1], (r + 1) * a.shape[1]);
/** An array of rows of numbers. */
export function arrayOf(rows) {
  const columns = rows[0].length, data = new Float32Array(rows.length * columns);
  rows.forEach((one, r) => data.set(one, r * columns));
  return { shape: [rows.length, columns], data };
}
/** The rows of an array, each made another by `fn`. */
export const byRow = (a, fn) => arrayOf(range(a.shape[0]).map((r) => fn(row(a, r), r)));
export const rowSums = (a) => byRow(a, (xs) => [sum(xs)]);
export const mapped = (a, fn) => byRow(a, (xs, r) => xs.map((x, c) => fn(x, r, c)));
export const greatestDifference = (a, b) => a.data.reduce((most, x, i) => Math.max(most, Number.isFinite(x) ? Math.abs(x - b.data[i]) : 0), 0);

/** The i-th part along the first dimension. */
export function part(a, i) {
  const size = a.data.length / a.shape[0];
  return { shape: a.shape.slice(1), data: a.data.subarray(i * size, (i + 1) * size) };
}

/** a b, or a bᵀ where `turned`. */
export function product(a, b, turned) {
  const width = b.shape[1], columns = range(turned ? b.shape[0] : width);
  return byRow(a, (xs) => columns.map((c) => {
    let dot = 0;
    for (let k = 0; k < xs.length; k++) dot += xs[k] * b.data[turned ? c * width + k : k * width + c];
    return dot;
  }));
}

/** Row by row softmax(x * scale). */
export const softmax = (a, scale = 1) => byRow(a, (xs) => {
  const most = Math.max(...xs) * scale, powers = Array.from(xs, (x) => Math.exp(x * scale - most)), all = sum(powers);
  return powers.map((x) => x / all);
});

/** [H][T][D] -> [T][H * D]: the heads side by side. */
export function sideBySide(a) {
  const [heads, n] = a.shape;
  return arrayOf(range(n).map((t) => range(heads).flatMap((h) => [...row(part(a, h), t)])));
}

/** A number of any size without "e": 1.0·10⁻⁷. */
export function small(x, digits = 2) {
  const [mantissa, exponent] = number(x, digits).split("e");
  return exponent ? `${mantissa}·10${String(Number(exponent)).replace(/./g, (c) => (c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[c]))}` : mantissa;
}

// ---------------------------------------------------------------- the number table

const GROWN = 4; // how many times as much is shown once more was asked for
const blocked = (x) => x === -Infinity || Number.isNaN(x);
const spot = ([r, c]) => `td[data-r="${r}"][data-c="${c}"]`;

/** A number that may be changed; what is typed stands until the field is left. */
function Edit({ value, label, onChange }) {
  const [typed, setTyped] = useState(null);
  const text = typed ?? String(Number(value.toPrecision(7))), good = (one) => one.trim() !== "" && Number.isFinite(Number(one));
  const change = ({ target }) => {
    setTyped(target.value);
    if (good(target.value)) onChange(Number(target.value));
  };
  return html`<input type="number" step="0.01" aria-label=${label} aria-invalid=${good(text) ? undefined : "true"} value=${text} onInput=${change}
    onBlur=${() => setTyped(null)} />`;
}

/** Which cell the pointer or the arrow keys are at; its row's and column's labels light up without drawing the table anew. */
function useCursor(root, rows, columns, onPick) {
  const [at, setAt] = useState(null);
  useEffect(() => {
    for (const lit of root.current.querySelectorAll(".lit")) lit.classList.remove("lit");
    if (!at) return;
    for (const node of root.current.querySelectorAll(`th[data-r="${at[0]}"], th[data-c="${at[1]}"], ${spot(at)}`)) node.classList.add("lit");
  });
  const leave = () => setAt(null);
  const onPointerOver = (event) => {
    const cell = event.target.closest("td[data-r]");
    if (cell) setAt([Number(cell.dataset.r), Number(cell.dataset.c)]);
  };
  const onKeyDown = (event) => {
    if (event.target !== event.currentTarget) return;
    if (event.key === "Enter" && at) onPick?.(at[0]);
    const next = at ? arrow(event, at, rows, columns) : arrow(event, [0, 0], 1, 1);
    if (!next) return;
    setAt(next);
    root.current.querySelector(spot(next)).scrollIntoView({ block: "nearest", inline: "nearest" });
  };
  return [at, { onPointerOver, onPointerLeave: leave, onKeyDown, onBlur: leave }];
}

/** The <table> of the first rows and columns; `most` is the largest magnitude of all. */
function cellsOf({ name, a, rowLabels, columnLabels, heat, digits, picked, onPick, mark, onEdit }, rows, columns, most) {
  const { data, shape: [, width] } = a;
  const cut = columns < width, across = (fn) => range(columns).map(fn);
  const cell = (r, c) => {
    const x = data[r * width + c], at = { "data-r": r, "data-c": c };
    if (onEdit) return html`<td class="edit" ...${at}><${Edit} value=${x} label=${`${name}, ${rowLabels[r]}, ${columnLabels[c]}`}
      onChange=${(to) => onEdit(r, c, to)} /></td>`;
    if (blocked(x)) return html`<td class="masked" ...${at}><span>−∞</span></td>`;
    const text = Math.abs(x).toFixed(digits?.[r] ?? digits ?? (most < 100 ? 4 : most < 1000 ? 2 : 1));
    return html`<td class=${`${x < 0 ? "neg" : "pos"} ${mark?.(r, c) ?? ""}`} ...${at}
      style=${{ "--heat": `${heat === "none" || most === 0 ? 0 : Math.abs(x) / most * 45}%` }}>${x < 0 && Number(text) ? "−" : ""}${text}</td>`;
  };
  return html`<table aria-label=${name}>
    <thead><tr><td></td>
      ${across((c) => html`<th scope="col" data-c=${c}>${columnLabels?.[c] ?? c}</th>`)}
      ${cut && html`<th class="cut">…</th>`}</tr></thead>
    <tbody>${range(rows).map((r) => html`<tr class=${r === picked ? "picked" : ""}>
      <th scope="row" data-r=${r}>${onPick ? html`<button type="button" class="quiet" aria-pressed=${r === picked}
        onClick=${() => onPick(r)}>${rowLabels[r]}</button>` : rowLabels[r]}</th>
      ${across((c) => cell(r, c))}${cut && html`<td class="cut">…</td>`}</tr>`)}</tbody></table>`;
}

/**
 * A table of numbers: shape, labels, colours by size, hover and arrow keys that read a cell aloud in full. Of a large one a corner is shown, and
 * more on demand. heat "none": no colours. digits: after the point, or a list of them by row. picked: a row that stands out; onPick(row): rows can
 * be picked. mark(row, column): a class for a cell. onEdit(row, column, x): cells are fields. note: a line below.
 */
function Matrix(props) {
  const { name, a, rowLabels, columnLabels, onPick, maxRows = 16, maxColumns = 12, note } = props;
  const [rows, columns] = a.shape, root = useRef();
  const [wide, setWide] = useState(1), [tall, setTall] = useState(1);
  const shownRows = Math.min(rows, maxRows * tall), shownColumns = Math.min(columns, maxColumns * wide);
  const [at, handlers] = useCursor(root, shownRows, shownColumns, onPick);
  const most = useMemo(() => a.data.reduce((top, x) => (blocked(x) ? top : Math.max(top, Math.abs(x))), 0), [a.data]);
  const cells = useMemo(() => cellsOf(props, shownRows, shownColumns, most), [props, wide, tall]); // hovering changes no props
  const [r, c] = at ?? [], x = a.data[r * columns + c];
  const more = (n, what, times, grow) => {
    const text = `… ${count(n)} more ${what}${n === 1 ? "" : "s"}`;
    return n > 0 && (times > 1 ? html`<span class="hint">${text}</span>`
      : html`<button type="button" class="quiet" onClick=${() => grow(GROWN)}>${text}</button>`);
  };
  return html`<figure class="matrix">
    <figcaption><strong>${name}</strong> <span class="stats">${rows} × ${columns}</span></figcaption>
    <div class="matrix-frame">
      <div class="matrix-scroll" ref=${root} tabindex="0" role="group"
        aria-label=${`${name}, ${rows} by ${columns} numbers. Arrow keys go from cell to cell.`} ...${handlers}>${cells}</div>
      <p class="matrix-readout" role="status">${at && `${rowLabels[r]}, ${columnLabels?.[c] ?? `column ${c}`}: ${
  blocked(x) ? "not allowed by the mask (−∞)" : number(x, 7)}`}</p>
    </div>
    <div class="matrix-more">${more(columns - shownColumns, "column", wide, setWide)} ${more(rows - shownRows, "row", tall, setTall)}</div>
    ${note && html`<p class="hint">${note}</p>`}
  </figure>`;
}

/** Tables side by side: [name, array, how it is drawn (see Matrix), the note below it], or what is drawn already. */
export const tables = (...all) => html`<div class="walk-arrays">${all.map((one) => (Array.isArray(one)
  ? html`<${Matrix} name=${one[0]} a=${one[1]} ...${one[2]} note=${one[3]} />` : one))}</div>`;

/** One row in its steps: lines [[name, digits, numbers]], as a table. */
export const byHand = (lines, word, note, look) => tables([`the row of “${word}” by hand`, arrayOf(lines.map((one) => one[2])),
  { rowLabels: lines.map((one) => one[0]), digits: lines.map((one) => one[1]), heat: "none", ...look }, note]);

// ---------------------------------------------------------------- what every step is made of

export const waiting = () => html`<p class="hint walk-waiting" role="status">Computing…</p>`;
/** A formula; `said` is how it is read aloud. */
export const formula = (said, text) => html`<p class="walk-formula" role="math" aria-label=${said}><span aria-hidden="true">${text}</span></p>`;

/** What it is about, the formula, the numbers (a component of ctx), what to try. */
export const page = (ctx, say, said, text, Numbers, tries) => html`<p class="walk-say">${say}</p>${formula(said, text)}
  <${Numbers} ctx=${ctx} /><aside class="walk-try" aria-label="What to try"><h3>Try</h3><ul>${tries}</ul></aside>`;

/** What the numbers above say, and in a word whether it is as it should be. */
export const finding = (good, yes, no, text) => html`<p class="walk-finding"><span class=${`tag ${good ? "good" : "bad"}`}>${good ? yes : no}</span>
  <span>${text}</span></p>`;

/** A plain table. heads: [[name, kind, title]], kind: "num", "th" (the cells name their row) or another class of the column's; rows: [[cell]]. */
export const list = (label, id, heads, rows) => html`<div class="table-scroll" tabindex="0" role="group" aria-label=${label}>
  <table class="walk-table" id=${id}><thead><tr>${heads.map(([name, kind, title]) => html`<th scope="col" class=${kind}
    title=${title}>${name}</th>`)}</tr></thead>
  <tbody>${rows.map((cells) => html`<tr>${cells.map((cell, i) => (heads[i][1] === "th" ? html`<th scope="row">${cell}</th>`
    : html`<td class=${heads[i][1]}>${cell}</td>`))}</tr>`)}</tbody></table></div>`;

export const slider = (text, value, set, max, step) => html`<label class="walk-slider">${text}<input type="range" min="0" max=${max} step=${step}
  value=${value} onInput=${(event) => set(Number(event.target.value))} /></label>`;

export const token = (text, i, id) => html`<span class=${`tok t${i % 5}`} title=${id}>${text}</span>`;
export const labelsOf = (texts) => texts.map(visible);

// ---------------------------------------------------------------- the worked example

// Source: Sangameeee/LLM-from-scratch, attention_mechanism.ipynb (cells counted from 0); what torch 2.x draws after torch.manual_seed of the seed
// that stands beside each. Every matrix stands as in x W, [in][out]: those of nn.Linear are turned over.

export const WORDS = ["Your", "journey", "starts", "with", "one", "step"];
const INPUTS = [[0.43, 0.15, 0.89], [0.55, 0.87, 0.66], [0.57, 0.85, 0.64], [0.22, 0.58, 0.33], [0.77, 0.25, 0.1], [0.05, 0.8, 0.55]];

/** Cell 29: torch.manual_seed(123), then torch.rand(3, 2) three times. */
export const RAND = {
  W_q: [[0.29611194, 0.5165623], [0.25167072, 0.6885568], [0.07397246, 0.86652195]],
  W_k: [[0.13657987, 0.10247904], [0.18405646, 0.72644675], [0.3152539, 0.68710667]],
  W_v: [[0.075635314, 0.19663817], [0.31641197, 0.40174013], [0.1185683, 0.8273954]],
};

/** Cell 45, SelfAttention_v2: torch.manual_seed(789), then three nn.Linear(3, 2). */
export const LINEAR = {
  W_q: [[0.31605908, -0.1682854], [0.45680857, -0.33787704], [0.51183486, -0.09177387]],
  W_k: [[0.40580583, 0.21336074], [-0.47042054, -0.26005065], [0.2368052, -0.510543]],
  W_v: [[0.25256988, 0.5191074], [-0.14147827, -0.08516758], [-0.19618134, -0.20432705]],
};

/** Cell 67, CausalAttention: nn.Linear(3, 2) after torch.manual_seed(123); also the first head of cell 72. */
export const FIRST = {
  W_q: [[-0.23542964, 0.21772662], [0.019124476, -0.4919342], [-0.28674594, 0.42322308]],
  W_k: [[-0.4196414, 0.2614782], [-0.45901766, -0.2133264], [-0.36482018, 0.21605217]],
  W_v: [[-0.49001414, -0.11346072], [-0.35029206, -0.44043937], [-0.2119892, 0.37804362]],
};

/** Cell 72: two heads. */
export const HEADS = {
  W_q: [FIRST.W_q, [[-0.13615717, 0.107563816], [0.18532233, 0.15787685], [0.4082695, 0.55729234]]],
  W_k: [FIRST.W_k, [[-0.2603904, 0.41260317], [0.18287641, 0.4611045], [-0.25687245, -0.53230095]]],
  W_v: [FIRST.W_v, [[0.49285263, 0.23768058], [0.27569306, 0.47995073], [0.25159022, -0.07623307]]],
};

/** Cell 75's way, one matrix divided among two heads, and what joins them after it. */
export const DIVIDED = { ...FIRST, n_head: 2, W_o: [[-0.16675779, 0.500026], [0.22697258, 0.13173823]], b_o: [0.19335887, 0.68254095] };

export const IN = ["x₀", "x₁", "x₂"];
const exampleInputs = createStore(INPUTS);
const set = (r, c, x) => exampleInputs.set((rows) => rows.map((old, i) => (i === r ? old.with(c, x) : old)));

export const useInputs = () => useStore(exampleInputs);
/** What attention makes of the example's inputs with these weights. */
export function useExample(weights, rest) {
  const inputs = useInputs();
  return useLook({ matrices: { inputs, ...weights }, what: ["qkv", "scores", "weights", "context"], ...rest }, true);
}

/** The six words' inputs, which may be changed. */
export function Inputs() {
  const rows = useInputs();
  return html`<${Matrix} name="inputs x" a=${arrayOf(rows)} rowLabels=${WORDS} columnLabels=${IN} onEdit=${set} note=${rows === INPUTS
    ? "Change a number and watch every table below follow."
    : html`These are your numbers. <button type="button" class="quiet"
      onClick=${() => exampleInputs.set(INPUTS)}>Back to the example's</button>`} />`;
}
