// SPDX-License-Identifier: MIT
// A new fine-tune: the file and its report, the base, the settings, and beside them what the run would take. The file is in the address, the rest in
// localStorage; so a reload changes nothing.

import { call } from "../../lib/api.js";
import { bytes } from "../../lib/format.js";
import { html, useEffect } from "../../lib/html.js";
import { chosenModel, fail, models } from "../../lib/server.js";
import { setParams, useStore } from "../../lib/store.js";
import { Card } from "../../lib/ui.js";
import { Base, fullRefused } from "./base.js";
import { DropZone, PickFile, useForNew } from "./drop.js";
import { Estimate, useEstimate } from "./estimate.js";
import { addFile, FileList, files, loadFiles, uploading, uploadNote, UploadProgress } from "./files.js";

import { Report, useReport } from "./report.js";
import { FIELDS, fieldOf, form, jobRequest, modelContext, Settings, valuesOf } from "./settings.js";
import { ViewAs } from "./view_as.js";

/** What the fields' functions are told; see settings.js. */
function settingOf(saved, list, chosen, file, allFiles, report) {
  const wanted = saved.model || chosen, isNew = wanted === "new" || list.length === 0;
  const base = list.find((m) => m.id === wanted) ?? list.find((m) => m.id === chosen) ?? list[0] ?? null;
  const rows = /\.jsonl?$/i.test(file?.filename ?? "");
  return {
    isNew, base, models: list, values: valuesOf(saved), full: isNew || (saved.type === "full" && !fullRefused(base)), filename: file?.filename ?? "",
    text: Boolean(file) && !rows, rows, report, examples: report?.usable ? report.examples : null, files: allFiles.filter((f) => f.id !== file?.id),
  };
}

/** A finished run's settings into the form; its file into the address. */
async function takeOver(id) {
  try {
    const job = await call(`/v1/fine_tuning/jobs/${encodeURIComponent(id)}`);
    const values = {};
    const at = (path) => path.split(".").reduce((value, name) => value?.[name], { ...job, suffix: job.user_provided_suffix });
    for (const f of FIELDS) {
      const value = at(f.path);
      if (value === null || value === undefined || value === "all-linear" || value === false || f.name === "seed") continue;
      values[f.name] = Array.isArray(value) ? value.map((line) => line.replaceAll("\n", "\\n")).join("\n") : String(value);
    }
    if (job.model === "new" && job.couplet.architecture && !values.preset) values.preset = "own";
    form.set({ model: job.model, type: job.couplet.training_type.type, values });
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
    <${Report} state=${report} tokenizer=${tokenizer} />
    <details class="train-earlier"><summary>All uploaded files</summary>
      <${FileList} onUse=${useForNew} chosen=${id} onGone=${(gone) => { if (gone === id) setParams({ file: null }); }} /></details>
  <//>`;
}

function Form({ id }) {
  const saved = useStore(form), { list, state } = useStore(models), chosen = useStore(chosenModel), all = useStore(files);
  const file = all.list.find((f) => f.id === id) ?? null;
  const before = settingOf(saved, list, chosen, file, all.list, null);
  const { values } = before;
  const reportOf = before.isNew ? (values.tokenizer === "train" ? "" : values.tokenizer) : before.base?.id ?? "";
  const ownContext = modelContext(before);
  const context = Number(values.context_length) || (before.text ? Math.min(ownContext || 1024, 1024) : before.isNew ? ownContext : 0);
  const report = useReport(state === "ready" ? id : null, { model: reportOf, context_length: context ? String(context) : "",
    excess_length: before.rows ? values.excess_length : "", validation_file: values.validation_file });
  const c = settingOf(saved, list, chosen, file, all.list, report.report);
  const ready = Boolean(file && report.report?.usable && !report.stale && (c.isNew || c.base));
  const body = file && (c.isNew || c.base) ? jobRequest(c, id) : null;
  const estimate = useEstimate(ready ? body : null, c);
  const elsewhere = estimate.error && fieldOf(estimate.error.param) ? null : estimate.error;
  return html`<div class="with-side train-new">
    <div class="stack">
      <${DataCard} file=${file} id=${id} report=${report} c=${c} />
      <${Card} title="Base"><${Base} c=${c} error=${estimate.error} /><//>
      <${Card} title="Settings"><${Settings} c=${c} error=${estimate.error} /><//>
    </div>
    <aside class="stack train-side" aria-label="What it takes">
      <${Estimate} estimate=${estimate} error=${elsewhere} body=${body} ready=${ready} c=${c} report=${report} />
      ${body && html`<${ViewAs} body=${body} />`}
    </aside>
  </div>`;
}

export function NewJob({ file, like }) {
  useEffect(() => { loadFiles(); }, []);
  useEffect(() => { if (like) takeOver(like); }, [like]);
  if (like) return html`<p class="hint" role="status">Reading the run…</p>`;
  return file ? html`<${Form} id=${file} />` : html`<${DropZone} />`;
}
