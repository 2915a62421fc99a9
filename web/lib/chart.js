// SPDX-License-Identifier: MIT
// A line chart: uPlot draws it, all that is read is HTML: the legend with the values under the cursor, a summary in words, a table of the numbers.
//
// The only importer of uPlot, which comes when the first chart is drawn. Long series are thinned for drawing; legend and table read the whole ones.

import { number } from "./format.js";
import { html, useEffect, useId, useMemo, useRef, useState } from "./html.js";
import { createStore, useStore } from "./store.js";

const MOST_DRAWN = 1600, MOST_ROWS = 60;
const FONT = "12px system-ui, sans-serif";
const WHOLE = Array.from({ length: 13 }, (_, e) => [1, 2, 5].map((m) => m * 10 ** e)).flat(); // ticks between which there is no half step

let loading = null;
function library() {
  loading ??= import("/vendor/uplot.js").then((module) => {
    document.head.append(Object.assign(document.createElement("link"), { rel: "stylesheet", href: "/vendor/uplot.css" }));
    return module.default;
  });
  return loading;
}

// ---------------------------------------------------------------- colours

const colours = new Map(); // "--c1" -> what a canvas takes; emptied when the theme changes
export const theme = createStore(0); // how often it has changed
const themeChanged = () => { colours.clear(); theme.set((n) => n + 1); };
new MutationObserver(themeChanged).observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", themeChanged);

/** A colour variable of style.css as it is now: light-dark() is resolved only where a colour is used. */
export function colourOf(name) {
  if (!colours.has(name)) {
    const probe = document.body.appendChild(document.createElement("i"));
    probe.style.color = `var(${name})`;
    colours.set(name, getComputedStyle(probe).color);
    probe.remove();
  }
  return colours.get(name);
}

// ---------------------------------------------------------------- numbers

/** At most `most` points: of each stretch the lowest and the highest value of every series, in their order. */
export function thin(xs, columns, most = MOST_DRAWN) {
  if (xs.length <= most) return [xs, ...columns];
  const stretch = Math.ceil(xs.length / (most / 2));
  const outX = [], out = columns.map(() => []);
  for (let from = 0; from < xs.length; from += stretch) {
    const to = Math.min(from + stretch, xs.length);
    outX.push(xs[from], xs[to - 1]);
    columns.forEach((column, c) => {
      let low = -1, high = -1;
      for (let i = from; i < to; i++) {
        if (column[i] === null) continue;
        if (low < 0 || column[i] < column[low]) low = i;
        if (high < 0 || column[i] > column[high]) high = i;
      }
      if (low < 0) out[c].push(null, null);
      else if (low === high) out[c].push(...(low - from < to - low ? [column[low], null] : [null, column[low]]));
      else out[c].push(column[Math.min(low, high)], column[Math.max(low, high)]);
    });
  }
  return [outX, ...out];
}

function nearest(xs, x) {
  let low = 0, high = xs.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (xs[middle] < x) low = middle + 1;
    else high = middle;
  }
  return low > 0 && x - xs[low - 1] < xs[low] - x ? low - 1 : low;
}

/** The last value at or before `index`: what a sparse series says there. */
function valueAt(values, index) {
  for (let i = index; i >= 0; i--) if (values[i] !== null) return values[i];
  return null;
}

const format = (series, value) => (value === null || value === undefined ? "–" : (series.format ?? number)(value));

/** "Training 5.06 to 2.43, lowest 2.31; ..." */
function inWords(x, series) {
  const parts = series.map((s) => {
    const some = s.values.filter((v) => v !== null);
    if (some.length === 0) return null;
    if (some.length === 1) return `${s.label} ${format(s, some[0])}`;
    const low = some.reduce((a, b) => Math.min(a, b)), high = some.reduce((a, b) => Math.max(a, b));
    return `${s.label} from ${format(s, some[0])} to ${format(s, some.at(-1))}, lowest ${format(s, low)}, highest ${format(s, high)}`;
  }).filter(Boolean);
  if (parts.length === 0) return "No values yet.";
  return `${parts.join("; ")}, over ${x.label} ${format(x, x.values[0])} to ${format(x, x.values.at(-1))}.`;
}

// ---------------------------------------------------------------- drawing

function logTicks(min, max) {
  const ticks = [];
  if (max / min < 8) {
    const rough = (max - min) / 4, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
    for (let k = Math.ceil(min / step); k * step <= max; k++) ticks.push(k * step);
    return ticks;
  }
  for (let e = Math.floor(Math.log10(min)); e <= Math.log10(max); e++) {
    for (const m of [1, 2, 5]) if (m * 10 ** e >= min && m * 10 ** e <= max) ticks.push(m * 10 ** e);
  }
  return ticks;
}

