// SPDX-License-Identifier: MIT
// The settings of a fine-tune: one table says of every field what it means, what "auto" comes to, and where it stands in the request. The values are
// one store; what is left empty is left out of the request, or sent as what the page takes for it (`send`).
//
// A field's functions are given the setting `c`: {isNew, full, text, rows, base, examples, report, filename, models, files, values}.

import { html, useId, useState } from "../../lib/html.js";
import { persistentStore } from "../../lib/store.js";
import { nameOf } from "./files.js";

const COUPLET = "couplet.", HYPER = "method.supervised.hyperparameters.", LORA = "couplet.training_type.", SHAPE = "couplet.architecture.";
const TEXT_CONTEXT = 1024, CONTEXTS = { "gpt2-nano": 256, "gpt2-mini": 512 };
const yes = () => true;

/** What the model takes at most. */
export const modelContext = (c) => (c.isNew ? CONTEXTS[c.values.preset] ?? (Number(c.values.n_ctx) || 1024) : c.base?.max_model_len ?? 0);
const autoContext = (c) => (c.text ? Math.min(modelContext(c), TEXT_CONTEXT) : modelContext(c)) || null;
const autoRate = (c) => (c.isNew ? 2e-3 : c.full ? 5e-5 : 2e-4) * (Number(c.values.learning_rate_multiplier) || 1);
const stem = (c) => nameOf(c.filename);

/** What the model shall go on with while it learns: the first question, or the first words of a text. */
function firstPrompt(c) {
  const tokens = c.report?.preview[0]?.tokens ?? [];
  const from = tokens.findIndex((t) => t.supervised);
  const words = (some) => some.map((t) => t.text).join("").replace(/^<s>|^<\|begin_of_text\|>|^<\|endoftext\|>/, ""); // the server puts its own
  const prompt = c.rows && from > 1 ? words(tokens.slice(0, from)) : words(tokens.slice(0, 24)).trim().split(/\s+/).slice(0, 3).join(" ");
  return prompt === "" || prompt.includes("\ufffd") || prompt.length > 2000 ? null : prompt;
}

const SIZES = [["gpt2-nano", "gpt2-nano, about 1 million parameters"], ["gpt2-mini", "gpt2-mini, some 10 million"], ["gpt2-124m", "gpt2-124m"],
  ["gpt2-355m", "gpt2-355m"], ["gpt2-774m", "gpt2-774m"], ["gpt2-1558m", "gpt2-1558m"], ["own", "a size of your own"]];
const OWN_SIZE = [["n_layer", "Layers", 256, "4", "Blocks, one behind the other."], ["n_head", "Heads", 256, "4", "Of attention, in each block."],
  ["n_embd", "Width", 16384, "128", "Numbers that a token is; a multiple of the heads."], ["n_ctx", "Longest context", 65536, "256", "Tokens that it can see at once."]];
const ownSize = (c) => c.isNew && c.values.preset === "own";
const lendsTokenizer = (m) => m.couplet?.origin !== "live" && m.meta?.format !== "gguf";
const isCheckpoint = (m) => m.couplet?.origin === "checkpoint";
const lora = (c) => !c.isNew && !c.full;
const whole = { kind: "number", step: 1 }, real = { kind: "number", step: "any" };

