// SPDX-License-Identifier: MIT
// What every view knows of the server: its models, which one is chosen, and what went wrong last.

import { call, explain, setKey } from "./api.js";
import { address, createStore, persistentStore, setParams } from "./store.js";

/** state: "loading" | "ready" | "failed"; list: /v1/models' data. */
export const models = createStore({ state: "loading", list: [] });
const remembered = persistentStore("model", "");
/** The id of the chosen model, "" without any. `model=` in the address wins over the last visit's. */
export const chosenModel = createStore("");
/** What is wrong: {text, again, wantKey} or null. */
export const notice = createStore(null);

export function chooseModel(id) {
  chosenModel.set(id);
  remembered.set(id);
  if (address.get().params.model) setParams({ model: id });
}

export const modelInfo = (id) => models.get().list.find((model) => model.id === id) ?? null;

/** Whether a fine-tuning job has ended for good. */
export const isOver = ({ status }) => ["succeeded", "failed", "cancelled"].includes(status);

/** Says what went wrong and what to do; `again` is tried anew on demand. An aborted request is nothing. */
export function fail(error, again = null) {
  if (error?.name === "AbortError") return;
  const passing = !(error.status >= 300 && error.status < 500 && error.status !== 429); // below 300: an answer that broke off
  notice.set({ text: explain(error), again: passing || error.status === 401 ? again : null, wantKey: error.status === 401 });
  if (error.code === "model_not_found") listModels(); // to choose from what is there now
}
export const say = (text) => notice.set(text ? { text, again: null, wantKey: false } : null);

/** Reads the list of models; keeps the chosen one while it is there. */
export async function listModels() {
  let list;
  try {
    list = (await call("/v1/models")).data;
  } catch (error) {
    models.set((m) => ({ ...m, state: m.list.length ? m.state : "failed" }));
    fail(error, listModels);
    if (error.status === 503) setTimeout(listModels, 2000); // the models are still being read
    return;
  }
  if (notice.get()?.again === listModels) notice.set(null);
  const wanted = [address.get().params.model, chosenModel.get(), remembered.get()];
  const id = wanted.find((one) => one && list.some((model) => model.id === one)) ?? list[0]?.id ?? "";
  models.set({ state: "ready", list });
  chosenModel.set(id);
}

/** Goes on with another key, by what was refused without it. */
export function useKey(key, refused) {
  const again = refused ?? listModels;
  setKey(key);
  if (models.get().state !== "ready" && again !== listModels) listModels();
  again();
}

// A link to a view may name the model that it means, also one that was made since the list was read.
address.subscribe(({ params: { model } }) => {
  if (!model || model === chosenModel.get() || models.get().state !== "ready") return;
  if (modelInfo(model)) chosenModel.set(model);
  else listModels();
});
