// SPDX-License-Identifier: MIT
// Attention: the maps of all heads at once, what kind of head each is, one of them large with its exact numbers, and the text as one token sees
// it; and the canvas on which weights are drawn.

import { colourOf, theme } from "../../lib/chart.js";
import { number, percent, visible } from "../../lib/format.js";
import { html, useEffect, useLayoutEffect, useMemo, useRef, useState } from "../../lib/html.js";
import { arrow, Failed, Looking, namesOf, range, Strip, useInspect, within } from "../../lib/inspect.js";
import { setParams, useParam, useStore } from "../../lib/store.js";
import { Bars } from "../../lib/token_text.js";
import { Card, Segmented, Select } from "../../lib/ui.js";

const ANSWER_BYTES = 64 * 1024 * 1024; // of one answer's arrays, as floats; the server's bound
const STRONGEST = 6;

// ---------------------------------------------------------------- what a head does

/** In words that a learner knows: [label, what it means, the places that token q of `ids` would look at]. */
const PATTERNS = {
  previous: ["previous token", "looks one token back: the model knows what came just before", (q) => [q - 1]],
  first: ["first token", "looks at the first token: mostly a resting place for a head that has nothing to say", () => [0]],
  self: ["itself", "looks at the token itself", (q) => [q]],
  again: ["what followed last time",
    "finds an earlier place with the same token and looks at what followed there: how models repeat and copy (an induction head)",
    (q, ids) => range(q).filter((k) => k > 0 && ids[k - 1] === ids[q])],
};
export const CLEAR = 0.5; // a head is said to do what more than half of its attention does, on average over the tokens

/** For every head, layer after layer: {name, share} of the pattern that stands out, or null. */
function patternsOf({ shape: [layers, heads, n], data }, ids) {
  // The first two tokens tell nothing: for them the places are the same.
  const kinds = Object.entries(PATTERNS).map(([name, [, , places]]) => [name, range(n).map((q) => (q < 2 ? [] : places(q, ids)))]);
  return range(layers * heads).map((head) => {
    let found = null;
    for (const [name, places] of kinds) {
      let sum = 0, of = 0;
      for (let q = 2; q < n; q++) {
        if (places[q].length > 0) of++;
        for (const k of places[q]) sum += data[(head * n + q) * n + k];
      }
      const share = sum / 255 / of;
      if (of > 1 && share > (found?.share ?? CLEAR)) found = { name, share };
    }
    return found;
  });
}

/** The head that shows best what attention can do: opened first. */
function tellingHead(patterns) {
  const score = (found) => (found?.name === "previous" || found?.name === "again" ? found.share : 0);
  return patterns.reduce((best, found, i) => (score(found) > score(patterns[best]) ? i : best), 0);
}

/** Chips of what heads do, with how many do it; a chosen one lets the others fade. */
function Patterns({ patterns, only, setOnly }) {
  const chip = ([name, [label, meaning]]) => {
    const n = patterns.filter((found) => found?.name === name).length;
    return n > 0 && html`<button type="button" class="chip" aria-pressed=${only === name} title=${`A head that ${meaning}.`}
      onClick=${() => setOnly(only === name ? null : name)}>${label} <span class="stats">${n}</span></button>`;
  };
  if (!patterns.some(Boolean)) return html`<p class="hint">No head gives more than half of its attention to one simple place.</p>`;
  return html`<div class="actions" role="group" aria-label="Heads that mostly look at the">
    <span class="hint">Mostly look at the</span>
    ${Object.entries(PATTERNS).map(chip)}
  </div>`;
}

/** What kind of head it is, and with which others it shares its keys and values. */
function Does({ found, head, each }) {
  const group = Math.floor(head / each), [label, meaning] = PATTERNS[found?.name] ?? [];
  return html`<p class="hint">${found ? html`<span class="tag good">${label} ${percent(found.share)}</span> This head mostly ${meaning}.`
    : "Where this head looks depends on the tokens."}
    ${each > 1 && ` It shares key/value head ${group} with heads ${group * each} to ${group * each + each - 1}.`}</p>`;
}

