// SPDX-License-Identifier: MIT
// A job's models to try at once: its checkpoints, the newest weights while it runs, the result. One prompt, and below each model how it goes on.
//
// What a model wrote outlives the view. The same seed is used for all, so that what differs comes from what was learned.

import { answer, summary } from "../../lib/answer.js";
import { explain } from "../../lib/api.js";
import { count, number } from "../../lib/format.js";
import { html, useState } from "../../lib/html.js";
import { modelInfo, models } from "../../lib/server.js";
import { createStore, linkTo, persistentStore, useStore } from "../../lib/store.js";
import { TokenLog, TokenText } from "../../lib/token_text.js";
import { Card, Segmented } from "../../lib/ui.js";

const MOST = 6;
const REST = { busy: false, stats: "", problem: null, asked: false };
const LOOK = { max_tokens: 64, temperature: 0.7, seed: 1 };
const WAYS = [["chat", "Ask", "As a question in a chat"], ["text", "Go on", "As the beginning of a text"]];
const asked = persistentStore("train.try", { prompt: null, chat: true });
const trials = new Map(); // model -> {log, now: store of {busy, stats, problem}, control}

/** Puts a prompt into the field and goes there. */
export function askThis(prompt) {
  asked.set({ prompt, chat: false });
  document.getElementById("try-prompt")?.focus();
}

function trialOf(model) {
  if (!trials.has(model)) trials.set(model, { log: new TokenLog(), now: createStore(REST), control: null });
  return trials.get(model);
}

async function tryModel(model, prompt, chat) {
  const trial = trialOf(model);
  trial.control?.abort();
  const control = trial.control = new AbortController();
  trial.log.clear();
  trial.now.set({ busy: true, stats: "", problem: null, asked: true });
  const [path, body] = chat ? ["/v1/chat/completions", { messages: [{ role: "user", content: prompt }] }] : ["/v1/completions", { prompt }];
  let outcome = {};
  try {
    outcome = { stats: summary(await answer(path, { model, ...body, ...LOOK }, trial.log, control.signal)) };
  } catch (error) {
    outcome = { problem: error.name === "AbortError" ? null : explain(error) };
  }
  if (trial.control === control) trial.now.patch({ busy: false, ...outcome });
}

function Trial({ entry, prompt, chat, base }) {
  const trial = trialOf(entry.model), now = useStore(trial.now);
  return html`<li class="job-model" data-model=${entry.model}>
    <div class="job-model-head">
      <b>${entry.label}</b><span class="stats">${entry.losses}</span>
      <span class="job-model-tools">
        <button type="button" disabled=${!prompt} aria-label=${`Try ${entry.label}`}
          onClick=${() => tryModel(entry.model, prompt, chat)}>${now.busy ? "Again" : "Try"}</button>
        ${now.busy && html`<button type="button" class="quiet" onClick=${() => trial.control?.abort()}>Stop</button>`}
        ${base && html`<a href=${linkTo("compare", { models: `${base},${entry.model}` })} aria-label=${`Compare ${entry.label} with ${base}`}>Compare</a>`}
        <a href=${linkTo("inside", { model: entry.model })} aria-label=${`Look inside ${entry.label}`}>Inside</a>
      </span>
    </div>
    ${now.asked && html`<div class="job-answer"><${TokenText} log=${trial.log} label=${`Answer of ${entry.label}`} running=${now.busy} />
      ${now.problem ? html`<p class="job-wrong" role="alert">${now.problem}</p>` : html`<p class="stats" role="status">${now.stats}</p>`}</div>`}
  </li>`;
}

function entriesOf(job, checkpoints, list) {
  const live = list.find((m) => m.couplet?.job === job.id && m.couplet.origin === "live");
  const losses = (m) => [["training", m.train_loss], ["validation", m.valid_loss]].filter(([, v]) => Number.isFinite(v))
    .map(([word, v]) => `${word} ${number(v, 4)}`).join(" · ");
  return [
    job.fine_tuned_model && { model: job.fine_tuned_model, label: "The finished model", losses: "" },
    live && { model: live.id, label: "Newest weights, while it learns", losses: "" },
    ...checkpoints.map((c) => ({ model: c.fine_tuned_model_checkpoint, label: `Step ${count(c.step_number)}`, losses: losses(c.metrics ?? {}) })),
  ].filter(Boolean);
}

export function Checkpoints({ log }) {
  const list = useStore(models, (m) => m.list), { prompt, chat } = useStore(asked);
  const [all, setAll] = useState(false);
  const job = log.job, served = new Set(list.map((m) => m.id));
  const entries = entriesOf(job, log.checkpoints, list).filter((entry) => served.has(entry.model));
  if (entries.length === 0) return null;
  const text = prompt ?? job.couplet.sample_prompts[0] ?? "";
  const chats = Boolean(modelInfo(job.fine_tuned_model)?.meta?.chat_template ?? modelInfo(job.model)?.meta?.chat_template);
  const asChat = chats && chat, shown = all ? entries : entries.slice(0, MOST);
  const base = served.has(job.model) ? job.model : null;
  const tryAll = async () => { for (const entry of [...shown].reverse()) await tryModel(entry.model, text, asChat); };
  const tools = chats && html`<${Segmented} label="How to ask" value=${asChat ? "chat" : "text"} options=${WAYS} onChange=${(way) => asked.patch({ chat: way === "chat" })} />`;
  const lines = Math.min(8, Math.max(2, text.split("\n").length));
  return html`<${Card} title="Try it" labelFor="try-prompt" id="checkpoints" tools=${tools}>
    <textarea id="try-prompt" rows=${lines} spellcheck="false" placeholder=${asChat ? "Ask something" : "Begin a text"} value=${text}
      onInput=${(e) => asked.patch({ prompt: e.target.value })}></textarea>
    <div class="actions"><button type="button" class="primary" disabled=${!text} onClick=${tryAll}>Try all</button>
      <span class="hint">One after the other, oldest first, with the same seed.</span>
      ${log.checkpoints.length > 1 && html`<a class="job-replay" href=${linkTo("compare", { job: job.id })}>Replay the run in Compare</a>`}</div>
    <ul class="job-models">${shown.map((entry) =>
      html`<${Trial} key=${entry.model} entry=${entry} prompt=${text} chat=${asChat} base=${base} />`)}</ul>
    ${entries.length > MOST && html`<button type="button" class="quiet"
      onClick=${() => setAll(!all)}>${all ? "Show fewer" : `Show all ${entries.length}`}</button>`}
  <//>`;
}
