// SPDX-License-Identifier: MIT
// The logit lens: after every layer the model's own last step (norm and output table) is applied, as if it stopped there. One column a token of the
// text, one row a layer; the last row is what the model really says next.

import { percent, visible } from "../../lib/format.js";
import { html, useEffect, useLayoutEffect, useMemo, useRef, useState } from "../../lib/html.js";
import { namesOf, useInspect } from "../../lib/inspect.js";
import { useParam } from "../../lib/store.js";
import { Card, Segmented } from "../../lib/ui.js";
import { Failed } from "./failed.js";

const BEST = 5;
const COLUMNS = [["4", "4"], ["8", "8"], ["16", "16"], ["32", "32"]];

const rowName = (row, last) => (row === 0 ? "embedding" : row === last ? `layer ${row - 1}: answer` : `layer ${row - 1}`);

/** The lens with an index: best(row, column) -> [{id, text, p}]. */
function readLens({ shape: [rows, columns, k], ids, texts, probabilities, first_token: first }) {
  const names = namesOf({ ids, texts });
  const best = (row, column) => Array.from({ length: k }, (_, i) => {
    const at = (row * columns + column) * k + i;
    return { id: ids[at], text: names[at], p: probabilities[at] };
  });
  return { rows, columns, first, best, top: (row, column) => ids[(row * columns + column) * k] };
}

const range = (n) => Array.from({ length: n }, (_, i) => i);

/** Where the answer after the last token comes from, in a sentence. */
function Story({ lens, texts }) {
  const last = lens.rows - 1, column = lens.columns - 1, [answer] = lens.best(last, column);
  let since = last;
  while (since > 0 && lens.top(since - 1, column) === answer.id) since--;
  let before = null;
  for (let row = since - 1; row >= 0 && !before; row--) before = lens.best(row, column)[0];
  const when = since === last ? "Only the last layer brings it to the front." : since === 0 ? "The embedding alone already says so."
    : `It is in front from layer ${since - 1} on.`;
  return html`<p id="lens-story">After <code>${visible(texts[texts.length - 1])}</code> the model says <code>${visible(answer.text)}</code>
    ${" "}with ${percent(answer.p)}. ${when}
    ${before && html` Until then it was <code>${visible(before.text)}</code>.`}</p>`;
}

function Best({ lens, at: [row, column], texts, place }) {
  const node = useRef();
  useLayoutEffect(() => {
    const card = node.current, box = card.getBoundingClientRect(), below = place.bottom + 6 + box.height <= innerHeight;
    card.style.left = `${Math.min(Math.max(8, place.left), innerWidth - box.width - 8)}px`;
    card.style.top = `${below ? place.bottom + 6 : Math.max(8, place.top - box.height - 6)}px`;
  });
  const last = lens.rows - 1;
  const when = row === 0 ? "from the embedding alone" : row === last ? "the model's answer" : `if it stopped after layer ${row - 1}`;
  return html`<div class="token-card inside-lens-card" ref=${node}>
    <p class="hint">after <code>${visible(texts[lens.first + column])}</code>, ${when}</p>
    <ol class="bars">${lens.best(row, column).map(({ id, text, p }) => html`<li><span class=${`bar ${id === lens.top(last, column) ? "chosen" : ""}`}>
      <span class="bar-fill" style=${{ width: `${Math.max(p * 100, 0.5)}%` }}></span>
      <span class="bar-text">${visible(text)}</span><span class="bar-value">${percent(p)}</span></span></li>`)}</ol>
  </div>`;
}

function Cell({ lens, row, column }) {
  const [{ id, text, p }] = lens.best(row, column), settled = id === lens.top(lens.rows - 1, column);
  return html`<td id=${`lens-${row}-${column}`} data-at=${`${row} ${column}`} class=${settled ? "settled" : undefined}
    style=${{ backgroundColor: `color-mix(in srgb, var(--accent) ${Math.round(p * 45)}%, var(--card))` }}>${visible(text)}</td>`;
}

function Cells({ lens, texts }) {
  const columns = range(lens.columns), last = lens.rows - 1;
  return html`<table>
    <thead><tr><th scope="col">after</th>${columns.map((c) => html`<th scope="col">${visible(texts[lens.first + c])}</th>`)}</tr></thead>
    <tbody>${range(lens.rows).map((row) => html`<tr class=${row === last ? "answer-row" : undefined}><th scope="row">${rowName(row, last)}</th>
      ${columns.map((c) => html`<${Cell} lens=${lens} row=${row} column=${c} />`)}</tr>`)}</tbody>
  </table>`;
}

