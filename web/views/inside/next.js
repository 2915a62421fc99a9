// SPDX-License-Identifier: MIT
// What the model says next, and where that comes from.
//
// Heads: silence some of them and see what it says instead; or try them one after the other and see which one a word hangs on. A trial runs on while
// other parts are looked at; its results stay for the visit.
// The logit lens: after every layer the model's own last step (norm and output table) is applied, as if it stopped there. One column a token of the
// text, one row a layer; the last row is what the model really says next.

import { number, percent, plural, visible } from "../../lib/format.js";
import { html, useEffect, useLayoutEffect, useMemo, useRef, useState } from "../../lib/html.js";
import { arrow, Failed, inspect, Looking, namesOf, range, tinted, tokensOf, useInspect, within } from "../../lib/inspect.js";
import { fail } from "../../lib/server.js";
import { createStore, useParam, useStore } from "../../lib/store.js";
import { Bars, useBeside } from "../../lib/token_text.js";
import { Card, Progress, Segmented, Select } from "../../lib/ui.js";

const SHOWN = 10;
const BEST = 20; // candidates of an answer: the most that the server names
const SMALLEST = 0.005; // half a point: bars and tints of less are pale

// ---------------------------------------------------------------- the next token, with heads silenced

const question = (model, { n_layer: layers, n_vocab: most }, ids, ablate) =>
  ({ model, prompt: ids, what: ["lens"], layer: layers - 1, lens_tokens: 1, top_k: Math.min(BEST, most), ablate });

/** [{id, text, p}] of such an answer, likeliest first. */
const nextOf = ({ lens }) => tokensOf(lens, lens.probabilities);

/** The probability of a token in a distribution: {p, exact}; exact false: it is not among the best, p is the bound that the last of them sets. */
function chanceOf(best, id) {
  const one = best.find((other) => other.id === id);
  return { p: (one ?? best.at(-1)).p, exact: Boolean(one) };
}

/** A chance in words; percent has a sign of its own for the smallest. */
const said = ({ p, exact }) => (exact || p < 1e-4 ? percent(p) : `<${percent(p)}`);

/** "3.2_4.0" of the address <-> a set of "3.2". */
const readOff = (text, { n_layer: layers, n_head: heads }) => new Set((text ?? "").split("_").filter((one) => {
  const [l, h, more] = one.split(".").map(Number);
  return l >= 0 && l < layers && h >= 0 && h < heads && more === undefined;
}));
const pairsOf = (off) => off.map((one) => one.split(".").map(Number));

// ---------------------------------------------------------------- trials

const trial = createStore({ running: null, done: 0, of: 0 }); // running: what stops it
const found = new Map(); // "model ids token" -> Map of "layer.head" -> its chance without that head

function results(model, ids, token) {
  const key = `${model} ${ids} ${token}`;
  if (!found.has(key)) found.set(key, new Map());
  return found.get(key);
}

/** Silences each of `places` alone and remembers what happens to `token`. One trial at a time. */
async function tryHeads(model, architecture, ids, token, places) {
  if (trial.get().running) return;
  const into = results(model, ids, token);
  const running = new AbortController();
  trial.set({ running, done: 0, of: places.length });
  try {
    for (const place of places) {
      into.set(place.join("."), chanceOf(nextOf(await inspect(question(model, architecture, ids, [place]), running.signal)), token));
      trial.patch({ done: trial.get().done + 1 });
    }
  } catch (error) {
    fail(error, () => tryHeads(model, architecture, ids, token, places));
  } finally {
    trial.patch({ running: null });
  }
}

// ---------------------------------------------------------------- switches

function switched(off, places) {
  const next = new Set(off), all = places.every((place) => off.has(place));
  for (const place of places) if (all) next.delete(place); else next.add(place);
  return next;
}