// ---------------------------------------------------------------- canvases

/** 256 pixels for attention weights as bytes: small ones can be told from nothing (a square root), the largest stand out. */
export function weightPalette() {
  const [pale, accent, ink] = ["--tint", "--accent", "--ink"].map((name) => colourOf(name).match(/[\d.]+/g).slice(0, 3).map(Number));
  const between = (from, to, share) => from.map((c, k) => c + share * (to[k] - c));
  return Int32Array.from({ length: 256 }, (_, i) => {
    const x = Math.sqrt(i / 255);
    const [r, g, b] = x < 0.7 ? between(pale, accent, x / 0.7) : between(accent, ink, 1.5 * (x - 0.7));
    return (255 << 24) | (b << 16) | (g << 8) | r;
  });
}

/**
 * Draws n x n bytes from data[at] into a square of `size` pixels at (left, top) of `pixels`, which is `width` wide. Where several values fall on
 * one pixel the largest shows: a thin line stays a line. What the mask forbids stays clear.
 */
export function drawMap(pixels, width, left, top, size, data, at, n, colours) {
  const from = Uint16Array.from({ length: size + 1 }, (_, i) => (i * n) / size), to = from.map((place, i) => Math.max(place + 1, from[i + 1]));
  for (let y = 0; y < size; y++) {
    for (let x = 0; x < size && from[x] < to[y]; x++) {
      let most = 0;
      for (let q = from[y]; q < to[y]; q++) {
        for (let k = from[x]; k < to[x]; k++) most = Math.max(most, data[at + q * n + k]);
      }
      pixels[(top + y) * width + left + x] = colours[most];
    }
  }
}

/** Weights as the bytes that drawMap wants. */
export const toBytes = (weights) => Uint8ClampedArray.from(weights, (x) => x * 255);

/**
 * A canvas of css size width x height, sharp on any screen. draw(context, scale) draws all of it, in device pixels; it is called when `deps` or the
 * theme change.
 */
export function Canvas({ width, height, draw, deps, label }) {
  const node = useRef(), colours = useStore(theme), scale = Math.min(3, devicePixelRatio);
  useLayoutEffect(() => {
    const canvas = node.current;
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    draw(canvas.getContext("2d"), scale);
  }, [width, height, scale, colours, ...deps]);
  return html`<canvas ref=${node} role="img" aria-label=${label} style=${{ width: `${width}px`, height: `${height}px` }}></canvas>`;
}

const SCALE = 240, MARKS = [0, 0.01, 0.1, 0.5, 1];

/** What the colours of a map mean. */
export function Scale() {
  const draw = (context) => {
    const { width, height } = context.canvas, image = context.createImageData(width, height), colours = weightPalette();
    new Int32Array(image.data.buffer).forEach((_x, i, pixels) => { pixels[i] = colours[Math.round((i % width / width) ** 2 * 255)]; });
    context.putImageData(image, 0, 0);
  };
  return html`<div class="inside-scale">
    <${Canvas} width=${SCALE} height=${10} draw=${draw} deps=${[]} label="The colours of weights from 0 to 100%" />
    ${MARKS.map((x) => html`<span style=${{ left: `${Math.sqrt(x) * SCALE}px` }}>${x * 100}%</span>`)}</div>`;
}

/** The width of an element in css pixels, 0 before it is known: [ref, width]. */
function useWidth() {
  const node = useRef(), [width, setWidth] = useState(0);
  useLayoutEffect(() => {
    const watch = new ResizeObserver(([entry]) => setWidth(Math.floor(entry.contentRect.width)));
    watch.observe(node.current);
    return () => watch.disconnect();
  }, []);
  return [node, width];
}

// ---------------------------------------------------------------- maps of heads

