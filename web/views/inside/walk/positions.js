// SPDX-License-Identifier: MIT
// Step 2: rows of the embedding table, and how the model knows where a token stands: rows that are added, or queries and keys that are turned.
// And a demonstration: two sentences of the same words, which attention cannot tell apart without positions and mask.

import { call } from "../../../lib/api.js";
import { number, plural, visible } from "../../../lib/format.js";
import { html, useEffect, useMemo, useState } from "../../../lib/html.js";
import { inspect, range } from "../../../lib/inspect.js";
import { fail } from "../../../lib/server.js";
import { persistentStore, useStore } from "../../../lib/store.js";
import { useSettled } from "../../../lib/ui.js";
import { arrayOf, finding, formula, list, norm, page, row, sideBySide, slider, small, tables, useText, waiting } from "./arrays.js";

// ---------------------------------------------------------------- rotary: pairs of numbers are turned by an angle that grows with the place

const PAIRS_SHOWN = 6;
const TURNS_AT = [0, 1, 2, 4, 8, 16]; // places of the table of angles, and the sentence's own

const point = ([x, y]) => `(${number(x, 4)}, ${number(y, 4)})`;
const turned = ([x, y], angle) => [x * Math.cos(angle) - y * Math.sin(angle), x * Math.sin(angle) + y * Math.cos(angle)];
const pairAt = (a, t, places) => places.map((c) => row(a, t)[c]);

/** Queries before and after with `way`, the two places of pair i: by how much pairs change their length, how far they are from what turning makes. */
function compared(before, after, way, frequency) {
  let change = 0, most = 0;
  for (let t = 0; t < before.shape[0]; t++) {
    for (let i = 0; i < before.shape[1] / 2; i++) {
      const pair = pairAt(before, t, way(i)), have = pairAt(after, t, way(i)), want = turned(pair, t * frequency(i));
      change += Math.abs(norm(pair) - norm(have));
      most = Math.max(most, Math.abs(want[0] - have[0]), Math.abs(want[1] - have[1]));
    }
  }
  return { before, after, way, frequency, change, most };
}

/** One pair as an arrow: where it points before, and at every place up to `place`. */
function Dial({ pair, frequency, place, label }) {
  const length = norm(pair) || 1, at = (p) => turned(pair, p * frequency).map((x, i) => ((i ? -x : x) / length) * 62);
  return html`<svg class="walk-dial" viewBox="-80 -80 160 160" role="img" aria-label=${label}>
    <circle r="62" /><path d="M-74 0H74M0-74V74" />
    ${range(place + 1).map((p) => html`<circle cx=${at(p)[0]} cy=${at(p)[1]} r="2.6" class="dot" />`)}
    <path d=${`M0 0L${at(0)}`} class="before" /><path d=${`M0 0L${at(place)}`} class="after" /></svg>`;
}

function PairDrawing({ before, way, frequency, labels }) {
  const at = Math.min(labels.length - 1, 2), label = labels[at];
  const [pair, setPair] = useState(0), [place, setPlace] = useState(at);
  const angle = place * frequency(pair), turns = Math.floor(angle / (2 * Math.PI)), rest = number(((angle * 180) / Math.PI) % 360, 4);
  const degrees = turns ? `${plural(turns, "turn")} + ${rest}` : rest, xy = pairAt(before, at, way(pair));
  return html`<div class="row"><${Dial} pair=${xy} frequency=${frequency(pair)} place=${place}
      label=${`Pair ${pair} of the query of ${label}, turned by ${degrees} degrees at position ${place}`} />
    <div class="walk-turn-controls">
      ${slider(`Pair ${pair}: components ${way(pair).join(" and ")}`, pair, setPair, before.shape[1] / 2 - 1)}
      ${slider(`Position ${place}`, place, setPlace, Math.max(16, labels.length - 1))}
      <p class="stats">angle ${number(angle, 5)} rad = ${degrees}° · ${point(xy)} → ${point(turned(xy, angle))}</p>
      <p class="hint">The grey arrow is the pair of “${label}” before, the coloured one the same pair at this position. Its length never changes.
        The first pairs turn fast and tell neighbours apart; the last hardly move and tell far from near.</p>
    </div></div>`;
}

