// SPDX-License-Identifier: MIT
// One run: its log (the job object and everything its events said), its start, and what every part of Train shows of it: name, status, progress, the
// buttons that pause and cancel it, its events. Also how this view asks the server: useAnswer, useBusy.
//
// A log is read whole once (pages of the list, newest first), then goes on by the event stream, but only while somebody looks at the job, the tab is
// seen and the job can still go on. A stream that is cut is taken up again after the last event that came. Logs outlive the view.

import { call, events, request } from "../../lib/api.js";
import { ago, count, duration, plural } from "../../lib/format.js";
import { html, useEffect, useRef, useState } from "../../lib/html.js";
import { fail, isOver, listModels, modelInfo, notice } from "../../lib/server.js";
import { address, createStore, go, persistentStore, useStore } from "../../lib/store.js";
import { Card, Dialog } from "../../lib/ui.js";

// ---------------------------------------------------------------- asking

/** {of, data, error}: what `ask(signal)` gave for the key `of`. Another key asks anew and gives up the one before, null asks nothing. */
export function useAnswer(key, ask, loud = false) {
  const [state, setState] = useState({ of: null, data: null, error: null });
  useEffect(() => {
    if (key === null) return undefined;
    const control = new AbortController();
    const read = () => ask(control.signal).then((data) => setState({ of: key, data, error: null }), (error) => {
      if (error.name === "AbortError") return;
      setState({ of: key, data: null, error });
      if (loud) fail(error, read);
    });
    read();
    return () => control.abort();
  }, [key]);
  return state;
}

/** [busy, run]: run(work) waits for one thing and says what goes wrong with it. */
export function useBusy() {
  const [busy, setBusy] = useState(false), said = useRef(null);
  const run = async (work) => {
    setBusy(true);
    try {
      await work();
      if (said.current && notice.get() === said.current) notice.set(null);
    } catch (error) {
      fail(error, () => run(work));
      said.current = notice.get();
    } finally {
      setBusy(false);
    }
  };
  return [busy, run];
}

// ---------------------------------------------------------------- starting

const pending = persistentStore("train-start", { of: "", key: "" });

/**
 * Queues a run and opens it. Until the server has said that there is one, the same request goes out under the same key, so that trying again after
 * a cut connection queues nothing twice. `metadata` is of the first try: the server takes a key with one body only.
 */
export async function startRun(body, metadata) {
  const of = JSON.stringify(body);
  if (pending.get().of !== of) pending.set({ of, metadata, key: crypto.getRandomValues(new Uint32Array(4)).join("-") });
  const { key, metadata: first } = pending.get();
  const job = await request("POST", "/v1/fine_tuning/jobs", { ...body, metadata: first }, undefined, { "Idempotency-Key": key });
  pending.set({ of: "", key: "" });
  if (address.get().view === "train") go("train", { job: job.id });
}

// ---------------------------------------------------------------- the log

const PAGE = 1000, DRAW_MS = 200, ACTIVE_MS = 2500, RESTING_MS = 10_000;
export const ACTIVE = new Set(["validating_files", "queued", "running"]);
const NEW_MODEL = new Set(["checkpoint_save", "job_complete"]);

const passing = (error) => error.status === undefined || error.status === 200 || error.status === 429 || error.status >= 500;
/** Adds what nearly always is the newest; two reads at a time may bring an older one. */
function add(list, item, by) {
  list.push(item);
  if (list.at(-2)?.[by] > item[by]) list.sort((a, b) => a[by] - b[by]);
}

class JobLog {
  job = null;
  steps = []; // {step, epoch, tokens, train_loss, train_mean_token_accuracy, learning_rate, grad_norm, tokens_per_second}
  evals = []; // {step, epoch, tokens, valid_loss, valid_mean_token_accuracy, perplexity, ...}
  samples = []; // {step, prompt, text}
  messages = []; // events that are no numbers and no samples, oldest first
  checkpoints = []; // of the API, newest first
  problem = null; // why nothing could be read
  view = createStore({ state: "loading", version: 0 }); // state: loading | ready | live | lost (trying again) | failed
  #path;
  #seen = new Set();
  #last = null; // id of the newest event
  #watchers = 0;
  #control = null;
  #timer = 0;
  #fresh = 0;
  #whole = false; // the events were read from the first one on

  constructor(id) {
    this.id = id;
    this.#path = `/v1/fine_tuning/jobs/${encodeURIComponent(id)}`;
  }

