// SPDX-License-Identifier: MIT
// System: what this server is doing. Everything on it is read from /metrics, /version, /v1/models and the jobs list, every two seconds while somebody
// looks; the history of the charts is kept while the page is open.

import { call, text } from "../lib/api.js";
import { ago, bytes, count, duration, modelLabel, number, plural } from "../lib/format.js";
import { html, useState } from "../lib/html.js";
import { fail, isOver, listModels, models } from "../lib/server.js";
import { createStore, linkTo, useStore } from "../lib/store.js";
import { Card, Empty, Facts, usePolling } from "../lib/ui.js";
import { baseName, inOrder, shortName, StatusTag } from "./train/run.js";

// ---------------------------------------------------------------- metrics
// Prometheus text as values.

/** {value(name): the sum over its labels, samples(name): [{labels, value}]} */
function parseMetrics(exposition) {
  const all = new Map();
  for (const line of exposition.split("\n")) {
    const found = /^([A-Za-z_:][\w:]*)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (!found) continue;
    const [, name, inside = "", value] = found;
    const labels = Object.fromEntries([...inside.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(([, key, text]) => [key, text]));
    if (!all.has(name)) all.set(name, []);
    all.get(name).push({ labels, value: value === "+Inf" ? Infinity : Number(value) });
  }
  const samples = (name) => all.get(name) ?? [];
  return { samples, value: (name) => samples(name).reduce((sum, s) => sum + (Number.isFinite(s.value) ? s.value : 0), 0) };
}

/** The q-th quantile of a histogram, linear inside its bucket; NaN: nothing was counted. */
function quantile(metrics, name, q) {
  const buckets = metrics.samples(`${name}_bucket`).map((s) => [s.labels.le === "+Inf" ? Infinity : Number(s.labels.le), s.value]);
  const total = buckets.at(-1)?.[1] ?? 0;
  if (total === 0) return NaN;
  let below = 0, from = 0;
  for (const [le, upTo] of buckets) {
    if (upTo >= q * total) return Number.isFinite(le) ? from + ((le - from) * (q * total - below)) / Math.max(1, upTo - below) : from;
    below = upTo;
    from = le;
  }
  return from;
}

// ---------------------------------------------------------------- a small chart
// A small chart of what one number did lately.

const WIDTH = 240, HEIGHT = 56;

function Spark({ title, values, format, seconds }) {
  const top = Math.max(...values, 0), now = values.at(-1);
  const step = WIDTH / Math.max(1, values.length - 1), y = (v) => HEIGHT - 2 - (top > 0 ? (v / top) * (HEIGHT - 6) : 0);
  const line = values.map((v, i) => `${i ? "L" : "M"}${(i * step).toFixed(1)} ${y(v).toFixed(1)}`).join("");
  const known = values.length > 0;
  return html`<figure class="spark card">
    <figcaption><span>${title}</span><strong>${known ? format(now) : "–"}</strong></figcaption>
    <svg viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" role="img"
      aria-label=${known ? `${title}: ${format(now)} now, at most ${format(top)} in the last ${duration(seconds)}` : `${title}: not known yet`}>
      ${values.length > 1 && html`<path class="spark-area" d=${`${line}L${WIDTH} ${HEIGHT}L0 ${HEIGHT}Z`} /><path class="spark-line" d=${line} />`}
    </svg>
    <p class="stats">${values.length > 1 ? `peak ${format(top)}, ${duration(seconds)}` : ""}</p>
  </figure>`;
}

// ---------------------------------------------------------------- the view

const EVERY_MS = 2000;
const KEPT = 180; // six minutes
const history = createStore([]); // [{at (seconds), metrics}]

/** Change of a counter per second between the last two looks, at every look. */
function rates(looks, name) {
  return looks.slice(1).map((look, i) => {
    const before = looks[i], seconds = look.at - before.at;
    return seconds > 0 ? Math.max(0, (look.metrics.value(name) - before.metrics.value(name)) / seconds) : 0;
  });
}
const levels = (looks, name) => looks.map((look) => look.metrics.value(name));

async function look(setState) {
  try {
    const [metrics, jobs, version] = await Promise.all([text("/metrics"), call("/v1/fine_tuning/jobs?limit=20").catch(() => null), call("/version")]);
    history.set((all) => [...all.slice(1 - KEPT), { at: performance.now() / 1000, metrics: parseMetrics(metrics) }]);
    setState({ jobs: jobs?.data ?? null, version, failed: false });
  } catch (error) {
    setState((s) => {
      if (!s.failed) fail(error, listModels); // once, not every two seconds
      return { ...s, failed: true };
    });
  }
}

function ModelTable({ list }) {
  return html`<div class="table-scroll" tabindex="0" role="region" aria-label="Models"><table>
    <thead><tr><th>model</th><th>kind</th><th>architecture</th><th class="num">parameters</th><th>weights</th><th class="num">memory</th><th class="num">context</th></tr></thead>
    <tbody>${list.map((m) => html`<tr>
      <td><a href=${linkTo("complete", { model: m.id })} title=${m.id}>${modelLabel(m.id)}</a></td>
      <td>${m.couplet?.adapter ? "adapter" : "whole"}${m.couplet?.origin && m.couplet.origin !== "served" ? `, ${m.couplet.origin}` : ""}</td>
      <td>${m.meta ? `${m.meta.architecture}, ${m.meta.n_layer} × ${m.meta.n_head} heads, ${m.meta.n_embd} wide` : "not loaded yet"}</td>
      <td class="num">${m.meta ? `${number(m.meta.n_params / 1e6)} M` : "–"}</td>
      <td>${m.meta ? `${m.meta.weights} (${m.meta.format})` : "–"}</td>
      <td class="num">${m.couplet?.loaded ? bytes(m.couplet.bytes) : "0 B"}</td>
      <td class="num">${m.max_model_len ? count(m.max_model_len) : "–"}</td></tr>`)}</tbody>
  </table></div>`;
}

function Queue({ jobs }) {
  if (jobs === null) return html`<p class="hint">This key may not see jobs.</p>`;
  const active = inOrder(jobs.filter((job) => !isOver(job)));
  if (active.length === 0) return html`<${Empty} title="No job is waiting or running">A fine-tune runs in the background and gives way to requests. <a href="#train">Start one in Train.</a><//>`;
  return html`<ul class="system-queue">${active.map((job) => html`<li><a href=${linkTo("train", { job: job.id })}>${shortName(job)}</a> <${StatusTag} job=${job} />
    <span class="stats">${baseName(job)}${job.couplet?.step ? ` · step ${job.couplet.step} of ${job.couplet.total_steps}` : ""} · ${ago(job.created_at)}</span></li>`)}</ul>`;
}

export default function System() {
  const looks = useStore(history), list = useStore(models, (m) => m.list);
  const [state, setState] = useState({ jobs: null, version: null, failed: false });
  usePolling(() => look(setState), EVERY_MS);
  const now = looks.at(-1)?.metrics;
  if (!now || !state.version) return html`<${Card}><p class="hint">Asking the server…</p><//>`;
  const up = Date.now() / 1000 - now.value("process_start_time_seconds");
  const share = now.value("couplet:prefix_cache_hits_total") / Math.max(1, now.value("couplet:prefix_cache_queries_total"));
  const charts = [
    ["Tokens written a second", rates(looks, "couplet:generation_tokens_total"), number],
    ["Prompt tokens read a second", rates(looks, "couplet:prompt_tokens_total"), number],
    ["Requests running", levels(looks, "couplet:num_requests_running"), count],
    ["Requests waiting", levels(looks, "couplet:num_requests_waiting"), count],
    ["Memory of the program", levels(looks, "process_resident_memory_bytes"), bytes],
    ["KV cache in use", levels(looks, "couplet:kv_cache_usage_perc").map((x) => x * 100), (x) => `${number(x)}%`],
    ["Processor, of one core", rates(looks, "process_cpu_seconds_total").map((x) => x * 100), (x) => `${x.toFixed(0)}%`],
    ["Training tokens a second", rates(looks, "couplet:ft_tokens_total"), number],
  ];
  const latency = (name) => ["0.5", "0.95"].map((q) => duration(quantile(now, name, Number(q)))).join(" / ");
  return html`<div class="stack">
    <${Card} title="This server">
      <${Facts} items=${[["Version", state.version.version], ["Processor kernels", state.version.isa], ["Up for", duration(up)],
        ["Running", plural(now.value("couplet:num_requests_running"), "request")], ["Waiting", plural(now.value("couplet:num_requests_waiting"), "request")],
        ["Memory", bytes(now.value("process_resident_memory_bytes"))], ["KV cache", bytes(now.value("couplet:kv_cache_bytes"))],
        ["Prompt tokens from cache", `${(100 * share).toFixed(0)}%`], ["First token, p50 / p95", latency("couplet:time_to_first_token_seconds"), "Since the server started, from the histogram's buckets"],
        ["Between tokens, p50 / p95", latency("couplet:inter_token_latency_seconds")], ["Open connections", count(now.value("couplet:http_connections"))]]} />
      ${state.failed && html`<p class="bad" role="status">The server does not answer; what is shown is its last word.</p>`}
    <//>
    <div class="system-charts">${charts.map(([title, values, format]) => html`<${Spark} title=${title} values=${values} format=${format} seconds=${(looks.length - 1) * (EVERY_MS / 1000)} />`)}</div>
    <div class="columns"><${Card} title="Training queue"><${Queue} jobs=${state.jobs} /><//></div>
    <${Card} title="Models" tools=${html`<button type="button" class="quiet" onClick=${listModels}>Read again</button>`}>
      ${list.length ? html`<${ModelTable} list=${list} />` : html`<p class="hint">No model is served.</p>`}
    <//>
    <p class="hint">Everything here and more is in <a href="/metrics" target="_blank" rel="noopener">/metrics</a>, for Prometheus; the interface is described in <a href="/openapi.json" target="_blank" rel="noopener">/openapi.json</a>.</p>
  </div>`;
}
