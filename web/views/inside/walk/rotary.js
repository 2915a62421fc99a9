// SPDX-License-Identifier: MIT
// What a rotary model does instead of adding positions: queries and keys are turned, pair by pair, by an angle that grows with the place.

import { number } from "../../../lib/format.js";
import { html, useMemo, useState } from "../../../lib/html.js";
import { Formula, norm, small, useLook } from "./data.js";
import { Arrays, Finding, Say, Table, Waiting } from "./parts.js";

const PAIRS_SHOWN = 6;
const TURNS_AT = [0, 1, 2, 4, 8, 16]; // places of the table of angles, and the sentence's own

/** The two numbers of pair i: half a head apart, or neighbours. Which it is shows in the numbers: turning keeps a pair's length. */
function pairing(before, after) {
  const half = before.shape[1] / 2;
  const ways = [(i) => [i, i + half], (i) => [2 * i, 2 * i + 1]];
  const change = (way) => {
    let sum = 0;
    for (let t = 0; t < before.shape[0]; t++) {
      for (let i = 0; i < half; i++) {
        const [x, y] = way(i).map((c) => t * before.shape[1] + c);
        sum += Math.abs(Math.hypot(before.data[x], before.data[y]) - Math.hypot(after.data[x], after.data[y]));
      }
    }
    return sum;
  };
  return change(ways[0]) <= change(ways[1]) ? ways[0] : ways[1];
}

const pairAt = (a, t, [x, y]) => [a.data[t * a.shape[1] + x], a.data[t * a.shape[1] + y]];
const point = ([x, y]) => `(${number(x, 4)}, ${number(y, 4)})`;
const turned = ([x, y], angle) => [x * Math.cos(angle) - y * Math.sin(angle), x * Math.sin(angle) + y * Math.cos(angle)];

/** How far the served model's turned queries are from those turned here by the formula. */
function farthest(before, after, way, frequency) {
  let most = 0;
  for (let t = 0; t < before.shape[0]; t++) {
    for (let i = 0; i < before.shape[1] / 2; i++) {
      const want = turned(pairAt(before, t, way(i)), t * frequency(i)), have = pairAt(after, t, way(i));
      most = Math.max(most, Math.abs(want[0] - have[0]), Math.abs(want[1] - have[1]));
    }
  }
  return most;
}

/** One pair as an arrow: where it points before, and at every place up to `place`. */
function Dial({ pair, frequency, place, label }) {
  const length = norm(pair) || 1;
  const at = ([x, y], r = 62) => `${((x / length) * r).toFixed(2)},${((-y / length) * r).toFixed(2)}`;
  const dots = Array.from({ length: place + 1 }, (_, p) => turned(pair, p * frequency));
  return html`<svg class="walk-dial" viewBox="-80 -80 160 160" role="img" aria-label=${label}>
    <circle r="62" class="rim" /><line x1="-74" x2="74" class="axis" /><line y1="-74" y2="74" class="axis" />
    ${dots.map((p) => html`<circle cx=${at(p).split(",")[0]} cy=${at(p).split(",")[1]} r="2.6" class="dot" />`)}
    <polyline points=${`0,0 ${at(pair)}`} class="before" />
    <polyline points=${`0,0 ${at(turned(pair, place * frequency))}`} class="after" />
  </svg>`;
}

