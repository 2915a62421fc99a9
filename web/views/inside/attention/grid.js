// SPDX-License-Identifier: MIT
// The maps of all heads of all layers on one canvas: rows are layers, columns heads. Click or Enter opens one.

import { percent } from "../../../lib/format.js";
import { Canvas, drawMap, themeColour, useWidth, weightPalette } from "../../../lib/heat.js";
import { html, useMemo, useRef, useState } from "../../../lib/html.js";
import { PATTERNS } from "./patterns.js";

const GAP = 3, LABELS = 26, SMALLEST = 18, LARGEST = 84;

const nameOf = (pattern) => PATTERNS.find(([name]) => name === pattern)?.[1];

/** "layer 3 · head 2 · mostly previous token (83%)" */
function wordsOf(layer, head, found) {
  return `layer ${layer} · head ${head}${found?.name ? ` · mostly ${nameOf(found.name)} (${percent(found.shares[found.name])})` : ""}`;
}

/** The heads' numbers; neighbouring ones that share a key/value head have one colour of line above. */
function Columns({ heads, shared, step }) {
  const style = { marginLeft: `${LABELS}px`, gap: `${GAP}px` }, width = { width: `${step - GAP}px` }, group = (h) => Math.floor(h / shared);
  return html`<div class="inside-heads" aria-hidden="true" style=${style}>${Array.from({ length: heads }, (_, h) => html`<span style=${width}
    class=${shared > 1 && group(h) % 2 ? "odd" : undefined}
    title=${shared > 1 ? `head ${h}; reads key/value head ${group(h)}` : `head ${h}`}>${h}</span>`)}</div>`;
}

function draw({ shape: [layers, heads, n], data }, step, patterns, only) {
  return (context, scale) => {
    const { width, height } = context.canvas, image = context.createImageData(width, height), pixels = new Int32Array(image.data.buffer);
    const look = weightPalette(), size = Math.round((step - GAP) * scale), at = (i) => Math.round(i * step * scale);
    for (let l = 0; l < layers; l++) {
      for (let h = 0; h < heads; h++) drawMap(pixels, width, at(h), at(l), size, data, (l * heads + h) * n * n, n, look);
    }
    context.putImageData(image, 0, 0);
    if (!only) return;
    context.fillStyle = `rgb(${themeColour("--card").join(" ")} / .85)`;
    patterns.forEach((found, i) => { if (found.name !== only) context.fillRect(at(i % heads), at(Math.floor(i / heads)), size, size); });
  };
}

/** maps: of all layers, as bytes. chosen: [layer, head] that is open; only: a pattern, heads of others fade. onDrawn(ms) after each drawing. */
export function HeadGrid({ maps, patterns, shared, chosen, only, onOpen, onDrawn }) {
  const [layers, heads, n] = maps.shape;
  const [node, width] = useWidth(), host = useRef();
  const [cursor, setCursor] = useState(null); // [layer, head] under the pointer or the arrow keys
  const step = Math.min(LARGEST, Math.max(SMALLEST, Math.floor((width - LABELS) / heads)));
  const paint = useMemo(() => draw(maps, step, patterns, only), [maps, step, patterns, only]);
  const place = (event) => {
    const box = host.current.getBoundingClientRect();
    const layer = Math.floor((event.clientY - box.top) / step), head = Math.floor((event.clientX - box.left) / step);
    return layer >= 0 && head >= 0 && layer < layers && head < heads ? [layer, head] : null;
  };
  const onKey = (event) => {
    const move = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
    const [l, h] = cursor ?? chosen;
    if (event.key === "Enter" || event.key === " ") onOpen(l, h);
    else if (move) setCursor([Math.min(Math.max(l + move[0], 0), layers - 1), Math.min(Math.max(h + move[1], 0), heads - 1)]);
    else return;
    event.preventDefault();
  };
  const [l, h] = cursor ?? chosen, words = wordsOf(l, h, patterns[l * heads + h]);
  const side = `${step - GAP}px`;
  const frame = ([layer, head]) => ({ transform: `translate(${head * step}px, ${layer * step}px)`, width: side, height: side });
  const onMove = (event) => {
    const at = place(event);
    if (at && (at[0] !== l || at[1] !== h || !cursor)) setCursor(at);
  };
  return html`<div ref=${node} class="inside-grid">
    <p class="stats inside-readout" id="inside-head" role="status">${words}</p>
    <div class="scroll">
      <${Columns} heads=${heads} shared=${shared} step=${step} />
      <div class="inside-grid-body">
        <div class="inside-layers" aria-hidden="true" style=${{ width: `${LABELS}px` }}>
          ${Array.from({ length: layers }, (_, i) => html`<span style=${{ height: `${step}px` }}>${i}</span>`)}</div>
        <div class="inside-grid-maps" ref=${host} tabindex="0" role="group" style=${{ width: `${heads * step}px` }}
          aria-label=${`All ${layers * heads} heads. Arrow keys go from head to head, Enter opens one.`} onKeyDown=${onKey} onPointerMove=${onMove}
          onPointerLeave=${() => setCursor(null)} onBlur=${() => setCursor(null)} onClick=${(e) => { const at = place(e); if (at) onOpen(...at); }}>
          ${width > 0 && html`<${Canvas} width=${heads * step} height=${layers * step} deps=${[paint]} className="inside-canvas"
            label=${`Attention of ${layers} layers with ${heads} heads each over ${n} tokens, one small map a head`}
            draw=${(context, scale) => { const began = performance.now(); paint(context, scale); onDrawn(performance.now() - began); }} />`}
          <span class="inside-frame chosen" style=${frame(chosen)}></span>
          ${cursor && html`<span class="inside-frame" style=${frame(cursor)}></span>`}
        </div>
      </div>
    </div>
  </div>`;
}
