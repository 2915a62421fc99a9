// SPDX-License-Identifier: MIT
// Attention: the maps of all heads at once, one of them large with its exact numbers, and the text as one token sees it.

import { number, percent, visible } from "../../lib/format.js";
import { html, useEffect, useMemo, useState } from "../../lib/html.js";
import { namesOf, timesOf, useInspect } from "../../lib/inspect.js";
import { setParams, useParam } from "../../lib/store.js";
import { Card, Empty, Segmented, Select } from "../../lib/ui.js";
import { HeadGrid } from "./attention/grid.js";
import { BigMap } from "./attention/map.js";
import { PATTERNS, patternsOf } from "./attention/patterns.js";
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
  const kinds = PATTERNS.map(([name, label, meaning]) => [name, label, meaning, patterns.filter((found) => found.name === name).length]).filter(([, , , n]) => n > 0);
  if (kinds.length === 0) return html`<p class="hint">No head gives more than half of its attention to one simple place.</p>`;
  return html`<div class="inside-patterns" role="group" aria-label="Heads that mostly look at the">
    <span class="hint">Mostly look at the</span>
    ${kinds.map(([name, label, meaning, n]) => html`<button type="button" class="chip" aria-pressed=${only === name} title=${`A head that ${meaning}.`}
      onClick=${() => setOnly(only === name ? null : name)}>${label} <span class="stats">${n}</span></button>`)}
  </div>`;
}

/** What the text looks like from one token: what it looks at, or who looks at it. */
function FromToken({ weights, n, texts, q, setQ }) {
  const [way, setWay] = useState("row");
  const at = (i) => (way === "row" ? weights[q * n + i] : weights[i * n + q]);
  const possible = (i) => (way === "row" ? i <= q : i >= q);
  const all = texts.map((_, i) => i).filter(possible).sort((a, b) => at(b) - at(a)).slice(0, STRONGEST);
  const most = at(all[0]) || 1;
  return html`<${Card} title="From one token" tools=${html`<${Segmented} label="Direction" value=${way} onChange=${setWay} options=${[["row", "looks at"], ["column", "is looked at by"]]} />`}>
    <div class="inside-from">
      <div>
        <${Strip} texts=${texts} chosen=${q} onChoose=${setQ} label="The text; the chosen token's attention shades the others. Arrow keys choose another token."
          shade=${(i) => (possible(i) ? Math.sqrt(at(i)) : 0)} title=${(i) => `${visible(texts[i])}: ${possible(i) ? percent(at(i)) : "masked"}`} />
        <p class="hint">Click a token; the stronger the colour of another one, the more ${way === "row" ? "it is looked at" : "it looks at this one"}.</p>
      </div>
      <ol class="bars" aria-label=${way === "row" ? "Looked at most" : "Looking most"}>${all.map((i) => html`<li><span class="bar chosen"><span class="bar-fill" style=${{ width: `${(at(i) / most) * 100}%` }}></span>
        <span class="bar-text">${visible(texts[i])}<span class="stats"> ${i}</span></span><span class="bar-value">${number(at(i), 3)}</span></span></li>`)}</ol>
    </div>
  <//>`;
}

