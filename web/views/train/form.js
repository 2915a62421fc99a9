// SPDX-License-Identifier: MIT
// A new fine-tune: the file and its report, the base, the settings, and beside them what the run would take. The file is in the address, the rest in
// localStorage; so a reload changes nothing. Also a job's settings as the server resolved them, under the same names.
//
// One table has the settings in their order: their names here, and what "auto" comes to. Where a setting stands in the request, what it may be and
// what it means is said by the server's /openapi.json.

import { call, explain } from "../../lib/api.js";
import { bytes, count, duration, number, percent, plural } from "../../lib/format.js";
import { html, useEffect, useId, useState } from "../../lib/html.js";
import { chosenModel, fail, models, say } from "../../lib/server.js";
import { persistentStore, setParams, useStore } from "../../lib/store.js";
import { Card, Facts, Segmented, Select, useSettled } from "../../lib/ui.js";
import { ViewAs } from "../../lib/view_as.js";
import {
  addFile, DropZone, FileList, files, loadFiles, nameOf, PickFile, Report, uploading, uploadNote, UploadProgress, useForNew, useReport,
} from "./files.js";
import { baseName, FileName, methodName, startRun, useAnswer, useBusy } from "./run.js";

// ---------------------------------------------------------------- the settings
//
// Functions are given `c`: {isNew, full, text, rows, base, examples, report, filename, models, files, fields, values}. What is left empty is left out
// of the request; where `sends` says so, the page's own idea of "auto" goes out instead.

const CONTEXTS = { "gpt2-nano": 256, "gpt2-mini": 512 }, TEXT_CONTEXT = 1024;
const yes = () => true, isNew = (c) => c.isNew, ofText = (c) => c.text, ofRows = (c) => c.rows;
const lora = (c) => !c.isNew && !c.full;
const ownSize = (c) => c.isNew && c.values.preset === "own";
const tokens = (n) => `${count(n)} tokens`;

/** What the model takes at most. */
const modelContext = (c) => (c.isNew ? CONTEXTS[c.values.preset] ?? (Number(c.values.n_ctx) || 1024) : c.base?.max_model_len ?? 0);
const autoContext = (c) => (c.text ? Math.min(modelContext(c), TEXT_CONTEXT) : modelContext(c)) || null;
const autoRate = (c) => (c.isNew ? 2e-3 : c.full ? 5e-5 : 2e-4) * (Number(c.values.learning_rate_multiplier) || 1);

/** What the model shall go on with while it learns: the first question, or the first words of a text. */
function firstPrompt(c) {
  const some = c.report?.preview[0]?.tokens ?? [];
  const from = some.findIndex((t) => t.supervised);
  const words = (list) => list.map((t) => t.text).join("").replace(/^<s>|^<\|begin_of_text\|>|^<\|endoftext\|>/, ""); // the server puts its own
  const prompt = c.rows && from > 1 ? words(some.slice(0, from)) : words(some.slice(0, 24)).trim().split(/\s+/).slice(0, 3).join(" ");
  return prompt === "" || prompt.includes("\ufffd") || prompt.length > 2000 ? null : prompt;
}

const SIZES = [["gpt2-nano", "gpt2-nano, about 1 million parameters"], ["gpt2-mini", "gpt2-mini, some 10 million"],
  ...["gpt2-124m", "gpt2-355m", "gpt2-774m", "gpt2-1558m"].map((name) => [name, name]), ["own", "a size of your own"]];
const lendsTokenizer = (m) => m.couplet?.origin !== "live" && m.meta?.format !== "gguf";
const isCheckpoint = (m) => m.couplet?.origin === "checkpoint";

