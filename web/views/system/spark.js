// SPDX-License-Identifier: MIT
// A small chart of what one number did lately.

import { html } from "../../lib/html.js";
import { duration } from "../../lib/format.js";

const WIDTH = 240, HEIGHT = 56;

export function Spark({ title, values, format, seconds }) {
  const top = Math.max(...values, 0), now = values.at(-1);
  const step = WIDTH / Math.max(1, values.length - 1), y = (v) => HEIGHT - 2 - (top > 0 ? (v / top) * (HEIGHT - 6) : 0);
  const line = values.map((v, i) => `${i ? "L" : "M"}${(i * step).toFixed(1)} ${y(v).toFixed(1)}`).join("");
  const known = values.length > 0;
  return html`<figure class="spark card">
    <figcaption><span>${title}</span><strong>${known ? format(now) : "–"}</strong></figcaption>
    <svg viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" role="img"
      aria-label=${known ? `${title}: ${format(now)} now, at most ${format(top)} in the last ${duration(seconds)}` : `${title}: not known yet`}>
      ${values.length > 1 && html`<path class="spark-area" d=${`${line}L${WIDTH} ${HEIGHT}L0 ${HEIGHT}Z`} /><path class="spark-line" d=${line} />`}
    </svg>
    <p class="stats">${values.length > 1 ? `peak ${format(top)}, ${duration(seconds)}` : ""}</p>
  </figure>`;
}