function OneHead({ model, tokens, architecture, layer, head, quick, found }) {
  const { n_head: heads, n_layer: layers, n_kv_head: groups } = architecture;
  const n = tokens.ids.length, texts = useMemo(() => namesOf(tokens), [tokens]), [at, setAt] = useState([n - 1, n - 1]);
  const { answer, asked, error } = useInspect({ model, prompt: tokens.ids, what: ["weights"], layer, head, encoding: "float32" });
  useEffect(() => { setAt([n - 1, Math.max(0, n - 2)]); }, [n]);
  const exact = answer && asked.layer === layer && asked.head === head && asked.prompt === tokens.ids ? answer.weights.data : null;
  const weights = exact ?? quick;
  const cell = [Math.min(at[0], n - 1), Math.min(at[1], n - 1)];
  const each = heads / groups, group = Math.floor(head / each);
  const title = `Layer ${layer}, head ${head}`;
  const options = (of) => Array.from({ length: of }, (_, i) => [String(i), String(i)]);
  const tools = html`<${Select} label="Layer" visibleLabel value=${String(layer)} options=${options(layers)} onChange=${(value) => setParams({ layer: value, head })} />
    <${Select} label="Head" visibleLabel value=${String(head)} options=${options(heads)} onChange=${(value) => setParams({ layer, head: value })} />`;
  const pattern = PATTERNS.find(([name]) => name === found?.name);
  return html`<div class="stack inside-one">
    <${Card} title=${title} tools=${tools} id="inside-one">
      <p class="hint inside-does">${pattern ? html`<span class="tag good">${pattern[1]} ${percent(found.shares[pattern[0]])}</span> This head mostly ${pattern[2]}.` : "Where this head looks depends on the tokens."}
        ${each > 1 && ` It shares key/value head ${group} with heads ${group * each} to ${group * each + each - 1}.`}</p>
      ${error && html`<p class="bad">${error.message}</p>`}
      ${weights && html`<${BigMap} weights=${weights} n=${n} texts=${texts} at=${cell} onChoose=${(q, k) => setAt([q, k])} title=${`Attention map of layer ${layer}, head ${head}`} />`}
      ${!weights && !error && html`<p class="stats" role="status">Looking at this head…</p>`}
      <p class="hint">Each row is a token that asks; the columns are the tokens it looks at. The hatched half is masked: it comes later.</p>
    <//>
    ${weights && html`<${FromToken} weights=${weights} n=${n} texts=${texts} q=${cell[0]} setQ=${(q) => setAt([q, Math.min(cell[1], q)])} />`}
  </div>`;
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
  const size = prompt.length, fresh = maps && asked.prompt === prompt;
  const quick = useMemo(() => (fresh && !cut ? Float32Array.from(maps.data.subarray((layer * heads + head) * size * size, (layer * heads + head + 1) * size * size), (x) => x / 255) : null), [maps, fresh, layer, head]);
  const open = (l, h) => {
    setParams({ layer: l, head: h });
    if (matchMedia("(max-width: 1080px)").matches) document.getElementById("inside-one")?.scrollIntoView(); // it is below there
  };
  const took = maps && drawn !== null ? timesOf(answer) : null;
  const tools = html`<span class="count" id="inside-took">${busy ? "looking…" : took ? html`<span title=${`asked ${Math.round(took.ask)} ms · decoded ${Math.round(took.decode)} ms · drawn ${Math.round(drawn)} ms`}
    data-ask=${took.ask} data-decode=${took.decode} data-draw=${drawn}>${layers * heads} maps in ${Math.round(took.ask + took.decode + drawn)} ms</span>` : ""}</span>`;
  if (error) return html`<${Card}><${Empty} title="The maps did not come" action=${html`<button type="button" onClick=${again}>Try again</button>`}>${error.message}<//><//>`;
  return html`<div class="inside-attention">
    <${Card} title="All heads" tools=${tools} id="inside-all">
      <p class="hint">Rows are layers, from the first at the top; columns are heads. Click one to see it large.${cut && ` The first ${most} of ${n} tokens; one head shows all.`}</p>
      ${maps ? html`<${Patterns} patterns=${patterns} only=${only} setOnly=${setOnly} />
        <${HeadGrid} maps=${maps} patterns=${patterns} shared=${heads / groups} chosen=${[layer, head]} only=${only} onDrawn=${setDrawn} onOpen=${open} />`
      : html`<p class="hint" role="status">Looking at ${layers * heads} heads…</p>`}
    <//>
    ${(maps || given) && html`<${OneHead} model=${model} tokens=${tokens} architecture=${architecture} layer=${layer} head=${head} quick=${quick} found=${fresh ? patterns[layer * heads + head] : null} />`}
  </div>`;
}
