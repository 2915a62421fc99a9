// SPDX-License-Identifier: MIT
// What queue and job page share of a job: its name, status, progress, and the buttons that pause, resume and cancel it.

import { call, request } from "../../lib/api.js";
import { ago, count, duration, plural } from "../../lib/format.js";
import { html, useEffect, useState } from "../../lib/html.js";
import { fail } from "../../lib/server.js";
import { createStore, useStore } from "../../lib/store.js";
import { Dialog } from "../../lib/ui.js";
import { FINAL, jobLog } from "./log.js";

const WORDS = { validating_files: "checking files", queued: "waiting", running: "training", succeeded: "finished" }; // the others are words as they are
const WISHES = { pause: "pausing…", cancel: "cancelling…" };
const TONE = { running: "good", succeeded: "good", failed: "bad" };

export const statusText = (job) => WISHES[!FINAL.has(job.status) && job.couplet.requested] ?? WORDS[job.status] ?? job.status;
export const StatusTag = ({ job }) => html`<span class=${`tag ${TONE[job.status] ?? ""}`} data-status=${job.status}>${statusText(job)}</span>`;

/** "village": the suffix where there is one, otherwise what the id has of it. */
export const shortName = (job) => job.user_provided_suffix || `run ${job.id.replace("ftjob-", "").slice(0, 6)}`;
export const baseName = (job) => (job.model === "new" ? `new ${job.couplet.architecture?.preset ?? "model"}` : job.model);
export const methodName = (job) => (job.model === "new" ? "from random weights" : job.couplet.training_type.type === "lora" ? "LoRA" : "all weights");

// ---------------------------------------------------------------- names of files

const files = createStore({}); // id -> filename, null: it is gone
const asked = new Set();
async function askFile(id) {
  asked.add(id);
  try {
    const { filename } = await call(`/v1/files/${encodeURIComponent(id)}`);
    files.patch({ [id]: filename });
  } catch (error) {
    if (error.status === 404) files.patch({ [id]: null });
    else asked.delete(id);
  }
}
export function FileName({ id }) {
  const name = useStore(files, (all) => all[id]);
  useEffect(() => { if (id && !asked.has(id)) askFile(id); }, [id]);
  return html`<span class=${name ? "" : "hint"} title=${id}>${name === undefined ? "…" : name ?? "deleted file"}</span>`;
}

// ---------------------------------------------------------------- progress

const secondsLeft = ({ couplet: c }) => (c.seconds_per_step && c.total_steps ? (c.total_steps - c.step) * c.seconds_per_step : null);

/** "Step 40 of 150 · 12 s left", "2nd in the queue", "took 20 s". */
export function progressText(job) {
  const c = job.couplet, steps = c.total_steps ? `step ${count(c.step)} of ${count(c.total_steps)}` : "preparing";
  const left = secondsLeft(job);
  switch (job.status) {
    case "running": return [steps, left === null ? "" : left < 1 ? "nearly done" : `${duration(left)} left`].filter(Boolean).join(" · ");
    case "queued": {
      const place = c.queue_place ? (c.queue_place === 1 ? "next in the queue" : `place ${c.queue_place} in the queue`) : "in the queue";
      return c.expected_start ? `${place} · begins in about ${duration(Math.max(1, c.expected_start - Date.now() / 1000))}` : place;
    }
    case "paused": return c.step ? `resting at ${steps}` : "resting";
    case "validating_files": return "checking the files";
    default: break;
  }
  const took = c.started_at && job.finished_at ? `took ${duration(Math.max(1, job.finished_at - c.started_at))}` : "";
  return [c.step ? plural(c.step, "step") : "", took, ago(job.finished_at ?? job.created_at)].filter(Boolean).join(" · ");
}

export function JobProgress({ job }) {
  const c = job.couplet;
  const bar = job.status === "running" || job.status === "paused";
  return html`<div class="job-progress">
    ${bar && html`<progress max="1" value=${c.total_steps ? c.step / c.total_steps : undefined} aria-label=${`Progress of ${shortName(job)}`}></progress>`}
    <span class="stats">${progressText(job)}</span>
  </div>`;
}

// ---------------------------------------------------------------- what can be done to it

function CancelDialog({ job, onClose, act }) {
  const kept = jobLog(job.id).checkpoints.length;
  return html`<${Dialog} title="Cancel this run?" onClose=${onClose}>
    <p>${shortName(job)} stands at step ${count(job.couplet.step)}${job.couplet.total_steps ? ` of ${count(job.couplet.total_steps)}` : ""}. A cancelled run cannot go on,
      and makes no finished model. ${kept ? "The checkpoints that it has made stay." : "What it has learned so far is lost."}</p>
    <p class="hint">Pausing it instead keeps everything; it goes on when you resume it.</p>
    <div class="actions">
      <button type="button" class="primary" onClick=${() => { onClose(); act("cancel"); }}>Cancel the run</button>
      <button type="button" onClick=${onClose}>Keep it</button>
    </div>
  <//>`;
}

/** Pause, resume, cancel. onChange(job): what the server answered. */
export function Actions({ job, onChange }) {
  const [busy, setBusy] = useState(false);
  const [asking, setAsking] = useState(false);
  if (FINAL.has(job.status)) return null;
  const act = async (verb) => {
    setBusy(true);
    try {
      const now = await request("POST", `/v1/fine_tuning/jobs/${job.id}/${verb}`);
      jobLog(job.id).setJob(now);
      onChange?.(now);
    } catch (error) {
      fail(error, () => act(verb));
    } finally {
      setBusy(false);
    }
  };
  const wish = job.couplet.requested, off = busy || wish === "cancel", name = shortName(job);
  const cancel = () => (job.couplet.step > 0 || job.status === "running" ? setAsking(true) : act("cancel"));
  return html`<span class="job-actions">
    ${job.status === "paused"
      ? html`<button type="button" disabled=${off} aria-label=${`Resume ${name}`} onClick=${() => act("resume")}>Resume</button>`
      : html`<button type="button" disabled=${off || wish === "pause"} aria-label=${`Pause ${name}`} title="Lets it rest; nothing is lost"
          onClick=${() => act("pause")}>Pause</button>`}
    <button type="button" class="quiet" disabled=${off} aria-label=${`Cancel ${name}`} onClick=${cancel}>Cancel</button>
    ${asking && html`<${CancelDialog} job=${job} onClose=${() => setAsking(false)} act=${act} />`}
  </span>`;
}
