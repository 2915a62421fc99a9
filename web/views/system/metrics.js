// SPDX-License-Identifier: MIT
// Prometheus text as values.

/** {value(name): the sum over its labels, samples(name): [{labels, value}]} */
export function parseMetrics(exposition) {
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
export function quantile(metrics, name, q) {
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
