// SPDX-License-Identifier: MIT
// Heads: silence some of them and see what the model says instead; or try them one after the other and see which one a word hangs on.

import { number, percent, plural, visible } from "../../lib/format.js";
import { html, useEffect, useMemo, useState } from "../../lib/html.js";
import { namesOf, useInspect } from "../../lib/inspect.js";
import { useParam } from "../../lib/store.js";
import { Card, Progress, Select } from "../../lib/ui.js";
import { Failed } from "./failed.js";
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
  const bar = (value, kind, bound) => html`<span class=${`inside-bar ${kind}`}>
    <span style=${{ width: `${((value ?? 0) / most) * 100}%` }}></span><em>${value === null ? below(bound) : percent(value)}</em></span>`;
  return html`<li><button type="button" class="inside-pair" aria-pressed=${word?.id === one.id} title="Take this word for the trial below"
    onClick=${() => setWord(one)}><code>${visible(one.text)}</code>
    <span>${bar(one.before, "before", bounds[0])}${changed && bar(one.after, "after", bounds[1])}</span></button></li>`;
}

const Word = ({ text }) => html`<code>${visible(text)}</code>`;

/** What the model says, and what it says without the silenced heads (after; null with all heads). */
function Said({ before: [before], after, off, last }) {
  const said = html`<${Word} text=${before.text} /> (${percent(before.p)})`, place = html`After <${Word} text=${last} /> the model`;
  if (!after) return html`<p>${place} says ${said}. Silence a head to see what changes.</p>`;
  const now = after[0].id === before.id ? html`still says it, with ${percent(after[0].p)}`
    : html`says <${Word} text=${after[0].text} /> (${percent(after[0].p)})`;
  return html`<p>${place} said ${said}; without ${off.size === 1 ? "this head" : `these ${off.size} heads`} it ${now}.</p>`;
}

function NextToken({ before, after, word, setWord, off, busy, last }) {
  const changed = off.size > 0 && Boolean(after);
  const rows = compare(before, changed ? after : before).slice(0, SHOWN);
  const most = Math.max(...rows.flatMap((one) => [one.before ?? 0, one.after ?? 0]));
  return html`<${Card} title="The next token" id="inside-next" tools=${html`<span class="count" role="status">${busy ? "looking…" : ""}</span>`}>
    <${Said} before=${before} after=${changed ? after : null} off=${off} last=${last} />
    <ol class="inside-pairs">${rows.map((one) => html`<${Pair} key=${one.id} one=${one} most=${most} word=${word} setWord=${setWord}
      changed=${changed} bounds=${[before.at(-1).p, changed ? after.at(-1).p : 0]} />`)}</ol>
    ${changed && html`<p class="legend"><i class="inside-key before"></i> before <i class="inside-key after"></i> after; largest changes first</p>`}
  <//>`;
}

/** The heads of one layer: what each alone does to a word of probability p. */
function Changes({ layer, here, p }) {
  const most = Math.max(SMALLEST, ...here.map((one) => Math.abs(one ? one.p - p : 0)));
  const words = (one) => `${one.exact ? percent(one.p) : below(one.p)} (${one.p < p ? "−" : "+"}${number(Math.abs(one.p - p) * 100, 2)} points)`;
  const bar = (one) => html`<i class=${one.p < p ? "less" : "more"} style=${{ width: `${(Math.abs(one.p - p) / most) * 50}%` }}></i>`;
  return html`<ol class="inside-changes" aria-label=${`Heads of layer ${layer}`}>${here.map((one, h) => html`<li><span>head ${h}</span>
    <span class="inside-change">${one && bar(one)}</span><span class="stats">${one ? words(one) : "–"}</span></li>`)}</ol>`;
}

