// SPDX-License-Identifier: MIT
// Numbers as colours on canvases: palettes made of the page's own colours, maps drawn through ImageData, drawn anew when the theme changes.

import { html, useEffect, useLayoutEffect, useReducer, useRef, useState } from "./html.js";

// ---------------------------------------------------------------- colours

const LEVELS = 256;
let probe = null;

/** A variable of style.css as [r, g, b], as it is now: light-dark() and all. */
export function themeColour(name) {
  if (!probe) {
    probe = document.body.appendChild(document.createElement("span"));
    probe.hidden = true;
  }
  probe.style.color = `var(${name})`;
  return getComputedStyle(probe).color.match(/[\d.]+/g).slice(0, 3).map(Number);
}

/** Counts the changes of the theme: a dependency of whatever draws. */
export function useTheme() {
  const [version, changed] = useReducer((n) => n + 1, 0);
  useEffect(() => {
    const watch = new MutationObserver(changed), dark = matchMedia("(prefers-color-scheme: dark)");
    watch.observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
    dark.addEventListener("change", changed);
    return () => { watch.disconnect(); dark.removeEventListener("change", changed); };
  }, []);
  return version;
}

const pixel = ([r, g, b]) => (255 << 24) | (Math.round(b) << 16) | (Math.round(g) << 8) | Math.round(r);

/** A palette through the colours [[at 0..1, variable name or [r, g, b]], ...]: 256 pixels for ImageData. */
export function palette(stops) {
  const points = stops.map(([at, colour]) => [at, typeof colour === "string" ? themeColour(colour) : colour]);
  const out = new Int32Array(LEVELS);
  for (let i = 0, p = 0; i < LEVELS; i++) {
    const x = i / (LEVELS - 1);
    while (p < points.length - 2 && x > points[p + 1][0]) p++;
    const [[a, from], [b, to]] = [points[p], points[p + 1]];
    const t = Math.min(1, Math.max(0, (x - a) / (b - a)));
    out[i] = pixel(from.map((c, k) => c + t * (to[k] - c)));
  }
  return out;
}

/** Of attention weights as bytes: small ones can be told from nothing (a square root), the largest stand out. What the mask forbids stays clear. */
export function weightPalette() {
  const ink = themeColour("--ink"), accent = themeColour("--accent");
  const deep = accent.map((c, k) => c + 0.45 * (ink[k] - c));
  const ramp = palette([[0, "--tint"], [0.7, accent], [1, deep]]);
  const colours = new Int32Array(LEVELS);
  for (let i = 0; i < LEVELS; i++) colours[i] = ramp[Math.round(Math.sqrt(i / 255) * 255)];
  return { colours, masked: 0 };
}

/** Both ways from nothing: --c2 below, --accent above. */
export const signedPalette = () => palette([[0, "--c2"], [0.5, "--card"], [1, "--accent"]]);

// ---------------------------------------------------------------- drawing

/**
 * Draws n x n bytes from data[at] into a square of `size` pixels at (left, top) of `pixels`, which is `width` wide. Where several values fall on
 * one pixel the largest shows: a thin line stays a line. causal: what the mask forbids has its own colour.
 */
export function drawMap(pixels, width, left, top, size, data, at, n, look, causal = true) {
  const { colours, masked } = look;
  const from = new Uint16Array(size), to = new Uint16Array(size);
  for (let i = 0; i < size; i++) {
    from[i] = Math.floor((i * n) / size);
    to[i] = Math.max(from[i] + 1, Math.floor(((i + 1) * n) / size));
  }
  const best = new Uint8Array(size);
  for (let y = 0; y < size; y++) {
    const line = (top + y) * width + left;
    if (y > 0 && from[y] === from[y - 1] && to[y] === to[y - 1]) {
      pixels.copyWithin(line, line - width, line - width + size); // the same row once more
      continue;
    }
    best.fill(0);
    for (let q = from[y]; q < to[y]; q++) {
      const row = at + q * n;
      for (let x = 0; x < size; x++) {
        for (let k = from[x]; k < to[x]; k++) if (data[row + k] > best[x]) best[x] = data[row + k];
      }
    }
    const last = causal ? to[y] - 1 : n;
    for (let x = 0; x < size; x++) pixels[line + x] = from[x] > last ? masked : colours[best[x]];
  }
}

/** Weights as the bytes that drawMap wants. */
export function toBytes(weights) {
  if (weights instanceof Uint8Array) return weights;
  const out = new Uint8Array(weights.length);
  for (let i = 0; i < out.length; i++) out[i] = Math.round(Math.min(1, Math.max(0, weights[i])) * 255);
  return out;
}

/**
 * A canvas of css size width x height, sharp on any screen. draw(context, scale) draws all of it, in device pixels; it is called when `deps` or the
 * theme change.
 */
export function Canvas({ width, height, draw, deps, label, className }) {
  const node = useRef(), theme = useTheme();
  const scale = Math.min(3, window.devicePixelRatio || 1);
  useLayoutEffect(() => {
    const canvas = node.current;
    canvas.width = Math.max(1, Math.round(width * scale));
    canvas.height = Math.max(1, Math.round(height * scale));
    draw(canvas.getContext("2d"), scale);
  }, [width, height, scale, theme, ...deps]);
  const style = { width: `${width}px`, height: `${height}px` };
  return html`<canvas ref=${node} class=${className} role="img" aria-label=${label} style=${style}></canvas>`;
}

/** The width of an element in css pixels, 0 before it is known: [ref, width]. */
export function useWidth() {
  const node = useRef(), [width, setWidth] = useState(0);
  useLayoutEffect(() => {
    const watch = new ResizeObserver(([entry]) => setWidth(Math.floor(entry.contentRect.width)));
    watch.observe(node.current);
    setWidth(Math.floor(node.current.clientWidth));
    return () => watch.disconnect();
  }, []);
  return [node, width];
}
