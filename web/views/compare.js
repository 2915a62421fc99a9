// SPDX-License-Identifier: MIT
// Compare: the same prompt and seed on two to four models side by side, and through the checkpoints of a training run.

import { modelLabel, percent } from "../lib/format.js";
import { html, useEffect } from "../lib/html.js";
import { Sampling } from "../lib/sampling.js";
import { chosenModel, listModels, modelInfo, models, models as served } from "../lib/server.js";
import { persistentStore, useParam, useStore } from "../lib/store.js";
import { Legend, tint, TokenLog, TokenText } from "../lib/token_text.js";
import { Card, CopyButton, Segmented, Select, useRunKeys } from "../lib/ui.js";
import { TrainingRun } from "./compare/checkpoints.js";
import { asChat, compare, compared, scoreUnderOthers, stop } from "./compare/run.js";
import { prompt } from "./complete/run.js";

// ---------------------------------------------------------------- columns
// One column of the comparison: a model, its answer, and at each token what the other models think of it.

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

function Column({ model, place, onChange, onRemove }) {
  const list = useStore(served, (m) => m.list), now = useStore(compared), colour = useStore(tint);
  const column = now.columns[model];
  const look = () => scoreUnderOthers(model);
  const title = html`<${Select} label=${`Model ${place + 1}`} value=${model} options=${list.map((m) => [m.id, modelLabel(m.id)])} title=${model}
    disabled=${now.busy} onChange=${onChange} class="compare-model" />`;
  return html`<section class="card compare-column" aria-label=${`Answer of ${model}`} onPointerEnter=${look} onFocusIn=${look}>
    <div class="card-head compare-head">${title}${onRemove && html`<button type="button" class="quiet" disabled=${now.busy}
      aria-label=${`Remove ${model}`} onClick=${onRemove}>×</button>`}</div>
    <${TokenText} log=${column?.log ?? NOTHING} model=${model} colour=${colour} label=${`The answer of ${model}`}
      running=${now.busy && column && !column.stats && !column.problem} redraw=${now.busy ? 0 : now.models.join() + (column?.differs.size ?? 0)}
      mark=${(index) => (column?.differs.has(index) ? "differs" : "")} note=${column && underOthers(column)} />
    ${column?.problem && html`<p class="compare-problem" role="alert">${column.problem}</p>`}
    ${column?.note && html`<p><span class=${`tag ${column.differs.size === 0 ? "good" : ""}`}>${column.note}</span></p>`}
    ${column && html`<p class="stats compare-stats" role="status">${column.stats}</p><${Surprise} column=${column} />`}
    ${column?.log.items.length > 0 && !now.busy && html`<${CopyButton} text=${() => column.log.text} />`}
  </section>`;
}

// ---------------------------------------------------------------- the view

const MOST = 4;
const last = persistentStore("compare.models", []);

/** The models that are compared: those of the address, else the last ones, else two of what is there. And their setter. */
function usePicked() {
  const [given, setGiven] = useParam("models");
  const list = useStore(models, (m) => m.list), chosen = useStore(chosenModel), remembered = useStore(last);
  const there = (ids) => [...new Set(ids)].filter((id) => list.some((m) => m.id === id)).slice(0, MOST);
  let picked = there(given ? given.split(",") : remembered);
  if (picked.length < 2) picked = there([...picked, chosen, ...list.map((m) => m.id)]).slice(0, 2);
  const pick = (ids) => {
    last.set(ids);
    if (given) setGiven(ids.join(","));
  };
  return [picked, pick];
}

function Question({ picked }) {
  const text = useStore(prompt), busy = useStore(compared, (c) => c.busy), chat = useStore(asChat);
  const without = picked.filter((id) => modelInfo(id)?.meta && modelInfo(id).meta.chat_template === null); // of models not loaded it is not known
  return html`<${Card} title="Prompt" labelFor="prompt" tools=${html`<${Segmented} label="The prompt is" value=${chat ? "chat" : "text"}
    disabled=${busy}
      options=${[["text", "Text", "The models go on with it"], ["chat", "Question", "Through each model's chat template"]]}
        onChange=${(to) => asChat.set(to === "chat")} />`}>
    <textarea id="prompt" rows="4" spellcheck="false" placeholder=${chat ? "Ask all of them the same." : "Begin a text; all of them go on with it."}
      value=${text} onInput=${(e) => prompt.set(e.target.value)}></textarea>
    ${chat && without.length > 0 && html`<p class="hint">${without.join(", ")} ${without.length === 1 ? "has" : "have"} no chat
      template and will not answer a question: choose Text.</p>`}
    <div class="actions">
      <button id="compare" class="primary" type="button" disabled=${picked.length < 2 || text === ""} aria-disabled=${busy}
        onClick=${() => compare(picked)}>Compare <kbd>Ctrl ↵</kbd></button>
      ${busy && html`<button id="stop" type="button" onClick=${() => { stop(); document.getElementById("compare").focus(); }}>Stop <kbd>Esc</kbd></button>`}
      <span class="hint">Settings and seed are the same for all; without a seed, one is drawn.</span>
    </div>
  <//>`;
}

export default function Compare() {
  const [picked, pick] = usePicked(), list = useStore(models, (m) => m.list), busy = useStore(compared, (c) => c.busy);
  useEffect(() => { if (models.get().state === "ready") listModels(); }, []); // jobs make models while the page is open
  useRunKeys(() => prompt.get() !== "" && compare(picked), stop);
  const free = list.filter((m) => !picked.includes(m.id));
  const change = (i, id) => pick(picked.map((old, k) => (k === i ? id : old === id ? picked[i] : old))); // two the same would be one: they swap
  return html`<div class="stack">
    <div class="with-side"><${Question} picked=${picked} /><aside aria-label="Sampling"><${Sampling} open=${false} /></aside></div>
    ${list.length < 2 && html`<p class="hint">Only one model is served, so there is nothing to compare yet.
      Start couplet with a second <code>--model</code>, or make one: <a href="#train">Train</a>.</p>`}
    <div class="row compare-bar"><${Legend} /><span class="legend"><span class="tok differs">underlined</span> not as in the first answer</span>
      ${picked.length < MOST && free.length > 0 && html`<button id="add-model" type="button" disabled=${busy}
        onClick=${() => pick([...picked, free[0].id])}>Add a model</button>`}</div>
    <div class="compare-columns">${picked.map((id, i) => html`<${Column} key=${id} model=${id} place=${i} onChange=${(to) => change(i, to)}
      onRemove=${picked.length > 2 ? () => pick(picked.filter((one) => one !== id)) : null} />`)}</div>
    <${TrainingRun} />
  </div>`;
}