/** Which head a word hangs on: a layer's heads, or all, tried one after the other. */
function Trial({ model, tokens, architecture, word, layer, setLayer, base }) {
  const trial = useTrial(), { n_layer: layers, n_head: heads } = architecture;
  const found = results(model, tokens.ids, word.id);
  const here = Array.from({ length: heads }, (_, h) => found.get(`${layer}.${h}`) ?? null);
  const p = pOf(base, word), numbers = Array.from({ length: layers }, (_, i) => [String(i), String(i)]);
  const places = (from, to) => Array.from({ length: (to - from) * heads }, (_, i) => [from + Math.floor(i / heads), i % heads]);
  const run = (some) => tryHeads(model, architecture, tokens.ids, word.id, some);
  return html`<${Card} title="Which head matters most for this word?" id="inside-trial">
    <p class="hint">Each head is silenced alone. The bar says how the probability of <${Word} text=${word.text} /> (${percent(p)}) changes:
      ${" "}to the left it falls, so the head was for it.</p>
    <div class="actions">
      <${Select} label="Layer" visibleLabel value=${String(layer)} options=${numbers} onChange=${setLayer} disabled=${trial.running} />
      <button type="button" class="primary" disabled=${trial.running} onClick=${() => run(places(layer, layer + 1))}>
        Try the ${heads} heads of layer ${layer}</button>
      <button type="button" disabled=${trial.running} onClick=${() => run(places(0, layers))}>Try all ${layers * heads}</button>
      ${trial.running && html`<button type="button" onClick=${trial.stop}>Stop</button>`}
    </div>
    ${trial.running && html`<${Progress} share=${trial.done / trial.of} label=${`${trial.done} of ${trial.of} heads tried`} />`}
    ${here.some(Boolean) && html`<${Changes} layer=${layer} here=${here} p=${p} />`}
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

/** In one line, always in sight: what the silenced heads do to the word. */
function Effect({ base, now, word, off }) {
  const exact = now?.some(({ id }) => id === word.id), p = now && pOf(now, word);
  const after = now ? ` → ${exact ? percent(p) : below(p)} without ${plural(off.size, "head")}` : " with all heads";
  return html`<p class="stats inside-effect" role="status">${visible(word.text)} ${percent(pOf(base, word))}${after}</p>`;
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
  if (error) return html`<${Failed} title="The answer did not come" error=${error} again=${(before.error ? before : after).again} />`;
  const mine = (one) => (one.answer && one.asked.model === model && one.asked.prompt === tokens.ids ? nextOf(one.answer) : null);
  const base = mine(before), now = off.size > 0 ? mine(after) : null, word = picked ?? base?.[0];
  const each = architecture.n_head / architecture.n_kv_head;
  const tools = off.size > 0 && html`<button type="button" class="quiet" onClick=${() => change(new Set())}>Let all speak</button>`;
  const change = (next) => setOff(next.size > 0 ? pairsOf(next).map((pair) => pair.join(".")).join("_") : null);
  return html`<div class="inside-attention inside-heads-part">
    <${Card} title="Silence heads" id="inside-switches" tools=${tools}>
      <p class="hint">A silenced head adds nothing to its layer. Click one; a layer's number silences or frees all of it.
        ${each > 1 && ` ${each} query heads share a key/value head here; each is silenced for itself.`}</p>
      ${base && html`<${Effect} base=${base} now=${now} word=${word} off=${off} />`}
      <${HeadSwitches} architecture=${architecture} off=${off} onChange=${change} effects=${base ? results(model, tokens.ids, word.id) : null}
        p=${base ? pOf(base, word) : 0} />
    <//>
    <div class="stack">
      ${base ? html`<${NextToken} before=${base} after=${now} word=${word} setWord=${setWord} off=${off} busy=${before.busy || after.busy}
          last=${namesOf(tokens).at(-1)} />
        <${Trial} model=${model} tokens=${tokens} architecture=${architecture} word=${word} layer=${layer} setLayer=${setLayer} base=${base} />`
      : html`<${Card}><p class="hint" role="status">Asking for the next token, ${BEST} candidates…</p><//>`}
    </div>
  </div>`;
}