/**
 * A canvas of rows x columns cells, each `cell` css pixels wide, below and right of `gutter`. `at`: the cell that is looked at. onPoint(cell, or
 * null outside), onMove(cell) by arrow keys, onChoose(cell) by a click or Enter.
 */
function Cells({ rows, columns, cell, gutter = 0, at, onPoint, onMove, onChoose, paint, label, says, className, children }) {
  const host = useRef(), pointed = useRef(null), width = gutter + columns * cell, height = gutter + rows * cell;
  const place = (event) => {
    const box = host.current.getBoundingClientRect();
    const [row, column] = [event.clientY - box.top, event.clientX - box.left].map((x) => Math.floor((x - gutter) / cell));
    return row >= 0 && column >= 0 && row < rows && column < columns ? [row, column] : null;
  };
  const point = (to) => {
    if (!to || String(to) !== String(pointed.current)) onPoint(to);
    pointed.current = to;
  };
  const onKey = (event) => {
    const to = arrow(event, at, rows, columns), open = event.key === "Enter" || event.key === " ";
    if (to) onMove(to);
    if (!open) return;
    event.preventDefault();
    onChoose(at);
  };
  return html`<div class=${className} ref=${host} tabindex="0" role="group" aria-label=${label} onKeyDown=${onKey} onBlur=${() => point(null)}
    onPointerMove=${(event) => point(place(event))} onPointerLeave=${() => point(null)}
    onClick=${(event) => { const to = place(event); if (to) onChoose(to); }} style=${{ width: `${width}px`, height: `${height}px` }}>
    ${children}<${Canvas} width=${width} height=${height} deps=${[paint]} draw=${paint} label=${says} />
  </div>`;
}

const GAP = 3, LABELS = 26, SMALLEST = 18, LARGEST = 84;

/** Draws all maps; those of other patterns than `only` fade. */
const grid = ({ shape: [layers, heads, n], data }, step, patterns, only, onDrawn) => (context, scale) => {
  const began = performance.now(), { width, height } = context.canvas, image = context.createImageData(width, height);
  const pixels = new Int32Array(image.data.buffer), colours = weightPalette(), size = Math.round((step - GAP) * scale);
  const corners = range(layers * heads).map((i) => [i % heads, Math.floor(i / heads)].map((at) => Math.round(at * step * scale)));
  corners.forEach(([left, top], i) => drawMap(pixels, width, left, top, size, data, i * n * n, n, colours));
  context.putImageData(image, 0, 0);
  context.globalAlpha = 0.85;
  context.fillStyle = colourOf("--card");
  corners.forEach(([left, top], i) => { if (only && patterns[i]?.name !== only) context.fillRect(left, top, size, size); });
  onDrawn(performance.now() - began);
};