export const FIELDS = [
  // ---- in front
  { name: "preset", path: `${SHAPE}preset`, label: "Size", kind: "choice",
    options: () => SIZES, initial: "gpt2-nano", when: (c) => c.isNew, send: (c) => (ownSize(c) ? null : c.values.preset),
    help: "How large the new model is. Nano learns in minutes on two cores; each next size takes ten times as long, or more." },
  ...OWN_SIZE.map(([name, label, max, initial, help]) => ({ name, path: `${SHAPE}${name}`, label, ...whole, min: 1, max, initial, when: ownSize, help })),
  { name: "tokenizer", path: `${COUPLET}tokenizer`, label: "Tokenizer", kind: "choice", when: (c) => c.isNew, initial: "train",
    options: (c) => [["train", "made from this text"], ...c.models.filter(lendsTokenizer).map((m) => [m.id, `that of ${m.id}`])],
    send: (c) => c.values.tokenizer,
    help: "What cuts the text into tokens. One made from the text fits it best; rows need a model's." },
  { name: "n_epochs", path: `${HYPER}n_epochs`, label: "Epochs", ...whole, min: 1, max: 50,
    auto: (c) => (c.isNew ? 12 : 3), send: (c) => (c.isNew ? 12 : null),
    help: "How often it goes through the data. More learns it better, until it only repeats it: the validation loss then rises." },
  { name: "learning_rate", path: `${COUPLET}learning_rate`, label: "Learning rate", ...real, min: 0, max: 1000,
    auto: autoRate, send: (c) => (c.isNew ? autoRate(c) : null),
    help: "How far each update moves the weights. Too high and the loss jumps about; too low and little is learned." },
  { name: "context_length", path: `${COUPLET}context_length`, label: "Context", ...whole, min: 1, max: (c) => modelContext(c) || 16777216,
    auto: autoContext,
    help: "Tokens that the model sees at once while it trains. Shorter takes less time and memory." },
  { name: "validation_split", path: `${COUPLET}validation_split`, label: "Held out", ...real, min: 0, max: 0.9,
    auto: (c) => (c.values.validation_file || (c.examples ?? 2) < 2 ? null : 0.1),
    send: (c) => (c.values.validation_file || (c.examples ?? 2) < 2 ? null : 0.1), none: "0",
    noneWords: (c) => (c.values.validation_file ? "the file does it" : "too few rows"),
    help: "Share of the data that is not learned but asked: only it shows whether the model became better. 0 holds nothing out." },
  { name: "suffix", path: "suffix", label: "Name", kind: "text", max: 64, auto: (c) => stem(c) || null, send: (c) => stem(c) || null,
    help: "Part of the result's name: letters, digits, - _ and dots." },
  { name: "sample_prompts", path: `${COUPLET}sample_prompts`, label: "Sample prompts", kind: "lines",
    auto: firstPrompt, send: (c) => (firstPrompt(c) === null ? null : [firstPrompt(c)]),
    help: "The model goes on with each of them at every evaluation, so that you see it learn. One a line; \\n is a line break." },
  // ---- more: how long, how fast
  { name: "batch_size", path: `${HYPER}batch_size`, label: "Batch size", ...whole, min: 1, max: 256, auto: () => 8, group: "Updates",
    help: "Rows an update is made from." },
  { name: "max_steps", path: `${COUPLET}max_steps`, label: "Steps", ...whole, min: 1, max: 1e9, auto: () => "epochs", group: "Updates",
    help: "Updates in all, in place of the epochs." },
  { name: "n_evals", path: `${COUPLET}n_evals`, label: "Evaluations", ...whole, min: 1, max: 1000, auto: () => 6, send: () => 6, group: "Updates",
    help: "Points of the validation curve, spread over the run. At each, what is held out is read and the sample prompts are gone on with." },
  { name: "n_checkpoints", path: `${COUPLET}n_checkpoints`, label: "Checkpoints", ...whole, min: 1, max: 1000,
    auto: (c) => (c.full ? 2 : 3), send: (c) => (c.full ? 2 : 3), group: "Updates",
    help: "Kept along the way; each can be talked to at once and takes room on the disk." },
  { name: "early_stopping", path: `${COUPLET}early_stopping`, label: "Stop early", ...whole, min: 1, max: 1e6, auto: () => "never", group: "Updates",
    help: "After so many evaluations without a lower validation loss." },
  { name: "learning_rate_multiplier", path: `${HYPER}learning_rate_multiplier`, label: "Rate multiplier", ...real, min: 1e-6, max: 1e6,
    auto: () => 1, group: "Updates",
    help: "Scales the automatic learning rate. Counts for nothing where a learning rate is given." },
  { name: "lr_scheduler", path: `${COUPLET}lr_scheduler`, label: "Course of the rate", kind: "choice", group: "Updates",
    options: () => [["", "auto: linear"], ["constant", "constant"], ["linear", "linear, down to nothing"], ["cosine", "cosine, down to nothing"]],
    help: "How the learning rate goes over the run." },
  { name: "warmup_ratio", path: `${COUPLET}warmup_ratio`, label: "Warm-up", ...real, min: 0, max: 1, auto: () => 0, group: "Updates",
    help: "Share of the run in which the rate rises from nothing." },
  { name: "weight_decay", path: `${COUPLET}weight_decay`, label: "Weight decay", ...real, min: 0, max: 1000, auto: () => 0, group: "Updates",
    help: "Draws the weight matrices towards zero." },
  { name: "max_grad_norm", path: `${COUPLET}max_grad_norm`, label: "Largest gradient", ...real, min: 0, max: 1e9, auto: () => 1, group: "Updates",
    help: "A longer gradient is cut to it. 0: none is cut." },
  { name: "dropout", path: `${COUPLET}dropout`, label: "Dropout", ...real, min: 0, max: 0.99, auto: () => 0, group: "Updates",
    help: "Share of activations left out at random, so that it cannot learn by heart." },
  // ---- more: the data
  { name: "validation_file", path: "validation_file", label: "Validation file", kind: "choice", group: "Data",
    options: (c) => [["", "none: a share is held out"], ...c.files.map((f) => [f.id, f.filename])],
    help: "Held-out data in a file of its own, in place of a share." },
  { name: "stride", path: `${COUPLET}stride`, label: "Stride", ...whole, min: 1, max: 16777216,
    auto: (c) => c.values.context_length || autoContext(c), when: (c) => c.text, group: "Data",
    help: "Tokens from one window of the text to the next. Less than the context: windows overlap, and there are more." },
  { name: "packing", path: `${COUPLET}packing`, label: "Packing", kind: "check", when: (c) => c.rows, group: "Data",
    help: "Several short rows in one, each seeing itself alone." },
  { name: "train_on_inputs", path: `${COUPLET}train_on_inputs`, label: "Learn the prompts too", kind: "check", when: (c) => c.rows, group: "Data",
    help: "Otherwise only the answers are learned." },
  { name: "excess_length", path: `${COUPLET}excess_length`, label: "Long rows", kind: "choice", when: (c) => c.rows, group: "Data",
    options: () => [["", "auto: are a mistake"], ["error", "are a mistake"], ["truncate", "are cut"], ["drop", "are left out"]],
    help: "What happens to rows over the context." },
  // ---- more: the adapter, the new model, where it begins
  { name: "lora_r", path: `${LORA}lora_r`, label: "Rank", ...whole, min: 1, max: 4096, auto: () => 8, when: lora, group: "LoRA",
    help: "Width of the adapter: more can learn more, and takes more." },
  { name: "lora_alpha", path: `${LORA}lora_alpha`, label: "Alpha", ...real, min: 1e-6, max: 1e6, auto: () => 16, when: lora, group: "LoRA",
    help: "The adapter counts alpha / rank times." },
  { name: "lora_dropout", path: `${LORA}lora_dropout`, label: "Dropout in the adapter", ...real, min: 0, max: 0.99,
    auto: () => 0, when: lora, group: "LoRA",
    help: "Before its factors." },
  { name: "lora_trainable_modules", path: `${LORA}lora_trainable_modules`, label: "Layers", kind: "lines",
    auto: () => "all-linear", when: lora, group: "LoRA",
    help: "Which get an adapter, by the checkpoint's names, one a line: q_proj, v_proj, …" },
  { name: "vocab_size", path: `${COUPLET}vocab_size`, label: "Vocabulary", ...whole, min: 257, max: 1048576,
    auto: () => 1024, when: (c) => c.isNew && c.values.tokenizer === "train", group: "New model",
    help: "Tokens that the tokenizer learns, of which 256 are bytes." },
  { name: "from_checkpoint", path: `${COUPLET}from_checkpoint`, label: "Go on from", kind: "choice", when: (c) => !c.isNew && c.models.some(isCheckpoint), group: "Other",
    options: (c) => [["", "the base as it is"], ...c.models.filter(isCheckpoint).map((m) => [m.id, m.id])],
    help: "A checkpoint of an earlier run on the same base." },
  { name: "seed", path: "seed", label: "Seed", ...whole, min: 0, max: 2147483647, auto: () => "drawn", group: "Other",
    help: "The same data, settings and seed give the same weights, bit for bit." },
  { name: "shared", path: `${COUPLET}shared`, label: "Shared", kind: "check", group: "Other",
    help: "Other keys may see the run and use its models." },
];

