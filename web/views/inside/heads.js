// SPDX-License-Identifier: MIT
// Heads: silence some of them and see what the model says instead; or try them one after the other and see which one a word hangs on.

import { number, percent, plural, visible } from "../../lib/format.js";
import { html, useEffect, useMemo, useState } from "../../lib/html.js";
import { namesOf, useInspect } from "../../lib/inspect.js";
import { useParam } from "../../lib/store.js";
import { Card, Empty, Progress, Select } from "../../lib/ui.js";
import { HeadSwitches } from "./heads/switches.js";
import { BEST, nextOf, question, results, tryHeads, useTrial } from "./heads/trial.js";

const SHOWN = 10;
const SMALLEST = 0.005; // half a point: bars of less do not fill the width

/** "3.2_4.0" of the address <-> a set of "3.2". */
const readOff = (text, { n_layer: layers, n_head: heads }) => new Set((text ?? "").split("_").filter((one) => {
  const [l, h, more] = one.split(".").map(Number);
  return l >= 0 && l < layers && h >= 0 && h < heads && more === undefined;
}));
const pairsOf = (off) => [...off].map((one) => one.split(".").map(Number)).sort((a, b) => a[0] - b[0] || a[1] - b[1]);

/** Before and after, the largest changes first: [{id, text, before, after}]; null where a token is not among the best. */
function compare(before, after) {
  const all = new Map();
  for (const { id, text, p } of before) all.set(id, { id, text, before: p, after: null });
  for (const { id, text, p } of after) all.set(id, { ...(all.get(id) ?? { id, text, before: null }), after: p });
  const floor = Math.min(before.at(-1).p, after.at(-1).p);
  const change = (one) => Math.abs((one.before ?? floor) - (one.after ?? floor));
  return [...all.values()].sort((a, b) => change(b) - change(a) || (b.before ?? 0) - (a.before ?? 0));
}

/** The probability of a word in a distribution, or the bound that the last of the best sets. */
const pOf = (best, word) => best.find(({ id }) => id === word.id)?.p ?? best.at(-1).p;

/** A bound in words; percent has a sign of its own for the smallest. */
const below = (p) => (p < 1e-4 ? percent(p) : `<${percent(p)}`);

function Pair({ one, most, word, setWord, bounds, changed }) {
  const bar = (value, kind, bound) => html`<span class=${`inside-bar ${kind}`}><span style=${{ width: `${((value ?? 0) / most) * 100}%` }}></span>
    <em>${value === null ? below(bound) : percent(value)}</em></span>`;
  return html`<li><button type="button" class="inside-pair" aria-pressed=${word?.id === one.id} title="Take this word for the trial below" onClick=${() => setWord(one)}>
    <code>${visible(one.text)}</code><span>${bar(one.before, "before", bounds[0])}${changed && bar(one.after, "after", bounds[1])}</span></button></li>`;
}

function NextToken({ before, after, word, setWord, off, busy, last }) {
  const changed = off.size > 0 && after;
  const rows = compare(before, changed ? after : before).slice(0, SHOWN);
  const most = Math.max(...rows.flatMap((one) => [one.before ?? 0, one.after ?? 0]));
  const said = changed && before[0].id !== after[0].id;
  return html`<${Card} title="The next token" id="inside-next" tools=${html`<span class="count" role="status">${busy ? "looking…" : ""}</span>`}>
    <p>${changed ? html`After <code>${visible(last)}</code> the model said <code>${visible(before[0].text)}</code> (${percent(before[0].p)}); without ${off.size === 1 ? "this head" : `these ${off.size} heads`} it${" "}
      ${said ? html`says <code>${visible(after[0].text)}</code> (${percent(after[0].p)}).` : html`still says it, with ${percent(after[0].p)}.`}`
    : html`After <code>${visible(last)}</code> the model says <code>${visible(before[0].text)}</code> (${percent(before[0].p)}). Silence a head to see what changes.`}</p>
    <ol class="inside-pairs">${rows.map((one) => html`<${Pair} key=${one.id} one=${one} most=${most} word=${word} setWord=${setWord} changed=${changed}
      bounds=${[before.at(-1).p, changed ? after.at(-1).p : 0]} />`)}</ol>
    ${changed && html`<p class="legend"><i class="inside-key before"></i> before <i class="inside-key after"></i> after; largest changes first</p>`}
  <//>`;
}

