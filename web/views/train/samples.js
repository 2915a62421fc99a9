// SPDX-License-Identifier: MIT
// What the model wrote while it learned: one step at a time by a slider, so that noise can be watched turning into words; and all of it, newest first.

import { count, plural } from "../../lib/format.js";
import { html, useMemo, useState } from "../../lib/html.js";
import { Card } from "../../lib/ui.js";

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

const Sample = ({ sample }) => html`<p class="job-sample"><span class="job-prompt">${sample.prompt}</span>${sample.text}</p>`;

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
      <input type="range" min="0" max=${steps.length - 1} step="1" value=${at} aria-label="Step of the samples" aria-valuetext=${`Step ${step}`} onInput=${move} />
      <span class="stats">${count(steps.at(-1)[0])}</span>
    </div>
    <${All} steps=${steps} />`}
    <p class="sr" role="status">${chosen === null ? "" : plural(some.length, "sample")}</p>
  <//>`;
}
