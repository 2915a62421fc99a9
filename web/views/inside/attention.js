// SPDX-License-Identifier: MIT
// Attention: the maps of all heads at once, one of them large with its exact numbers, and the text as one token sees it.

import { number, percent, visible } from "../../lib/format.js";
import { html, useEffect, useMemo, useState } from "../../lib/html.js";
import { namesOf, timesOf, useInspect } from "../../lib/inspect.js";
import { setParams, useParam } from "../../lib/store.js";
import { Card, Segmented, Select } from "../../lib/ui.js";
import { HeadGrid } from "./attention/grid.js";
import { BigMap } from "./attention/map.js";
import { PATTERNS, patternsOf } from "./attention/patterns.js";
import { Failed } from "./failed.js";
import { Strip } from "./strip.js";

const ANSWER_BYTES = 64 * 1024 * 1024; // of one answer's arrays, as floats; the server's bound
const STRONGEST = 6;

const within = (text, n) => Math.min(Math.max(Number(text) || 0, 0), n - 1);

/** The head that shows best what attention can do: opened first. */
function tellingHead(patterns) {
  const score = ({ name, shares }) => (name === null || name === "first" ? 0 : shares[name] + (name === "self" ? 0 : 1));
  return patterns.reduce((best, found, i) => (score(found) > score(patterns[best]) ? i : best), 0);
}

/** Chips of what heads do, with how many do it; a chosen one lets the others fade. */
function Patterns({ patterns, only, setOnly }) {
  const kinds = PATTERNS.map((kind) => [...kind, patterns.filter(({ name }) => name === kind[0]).length]).filter(([, , , n]) => n > 0);
  if (kinds.length === 0) return html`<p class="hint">No head gives more than half of its attention to one simple place.</p>`;
  return html`<div class="inside-patterns" role="group" aria-label="Heads that mostly look at the">
    <span class="hint">Mostly look at the</span>
    ${kinds.map(([name, label, meaning, n]) => html`<button type="button" class="chip" aria-pressed=${only === name}
      title=${`A head that ${meaning}.`} onClick=${() => setOnly(only === name ? null : name)}>${label} <span class="stats">${n}</span></button>`)}
  </div>`;
}

const WAYS = [["row", "looks at"], ["column", "is looked at by"]];

/** What the text looks like from one token: what it looks at, or who looks at it. */
function FromToken({ weights, n, texts, q, setQ }) {
  const [way, setWay] = useState("row");
  const at = (i) => (way === "row" ? weights[q * n + i] : weights[i * n + q]);
  const possible = (i) => (way === "row" ? i <= q : i >= q);
  const all = texts.map((_, i) => i).filter(possible).sort((a, b) => at(b) - at(a)).slice(0, STRONGEST);
  const most = at(all[0]) || 1;
  const tools = html`<${Segmented} label="Direction" value=${way} onChange=${setWay} options=${WAYS} />`;
  return html`<${Card} title="From one token" tools=${tools}>
    <div class="inside-from">
      <div>
        <${Strip} texts=${texts} chosen=${q} onChoose=${setQ} shade=${(i) => (possible(i) ? Math.sqrt(at(i)) : 0)}
          label="The text; the chosen token's attention shades the others. Arrow keys choose another token."
          title=${(i) => `${visible(texts[i])}: ${possible(i) ? percent(at(i)) : "masked"}`} />
        <p class="hint">Click a token; the stronger the colour of another one,${" "}
          ${way === "row" ? "the more it is looked at" : "the more it looks at this one"}.</p>
      </div>
      <ol class="bars" aria-label=${way === "row" ? "Looked at most" : "Looking most"}>${all.map((i) => html`<li><span class="bar chosen">
        <span class="bar-fill" style=${{ width: `${(at(i) / most) * 100}%` }}></span>
        <span class="bar-text">${visible(texts[i])}<span class="stats"> ${i}</span></span>
        <span class="bar-value">${number(at(i), 3)}</span></span></li>`)}</ol>
    </div>
  <//>`;
}

/** What kind of head it is, and with which others it shares its keys and values. */
function Does({ found, head, each }) {
  const pattern = PATTERNS.find(([name]) => name === found?.name), group = Math.floor(head / each);
  return html`<p class="hint inside-does">${pattern
    ? html`<span class="tag good">${pattern[1]} ${percent(found.shares[pattern[0]])}</span> This head mostly ${pattern[2]}.`
    : "Where this head looks depends on the tokens."}
    ${each > 1 && ` It shares key/value head ${group} with heads ${group * each} to ${group * each + each - 1}.`}</p>`;
}

const numbers = (n) => Array.from({ length: n }, (_, i) => [String(i), String(i)]);

