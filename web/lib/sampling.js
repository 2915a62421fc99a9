// SPDX-License-Identifier: MIT
// The sampling controls: one table describes each field, draws its control and puts it into a request. Their values are one store for all views.

import { html, useRef } from "./html.js";
import { visible } from "./format.js";
import { chosenModel, say } from "./server.js";
import { persistentStore, useStore } from "./store.js";

export const FIELDS = [
  { name: "temperature", label: "Temperature", min: 0, max: 2, step: 0.05, initial: 0.7, slider: true,
    help: "0 always takes the likeliest token. Higher spreads the choice." },
  { name: "top_p", label: "Top p", min: 0, max: 1, step: 0.01, initial: 1, neutral: 1, slider: true,
    help: "Only the likeliest tokens that together reach this probability. 1 is off." },
  { name: "top_k", label: "Top k", min: 0, max: 1000, step: 1, initial: 0, neutral: 0,
    help: "Only the k likeliest tokens. 0 is off." },
  { name: "min_p", label: "Min p", min: 0, max: 1, step: 0.01, initial: 0, neutral: 0, slider: true,
    help: "Drops tokens less likely than this share of the likeliest one. 0 is off." },
  { name: "typical_p", label: "Typical p", min: 0, max: 1, step: 0.01, initial: 1, neutral: 1, slider: true, more: true,
    help: "Only tokens about as surprising as is usual at this place, up to this probability. 1 is off." },
  { name: "repetition_penalty", label: "Repetition penalty", min: 0.5, max: 2, step: 0.05, initial: 1, neutral: 1, slider: true,
    help: "Above 1 makes tokens that already stand in the text less likely. 1 is off." },
  { name: "presence_penalty", label: "Presence penalty", min: -2, max: 2, step: 0.1, initial: 0, neutral: 0, slider: true, more: true,
    help: "Taken off every token that the answer already used, once. 0 is off." },
  { name: "frequency_penalty", label: "Frequency penalty", min: -2, max: 2, step: 0.1, initial: 0, neutral: 0, slider: true, more: true,
    help: "Taken off every token for each time the answer used it. 0 is off." },
  { name: "max_tokens", label: "Max tokens", min: 1, max: 100000, step: 1, initial: 128,
    help: "Where the answer is cut at the latest." },
  { name: "min_tokens", label: "Min tokens", min: 0, max: 100000, step: 1, initial: 0, neutral: 0, more: true,
    help: "The model may not end its answer before." },
  { name: "seed", label: "Seed", min: 0, max: Number.MAX_SAFE_INTEGER, step: 1, initial: "", placeholder: "random",
    help: "The same seed, settings and prompt give the same answer." },
  { name: "stop", label: "Stop at", initial: "", lines: true, placeholder: "one text a line",
    help: "The answer ends before any of these texts. \\n stands for a line break." },
];

export const PRESETS = [
  ["Exact", "Always the likeliest token: the same answer every time.", { temperature: 0 }],
  ["Balanced", "Some variety, nothing far-fetched.", { temperature: 0.7 }],
  ["Lively", "More surprise, the long tail cut off.", { temperature: 1.1, top_p: 0.95, min_p: 0.05 }],
  ["Raw", "The model's own probabilities, as they are.", { temperature: 1 }],
];

/** Tokens that are never to be written, for each model: {model: [{id, text}]}. */
export const never = persistentStore("never", {}, true);
const neverOf = (model) => never.get()[model] ?? [];
const allowToken = (model, id) => never.patch({ [model]: neverOf(model).filter((token) => token.id !== id) });
const forbidToken = (model, id, text) => {
  if (!neverOf(model).some((token) => token.id === id)) never.patch({ [model]: [...neverOf(model), { id, text }] });
};

const INITIAL = Object.fromEntries(FIELDS.map((f) => [f.name, f.initial]));
export const sampling = persistentStore("sampling", INITIAL);
const resetSampling = () => sampling.set(INITIAL);
const applyPreset = (members) => {
  const { max_tokens, min_tokens, seed, stop } = sampling.get(); // a preset says how to choose, not how much
  sampling.set({ ...INITIAL, max_tokens, min_tokens, seed, stop, ...members });
};

/** "Temperature: must be at most 2", or null when all is well. */
function samplingProblem(values = sampling.get()) {
  for (const f of FIELDS) {
    const text = String(values[f.name]).trim();
    if (f.lines || text === "") continue;
    const x = Number(text);
    if (!Number.isFinite(x)) return `${f.label}: not a number`;
    if (x < f.min || x > f.max) return `${f.label}: must be from ${f.min} to ${f.max}`;
    if (f.step === 1 && !Number.isInteger(x)) return `${f.label}: must be a whole number`;
  }
  return null;
}

/** Whether the settings can be sent; says what is wrong with them. */
export function samplingFits() {
  const wrong = samplingProblem();
  if (wrong) say(`Sampling: ${wrong}`);
  return !wrong;
}

