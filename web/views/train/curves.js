// SPDX-License-Identifier: MIT
// What a run learns, to be seen: its curves (losses against step, epoch or tokens seen; small ones of learning rate, speed and gradient norm), what
// it wrote meanwhile; and up to six runs in one chart with a table of what they were told differently and what came of it.

import { call } from "../../lib/api.js";
import { Chart } from "../../lib/chart.js";
import { count, duration, number, plural } from "../../lib/format.js";
import { html, useEffect, useMemo, useReducer, useState } from "../../lib/html.js";
import { fail } from "../../lib/server.js";
import { linkTo, setParams, useParam } from "../../lib/store.js";
import { Card, Empty, Segmented, Select, usePolling } from "../../lib/ui.js";
import { settingsOf } from "./form.js";
import { FileName, jobLog, JobProgress, shortName, StatusTag, useAnswer } from "./run.js";

// ---------------------------------------------------------------- a run's curves

const AXES = [
  ["step", "Steps", "Updates of the weights"],
  ["epoch", "Epochs", "Times through the training data"],
  ["tokens", "Tokens", "Tokens that were learned from"],
];
/** Which one stands in the address, and its setter. */
function useOneOf(choices, name) {
  const [value, set] = useParam(name, choices[0][0]);
  return [choices.some(([one]) => one === value) ? value : choices[0][0], set];
}
const useAxis = () => useOneOf(AXES, "x");
const large = (x) => (x >= 1e6 ? `${number(x / 1e6)}M` : x >= 1e4 ? `${number(x / 1e3)}k` : count(x));
const FORMATS = { step: count, epoch: (x) => number(x, 3), tokens: large };
const axisOf = (kind, values) => ({ label: kind, values, format: FORMATS[kind], whole: kind !== "epoch" });
const LOSS = (x) => number(x, 4);

