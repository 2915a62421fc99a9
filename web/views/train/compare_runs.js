// SPDX-License-Identifier: MIT
// Up to six runs in one chart, and a table of what they were told differently and what came of it. The runs stand in the address.

import { call } from "../../lib/api.js";
import { Chart } from "../../lib/chart.js";
import { count, duration, number } from "../../lib/format.js";
import { html, useEffect, useMemo, useReducer, useState } from "../../lib/html.js";
import { fail } from "../../lib/server.js";
import { linkTo, setParams, useParam } from "../../lib/store.js";
import { Card, Empty, Segmented, Select, usePolling } from "../../lib/ui.js";
import { AXES, axisOf, column, rowsOfLog, smoothed } from "./chart.js";
import { FileName, JobProgress, shortName, StatusTag } from "./control.js";
import { jobLog } from "./log.js";
import { settingsOf } from "./as_run.js";

const MOST = 6, POLL_MS = 2500;
const METRICS = [
  ["valid_loss", "Validation", "On texts that it does not learn from"],
  ["train_loss", "Training", "On the texts that it learns from, as a moving mean"],
];
const NOTHING = { valid_loss: "None of these runs held texts out to measure on. Look at the training loss instead.", train_loss: "None of these runs has made a step yet." };
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
    ["Steps", count(c.step)],
    ["Tokens seen", last ? count(last.tokens) : EMPTY],
    ["Time", c.started_at && job.finished_at ? duration(Math.max(1, job.finished_at - c.started_at)) : EMPTY],
  ];
}

function Differences({ logs, labels }) {
  const told = logs.map((log) => settingsOf(log.job)), came = logs.map(outcomes);
  const differing = told[0].map(([label], row) => [label, told.map((one) => one[row][1] ?? EMPTY)]).filter(([, texts]) => new Set(texts).size > 1);
  const files = new Set(logs.map((log) => log.job.training_file));
  const row = (label, cells) => html`<tr><th scope="row">${label}</th>${cells.map((cell) => html`<td>${cell}</td>`)}</tr>`;
  return html`<div class="table-scroll" tabindex="0" role="region" aria-label="What the runs were told and what came of it"><table class="job-differences">
    <thead><tr><td></td>${labels.map((label, i) => html`<th scope="col"><i class="job-swatch" style=${{ background: `var(${colour(i)})` }}></i>
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
  const [runs, setRuns] = useState([]);
  useEffect(() => {
    const read = () => call("/v1/fine_tuning/jobs?limit=100").then((page) => setRuns(page.data), (error) => fail(error, read));
    read();
  }, []);
  const others = runs.filter((job) => !ids.includes(job.id) && job.couplet.step > 0).map((job) => [job.id, `${shortName(job)} · ${job.model}`]);
  return html`<div class="row" role="group" aria-label="Runs in the chart">
    ${logs.map((log, i) => html`<button type="button" class="chip" key=${log.id} title=${`Take ${labels[i]} out`}
        onClick=${() => showRuns(ids.filter((id) => id !== log.id))}>
      <i class="job-swatch" style=${{ background: `var(${colour(i)})` }}></i>${labels[i]} ×</button>`)}
    ${others.length > 0 && ids.length < MOST && html`<${Select} label="Add a run" value="" options=${[["", "Add a run…"], ...others]}
      onChange=${(id) => id && showRuns([...ids, id])} />`}
  </div>`;
}

export function CompareRuns({ ids: wanted }) {
  const ids = [...new Set(wanted)].slice(0, MOST);
  const { logs: all, version } = useLogs(ids);
  const [metric, setMetric] = useParam("metric", "valid_loss"), [kind, setKind] = useParam("x", "step");
  const [logarithmic, setLogarithmic] = useState(false);
  const logs = all.filter((log) => log.job);
  const labels = labelsOf(logs);
  const shown = METRICS.some(([one]) => one === metric) ? metric : "valid_loss", axis = AXES.some(([one]) => one === kind) ? kind : "step";
  const { x, series } = useMemo(() => together(logs, labels, shown, axis), [version, ids.join(), shown, axis]);
  if (logs.length === 0) return html`<${Card}><p class="hint" role="status">Reading the runs…</p><//>`;
  const tools = html`<${Segmented} label="Loss" value=${shown} options=${METRICS} onChange=${setMetric} />
    <button type="button" class="chip" aria-pressed=${logarithmic ? "true" : "false"} onClick=${() => setLogarithmic(!logarithmic)}>Log</button>
    <${Segmented} label="Against" value=${axis} options=${AXES} onChange=${setKind} />`;
  return html`<${Card} title="Runs compared" id="compared" tools=${tools}>
    <${Chooser} ids=${ids} logs=${logs} labels=${labels} />
    ${x.values.length === 0 ? html`<${Empty} title="Nothing to draw">${NOTHING[shown]}<//>`
      : html`<${Chart} id="runs-chart" label=${`${METRICS.find(([one]) => one === shown)[1]} loss of the runs`} x=${x} series=${series} height=${340} log=${logarithmic} />`}
    <${Differences} logs=${logs} labels=${labels} />
  <//>`;
}
