// SPDX-License-Identifier: MIT
// A prompt and its settings in an address, and an answer as a file.

import { save } from "../../lib/api.js";
import { exported } from "../../lib/answer.js";
import { FIELDS, sampling } from "../../lib/sampling.js";
import { chosenModel, models } from "../../lib/server.js";
import { address, linkTo, setParams } from "../../lib/store.js";
import { prompt } from "./run.js";

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
  const { log, done, request, promptIds, prompt: text, model } = version;
  const file = {
    made_by: "couplet", at: new Date().toISOString(), model, model_info: models.get().list.find((m) => m.id === model)?.meta ?? null,
    prompt: text, prompt_token_ids: promptIds, request, text: log.text, figures: done, tokens: exported(log.items),
  };
  save(new Blob([JSON.stringify(file, null, 1)], { type: "application/json" }), "answer.json");
}