/** Which head a word hangs on: a layer's heads, or all, tried one after the other. */
function Trial({ model, tokens, architecture, word, layer, setLayer, base }) {
  const trial = useTrial(), { n_layer: layers, n_head: heads } = architecture;
  const found = results(model, tokens.ids, word.id);
  const here = Array.from({ length: heads }, (_, h) => found.get(`${layer}.${h}`) ?? null);
  const p = pOf(base, word);
  const most = Math.max(SMALLEST, ...here.map((one) => Math.abs(one ? one.p - p : 0)));
  const places = (from, to) => Array.from({ length: (to - from) * heads }, (_, i) => [from + Math.floor(i / heads), i % heads]);
  const run = (some) => tryHeads(model, architecture, tokens.ids, word.id, some);
  return html`<${Card} title="Which head matters most for this word?" id="inside-trial">
    <p class="hint">Each head is silenced alone. The bar says how the probability of <code>${visible(word.text)}</code> (${percent(p)}) changes: to the left it falls, so the head was for it.</p>
    <div class="actions">
      <${Select} label="Layer" visibleLabel value=${String(layer)} options=${Array.from({ length: layers }, (_, i) => [String(i), String(i)])} onChange=${(value) => setLayer(value)} disabled=${trial.running} />
      <button type="button" class="primary" disabled=${trial.running} onClick=${() => run(places(layer, layer + 1))}>Try the ${heads} heads of layer ${layer}</button>
      <button type="button" disabled=${trial.running} onClick=${() => run(places(0, layers))}>Try all ${layers * heads}</button>
      ${trial.running && html`<button type="button" onClick=${trial.stop}>Stop</button>`}
    </div>
    ${trial.running && html`<${Progress} share=${trial.done / trial.of} label=${`${trial.done} of ${trial.of} heads tried`} />`}
    ${here.some(Boolean) && html`<ol class="inside-changes" aria-label=${`Heads of layer ${layer}`}>${here.map((one, h) => html`<li><span>head ${h}</span>
      <span class="inside-change">${one && html`<i class=${one.p < p ? "less" : "more"} style=${{ width: `${(Math.abs(one.p - p) / most) * 50}%` }}></i>`}</span>
      <span class="stats">${one === null ? "–" : `${one.exact ? percent(one.p) : below(one.p)} (${one.p < p ? "−" : "+"}${number(Math.abs(one.p - p) * 100, 2)} points)`}</span></li>`)}</ol>`}
    ${found.size > heads && html`<${Strongest} found=${found} p=${p} word=${word} />`}
  <//>`;
}

function Strongest({ found, p, word }) {
  const worst = [...found.entries()].sort((a, b) => a[1].p - b[1].p).slice(0, 5).filter(([, one]) => one.p < p);
  if (worst.length === 0) return null;
  return html`<p>Most for <code>${visible(word.text)}</code>: ${worst.map(([place, one], i) => {
    const [l, h] = place.split(".");
    return html`${i > 0 && ", "}layer ${l} head ${h} (${one.exact ? percent(one.p) : below(one.p)} without it)`;
  })}.</p>`;
}

export default function Heads({ model, tokens, architecture }) {
  const [offText, setOff] = useParam("off"), [layerText, setLayer] = useParam("layer", "0");
  const off = useMemo(() => readOff(offText, architecture), [offText, architecture.n_layer, architecture.n_head]);
  const layer = Math.min(Math.max(Number(layerText) || 0, 0), architecture.n_layer - 1);
  const before = useInspect(question(model, architecture, tokens.ids, []));
  const after = useInspect(off.size > 0 ? question(model, architecture, tokens.ids, pairsOf(off)) : null);
  const [picked, setWord] = useState(null);
  useTrial(); // its results tint the switches
  useEffect(() => setWord(null), [model, tokens]);
  const error = before.error ?? after.error;
  if (error) return html`<${Card}><${Empty} title="The answer did not come" action=${html`<button type="button" onClick=${(before.error ? before : after).again}>Try again</button>`}>${error.message}<//><//>`;
  const mine = (one) => (one.answer && one.asked.model === model && one.asked.prompt === tokens.ids ? nextOf(one.answer) : null);
  const base = mine(before), now = mine(after), word = picked ?? base?.[0];
  const change = (next) => setOff(next.size > 0 ? pairsOf(next).map((pair) => pair.join(".")).join("_") : null);
  return html`<div class="inside-attention inside-heads-part">
    <${Card} title="Silence heads" id="inside-switches" tools=${off.size > 0 && html`<button type="button" class="quiet" onClick=${() => change(new Set())}>Let all speak</button>`}>
      <p class="hint">A silenced head adds nothing to its block. Click one; a layer's number silences or frees all of it. ${architecture.n_kv_head < architecture.n_head
        ? `${architecture.n_head / architecture.n_kv_head} query heads share a key/value head here; each is silenced for itself.` : ""}</p>
      ${base && html`<p class="stats inside-effect" role="status">${visible(word.text)} ${percent(pOf(base, word))}${off.size > 0 && now ? ` → ${now.some(({ id }) => id === word.id) ? percent(pOf(now, word)) : below(pOf(now, word))} without ${plural(off.size, "head")}` : " with all heads"}</p>`}
      <${HeadSwitches} architecture=${architecture} off=${off} onChange=${change} effects=${base ? results(model, tokens.ids, word.id) : null}
        p=${base ? pOf(base, word) : 0} />
    <//>
    <div class="stack">
      ${base ? html`<${NextToken} before=${base} after=${now} word=${word} setWord=${setWord} off=${off} busy=${before.busy || after.busy} last=${namesOf(tokens).at(-1)} />
        <${Trial} model=${model} tokens=${tokens} architecture=${architecture} word=${word} layer=${layer} setLayer=${setLayer} base=${base} />`
      : html`<${Card}><p class="hint" role="status">Asking for the next token, ${BEST} candidates…</p><//>`}
    </div>
  </div>`;
}
