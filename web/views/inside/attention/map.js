// SPDX-License-Identifier: MIT
// One head's map, large: rows are the tokens that ask (queries), columns the tokens they look at (keys). Pointer and arrow keys go from cell to cell.

import { number, percent, visible } from "../../../lib/format.js";
import { Canvas, drawMap, themeColour, toBytes, useWidth, weightPalette } from "../../../lib/heat.js";
import { html, useMemo, useRef, useState } from "../../../lib/html.js";

const LABELLED = 11, LARGEST = 38, LABEL_CHARS = 11; // names are shown where a cell is this high

function short(text) {
  const all = [...visible(text)];
  return all.length > LABEL_CHARS ? `${all.slice(0, LABEL_CHARS - 1).join("")}…` : all.join("");
}

function layout(width, n) {
  const gutter = Math.min(96, Math.floor(width * 0.24));
  const cell = Math.min(LARGEST, Math.floor((width - gutter) / n));
  return cell >= LABELLED ? { cell, gutter } : { cell: Math.max(1, Math.min(LARGEST, Math.floor(width / n))), gutter: 0 };
}

function drawLabels(context, scale, texts, { cell, gutter }) {
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.font = `${Math.min(13, cell - 1)}px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace`;
  context.fillStyle = `rgb(${themeColour("--soft").join(" ")})`;
  context.textBaseline = "middle";
  texts.forEach((text, i) => {
    const middle = gutter + (i + 0.5) * cell;
    context.textAlign = "right";
    context.fillText(short(text), gutter - 6, middle, gutter - 8);
    context.save();
    context.translate(middle, gutter - 6);
    context.rotate(-Math.PI / 2);
    context.textAlign = "left";
    context.fillText(short(text), 0, 0, gutter - 8);
    context.restore();
  });
}

/** The words for one cell. */
export function cellWords(texts, weights, n, q, k) {
  if (k > q) return `${visible(texts[q])} (${q}) cannot see ${visible(texts[k])} (${k}): it comes later, the mask forbids it`;
  const w = weights[q * n + k];
  return `${visible(texts[q])} (${q}) looks at ${visible(texts[k])} (${k}): ${number(w, 4)} (${percent(w)})`;
}

/** weights: n x n floats. at: the chosen cell [q, k]; onChoose(q, k). */
export function BigMap({ weights, n, texts, at, onChoose, title }) {
  const [node, width] = useWidth(), host = useRef(), [hover, setHover] = useState(null);
  const size = useMemo(() => layout(width, n), [width, n]), { cell, gutter } = size, side = gutter + n * cell;
  const paint = useMemo(() => (context, scale) => {
    const image = context.createImageData(Math.round(n * cell * scale), Math.round(n * cell * scale));
    drawMap(new Int32Array(image.data.buffer), image.width, 0, 0, image.width, toBytes(weights), 0, n, weightPalette());
    context.putImageData(image, Math.round(gutter * scale), Math.round(gutter * scale));
    if (gutter) drawLabels(context, scale, texts, size);
  }, [weights, texts, size]);
  const place = (event) => {
    const box = host.current.getBoundingClientRect();
    const q = Math.floor((event.clientY - box.top - gutter) / cell), k = Math.floor((event.clientX - box.left - gutter) / cell);
    return q >= 0 && k >= 0 && q < n && k < n ? [q, k] : null;
  };
  const onMove = (event) => {
    const now = place(event);
    if (now?.[0] !== hover?.[0] || now?.[1] !== hover?.[1]) setHover(now);
  };
  const onKey = (event) => {
    const move = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0], Home: [0, -n], End: [0, n] }[event.key];
    if (!move || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    onChoose(Math.min(Math.max(at[0] + move[0], 0), n - 1), Math.min(Math.max(at[1] + move[1], 0), n - 1));
  };
  const [q, k] = hover ?? at;
  let sum = 0;
  for (let i = 0; i < n; i++) sum += weights[q * n + i];
  const words = cellWords(texts, weights, n, q, k);
  return html`<div ref=${node}>
    <p class="stats inside-readout" id="inside-cell"><span>${words}</span><span class="inside-sum">row sums to ${sum.toFixed(3)}</span></p>
    <div class="scroll inside-map" ref=${host} tabindex="0" role="group" aria-label=${`${title}. Arrow keys go from cell to cell.`} onKeyDown=${onKey}
      onPointerMove=${onMove} onPointerLeave=${() => setHover(null)} style=${{ width: `${side}px`, height: `${side}px` }}
      onClick=${(e) => { const cellAt = place(e); if (cellAt) onChoose(...cellAt); }}>
      <span class="inside-mask" style=${{ inset: `${gutter}px 0 0 ${gutter}px` }}></span>
      ${width > 0 && html`<${Canvas} width=${side} height=${side} deps=${[paint]} draw=${paint} className="inside-canvas"
        label=${`${title}: ${n} tokens; rows ask, columns are looked at; the upper right is masked`} />`}
      <span class="inside-band" style=${{ top: `${gutter + q * cell}px`, height: `${cell}px` }}></span>
      <span class="inside-band" style=${{ left: `${gutter + k * cell}px`, width: `${cell}px` }}></span>
    </div>
    <p class="sr" role="status">${hover ? "" : words}</p>
  </div>`;
}