const MAIN = [
  ["preset", "Size", { options: () => SIZES, initial: "gpt2-nano", when: isNew, none: "own",
    help: "How large the new model is. Nano learns in minutes on two cores; each next size takes ten times as long, or more." }],
  ...[["n_layer", "Layers", "4"], ["n_head", "Heads", "4"], ["n_embd", "Width", "128"], ["n_ctx", "Longest context", "256"]]
    .map(([name, label, initial]) => [name, label, { initial, when: ownSize }]),
  ["tokenizer", "Tokenizer", { when: isNew, initial: "train",
    options: (c) => [["train", "made from this text"], ...c.models.filter(lendsTokenizer).map((m) => [m.id, `that of ${m.id}`])],
    help: "What cuts the text into tokens. One made from the text fits it best; rows need a model's." }],
  ["n_epochs", "Epochs", { auto: (c) => (c.isNew ? 12 : 3), sends: isNew }],
  ["learning_rate", "Learning rate", { auto: autoRate, sends: isNew }],
  ["context_length", "Context", { auto: autoContext, maximum: (c) => modelContext(c) || 16777216, show: tokens }],
  ["validation_split", "Held out", { minimum: 0, maximum: 0.9, none: "0", sends: yes, show: percent,
    auto: (c) => (c.values.validation_file || (c.examples ?? 2) < 2 ? null : 0.1),
    noneWords: (c) => (c.values.validation_file ? "the file does it" : "too few rows"), more: "0 holds nothing out." }],
  ["suffix", "Name", { auto: (c) => nameOf(c.filename) || null, sends: yes, show: null }],
  ["sample_prompts", "Sample prompts", { auto: firstPrompt, sends: yes, show: null, none: "-", more: "One a line; \\n is a line break; - alone: none." }],
];
const MORE = {
  Updates: [
    ["batch_size", "Batch size", { auto: 8 }],
    ["max_steps", "Steps", { auto: "epochs" }],
    ["n_evals", "Evaluations", { auto: 6, sends: yes }],
    ["n_checkpoints", "Checkpoints", { auto: (c) => (c.full ? 2 : 3), sends: yes }],
    ["early_stopping", "Stop early", { auto: "never" }],
    ["learning_rate_multiplier", "Rate multiplier", { auto: 1 }],
    ["lr_scheduler", "Course of the rate", { auto: "linear" }],
    ["warmup_ratio", "Warm-up", { auto: 0, show: percent }],
    ["weight_decay", "Weight decay", { auto: 0 }],
    ["max_grad_norm", "Largest gradient", { auto: 1 }],
    ["dropout", "Dropout", { auto: 0 }],
  ],
  Data: [
    ["validation_file", "Validation file", { show: null, help: "A file of its own to be asked, in place of a share that is held out.",
      options: (c) => [["", "none: a share is held out"], ...c.files.map((f) => [f.id, f.filename])] }],
    ["stride", "Stride", { auto: (c) => c.values.context_length || autoContext(c), when: ofText, show: tokens }],
    ["packing", "Packing", { when: ofRows }],
    ["train_on_inputs", "Learn the prompts too", { when: ofRows }],
    ["excess_length", "Long rows", { auto: "error", when: ofRows }],
  ],
  LoRA: [
    ["lora_r", "Rank", { auto: 8, when: lora }],
    ["lora_alpha", "Alpha", { auto: 16, when: lora }],
    ["lora_dropout", "Dropout in the adapter", { auto: 0, when: lora }],
    ["lora_trainable_modules", "Layers", { auto: "all-linear", when: lora, more: "One a line." }],
  ],
  "New model": [["vocab_size", "Vocabulary", { auto: 1024, when: (c) => c.isNew && c.values.tokenizer === "train", show: tokens }]],
  Other: [
    ["from_checkpoint", "Go on from", { when: (c) => !c.isNew && c.models.some(isCheckpoint),
      options: (c) => [["", "the base as it is"], ...c.models.filter(isCheckpoint).map((m) => [m.id, m.id])] }],
    ["seed", "Seed", { auto: "drawn", show: String }],
    ["shared", "Shared", { show: null }],
  ],
};
const TABLE = [["", MAIN], ...Object.entries(MORE)].flatMap(([group, list]) => list.map(([name, label, more]) => ({ name, label, group, ...more })));

/** A setting by its name here; a layer has none. */
const named = (name) => TABLE.find((f) => f.name === name)?.label ?? name;

