// SPDX-License-Identifier: MIT
// One job: how far it is, what it learns, what it says meanwhile, what came of it. log.js keeps it up to date.

import { explain } from "../../lib/api.js";
import { count, duration, number } from "../../lib/format.js";
import { html } from "../../lib/html.js";
import { go, linkTo } from "../../lib/store.js";
import { Card, Empty, Facts } from "../../lib/ui.js";
import { Curves } from "./chart.js";
import { Checkpoints } from "./checkpoints.js";
import { Actions, baseName, FileName, JobProgress, methodName, shortName, StatusTag } from "./control.js";
import { Events } from "./events.js";
import { Finished, useResultFiles } from "./finished.js";
import { useJobLog } from "./log.js";
import { NothingBanner } from "./nothing.js";
import { Results } from "./results.js";
import { Samples } from "./samples.js";
import { Settings } from "./as_run.js";

const HELP = {
  invalid_training_file: "Mend the file and upload it again, or let rows that are too long be cut or left out.",
  invalid_validation_file: "Mend the validation file and upload it again.",
  out_of_memory: "Try a smaller batch, a shorter context, or LoRA instead of all weights.",
  no_space: "Make room on the server's disk, then train again.",
  io_error: "The server could not read or write its disk. Its log says more.",
  trainer_killed: "Somebody ended the training process on the server. Train again when that is settled.",
};

const WAITING = {
  queued: "Its turn comes when the run before it has ended. You can close the page meanwhile.",
  paused: "It rests, and goes on from here when you resume it.",
  cancelled: "It was cancelled before it had learned anything.",
};

function factsOf(log) {
  const job = log.job, c = job.couplet, last = log.steps.at(-1);
  const best = log.evals.reduce((low, e) => (low === null || e.valid_loss < low.valid_loss ? e : low), null);
  const began = c.started_at && !job.finished_at;
  const guess = Number(job.metadata?.["couplet.estimate_s"]);
  return [
    last?.train_loss !== undefined && ["Training loss", number(last.train_loss, 4)],
    best && ["Validation loss", number(log.evals.at(-1).valid_loss, 4)],
    best && log.evals.length > 1 && ["Lowest", `${number(best.valid_loss, 4)} at step ${count(best.step)}`],
    last?.tokens && ["Tokens seen", count(last.tokens)],
    last?.epoch !== undefined && ["Epoch", number(last.epoch)],
    job.status === "running" && last?.tokens_per_second && ["Speed", `${count(last.tokens_per_second)} tokens/s`],
    began && ["So far", duration(Math.max(Date.now() / 1000 - c.started_at, 1))],
    guess > 0 && ["Estimated", duration(guess), "How long it was expected to take, before it began"],
  ];
}

function Head({ log, state }) {
  const job = log.job;
  return html`<${Card} className="job-head" id="job">
    <div class="job-title">
      <h2>${shortName(job)}</h2><${StatusTag} job=${job} />
      ${state === "lost" && html`<span class="tag bad" role="status">connection lost, trying again…</span>`}
      <${Actions} job=${job} />
    </div>
    <p class="hint">${baseName(job)}, ${methodName(job)}, on <${FileName} id=${job.training_file} /></p>
    <${JobProgress} job=${job} />
    <${Facts} items=${factsOf(log)} />
  <//>`;
}

function Failed({ job }) {
  return html`<section class="card job-failed" role="alert"><h2>It failed</h2>
    <p>${job.error?.message ?? "The server does not say why."}</p>
    <p class="hint">${HELP[job.error?.code] ?? "Nothing that was made before is lost."}</p>
    <div class="actions"><a class="job-go" href=${linkTo("train", { new: 1, like: job.id })}>Change the settings and try again</a></div>
  </section>`;
}

function Waiting({ job }) {
  return html`<section class="card"><p class="hint">${WAITING[job.status] ?? "Losses appear here with the first step."}</p></section>`;
}

function Missing({ log, state }) {
  if (state === "failed") {
    return html`<${Card}><${Empty} title=${log.problem?.status === 404 ? "There is no such run" : "The run could not be read"}
      action=${html`<button type="button" onClick=${() => go("train")}>To the runs</button>`}>${explain(log.problem)}<//><//>`;
  }
  return html`<${Card}><p class="hint" role="status">${state === "lost" ? "The server does not answer. Trying again…" : "Reading the run…"}</p><//>`;
}

function Found({ log, state, version }) {
  const job = log.job, files = useResultFiles(job);
  const results = files.find((file) => file.filename === "results.json");
  return html`
    <${NothingBanner} job=${job} />
    <${Head} log=${log} state=${state} />
    ${job.status === "succeeded" && html`<${Finished} job=${job} files=${files} />`}
    <div class="job-columns">
      <div class="stack">
        ${job.status === "failed" && html`<${Failed} job=${job} />`}
        ${log.steps.length === 0 && job.status !== "failed" && html`<${Waiting} job=${job} />`}
        <${Curves} log=${log} version=${version} />
        <${Samples} log=${log} version=${version} active=${job.status === "running"} />
        <${Checkpoints} log=${log} />
        ${results && html`<${Results} file=${results.id} />`}
      </div>
      <aside class="stack" aria-label="About this run"><${Events} log=${log} /><${Settings} job=${job} /></aside>
    </div>`;
}

export function Job({ id }) {
  const { log, state, version } = useJobLog(id);
  return html`<div class="stack job">${log.job ? html`<${Found} log=${log} state=${state} version=${version} />` : html`<${Missing} log=${log} state=${state} />`}</div>`;
}