  get over() { return this.job !== null && isOver(this.job); }
  get active() { return this.job !== null && ACTIVE.has(this.job.status); }

  #changed(state = null) {
    if (state && state !== this.view.get().state) this.view.set((v) => ({ state, version: v.version + 1 }));
    else this.#timer ||= setTimeout(() => { this.#timer = 0; this.view.set((v) => ({ ...v, version: v.version + 1 })); }, DRAW_MS);
  }

  // ---- reading

  async readJob(signal) {
    const job = await call(this.#path, undefined, signal);
    const moved = this.job !== null && this.job.status !== job.status;
    this.job = job;
    this.#changed();
    if (moved) await this.#readCheckpoints(signal);
    return moved;
  }

  async #readCheckpoints(signal) {
    this.checkpoints = (await call(`${this.#path}/checkpoints?limit=100`, undefined, signal)).data;
    const names = [this.job.fine_tuned_model, ...this.checkpoints.map((c) => c.fine_tuned_model_checkpoint)].filter(Boolean);
    if (names.some((name) => !modelInfo(name))) await listModels();
    this.#changed();
  }

  /** What the list of events has that is not known yet. */
  async readEvents(signal) {
    let after = "", pages = [];
    for (;;) {
      const page = await call(`${this.#path}/events?limit=${PAGE}${after}`, undefined, signal);
      const at = page.data.findIndex((event) => this.#seen.has(event.id));
      pages.push(at < 0 ? page.data : page.data.slice(0, at));
      if (at >= 0 || !page.has_more) break;
      after = `&after=${encodeURIComponent(page.data.at(-1).id)}`;
    }
    for (const event of pages.flat().reverse()) this.#take(event);
    this.#changed();
  }

  /** All there is; where a stream will follow anyway, only what it cannot tell. */
  async readAll(signal) {
    await this.readJob(signal);
    if (!this.#whole || !this.active) await this.readEvents(signal);
    this.#whole = true;
    await this.#readCheckpoints(signal);
  }

  /** What an action of the user answered. */
  setJob(job) {
    this.job = job;
    this.#changed();
    if (this.#watchers > 0) this.#begin();
  }

  #forget() {
    for (const list of [this.steps, this.evals, this.samples, this.messages]) list.length = 0;
    this.#seen.clear();
    this.#last = null;
    this.#whole = false;
  }

  #take(event) {
    if (this.#seen.has(event.id)) return;
    this.#seen.add(event.id);
    this.#last = event.id;
    const data = event.data ?? {};
    if (event.type === "metrics") {
      add(data.valid_loss === undefined ? this.steps : this.evals, data, "step");
    } else if (data.kind === "sample") {
      this.samples.push(data);
    } else {
      add(this.messages, event, "created_at");
    }
    if (this.job && data.step > (this.job.couplet.step ?? 0) && event.type === "metrics") this.#advance(data);
    return data.kind;
  }

  /** The job object comes every few seconds: until then the stream's newest step stands in it, and its pace, averaged as the server does. */
  #advance({ step, total_steps, tokens, tokens_per_second }) {
    const { couplet } = this.job, before = this.steps.at(-2) ?? { step: 0, tokens: 0 }, old = couplet.seconds_per_step;
    const seconds = (tokens - before.tokens) / tokens_per_second / (step - before.step); // not a number: an evaluation
    const pace = seconds > 0 ? (old ? 0.9 * old + 0.1 * seconds : seconds) : old;
    this.job = { ...this.job, couplet: { ...couplet, step, total_steps: total_steps ?? couplet.total_steps, seconds_per_step: pace } };
  }

  // ---- following

  /** Reads what there is and follows the job until the function that it returns is called. */
  watch() {
    if (++this.#watchers === 1) {
      this.#begin();
      document.addEventListener("visibilitychange", this.#seenOrNot);
    }
    return () => {
      if (--this.#watchers > 0) return;
      document.removeEventListener("visibilitychange", this.#seenOrNot);
      this.#control?.abort();
      this.#control = null;
    };
  }

  #seenOrNot = () => {
    if (document.visibilityState === "visible" && !this.#control) this.#begin();
    else if (document.visibilityState !== "visible") { this.#control?.abort(); this.#control = null; }
  };

  #begin() {
    this.#control?.abort();
    const control = this.#control = new AbortController();
    this.#follow(control.signal);
  }

  async #follow(signal) {
    for (let failures = 0; !signal.aborted;) {
      try {
        await this.readAll(signal);
        this.#changed("ready");
        failures = 0;
        if (this.over) return;
        await this.#untilOver(signal);
      } catch (error) {
        if (signal.aborted) return;
        if (error.status === 400 && this.#last) { // the server does not know our last event: it is another store
          this.#forget();
          continue;
        }
        if (!passing(error)) {
          this.problem = error;
          this.#changed("failed");
          if (error.status !== 404) fail(error, () => { if (this.#watchers > 0) this.#begin(); });
          return;
        }
        this.#changed("lost");
        await new Promise((done) => { setTimeout(done, Math.min(1000 * 2 ** failures++, 10_000)); });
      }
    }
  }

  /** The stream while the job is active, and the job object every few seconds; ends when the job has changed its status. */
  async #untilOver(outer) {
    const control = new AbortController(), stop = () => control.abort();
    outer.addEventListener("abort", stop);
    try {
      const polled = this.#poll(control.signal);
      const streamed = this.active ? this.#stream(control.signal) : polled;
      await Promise.race([polled, streamed]);
    } finally {
      outer.removeEventListener("abort", stop);
      control.abort();
    }
  }

  async #poll(signal) {
    for (let turn = 1; !signal.aborted; turn++) {
      await new Promise((done) => { setTimeout(done, this.active ? ACTIVE_MS : RESTING_MS); });
      if (signal.aborted || await this.readJob(signal)) return;
      if (this.job.status === "running" && turn % 4 === 0) await listModels(); // an adapter's newest weights appear without an event
    }
  }

  async #stream(signal) {
    this.#changed("live");
    for await (const { data } of events(`${this.#path}/events?stream=true`, undefined, signal, this.#last)) {
      const kind = this.#take(data);
      this.#changed();
      if (NEW_MODEL.has(kind)) {
        clearTimeout(this.#fresh);
        this.#fresh = setTimeout(() => this.#readCheckpoints().catch(() => {}), 300); // the name comes a moment after the event
      } else if (kind && kind !== "sample") {
        await this.readJob(signal);
      }
    }
    await this.readJob(signal);
  }
}

const logs = new Map();
/** The log of a job; one and the same for every part of the page. */
export function jobLog(id) {
  if (!logs.has(id)) logs.set(id, new JobLog(id));
  return logs.get(id);
}

/** Follows a job as long as the component stands; draws again when something has changed. */
export function useJobLog(id) {
  const log = jobLog(id);
  useEffect(() => log.watch(), [log]);
  const { state, version } = useStore(log.view);
  return { log, state, version };
}

// ---------------------------------------------------------------- what it is called

/** The other states are words as they are. */
const WORDS = { validating_files: "checking files", queued: "waiting", running: "training", succeeded: "finished" };
const WISHES = { pause: "pausing…", cancel: "cancelling…" };
const TONE = { running: "good", succeeded: "good", failed: "bad" };

const statusText = (job) => WISHES[!isOver(job) && job.couplet.requested] ?? WORDS[job.status] ?? job.status;
export const StatusTag = ({ job }) => html`<span class=${`tag ${TONE[job.status] ?? ""}`} data-status=${job.status}>${statusText(job)}</span>`;

/** "village": the suffix where there is one, otherwise what the id has of it. */
export const shortName = (job) => job.user_provided_suffix || `run ${job.id.replace("ftjob-", "").slice(0, 6)}`;
export const baseName = (job) => (job.model === "new" ? `new ${job.couplet.architecture?.preset ?? "model"}` : job.model);
export const methodName = (job) => (job.model === "new" ? "from random weights" : job.couplet.training_type.type === "lora" ? "LoRA" : "all weights");

/** Running first, then those that wait by their place, then the rest as they come: newest first. */
export function inOrder(list) {
  const rank = ({ status, couplet }) => (status === "running" ? 0 : status === "queued" ? 1 + (couplet.queue_place ?? 1e6) : 1e8);
  return [...list].sort((a, b) => rank(a) - rank(b));
}

const names = createStore({}); // id of a file -> its name, null: it is gone
const asked = new Set();
export function FileName({ id }) {
  const name = useStore(names, (all) => all[id]);
  useEffect(() => {
    if (!id || asked.has(id)) return;
    asked.add(id);
    call(`/v1/files/${encodeURIComponent(id)}`).then(({ filename }) => names.patch({ [id]: filename }),
      (error) => (error.status === 404 ? names.patch({ [id]: null }) : asked.delete(id)));
  }, [id]);
  return html`<bdi class=${name ? "" : "hint"} title=${id}>${name === undefined ? "…" : name ?? "deleted file"}</bdi>`;
}

// ---------------------------------------------------------------- progress

const secondsLeft = ({ couplet: c }) => (c.seconds_per_step && c.total_steps ? (c.total_steps - c.step) * c.seconds_per_step : null);

/** "step 40 of 150 · 12 s left", "place 2 in the queue", "took 20 s". */
function progressText(job) {
  const c = job.couplet, steps = c.total_steps ? `step ${count(c.step)} of ${count(c.total_steps)}` : "preparing";
  const left = secondsLeft(job);
  switch (job.status) {
    case "running": return [steps, left === null ? "" : left === 0 ? "writing its results" : left < 1 ? "nearly done" : `${duration(left)} left`].filter(Boolean).join(" · ");
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
    ${bar && html`<progress max="1" value=${c.total_steps ? c.step / c.total_steps : undefined}
      aria-label=${`Progress of ${shortName(job)}`}></progress>`}
    <span class="stats">${progressText(job)}</span>
  </div>`;
}

// ---------------------------------------------------------------- what can be done to it

function CancelDialog({ job, onClose, act }) {
  const kept = jobLog(job.id).checkpoints.length, { step, total_steps: total } = job.couplet;
  return html`<${Dialog} title="Cancel this run?" onClose=${onClose}>
    <p>${shortName(job)} stands at step ${count(step)}${total ? ` of ${count(total)}` : ""}. A cancelled run cannot go on, and makes no finished
      model. ${kept ? "The checkpoints that it has made stay." : "What it has learned so far is lost."}</p>
    <p class="hint">Pausing it instead keeps everything; it goes on when you resume it.</p>
    <div class="actions">
      <button type="button" class="primary" onClick=${() => { onClose(); act("cancel"); }}>Cancel the run</button>
      <button type="button" onClick=${onClose}>Keep it</button>
    </div>
  <//>`;
}

/** Pause, resume, cancel. onChange(job): what the server answered. */
export function Actions({ job, onChange }) {
  const [busy, run] = useBusy(), [asking, setAsking] = useState(false);
  if (isOver(job)) return null;
  const act = (verb) => run(async () => {
    const now = await request("POST", `/v1/fine_tuning/jobs/${job.id}/${verb}`);
    if (isOver(now) || verb === "cancel") document.getElementById("main").focus({ preventScroll: true }); // the buttons go
    jobLog(job.id).setJob(now);
    onChange?.(now);
  });
  const wish = job.couplet.requested, off = busy || wish === "cancel", name = shortName(job);
  const cancel = () => (job.couplet.step > 0 || job.status === "running" ? setAsking(true) : act("cancel"));
  const button = (word, not, onClick, more) => html`<button type="button" aria-disabled=${not} aria-label=${`${word} ${name}`}
    onClick=${() => not || onClick()} ...${more}>${word}</button>`; // disabled ones would lose the keyboard
  return html`<span class="job-actions">
    ${job.status === "paused" ? button("Resume", off, () => act("resume"))
      : button("Pause", off || wish === "pause", () => act("pause"), { title: "Lets it rest; nothing is lost" })}
    ${button("Cancel", off, cancel, { class: "quiet" })}
    ${asking && html`<${CancelDialog} job=${job} onClose=${() => setAsking(false)} act=${act} />`}
  </span>`;
}

// ---------------------------------------------------------------- what happened, in words; newest first

const MOST_EVENTS = 8;
const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });

export function Events({ log }) {
  const [all, setAll] = useState(false);
  const newest = [...log.messages].reverse();
  if (newest.length === 0) return null;
  const shown = all ? newest : newest.slice(0, MOST_EVENTS);
  return html`<${Card} title="Events" id="events">
    <ol class="job-events">${shown.map((event) => html`<li key=${event.id} class=${event.level === "info" ? "" : "job-wrong"}>
      <time class="stats" datetime=${new Date(event.created_at * 1000).toISOString()}>${clock(event.created_at)}</time>
      <span>${event.message}</span></li>`)}</ol>
    ${newest.length > MOST_EVENTS && html`<button type="button" class="quiet"
      onClick=${() => setAll(!all)}>${all ? "Show fewer" : `Show all ${newest.length}`}</button>`}
  <//>`;
}