/** The table with what the server says of each: path, kind, minimum, maximum, maxItems, maxLength, enum, help. */
async function readFields(signal) {
  const said = {};
  const walk = (path, properties) => {
    for (const [name, schema] of Object.entries(properties)) {
      if (schema.properties) walk(`${path}${name}.`, schema.properties);
      else said[name] = Object.assign({}, ...(schema.anyOf ?? []).filter((one) => !one.enum), schema, { path: path + name }); // "auto" is no choice
    }
  };
  walk("", (await call("/openapi.json", undefined, signal)).components.schemas.FineTuningJobRequest.properties);
  return TABLE.map((f) => {
    const s = said[f.name];
    const kind = s.maxItems ? "lines" : s.enum || f.options ? "choice" : s.minimum !== undefined ? "number" : s.maxLength ? "text" : "check";
    const options = () => [["", `auto: ${f.auto}`], ...s.enum.filter(Boolean).map((one) => [one, one])];
    const words = s.description.replace(/ \([^()]*\)(?=\.$)/, "").replace(/\w+_\w+/g, named); // what auto comes to stands in the field
    return { ...s, kind, options, step: s.type?.includes("integer") ? 1 : "any", help: `${words} ${f.more ?? ""}`, ...f };
  });
}

const INITIAL = Object.fromEntries(TABLE.map((f) => [f.name, f.initial ?? ""]));
/** type: "lora" | "full". model: an id, "new", or "" (the one chosen at the top). file: whose name and prompts are among the values. */
const form = persistentStore("train-form", { model: "", type: "lora", values: INITIAL, file: "" });
const valuesOf = (saved) => ({ ...INITIAL, ...saved.values });
const setValue = (name, value) => form.patch({ values: { ...valuesOf(form.get()), [name]: value } });
const shown = (c) => c.fields.filter((f) => (f.when ?? yes)(c));
const told = (what, c) => (typeof what === "function" ? what(c) : what ?? null);
const typed = (f, c) => String(c.values[f.name] ?? "").trim();
const linesOf = (text) => text.split("\n").filter((line) => line.trim() !== "").map((line) => line.replaceAll("\\n", "\n"));

/** What is wrong with a field as it stands, or null. */
function fieldProblem(f, c) {
  const text = typed(f, c);
  if (text === "" || f.kind === "choice" || f.kind === "check") return null;
  if (f.kind === "text" && !/^[\w.-]*$/.test(text)) return "Letters, digits, - _ and dots only.";
  if (f.kind === "text") return text.length > f.maxLength ? `At most ${f.maxLength} characters.` : null;
  if (f.kind === "lines") return linesOf(text).length > f.maxItems ? `At most ${f.maxItems} lines.` : null;
  const x = Number(text), max = told(f.maximum, c);
  if (!Number.isFinite(x)) return "Not a number.";
  if (x < f.minimum || x > max) return `From ${f.minimum} to ${max}.`;
  return f.step === 1 && !Number.isInteger(x) ? "A whole number." : null;
}

function valueOf(f, c) {
  const text = typed(f, c);
  if (text === "") {
    const auto = f.sends?.(c) ? told(f.auto, c) : null;
    return auto !== null && f.kind === "lines" ? [auto] : auto;
  }
  if (text === f.none || (f.kind === "number" && Number(text) === Number(f.none))) return null;
  return { check: () => true, lines: linesOf, number: Number }[f.kind]?.(text) ?? text;
}

/** The body of POST /v1/fine_tuning/jobs. */
function jobRequest(c, file) {
  const out = { model: c.isNew ? "new" : c.base.id, training_file: file };
  const put = (path, value) => {
    const names = path.split("."), last = names.pop();
    let at = out;
    for (const name of names) at = at[name] ??= {};
    at[last] = value;
  };
  if (!c.isNew) put("couplet.training_type.type", c.full ? "full" : "lora");
  for (const f of shown(c)) {
    const value = valueOf(f, c);
    if (value !== null) put(f.path, value);
  }
  if (out.method) out.method = { type: "supervised", ...out.method };
  return out;
}

/** The field that an error of the server is about, or null. */
const fieldOf = (c, error) => c.fields.find((f) => f.name === error?.param?.split(".").at(-1)) ?? null;

const placeholder = (f, c) => {
  const is = told(f.auto, c);
  return is === null ? f.noneWords?.(c) ?? "" : `auto: ${String(is).replaceAll("\n", "\\n")}`;
};