const INITIAL = Object.fromEntries(FIELDS.map((f) => [f.name, f.initial ?? ""]));
/** type: "lora" | "full". model: an id, "new", or "" (the one chosen at the top). */
export const form = persistentStore("train-form", { model: "", type: "lora", values: INITIAL });
export const resetSettings = () => form.patch({ type: "lora", values: INITIAL });
export const valuesOf = (saved) => ({ ...INITIAL, ...saved.values });
export const setValue = (name, value) => form.patch({ values: { ...valuesOf(form.get()), [name]: value } });
export const shown = (c) => FIELDS.filter((f) => (f.when ?? yes)(c));
export const isMain = (f) => !f.group;

const limit = (f, c, bound) => (typeof f[bound] === "function" ? f[bound](c) : f[bound]);
const linesOf = (text) => text.split("\n").filter((line) => line.trim() !== "").map((line) => line.replaceAll("\\n", "\n"));

/** What is wrong with a field as it stands, or null. */
export function fieldProblem(f, c) {
  const text = String(c.values[f.name] ?? "").trim();
  if (text === "" || f.kind === "choice" || f.kind === "check") return null;
  if (f.kind === "text") return /^[\w.-]*$/.test(text) ? (text.length > f.max ? `At most ${f.max} characters.` : null) : "Letters, digits, - _ and dots only.";
  if (f.kind === "lines") return linesOf(text).length > (f.name === "sample_prompts" ? 16 : 32) ? "Too many lines." : null;
  const x = Number(text), [min, max] = [limit(f, c, "min"), limit(f, c, "max")];
  if (!Number.isFinite(x)) return "Not a number.";
  if (x < min || x > max) return `From ${min} to ${max}.`;
  return f.step === 1 && !Number.isInteger(x) ? "A whole number." : null;
}

