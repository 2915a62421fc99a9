// SPDX-License-Identifier: MIT
// Tokens: what a model really reads. A text in coloured tokens with ids, bytes and code points, several tokenizers side by side, the merges of a
// word step by step, and the way back from ids to text.

import { fromPiece } from "../lib/answer.js";
import { call } from "../lib/api.js";
import { count, hex, plural, visible } from "../lib/format.js";
import { html, useEffect, useMemo, useState } from "../lib/html.js";
import { chosenModel, fail, models } from "../lib/server.js";
import { persistentStore, useStore } from "../lib/store.js";
import { TokenLog, TokenText } from "../lib/token_text.js";
import { Card, Empty, Segmented, useSettled } from "../lib/ui.js";

// ---------------------------------------------------------------- merges
// How byte-pair encoding builds the tokens of a word: every merge, one after the other, from bytes to tokens.

const MAX_BYTES = 2000; // what the server takes for merges
const encoder = new TextEncoder();
const pieceText = (piece) => (typeof piece === "string" ? visible(piece) : `‹${hex(piece, " ")}›`);

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
function Merges({ model, words }) {
  const [typed, setTyped] = useState("");
  const [found, setFound] = useState({ words: [], error: null });
  const [chosen, setChosen] = useState(null); // null: the word with the most merges
  const short = words.length <= MAX_BYTES && encoder.encode(words).length <= MAX_BYTES, wanted = useSettled(typed) || (short ? words : words.slice(0, MAX_BYTES / 4));
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

// ---------------------------------------------------------------- the view

const text = persistentStore("tokens.text", "The lighthouse keeper's unbelievable story: 3.14159, naïve café, 世界 and 👩‍🚀.");
const others = persistentStore("tokens.models", []); // ids compared with the chosen one
const shown = persistentStore("tokens.shown", "text");
const TABLE_ROWS = 300, MOST_SHOWN = 10_000;

const codePoints = (whole) => [...(whole ?? "")].map((c) => `U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`).join(" ");

/** {words, tokens (the first of them), all (how many there are), different, room} of the text under one model's tokenizer, or {error}. */
function useTokens(model, words) {
  const [found, setFound] = useState(null);
  useEffect(() => {
    if (!model) return undefined;
    const control = new AbortController();
    call("/tokenize", { model, prompt: words, with_pieces: true }, control.signal).then(
      ({ tokens, count: all, max_model_len: room }) =>
        setFound({ model, words, tokens: tokens.slice(0, MOST_SHOWN).map(fromPiece), all, different: new Set(tokens.map((t) => t.id)).size, room }),
      (error) => { if (error.name !== "AbortError") { setFound({ model, tokens: [], error: error.message }); if (error.status === 401) fail(error); } });
    return () => control.abort();
  }, [model, words]);
  return found?.model === model ? found : null;
}

const First = ({ n, of }) => of > n && html`<p class="hint">The first ${count(n)} of ${count(of)}.</p>`;

function TokenTable({ tokens, all }) {
  return html`<div class="table-scroll tokens-table" tabindex="0" role="region" aria-label="Tokens as a table"><table>
    <thead><tr><th class="num">#</th><th class="num">id</th><th>text</th><th>bytes</th><th>code points</th></tr></thead>
    <tbody>${tokens.slice(0, TABLE_ROWS).map((t, i) => html`<tr><td class="num">${i}</td><td class="num">${t.id}</td><td><code>${visible(t.text)}</code></td>
      <td><code>${hex(t.bytes, " ")}</code></td><td><code>${codePoints(t.whole) || "part of a character"}</code></td></tr>`)}</tbody>
  </table><${First} n=${TABLE_ROWS} of=${all} /></div>`;
}

function Tokenized({ model, words, look, onClose }) {
  const found = useTokens(model, words);
  const log = useMemo(() => new TokenLog(), []);
  const tokens = found?.tokens ?? [], all = found?.all;
  useEffect(() => {
    log.replace(look === "ids" ? tokens.map((t, i) => ({ ...t, text: `${i ? " " : ""}${t.id}` })) : tokens);
  }, [found, look]);
  const read = found?.words ?? "", [chars, size] = useMemo(() => [[...read].length, encoder.encode(read).length], [read]);
  const note = (i) => tokens[i] && html`<p class="stats">bytes ${hex(tokens[i].bytes, " ")}</p><p class="stats">${codePoints(tokens[i].whole) || "part of a character"}</p>`;
  const tools = html`${found && !found.error && html`<span class=${`count tokens-count ${all > found.room ? "over" : ""}`}>${plural(all, "token")} of ${count(found.room)}${all > found.room ? ", too long" : ""}</span>`}
    ${onClose && html`<button type="button" class="quiet" onClick=${onClose} aria-label=${`Take ${model} away`}>Take away</button>`}`;
  return html`<${Card} title=${model} tools=${tools} className="tokens-card">
    ${found?.error && html`<p class="bad">${found.error}</p>`}
    ${!found && html`<p class="hint">Counting…</p>`}
    ${look === "table" ? html`<${TokenTable} tokens=${tokens} all=${all} />` : html`<div class="tokens-text scroll" tabindex="-1"><${TokenText} log=${log} colour="turn" label=${`The text in tokens of ${model}`} note=${note} redraw=${look} /><${First} n=${MOST_SHOWN} of=${all} /></div>`}
    ${tokens.length > 0 && html`<p class="stats">${plural(chars, "character")}, ${plural(size, "byte")} · ${(size / all).toFixed(2)} bytes a token · ${plural(found.different, "different token")}</p>`}
  <//>`;
}

/** Ids back to text. */
function Decode({ model }) {
  const [typed, setTyped] = useState("");
  const [out, setOut] = useState(null);
  const settled = useSettled(typed);
  useEffect(() => {
    const ids = settled.split(/[\s,[\]]+/).filter(Boolean);
    if (ids.length === 0 || !model) { setOut(null); return undefined; }
    const wrong = ids.find((id) => !/^\d+$/.test(id));
    if (wrong) { setOut({ error: `“${wrong}” is not a token id: ids are whole numbers, separated by blanks or commas.` }); return undefined; }
    const control = new AbortController();
    call("/detokenize", { model, tokens: ids.map(Number) }, control.signal).then((r) => setOut({ text: r.prompt }), (e) => { if (e.name !== "AbortError") setOut({ error: e.message }); });
    return () => control.abort();
  }, [settled, model]);
  return html`<${Card} title="From ids to text" labelFor="tokens-ids">
    <input id="tokens-ids" class="wide" autocomplete="off" placeholder="504 555 45360" value=${typed} onInput=${(e) => setTyped(e.target.value)} />
    <div role="status" class="tokens-decoded">${out?.error ? html`<p class="bad">${out.error}</p>` : out && html`<p class="text">${out.text}</p>`}</div>
  <//>`;
}

export default function Tokens() {
  const model = useStore(chosenModel), list = useStore(models, (m) => m.list), words = useStore(text), look = useStore(shown), compared = useStore(others);
  const settled = useSettled(words, 150);
  const more = compared.filter((id) => id !== model && list.some((m) => m.id === id));
  const free = list.filter((m) => m.id !== model && !more.includes(m.id) && !m.couplet?.adapter);
  const cards = useMemo(() => html`${settled === "" ? html`<${Card}><${Empty} title="Nothing to read yet">Write something above. A model never sees letters: its tokenizer cuts the text into tokens from a fixed vocabulary, and the model reads their numbers.<//><//>`
      : html`<div class="columns">${[model, ...more].filter(Boolean).map((id) => html`<${Tokenized} key=${id} model=${id} words=${settled} look=${look}
          onClose=${id === model ? null : () => others.set(more.filter((one) => one !== id))} />`)}</div>`}
    <div class="columns"><${Merges} model=${model} words=${settled} /><${Decode} model=${model} /></div>`, [model, more.join(), settled, look]); // not drawn at every key
  return html`<div class="stack">
    <${Card} title="Text" labelFor="tokens-input">
      <textarea id="tokens-input" rows="4" spellcheck="false" value=${words} onInput=${(e) => text.set(e.target.value)}></textarea>
      <div class="actions">
        <${Segmented} label="Show tokens as" value=${look} onChange=${(v) => shown.set(v)} options=${[["text", "Text"], ["ids", "Ids"], ["table", "Table"]]} />
        ${free.length > 0 && html`<label class="select-label" for="tokens-add">Compare with</label>
          <select id="tokens-add" value="" onChange=${(e) => { others.set([...more, e.target.value]); e.target.value = ""; }}>
            <option value="">choose a model…</option>${free.map((m) => html`<option value=${m.id}>${m.id}</option>`)}</select>`}
      </div>
    <//>
    ${cards}
  </div>`;
}