function PairDrawing({ before, way, frequency, size, labels, token }) {
  const [pair, setPair] = useState(0), [place, setPlace] = useState(null);
  const p = place ?? token;
  const angle = p * frequency(pair), xy = pairAt(before, token, way(pair)), there = turned(xy, angle);
  const degrees = ((angle * 180) / Math.PI) % 360;
  const [x, y] = way(pair);
  return html`<div class="walk-turn-pair">
    <${Dial} pair=${xy} frequency=${frequency(pair)} place=${p}
      label=${`Pair ${pair} of the query of ${labels[token]}, turned by ${number(degrees, 4)} degrees at position ${p}`} />
    <div class="walk-turn-controls">
      <label>Pair ${pair}: components ${x} and ${y}<input type="range" min="0" max=${size / 2 - 1} value=${pair}
        onInput=${(e) => setPair(Number(e.target.value))} /></label>
      <label>Position ${p}<input type="range" min="0" max=${Math.max(16, labels.length - 1)} value=${p}
        onInput=${(e) => setPlace(Number(e.target.value))} /></label>
      <p class="stats">angle ${number(angle, 5)} rad = ${number(degrees, 4)}° · ${point(xy)} → ${point(there)}</p>
      <p class="hint">The grey arrow is the pair of “${labels[token]}” before, the coloured one the same pair at this position. Its length never
        changes. The first pairs turn fast and tell neighbours apart; the last hardly move and tell far from near.</p>
    </div></div>`;
}

export function Rotary({ ctx }) {
  const { architecture: a, labels, head } = ctx;
  const ask = { model: ctx.model, prompt: ctx.tokens.ids, what: ["qkv"], layer: 0, head };
  const off = useLook({ ...ask, positions: "off" }), on = useLook({ ...ask, positions: "on" });
  const size = a.head_size, token = Math.min(labels.length - 1, 2);
  const frequency = (i) => a.rope_theta ** ((-2 * i) / size);
  const shown = Array.from({ length: PAIRS_SHOWN }, (_, i) => i * Math.floor(size / 2 / PAIRS_SHOWN));
  const places = [...new Set([...TURNS_AT, labels.length - 1])].sort((x, y) => x - y);
  const found = useMemo(() => {
    if (!off || !on) return null;
    const before = off.qkv.q, after = on.qkv.q, way = pairing(before, after);
    const angles = Float32Array.from(places.flatMap((p) => shown.map((i) => p * frequency(i))));
    return { before, after, way, most: farthest(before, after, way, frequency), angles: { shape: [places.length, PAIRS_SHOWN], data: angles } };
  }, [off, on]);
  return html`<section class="walk-demo" aria-label="Rotary positions">
    <h3>This model turns instead of adding</h3>
    <${Say}><p>It has no position rows: it is <em>rotary</em>. What enters the first block says nothing of the place. Instead every block turns each
      query and key by an angle that grows with the position, two numbers at a time, before they are compared. Two turned vectors agree as
      their <em>distance</em> says, wherever in the text they stand: turning both by the same angle changes nothing.</p></${Say}>
    <${Formula} said="pair i of the query at position p is turned by the angle p times theta to the power of minus 2 i over d">
      angle(p, i) = p · θ<sup>−2i/d</sup>, θ = ${number(a.rope_theta, 9)}, d = ${size}</${Formula}>
    ${!found ? html`<${Waiting} />` : html`<${Arrays}>
      <${Table} name=${`queries of block 0, head ${head}, before`} a=${found.before} rowLabels=${labels} maxColumns=${5} note="Positions off." />
      <${Table} name="the same queries, turned" a=${found.after} rowLabels=${labels} maxColumns=${5}
        note="Positions on: what the model uses. Position 0 is not turned." />
      <${Table} name="angles in radians" a=${found.angles} rowLabels=${places.map((p) => `position ${p}`)} heat="none"
        columnLabels=${shown.map((i) => `pair ${i}`)} />
    </${Arrays}>
    <${Finding} good=${found.most < 1e-3} label=${found.most < 1e-3 ? "as the formula says" : "not this formula"}>${found.most < 1e-3
    ? `Turned here by the formula, the queries before become the queries after; the greatest difference is ${small(found.most)}.`
    : `Turned by the formula they differ by up to ${number(found.most, 3)}: this model scales its angles further.`}</${Finding}>
    <${PairDrawing} ...${found} frequency=${frequency} size=${size} labels=${labels} token=${token} />`}
  </section>`;
}
