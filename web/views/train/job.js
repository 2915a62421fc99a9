// SPDX-License-Identifier: MIT
// The page of one run: how far it is, what it learns and says meanwhile; and what came of it: the result with its name, files and exports, its models
// to try at once (checkpoints, the newest weights while it runs, the result), and answers before and after on rows that were held out. run.js keeps
// the log.
//
// What a model wrote outlives the view. The same seed is used for all, so that what differs comes from what was learned.

import { answer, summary } from "../../lib/answer.js";
import { call, download, explain, request, text } from "../../lib/api.js";
import { bytes, count, duration, number, percent, plural } from "../../lib/format.js";
import { html, useEffect, useState } from "../../lib/html.js";
import { chooseModel, isOver, listModels, modelInfo, models } from "../../lib/server.js";
import { createStore, go, linkTo, persistentStore, useStore } from "../../lib/store.js";
import { TokenLog, TokenText } from "../../lib/token_text.js";
import { Card, Empty, Facts, Segmented, Select } from "../../lib/ui.js";
import { Curves, Samples } from "./curves.js";
import { AsRun } from "./form.js";
import { Actions, baseName, Events, FileName, JobProgress, methodName, shortName, StatusTag, useAnswer, useBusy, useJobLog } from "./run.js";

/** In the metadata of a run that was started from nothing. */
export const MARK = "couplet.start";

// ---------------------------------------------------------------- how it stands

const HELP = {
  invalid_training_file: "Mend the file and upload it again, or let rows that are too long be cut or left out.",
  invalid_validation_file: "Mend the validation file and upload it again.",
  out_of_memory: "Try a smaller batch, a shorter context, or LoRA instead of all weights.",
  no_space: "Make room on the server's disk, then train again.",
  io_error: "The server could not read or write its disk. Its log says more.",
  trainer_killed: "Somebody ended the training process on the server. Train again when that is settled.",
};

const WAITING = {
  queued: "Its turn comes when the run before it has ended. You can close the page meanwhile.",
  paused: "It rests, and goes on from here when you resume it.",
  cancelled: "It was cancelled before it had learned anything.",
};

function factsOf(log) {
  const job = log.job, c = job.couplet, last = log.steps.at(-1);
  const best = log.evals.reduce((low, e) => (low === null || e.valid_loss < low.valid_loss ? e : low), null);
  const began = c.started_at && job.status === "running";
  const guess = Number(job.metadata?.["couplet.estimate_s"]);
  return [
    last?.train_loss !== undefined && ["Training loss", number(last.train_loss, 4)],
    best && ["Validation loss", number(log.evals.at(-1).valid_loss, 4)],
    best && log.evals.length > 1 && ["Lowest", `${number(best.valid_loss, 4)} at step ${count(best.step)}`],
    last?.tokens && ["Tokens seen", count(last.tokens)],
    last?.epoch !== undefined && ["Epoch", number(last.epoch)],
    job.status === "running" && last?.tokens_per_second && ["Speed", `${count(last.tokens_per_second)} tokens/s`],
    began && ["So far", duration(Math.max(Date.now() / 1000 - c.started_at, 1))],
    guess > 0 && ["Estimated", duration(guess), "How long it was expected to take, before it began"],
  ];
}

function Head({ log, state }) {
  const job = log.job;
  return html`<${Card} className="job-head" id="job">
    <div class="job-title">
      <h2>${shortName(job)}</h2><${StatusTag} job=${job} />
      ${state === "lost" && html`<span class="tag bad" role="status">connection lost, trying again…</span>`}
      <${Actions} job=${job} />
    </div>
    <p class="hint">${baseName(job)}, ${methodName(job)}, on <${FileName} id=${job.training_file} /></p>
    <${JobProgress} job=${job} />
    <${Facts} items=${factsOf(log)} />
  <//>`;
}

function Failed({ job }) {
  return html`<section class="card job-failed" role="alert"><h2>It failed</h2>
    <p>${job.error?.message ?? "The server does not say why."}</p>
    <p class="hint">${HELP[job.error?.code] ?? "Nothing that was made before is lost."}</p>
    <div class="actions"><a class="job-go" href=${linkTo("train", { new: 1, like: job.id })}>Change the settings and try again</a></div>
  </section>`;
}