function Rotary({ ctx }) {
  const { architecture: { rope_theta: theta, head_size: size }, labels, head } = ctx;
  const off = useText(ctx, ["qkv"], { layer: 0, head, positions: "off" }), on = useText(ctx, ["qkv"], { layer: 0, head, positions: "on" });
  const pairs = range(PAIRS_SHOWN).map((i) => i * Math.floor(size / 2 / PAIRS_SHOWN));
  const places = [...new Set([...TURNS_AT, labels.length - 1])].sort((x, y) => x - y);
  const found = useMemo(() => { // half a head apart, or neighbours: turning keeps the length of what are pairs
    const ways = [(i) => [i, i + size / 2], (i) => [2 * i, 2 * i + 1]], frequency = (i) => theta ** ((-2 * i) / size);
    return off && on && ways.map((way) => compared(off.qkv.q, on.qkv.q, way, frequency)).sort((x, y) => x.change - y.change)[0];
  }, [off, on]);
  const look = { rowLabels: labels, maxColumns: 5 };
  return html`<section class="walk-demo" aria-label="Rotary positions">
    <h3>This model turns instead of adding</h3>
    <p class="walk-say">It has no position rows: it is <em>rotary</em>. What enters the first block says nothing of the place. Instead every block
      turns each query and key by an angle that grows with the position, two numbers at a time, before they are compared. Two turned vectors agree
      as their <em>distance</em> says, wherever in the text they stand: turning both by the same angle changes nothing.</p>
    ${formula("pair i of the query at position p is turned by the angle p times theta to the power of minus 2 i over d",
    html`angle(p, i) = p · θ<sup>−2i/d</sup>, θ = ${number(theta, 9)}, d = ${size}`)}
    ${!found ? waiting() : html`${tables([`queries of block 0, head ${head}, before`, found.before, look, "Positions off."],
    ["the same queries, turned", found.after, look, "Positions on: what the model uses. Position 0 is not turned."],
    ["angles in radians", arrayOf(places.map((p) => pairs.map((i) => p * found.frequency(i)))), { rowLabels: places.map((p) => `position ${p}`),
      columnLabels: pairs.map((i) => `pair ${i}`), heat: "none" }])}
    ${finding(found.most < 1e-3, "as the formula says", "not this formula", found.most < 1e-3
    ? `Turned here by the formula, the queries before become the queries after; the greatest difference is ${small(found.most)}.`
    : `Turned by the formula they differ by up to ${number(found.most, 3)}: this model scales its angles further.`)}
    <${PairDrawing} ...${found} labels=${labels} />`}</section>`;
}

// ---------------------------------------------------------------- two sentences of the same words in another order

const SAME = 1e-4; // of the vector's length: far above what the order of float32 sums changes, far below what a position does
const SETTINGS = [
  ["off", "none", "no positions, no mask"],
  ["on", "none", "positions, no mask"],
  ["off", "causal", "no positions, causal mask"],
  ["on", "causal", "positions, causal mask: the model's own"],
];
const sentences = persistentStore("inside.order", ["man chased the dog", "dog chased the man"]);

/** [{text, ids, at}] of a sentence: every word in lower case with a blank before it, so that it is the same token wherever it stands. */
async function wordsOf(model, sentence, signal) {
  const out = [];
  let at = 0;
  for (const word of sentence.trim().toLowerCase().split(/\s+/).filter(Boolean).slice(0, 12)) {
    const ids = (await call("/tokenize", { model, prompt: ` ${word}`, add_special_tokens: false }, signal)).tokens;
    out.push({ text: visible(` ${word}`), ids, at });
    at += ids.length;
  }
  return out;
}

/** What stands in both: {text, places: [[place in one, place in the other]]}, a word's n-th time here and there, equal by its ids. */
function pairsOf(one, other) {
  const free = [...other];
  return one.flatMap(({ text, ids, at }) => {
    const k = free.findIndex((word) => word.ids.join() === ids.join());
    if (k < 0) return [];
    const [twin] = free.splice(k, 1);
    return [{ text, places: ids.map((_, i) => [at + i, twin.at + i]) }];
  });
}

async function compare(model, texts, signal) {
  const both = [await wordsOf(model, texts[0], signal), await wordsOf(model, texts[1], signal)];
  const pairs = pairsOf(...both), settings = [];
  for (const [positions, mask, name] of pairs.length > 0 ? SETTINGS : []) {
    const contexts = [];
    for (const words of both) {
      const body = { model, prompt: words.flatMap((word) => word.ids), what: ["context"], layer: 0, positions, mask, encoding: "float32" };
      contexts.push(sideBySide((await inspect(body, signal)).context));
    }
    settings.push({ name, found: pairs.map((pair) => distance(contexts, pair)) });
  }
  return { settings, pairs };
}

/** A word's vectors in both sentences (all its tokens, one after the other) and their difference; their lengths. */
function distance(contexts, { text, places }) {
  const [a, b] = contexts.map((context, k) => places.flatMap((at) => [...row(context, at[k])]));
  const vectors = [a, b, a.map((x, i) => x - b[i])], lengths = vectors.map(norm);
  return { text, vectors, lengths, share: lengths[2] / (lengths[0] || 1) };
}

