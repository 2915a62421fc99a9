// SPDX-License-Identifier: MIT
// A job's settings as the server resolved them, under the names that the form uses.

import { count, number, percent } from "../../lib/format.js";
import { html } from "../../lib/html.js";
import { baseName, FileName, methodName } from "./control.js";

const yes = (on) => (on ? "yes" : "no");
const SCHEDULES = { constant: "constant", linear: "falls linearly", cosine: "falls as a cosine" };

/** [[label, text or null: does not apply]] */
export function settingsOf(job) {
  const c = job.couplet, h = job.hyperparameters, lora = c.training_type.type === "lora" ? c.training_type : null;
  const modules = lora?.lora_trainable_modules;
  return [
    ["Base model", baseName(job)],
    ["What is trained", methodName(job)],
    ["LoRA rank", lora && String(lora.lora_r)],
    ["LoRA alpha", lora && number(lora.lora_alpha)],
    ["LoRA dropout", lora?.lora_dropout ? number(lora.lora_dropout) : null],
    ["LoRA layers", modules && (Array.isArray(modules) ? modules.join(", ") : modules)],
    ["Epochs", c.max_steps ? null : String(h.n_epochs)],
    ["Steps, at most", c.max_steps ? count(c.max_steps) : null],
    ["Batch size", String(h.batch_size)],
    ["Learning rate", `${number(c.learning_rate)}, ${SCHEDULES[c.lr_scheduler] ?? c.lr_scheduler}`],
    ["Warm-up", c.warmup_ratio ? percent(c.warmup_ratio) : "none"],
    ["Weight decay", number(c.weight_decay)],
    ["Gradient clipping", c.max_grad_norm ? number(c.max_grad_norm) : "none"],
    ["Context", c.context_length ? `${count(c.context_length)} tokens` : null],
    ["Stride", c.stride ? count(c.stride) : null],
    ["Dropout", number(c.dropout)],
    ["Packing", yes(c.packing)],
    ["Learns prompts too", yes(c.train_on_inputs)],
    ["Rows that are too long", c.excess_length === "error" ? "are an error" : c.excess_length === "drop" ? "are left out" : "are cut"],
    ["Held out", c.validation_split ? percent(c.validation_split) : job.validation_file ? "a file of its own" : "nothing"],
    ["Evaluations", String(c.n_evals)],
    ["Checkpoints", String(c.n_checkpoints)],
    ["Early stopping", c.early_stopping ? `after ${c.early_stopping} evaluations without progress` : "no"],
    ["Tokenizer", c.tokenizer === "train" ? "made from the text" : c.tokenizer ?? null],
    ["Vocabulary", c.vocab_size ? `${count(c.vocab_size)} tokens` : null],
    ["Goes on from", c.from_checkpoint],
    ["Seed", String(job.seed)],
  ];
}

export function Settings({ job }) {
  return html`<details class="card job-settings" id="settings-as-run"><summary><span>Settings</span></summary>
    <dl>${settingsOf(job).filter(([, text]) => text).map(([label, text]) => html`<div><dt>${label}</dt><dd>${text}</dd></div>`)}
      <div><dt>Training file</dt><dd><${FileName} id=${job.training_file} /></dd></div>
      ${job.validation_file && html`<div><dt>Validation file</dt><dd><${FileName} id=${job.validation_file} /></dd></div>`}
      <div><dt>Job</dt><dd><code>${job.id}</code></dd></div>
    </dl>
  </details>`;
}
