// SPDX-License-Identifier: MIT
// Which model is trained, and whether all of it: the base with what there is to know of it, and LoRA against full.

import { bytes, count } from "../../lib/format.js";
import { html } from "../../lib/html.js";
import { Facts, Segmented, Select } from "../../lib/ui.js";
import { form } from "./settings.js";

/** Only an adapter can be trained beside quantised weights, or on top of another adapter. null: nothing stands against full. */
export function fullRefused(base) {
  if (!base) return null;
  if (base.couplet?.adapter) return "This base is an adapter on another model: it is trained on as an adapter.";
  if (/^q/.test(base.meta?.weights ?? "")) return `This base is kept quantised (${base.meta.weights}): its weights cannot be moved, so an adapter is trained beside them.`;
  return null;
}

const millions = (n) => (n >= 1e9 ? `${(n / 1e9).toFixed(1)} billion` : n >= 1e6 ? `${(n / 1e6).toFixed(n < 1e7 ? 1 : 0)} million` : count(n));

const facts = (m) => [
  m.meta?.n_params && ["Parameters", millions(m.meta.n_params)],
  m.meta?.n_layer && ["Layers", count(m.meta.n_layer)],
  m.max_model_len && ["Context", `${count(m.max_model_len)} tokens`],
  m.meta?.weights && ["Weights", `${m.meta.weights}, ${bytes(m.couplet?.bytes ?? m.meta.size ?? 0)}`],
  ["Chat", m.meta?.chat_template ? m.meta.chat_template : "no template", "Rows of messages need a chat template"],
];

/** `error`: of the server, about the model or the type. */
export function Base({ c, error }) {
  const options = c.models.filter((m) => m.couplet?.origin !== "live")
    .map((m) => [m.id, m.couplet?.origin === "checkpoint" ? `${m.id} (a checkpoint)` : m.couplet?.origin === "result" ? `${m.id} (fine-tuned here)` : m.id]);
  const refused = c.isNew ? null : fullRefused(c.base);
  return html`<div class="stack train-base">
    <div><${Select} label="Base" value=${c.isNew ? "new" : c.base?.id ?? ""} options=${[...options, ["new", "nothing: a new model with random weights"]]}
      onChange=${(model) => form.patch({ model })} /></div>
    ${!c.isNew && c.base && html`<${Facts} items=${facts(c.base)} />`}
    ${error?.param === "model" && html`<p class="bad" role="alert">${error.message}</p>`}
    ${c.isNew ? html`<p class="hint">A new model is trained as a whole: an adapter to random weights fits nothing. Expect it to need many more epochs than a fine-tune.</p>` : html`
      <div class="row"><${Segmented} label="What is trained" value=${c.full ? "full" : "lora"} onChange=${(type) => form.patch({ type })}
        options=${[["lora", "LoRA adapter"], ...(refused ? [] : [["full", "Every weight"]])]} /></div>
      <p class="hint">${refused ?? (c.full
        ? "Every weight moves: it can learn most, needs memory for the weights four times over, and each checkpoint is as large as the model."
        : "A small adapter learns beside the weights, which stay as they are: quick, a few megabytes, and served together with its base.")}</p>
      ${error?.param === "couplet.training_type.type" && html`<p class="bad" role="alert">${error.message}</p>`}`}
  </div>`;
}