function measured({ name, found }) {
  const most = Math.max(...found.map((one) => one.share)), same = most < SAME;
  return html`<div class="walk-setting"><h4>${name}</h4>
    ${list(`Distances, ${name}`, null, [["word", "th"], ["|A|", "num", "Length of the context vector in sentence A"], ["|B|", "num"],
    ["|A − B|", "num"]], found.map(({ text, lengths: [a, b, apart] }) => [text, number(a, 4), number(b, 4), small(apart, 3)]))}
    ${finding(same, "identical", "different", same
    ? `Every word has the same context vector in both; what is left, ${small(most)} of a vector's length, is the rounding of sums in another order.`
    : `The context vectors of equal words differ by up to ${number(100 * most, 3)}% of their length: the order is seen.`)}</div>`;
}

function OrderDemo({ ctx: { model, architecture } }) {
  const texts = useStore(sentences), settled = useSettled(texts, 500);
  const [result, setResult] = useState(null), [word, setWord] = useState(0), [turn, setTurn] = useState(0);
  useEffect(() => {
    const control = new AbortController();
    setResult(null);
    compare(model, settled, control.signal).then(
      (found) => { if (!control.signal.aborted) setResult(found); },
      (error) => fail(error, () => setTurn((n) => n + 1)));
    return () => control.abort();
  }, [model, settled, turn]);
  const change = (k, text) => sentences.set((old) => old.with(k, text));
  const picked = Math.min(word, (result?.pairs.length ?? 1) - 1);
  return html`<section class="walk-demo" aria-label="The order of words">
    <h3>Man chased the dog, dog chased the man</h3>
    <p>Attention by itself is blind to order: it is a sum over all tokens, and a sum does not care which comes first. The same words are read twice
      by block 0 of this model (all ${architecture.n_head} heads side by side), and the context vectors of equal words are compared. Words are
      read in lower case with a blank before each, so that a word is the same ids in both places.</p>
    <div class="columns">${texts.map((text, k) => html`<label class="walk-sentence">Sentence ${"AB"[k]}<input
      spellcheck="false" value=${text} onInput=${(e) => change(k, e.target.value)} /></label>`)}</div>
    ${!result ? waiting() : result.pairs.length === 0 ? html`<p class="hint">The two sentences have no word in common.</p>` : html`
      <div class="walk-settings">${result.settings.map(measured)}</div>
      <div class="row" role="group" aria-label="Word whose vectors are shown">${result.pairs.map(({ text }, i) => html`<button type="button"
        class="chip" aria-pressed=${i === picked} onClick=${() => setWord(i)}>${text}</button>`)}</div>
      ${tables(...result.settings.slice(0, 2).map(({ name, found }) => [`${found[picked].text}: ${name}`, arrayOf(found[picked].vectors),
    { rowLabels: ["in A", "in B", "A − B"], maxColumns: 6 }]))}
      <p class="hint">The causal mask of step 5 gives the order away too: a word that sees only what stands before it sees something else in
        another place.</p>`}
  </section>`;
}

// ---------------------------------------------------------------- the step

function Numbers({ ctx }) {
  const { architecture, labels, plain } = ctx, answer = useText(ctx, ["embeddings"]), { token, position, sum } = answer?.embeddings ?? {};
  const tokenRows = ["token rows", token, { rowLabels: labels }];
  return html`${!answer ? waiting() : architecture.positions === "rotary" ? html`${tables(tokenRows)}<${Rotary} ctx=${ctx} />` : html`
    <p class="walk-say">A row of the table says what the token is, not where it stands. So the model has a second table with a row for each
      place, and adds it. The first block reads the sum.</p>
    ${formula("x at t is this row plus the position embedding of t", html`x<sub>t</sub> = row<sub>t</sub> + W<sub>position</sub>[t]`)}
    ${tables(tokenRows, ["position rows", position, { rowLabels: labels.map((_, i) => `position ${i}`) }],
    ["their sum", sum, { rowLabels: labels }])}`}
    ${!plain && html`<${OrderDemo} ctx=${ctx} />`}`;
}

export const Positions = ({ ctx }) => page(ctx, html`Each id picks its row of the embedding table: ${plural(ctx.architecture.n_embd, "number")} that
    stand for this token from here on. They are weights: numbers that training finds. Once a model is trained, tokens that are used alike have rows
    that point the same way.`,
"the row at t is the token embedding of id t", html`row<sub>t</sub> = W<sub>token</sub>[id<sub>t</sub>]`, Numbers,
html`<li>Repeat a word in your sentence: its token row is the same both times${ctx.architecture.positions === "rotary"
  ? ". The turning tells the two apart, and so does the mask (step 5)" : ", its sum is not"}.</li>
  <li>Change the two sentences of the demonstration; words that stand in both are compared.</li>`);