function Control({ f, c, id, wrong }) {
  const value = c.values[f.name] ?? "";
  const common = { id, "aria-describedby": `${id}-help`, "aria-invalid": wrong ? "true" : undefined };
  const set = (event) => setValue(f.name, event.target.value);
  const check = (event) => setValue(f.name, event.target.checked ? "true" : "");
  const written = { ...common, placeholder: placeholder(f, c), value, onInput: set };
  switch (f.kind) {
    case "choice": return html`<select ...${common} value=${value} onChange=${set}>
      ${f.options(c).map(([v, words]) => html`<option value=${v} selected=${v === value}>${words}</option>`)}</select>`;
    case "check": return html`<input type="checkbox" ...${common} checked=${value === "true"} onChange=${check} />`;
    case "lines": return html`<textarea ...${written} rows="2" spellcheck="false"></textarea>`;
    case "text": return html`<input type="text" ...${written} maxlength=${f.maxLength} spellcheck="false" />`;
    default: return html`<input type="number" ...${written} min=${f.minimum} max=${told(f.maximum, c)} step=${f.step} />`;
  }
}

/** One field with its meaning and what is wrong with it. `error`: the server's words, where they are about it. */
function Setting({ f, c, error }) {
  const id = useId(), wrong = fieldProblem(f, c) ?? error, lines = f.kind === "lines";
  const control = html`<${Control} f=${f} c=${c} id=${id} wrong=${wrong} />`;
  return html`<div class=${`field train-field train-${f.kind}`}>
    <div class="field-head"><label for=${id}>${f.label}</label>${!lines && control}</div>
    ${lines && control}
    <p class="hint" id=${`${id}-help`}>${wrong && html`<strong class="bad">${wrong} </strong>`}${f.help}</p>
  </div>`;
}

const Fields = ({ of, c, error }) => html`<div class="train-fields">${of.map((f) =>
  html`<${Setting} key=${f.name} f=${f} c=${c} error=${f === fieldOf(c, error) ? error.message : null} />`)}</div>`;

function More({ c, error }) {
  const fields = shown(c).filter((f) => f.group);
  const [open, setOpen] = useState(() => fields.some((f) => c.values[f.name] !== INITIAL[f.name]));
  return html`<details class="card train-more" open=${open || Boolean(fieldOf(c, error)?.group)} onToggle=${(e) => setOpen(e.target.open)}>
    <summary>More settings</summary>
    ${Object.keys(MORE).filter((name) => fields.some((f) => f.group === name)).map((name) => html`
      <h3 class="train-group">${name}</h3><${Fields} of=${fields.filter((f) => f.group === name)} c=${c} error=${error} />`)}
    <button type="button" class="quiet" onClick=${() => form.patch({ type: "lora", values: INITIAL })}>Everything back to auto</button>
  </details>`;
}

// ---------------------------------------------------------------- a job's settings

/** What a job was told, by the names of the table; and what it was called by. */
const settingsBy = (job) => ({ ...job, ...job.hyperparameters, ...job.couplet, ...job.couplet.architecture,
  ...(job.couplet.training_type.type === "lora" ? job.couplet.training_type : {}), suffix: job.user_provided_suffix });

function inWords(value, show = (n) => (Number.isInteger(n) ? count(n) : number(n))) {
  if (value === null || value === undefined || show === null) return null;
  if (typeof value === "boolean") return value ? "yes" : "no";
  return typeof value === "number" ? show(value) : Array.isArray(value) ? value.join(", ") : value;
}

/** [[label, text or null: does not apply]] */
export function settingsOf(job) {
  const by = settingsBy(job), unused = by.max_steps ? "n_epochs" : "";
  return [["Base model", baseName(job)], ["What is trained", methodName(job)],
    ...TABLE.map((f) => [f.label, f.name === unused ? null : inWords(by[f.name], f.show)])];
}

export function AsRun({ job }) {
  const row = (label, value) => html`<div><dt>${label}</dt><dd>${value}</dd></div>`;
  return html`<details class="card job-settings" id="settings-as-run"><summary><span>Settings</span></summary>
    <dl>${settingsOf(job).filter(([, text]) => text).map(([label, text]) => row(label, text))}
      ${row("Training file", html`<${FileName} id=${job.training_file} />`)}
      ${job.validation_file && row("Validation file", html`<${FileName} id=${job.validation_file} />`)}
      ${row("Job", html`<code>${job.id}</code>`)}
    </dl>
  </details>`;
}