/** Steps and evaluations in one list, rising; a member that only one of them has is null in the other. */
function rowsOfLog(log) {
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

const column = (rows, name) => rows.map((row) => row[name] ?? null);

/** A moving mean; the first values count for what they are. */
function smoothed(values, share = 0.9) {
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

const SMALL = [
  ["learning_rate", "Learning rate", "--c3", (x) => number(x, 2)],
  ["tokens_per_second", "Tokens/s", "--c4", count, large],
  ["grad_norm", "Gradient norm", "--c5", (x) => number(x, 3)],
];

const Chip = ({ on, set, title, children }) => html`<button type="button" class="chip" aria-pressed=${on ? "true" : "false"} title=${title}
  onClick=${() => set(!on)}>${children}</button>`;
const LogChip = (props) => html`<${Chip} ...${props} title="A logarithmic scale of losses">Log<//>`;

export function Curves({ log, version }) {
  const [axis, setKind] = useAxis(), [logarithmic, setLogarithmic] = useState(false);
  const [smooth, setSmooth] = useState(null); // null: as many steps ask for it
  const rows = useMemo(() => rowsOfLog(log), [log, version]);
  const smoothing = smooth ?? rows.length > 300;
  const x = useMemo(() => axisOf(axis, column(rows, axis).map((v) => v ?? 0)), [rows, axis]);
  const series = useMemo(() => lossSeries(rows, smoothing), [rows, smoothing]);
  const small = useMemo(() => SMALL.map(([name, label, colour, format, short]) =>
    ({ label, colour, format, short, width: 1.25, values: column(rows, name) })), [rows]);
  if (rows.length === 0) return null;
  return html`<${Card} title="Loss" className="job-curves" tools=${html`
      <${Chip} on=${smoothing} set=${setSmooth} title="A moving mean; the single steps stay faintly visible">Smooth<//>
      <${LogChip} on=${logarithmic} set=${setLogarithmic} />
      <${Segmented} label="Against" value=${axis} options=${AXES} onChange=${setKind} />`}>
    <p class="hint">How surprised the model is by the next token, on average. Lower is better; validation texts are ones it does not learn from.</p>
    <${Chart} id="loss-chart" label="Loss" x=${x} series=${series} log=${logarithmic} sync=${log.id} />
    <div class="job-small">
      ${small.map((s) => html`<${Chart} key=${s.label} label=${s.label} x=${x} series=${[s]} height=${110} small sync=${log.id} />`)}
    </div>
  <//>`;
}

// ---------------------------------------------------------------- what it wrote while it learned

const MOST_LISTED = 12;

/** [[step, [sample, ...]], ...], rising. */
function byStep(samples) {
  const steps = new Map();
  for (const sample of samples) {
    if (!steps.has(sample.step)) steps.set(sample.step, []);
    steps.get(sample.step).push(sample);
  }
  return [...steps].sort((a, b) => a[0] - b[0]);
}

const Sample = ({ sample }) => html`<p class="job-sample" tabindex="0"><span class="job-prompt">${sample.prompt}</span>${sample.text}</p>`;

function All({ steps }) {
  const [most, setMost] = useState(MOST_LISTED);
  const newest = [...steps].reverse();
  return html`<details class="job-more"><summary>All samples, newest first</summary>
    <ol class="job-sample-list">${newest.slice(0, most).map(([step, some]) => html`<li key=${step}><span class="tag">step ${count(step)}</span>
      <div>${some.map((sample) => html`<${Sample} sample=${sample} />`)}</div></li>`)}</ol>
    ${newest.length > most && html`<button type="button" class="quiet" onClick=${() => setMost(most + 50)}>Show more</button>`}
  </details>`;
}

export function Samples({ log, version, active }) {
  const steps = useMemo(() => byStep(log.samples), [log, version]);
  const [chosen, setChosen] = useState(null); // a step; null follows the newest
  if (steps.length === 0) return null;
  const found = chosen === null ? -1 : steps.findIndex(([step]) => step === chosen);
  const at = found < 0 ? steps.length - 1 : found;
  const [step, some] = steps[at];
  const move = (event) => {
    const to = Number(event.target.value);
    setChosen(to >= steps.length - 1 ? null : steps[to][0]);
  };
  const tools = html`<span class="count">step ${count(step)}${at === steps.length - 1 && active ? ", the newest" : ""}</span>`;
  return html`<${Card} title="Samples" id="samples" tools=${tools}>
    <p class="hint">How it goes on with the same words, as it learns.</p>
    ${some.map((sample) => html`<${Sample} sample=${sample} />`)}
    ${steps.length > 1 && html`<div class="job-slider">
      <span class="stats">${count(steps[0][0])}</span>
      <input type="range" min="0" max=${steps.length - 1} step="1" value=${at} aria-label="Step of the samples" aria-valuetext=${`Step ${step}`}
        onInput=${move} />
      <span class="stats">${count(steps.at(-1)[0])}</span>
    </div>
    <${All} steps=${steps} />`}
    <p class="sr" role="status">${chosen === null ? "" : plural(some.length, "sample")}</p>
  <//>`;
}

// ---------------------------------------------------------------- several runs

export const MOST_COMPARED = 6;
const POLL_MS = 2500;
const METRICS = [
  ["valid_loss", "Validation", "On texts that it does not learn from"],
  ["train_loss", "Training", "On the texts that it learns from, as a moving mean"],
];
const NOTHING = {
  valid_loss: "None of these runs held texts out to measure on. Look at the training loss instead.",
  train_loss: "None of these runs has made a step yet.",
};
const colour = (i) => `--c${i + 1}`;
const showRuns = (ids) => setParams({ compare: ids.join(",") });

/** The logs of the runs; read once, then every few seconds while one of them can still change. A run that is not there is left out. */
function useLogs(ids) {
  const [version, redraw] = useReducer((n) => n + 1, 0);
  const key = ids.join();
  const logs = useMemo(() => ids.map(jobLog), [key]);
  useEffect(() => {
    const stops = logs.map((log) => log.view.subscribe(redraw));
    const read = (log) => log.readAll().then(redraw, (error) => {
      if (error.status === 404) showRuns(ids.filter((id) => id !== log.id));
      else fail(error, () => read(log));
    });
    logs.forEach(read);
    return () => stops.forEach((stop) => stop());
  }, [logs]);
  const active = logs.filter((log) => log.active);
  usePolling(() => Promise.all(active.map((log) => log.readJob().then(() => log.readEvents()).catch(() => {}))), POLL_MS, active.length > 0);
  return { logs, version };
}

/** Labels that tell runs apart also where their names are equal. */
function labelsOf(logs) {
  const names = logs.map((log) => shortName(log.job));
  return names.map((name, i) => (names.filter((other) => other === name).length > 1 ? `${name} ${logs[i].id.slice(-4)}` : name));
}

/** Every run's values at the places of all of them. */
function together(logs, labels, metric, axis) {
  const runs = logs.map((log) => rowsOfLog(log).filter((row) => row[metric] !== undefined && row[metric] !== null && row[axis] !== undefined));
  const xs = [...new Set(runs.flatMap((rows) => column(rows, axis)))].sort((a, b) => a - b);
  const at = new Map(xs.map((x, i) => [x, i]));
  const series = runs.map((rows, r) => {
    const own = column(rows, metric), values = new Array(xs.length).fill(null);
    const drawn = metric === "train_loss" && own.length > 40 ? smoothed(own) : own;
    rows.forEach((row, i) => { values[at.get(row[axis])] = drawn[i]; });
    return { label: labels[r], values, colour: colour(r), points: metric === "valid_loss", format: (v) => number(v, 4) };
  });
  return { x: axisOf(axis, xs), series };
}

const EMPTY = "–";
function outcomes(log) {
  const job = log.job, last = log.steps.at(-1), c = job.couplet;
  const low = log.evals.length ? Math.min(...log.evals.map((e) => e.valid_loss)) : null;
  return [
    ["Lowest validation loss", low === null ? EMPTY : number(low, 4)],
    ["Last training loss", last ? number(last.train_loss, 4) : EMPTY],
    ["Steps made", count(c.step)],
    ["Tokens seen", last ? count(last.tokens) : EMPTY],
    ["Time", c.started_at && job.finished_at ? duration(Math.max(1, job.finished_at - c.started_at)) : EMPTY],
  ];
}

function Differences({ logs, labels }) {
  const told = logs.map((log) => settingsOf(log.job)), came = logs.map(outcomes);
  const differing = told[0].map(([label], row) => [label, told.map((one) => one[row][1] ?? EMPTY)]).filter(([, texts]) => new Set(texts).size > 1);
  const files = new Set(logs.map((log) => log.job.training_file));
  const row = (label, cells) => html`<tr><th scope="row">${label}</th>${cells.map((cell) => html`<td>${cell}</td>`)}</tr>`;
  return html`<div class="table-scroll" tabindex="0" role="region" aria-label="What the runs were told and what came of it">
    <table class="job-differences"><thead><tr><td></td>${labels.map((label, i) => html`<th scope="col"><i class="job-swatch" style=${{ background: `var(${colour(i)})` }}></i>
      <a href=${linkTo("train", { job: logs[i].id })}>${label}</a></th>`)}</tr></thead>
    <tbody>
      ${row("Status", logs.map((log) => html`<${StatusTag} job=${log.job} />${log.active && html`<${JobProgress} job=${log.job} />`}`))}
      ${came[0].map(([label], r) => row(label, came.map((one) => one[r][1])))}
      <tr class="job-part"><th scope="rowgroup" colspan=${logs.length + 1}>${differing.length || files.size > 1 ? "Settings that differ"
        : "Their settings do not differ"}</th></tr>
      ${files.size > 1 && row("Training file", logs.map((log) => html`<${FileName} id=${log.job.training_file} />`))}
      ${differing.map(([label, texts]) => row(label, texts))}
    </tbody>
  </table></div>`;
}

function Chooser({ ids, logs, labels }) {
  const { data: page } = useAnswer("runs", (signal) => call("/v1/fine_tuning/jobs?limit=100", undefined, signal), true);
  const others = (page?.data ?? []).filter((job) => !ids.includes(job.id) && job.couplet.step > 0)
    .map((job) => [job.id, `${shortName(job)} · ${job.model}`]);
  return html`<div class="row" role="group" aria-label="Runs in the chart">
    ${logs.map((log, i) => html`<button type="button" class="chip" key=${log.id} title=${`Take ${labels[i]} out`}
        onClick=${() => showRuns(ids.filter((id) => id !== log.id))}>
      <i class="job-swatch" style=${{ background: `var(${colour(i)})` }}></i>${labels[i]} ×</button>`)}
    ${others.length > 0 && ids.length < MOST_COMPARED && html`<${Select} label="Add a run" value="" options=${[["", "Add a run…"], ...others]}
      onChange=${(id) => id && showRuns([...ids, id])} />`}
  </div>`;
}

export function CompareRuns({ ids: wanted }) {
  const ids = [...new Set(wanted)].slice(0, MOST_COMPARED);
  const { logs: all, version } = useLogs(ids);
  const [shown, setMetric] = useOneOf(METRICS, "metric"), [axis, setKind] = useAxis();
  const [logarithmic, setLogarithmic] = useState(false);
  const logs = all.filter((log) => log.job), labels = labelsOf(logs);
  const { x, series } = useMemo(() => together(logs, labels, shown, axis), [version, ids.join(), shown, axis]);
  if (logs.length === 0) return html`<${Card}><p class="hint" role="status">Reading the runs…</p><//>`;
  const tools = html`<${Segmented} label="Loss" value=${shown} options=${METRICS} onChange=${setMetric} />
    <${LogChip} on=${logarithmic} set=${setLogarithmic} />
    <${Segmented} label="Against" value=${axis} options=${AXES} onChange=${setKind} />`;
  return html`<${Card} title="Runs compared" id="compared" tools=${tools}>
    <${Chooser} ids=${ids} logs=${logs} labels=${labels} />
    ${x.values.length === 0 ? html`<${Empty} title="Nothing to draw">${NOTHING[shown]}<//>`
      : html`<${Chart} id="runs-chart" label=${`${METRICS.find(([one]) => one === shown)[1]} loss of the runs`} x=${x} series=${series} height=${340}
        log=${logarithmic} />`}
    <${Differences} logs=${logs} labels=${labels} />
  <//>`;
}