/** maps: of all layers, as bytes. shared: how many heads share keys and values. chosen: [layer, head] that is open. onDrawn(ms): after drawing. */
function HeadGrid({ maps, patterns, shared, chosen, only, onOpen, onDrawn }) {
  const [layers, heads, n] = maps.shape, [node, width] = useWidth();
  const [cursor, setCursor] = useState(null); // [layer, head] under the pointer or the arrow keys
  const step = Math.min(LARGEST, Math.max(SMALLEST, Math.floor((width - LABELS) / heads))), side = `${step - GAP}px`;
  const paint = useMemo(() => grid(maps, step, patterns, only, onDrawn), [maps, step, patterns, only]);
  const [layer, head] = cursor ?? chosen, found = patterns[layer * heads + head];
  const frame = ([l, h], kind) => html`<span class=${`inside-frame ${kind}`}
    style=${{ top: `${l * step}px`, left: `${h * step}px`, width: side, height: side }}></span>`;
  const column = (h) => {
    const group = Math.floor(h / shared); // neighbouring ones that share a key/value head have one colour of line above
    return html`<span style=${{ width: side }} class=${shared > 1 && group % 2 ? "odd" : undefined}
      title=${`head ${h}${shared > 1 ? `; reads key/value head ${group}` : ""}`}>${h}</span>`;
  };
  return html`<div ref=${node} class="inside-grid">
    <p class="row stats inside-readout" id="inside-head" role="status">
      layer ${layer} · head ${head}${found && ` · mostly ${PATTERNS[found.name][0]} (${percent(found.share)})`}</p>
    ${width > 0 && html`<div class="scroll">
      <div class="inside-heads" aria-hidden="true" style=${{ marginLeft: `${LABELS}px`, gap: `${GAP}px` }}>${range(heads).map(column)}</div>
      <div class="inside-grid-body">
        <div class="inside-layers" aria-hidden="true" style=${{ width: `${LABELS}px` }}>
          ${range(layers).map((l) => html`<span style=${{ height: `${step}px` }}>${l}</span>`)}</div>
        <${Cells} rows=${layers} columns=${heads} cell=${step} at=${[layer, head]} onPoint=${setCursor} onMove=${setCursor} onChoose=${onOpen}
          className="inside-grid-maps" paint=${paint} label=${`All ${layers * heads} heads. Arrow keys go from head to head, Enter opens one.`}
          says=${`Attention of ${layers} layers with ${heads} heads each over ${n} tokens, one small map a head`}>
          ${frame(chosen, "chosen")}${cursor && frame(cursor, "")}<//>
      </div>
    </div>`}
  </div>`;
}

const LABELLED = 11, LARGEST_CELL = 38; // names are shown where a cell is this high

function layout(width, n) {
  const gutter = Math.min(96, Math.floor(width * 0.24)), cellIn = (space) => Math.max(1, Math.min(LARGEST_CELL, Math.floor(space / n)));
  const cell = cellIn(width - gutter);
  return cell >= LABELLED ? { cell, gutter } : { cell: cellIn(width), gutter: 0 };
}

const short = (text) => visible(text).replace(/^(.{10}).{2,}/su, "$1…");

/** Draws one map and, where there is a gutter, the tokens' names left of it and, turned, above. */
const large = (weights, n, texts, { cell, gutter }) => (context, scale) => {
  const side = Math.round(n * cell * scale), corner = Math.round(gutter * scale), image = context.createImageData(side, side);
  drawMap(new Int32Array(image.data.buffer), side, 0, 0, side, toBytes(weights), 0, n, weightPalette());
  context.putImageData(image, corner, corner);
  if (!gutter) return;
  context.font = `${Math.min(13, cell - 1)}px ui-monospace, monospace`;
  context.fillStyle = colourOf("--soft");
  context.textBaseline = "middle";
  const write = (align, turn, x, y) => texts.forEach((text, i) => {
    const along = gutter + (i + 0.5) * cell;
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.translate(x ?? along, y ?? along);
    context.rotate(turn);
    context.textAlign = align;
    context.fillText(short(text), 0, 0, gutter - 8);
  });
  write("right", 0, gutter - 6, null);
  write("left", -Math.PI / 2, null, gutter - 6);
};