function valueOf(f, c) {
  const text = String(c.values[f.name] ?? "").trim();
  if (f.send && (text === "" || f.options)) return f.send(c);
  if (text === "" || (f.none !== undefined && Number(text) === Number(f.none))) return null;
  if (f.kind === "check") return true;
  if (f.kind === "lines") return linesOf(text);
  return f.kind === "number" ? Number(text) : text;
}

/** The body of POST /v1/fine_tuning/jobs. */
export function jobRequest(c, file) {
  const out = { model: c.isNew ? "new" : c.base.id, training_file: file };
  const put = (path, value) => {
    const names = path.split("."), last = names.pop();
    let at = out;
    for (const name of names) at = at[name] ??= {};
    at[last] = value;
  };
  if (!c.isNew) put(`${LORA}type`, c.full ? "full" : "lora");
  for (const f of shown(c)) {
    const value = valueOf(f, c);
    if (value !== null && value !== undefined && value !== "") put(f.path, value);
  }
  if (out.method) out.method = { type: "supervised", ...out.method };
  return out;
}

/** The field that an error of the server is about, or null. */
export const fieldOf = (param) => (param ? FIELDS.find((f) => f.path === param || f.path.endsWith(`.${param}`)) ?? null : null);

const placeholder = (f, c) => {
  const is = f.auto?.(c) ?? null;
  return is === null ? f.noneWords?.(c) ?? "" : typeof is === "number" ? `auto: ${is}` : `auto: ${String(is).replaceAll("\n", "\\n")}`;
};

function Control({ f, c, id, wrong }) {
  const value = c.values[f.name] ?? "";
  const set = (event) => setValue(f.name, event.target.value);
  const common = { id, "aria-describedby": `${id}-help`, "aria-invalid": wrong ? "true" : undefined };
  if (f.kind === "choice") {
    return html`<select ...${common} value=${value} onChange=${set}>
      ${f.options(c).map(([v, words]) => html`<option value=${v} selected=${v === value}>${words}</option>`)}</select>`;
  }
  const check = (event) => setValue(f.name, event.target.checked ? "true" : "");
  if (f.kind === "check") return html`<input type="checkbox" ...${common} checked=${value === "true"} onChange=${check} />`;
  const typed = { ...common, placeholder: placeholder(f, c), value, onInput: set };
  if (f.kind === "lines") return html`<textarea ...${typed} rows="2" spellcheck="false"></textarea>`;
  if (f.kind === "text") return html`<input type="text" ...${typed} maxlength=${f.max} spellcheck="false" />`;
  return html`<input type="number" ...${typed} min=${limit(f, c, "min")} max=${limit(f, c, "max")} step=${f.step} />`;
}

/** One field with its meaning and what is wrong with it. `error`: the server's words, where they are about it. */
export function Setting({ f, c, error }) {
  const id = useId();
  const wrong = fieldProblem(f, c) ?? error;
  return html`<div class=${`field train-field train-${f.kind}`}>
    <div class="field-head"><label for=${id}>${f.label}</label>${f.kind !== "lines" && html`<${Control} f=${f} c=${c} id=${id} wrong=${wrong} />`}</div>
    ${f.kind === "lines" && html`<${Control} f=${f} c=${c} id=${id} wrong=${wrong} />`}
    <p class="hint" id=${`${id}-help`}>${wrong && html`<strong class="bad">${wrong} </strong>`}${f.help}</p>
  </div>`;
}

const GROUPS = ["Updates", "Data", "LoRA", "New model", "Other"];

export function Settings({ c, error }) {
  const fields = shown(c), about = fieldOf(error?.param);
  const row = (f) => html`<${Setting} key=${f.name} f=${f} c=${c} error=${f === about ? error.message : null} />`;
  const [open, setOpen] = useState(() => FIELDS.some((f) => !isMain(f) && c.values[f.name] !== INITIAL[f.name]));
  return html`
    <div class="train-fields">${fields.filter(isMain).map(row)}</div>
    <details class="more" open=${open || Boolean(about && !isMain(about))} onToggle=${(e) => setOpen(e.target.open)}><summary>More settings</summary>
      ${GROUPS.map((name) => [name, fields.filter((f) => f.group === name)]).filter(([, some]) => some.length > 0).map(([name, some]) => html`
        <h3 class="train-group">${name}</h3><div class="train-fields">${some.map(row)}</div>`)}
      <button type="button" class="quiet" onClick=${resetSettings}>Everything back to auto</button>
    </details>`;
}