function scaleOfY(log) {
  if (!log) return {};
  return { distr: 3, log: 10, range: (_, min, max) => (min === null || !(min > 0) ? [1, 10] : [min / 1.06, max * 1.06]) };
}

function axesOf({ x, log, small, ySeries }) {
  const base = { stroke: () => colourOf("--soft"), font: FONT, ticks: { show: false }, grid: { stroke: () => colourOf("--line"), width: 1 } };
  const across = { ...base, space: 64, size: small ? 24 : 28, gap: 6, values: (_, at) => at.map((v) => format(x, v)),
    ...(x.whole ? { incrs: WHOLE } : {}), ...(small ? {} : { label: x.label, labelFont: FONT, labelSize: 20, labelGap: 0 }) };
  const up = { ...base, space: small ? 22 : 40, gap: 6, values: (_, at) => at.map(ySeries.short ?? ((v) => format(ySeries, v))),
    size: (_, texts) => 14 + 7 * Math.max(3, ...(texts ?? []).map((t) => t.length)) };
  if (log) Object.assign(up, { splits: (_, __, min, max) => logTicks(min, max), filter: (_, at) => at });
  return [across, up];
}

function seriesOf(s, show) {
  return {
    label: s.label, show, stroke: () => colourOf(s.colour), width: s.width ?? 1.75, dash: s.dash, alpha: s.faint ? 0.35 : 1, spanGaps: true,
    points: { show: s.points || s.values.length < 3 ? true : undefined, size: 6, fill: () => colourOf(s.colour), stroke: () => colourOf(s.colour) },
  };
}

const dataOf = ({ x, series, log }) => thin(x.values, series.map((s) => (log ? s.values.map((v) => (v > 0 ? v : null)) : s.values)));

/** uPlot in `host`, as `look.current` says; `look` is the component's newest props. */
function makePlot(Plot, host, look, { hidden, cursor, setZoomed }) {
  const { x, series, height, log, small, sync } = look.current;
  return new Plot({
    width: Math.max(host.clientWidth, 80), height,
    padding: [8, 16, 0, 0],
    legend: { show: false },
    cursor: { y: false, points: { size: 7 }, drag: { x: true, y: false, setScale: true }, sync: sync ? { key: sync } : undefined },
    scales: { x: { time: false }, y: scaleOfY(log) },
    axes: axesOf({ x, log, small, ySeries: series[0] ?? {} }),
    series: [{ label: x.label }, ...series.map((s) => seriesOf(s, !hidden.has(s.label)))],
    hooks: {
      setCursor: [(u) => cursor.set(u.cursor.left >= 0 ? u.posToVal(u.cursor.left, "x") : null)],
      setSelect: [(u) => { if (u.select.width > 0) setZoomed(true); }],
    },
  }, dataOf(look.current), host);
}

function usePlot(props, hidden, cursor) {
  const host = useRef(), plot = useRef(null), look = useRef();
  const [Plot, setPlot] = useState(null), [zoomed, setZoomed] = useState(false), [lost, setLost] = useState(false);
  look.current = props;
  const { x, series, height, log, small, sync } = props;
  const shape = JSON.stringify([x.label, x.whole, height, log, small, sync,
    series.map((s) => [s.label, s.colour, s.dash, s.points, s.faint, s.width])]);
  useEffect(() => { library().then((module) => setPlot(() => module), () => setLost(true)); }, []);
  useEffect(() => {
    if (!Plot) return undefined;
    const u = plot.current = makePlot(Plot, host.current, look, { hidden, cursor, setZoomed });
    setZoomed(false);
    const sized = new ResizeObserver(() => {
      const width = host.current?.clientWidth ?? 0;
      if (width > 0 && width !== u.width) u.setSize({ width, height });
    });
    sized.observe(host.current);
    const stop = theme.subscribe(() => u.redraw(false));
    return () => { stop(); sized.disconnect(); u.destroy(); plot.current = null; };
  }, [Plot, shape]);
  useEffect(() => { plot.current?.setData(dataOf(look.current), !zoomed); }, [x.values, ...series.map((s) => s.values)]);
  useEffect(() => { series.forEach((s, i) => plot.current?.setSeries(i + 1, { show: !hidden.has(s.label) })); }, [hidden]);
  const whole = () => { setZoomed(false); plot.current?.setData(dataOf(look.current), true); };
  return { host, plot, zoomed, whole, lost };
}

// ---------------------------------------------------------------- what is read