/** One head's map: rows are the tokens that ask (queries), columns the tokens they look at (keys). weights: n x n floats; at: the chosen cell. */
function BigMap({ weights, n, texts, at, onChoose, title }) {
  const [node, width] = useWidth(), [hover, setHover] = useState(null);
  const size = useMemo(() => layout(width, n), [width, n]), { cell, gutter } = size;
  const paint = useMemo(() => large(weights, n, texts, size), [weights, texts, size]);
  const [q, k] = hover ?? at, w = weights[q * n + k], name = (i) => `${visible(texts[i])} (${i})`;
  const sum = weights.subarray(q * n, (q + 1) * n).reduce((x, y) => x + y, 0);
  const words = k > q ? `${name(q)} cannot see ${name(k)}: it comes later, the mask forbids it`
    : `${name(q)} looks at ${name(k)}: ${number(w, 4)} (${percent(w)})`;
  const band = (from, i, over) => html`<span class="inside-band" style=${{ [from]: `${gutter + i * cell}px`, [over]: `${cell}px` }}></span>`;
  return html`<div ref=${node}>
    <p class="row stats inside-readout" id="inside-cell"><span>${words}</span><span>row sums to ${sum.toFixed(3)}</span></p>
    ${width > 0 && html`<${Cells} rows=${n} columns=${n} cell=${cell} gutter=${gutter} at=${at} onPoint=${setHover} onMove=${onChoose}
      onChoose=${onChoose} className="scroll inside-map" paint=${paint} label=${`${title}. Arrow keys go from cell to cell.`}
      says=${`${title}: ${n} tokens; rows ask, columns are looked at; the upper right is masked`}>
      <span class="inside-mask" style=${{ inset: `${gutter}px 0 0 ${gutter}px` }}></span>
      ${band("top", q, "height")}${band("left", k, "width")}<//>`}
    <p class="sr" role="status">${hover ? "" : words}</p>
  </div>`;
}

// ---------------------------------------------------------------- one head

const WAYS = [["row", "looks at"], ["column", "is looked at by"]];

/** What the text looks like from one token: what it looks at, or who looks at it. */
function FromToken({ weights, n, texts, q, setQ }) {
  const [way, setWay] = useState("row"), forward = way === "row";
  const at = (i) => (forward ? weights[q * n + i] : weights[i * n + q]), possible = (i) => (forward ? i <= q : i >= q);
  const best = range(n).filter(possible).sort((a, b) => at(b) - at(a)).slice(0, STRONGEST), most = at(best[0]) || 1;
  const tools = html`<${Segmented} label="Direction" value=${way} onChange=${setWay} options=${WAYS} />`;
  return html`<${Card} title="From one token" tools=${tools}>
    <div class="columns inside-from">
      <div>
        <${Strip} texts=${texts} chosen=${q} onChoose=${setQ} shade=${(i) => (possible(i) ? at(i) / most : 0)}
          label="The text; the chosen token's attention shades the others. Arrow keys choose another token."
          title=${(i) => `${visible(texts[i])}: ${possible(i) ? percent(at(i)) : "masked"}`} />
        <p class="hint">Click a token; the stronger the colour of another one, and the longer its bar,${" "}
          ${forward ? "the more it is looked at" : "the more it looks at this one"}.</p>
      </div>
      <${Bars} label=${forward ? "Looked at most" : "Looking most"}
        rows=${best.map((i) => ({ text: texts[i],
        note: html`<span class="stats"> ${i}</span>`, share: at(i) / most, value: number(at(i)) }))} />
    </div>
  <//>`;
}

function OneHead({ model, tokens, architecture, layer, head, quick, found }) {
  const { n_head: heads, n_layer: layers, n_kv_head: groups } = architecture, n = tokens.ids.length, title = `Layer ${layer}, head ${head}`;
  const texts = useMemo(() => namesOf(tokens), [tokens]), [at, setAt] = useState([n - 1, n - 1]);
  const { answer, asked, error } = useInspect({ model, prompt: tokens.ids, what: ["weights"], layer, head, encoding: "float32" });
  useEffect(() => setAt([n - 1, Math.max(0, n - 2)]), [n]);
  const exact = answer && asked.layer === layer && asked.head === head && asked.prompt === tokens.ids ? answer.weights.data : null;
  const weights = exact ?? quick, [q, k] = at.map((i) => within(i, n));
  const choice = (label, value, of, name) => html`<${Select} label=${label} visibleLabel value=${value} options=${range(of).map((i) => [i, i])}
    onChange=${(to) => setParams({ layer, head, [name]: to })} />`;
  return html`<div class="stack inside-one">
    <${Card} title=${title} id="inside-one" tools=${html`${choice("Layer", layer, layers, "layer")}${choice("Head", head, heads, "head")}`}>
      <${Does} found=${found} head=${head} each=${heads / groups} />
      ${error && html`<p class="bad">${error.message}</p>`}
      ${weights ? html`<${BigMap} weights=${weights} n=${n} texts=${texts} at=${[q, k]} onChoose=${setAt}
        title=${`Attention map of ${title.toLowerCase()}`} />` : !error && html`<${Looking} />`}
      <${Scale} />
      <p class="hint">Each row is a token that asks; the columns are the tokens it looks at. The hatched half is masked: it comes later.</p>
    <//>
    ${weights && html`<${FromToken} weights=${weights} n=${n} texts=${texts} q=${q} setQ=${(to) => setAt([to, Math.min(k, to)])} />`}
  </div>`;
}

