// SPDX-License-Identifier: MIT
// Train: whether this server and this key train at all; the runs; and the card that starts from nothing. What stands in the address says which
// page is open.
//
//   #train                   the queue and the runs; drop a file anywhere to begin; or start from nothing
//   #train?new=1[&file=ID]   a new fine-tune: file, base, settings, estimate
//   #train?job=ID            one job, while it runs and afterwards
//   #train?compare=ID,ID     several runs in one chart

import { call, hasKey, text as fetchText } from "../lib/api.js";
import { bytes, count, duration } from "../lib/format.js";
import { html, useEffect, useState } from "../lib/html.js";
import { fail, models, say } from "../lib/server.js";
import { address, createStore, go, linkTo, persistentStore, useStore } from "../lib/store.js";
import { Card, Empty, Segmented, usePolling } from "../lib/ui.js";
import { CompareRuns, MOST_COMPARED } from "./train/curves.js";
import { addFile, DropZone, droppedFile, hovering, nameOf, PickFile, uploading, UploadProgress, useForNew, usePageDrop } from "./train/files.js";
import { NewJob } from "./train/form.js";
import { Job, MARK } from "./train/job.js";
import { Actions, ACTIVE, baseName, FileName, inOrder, JobProgress, methodName, shortName, startRun, StatusTag, useBusy } from "./train/run.js";

// ---------------------------------------------------------------- whether it trains

/** "asking" | "open" | "key" | "scope" | "absent" */
const gate = createStore("asking");

async function ask() {
  try {
    await call("/v1/fine_tuning/jobs?limit=1");
    gate.set("open");
  } catch (error) {
    if (error.status === 403) return gate.set("scope");
    if (error.status === 404) return gate.set("absent");
    if (error.status === 401) gate.set("key");
    fail(error, ask);
  }
}

const WHY = {
  key: ["Training wants an API key", html`Enter a key with the scope <code>train</code> above. Whoever runs the server makes one with${" "}
    <code>couplet keys add NAME --scope train</code>.`],
  scope: ["This key may not train", html`It can talk to models, no more: files and fine-tuning jobs need a key with the scope <code>train</code>.
    Whoever runs the server makes one with <code>couplet keys add NAME --scope train</code>; then enter it here.`],
  absent: ["This server does not train", html`It answers, but has no fine-tuning at <code>/v1/fine_tuning/jobs</code>: an older couplet, or a proxy
    that lets nothing but answers through. Ask whoever runs it, or start your own with <code>couplet serve --model PATH</code>.`],
};

const otherKey = () => fail({ status: 401, message: "" }, ask);

function Gate({ children }) {
  const state = useStore(gate);
  const list = useStore(models, (m) => m.list); // read anew with another key
  useEffect(() => { if (gate.get() !== "open") ask(); }, [list]);
  if (state === "open") return children;
  if (state === "asking") return html`<p class="hint" role="status">Asking the server…</p>`;
  const [title, words] = WHY[state];
  return html`<${Card}><${Empty} title=${title} action=${html`<div class="row">
    ${state === "scope" && html`<button type="button" class="primary" onClick=${otherKey}>Use another key</button>`}
    <button type="button" onClick=${ask}>Ask again</button></div>`}>${words}<//><//>`;
}

// ---------------------------------------------------------------- the runs; asked for anew only while one of them can still change by itself

const PAGE = 20, POLL_MS = 2500;
const runs = createStore({ state: "loading", list: [], more: false });

const pageOf = (limit, after = "") => call(`/v1/fine_tuning/jobs?limit=${limit}${after && `&after=${encodeURIComponent(after)}`}`);

/** The newest runs; as many as are on the page. */
async function readRuns(loud = true) {
  try {
    const page = await pageOf(Math.min(Math.max(PAGE, runs.get().list.length), 100));
    const { list, more } = runs.get(), known = new Set(page.data.map((job) => job.id));
    const older = page.has_more ? list.filter((job) => !known.has(job.id) && job.created_at <= page.data.at(-1).created_at) : [];
    runs.set({ state: "ready", list: [...page.data, ...older], more: older.length ? more : page.has_more });
  } catch (error) {
    runs.patch({ state: runs.get().list.length ? "ready" : "failed", lost: !loud });
    if (loud) fail(error, readRuns); // while polling: the next turn says the same, or all is well again
  }
}

async function readMore() {
  try {
    const { list } = runs.get();
    const page = await pageOf(PAGE, list.at(-1).id);
    runs.set((now) => ({ ...now, list: [...now.list, ...page.data], more: page.has_more }));
  } catch (error) {
    fail(error, readMore);
  }
}

const replace = (job) => runs.set((now) => ({ ...now, list: now.list.map((one) => (one.id === job.id ? job : one)) }));

