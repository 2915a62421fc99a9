// SPDX-License-Identifier: MIT
// What a run would take, measured by the server on its own hardware for the settings as they stand; and the start.

import { call, explain, request } from "../../lib/api.js";
import { bytes, count, duration, plural } from "../../lib/format.js";
import { html, useEffect, useState } from "../../lib/html.js";
import { fail, say } from "../../lib/server.js";
import { go } from "../../lib/store.js";
import { Card, Facts, useSettled } from "../../lib/ui.js";
import { fieldProblem, shown } from "./settings.js";

const firstProblem = (c) => {
  const f = shown(c).find((one) => fieldProblem(one, c));
  return f ? `${f.label}: ${fieldProblem(f, c)}` : null;
};

/** {figures, error, busy, problem} for a request; null asks nothing. An estimate that no longer fits is given up. */
export function useEstimate(body, c) {
  const problem = firstProblem(c);
  const text = body && !problem ? JSON.stringify(body) : null;
  const settled = useSettled(text, 600);
  const [state, setState] = useState({ of: null, figures: null, error: null });
  useEffect(() => {
    if (!settled) return undefined;
    const control = new AbortController();
    call("/v1/fine_tuning/estimate", JSON.parse(settled), control.signal).then(
      (figures) => setState({ of: settled, figures, error: null }),
      (error) => { if (error.name !== "AbortError") setState({ of: settled, figures: null, error }); });
    return () => control.abort();
  }, [settled]);
  const fits = text !== null && state.of === text;
  return { figures: state.figures, error: fits ? state.error : null, busy: text !== null && !fits, fits: fits && Boolean(state.figures), problem };
}

const perStep = (e) => {
  const updates = e.train_tokens / Math.max(e.tokens_per_second, 1e-9); // seconds an epoch
  return e.per_epoch ? updates / e.per_epoch : null;
};

function Figures({ e, batch }) {
  const step = perStep({ ...e, per_epoch: Math.max(1, Math.ceil(e.train_rows / batch)) });
  return html`<p class="train-time">about <strong>${duration(e.seconds)}</strong></p>
    <${Facts} items=${[
      ["Steps", step ? `${count(e.steps)}, ${duration(step)} each` : count(e.steps)],
      ["Memory", bytes(e.peak_memory_bytes), "At most, beside what the server has already"],
      ["Speed", `${count(e.tokens_per_second)} tokens/s`],
      ["Learned from", `${plural(e.train_rows, "example")}, ${plural(e.train_tokens, "token")}`],
      ["Held out", e.valid_rows ? plural(e.valid_rows, "example") : "nothing", "Without, nothing tells whether it became better"],
      ["Evaluations", count(e.evaluations)],
      ["Checkpoints", `${count(e.checkpoints)} of ${bytes(e.checkpoint_bytes)}`],
    ]} />
    ${e.warnings.map((w) => html`<p class="train-warning">${w[0].toUpperCase() + w.slice(1)}.</p>`)}`;
}

/** The card beside the form. `error`: one that is about no field. */
export function Estimate({ estimate, error, body, ready, c, report }) {
  const [starting, setStarting] = useState(false);
  const start = async () => {
    setStarting(true);
    say(null);
    try {
      const seconds = estimate.busy ? undefined : estimate.figures?.seconds; // the run's page sets what came beside it
      const job = await request("POST", "/v1/fine_tuning/jobs", { ...body, ...(seconds ? { metadata: { "couplet.estimate_s": String(Math.round(seconds)) } } : {}) });
      go("train", { job: job.id });
    } catch (problem) {
      setStarting(false);
      fail(problem, start);
    }
  };
  const stopped = starting || !ready || Boolean(estimate.problem || estimate.error);
  const fatal = report.report && !report.report.usable;
  const about = estimate.problem ? `${estimate.problem} Mend it, and the estimate follows.`
    : fatal ? "This file cannot be trained on as it is; its problems are listed with it." : !ready ? "Waiting for the file's report…"
      : estimate.error ? (error ? explain(error) : "One of the settings is not accepted; it is marked.") : null;
  return html`<${Card} title="What it takes" className="train-estimate">
    <div role="status" aria-busy=${estimate.busy}>
      ${about && html`<p class=${estimate.error || estimate.problem || fatal ? "bad" : "hint"}>${about}</p>`}
      ${!about && estimate.busy && html`<p class="hint">Trying a few updates to see how long it takes…</p>`}
    </div>
    ${!about && estimate.figures && html`<div class=${estimate.busy ? "train-stale" : ""}>
      <${Figures} e=${estimate.figures} batch=${Number(c.values.batch_size) || 8} /></div>`}
    <div class="actions"><button type="button" id="train-start" class="primary" disabled=${stopped} onClick=${start}>
      ${starting ? "Starting…" : "Start training"}</button></div>
    <p class="hint">The server goes on answering meanwhile. The run survives this page, a reload and a restart of the server.</p>
  <//>`;
}