// ---------------------------------------------------------------- all heads

/** "270 maps in 315 ms", and of what this is made. */
function Took({ times: { ask, decode }, maps, drawn }) {
  const ms = (x) => `${Math.round(x)} ms`;
  return html`<span title=${`asked ${ms(ask)} · decoded ${ms(decode)} · drawn ${ms(drawn)}`} data-ask=${ask} data-decode=${decode}
    data-draw=${drawn}>${maps} maps in ${ms(ask + decode + drawn)}</span>`;
}

export function Attention({ model, tokens, architecture }) {
  const { n_layer: layers, n_head: heads, n_kv_head: groups } = architecture;
  const n = tokens.ids.length, most = Math.floor(Math.sqrt(ANSWER_BYTES / 4 / layers / heads)), cut = n > most;
  const prompt = useMemo(() => tokens.ids.slice(0, most), [tokens]);
  const { answer, asked, error, busy, again } = useInspect({ model, prompt, what: ["weights"], encoding: "uint8" });
  const [layerText] = useParam("layer"), [headText] = useParam("head");
  const [only, setOnly] = useState(null), [drawn, setDrawn] = useState(null);
  const maps = answer?.weights, fresh = maps && asked.prompt === prompt;
  const patterns = useMemo(() => (maps ? patternsOf(maps, asked.prompt) : []), [maps]);
  const given = layerText !== null || headText !== null, telling = given ? 0 : tellingHead(patterns);
  const layer = given ? within(layerText, layers) : Math.floor(telling / heads), head = given ? within(headText, heads) : telling % heads;
  const at = layer * heads + head;
  const quick = useMemo(() => fresh && !cut && Float32Array.from(maps.data.subarray(at * n * n, (at + 1) * n * n), (x) => x / 255),
    [maps, fresh, at]);
  const open = ([l, h]) => {
    setParams({ layer: l, head: h });
    if (matchMedia("(max-width: 1080px)").matches) document.getElementById("inside-one")?.scrollIntoView(); // it is below there
  };
  const tools = html`<span class="count" id="inside-took">${busy ? "looking…"
    : maps && drawn !== null && html`<${Took} times=${answer.times} maps=${layers * heads} drawn=${drawn} />`}</span>`;
  if (error) return html`<${Failed} error=${error} again=${again} />`;
  return html`<div class="inside-attention">
    <${Card} title="All heads" tools=${tools} id="inside-all">
      <p class="hint">Rows are layers, from the first at the top; columns are heads. Click one to see it large.
        ${cut && ` The first ${most} of ${n} tokens; one head shows all.`}</p>
      ${maps ? html`<${Patterns} patterns=${patterns} only=${only} setOnly=${setOnly} />
        <${HeadGrid} maps=${maps} patterns=${patterns} shared=${heads / groups} chosen=${[layer, head]} only=${only}
          onDrawn=${setDrawn} onOpen=${open} />`
      : html`<${Looking} />`}
    <//>
    ${(maps || given) && html`<${OneHead} model=${model} tokens=${tokens} architecture=${architecture} layer=${layer} head=${head} quick=${quick}
      found=${fresh ? patterns[at] : null} />`}
  </div>`;
}