// ---------------------------------------------------------------- the base: which model is trained, and whether all of it

/** Only an adapter can be trained beside quantised weights, or on top of another adapter. null: nothing stands against full. */
function fullRefused(base) {
  if (!base) return null;
  if (base.couplet?.adapter) return "This base is an adapter on another model: it is trained on as an adapter.";
  const { weights = "" } = base.meta ?? {};
  if (!weights.startsWith("q")) return null;
  return `This base is kept quantised (${weights}): its weights cannot be moved, so an adapter is trained beside them.`;
}

const millions = (n) => (n >= 1e9 ? `${(n / 1e9).toFixed(1)} billion` : n >= 1e6 ? `${(n / 1e6).toFixed(n < 1e7 ? 1 : 0)} million` : count(n));

const baseFacts = ({ meta = {}, couplet, max_model_len: context }) => [
  meta.n_params && ["Parameters", millions(meta.n_params)],
  meta.n_layer && ["Layers", count(meta.n_layer)],
  context && ["Context", tokens(context)],
  meta.weights && ["Weights", `${meta.weights}, ${bytes(couplet?.bytes ?? meta.size ?? 0)}`],
  ["Chat", meta.chat_template || "no template", "Rows of messages need a chat template"],
];
const ORIGINS = { checkpoint: " (a checkpoint)", result: " (fine-tuned here)" };

/** `error`: of the server, about the model or the type. */
function Base({ c, error }) {
  const options = c.models.filter((m) => m.couplet?.origin !== "live").map((m) => [m.id, m.id + (ORIGINS[m.couplet?.origin] ?? "")]);
  const refused = c.isNew ? null : fullRefused(c.base);
  const about = (param) => error?.param === param && html`<p class="bad" role="alert">${error.message}</p>`;
  return html`<div class="stack train-base">
    <div><${Select} label="Base" value=${c.isNew ? "new" : c.base?.id ?? ""}
      options=${[...options, ["new", "nothing: a new model with random weights"]]} onChange=${(model) => form.patch({ model })} /></div>
    ${!c.isNew && c.base && html`<${Facts} items=${baseFacts(c.base)} />`}
    ${about("model")}
    ${c.isNew ? html`<p class="hint">A new model is trained as a whole: an adapter to random weights fits nothing. Expect it to need many more epochs
        than a fine-tune.</p>` : html`
      <div class="row"><${Segmented} label="What is trained" value=${c.full ? "full" : "lora"} onChange=${(type) => form.patch({ type })}
        options=${[["lora", "LoRA adapter"], ...(refused ? [] : [["full", "Every weight"]])]} /></div>
      <p class="hint">${refused ?? (c.full
        ? "Every weight moves: it can learn most, needs memory for the weights four times over, and each checkpoint is as large as the model."
        : "A small adapter learns beside the weights, which stay as they are: quick, a few megabytes, and served together with its base.")}</p>
      ${about("couplet.training_type.type")}`}
  </div>`;
}

// ---------------------------------------------------------------- what it takes, as measured by the server; and the start

/** {figures, error, busy, problem} for a request; null asks nothing. An estimate that no longer fits is given up. */
function useEstimate(body, c) {
  const wrong = shown(c).find((f) => fieldProblem(f, c)), problem = wrong ? `${wrong.label}: ${fieldProblem(wrong, c)}` : null;
  const text = body && !problem ? JSON.stringify(body) : null;
  const settled = useSettled(text, 600);
  const { of, data: figures, error } = useAnswer(settled, (signal) => call("/v1/fine_tuning/estimate", JSON.parse(settled), signal));
  const fits = text !== null && of === text;
  return { figures, error: fits ? error : null, busy: text !== null && !fits, problem };
}

