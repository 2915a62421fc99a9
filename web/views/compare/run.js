// SPDX-License-Identifier: MIT
// The answers that are compared: the same prompt, settings and seed for every model, all at the same time. Outlives the view.

import { answer, idsOf, score, summary } from "../../lib/answer.js";
import { explain } from "../../lib/api.js";
import { modelLabel } from "../../lib/format.js";
import { drawSeed, sampling, samplingFits, samplingRequest, seedOr } from "../../lib/sampling.js";
import { fail, listModels, modelInfo, say } from "../../lib/server.js";
import { createStore, persistentStore } from "../../lib/store.js";
import { TokenLog } from "../../lib/token_text.js";
import { prompt } from "../complete/run.js";

// ---------------------------------------------------------------- what differs
// Where two answers differ: the tokens that are no part of their longest common subsequence.

const MOST_CELLS = 4_000_000; // beyond: everything between the common ends counts as different

/** Lengths of common subsequences of every pair of tails of a and b, row by row. */
function tails(a, b) {
  const width = b.length + 1, table = new Uint16Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      const at = i * width + j;
      table[at] = a[i] === b[j] ? table[at + width + 1] + 1 : Math.max(table[at + width], table[at + 1]);
    }
  }
  return table;
}

/** {first: how many tokens at the beginning are equal, a: Set of places in a that differ, b: Set of those in b} of two lists of token names. */
export function differences(a, b) {
  const shorter = Math.min(a.length, b.length);
  let first = 0, end = 0;
  while (first < shorter && a[first] === b[first]) first++;
  while (end < shorter - first && a[a.length - 1 - end] === b[b.length - 1 - end]) end++;
  const left = a.slice(first, a.length - end), right = b.slice(first, b.length - end);
  const out = { first, a: new Set(), b: new Set() };
  const table = left.length * right.length <= MOST_CELLS ? tails(left, right) : null;
  const width = right.length + 1;
  let i = 0, j = 0;
  while (i < left.length || j < right.length) {
    if (table && i < left.length && j < right.length && left[i] === right[j]) {
      i++;
      j++;
    } else if (j >= right.length || (i < left.length && (!table || table[(i + 1) * width + j] >= table[i * width + j + 1]))) {
      out.a.add(first + i++);
    } else {
      out.b.add(first + j++);
    }
  }
  return out;
}

export const names = (log) => log.items.map((token) => token.name ?? token.text);

// ---------------------------------------------------------------- running

/** Whether the prompt is a question to a chat model, or a text to go on with. */
export const asChat = persistentStore("compare.chat", false);
/** busy; columns: {model: {log, stats, problem, differs (Set), note, under: {model: [logprob] | null}}} of the last comparison;
 *  round counts its changes. */
export const compared = createStore({ busy: false, columns: {}, models: [], round: 0 });
let control = null;

export const stop = () => control?.abort();
const changed = () => compared.set((now) => ({ ...now, round: now.round + 1 }));

/** The path and the request of one model's answer. */
function requestOf(model, seed) {
  const text = prompt.get(), chat = asChat.get();
  const question = chat ? { messages: [{ role: "user", content: text }] } : { prompt: text };
  const body = { model, ...question, ...samplingRequest(sampling.get(), model), seed };
  return [chat ? "/v1/chat/completions" : "/v1/completions", body];
}

export function newColumn() {
  return { log: new TokenLog(), stats: "", problem: null, differs: new Set(), note: "", under: {} };
}

/** Fills a column with the answer of its model. */
export async function fill(column, model, seed, signal) {
  const [path, body] = requestOf(model, seed);
  try {
    column.stats = summary(await answer(path, body, column.log, signal));
  } catch (error) {
    column.problem = explain(error);
    if (error.status === 401) fail(error);
    if (error.code !== "model_not_found") return;
    say(`${modelLabel(model)} is no longer served. What is served now can be chosen in its place.`); // newest weights go with their run, and with them their column
    listModels();
  }
}

/** Marks what differs from the first model's answer; in that one, what differs from any other's. */
function mark({ models, columns }) {
  const [first, ...others] = models.map((model) => columns[model]);
  const names0 = names(first.log);
  for (const column of others.filter(() => !first.problem)) {
    if (column.problem) continue;
    const found = differences(names0, names(column.log));
    column.differs = found.b;
    for (const place of found.a) first.differs.add(place);
    const same = found.a.size === 0 && found.b.size === 0;
    column.note = same ? "the same answer as the first"
      : found.first === 0 ? "differs from the first token on" : `the same up to token ${found.first}`;
  }
}

export async function compare(models) {
  if (!samplingFits() || control || models.length < 2) return;
  say(null);
  control = new AbortController();
  const columns = Object.fromEntries(models.map((model) => [model, newColumn()])), seed = seedOr(drawSeed());
  compared.set((now) => ({ busy: true, columns, models, round: now.round + 1 }));
  await Promise.all(models.map((model) => fill(columns[model], model, seed, control.signal).then(changed)));
  control = null;
  mark({ models, columns });
  compared.set((now) => ({ ...now, busy: false, round: now.round + 1 }));
}

/** Whether `other` can know the ids of `model`'s answer; of models that are not loaded it shows when they are asked. */
function mayRead(other, model, n) {
  const [there, here] = [modelInfo(other), modelInfo(model)];
  return !there?.meta || !here?.meta || (there.meta.n_vocab === here.meta.n_vocab && n <= there.max_model_len);
}

/** Asks how likely the other models find each token of this model's answer: where their vocabularies are the same, and once. */
export async function scoreUnderOthers(model) {
  const { columns, models, busy } = compared.get(), column = columns[model];
  if (busy || !column?.log.promptIds || column.log.items.length === 0) return;
  const { promptIds, items } = column.log, ids = [...promptIds, ...idsOf(items)];
  for (const other of models) {
    if (other === model || other in column.under) continue;
    column.under[other] = null; // asked
    if (!mayRead(other, model, ids.length)) continue;
    try {
      const scored = (await score(other, ids)).slice(promptIds.length);
      const same = scored.every((token, i) => token.raw === items[i].raw);
      column.under[other] = same ? scored.map((token) => token.logprob) : null;
    } catch { /* another vocabulary has no such ids: there is nothing to compare */ }
    changed();
  }
}
