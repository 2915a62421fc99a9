// SPDX-License-Identifier: MIT
// The answers of Complete: one is written at a time; the last ones are kept, so that steering never loses what was there. Outlives the view.

import { alternativeOf, answer, exported, idsOf, isSpecial, respell, score, summary } from "../../lib/answer.js";
import { saveJson } from "../../lib/api.js";
import { anotherSeed, FIELDS, sampling, samplingFits, samplingRequest } from "../../lib/sampling.js";
import { chosenModel, fail, modelInfo, say } from "../../lib/server.js";
import { address, createStore, linkTo, persistentStore, setParams } from "../../lib/store.js";
import { TokenLog } from "../../lib/token_text.js";

// ---------------------------------------------------------------- export and links
// A prompt and its settings in an address, and an answer as a file.

const LONGEST = 16_000; // characters of an address that browsers and chats carry

/** The address of this prompt with these settings, or null where it would be too long. */
export function shareLink() {
  const values = sampling.get();
  const changed = Object.fromEntries(FIELDS.filter((f) => String(values[f.name]) !== String(f.neutral ?? "")).map((f) => [f.name, values[f.name]]));
  const link = location.origin + location.pathname + linkTo("complete", { model: chosenModel.get(), prompt: prompt.get(), ...changed });
  return link.length > LONGEST ? null : link;
}

/** Takes over what a shared address carries; the address is then free of it, so that a reload keeps what was typed since. */
export function takeShared() {
  const { params } = address.get();
  if (params.prompt === undefined) return;
  const neutral = Object.fromEntries(FIELDS.map((f) => [f.name, f.neutral ?? f.initial]));
  const given = Object.fromEntries(FIELDS.filter((f) => params[f.name] !== undefined).map((f) => [f.name, params[f.name]]));
  prompt.set(params.prompt);
  sampling.set({ ...neutral, ...given });
  setParams(Object.fromEntries(["prompt", ...FIELDS.map((f) => f.name)].map((name) => [name, null])));
}

/** The answer with everything known about it. */
export function saveAnswer(version) {
  const { log, done, request, prompt: text, model } = version;
  saveJson({
    model, model_info: modelInfo(model)?.meta ?? null, prompt: text, prompt_token_ids: log.promptIds, request, text: log.text, figures: done,
    tokens: exported(log.items),
  }, "answer.json");
}

// ---------------------------------------------------------------- writing

export const PATH = "/v1/completions";
const KEPT = 20;

export const prompt = persistentStore("prompt", "");
/** versions: [{log, prompt, model, request, stats, done, from}], from: the version that this one branched off.
 *  at: which one is shown, -1: none. */
export const answers = createStore({ versions: [], at: -1, busy: false });
/** The prompt's own tokens: {log, stats, text, model, busy} or null. */
export const scored = createStore(null);
let control = null, scoring = null;

export const shown = (state = answers.get()) => state.versions[state.at] ?? null;
export const show = (version) => answers.patch({ at: answers.get().versions.indexOf(version) });
export const stop = () => control?.abort();

/** What Complete sends for the prompt as it stands. */
export const requestNow = () => ({ model: chosenModel.get(), prompt: prompt.get(), ...samplingRequest() });
/** What goes on from the tokens of an answer: to the model that wrote it, since another one may know other ids. */
const requestFrom = ({ model, log }, tokens) =>
  ({ model, prompt: [...log.promptIds, ...idsOf(tokens)], ...samplingRequest(sampling.get(), model) });

const ready = () => samplingFits() && !control && Boolean(chosenModel.get());

function change(version, members) {
  Object.assign(version, members);
  answers.set((state) => ({ ...state, versions: [...state.versions] }));
}

function addVersion(members) {
  const version = { log: new TokenLog(), stats: "", done: null, from: null, ...members };
  const versions = [...answers.get().versions, version].slice(-KEPT);
  answers.patch({ versions, at: versions.length - 1 });
  return version;
}

async function write(version, body, again) {
  control = new AbortController();
  say(null);
  answers.patch({ busy: true });
  change(version, { stats: "" });
  try {
    const done = await answer(PATH, body, version.log, control.signal);
    change(version, { done, stats: summary(done) });
  } catch (error) {
    change(version, { stats: error.said ?? "" });
    if (version.log.items.length === 0) {
      const versions = answers.get().versions.filter((other) => other !== version); // nothing came: as it was before
      answers.patch({ versions, at: version.from ? versions.indexOf(version.from) : versions.length - 1 });
    }
    fail(error, again);
  } finally {
    control = null;
    answers.patch({ busy: false });
  }
}

/** Writes an answer to the prompt as it stands, or to that of `version` again. */
export async function complete(version = null) {
  if (!ready()) return;
  const request = requestNow();
  if (version) Object.assign(request, { prompt: version.prompt }, anotherSeed());
  await write(addVersion({ prompt: request.prompt, model: request.model, request }), request, () => complete(version));
}

/** The same answer up to `index`, there the alternative, and what the model writes then. */
export function takeAlternative(version, index, entry) {
  if (!ready()) return;
  const kept = respell([...version.log.items.slice(0, index), alternativeOf(version.log.items[index], entry)]);
  const request = requestFrom(version, kept);
  const next = addVersion({ prompt: version.prompt, model: request.model, request, from: version });
  next.log.promptIds = version.log.promptIds;
  next.log.push(...kept);
  if (isSpecial(entry)) change(next, { stats: `the answer ends here, with ${entry.text}` });
  else write(next, request, null);
}

/** Writes on where the answer ended. */
export function goOn(version) {
  if (!ready()) return;
  write(version, requestFrom(version, version.log.items), () => goOn(version));
}

/** The answer becomes part of the prompt. */
export function appendToPrompt(version) {
  prompt.set(version.prompt + version.log.text);
  answers.patch({ at: -1 });
}

/** Asks how likely each token of the prompt is. */
export async function scorePrompt() {
  const text = prompt.get(), model = chosenModel.get(), log = new TokenLog();
  if (!model || text === "") return;
  say(null);
  scoring?.abort();
  const mine = scoring = new AbortController();
  scored.set({ log, text, model, stats: "", busy: true });
  try {
    log.push(...await score(model, text, mine.signal));
    const bits = log.items.filter((t) => t.logprob !== null).map((t) => -t.logprob / Math.LN2);
    const mean = bits.reduce((sum, b) => sum + b, 0) / bits.length;
    const stats = bits.length === 0 ? "a single token has nothing before it"
      : `${log.items.length} tokens · mean surprise ${mean.toFixed(2)} bits · perplexity ${(2 ** mean).toPrecision(3)}`;
    scored.set({ log, text, model, stats, busy: false });
  } catch (error) {
    if (scoring === mine) scored.set(null);
    fail(error, scorePrompt);
  }
}

export function closeScored() {
  scoring?.abort(); // a long prompt takes a while to read
  scored.set(null);
}
