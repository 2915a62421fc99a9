// SPDX-License-Identifier: MIT
// Compare: the same prompt and seed on two to four models side by side, and through the checkpoints of a training run.

import { html, useEffect } from "../lib/html.js";
import { Sampling } from "../lib/sampling.js";
import { chosenModel, listModels, modelInfo, models } from "../lib/server.js";
import { persistentStore, useParam, useStore } from "../lib/store.js";
import { Legend } from "../lib/token_text.js";
import { Card, Segmented, useRunKeys } from "../lib/ui.js";
import { TrainingRun } from "./compare/checkpoints.js";
import { Column } from "./compare/columns.js";
import { asChat, compare, compared, stop } from "./compare/run.js";
import { prompt } from "./complete/run.js";

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
      <button id="compare" class="primary" type="button" disabled=${busy || picked.length < 2 || text === ""}
        onClick=${() => compare(picked)}>Compare <kbd>Ctrl ↵</kbd></button>
      ${busy && html`<button id="stop" type="button" onClick=${stop}>Stop <kbd>Esc</kbd></button>`}
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