/** A switch for every head. One stop of the Tab key; arrow keys go about, Space switches. effects: "layer.head" -> its chance; p: with all heads. */
function HeadSwitches({ architecture: { n_layer: layers, n_head: heads }, off, onChange, effects, p }) {
  const host = useRef(), [focus, setFocus] = useState("0.0");
  const most = Math.max(SMALLEST, ...[...effects.values()].map((one) => Math.abs(one.p - p)));
  const placeOf = (event) => event.target.closest("[data-at]")?.dataset.at;
  const onKey = (event) => {
    const at = placeOf(event);
    if (!at) return;
    const [l, h] = at.split(".").map(Number), to = arrow(event, [l, h + 1], layers, heads + 1); // column 0: the layer's own button
    if (!to) return;
    const next = `${to[0]}.${to[1] - 1}`;
    setFocus(next);
    host.current.querySelector(`[data-at="${next}"]`).focus();
  };
  const toggle = (event) => {
    const at = placeOf(event);
    if (!at) return;
    setFocus(at);
    const [l, h] = at.split(".");
    onChange(switched(off, h < 0 ? range(heads).map((i) => `${l}.${i}`) : [at]));
  };
  const tint = (one) => tinted((0.8 * Math.abs(one.p - p)) / most, one.p < p ? "--c2" : "--accent");
  const button = (l, h) => {
    const at = `${l}.${h}`, silent = off.has(at), effect = effects.get(at);
    const words = `layer ${l} head ${h}${silent ? ", silenced" : ""}${effect ? `; without it ${percent(effect.p)} instead of ${percent(p)}` : ""}`;
    return html`<td><button type="button" data-at=${at} aria-pressed=${silent} aria-label=${words} title=${words} tabindex=${at === focus ? 0 : -1}
      class="inside-switch" style=${effect && tint(effect)}></button></td>`;
  };
  return html`<div class="scroll"><table class="inside-switches" ref=${host} onKeyDown=${onKey} onClick=${toggle}>
    <thead><tr><td></td>${range(heads).map((h) => html`<th scope="col">${h}</th>`)}</tr></thead>
    <tbody>${range(layers).map((l) => html`<tr><th scope="row"><button type="button" data-at=${`${l}.-1`} class="quiet"
      aria-label=${`All heads of layer ${l}`} tabindex=${`${l}.-1` === focus ? 0 : -1}>${l}</button></th>
      ${range(heads).map((h) => button(l, h))}</tr>`)}</tbody>
  </table></div>
  ${effects.size > 0 && html`<p class="legend"><i class="inside-key less"></i> less likely without it
    <i class="inside-key more"></i> likelier</p>`}`;
}

// ---------------------------------------------------------------- what it says

const Word = ({ text }) => html`<code>${visible(text)}</code>`;

/** What the model says, and what it says without the silenced heads (after; null with all heads). */
function Said({ before: [before], after, off, last }) {
  const first = html`<${Word} text=${before.text} /> (${percent(before.p)})`, place = html`After <${Word} text=${last} /> the model`;
  if (!after) return html`<p>${place} says ${first}. Silence a head to see what changes.</p>`;
  const now = after[0].id === before.id ? html`still says it, with ${percent(after[0].p)}`
    : html`says <${Word} text=${after[0].text} /> (${percent(after[0].p)})`;
  return html`<p>${place} said ${first}; without ${off.size === 1 ? "this head" : `these ${off.size} heads`} it ${now}.</p>`;
}

/** The best tokens before and after (null with all heads), the largest changes first; the one that is taken is what a trial is about. */
function NextToken({ before, after, word, setWord, off, busy, last }) {
  const all = new Map();
  for (const { id, text } of [...after ?? [], ...before]) all.set(id, { id, text, was: chanceOf(before, id), is: chanceOf(after ?? before, id) });
  const change = ({ was, is }) => Math.abs(was.p - is.p);
  const rows = [...all.values()].sort((a, b) => change(b) - change(a) || b.was.p - a.was.p).slice(0, SHOWN);
  const share = ({ p, exact }) => (exact ? p : 0), most = Math.max(...rows.flatMap(({ was, is }) => [share(was), share(is)]));
  const bar = (chance, kind) => html`<span class=${`inside-bar ${kind}`}>
    <i style=${{ width: `${(share(chance) / most) * 100}%` }}></i><span class="count">${said(chance)}</span></span>`;
  return html`<${Card} title="The next token" id="inside-next" tools=${html`<span class="count" role="status">${busy ? "looking…" : ""}</span>`}>
    <${Said} before=${before} after=${after} off=${off} last=${last} />
    <ol class="bars">${rows.map((one) => html`<li key=${one.id}><button type="button" class="inside-pair" aria-pressed=${word.id === one.id}
      title="Take this word for the trial below" onClick=${() => setWord(one)}><${Word} text=${one.text} />
      <span>${bar(one.was, "before")}${after && bar(one.is, "after")}</span></button></li>`)}</ol>
    ${after && html`<p class="legend"><i class="inside-key before"></i> before <i class="inside-key after"></i> after; largest changes first</p>`}
  <//>`;
}

