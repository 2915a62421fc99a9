// SPDX-License-Identifier: MIT
// How byte-pair encoding builds the tokens of a word: every merge, one after the other, from bytes to tokens.

import { call } from "../../lib/api.js";
import { plural, visible } from "../../lib/format.js";
import { html, useEffect, useState } from "../../lib/html.js";
import { Card, useSettled } from "../../lib/ui.js";

const MAX_BYTES = 2000; // what the server takes for merges
const pieceText = (piece) => (typeof piece === "string" ? visible(piece) : `‹${piece.map((b) => b.toString(16).padStart(2, "0")).join(" ")}›`);

/** The pieces of one step; the one that the step made is marked. */
function Pieces({ now, before }) {
  const made = before ? now.findIndex((piece, i) => JSON.stringify(piece) !== JSON.stringify(before[i])) : -1;
  return html`<p class="merge-pieces">${now.map((piece, i) => html`<code class=${i === made ? "made" : ""}>${pieceText(piece)}</code>`)}</p>`;
}

function Word({ word }) {
  const [at, setAt] = useState(0);
  const last = word.steps.length - 1;
  useEffect(() => setAt(last), [word]);
  const step = Math.min(at, last);
  return html`<div class="merge-word">
    <${Pieces} now=${word.steps[step]} before=${step > 0 ? word.steps[step - 1] : null} />
    <div class="row">
      <button type="button" disabled=${step === 0} onClick=${() => setAt(step - 1)} aria-label="One merge back">←</button>
      <input type="range" class="merge-slider" min="0" max=${last} value=${step} aria-label="Merge" aria-valuetext=${`step ${step} of ${last}`} onInput=${(e) => setAt(Number(e.target.value))} />
      <button type="button" disabled=${step === last} onClick=${() => setAt(step + 1)} aria-label="One merge on">→</button>
    </div>
    <p class="stats" role="status">${step === 0 ? `the word in bytes: ${plural(word.steps[0].length, "piece")}` : `after merge ${step} of ${last}: ${plural(word.steps[step].length, "piece")}`}
      ${step === last && `, ${word.tokens.length === 1 ? "id" : "ids"} ${word.tokens.join(", ")}`}</p>
  </div>`;
}

/** The card: any word of the text, or one that is typed. */
export function Merges({ model, words }) {
  const [typed, setTyped] = useState("");
  const [found, setFound] = useState({ words: [], error: null });
  const [chosen, setChosen] = useState(null); // null: the word with the most merges
  const wanted = useSettled(typed) || (new TextEncoder().encode(words).length <= MAX_BYTES ? words : words.slice(0, MAX_BYTES / 4));
  useEffect(() => {
    if (!model || wanted === "") { setFound({ words: [], error: null }); return undefined; }
    const control = new AbortController();
    call("/tokenize", { model, content: wanted, return_merges: true }, control.signal).then(
      (reply) => { setFound({ words: reply.words.filter((w, i, all) => all.findIndex((o) => o.text === w.text) === i), error: null }); setChosen(null); },
      (error) => { if (error.name !== "AbortError") setFound({ words: [], error: error.message }); });
    return () => control.abort();
  }, [model, wanted]);
  const interesting = found.words.filter((w) => w.steps.length > 1).slice(0, 40);
  const longest = interesting.reduce((best, w, i) => (w.steps.length > interesting[best].steps.length ? i : best), 0);
  const word = interesting[chosen ?? longest] ?? found.words[0];
  return html`<${Card} title="Merges, step by step" labelFor="merge-typed">
    <p class="hint">The tokenizer starts from bytes and joins, again and again, the pair that was most frequent in its training text, until no learned pair is left.</p>
    <div class="actions"><input id="merge-typed" autocomplete="off" placeholder="type any word" value=${typed} onInput=${(e) => setTyped(e.target.value)} />
      <span class="row merge-words" role="group" aria-label="Words of the text">${interesting.map((w, i) => html`<button type="button" class="chip" aria-pressed=${w === word} onClick=${() => setChosen(i)}>${visible(w.text)}</button>`)}</span></div>
    ${found.error ? html`<p class="bad">${found.error}</p>` : word && html`<${Word} word=${word} />`}
  <//>`;
}
