// SPDX-License-Identifier: MIT
// Step 8: the next-token distribution, what temperature makes of it, and taking a token.

import { count, percent, visible } from "../../../lib/format.js";
import { html, useMemo, useState } from "../../../lib/html.js";
import { linkTo } from "../../../lib/store.js";
import { Formula, useLook } from "./data.js";
import { Say, Try, Waiting } from "./parts.js";

const BEST = 20;
const BROKEN = "\ufffd";

/** What sampling with this temperature among the likeliest makes of their probabilities. 0: the likeliest. */
export function tempered(probabilities, temperature) {
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

function Bars({ best, shares, onTake }) {
  return html`<div class="table-scroll" tabindex="0" role="group" aria-label="The likeliest next tokens"><table class="walk-table walk-next" id="walk-next">
    <thead><tr><th scope="col">token</th><th scope="col" class="num">id</th><th scope="col" class="num">probability</th><th scope="col" class="num">sampled</th><th scope="col"><span class="sr">Bars</span></th></tr></thead>
    <tbody>${best.texts.map((text, i) => {
      const whole = !text.includes(BROKEN);
      return html`<tr key=${i}><th scope="row"><button type="button" class="quiet" disabled=${!whole} title=${whole ? "Take this one" : "Part of a character: a text cannot end so"} onClick=${() => onTake(i)}>${visible(text)}</button></th>
        <td class="num">${best.ids[i]}</td><td class="num">${percent(best.probabilities[i])}</td><td class="num">${percent(shares[i])}</td>
        <td class="walk-bars" aria-hidden="true"><span class="model" style=${{ width: `${Math.max(best.probabilities[i] * 100, 0.4)}%` }}></span>
          <span class="sampled" style=${{ width: `${Math.max(shares[i] * 100, 0.4)}%` }}></span></td></tr>`;
    })}</tbody></table></div>`;
}

export default function Next({ ctx }) {
  const { architecture: a, tokens, params } = ctx;
  const [temperature, setTemperature] = useState(1), [taken, setTaken] = useState(null);
  const answer = useLook({ model: ctx.model, prompt: tokens.ids, what: ["lens"], layer: a.n_layer - 1, lens_tokens: 1, top_k: Math.min(BEST, a.n_vocab) }, true);
  const best = answer?.lens;
  const shares = useMemo(() => best && tempered(best.probabilities, temperature), [best, temperature]);
  if (!best) return html`<${Waiting} />`;
  const take = (i) => {
    setTaken(best.texts[i]);
    ctx.setText(ctx.text + best.texts[i]);
  };
  const whole = best.texts.map((text, i) => (text.includes(BROKEN) ? 0 : shares[i])), parts = whole.filter((x, i) => x === 0 && shares[i] > 0).length;
  const rest = Math.max(0, 1 - best.probabilities.reduce((x, y) => x + y, 0));
  const last = ctx.labels[ctx.labels.length - 1];
  return html`
    <${Say}><p>After the last block, the vector of the last word, “${last}”, is normed once more and compared with the row of every token of the vocabulary. These ${count(a.n_vocab)} scores
      are the <em>logits</em>; softmax makes probabilities of them. That is all a model says: how likely each token is as the next one. Sampling picks one, and the whole walk begins anew.</p></${Say}>
    <${Formula} said="p is the softmax of the logits divided by the temperature T">p = softmax(logits / T), logits = norm(x<sub>last</sub>) · Wᵀ</${Formula}>
    <p class="walk-text text" aria-label="The text so far">${tokens.texts.map((text, i) => html`<span class=${`tok t${i % 5}`}>${text}</span>`)}<span class="walk-caret" aria-hidden="true">…</span></p>
    <div class="row">
      <label class="walk-slider">Temperature ${temperature.toFixed(1)}<input type="range" min="0" max="2" step="0.1" value=${temperature} onInput=${(e) => setTemperature(Number(e.target.value))} /></label>
      <button type="button" class="primary" disabled=${!whole.some((x) => x > 0)} onClick=${() => take(drawn(whole))}>Take one</button>
      <span role="status" class="hint">${taken !== null && html`Took “${visible(taken)}”. The numbers are those of the longer text. <a href=${linkTo("inside", { ...params, step: null })}>Walk through it again</a>`}</span>
    </div>
    <${Bars} best=${best} shares=${shares} onTake=${take} />
    <p class="hint"><span class="walk-key model"></span> the model's probability <span class="walk-key sampled"></span> the chance to be drawn among these ${best.ids.length} (top k = ${best.ids.length}) at
      ${" "}temperature ${temperature.toFixed(1)}. All other ${count(a.n_vocab - best.ids.length)} tokens have ${percent(rest)} together.
      ${parts > 0 && ` ${parts} of these are parts of a character; they cannot be appended to a text and are left out of the draw.`}</p>
    <${Try}>
      <li>Temperature 0 always takes the first; 2 makes the unlikely likely.</li>
      <li>Take several, one after the other: this is what Complete does, only faster.</li>
      <li>See in <a href=${linkTo("inside", { ...params, tab: "lens", step: null })}>Lens</a> at which block the answer appears.</li>
    </${Try}>`;
}
