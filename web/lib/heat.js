// SPDX-License-Identifier: MIT
// Numbers to be seen: as colours on a canvas, drawn anew when the theme changes, and as shades of a text's tokens; how arrow keys go about there.

import { colourOf, theme } from "./chart.js";
import { visible } from "./format.js";
import { html, useEffect, useId, useLayoutEffect, useRef, useState } from "./html.js";
import { useStore } from "./store.js";

export const range = (n) => Array.from({ length: n }, (_, i) => i);
/** `x`, a number or its text, as one of 0 to n - 1. */
export const within = (x, n) => Math.min(Math.max(Number(x) || 0, 0), n - 1);

/** Where an arrow key leads from a cell of rows x columns; null for any other key. */
export function arrow(event, [row, column], rows, columns) {
  const ways = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0], Home: [0, -columns], End: [0, columns] };
  const way = ways[event.key];
  if (!way || event.ctrlKey || event.metaKey || event.altKey) return null;
  event.preventDefault();
  return [within(row + way[0], rows), within(column + way[1], columns)];
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
  const node = useRef(), colours = useStore(theme), scale = Math.min(3, window.devicePixelRatio || 1);
  useLayoutEffect(() => {
    const canvas = node.current;
    canvas.width = Math.max(1, Math.round(width * scale));
    canvas.height = Math.max(1, Math.round(height * scale));
    draw(canvas.getContext("2d"), scale);
  }, [width, height, scale, colours, ...deps]);
  return html`<canvas ref=${node} role="img" aria-label=${label} style=${{ width: `${width}px`, height: `${height}px` }}></canvas>`;
}

/** The width of an element in css pixels, 0 before it is known: [ref, width]. */
export function useWidth() {
  const node = useRef(), [width, setWidth] = useState(0);
  useLayoutEffect(() => {
    const watch = new ResizeObserver(([entry]) => setWidth(Math.floor(entry.contentRect.width)));
    watch.observe(node.current);
    return () => watch.disconnect();
  }, []);
  return [node, width];
}

// ---------------------------------------------------------------- tokens

/** Line breaks stay, as do blanks; a token without any text can still be clicked. */
const shown = (text) => (text === "" ? "∅" : text.replaceAll("\n", "⏎\n").replaceAll("\t", "⇥"));

/** The text as a line of tokens, one of which is chosen: by click or arrow keys. shade(i), title(i): of a token, 0..1 and words. */
export function Strip({ texts, chosen, onChoose, label, shade, title }) {
  const id = useId(), host = useRef(), n = texts.length;
  const onKey = (event) => {
    const to = arrow(event, [chosen, chosen], n, n); // up and down go about as left and right do
    if (to) onChoose(to[0] + to[1] - chosen);
  };
  useEffect(() => {
    if (host.current === document.activeElement) host.current.querySelector("[aria-selected=true]")?.scrollIntoView({ block: "nearest" });
  }, [chosen]);
  const tint = (i) => ({ backgroundColor: `color-mix(in srgb, var(--accent) ${Math.round(shade(i) * 40)}%, transparent)` });
  return html`<div class="inside-strip" role="listbox" aria-orientation="horizontal" tabindex="0" ref=${host} aria-label=${label}
    aria-activedescendant=${`${id}-${chosen}`}
    onKeyDown=${onKey} onClick=${(e) => { const i = e.target.dataset.i; if (i !== undefined) onChoose(Number(i)); }}>
    ${texts.map((text, i) => html`<span id=${`${id}-${i}`} key=${i} data-i=${i} role="option" class="tok" aria-selected=${i === chosen}
      title=${title?.(i) ?? `${visible(text)}, token ${i}`} style=${shade && tint(i)}>${shown(text)}</span>`)}
  </div>`;
}
