// SPDX-License-Identifier: MIT
// A switch for every head: rows are layers, columns heads. One stop of the Tab key; arrow keys go about, Space switches.

import { percent } from "../../../lib/format.js";
import { html, useRef, useState } from "../../../lib/html.js";

function switched(off, places) {
  const next = new Set(off), all = places.every((place) => off.has(place));
  for (const place of places) if (all) next.delete(place); else next.add(place);
  return next;
}

/** off: set of "layer.head"; effects: Map of "layer.head" -> {p}, measured by a trial; p: the probability with all heads. */
export function HeadSwitches({ architecture: { n_layer: layers, n_head: heads }, off, onChange, effects, p }) {
  const host = useRef(), [focus, setFocus] = useState([0, 0]);
  const most = effects && Math.max(0.005, ...[...effects.values()].map((one) => Math.abs(one.p - p)));
  const onKey = (event) => {
    const move = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key], at = event.target.dataset.at;
    if (!move || !at) return;
    event.preventDefault();
    const [l, h] = at.split(".").map(Number);
    const next = [Math.min(Math.max(l + move[0], 0), layers - 1), Math.min(Math.max(h + move[1], -1), heads - 1)];
    setFocus(next);
    host.current.querySelector(`[data-at="${next.join(".")}"]`).focus();
  };
  const toggle = (event) => {
    const at = event.target.closest("[data-at]")?.dataset.at;
    if (!at) return;
    const [l, h] = at.split(".").map(Number);
    setFocus([l, h]);
    onChange(switched(off, h < 0 ? Array.from({ length: heads }, (_, i) => `${l}.${i}`) : [at]));
  };
  const tint = (one) => {
    const share = Math.round((Math.abs(one.p - p) / most) * 80);
    return { backgroundColor: `color-mix(in srgb, var(${one.p < p ? "--c2" : "--accent"}) ${share}%, var(--field))` };
  };
  const stop = (l, h) => (focus[0] === l && focus[1] === h ? 0 : -1);
  const button = (l, h) => {
    const at = `${l}.${h}`, silent = off.has(at), effect = effects?.get(at);
    const words = `layer ${l} head ${h}${silent ? ", silenced" : ""}${effect ? `; without it ${percent(effect.p)} instead of ${percent(p)}` : ""}`;
    return html`<td><button type="button" data-at=${at} aria-pressed=${silent} aria-label=${words} title=${words} tabindex=${stop(l, h)}
      class="inside-switch" style=${effect ? tint(effect) : undefined}></button></td>`;
  };
  return html`<div class="scroll"><table class="inside-switches" ref=${host} onKeyDown=${onKey} onClick=${toggle}>
    <thead><tr><td></td>${Array.from({ length: heads }, (_, h) => html`<th scope="col">${h}</th>`)}</tr></thead>
    <tbody>${Array.from({ length: layers }, (_, l) => html`<tr>
      <th scope="row"><button type="button" data-at=${`${l}.-1`} class="quiet" aria-label=${`All heads of layer ${l}`}
        tabindex=${stop(l, -1)}>${l}</button></th>
      ${Array.from({ length: heads }, (_, h) => button(l, h))}</tr>`)}</tbody>
  </table></div>
  ${effects?.size > 0 && html`<p class="legend"><i class="inside-key less"></i> less likely without it
    <i class="inside-key more"></i> likelier</p>`}`;
}
