// SPDX-License-Identifier: MIT
// Step 8: the next-token distribution, what temperature makes of it, and taking a token.

import { count, percent, visible } from "../../../lib/format.js";
import { html, useMemo, useState } from "../../../lib/html.js";
import { linkTo } from "../../../lib/store.js";
import { Formula, useLook } from "./data.js";
import { Say, Try, Waiting } from "./parts.js";

const BEST = 20;

/** What sampling with this temperature among the likeliest makes of their probabilities. 0: the likeliest. */
function tempered(probabilities, temperature) {
  if (temperature === 0) return probabilities.map((_, i) => (i === 0 ? 1 : 0));
  const logs = probabilities.map((p) => Math.log(p) / temperature), most = Math.max(...logs);
  const powers = logs.map((x) => Math.exp(x - most)), sum = powers.reduce((x, y) => x + y, 0);
  return powers.map((x) => x / sum);
}

/** An index, drawn as the shares say. */
function drawn(shares) {
  let left = Math.random() * shares.reduce((x, y) => x + y, 0);
  for (let i = 0; i < shares.length; i++) {
    left -= shares[i];
    if (left <= 0 && shares[i] > 0) return i;
  }
  return shares.findIndex((x) => x > 0);
}

function Row({ text, id, p, share, most, whole, busy, onTake }) {
  const width = (x) => ({ width: `${Math.max((x / most) * 100, 0.4)}%` });
  const title = whole ? "Take this one" : "Cannot be appended to this text";
  return html`<tr>
    <th scope="row"><button type="button" class="quiet" disabled=${!whole} aria-disabled=${busy} title=${title}
      onClick=${onTake}>${visible(text)}</button></th>
    <td class="num">${id}</td><td class="num">${percent(p)}</td><td class="num">${percent(share)}</td>
    <td class="walk-bars" aria-hidden="true"><span class="model" style=${width(p)}></span><span class="sampled" style=${width(share)}></span></td>
  </tr>`;
}

function Bars({ best, shares, takeable, busy, onTake }) {
  const most = Math.max(best.probabilities[0], shares[0]);
  return html`<div class="table-scroll" tabindex="0" role="group" aria-label="The likeliest next tokens">
    <table class="walk-table walk-next" id="walk-next">
    <thead><tr><th scope="col">token</th><th scope="col" class="num">id</th><th scope="col" class="num" title="The model's probability">model</th>
      <th scope="col" class="num" title="The chance to be drawn at this temperature">drawn</th>
      <th scope="col"><span class="sr">Bars</span></th></tr></thead>
    <tbody>${best.texts.map((text, i) => html`<${Row} key=${i} text=${text} id=${best.ids[i]} p=${best.probabilities[i]} share=${shares[i]}
      most=${most} whole=${takeable[i]} busy=${busy} onTake=${() => onTake(i)} />`)}</tbody></table></div>`;
}

/** Appends a token to the text; busy until the text's tokens are there, so that no token is drawn for a text of yesterday. */
function useTaking(ctx, best, fresh) {
  const [taken, setTaken] = useState(null), [from, setFrom] = useState(null);
  const busy = from === ctx.tokens || !fresh;
  const take = (i) => {
    if (busy || i < 0) return;
    setTaken(best.texts[i]);
    setFrom(ctx.tokens);
    ctx.setText(ctx.plain ? `${ctx.text.trim()} ${best.ids[i]}` : ctx.text + best.texts[i]);
  };
  return { taken, busy, take };
}

export default function Next({ ctx }) {
  const { architecture: a, tokens, params } = ctx;
  const [temperature, setTemperature] = useState(1);
  const look = { model: ctx.model, prompt: tokens.ids, what: ["lens"], layer: a.n_layer - 1, lens_tokens: 1, top_k: Math.min(BEST, a.n_vocab) };
  const answer = useLook(look, true);
  const best = answer?.lens;
  const shares = useMemo(() => best && tempered(best.probabilities, temperature), [best, temperature]);
  const { taken, busy, take } = useTaking(ctx, best, answer?.tokens.ids.join() === tokens.ids.join());
  if (!best) return html`<${Waiting} />`;
  const cut = Number(params.first) > 0; // only the text's beginning is looked at: what is appended would not be seen
  const takeable = best.texts.map((text) => !cut && (ctx.plain || (text !== "" && !text.includes("\ufffd"))));
  const chances = shares.map((x, i) => (takeable[i] ? x : 0)), parts = takeable.filter((whole) => !whole).length;
  const rest = Math.max(0, 1 - best.probabilities.reduce((x, y) => x + y, 0)), last = ctx.labels[ctx.labels.length - 1];
  return html`
    <${Say}><p>After the last block, the vector of the last word, “${last}”, is normed once more and compared with the row of every token of the
      vocabulary. These ${count(a.n_vocab)} scores are the <em>logits</em>; softmax makes probabilities of them. That is all a model says: how
      likely each token is as the next one. Sampling picks one, and the whole walk begins anew.</p></${Say}>
    <${Formula} said="p is the softmax of the logits divided by the temperature T">
      p = softmax(logits / T), logits = norm(x<sub>last</sub>) · Wᵀ</${Formula}>
    <p class="walk-text text" aria-label="The text so far">${tokens.texts.map((text, i) => html`<span class=${`tok t${i % 5}`}>${text}</span>`)}<span
      class="walk-caret" aria-hidden="true">…</span></p>
    <div class="row">
      <label class="walk-slider">Temperature ${temperature.toFixed(1)}<input type="range" min="0" max="2" step="0.1" value=${temperature}
        onInput=${(e) => setTemperature(Number(e.target.value))} /></label>
      <button type="button" class="primary" disabled=${!takeable.some(Boolean)} aria-disabled=${busy}
        onClick=${() => take(drawn(chances))}>Take one</button>
      <span role="status" class="hint">${taken !== null && html`Took “${visible(taken)}”. The numbers are those of the longer text.
        ${" "}<a href=${linkTo("inside", { ...params, step: null })}>Walk through it again</a>`}</span>
    </div>
    <${Bars} best=${best} shares=${shares} takeable=${takeable} busy=${busy} onTake=${take} />
    <p class="hint"><span class="walk-key model"></span> the model's probability <span class="walk-key sampled"> </span> the chance to be drawn
      among these ${` ${best.ids.length}`} (top k = ${best.ids.length}) at temperature ${temperature.toFixed(1)}; the longest bar fills the row. All
      other ${` ${count(a.n_vocab - best.ids.length)}`} tokens
      have ${percent(rest)} together.
      ${cut ? " Only the beginning of the text is looked at, so that nothing can be appended: look at all of it first."
    : parts > 0 && ` ${parts} of these are parts of a character; they cannot be appended to a text and are left out of the draw.`}</p>
    <${Try}>
      <li>Temperature 0 always takes the first; 2 makes the unlikely likely.</li>
      <li>Take several, one after the other: this is what Complete does, only faster.</li>
      <li>See in <a href=${linkTo("inside", { ...params, tab: "lens", step: null })}>Lens</a> at which block the answer appears.</li>
    </${Try}>`;
}