function Figures({ e, batch }) {
  const epoch = e.train_tokens / Math.max(e.tokens_per_second, 1e-9), step = epoch / Math.max(1, Math.ceil(e.train_rows / batch)); // seconds
  return html`<p class="train-time">about <strong>${duration(e.seconds)}</strong></p>
    <${Facts} items=${[
      ["Steps", `${count(e.steps)}, ${duration(step)} each`],
      ["Memory", bytes(e.peak_memory_bytes), "At most, beside what the server has already"],
      ["Speed", `${count(e.tokens_per_second)} tokens/s`],
      ["Learned from", `${plural(e.train_rows, "example")}, ${plural(e.train_tokens, "token")}`],
      ["Held out", e.valid_rows ? plural(e.valid_rows, "example") : "nothing", "Without, nothing tells whether it became better"],
      ["Evaluations", count(e.evaluations)],
      ["Checkpoints", `${count(e.checkpoints)} of ${bytes(e.checkpoint_bytes)}`],
    ]} />
    ${e.warnings.map((w) => html`<p class="train-warning">${w[0].toUpperCase() + w.slice(1)}.</p>`)}`;
}

/** The card beside the form. `error`: one that is about no field. */
function Estimate({ estimate, error, body, ready, c, report }) {
  const [starting, run] = useBusy();
  const start = () => {
    say(null);
    const seconds = estimate.busy ? undefined : estimate.figures?.seconds; // the run's page sets what came beside it
    run(() => startRun(body, seconds ? { "couplet.estimate_s": String(Math.round(seconds)) } : undefined));
  };
  const fatal = report.report && !report.report.usable;
  const about = estimate.problem ? `${estimate.problem} Mend it, and the estimate follows.`
    : fatal ? "This file cannot be trained on as it is; its problems are listed with it." : !ready ? "Waiting for the file's report…"
      : estimate.error ? (error ? explain(error) : "One of the settings is not accepted; it is marked.") : null;
  const stopped = starting || !ready || Boolean(estimate.problem || estimate.error);
  return html`<${Card} title="What it takes" className="train-estimate">
    <div role="status" aria-busy=${estimate.busy}>
      ${about && html`<p class=${estimate.error || estimate.problem || fatal ? "bad" : "hint"}>${about}</p>`}
      ${!about && estimate.busy && html`<p class="hint">Trying a few updates to see how long it takes…</p>`}
    </div>
    ${!about && estimate.figures && html`<div class=${estimate.busy ? "train-stale" : ""}>
      <${Figures} e=${estimate.figures} batch=${Number(c.values.batch_size) || 8} /></div>`}
    <div class="actions"><button type="button" id="train-start" class="primary" disabled=${stopped} onClick=${start}>
      ${starting ? "Starting…" : "Start training"}</button>
      ${body && html`<${ViewAs} request=${() => ({ path: "/v1/fine_tuning/jobs", body })} />`}</div>
    <p class="hint">The server goes on answering meanwhile. The run survives this page, a reload and a restart of the server.</p>
  <//>`;
}

// ---------------------------------------------------------------- the whole

/** What the table's functions are told. */
function settingOf(saved, fields, list, chosen, file, allFiles, report) {
  const wanted = saved.model || chosen, none = wanted === "new" || list.length === 0;
  const base = list.find((m) => m.id === wanted) ?? list.find((m) => m.id === chosen) ?? list[0] ?? null;
  const rows = /\.jsonl?$/i.test(file?.filename ?? "");
  return {
    isNew: none, base, fields, models: list, values: valuesOf(saved), full: none || (saved.type === "full" && !fullRefused(base)),
    filename: file?.filename ?? "", text: Boolean(file) && !rows, rows, report, examples: report?.usable ? report.examples : null,
    files: allFiles.filter((f) => f.id !== file?.id),
  };
}

/** A finished run's settings into the form; its file into the address. */
async function takeOver(id) {
  try {
    const job = await call(`/v1/fine_tuning/jobs/${encodeURIComponent(id)}`), by = settingsBy(job), values = {};
    for (const { name, none, sends } of TABLE) {
      const value = by[name], empty = value === null || value === undefined || value.length === 0;
      if (empty && sends && none) values[name] = none; // left empty it would be auto
      if (empty || value === "all-linear" || value === false) continue;
      values[name] = Array.isArray(value) ? value.map((line) => line.replaceAll("\n", "\\n")).join("\n") : String(value);
    }
    if (job.model === "new" && job.couplet.architecture && !values.preset) values.preset = "own";
    form.set({ model: job.model, type: job.couplet.training_type.type, values, file: job.training_file });
    setParams({ like: null, file: job.training_file });
  } catch (error) {
    setParams({ like: null });
    fail(error);
  }
}

