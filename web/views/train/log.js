// SPDX-License-Identifier: MIT
// What is known of a job: the job object and everything its events said, sorted into steps, evaluations, samples and messages.
//
// A log is read whole once (pages of the list, newest first), then goes on by the event stream, but only while somebody looks at the job, the tab is seen
// and the job can still go on. A stream that is cut is taken up again after the last event that came. Logs outlive the view.

import { call, events } from "../../lib/api.js";
import { useEffect } from "../../lib/html.js";
import { fail, listModels, modelInfo } from "../../lib/server.js";
import { createStore, useStore } from "../../lib/store.js";

const PAGE = 1000, DRAW_MS = 200, ACTIVE_MS = 2500, RESTING_MS = 10_000;
export const FINAL = new Set(["succeeded", "failed", "cancelled"]);
export const ACTIVE = new Set(["validating_files", "queued", "running"]);
const NEW_MODEL = new Set(["checkpoint_save", "job_complete"]);

const passing = (error) => error.status === undefined || error.status === 200 || error.status === 429 || error.status >= 500;
const bySteps = (list, item) => { // nearly always the newest; a list that is read backwards comes in reverse and is sorted once
  list.push(item);
  return list.length > 1 && list.at(-2).step > item.step;
};

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

  get over() { return this.job !== null && FINAL.has(this.job.status); }
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
    this.steps = [];
    this.evals = [];
    this.samples = [];
    this.messages = [];
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
      const list = data.valid_loss === undefined ? this.steps : this.evals;
      if (bySteps(list, data)) list.sort((a, b) => a.step - b.step);
    } else if (data.kind === "sample") {
      this.samples.push(data);
    } else {
      this.messages.push(event);
      if (event.created_at < (this.messages.at(-2)?.created_at ?? 0)) this.messages.sort((a, b) => a.created_at - b.created_at); // two reads at a time
    }
    if (this.job && data.step > (this.job.couplet.step ?? 0) && event.type === "metrics") {
      this.job = { ...this.job, couplet: { ...this.job.couplet, step: data.step, total_steps: data.total_steps ?? this.job.couplet.total_steps } };
    }
    return data.kind;
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