function Waiting({ job }) {
  return html`<section class="card"><p class="hint">${WAITING[job.status] ?? "Losses appear here with the first step."}</p></section>`;
}

function Missing({ log, state }) {
  if (state === "failed") {
    return html`<${Card}><${Empty} title=${log.problem?.status === 404 ? "There is no such run" : "The run could not be read"}
      action=${html`<button type="button" onClick=${() => go("train")}>To the runs</button>`}>${explain(log.problem)}<//><//>`;
  }
  return html`<${Card}><p class="hint" role="status">${state === "lost" ? "The server does not answer. Trying again…" : "Reading the run…"}</p><//>`;
}

/** On the page of a run that began from nothing: what to watch, and at the end the way into the model. */
function NothingBanner({ job }) {
  const id = job.fine_tuned_model;
  useEffect(() => { if (id && !modelInfo(id)) listModels(); }, [id]);
  if (job.metadata?.[MARK] !== "nothing") return null;
  const open = (view) => {
    chooseModel(id);
    go(view, { model: id, tab: view === "inside" ? "attention" : null });
  };
  if (job.status === "succeeded") {
    return html`<div class="train-banner" role="status">
      <p><strong>From nothing to a model in ${duration(job.finished_at - (job.couplet.started_at ?? job.created_at))}.</strong> Its attention, layer by layer, is
        on the next page. So small a text is soon known by heart: then the validation loss rises while the training loss goes on falling.</p>
      <div class="row"><button type="button" class="primary" onClick=${() => open("inside")}>Look inside</button>
        <button type="button" onClick=${() => open("complete")}>Let it write</button></div>
    </div>`;
  }
  if (isOver(job)) return null;
  return html`<div class="train-banner"><p><strong>From nothing.</strong> First a tokenizer is learned from the text, then every weight from random
    numbers. Watch the samples: noise, then words, then pieces of sentences.</p></div>`;
}

// ---------------------------------------------------------------- the result

const chats = (job) => Boolean(modelInfo(job.fine_tuned_model)?.meta?.chat_template ?? modelInfo(job.model)?.meta?.chat_template);

const FILES = {
  "results.csv": "Losses of every step", "report.md": "Report", "results.html": "Answers side by side", "results.json": "Answers for programs",
};
const TONES = { better: "good", worse: "bad" };
const TYPES = [["q8_0", "Q8_0, small"], ["f16", "F16"], ["f32", "F32, exact"]];

/** The result files as objects of the API; [] while they are asked for. */
function useResultFiles(job) {
  const one = (signal) => (id) => call(`/v1/files/${id}`, undefined, signal).catch((error) => { if (error.status !== 404) throw error; });
  const { data } = useAnswer(job.result_files.join() || null, (signal) => Promise.all(job.result_files.map(one(signal))), true);
  return data?.filter(Boolean) ?? [];
}

/** The report's first line: [verdict, the rest]. */
function useVerdict(files) {
  const id = files.find((file) => file.filename === "report.md")?.id ?? null;
  const { data } = useAnswer(id, (signal) => text(`/v1/files/${id}/content`, signal)); // where that fails: it is among the files below
  const line = data?.split("\n", 1)[0].replaceAll("->", "→");
  return line === undefined ? null : [line.split(":", 1)[0], line.slice(line.indexOf(":") + 1).trim()];
}

function Save({ path, name, children, title }) {
  const [busy, run] = useBusy();
  return html`<button type="button" class="job-save" disabled=${busy} title=${title}
    onClick=${() => run(() => download(path, name))}>${busy ? "Preparing…" : children}</button>`;
}

