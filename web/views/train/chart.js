// SPDX-License-Identifier: MIT
// A job's curves: the losses against step, epoch or tokens seen, and small ones of learning rate, speed and gradient norm.

import { Chart } from "../../lib/chart.js";
import { count, number } from "../../lib/format.js";
import { html, useMemo, useState } from "../../lib/html.js";
import { useParam } from "../../lib/store.js";
import { Card, Segmented } from "../../lib/ui.js";

export const AXES = [
  ["step", "Steps", "Updates of the weights"],
  ["epoch", "Epochs", "Times through the training data"],
  ["tokens", "Tokens", "Tokens that were learned from"],
];
const large = (x) => (x >= 1e6 ? `${number(x / 1e6)}M` : x >= 1e4 ? `${number(x / 1e3)}k` : count(x));
const FORMATS = { step: count, epoch: (x) => number(x, 3), tokens: large };
export const axisOf = (kind, values) => ({ label: kind, values, format: FORMATS[kind], whole: kind !== "epoch" });
const LOSS = (x) => number(x, 4);

/** Steps and evaluations in one list, rising; a member that only one of them has is null in the other. */
export function rowsOfLog(log) {
  const rows = log.steps.map((s) => ({ ...s }));
  const at = new Map(rows.map((row) => [row.step, row]));
  let added = false;
  for (const e of log.evals) {
    const row = at.get(e.step);
    if (row) {
      row.valid_loss = e.valid_loss;
      row.valid_mean_token_accuracy = e.valid_mean_token_accuracy;
    } else {
      rows.push({ ...e, train_loss: undefined, epoch: e.epoch ?? 0, tokens: e.tokens ?? 0 });
      added = true;
    }
  }
  if (added) rows.sort((a, b) => a.step - b.step);
  return rows;
}

export const column = (rows, name) => rows.map((row) => row[name] ?? null);

/** A moving mean; the first values count for what they are. */
export function smoothed(values, share = 0.9) {
  let mean = 0, weight = 0;
  return values.map((v) => {
    if (v === null) return null;
    mean = share * mean + (1 - share) * v;
    weight = share * weight + (1 - share);
    return mean / weight;
  });
}

function lossSeries(rows, smooth) {
  const train = column(rows, "train_loss"), valid = column(rows, "valid_loss");
  const out = [{ label: "Training", values: smooth ? smoothed(train) : train, colour: "--c1", format: LOSS }];
  if (smooth) out.unshift({ label: "Each step", values: train, colour: "--c1", faint: true, quiet: true, width: 1, format: LOSS });
  if (valid.some((v) => v !== null)) out.push({ label: "Validation", values: valid, colour: "--c2", points: true, format: LOSS });
  return out;
}

const thousands = (x) => (x >= 1e3 ? `${number(x / 1e3)}k` : number(x));
const SMALL = [
  ["learning_rate", "Learning rate", "--c3", (x) => number(x, 2)],
  ["tokens_per_second", "Tokens/s", "--c4", count, thousands],
  ["grad_norm", "Gradient norm", "--c5", (x) => number(x, 3)],
];

export function Curves({ log, version }) {
  const [kind, setKind] = useParam("x", "step");
  const [logarithmic, setLogarithmic] = useState(false);
  const [smooth, setSmooth] = useState(null); // null: as many steps ask for it
  const rows = useMemo(() => rowsOfLog(log), [log, version]);
  const axis = AXES.some(([one]) => one === kind) ? kind : "step";
  const smoothing = smooth ?? rows.length > 300;
  const x = useMemo(() => axisOf(axis, column(rows, axis).map((v) => v ?? 0)), [rows, axis]);
  const series = useMemo(() => lossSeries(rows, smoothing), [rows, smoothing]);
  const small = useMemo(() => SMALL.map(([name, label, colour, format, short]) =>
    ({ label, colour, format, short, width: 1.25, values: column(rows, name) })), [rows]);
  if (rows.length === 0) return null;
  const chip = (on, set, text, title) => html`<button type="button" class="chip" aria-pressed=${on ? "true" : "false"} title=${title}
    onClick=${() => set(!on)}>${text}</button>`;
  return html`<${Card} title="Loss" className="job-curves" tools=${html`
      ${chip(smoothing, setSmooth, "Smooth", "A moving mean; the single steps stay faintly visible")}
      ${chip(logarithmic, setLogarithmic, "Log", "A logarithmic scale of losses")}
      <${Segmented} label="Against" value=${axis} options=${AXES} onChange=${setKind} />`}>
    <p class="hint">How surprised the model is by the next token, on average. Lower is better; validation texts are ones it does not learn from.</p>
    <${Chart} id="loss-chart" label="Loss" x=${x} series=${series} log=${logarithmic} sync=${log.id} />
    <div class="job-small">
      ${small.map((s) => html`<${Chart} key=${s.label} label=${s.label} x=${x} series=${[s]} height=${110} small sync=${log.id} />`)}
    </div>
  <//>`;
}
