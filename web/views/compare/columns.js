// SPDX-License-Identifier: MIT
// One column of the comparison: a model, its answer, and at each token what the other models think of it.

import { html } from "../../lib/html.js";
import { modelLabel, percent } from "../../lib/format.js";
import { models as served } from "../../lib/server.js";
import { useStore } from "../../lib/store.js";
import { TokenLog, TokenText, tint } from "../../lib/token_text.js";
import { Card, CopyButton, Select } from "../../lib/ui.js";
import { compared, scoreUnderOthers } from "./run.js";

const NOTHING = new TokenLog();

/** "Under base 12%, here 45%: +33 points", in the card of a token. */
function underOthers(column) {
  return (index, token) => Object.entries(column.under).filter(([, list]) => list?.[index] !== undefined).map(([model, list]) => {
    const there = Math.exp(list[index]), points = (Math.exp(token.logprob) - there) * 100;
    return html`<p class="compare-under" key=${model}><span>${modelLabel(model)}</span> finds it <b>${percent(there)}</b> likely:${" "}
      ${Math.abs(points) < 0.05 ? "the same here"
      : `${points > 0 ? "+" : "−"}${Math.abs(points).toFixed(1)} points here`}</p>`;
  });
}

const bits = (list) => list.reduce((sum, logprob) => sum - logprob, 0) / list.length / Math.LN2;

function Surprise({ column }) {
  const known = Object.entries(column.under).filter(([, list]) => list?.length);
  if (known.length === 0 || column.log.items.length === 0) return null;
  const own = bits(column.log.items.map((token) => token.logprob));
  return html`<p class="stats">mean surprise ${own.toFixed(2)} bits${known.map(([model, list]) =>
    ` · for ${modelLabel(model)} ${bits(list).toFixed(2)}`)}</p>`;
}

export function Column({ model, place, onChange, onRemove }) {
  const list = useStore(served, (m) => m.list), now = useStore(compared), colour = useStore(tint);
  const column = now.columns[model];
  const look = () => scoreUnderOthers(model);
  const title = html`<${Select} label=${`Model ${place + 1}`} value=${model} options=${list.map((m) => [m.id, modelLabel(m.id)])} title=${model}
    disabled=${now.busy} onChange=${onChange} class="compare-model" />`;
  return html`<section class="card compare-column" aria-label=${`Answer of ${model}`} onPointerEnter=${look} onFocusIn=${look}>
    <div class="card-head compare-head">${title}${onRemove && html`<button type="button" class="quiet" disabled=${now.busy}
      aria-label=${`Remove ${model}`} onClick=${onRemove}>×</button>`}</div>
    <${TokenText} log=${column?.log ?? NOTHING} colour=${colour} label=${`The answer of ${model}`}
      running=${now.busy && column && !column.stats && !column.problem} redraw=${now.busy ? 0 : now.models.join() + (column?.differs.size ?? 0)}
      mark=${(index) => (column?.differs.has(index) ? "differs" : "")} note=${column && underOthers(column)} />
    ${column?.problem && html`<p class="compare-problem" role="alert">${column.problem}</p>`}
    ${column?.note && html`<p><span class=${`tag ${column.differs.size === 0 ? "good" : ""}`}>${column.note}</span></p>`}
    ${column && html`<p class="stats compare-stats" role="status">${column.stats}</p><${Surprise} column=${column} />`}
    ${column?.log.items.length > 0 && !now.busy && html`<${CopyButton} text=${() => column.log.text} />`}
  </section>`;
}