function Legend({ x, series, cursor, hidden, toggle }) {
  const at = useStore(cursor);
  const last = x.values.length - 1;
  const index = at === null || last < 0 ? last : nearest(x.values, at);
  return html`<div class="chart-legend">
    <span class="chart-at stats">${x.label} ${index < 0 ? "–" : format(x, x.values[index])}</span>
    ${series.filter((s) => !s.quiet).map((s) => html`<button type="button" class="chart-entry" aria-pressed=${hidden.has(s.label) ? "false" : "true"}
        title=${hidden.has(s.label) ? `Show ${s.label}` : `Hide ${s.label}`} onClick=${() => toggle(s)}>
      <i class=${s.dash ? "dashed" : ""} style=${{ borderColor: `var(${s.colour})` }}></i><span>${s.label}</span>
      <b data-series=${s.label}>${format(s, index < 0 ? null : valueAt(s.values, index))}</b>
    </button>`)}
  </div>`;
}

/** Rows spread over the whole, and those where the sparsest series has a value before others. */
function rowsOf(x, series) {
  const n = x.values.length;
  const filled = series.map((s) => s.values.flatMap((v, i) => (v === null ? [] : [i])));
  const sparse = filled.filter((f) => f.length > 1).sort((a, b) => a.length - b.length)[0] ?? [];
  const rows = new Set(sparse.length <= MOST_ROWS / 2 ? sparse : []);
  const spread = Math.max(2, MOST_ROWS - rows.size);
  for (let i = 0; i < Math.min(spread, n); i++) rows.add(n <= spread ? i : Math.round((i * (n - 1)) / (spread - 1)));
  return [...rows].sort((a, b) => a - b);
}

function Numbers({ label, x, series }) {
  const [open, setOpen] = useState(false);
  const seen = series.filter((s) => !s.quiet);
  return html`<details class="chart-numbers" onToggle=${(event) => setOpen(event.target.open)}>
    <summary>Numbers</summary>
    ${open && html`<div class="table-scroll" tabindex="0" role="region" aria-label=${`${label}: numbers`}><table>
      <thead><tr><th class="num" scope="col">${x.label}</th>${seen.map((s) => html`<th class="num" scope="col">${s.label}</th>`)}</tr></thead>
      <tbody>${rowsOf(x, seen).map((i) => html`<tr key=${i}><td class="num">${format(x, x.values[i])}</td>
        ${seen.map((s) => html`<td class="num">${s.values[i] === null ? "" : format(s, s.values[i])}</td>`)}</tr>`)}</tbody>
    </table></div>`}
  </details>`;
}

/**
 * x: {label, values (rising), format?, whole?: no fractions}. series: [{label, values (null: none), colour: "--c1", format?, short? (for the axis),
 * points?, dash?, faint?, width?, quiet? (not in the legend)}]; `values` arrays are compared by identity. log: logarithmic; sync: charts with the
 * same word share a cursor; small: no axis title, no table.
 */
export function Chart({ label, x, series, height = 280, log = false, small = false, sync, id }) {
  const cursor = useMemo(() => createStore(null), []);
  const [hidden, setHidden] = useState(() => new Set());
  const help = useId();
  const { host, plot, zoomed, whole, lost } = usePlot({ x, series, height, log, small, sync }, hidden, cursor);
  const toggle = (s) => setHidden((now) => { const next = new Set(now); if (!next.delete(s.label)) next.add(s.label); return next; });
  const onKey = (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key], u = plot.current;
    if (!step || !u || event.target !== event.currentTarget || x.values.length === 0) return;
    event.preventDefault();
    const now = cursor.get() === null ? x.values.length - 1 - step : nearest(x.values, cursor.get());
    const next = Math.min(Math.max(now + step, 0), x.values.length - 1);
    u.setCursor({ left: u.valToPos(x.values[next], "x"), top: 0 });
  };
  return html`<div class=${`chart ${small ? "small" : ""}`} id=${id} role="group" aria-label=${label} aria-describedby=${help} tabindex="0"
      onKeyDown=${onKey}>
    <${Legend} x=${x} series=${series} cursor=${cursor} hidden=${hidden} toggle=${toggle} />
    <div class="chart-plot" ref=${host} role="img" aria-label=${`${label}. ${inWords(x, series)}`} style=${{ minHeight: `${height}px` }}></div>
    <span class="sr" id=${help}>Left and right arrow keys move along the chart.</span>
    ${zoomed && html`<button type="button" class="quiet chart-whole" onClick=${whole}>Show all</button>`}
    ${lost && html`<p class="hint">The chart did not load. The numbers below are whole.</p>`}
    ${!small && html`<${Numbers} label=${label} x=${x} series=${series} />`}
  </div>`;
}
