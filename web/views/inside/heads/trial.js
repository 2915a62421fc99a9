// SPDX-License-Identifier: MIT
// Trying heads one after the other: what each one silenced alone does to the probability of a token. Runs on while other parts are looked at;
// results stay for the visit.

import { inspect, namesOf } from "../../../lib/inspect.js";
import { fail } from "../../../lib/server.js";
import { createStore, useStore } from "../../../lib/store.js";

export const BEST = 20; // candidates of an answer: the most that the server names

const trial = createStore({ running: false, done: 0, of: 0, version: 0 });
const found = new Map(); // "model ids token" -> Map of "layer.head" -> {p, exact}; exact false: the token fell out of the best, p is a bound
let control = null;

/** The next token's distribution with heads silenced. */
export function question(model, { n_layer: layers, n_vocab: most }, ids, ablate) {
  return { model, prompt: ids, what: ["lens"], layer: layers - 1, lens_tokens: 1, top_k: Math.min(BEST, most), ablate };
}

/** [{id, text, p}] of such an answer, likeliest first. */
export function nextOf({ lens }) {
  const names = namesOf(lens);
  return lens.ids.map((id, i) => ({ id, text: names[i], p: lens.probabilities[i] }));
}

export function results(model, ids, token) {
  const key = `${model} ${ids.join(",")} ${token}`;
  if (!found.has(key)) found.set(key, new Map());
  return found.get(key);
}

export function useTrial() {
  return { ...useStore(trial), stop: () => control?.abort() };
}

/** Silences each of `places` alone and remembers what happens to `token`. One trial at a time. */
export async function tryHeads(model, architecture, ids, token, places) {
  if (trial.get().running) return;
  const into = results(model, ids, token);
  control = new AbortController();
  trial.set({ running: true, done: 0, of: places.length, version: 0 });
  try {
    for (const [layer, head] of places) {
      const next = nextOf(await inspect(question(model, architecture, ids, [[layer, head]]), control.signal));
      const one = next.find(({ id }) => id === token);
      into.set(`${layer}.${head}`, { p: one?.p ?? next.at(-1).p, exact: Boolean(one) });
      trial.patch({ done: trial.get().done + 1, version: trial.get().version + 1 });
    }
  } catch (error) {
    fail(error, () => tryHeads(model, architecture, ids, token, places));
  } finally {
    trial.patch({ running: false });
  }
}