function LensTable({ lens, texts }) {
  const host = useRef(), hide = useRef(0), [open, setOpen] = useState(null); // {at: [row, column], place}
  useEffect(() => () => clearTimeout(hide.current), []);
  useEffect(() => setOpen(null), [lens]);
  useEffect(() => {
    if (!open) return undefined;
    const close = () => setOpen(null);
    addEventListener("scroll", close, { passive: true });
    return () => removeEventListener("scroll", close);
  }, [open !== null]);
  const show = (row, column, scroll = false) => {
    clearTimeout(hide.current);
    const cell = host.current.querySelector(`#lens-${row}-${column}`);
    if (scroll) cell.scrollIntoView({ block: "nearest", inline: "nearest" });
    const { left, top, bottom } = cell.getBoundingClientRect();
    setOpen({ at: [row, column], place: { left, top, bottom } });
  };
  const onOver = (event) => {
    const at = event.target.closest?.("[data-at]")?.dataset.at.split(" ").map(Number);
    if (at && (at[0] !== open?.at[0] || at[1] !== open?.at[1])) show(...at);
  };
  const onKey = (event) => {
    const move = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
    if (event.key === "Escape") setOpen(null);
    if (!move) return;
    event.preventDefault();
    const [row, column] = open ? [open.at[0] + move[0], open.at[1] + move[1]] : [lens.rows - 1, lens.columns - 1];
    show(Math.min(Math.max(row, 0), lens.rows - 1), Math.min(Math.max(column, 0), lens.columns - 1), true);
  };
  const cells = useMemo(() => html`<${Cells} lens=${lens} texts=${texts} />`, [lens, texts]); // not drawn again while the pointer moves
  useEffect(() => {
    const cell = open && host.current.querySelector(`#lens-${open.at.join("-")}`);
    cell?.classList.add("current");
    return () => cell?.classList.remove("current");
  }, [open]);
  const now = open && lens.best(...open.at)[0];
  const where = open && `${rowName(open.at[0], lens.rows - 1)}, after ${visible(texts[lens.first + open.at[1]])}`;
  return html`<div class="table-scroll inside-lens" ref=${host} tabindex="0" role="region" onKeyDown=${onKey} onPointerOver=${onOver}
      onClick=${onOver} aria-label="The best token after every layer. Arrow keys go from cell to cell." onBlur=${() => setOpen(null)}
      onPointerLeave=${() => { hide.current = setTimeout(() => setOpen(null), 150); }}>
    ${cells}
    ${open && html`<${Best} lens=${lens} at=${open.at} texts=${texts} place=${open.place} />`}
    <p class="sr" role="status">${now ? `${where}: ${visible(now.text)} ${percent(now.p)}` : ""}</p>
  </div>`;
}

export default function Lens({ model, tokens }) {
  const [wanted, setWanted] = useParam("columns", "8");
  const columns = COLUMNS.some(([value]) => value === wanted) ? wanted : "8";
  const { answer, asked, error, busy, again } = useInspect({ model, prompt: tokens.ids, what: ["lens"], lens_tokens: Number(columns), top_k: BEST });
  const [shown, setShown] = useState(null); // read once an answer, with the texts it belongs to
  useEffect(() => { if (answer) setShown({ lens: readLens(answer.lens), texts: namesOf(answer.tokens), model: asked.model }); }, [answer]);
  const tools = html`<span class="count" role="status">${busy ? "looking…" : ""}</span><span class="hint">last</span>
    <${Segmented} label="How many of the last tokens" value=${columns} onChange=${setWanted} options=${COLUMNS} /><span class="hint">tokens</span>`;
  if (error) return html`<${Failed} title="The lens did not come" error=${error} again=${again} />`;
  const ready = shown?.model === model ? shown : null;
  return html`<${Card} title="What the model would say if it stopped early" tools=${tools} id="inside-lens">
    <p class="hint">Every layer reads a token's vector and adds to it. Here each half-finished vector goes straight to the output: the cell names
      the likeliest next token, in stronger colour where the model is surer. Framed cells already agree with the answer in the last row.</p>
    ${ready ? html`<${Story} lens=${ready.lens} texts=${ready.texts} /><${LensTable} lens=${ready.lens} texts=${ready.texts} />`
    : html`<p class="hint" role="status">Reading what every layer would say…</p>`}
  <//>`;
}
