// SPDX-License-Identifier: MIT
// The demonstration of step 2: two sentences of the same words in another order. Without positions and mask, attention cannot tell them apart.

import { call } from "../../../lib/api.js";
import { number, visible } from "../../../lib/format.js";
import { html, useEffect, useMemo, useState } from "../../../lib/html.js";
import { inspect } from "../../../lib/inspect.js";
import { chosenModel, fail } from "../../../lib/server.js";
import { persistentStore, useStore } from "../../../lib/store.js";
import { useSettled } from "../../../lib/ui.js";
import { norm, part, sideBySide, small } from "./data.js";
import { Arrays, Finding, Say, Table, Waiting } from "./parts.js";

const SENTENCES = ["man chased the dog", "dog chased the man"];
const SAME = 1e-4; // of the vector's length: far above what the order of float32 sums changes, far below what a position does
const SETTINGS = [
  ["off", "none", "no positions, no mask"],
  ["on", "none", "positions, no mask"],
  ["off", "causal", "no positions, causal mask"],
];
const sentences = persistentStore("inside.order", SENTENCES);

/** [{text, ids}] of a sentence: every word in lower case with a blank before it, so that it is the same token wherever it stands. */
async function wordsOf(model, sentence, signal) {
  const words = sentence.trim().toLowerCase().split(/\s+/).filter(Boolean).slice(0, 12).map((word) => ` ${word}`);
  const out = [];
  for (const text of words) out.push({ text, ids: (await call("/tokenize", { model, prompt: text, add_special_tokens: false }, signal)).tokens });
  return out;
}

/** [[place in one, place in the other]]: a word's n-th time here and there, equal by its ids. */
function pairsOf(one, other) {
  const free = other.map((word) => word.ids.join()), pairs = [];
  let at = 0;
  const starts = other.map((word) => { const start = at; at += word.ids.length; return start; });
  at = 0;
  for (const word of one) {
    const k = free.indexOf(word.ids.join());
    if (k >= 0) {
      free[k] = null;
      pairs.push({ text: word.text, places: word.ids.map((_, i) => [at + i, starts[k] + i]) });
    }
    at += word.ids.length;
  }
  return pairs;
}

async function compare(model, texts, signal) {
  const [one, other] = [await wordsOf(model, texts[0], signal), await wordsOf(model, texts[1], signal)];
  if (one.length === 0 || other.length === 0) return { settings: [], pairs: [] };
  const settings = [];
  for (const [positions, mask, name] of SETTINGS) {
    const contexts = [];
    for (const words of [one, other]) {
      const body = { model, prompt: words.flatMap((word) => word.ids), what: ["context"], layer: 0, positions, mask, encoding: "float32" };
      contexts.push(sideBySide((await inspect(body, signal)).context));
    }
    settings.push({ name, contexts });
  }
  return { settings, pairs: pairsOf(one, other) };
}

/** A word's vectors in both sentences (all its tokens, one after the other), their lengths and their difference. */
function distance(contexts, pair) {
  const rows = [0, 1].map((k) => pair.places.flatMap((places) => Array.from(part(contexts[k], places[k]).data)));
  const off = rows[0].map((x, i) => x - rows[1][i]);
  return { rows, off, lengths: rows.map(norm), apart: norm(off), share: norm(off) / (norm(rows[0]) || 1) };
}

function Measured({ name, contexts, pairs }) {
  const found = pairs.map((pair) => ({ pair, ...distance(contexts, pair) }));
  const same = found.every((one) => one.share < SAME), most = Math.max(...found.map((one) => one.share));
  return html`<div class="walk-setting">
    <h4>${name}</h4>
    <div class="table-scroll" tabindex="0" role="group" aria-label=${`Distances, ${name}`}><table class="walk-table">
      <thead><tr><th scope="col">word</th><th scope="col" class="num" title="Length of the context vector in sentence A">|A|</th>
        <th scope="col" class="num">|B|</th><th scope="col" class="num">|A − B|</th></tr></thead>
      <tbody>${found.map((one) => html`<tr><th scope="row">${visible(one.pair.text)}</th>
        <td class="num">${number(one.lengths[0], 4)}</td><td class="num">${number(one.lengths[1], 4)}</td>
        <td class="num">${small(one.apart, 3)}</td></tr>`)}</tbody></table></div>
    <${Finding} good=${same} label=${same ? "identical" : "different"}>${same
    ? `Every word has the same context vector in both; what is left, ${small(most)} of a vector's length, is the rounding of sums in another order.`
    : `The context vectors of equal words differ by up to ${number(100 * most, 3)}% of their length: the order is seen.`}</${Finding}>
  </div>`;
}

function Vectors({ result, word }) {
  const pair = result.pairs[word];
  const tables = useMemo(() => result.settings.slice(0, 2).map(({ name, contexts }) => {
    const { rows, off } = distance(contexts, pair);
    return { name, a: { shape: [3, off.length], data: Float32Array.from([...rows[0], ...rows[1], ...off]) } };
  }), [result, word]);
  return html`<${Arrays}>${tables.map(({ name, a }) => html`<${Table} name=${`${visible(pair.text)}: ${name}`} a=${a}
    rowLabels=${["in A", "in B", "A − B"]} maxColumns=${6} />`)}</${Arrays}>`;
}

export function OrderDemo({ ctx }) {
  const texts = useStore(sentences), settled = useSettled(texts, 500);
  const [result, setResult] = useState(null), [word, setWord] = useState(0), [turn, setTurn] = useState(0);
  const model = useStore(chosenModel);
  useEffect(() => {
    const control = new AbortController();
    setResult(null);
    compare(model, settled, control.signal).then(
      (found) => { if (!control.signal.aborted) setResult(found); },
      (error) => fail(error, () => setTurn((n) => n + 1)));
    return () => control.abort();
  }, [model, settled, turn]);
  const change = (k, text) => sentences.set((old) => old.map((one, i) => (i === k ? text : one)));
  const picked = Math.min(word, (result?.pairs.length ?? 1) - 1);
  return html`<section class="walk-demo" aria-label="The order of words">
    <h3>Man chased the dog, dog chased the man</h3>
    <p>Attention by itself is blind to order: it is a sum over all tokens, and a sum does not care which comes first. The same words are read twice
      by block 0 of this model (all ${ctx.architecture.n_head} heads side by side), and the context vectors of equal words are compared. Words are
      read in lower case with a blank before each, so that a word is the same ids in both places.</p>
    <div class="columns">${texts.map((text, k) => html`<label class="walk-sentence"><span>Sentence ${"AB"[k]}</span>
      <input type="text" spellcheck="false" value=${text} onInput=${(e) => change(k, e.target.value)} /></label>`)}</div>
    ${!result ? html`<${Waiting} />` : result.pairs.length === 0 ? html`<p class="hint">The two sentences have no word in common.</p>` : html`
      <div class="walk-settings">${result.settings.map((one) => html`<${Measured} ...${one} pairs=${result.pairs} />`)}</div>
      <div class="row" role="group" aria-label="Word whose vectors are shown">${result.pairs.map((pair, i) => html`<button type="button" class="chip"
        aria-pressed=${i === picked}
        onClick=${() => setWord(i)}>${visible(pair.text)}</button>`)}</div>
      <${Vectors} result=${result} word=${picked} />
      <p class="hint">The causal mask of step 5 gives the order away too: a word that sees only what stands before it sees something else in
        another place.</p>`}
  </section>`;
}
