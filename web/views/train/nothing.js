// SPDX-License-Identifier: MIT
// Start from nothing: one button makes a tokenizer from a text and trains gpt2-nano from random weights on it; at the end the new model is opened.

import { call, request, text as fetchText } from "../../lib/api.js";
import { bytes, count, duration } from "../../lib/format.js";
import { html, useEffect, useState } from "../../lib/html.js";
import { chooseModel, fail, listModels, models, say } from "../../lib/server.js";
import { address, go, persistentStore, useStore } from "../../lib/store.js";
import { Card, Segmented } from "../../lib/ui.js";
import { droppedFile, hovering, PickFile } from "./drop.js";
import { addFile, nameOf, uploading } from "./files.js";

const EXAMPLE = { id: null, filename: "village.txt", bytes: 97932, prompts: ["Mara the baker", "In the morning"] };
const LEAST_BYTES = 10_000; // of less, nothing but the text itself is learned
const STEP_SECONDS = 0.06; // measured on two cores, with evaluations and samples
const TEXTS = [".txt", ".md"];

/** How long: updates of 8 windows of 128 tokens. */
export const PRESETS = [
  ["quick", "Quick look", 300, "The noise becomes words."],
  ["village", "Sentences", 1000, "The words become pieces of sentences."],
];
/** Everything else of the request; found by trying. */
const RUN = {
  hyperparameters: { batch_size: 8 },
  couplet: {
    architecture: { preset: "gpt2-nano" }, tokenizer: "train", vocab_size: 2048, context_length: 128, stride: 64, learning_rate: 3e-3, lr_scheduler: "cosine",
    warmup_ratio: 0.05, weight_decay: 0.1, validation_split: 0.1, n_evals: 12, n_checkpoints: 3,
  },
};
export const MARK = "couplet.start"; // in the job's metadata

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
  model: "new", training_file: file.id, suffix: nameOf(file.filename) || "text", metadata: { [MARK]: "nothing" },
  method: { type: "supervised", supervised: { hyperparameters: RUN.hyperparameters } },
  couplet: { ...RUN.couplet, ...windowsOf(file), max_steps: steps, ...(prompts.length ? { sample_prompts: prompts } : {}) },
});

async function start(file, steps) {
  say(null);
  const begin = async (stored) => {
    const prompts = file ? await promptsOf(stored) : EXAMPLE.prompts;
    const job = await request("POST", "/v1/fine_tuning/jobs", requestOf(stored, prompts, steps));
    if (address.get().view === "train") go("train", { job: job.id });
  };
  try {
    if (file) await begin(file);
    else await addFile(new Blob([await fetchText("/examples/village.txt")]), EXAMPLE.filename, begin, TEXTS);
  } catch (error) {
    fail(error, () => start(file, steps));
  }
}

function Time({ steps }) {
  return html`<p class="hint">${count(steps)} updates, each from 8 pieces of the text: about ${duration(STEP_SECONDS * steps)} on two cores that have little
    else to do.</p>`;
}

export function Nothing() {
  const { preset, steps, file } = useStore(plan);
  const busy = Boolean(useStore(uploading)), over = useStore(hovering) === "nothing";
  const [starting, setStarting] = useState(false);
  const n = Number(steps), wrong = !Number.isInteger(n) || n < 1 || n > 100_000;
  const own = file ?? EXAMPLE;
  const take = (blob) => addFile(blob, blob.name, ({ id, filename, bytes: size }) => plan.patch({ file: { id, filename, bytes: size } }), TEXTS);
  useEffect(() => { // a text that has been deleted since
    if (file) call(`/v1/files/${file.id}`).catch((error) => { if (error.status === 404) plan.patch({ file: null }); });
  }, [file?.id]);
  const drag = (event) => {
    event.preventDefault();
    event.stopPropagation();
    hovering.set("nothing");
  };
  const drop = (event) => {
    event.preventDefault();
    event.stopPropagation(); // not a fine-tune
    hovering.set(null);
    const dropped = droppedFile(event);
    if (dropped) take(dropped);
  };
  const choose = (name) => plan.patch({ preset: name, steps: String(PRESETS.find(([one]) => one === name)[2]) });
  const run = async () => {
    setStarting(true);
    await start(file, n);
    setStarting(false);
  };
  return html`<${Card} title="Start from nothing" className=${`train-nothing ${over ? "over" : ""}`}
      onDrop=${drop} onDragOver=${drag}>
    <p>A tokenizer and a GPT-2 of a million parameters, made here and now from random numbers and one text. You watch noise become words, then look inside
      what you made.</p>
    <div class="row"><${Segmented} label="How long" value=${preset} onChange=${choose}
        options=${PRESETS.map(([name, label, , words]) => [name, label, words])} />
      <label class="train-steps">Steps <input type="number" min="1" max="100000" step="1" value=${steps} aria-invalid=${wrong ? "true" : undefined}
        onInput=${(e) => plan.patch({ steps: e.target.value, preset: PRESETS.find(([, , s]) => String(s) === e.target.value)?.[0] ?? "" })} /></label></div>
    ${wrong ? html`<p class="bad">Steps: a whole number from 1 to 100,000.</p>` : html`<${Time} steps=${n} />`}
    <p class="hint">Text: <strong>${own.filename}</strong>, ${bytes(own.bytes)}${file ? "" : ", small stories of one village"}. ${own.bytes < LEAST_BYTES
      && html`<span class="bad">That is little: with less than 10 KB it learns the text by heart, no more. </span>`}
      ${file ? html`<button type="button" class="quiet" onClick=${() => plan.patch({ file: null })}>Back to the example</button>`
        : html`<${PickFile} label="Use a text of your own" kinds=${TEXTS} className="quiet" disabled=${busy} onPick=${take} /> or drop it on this card.`}</p>
    <div class="actions"><button type="button" id="train-nothing" class="primary" disabled=${starting || busy || wrong} onClick=${run}>
      ${starting ? "Starting…" : "Start from nothing"}</button></div>
  <//>`;
}

/** On the page of a run that began from nothing: what to watch, and at the end the way into the model. */
export function NothingBanner({ job }) {
  const id = job.fine_tuned_model;
  const served = useStore(models, (m) => m.list.some((one) => one.id === id));
  useEffect(() => { if (id && !served) listModels(); }, [id]);
  if (job.metadata?.[MARK] !== "nothing") return null;
  const open = (view) => {
    chooseModel(id);
    go(view, { model: id, tab: view === "inside" ? "attention" : null });
  };
  if (job.status === "succeeded") {
    return html`<div class="train-banner" role="status">
      <p><strong>From nothing to a model in ${duration(job.finished_at - job.created_at)}.</strong> Its attention, layer by layer, is on the next
        page. So small a text is soon known by heart: then the validation loss rises while the training loss goes on falling.</p>
      <div class="row"><button type="button" class="primary" onClick=${() => open("inside")}>Look inside</button>
        <button type="button" onClick=${() => open("complete")}>Let it write</button></div>
    </div>`;
  }
  if (["failed", "cancelled"].includes(job.status)) return null;
  return html`<div class="train-banner"><p><strong>From nothing.</strong> First a tokenizer is learned from the text, then every weight from random numbers.
    Watch the samples: noise, then words, then pieces of sentences.</p></div>`;
}
