// SPDX-License-Identifier: MIT
// The runs: what trains, what waits in which place, what has been. Asked for anew only while one of them can still change by itself.

import { call } from "../../lib/api.js";
import { html, useEffect, useState } from "../../lib/html.js";
import { fail } from "../../lib/server.js";
import { createStore, go, linkTo, useStore } from "../../lib/store.js";
import { Card, Empty, usePolling } from "../../lib/ui.js";
import { Actions, baseName, FileName, JobProgress, methodName, shortName, StatusTag } from "./control.js";
import { ACTIVE } from "./log.js";

const PAGE = 20, POLL_MS = 2500;
export const MOST_COMPARED = 6;
const runs = createStore({ state: "loading", list: [], more: false });

const pageOf = (limit, after = "") => call(`/v1/fine_tuning/jobs?limit=${limit}${after && `&after=${encodeURIComponent(after)}`}`);

/** The newest runs; as many as are on the page. */
async function readRuns(loud = true) {
  try {
    const page = await pageOf(Math.min(Math.max(PAGE, runs.get().list.length), 100));
    const { list, more } = runs.get(), known = new Set(page.data.map((job) => job.id));
    const older = page.has_more ? list.filter((job) => !known.has(job.id) && job.created_at <= page.data.at(-1).created_at) : [];
    runs.set({ state: "ready", list: [...page.data, ...older], more: older.length ? more : page.has_more });
  } catch (error) {
    runs.patch({ state: runs.get().list.length ? "ready" : "failed" });
    if (loud) fail(error, readRuns); // while polling: the next turn says the same, or all is well again
  }
}

async function readMore() {
  try {
    const { list } = runs.get();
    const page = await pageOf(PAGE, list.at(-1).id);
    runs.set((now) => ({ ...now, list: [...now.list, ...page.data], more: page.has_more }));
  } catch (error) {
    fail(error, readMore);
  }
}

const replace = (job) => runs.set((now) => ({ ...now, list: now.list.map((one) => (one.id === job.id ? job : one)) }));

/** Running first, then those that wait by their place, then the rest as they come: newest first. */
function inOrder(list) {
  const rank = ({ status, couplet }) => (status === "running" ? 0 : status === "queued" ? 1 + (couplet.queue_place ?? 1e6) : 1e8);
  return [...list].sort((a, b) => rank(a) - rank(b));
}

function Run({ job, marked, mark, full }) {
  const name = shortName(job);
  return html`<li class="job-run">
    <input type="checkbox" checked=${marked} disabled=${full && !marked} aria-label=${`Compare ${name}`} title="Choose runs to compare"
      onChange=${() => mark(job.id)} />
    <div class="job-run-what">
      <p class="job-run-head"><a href=${linkTo("train", { job: job.id })}>${name}</a> <${StatusTag} job=${job} /></p>
      <p class="hint">${baseName(job)} · ${methodName(job)} · <${FileName} id=${job.training_file} /></p>
      ${job.error && html`<p class="job-wrong">${job.error.message}</p>`}
    </div>
    <${JobProgress} job=${job} />
    <${Actions} job=${job} onChange=${replace} />
  </li>`;
}

export function Queue() {
  const { state, list, more } = useStore(runs);
  const [marked, setMarked] = useState(() => new Set());
  const active = list.some((job) => ACTIVE.has(job.status));
  useEffect(() => { readRuns(); }, []);
  usePolling(() => readRuns(false), POLL_MS, active);
  const mark = (id) => setMarked((now) => { const next = new Set(now); if (!next.delete(id)) next.add(id); return next; });
  if (state === "loading") return html`<${Card} title="Runs"><p class="hint">Reading the list of runs…</p><//>`;
  if (list.length === 0) {
    return html`<${Card} title="Runs"><${Empty} title=${state === "failed" ? "The runs could not be read" : "Nothing has been trained yet"}>
      ${state === "failed" ? "See above for the reason."
        : "A run that you start appears here, with its progress. You can close the page meanwhile; training goes on."}<//><//>`;
  }
  const compare = html`<span class="hint">${marked.size === 0 ? "Mark runs to compare them" : `${marked.size} marked`}</span>
    <button id="compare-runs" type="button" disabled=${marked.size < 2}
      onClick=${() => go("train", { compare: [...marked].join(",") })}>Compare</button>`;
  return html`<${Card} title="Runs" id="runs" tools=${compare}>
    <ul class="job-runs">${inOrder(list).map((job) =>
      html`<${Run} key=${job.id} job=${job} marked=${marked.has(job.id)} mark=${mark} full=${marked.size >= MOST_COMPARED} />`)}</ul>
    ${more && html`<div class="actions"><button type="button" onClick=${readMore}>Show older runs</button></div>`}
  <//>`;
}
