// SPDX-License-Identifier: MIT
// Step 1: the text in tokens; each one's id and bytes.

import { call } from "../../../lib/api.js";
import { count, plural, visible } from "../../../lib/format.js";
import { html, useEffect, useState } from "../../../lib/html.js";
import { Formula } from "./data.js";
import { Say, Try } from "./parts.js";

const SHOWN = 64;
const BROKEN = "\ufffd";
const hex = (bytes) => Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join(" ");

/** In which byte of the text each token begins; null where the text's own tokens are others. Only needed where a token is no whole character. */
function useOffsets(ctx) {
  const [offsets, setOffsets] = useState(null);
  const wanted = !ctx.plain && ctx.tokens.texts.some((text) => text.includes(BROKEN));
  useEffect(() => {
    setOffsets(null);
    if (!wanted) return undefined;
    const control = new AbortController();
    call("/tokenize", { model: ctx.model, prompt: ctx.text, return_offsets: true }, control.signal).then((reply) => {
      if (reply.tokens.join() === ctx.tokens.ids.join()) setOffsets(reply.offsets);
    }, () => {}); // the table says "part of a character" instead
    return () => control.abort();
  }, [ctx.model, ctx.text, ctx.tokens, wanted]);
  return offsets;
}

function bytesOf(ctx, offsets, whole, i) {
  if (ctx.plain) return null;
  const text = ctx.tokens.texts[i];
  if (!text.includes(BROKEN)) return new TextEncoder().encode(text);
  return offsets ? whole.subarray(offsets[i], offsets[i + 1] ?? whole.length) : null;
}

export default function Tokens({ ctx }) {
  const { ids, texts } = ctx.tokens;
  const offsets = useOffsets(ctx);
  const whole = new TextEncoder().encode(ctx.text);
  const vocabulary = ctx.architecture.n_vocab;
  return html`
    <${Say}><p>A model cannot read letters; it reads numbers. A tokenizer cuts the text into pieces that it knows, its <em>tokens</em>, and gives
      each its number in the vocabulary of ${count(vocabulary)}. Frequent words are one token, with the blank before them; rare ones fall into
      several. Below the characters are bytes, so that no text is without tokens.</p></${Say}>
    <${Formula} said="text becomes ids, a list of whole numbers below the size of the vocabulary">
      text → ids ∈ {0, …, ${count(vocabulary - 1)}}<sup>T</sup>, here T = ${ids.length}</${Formula}>
    <p class="walk-text text" aria-label="The text in its tokens">${texts.map((text, i) => html`<span class=${`tok t${i % 5}`}
      title=${`id ${ids[i]}`}>${text}</span>`)}</p>
    <p class="hint">
      ${!ctx.plain && `${plural(Array.from(ctx.text).length, "character")}, ${plural(whole.length, "byte")}, `}${plural(ids.length, "token")}.</p>
    <div class="table-scroll" tabindex="0" role="group" aria-label="Tokens, ids and bytes"><table id="walk-tokens" class="walk-table">
      <thead><tr><th scope="col" class="num">position</th><th scope="col">token</th><th scope="col" class="num">id</th><th scope="col">bytes</th>
      </tr></thead>
      <tbody>${ids.slice(0, SHOWN).map((id, i) => {
        const bytes = bytesOf(ctx, offsets, whole, i);
        return html`<tr><td class="num">${i}</td><th scope="row"><span class=${`tok t${i % 5}`}>${visible(texts[i])}</span></th>
          <td class="num">${id}</td>
          <td><code>${bytes ? hex(bytes) : ctx.plain ? "no tokenizer" : "part of a character"}</code></td></tr>`;
      })}</tbody></table></div>
    ${ids.length > SHOWN && html`<p class="hint">… ${plural(ids.length - SHOWN, "more token")}</p>`}
    <${Try}>
      <li>Write a word with and without a blank or a capital before it: the same word gets another id.</li>
      <li>Write a rare word, a name or an emoji: it falls into pieces, down to bytes.</li>
      <li>How the pieces were glued together, pair by pair, is shown in <a href="#tokens">Tokens</a>.</li>
    </${Try}>`;
}