function OneHead({ model, tokens, architecture, layer, head, quick, found }) {
  const { n_head: heads, n_layer: layers, n_kv_head: groups } = architecture;
  const n = tokens.ids.length, texts = useMemo(() => namesOf(tokens), [tokens]), [at, setAt] = useState([n - 1, n - 1]);
  const { answer, asked, error } = useInspect({ model, prompt: tokens.ids, what: ["weights"], layer, head, encoding: "float32" });
  useEffect(() => { setAt([n - 1, Math.max(0, n - 2)]); }, [n]);
  const exact = answer && asked.layer === layer && asked.head === head && asked.prompt === tokens.ids ? answer.weights.data : null;
  const weights = exact ?? quick;
  const cell = [Math.min(at[0], n - 1), Math.min(at[1], n - 1)];
  const choice = (label, value, of, onChange) => html`<${Select} label=${label} visibleLabel value=${String(value)} options=${numbers(of)}
    onChange=${onChange} />`;
  const tools = html`${choice("Layer", layer, layers, (value) => setParams({ layer: value, head }))}
    ${choice("Head", head, heads, (value) => setParams({ layer, head: value }))}`;
  return html`<div class="stack inside-one">
    <${Card} title=${`Layer ${layer}, head ${head}`} tools=${tools} id="inside-one">
      <${Does} found=${found} head=${head} each=${heads / groups} />
      ${error && html`<p class="bad">${error.message}</p>`}
      ${weights && html`<${BigMap} weights=${weights} n=${n} texts=${texts} at=${cell} onChoose=${(q, k) => setAt([q, k])}
        title=${`Attention map of layer ${layer}, head ${head}`} />`}
      ${!weights && !error && html`<p class="stats" role="status">Looking at this head…</p>`}
      <p class="hint">Each row is a token that asks; the columns are the tokens it looks at. The hatched half is masked: it comes later.</p>
    <//>
    ${weights && html`<${FromToken} weights=${weights} n=${n} texts=${texts} q=${cell[0]} setQ=${(q) => setAt([q, Math.min(cell[1], q)])} />`}
  </div>`;
}

/** "270 maps in 315 ms", and of what this is made. */
function Took({ answer, maps, drawn }) {
  const { ask, decode } = timesOf(answer), whole = Math.round(ask + decode + drawn);
  const parts = `asked ${Math.round(ask)} ms · decoded ${Math.round(decode)} ms · drawn ${Math.round(drawn)} ms`;
  return html`<span title=${parts} data-ask=${ask} data-decode=${decode} data-draw=${drawn}>${maps} maps in ${whole} ms</span>`;
}

/** One head of all, as floats. */
function mapOf({ shape: [, heads, n], data }, layer, head) {
  const at = (layer * heads + head) * n * n;
  return Float32Array.from(data.subarray(at, at + n * n), (x) => x / 255);
}

export default function Attention({ model, tokens, architecture }) {
  const { n_layer: layers, n_head: heads, n_kv_head: groups } = architecture;
  const n = tokens.ids.length, most = Math.floor(Math.sqrt(ANSWER_BYTES / 4 / layers / heads)), cut = n > most;
  const prompt = useMemo(() => (cut ? tokens.ids.slice(0, most) : tokens.ids), [tokens]);
  const { answer, asked, error, busy, again } = useInspect({ model, prompt, what: ["weights"], encoding: "uint8" });
  const [layerText] = useParam("layer"), [headText] = useParam("head");
  const [only, setOnly] = useState(null), [drawn, setDrawn] = useState(null);
  const maps = answer && asked.model === model && answer.weights.shape[0] === layers ? answer.weights : null;
  const patterns = useMemo(() => (maps ? patternsOf(maps, asked.prompt) : []), [maps]);
  const given = layerText !== null || headText !== null, telling = given ? 0 : tellingHead(patterns);
  const layer = given ? within(layerText, layers) : Math.floor(telling / heads), head = given ? within(headText, heads) : telling % heads;
  const fresh = maps && asked.prompt === prompt;
  const quick = useMemo(() => (fresh && !cut ? mapOf(maps, layer, head) : null), [maps, fresh, layer, head]);
  const open = (l, h) => {
    setParams({ layer: l, head: h });
    if (matchMedia("(max-width: 1080px)").matches) document.getElementById("inside-one")?.scrollIntoView(); // it is below there
  };
  const tools = html`<span class="count" id="inside-took">${busy ? "looking…"
    : maps && drawn !== null && html`<${Took} answer=${answer} maps=${layers * heads} drawn=${drawn} />`}</span>`;
  if (error) return html`<${Failed} title="The maps did not come" error=${error} again=${again} />`;
  return html`<div class="inside-attention">
    <${Card} title="All heads" tools=${tools} id="inside-all">
      <p class="hint">Rows are layers, from the first at the top; columns are heads. Click one to see it large.
        ${cut && ` The first ${most} of ${n} tokens; one head shows all.`}</p>
      ${maps ? html`<${Patterns} patterns=${patterns} only=${only} setOnly=${setOnly} />
        <${HeadGrid} maps=${maps} patterns=${patterns} shared=${heads / groups} chosen=${[layer, head]} only=${only}
          onDrawn=${setDrawn} onOpen=${open} />`
      : html`<p class="hint" role="status">Looking at ${layers * heads} heads…</p>`}
    <//>
    ${(maps || given) && html`<${OneHead} model=${model} tokens=${tokens} architecture=${architecture} layer=${layer} head=${head} quick=${quick}
      found=${fresh ? patterns[layer * heads + head] : null} />`}
  </div>`;
}