function Run({ job, marked, mark, full }) {
  const name = shortName(job);
  return html`<li class="job-run">
    <input type="checkbox" checked=${marked} disabled=${full && !marked} aria-label=${`Compare ${name}`} title="Choose runs to compare"
      onChange=${() => mark(job.id)} />
    <div class="job-run-what">
      <p class="job-run-head"><a href=${linkTo("train", { job: job.id })}>${name}</a> <${StatusTag} job=${job} /></p>
      <p class="hint">${baseName(job)} · ${methodName(job)} · <${FileName} id=${job.training_file} /></p>
      ${job.error && html`<p class="job-wrong">${job.error.message}</p>`}
    </div>
    <${JobProgress} job=${job} />
    <${Actions} job=${job} onChange=${replace} />
  </li>`;
}

function Queue() {
  const { state, list, more, lost } = useStore(runs);
  const [marked, setMarked] = useState(() => new Set());
  const active = list.some((job) => ACTIVE.has(job.status));
  useEffect(() => { readRuns(); }, []);
  usePolling(() => readRuns(false), POLL_MS, active);
  const mark = (id) => setMarked((now) => { const next = new Set(now); if (!next.delete(id)) next.add(id); return next; });
  if (state === "loading") return html`<${Card} title="Runs"><p class="hint">Reading the list of runs…</p><//>`;
  if (list.length === 0) {
    return html`<${Card} title="Runs"><${Empty} title=${state === "failed" ? "The runs could not be read" : "Nothing has been trained yet"}>
      ${state === "failed" ? "See above for the reason."
        : "A run that you start appears here, with its progress. You can close the page meanwhile; training goes on."}
      ${hasKey() ? " What was trained without this key, an admin's key shows." : ""}<//><//>`;
  }
  const compare = html`<span class="hint">${marked.size === 0 ? "Mark runs to compare them" : `${marked.size} marked`}</span>
    <button id="compare-runs" type="button" disabled=${marked.size < 2}
      onClick=${() => go("train", { compare: [...marked].join(",") })}>Compare</button>`;
  return html`<${Card} title="Runs" id="runs" tools=${compare}>
    ${lost && html`<p class="bad" role="status">The runs could not be read. Trying again…</p>`}
    <ul class="job-runs">${inOrder(list).map((job) =>
      html`<${Run} key=${job.id} job=${job} marked=${marked.has(job.id)} mark=${mark} full=${marked.size >= MOST_COMPARED} />`)}</ul>
    ${more && html`<div class="actions"><button type="button" onClick=${readMore}>Show older runs</button></div>`}
  <//>`;
}

// ---------------------------------------------------------------- from nothing: a tokenizer, and gpt2-nano from random weights

const EXAMPLE = { id: null, filename: "village.txt", bytes: 97932, prompts: ["Mara the baker", "In the morning"] };
const LEAST_BYTES = 10_000; // of less, nothing but the text itself is learned
const STEP_SECONDS = 0.06; // measured on two cores that did nothing else, with evaluations and samples
const TEXTS = [".txt", ".md"];

/** How long: updates of 8 windows of 128 tokens. */
const PRESETS = [
  ["quick", "Quick look", 300, "The noise becomes words."],
  ["village", "Sentences", 1000, "The words become pieces of sentences."],
];
/** Everything else of the request; found by trying. */
const RUN = {
  hyperparameters: { batch_size: 8 },
  couplet: {
    architecture: { preset: "gpt2-nano" }, tokenizer: "train", vocab_size: 2048, context_length: 128, stride: 64, learning_rate: 3e-3,
    lr_scheduler: "cosine", warmup_ratio: 0.05, weight_decay: 0.1, validation_split: 0.1, n_evals: 12, n_checkpoints: 3,
  },
};

const plan = persistentStore("train-nothing", { preset: "village", steps: "1000", file: null });

/** The first words of a text, for the model to go on with. */
async function promptsOf(file) {
  const head = (await fetchText(`/v1/files/${file.id}/content`)).slice(0, 20_000);
  const starts = head.split(/[.!?\n]\s+/).map((sentence) => sentence.trim().split(/\s+/).slice(0, 2).join(" ")).filter((words) => words.length > 2);
  const seen = new Map();
  for (const words of starts) seen.set(words, (seen.get(words) ?? 0) + 1);
  return [...seen.entries()].sort((a, b) => b[1] - a[1]).slice(0, 2).map(([words]) => words);
}

/** A short text has too few windows to hold any out. */
const windowsOf = (file) => (file.bytes < LEAST_BYTES ? { context_length: 64, stride: 32, validation_split: undefined } : {});

const requestOf = (file, prompts, steps) => ({
  model: "new", training_file: file.id, suffix: nameOf(file.filename) || "text",
  method: { type: "supervised", supervised: { hyperparameters: RUN.hyperparameters } },
  couplet: { ...RUN.couplet, ...windowsOf(file), max_steps: steps, ...(prompts.length ? { sample_prompts: prompts } : {}) },
});