function Exports({ job }) {
  const [type, setType] = useState("q8_0");
  const name = shortName(job).replace(/[^\w.-]+/g, "-");
  const path = (query) => `/v1/fine_tuning/jobs/${job.id}/export?${query}`;
  return html`<div class="job-saves">
    ${job.couplet.training_type.type === "lora" && html`<${Save} path=${path("format=peft")} name=${`${name}-peft.tar`}
      title="The adapter alone, for peft and transformers">Adapter (PEFT)<//>`}
    <${Save} path=${path("format=safetensors")} name=${`${name}-safetensors.tar`} title="The whole model as Hugging Face keeps it">Safetensors<//>
    <span class="job-gguf"><${Save} path=${path(`format=gguf&type=${type}`)} name=${`${name}-${type}.gguf`}
      title="One file, for llama.cpp and others">GGUF<//>
      <${Select} label="Numbers in the GGUF file" value=${type} options=${TYPES} onChange=${setType} /></span>
  </div>`;
}

function Alias({ model }) {
  const list = useStore(models, (m) => m.list);
  const [name, setName] = useState(""), [busy, run] = useBusy();
  const now = list.filter((m) => m.alias_of === model).map((m) => m.id);
  const change = (method, alias, body) => run(async () => {
    await request(method, `/v1/models/${encodeURIComponent(alias)}`, body);
    await listModels();
    setName("");
  });
  const submit = (event) => {
    event.preventDefault();
    change("PUT", name, { model });
  };
  return html`<form class="job-alias" onSubmit=${submit}>
    <label for="alias">A shorter name</label>
    <input id="alias" value=${name} spellcheck="false" autocomplete="off" placeholder="my-model" onInput=${(e) => setName(e.target.value)}
      pattern="[\\w.:\\-]+" title="Letters, digits, . : - and _" />
    <button type="submit" disabled=${busy || name === ""}>Give</button>
    ${now.map((alias) => html`<span class="hint">also called ${alias} <button type="button" class="quiet" aria-label=${`Take the name ${alias} away`}
      disabled=${busy} onClick=${() => change("DELETE", alias)}>×</button></span>`)}
  </form>`;
}

function Finished({ job, files }) {
  const verdict = useVerdict(files), model = job.fine_tuned_model;
  useStore(models);
  const base = job.model === "new" ? null : job.model;
  return html`<${Card} title="Finished" id="finished" tools=${html`<code class="job-name">${model}</code>`}>
    <div class="job-finished">
      <div>
        ${verdict && html`<p class="job-verdict"><span class=${`tag ${TONES[verdict[0]] ?? ""}`}>${verdict[0]}</span> ${verdict[1]}</p>`}
        <div class="actions">
          <a class="job-go" href=${linkTo(chats(job) ? "chat" : "complete", { model })}>${chats(job) ? "Talk to it" : "Let it write"}</a>
          ${base && html`<a href=${linkTo("compare", { models: `${base},${model}` })}>Compare with its base</a>`}
          <a href=${linkTo("inside", { model })}>Look inside</a>
          <a href=${linkTo("train", { new: 1, like: job.id })}>Train again like this</a>
        </div>
        <${Alias} model=${model} />
      </div>
      <div>
        <h3>Take it with you</h3>
        <${Exports} job=${job} />
        ${files.length > 0 && html`<div class="job-saves">${files.map((file) => html`<${Save} path=${`/v1/files/${file.id}/content`}
          name=${file.filename} title=${`${FILES[file.filename] ?? "A result"}, ${bytes(file.bytes)}`}>${file.filename}<//>`)}</div>`}
      </div>
    </div>
  <//>`;
}

// ---------------------------------------------------------------- its models to try

const MOST = 6; // more are shown on demand
const REST = { busy: false, stats: "", problem: null, asked: false };
const LOOK = { max_tokens: 64, temperature: 0.7, seed: 1 };
const WAYS = [["chat", "Ask", "As a question in a chat"], ["text", "Go on", "As the beginning of a text"]];
const asked = persistentStore("train.try", { prompt: null, chat: true });
const trials = new Map(); // model -> {log, now: store of {busy, stats, problem}, control}

/** Puts a prompt into the field and goes there. */
function askThis(prompt) {
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
        ${base && html`<a href=${linkTo("compare", { models: `${base},${entry.model}` })}
          aria-label=${`Compare ${entry.label} with ${base}`}>Compare</a>`}
        <a href=${linkTo("inside", { model: entry.model })} aria-label=${`Look inside ${entry.label}`}>Inside</a>
      </span>
    </div>
    ${now.asked && html`<div class="job-answer"><${TokenText} log=${trial.log} model=${entry.model} label=${`Answer of ${entry.label}`} running=${now.busy} />
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

function Checkpoints({ log }) {
  const list = useStore(models, (m) => m.list), { prompt, chat } = useStore(asked);
  const [all, setAll] = useState(false);
  const job = log.job, served = new Set(list.map((m) => m.id));
  const entries = entriesOf(job, log.checkpoints, list).filter((entry) => served.has(entry.model));
  if (entries.length === 0) return null;
  const sample = job.couplet.sample_prompts[0] ?? "", text = prompt ?? sample; // a sample prompt is what the model reads, template and all
  const canChat = chats(job), asChat = canChat && chat && (prompt !== null || !sample), shown = all ? entries : entries.slice(0, MOST);
  const base = served.has(job.model) ? job.model : null;
  const tryAll = async () => { for (const entry of [...shown].reverse()) await tryModel(entry.model, text, asChat); };
  const tools = canChat && html`<${Segmented} label="How to ask" value=${asChat ? "chat" : "text"} options=${WAYS}
    onChange=${(way) => asked.patch({ prompt: text, chat: way === "chat" })} />`;
  const write = ({ target: { value } }) => asked.patch({ prompt: value, chat: chat && (asChat || !value.startsWith(sample.slice(0, 9))) });
  const lines = Math.max(2, text.split("\n", 8).length);
  return html`<${Card} title="Try it" labelFor="try-prompt" id="checkpoints" tools=${tools}>
    <textarea id="try-prompt" rows=${lines} spellcheck="false" placeholder=${asChat ? "Ask something" : "Begin a text"} value=${text}
      onInput=${write}></textarea>
    <div class="actions"><button type="button" class="primary" disabled=${!text} onClick=${tryAll}>Try all</button>
      <span class="hint">One after the other, oldest first, with the same seed.</span>
      ${log.checkpoints.length > 1 && html`<a class="job-replay" href=${linkTo("compare", { job: job.id })}>Replay the run in Compare</a>`}</div>
    <ul class="job-models">${shown.map((entry) =>
      html`<${Trial} key=${entry.model} entry=${entry} prompt=${text} chat=${asChat} base=${base} />`)}</ul>
    ${entries.length > MOST && html`<button type="button" class="quiet"
      onClick=${() => setAll(!all)}>${all ? "Show fewer" : `Show all ${entries.length}`}</button>`}
  <//>`;
}

// ---------------------------------------------------------------- answers before and after

const PAGE = 12;
const SCORES = [
  ["rouge_l", "ROUGE-L", "How much of the correct answer's words come in its order"],
  ["token_f1", "Token F1", "How many words both answers share"],
  ["judge", "Judge", "The judging model's mark, of 100"],
];
const SHOW = [["all", "All"], ["wrong", "Not exact"], ["exact", "Exact"]];
const ORDER = [["worst", "Worst first"], ["best", "Best first"]];

const share = (name, value) => (name === "judge" ? value / 100 : value);

function Score({ name, label, title, value }) {
  if (value === null || value === undefined) return null;
  const text = name === "judge" ? number(value) : percent(value);
  return html`<div class="job-score" title=${title}><span>${label}</span>
    <span class="job-score-bar"><i style=${{ width: `${Math.round(100 * share(name, value))}%` }}></i></span><b>${text}</b></div>`;
}

function ResultCard({ card }) {
  const said = (label, text, className = "") => html`<div class=${className}><dt>${label}</dt>
    <dd class="text">${text === "" ? html`<i class="hint">nothing</i>` : text}</dd></div>`;
  return html`<li class="job-result">
    <div class="job-result-ask"><p class="text">${card.instruction}</p>${card.input && html`<p class="text hint">${card.input}</p>`}</div>
    <dl>
      ${said("Correct", card.reference)}
      ${card.base !== null && card.base !== undefined && said("Before", card.base)}
      ${said("After", card.answer, "after")}
    </dl>
    <div class="job-scores">
      ${SCORES.map(([name, label, title]) => html`<${Score} name=${name} label=${label} title=${title} value=${card[name]} />`)}
      <span class=${`tag ${card.exact ? "good" : ""}`}>${card.exact ? "exact" : "not exact"}</span>
      <button type="button" class="quiet job-ask" title="Puts this row where the checkpoints can be tried"
        onClick=${() => askThis(card.prompt ?? card.instruction)}>Try this row</button>
    </div>
  </li>`;
}

function chosen(cards, { show, order, words }) {
  const wanted = words.trim().toLowerCase();
  const said = (card) => [card.instruction, card.input, card.reference, card.answer, card.base].join("\n").toLowerCase();
  const some = cards.filter((card) => (show === "all" || card.exact === (show === "exact")) && said(card).includes(wanted));
  return order === "worst" ? some : some.reverse();
}

/** file: the id of results.json. */
function Results({ file }) {
  const { data: results } = useAnswer(file, (signal) => call(`/v1/files/${file}/content`, undefined, signal), true);
  const [look, setLook] = useState({ show: "all", order: "worst", words: "" });
  const [most, setMost] = useState(PAGE);
  if (!results?.cards?.length) return null;
  const change = (members) => { setLook({ ...look, ...members }); setMost(PAGE); };
  const cards = chosen(results.cards, look), m = results.means ?? {}, before = results.base_means;
  const mean = (label, name) => [label, `${before ? `${percent(before[name])} → ` : ""}${percent(m[name] ?? 0)}`, before && "Before → after"];
  const tools = html`<${Segmented} label="Which" value=${look.show} options=${SHOW} onChange=${(show) => change({ show })} />
    <${Select} label="Order" value=${look.order} options=${ORDER} onChange=${(order) => change({ order })} />`;
  return html`<${Card} title="Results" id="results" tools=${tools}>
    <p class="hint">Rows that it never learned from, answered by the base and by the fine-tuned model.</p>
    <div class="row">
      <${Facts} items=${[["Rows", String(results.cards.length)], mean("Exact", "exact_match"), mean("Token F1", "token_f1"),
        mean("ROUGE-L", "rouge_l"), m.judge !== null && m.judge !== undefined && ["Judge", number(m.judge)]]} />
      <input type="search" class="job-search" placeholder="Search the rows" aria-label="Search the rows" value=${look.words}
        onInput=${(e) => change({ words: e.target.value })} />
    </div>
    <p class="sr" role="status">${plural(cards.length, "row")}</p>
    ${cards.length === 0 && html`<p class="hint">No row is like that.</p>`}
    <ul class="job-results">${cards.slice(0, most).map((card) => html`<${ResultCard} key=${results.cards.indexOf(card)} card=${card} />`)}</ul>
    ${cards.length > most && html`<button type="button" onClick=${() => setMost(most + 48)}>Show more of ${cards.length}</button>`}
  <//>`;
}

// ---------------------------------------------------------------- the whole

function Found({ log, state, version }) {
  const job = log.job, files = useResultFiles(job);
  const results = files.find((file) => file.filename === "results.json");
  return html`
    <${NothingBanner} job=${job} />
    <${Head} log=${log} state=${state} />
    ${job.status === "succeeded" && html`<${Finished} job=${job} files=${files} />`}
    <div class="job-columns">
      <div class="stack">
        ${job.status === "failed" && html`<${Failed} job=${job} />`}
        ${log.steps.length === 0 && job.status !== "failed" && html`<${Waiting} job=${job} />`}
        <${Curves} log=${log} version=${version} />
        <${Samples} log=${log} version=${version} active=${job.status === "running"} />
        <${Checkpoints} log=${log} />
        ${results && html`<${Results} file=${results.id} />`}
      </div>
      <aside class="stack" aria-label="About this run"><${Events} log=${log} /><${AsRun} job=${job} /></aside>
    </div>`;
}

export function Job({ id }) {
  const { log, state, version } = useJobLog(id);
  return html`<div class="stack job">${log.job ? html`<${Found} log=${log} state=${state} version=${version} />`
    : html`<${Missing} log=${log} state=${state} />`}</div>`;
}