/** In one line, always in sight: what the silenced heads do to the word. */
function Effect({ base, now, word, off }) {
  const after = now ? ` → ${said(chanceOf(now, word.id))} without ${plural(off.size, "head")}` : " with all heads";
  return html`<p class="stats inside-effect" role="status">${visible(word.text)} ${said(chanceOf(base, word.id))}${after}</p>`;
}

// ---------------------------------------------------------------- which head matters

/** The heads of one layer: what each alone does to a word of probability p. */
function Changes({ layer, here, p }) {
  const most = Math.max(SMALLEST, ...here.map((one) => Math.abs(one ? one.p - p : 0)));
  const words = (one) => `${said(one)} (${one.p < p ? "−" : "+"}${number(Math.abs(one.p - p) * 100, 2)} points)`;
  const bar = (one) => html`<i class=${one.p < p ? "less" : "more"} style=${{ width: `${(Math.abs(one.p - p) / most) * 50}%` }}></i>`;
  return html`<ol class="bars inside-changes" aria-label=${`Heads of layer ${layer}`}>${here.map((one, h) => html`<li><span>head ${h}</span>
    <span class="inside-change">${one && bar(one)}</span><span class="count">${one ? words(one) : "–"}</span></li>`)}</ol>`;
}

function Strongest({ effects, p, word }) {
  const worst = [...effects].filter(([, one]) => one.p < p).sort((a, b) => a[1].p - b[1].p).slice(0, 5);
  if (worst.length === 0) return null;
  return html`<p>Most for <${Word} text=${word.text} />: ${worst.map(([place, one]) =>
    `layer ${place.replace(".", " head ")} (${said(one)} without it)`).join(", ")}.</p>`;
}

/** Which head a word hangs on: a layer's heads, or all, tried one after the other. */
function Trial({ model, tokens, architecture, word, layer, setLayer, effects, p }) {
  const { running, done, of } = useStore(trial), { n_layer: layers, n_head: heads } = architecture;
  const here = range(heads).map((h) => effects.get(`${layer}.${h}`));
  const run = (some) => tryHeads(model, architecture, tokens.ids, word.id, some.flatMap((l) => range(heads).map((h) => [l, h])));
  return html`<${Card} title="Which head matters most for this word?" id="inside-trial">
    <p class="hint">Each head is silenced alone. The bar says how the probability of <${Word} text=${word.text} /> (${percent(p)}) changes:
      ${" "}to the left it falls, so the head was for it.</p>
    <div class="actions">
      <${Select} label="Layer" visibleLabel value=${layer} options=${range(layers).map((l) => [l, l])} onChange=${setLayer} disabled=${Boolean(running)} />
      <button type="button" class="primary" disabled=${Boolean(running)} onClick=${() => run([layer])}>Try the ${heads} heads of layer ${layer}</button>
      <button type="button" disabled=${Boolean(running)} onClick=${() => run(range(layers))}>Try all ${layers * heads}</button>
      ${running && html`<button type="button" onClick=${() => running.abort()}>Stop</button>`}
    </div>
    ${running && html`<${Progress} share=${done / of} label=${`${done} of ${of} heads tried`} />`}
    ${here.some(Boolean) && html`<${Changes} layer=${layer} here=${here} p=${p} />`}
    ${effects.size > heads && html`<${Strongest} effects=${effects} p=${p} word=${word} />`}
  <//>`;
}