async function start(file, steps) {
  say(null);
  const begin = async (stored) => startRun(requestOf(stored, file ? await promptsOf(stored) : EXAMPLE.prompts, steps), { [MARK]: "nothing" });
  if (file) await begin(file);
  else await addFile(new Blob([await fetchText("/examples/village.txt")]), EXAMPLE.filename, begin, TEXTS);
}

function Nothing() {
  const { preset, steps, file } = useStore(plan);
  const busy = Boolean(useStore(uploading)), hovered = useStore(hovering) === "nothing";
  const [starting, run] = useBusy();
  const write = (event) => {
    const value = event.target.value;
    plan.patch({ steps: value, preset: PRESETS.find(([, , s]) => String(s) === value)?.[0] ?? "" });
  };
  const n = Number(steps), wrong = !Number.isInteger(n) || n < 1 || n > 100_000;
  const own = file ?? EXAMPLE;
  const take = (blob) => addFile(blob, blob.name, ({ id, filename, bytes: size }) => plan.patch({ file: { id, filename, bytes: size } }), TEXTS);
  useEffect(() => { // a text that has been deleted since
    if (file) call(`/v1/files/${file.id}`).catch((error) => { if (error.status === 404) plan.patch({ file: null }); });
  }, [file?.id]);
  const over = (where) => (event) => { // what is let go here is no fine-tune
    event.preventDefault();
    event.stopPropagation();
    hovering.set(where);
    const dropped = where === null && droppedFile(event);
    if (dropped) take(dropped);
  };
  const choose = (name) => plan.patch({ preset: name, steps: String(PRESETS.find(([one]) => one === name)[2]) });
  return html`<${Card} title="Start from nothing" className=${`train-nothing ${hovered ? "over" : ""}`}
      onDrop=${over(null)} onDragOver=${over("nothing")}>
    <p>A tokenizer and a GPT-2 of a million parameters, made here and now from random numbers and one text. You watch noise become words, then look
      inside what you made.</p>
    <div class="row"><${Segmented} label="How long" value=${preset} onChange=${choose}
        options=${PRESETS.map(([name, label, , words]) => [name, label, words])} />
      <label class="train-steps">Steps <input type="number" min="1" max="100000" step="1" value=${steps} aria-invalid=${wrong ? "true" : undefined}
        onInput=${write} /></label></div>
    ${wrong ? html`<p class="bad">Steps: a whole number from 1 to 100,000.</p>`
      : html`<p class="hint">${count(n)} updates, each from 8 pieces of the text: about ${duration(STEP_SECONDS * n)} on two cores that have little
          else to do.</p>`}
    <p class="hint">Text: <strong><bdi>${own.filename}</bdi></strong>, ${bytes(own.bytes)}${file ? "" : ", small stories of one village"}.
      ${" "}${own.bytes < LEAST_BYTES && html`<span class="bad">That is little: with less than 10 KB it learns the text by heart, no more. </span>`}
      ${file ? html`<button type="button" class="quiet" onClick=${() => plan.patch({ file: null })}>Back to the example</button>`
        : html`<${PickFile} label="Use a text of your own" kinds=${TEXTS} className="quiet" disabled=${busy} onPick=${take} /> or drop it on this
          card.`}</p>
    <div class="actions"><button type="button" id="train-nothing" class="primary" disabled=${starting || busy || wrong}
      onClick=${() => run(() => start(file, n))}>${starting ? "Starting…" : "Start from nothing"}</button></div>
  <//>`;
}

// ---------------------------------------------------------------- the pages

/** Where no drop zone is in sight: that a file may be let go here too. */
function Hover() {
  return useStore(hovering) === "page" && html`<p class="train-hover" role="status">Let go, and a new fine-tune begins with it</p>`;
}

function Page({ params }) {
  usePageDrop((file) => addFile(file, file.name, useForNew));
  const { job, compare, file = null, like = null } = params;
  if (!job && !compare && !params.new) return html`<div class="stack"><div class="train-begin"><${DropZone} /><${Nothing} /></div><${Queue} /></div>`;
  const form = !job && !compare; // which shows uploads itself, and without a file a drop zone
  return html`<div class="stack">
    <nav class="train-back" aria-label="Train"><a href=${linkTo("train")}>← All runs</a></nav>
    ${!form && html`<${UploadProgress} />`}
    ${(!form || file) && html`<${Hover} />`}
    ${job ? html`<${Job} key=${job} id=${job} />` : compare ? html`<${CompareRuns} ids=${compare.split(",").filter(Boolean)} />`
      : html`<${NewJob} file=${file} like=${like} />`}
  </div>`;
}

export default function Train() {
  const params = useStore(address, (a) => a.params);
  return html`<${Gate}><${Page} params=${params} /><//>`;
}