function DataCard({ file, id, report, c }) {
  const note = useStore(uploadNote), busy = Boolean(useStore(uploading));
  const made = c.isNew && c.values.tokenizer === "train"; // by the run, so there is none yet
  const lender = made ? report.report?.model ?? "a served model" : c.isNew ? c.values.tokenizer : c.base?.id;
  const tokenizer = `the tokenizer of ${lender}${made ? ", until the new one is made" : ""}`;
  const tools = html`${file && html`<span class="count">${bytes(file.bytes)}</span>`}
    <${PickFile} label="Another file" className="quiet" disabled=${busy} onPick=${(f) => addFile(f, f.name, useForNew)} />`;
  return html`<${Card} title=${file ? html`<span class="train-filename">${file.filename}</span>` : "File"} className="train-data" tools=${tools}>
    <${UploadProgress} />
    ${note?.id === id && html`<p class="hint train-note" role="status">${note.text}</p>`}
    <${Report} state=${report} tokenizer=${tokenizer} stride=${Number(c.values.stride)} />
    <details class="train-earlier"><summary>All uploaded files</summary>
      <${FileList} onUse=${useForNew} chosen=${id} onGone=${(gone) => { if (gone === id) setParams({ file: null }); }} /></details>
  <//>`;
}

function Form({ id, fields }) {
  const saved = useStore(form), { list, state } = useStore(models), chosen = useStore(chosenModel), all = useStore(files);
  const file = all.list.find((f) => f.id === id) ?? null;
  const before = settingOf(saved, fields, list, chosen, file, all.list, null);
  const { values } = before;
  useEffect(() => { // another file has a name and prompts of its own
    if (saved.file !== id) form.patch({ file: id, values: { ...values, suffix: "", sample_prompts: "", validation_file: "" } });
  }, [id]);
  const reportOf = before.isNew ? (values.tokenizer === "train" ? "" : values.tokenizer) : before.base?.id ?? "";
  const ownContext = modelContext(before);
  const context = Number(values.context_length) || (before.text ? Math.min(ownContext || 1024, 1024) : before.isNew ? ownContext : 0);
  const report = useReport(state === "ready" ? id : null, { model: reportOf, context_length: context ? String(context) : "",
    excess_length: before.rows ? values.excess_length : "", validation_file: values.validation_file });
  const c = settingOf(saved, fields, list, chosen, file, all.list, report.report);
  const ready = Boolean(file && report.report?.usable && !report.stale && (c.isNew || c.base));
  const body = file && (c.isNew || c.base) ? jobRequest(c, id) : null;
  const estimate = useEstimate(ready ? body : null, c);
  const { error } = estimate, elsewhere = fieldOf(c, error) ? null : error;
  return html`<div class="with-side train-new">
    <div class="stack">
      <${DataCard} file=${file} id=${id} report=${report} c=${c} />
      <${Card} title="Base"><${Base} c=${c} error=${error} /><//>
      <${Card} title="Settings"><${Fields} of=${shown(c).filter((f) => !f.group)} c=${c} error=${error} /><//>
    </div>
    <aside class="train-side" aria-label="What it takes">
      <${Estimate} estimate=${estimate} error=${elsewhere} body=${body} ready=${ready} c=${c} report=${report} />
    </aside>
    <${More} c=${c} error=${error} />
  </div>`;
}

export function NewJob({ file, like }) {
  useEffect(() => { loadFiles(); }, []);
  useEffect(() => { if (like) takeOver(like); }, [like]);
  const { data: fields } = useAnswer("fields", readFields, true);
  if (like || !fields) return html`<p class="hint" role="status">Reading the ${like ? "run" : "settings"}…</p>`;
  return file ? html`<${Form} id=${file} fields=${fields} />` : html`<${DropZone} />`;
}