/** The seed that is set, or `otherwise`. */
export const seedOr = (otherwise) => (String(sampling.get().seed).trim() === "" ? otherwise : Number(sampling.get().seed));
export const drawSeed = () => Math.floor(Math.random() * 1e9);
/** Of the request for another answer: one that is set would only give the same again. */
export const anotherSeed = () => (seedOr(null) === null ? {} : { seed: drawSeed() });

/** The fields of a request to `model`: what is empty or neutral is left out, so the server's own defaults hold. */
export function samplingRequest(values = sampling.get(), model = chosenModel.get()) {
  const out = {};
  for (const f of FIELDS) {
    const text = String(values[f.name]);
    if (f.lines) {
      const stops = text.split("\n").filter((line) => line !== "").map((line) => line.replaceAll("\\n", "\n"));
      if (stops.length) out[f.name] = stops;
    } else if (text.trim() !== "" && Number(text) !== f.neutral) {
      out[f.name] = Number(text);
    }
  }
  if (neverOf(model).length > 0) out.logit_bias = Object.fromEntries(neverOf(model).map(({ id }) => [id, -100]));
  return out;
}

function Control({ field, value }) {
  const id = `sampling-${field.name}`;
  const typed = useRef();
  const set = (event) => sampling.patch({ [field.name]: event.target.value });
  const described = { "aria-describedby": `${id}-help` };
  const text = String(value).trim();
  const wrong = !field.lines && text !== "" && samplingProblem({ ...INITIAL, [field.name]: value }) !== null;
  return html`<div class="field">
    <div class="field-head">
      <label for=${id}>${field.label}</label>
      ${!field.lines && html`<input id=${id} ref=${typed} type="number" min=${field.min} max=${field.max} step=${field.step} value=${value}
        placeholder=${field.placeholder ?? ""} aria-invalid=${wrong ? "true" : undefined} ...${described} onInput=${set} />`}
    </div>
    ${field.lines && html`<textarea id=${id} rows="2" spellcheck="false" placeholder=${field.placeholder} value=${value} ...${described}
      onInput=${set}></textarea>`}
    ${field.slider && html`<input type="range" min=${field.min} max=${field.max} step=${field.step} value=${value}
      aria-label=${`${field.label}, slider`} onInput=${set} />`}
    <p class="hint" id=${`${id}-help`}>${field.help}</p>
  </div>`;
}

/** In a token's card: forbids the token, or allows it again. */
export function NeverTool({ model, token }) {
  const forbidden = useStore(never, (all) => all[model]?.some((one) => one.id === token.id) ?? false);
  if (token.id === null || token.id === undefined) return null;
  return forbidden ? html`<button type="button" class="quiet"
    onClick=${() => allowToken(model, token.id)}>Not written from the next answer on. Allow it again</button>`
    : html`<button type="button" class="quiet" title="It is not drawn from the next answer on (logit_bias −100)"
        onClick=${() => forbidToken(model, token.id, token.name ?? token.text)}>Never this token</button>`;
}

/** What "Never this token" in a token's card has forbidden, taken back with a click. */
function Never() {
  const model = useStore(chosenModel), list = useStore(never, (all) => all[model]) ?? [];
  if (list.length === 0) return null;
  return html`<div class="field" role="group" aria-label="Tokens that are never written">
    <div class="field-head"><span>Never these tokens</span></div>
    <div class="presets">${list.map(({ id, text }) => html`<button type="button" class="chip" title=${`Allow token ${id} again`}
      aria-label=${`Allow ${visible(text)} again`}
      onClick=${() => allowToken(model, id)}><code>${visible(text)}</code> ×</button>`)}</div>
    <p class="hint">They are not drawn (logit_bias −100); cards still show the model's own probability. A click allows one again.</p>
  </div>`;
}

/** The panel beside Complete, Chat and Compare. */
export function Sampling({ open }) {
  const values = useStore(sampling);
  const row = (f) => html`<${Control} key=${f.name} field=${f} value=${values[f.name]} />`;
  return html`<details id="settings" class="card" open=${open}>
    <summary><span>Sampling</span></summary>
    <p class="hint">How the next token is drawn from the model's probabilities. A token's card shows those: they are the same with any settings.</p>
    <div class="presets" role="group" aria-label="Presets">
      ${PRESETS.map(([name, title, members]) => html`<button type="button" class="chip" title=${title}
        onClick=${() => applyPreset(members)}>${name}</button>`)}
    </div>
    ${FIELDS.filter((f) => !f.more).map(row)}
    <details class="more"><summary>More</summary>${FIELDS.filter((f) => f.more).map(row)}</details>
    <${Never} />
    <button id="reset" type="button" class="quiet" onClick=${resetSampling}>Back to the defaults</button>
  </details>`;
}