export function Heads({ model, tokens, architecture }) {
  const [offText, setOff] = useParam("off"), [layerText, setLayer] = useParam("layer", "0");
  const off = useMemo(() => readOff(offText, architecture), [offText, architecture]), layer = within(layerText, architecture.n_layer);
  const before = useInspect(question(model, architecture, tokens.ids, []));
  const after = useInspect(off.size > 0 ? question(model, architecture, tokens.ids, pairsOf([...off].sort())) : null);
  const [picked, setWord] = useState(null);
  useStore(trial); // its results tint the switches
  useEffect(() => setWord(null), [tokens]);
  const wrong = [before, after].find((one) => one.error);
  if (wrong) return html`<${Failed} error=${wrong.error} again=${wrong.again} />`;
  const mine = ({ answer, asked }) => (answer && asked.prompt === tokens.ids ? nextOf(answer) : null);
  const base = mine(before), now = off.size > 0 ? mine(after) : null, word = picked ?? base?.[0], each = architecture.n_head / architecture.n_kv_head;
  const change = (next) => setOff([...next].sort().join("_") || null);
  const tools = off.size > 0 && html`<button type="button" class="quiet" onClick=${() => change([])}>Let all speak</button>`;
  const of = base && { effects: results(model, tokens.ids, word.id), p: chanceOf(base, word.id).p };
  return html`<div class="inside-attention inside-heads-part">
    <${Card} title="Silence heads" id="inside-switches" tools=${tools}>
      <p class="hint">A silenced head adds nothing to its layer. Click one; a layer's number silences or frees all of it.
        ${each > 1 && ` ${each} query heads share a key/value head here; each is silenced for itself.`}</p>
      ${base && html`<${Effect} base=${base} now=${now} word=${word} off=${off} />`}
      <${HeadSwitches} architecture=${architecture} off=${off} onChange=${change} effects=${new Map()} p=${0} ...${of} />
    <//>
    <div class="stack">
      ${base ? html`<${NextToken} before=${base} after=${now} word=${word} setWord=${setWord} off=${off} busy=${before.busy || after.busy}
          last=${namesOf(tokens).at(-1)} />
        <${Trial} model=${model} tokens=${tokens} architecture=${architecture} word=${word} layer=${layer} setLayer=${setLayer} ...${of} />`
      : html`<${Card}><${Looking} /><//>`}
    </div>
  </div>`;
}

// ---------------------------------------------------------------- the lens

const OF_A_CELL = 5;
const COLUMNS = ["4", "8", "16", "32"];

/** The lens with an index: best(row, column) -> [{id, text, p}], likeliest first; rowName(row); after[column]: the text's token. */
function readLens({ lens: { shape: [rows, columns, k], ids, texts, probabilities, first_token: first }, tokens }) {
  const all = tokensOf({ ids, texts }, probabilities), last = rows - 1, at = (row, column) => (row * columns + column) * k;
  const best = (row, column) => all.slice(at(row, column), at(row, column) + k), top = (row, column) => all[at(row, column)];
  const rowName = (row) => (row === 0 ? "embedding" : row === last ? `layer ${row - 1}: answer` : `layer ${row - 1}`);
  return { columns, last, best, top, rowName, after: namesOf(tokens).slice(first).map(visible),
    settled: ({ id }, column) => id === top(last, column).id };
}

/** Where the answer after the last token comes from, in a sentence. */
function Story({ lens: { last, columns, after, top, settled } }) {
  const column = columns - 1, answer = top(last, column);
  let since = last;
  while (since > 0 && settled(top(since - 1, column), column)) since--;
  const when = since === last ? "Only the last layer brings it to the front." : since === 0 ? "The embedding alone already says so."
    : `It is in front from layer ${since - 1} on.`;
  return html`<p id="lens-story">After <code>${after[column]}</code> the model says <code>${visible(answer.text)}</code>
    ${" "}with ${percent(answer.p)}. ${when}
    ${since > 0 && html` Until then it was <code>${visible(top(since - 1, column).text)}</code>.`}</p>`;
}

function CellCard({ lens: { best, after, settled, rowName }, at: [row, column], place }) {
  return html`<div class="token-card inside-lens-card" ref=${useBeside(place)}>
    <p class="hint">${rowName(row)}, after <code>${after[column]}</code></p>
    <${Bars} rows=${best(row, column).map((one) => ({ text: one.text, share: one.p, value: percent(one.p), chosen: settled(one, column) }))} />
  </div>`;
}

function table({ columns, last, top, settled, rowName, after }) {
  const cell = (row, column) => {
    const one = top(row, column);
    return html`<td id=${`lens-${row}-${column}`} class=${settled(one, column) ? "settled" : undefined}
      style=${tinted(0.45 * one.p)}>${visible(one.text)}</td>`;
  };
  return html`<table>
    <thead><tr><th scope="col">after</th>${after.map((text) => html`<th scope="col">${text}</th>`)}</tr></thead>
    <tbody>${range(last + 1).map((row) => html`<tr class=${row === last ? "answer-row" : undefined}><th scope="row">${rowName(row)}</th>
      ${range(columns).map((column) => cell(row, column))}</tr>`)}</tbody>
  </table>`;
}

/** The table; pointer and arrow keys go from cell to cell, a card beside it tells the best tokens there. */
function LensTable({ lens }) {
  const [at, setAt] = useState(null); // [row, column]
  const open = at && document.getElementById(`lens-${at.join("-")}`);
  useEffect(() => setAt(null), [lens]);
  useEffect(() => {
    const follow = () => setAt((now) => now && [...now]); // the card stays at its cell
    addEventListener("scroll", follow, { passive: true, capture: true });
    return () => removeEventListener("scroll", follow, { capture: true });
  }, []);
  useLayoutEffect(() => {
    open?.classList.add("current");
    return () => open?.classList.remove("current");
  }, [open]);
  const onOver = (event) => {
    const to = event.target.closest("td")?.id.split("-").slice(1).map(Number);
    if (to && String(to) !== String(at)) setAt(to);
  };
  const onKey = (event) => {
    const rows = lens.last + 1, to = arrow(event, at ?? [rows, lens.columns], rows, lens.columns); // the first key leads to the last cell
    if (event.key === "Escape") setAt(null);
    if (!to) return;
    document.getElementById(`lens-${to.join("-")}`).scrollIntoView({ block: "nearest", inline: "nearest" });
    setAt(to);
  };
  const cells = useMemo(() => table(lens), [lens]); // not drawn again while the pointer moves
  const now = open && lens.top(...at);
  return html`<div class="table-scroll inside-lens" tabindex="0" role="region" onKeyDown=${onKey} onPointerOver=${onOver} onClick=${onOver}
      aria-label="The best token after every layer. Arrow keys go from cell to cell." onBlur=${() => setAt(null)} onPointerLeave=${() => setAt(null)}>
    ${cells}
    ${open && html`<${CellCard} lens=${lens} at=${at} place=${open.getBoundingClientRect()} />`}
    <p class="sr" role="status">${now ? `${lens.rowName(at[0])}, after ${lens.after[at[1]]}: ${visible(now.text)} ${percent(now.p)}` : ""}</p>
  </div>`;
}

export function Lens({ model, tokens }) {
  const [wanted, setWanted] = useParam("columns", "8"), columns = COLUMNS.includes(wanted) ? wanted : "8";
  const body = { model, prompt: tokens.ids, what: ["lens"], lens_tokens: Number(columns), top_k: OF_A_CELL };
  const { answer, asked, error, busy, again } = useInspect(body);
  const lens = useMemo(() => answer && readLens(answer), [answer]), stale = busy && asked?.prompt !== tokens.ids;
  const tools = html`<span class="count" role="status">${busy ? "looking…" : ""}</span><span class="hint">last</span>
    <${Segmented} label="How many of the last tokens" value=${columns} onChange=${setWanted} options=${COLUMNS.map((n) => [n, n])} /><span
      class="hint">tokens</span>`;
  if (error) return html`<${Failed} error=${error} again=${again} />`;
  return html`<${Card} title="What the model would say if it stopped early" tools=${tools} id="inside-lens">
    <p class="hint">Every layer reads a token's vector and adds to it. Here each half-finished vector goes straight to the output: the cell names
      the likeliest next token, in stronger colour where the model is surer. Framed cells already agree with the answer in the last row.</p>
    ${lens ? html`<div class="inside-part" aria-busy=${stale}><${Story} lens=${lens} /><${LensTable} lens=${lens} /></div>`
    : html`<${Looking} />`}
  <//>`;
}
