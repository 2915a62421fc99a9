// SPDX-License-Identifier: MIT
// A training run as a slider: the same prompt, answered by the base, every checkpoint and the result. Each answer is asked for once and kept.

import { count, modelLabel } from "../../lib/format.js";
import { html, useEffect, useState } from "../../lib/html.js";
import { sampling, seedOr } from "../../lib/sampling.js";
import { models } from "../../lib/server.js";
import { createStore, useParam, useStore } from "../../lib/store.js";
import { tint, TokenLog, TokenText } from "../../lib/token_text.js";
import { Card, Select, useSettled } from "../../lib/ui.js";
import { prompt } from "../complete/run.js";
import { asChat, differences, fill, names, newColumn } from "./run.js";

const NOTHING = new TokenLog();
const SEED = 1; // one seed for the whole run where none is set: what differs comes from what was learned
const stepOf = (id) => Number(/:ckpt-step-(\d+)$/.exec(id)?.[1]);

const replay = createStore({ busy: null, round: 0 }); // busy: the model that is answering
const answers = new Map(); // prompt -> model and settings -> column
let control = null;

/** The runs that have checkpoints: [{job, name, stops: [{model, label}]}]. */
export function runsOf(list) {
  const jobs = new Map();
  for (const model of list.filter((m) => m.couplet?.origin === "checkpoint")) {
    jobs.set(model.couplet.job, [...(jobs.get(model.couplet.job) ?? []), model]);
  }
  return [...jobs].map(([job, checkpoints]) => {
    checkpoints.sort((a, b) => stepOf(a.id) - stepOf(b.id));
    const base = list.find((m) => m.id === checkpoints[0].parent);
    const end = list.find((m) => m.couplet?.job === job && ["result", "live"].includes(m.couplet.origin));
    const stops = [
      base && { model: base.id, label: "before training" },
      ...checkpoints.map((m) => ({ model: m.id, label: `step ${count(stepOf(m.id))}` })),
      end && { model: end.id, label: end.couplet.origin === "live" ? "newest weights" : "the result" },
    ].filter(Boolean);
    return { job, name: checkpoints[0].id.replace(/:ckpt-step-\d+$/, ""), stops };
  });
}

const keyOf = (model) => JSON.stringify([model, asChat.get(), sampling.get()]); // the prompt may be long, and this is asked at every key
const kept = (model) => answers.get(prompt.get())?.get(keyOf(model));

/** The kept answer of a model to the prompt and settings as they are; asked for where it is missing and `ask` is set. */
async function look(model, ask) {
  const key = keyOf(model), here = answers.get(prompt.get()) ?? new Map(), old = here.get(key);
  const again = model.endsWith(":live") || old?.problem; // its weights are new ones every time; a refusal may pass
  if (!ask || (old && !again) || prompt.get() === "") return old ?? null;
  control?.abort();
  const mine = control = new AbortController(), column = newColumn();
  answers.set(prompt.get(), here.set(key, column));
  replay.set((now) => ({ busy: model, round: now.round + 1 }));
  await fill(column, model, seedOr(SEED), mine.signal);
  if (mine.signal.aborted) here.delete(key); // moved on before it was whole
  if (control === mine) control = null;
  replay.set((now) => ({ busy: now.busy === model ? null : now.busy, round: now.round + 1 }));
  return column;
}

function Stop({ stops, at }) {
  const now = useStore(replay), colour = useStore(tint), { model, label } = stops[at];
  useStore(prompt);
  const column = kept(model), before = stops.slice(0, at).findLast((stop) => kept(stop.model) && stop.model !== now.busy);
  const running = now.busy === model;
  const found = column && before && !running ? differences(names(kept(before.model).log), names(column.log)) : null;
  const beside = !found ? "" : found.b.size + found.a.size === 0 ? `the same as ${before.label} · ` : `underlined: not as ${before.label} · `;
  const key = `${at}.${found ? before.model : ""}.${running}`;
  return html`<div class="compare-stop">
    <${TokenText} key=${model} log=${column?.log ?? NOTHING} model=${model} colour=${colour} label=${`The answer ${label}`} running=${running}
      redraw=${key} mark=${(index) => (found?.b.has(index) ? "differs" : "")} />
    ${!column && html`<p class="hint">${prompt.get() === "" ? "Write a prompt above." : "Not asked yet with this prompt and these settings."}</p>`}
    ${column?.problem && html`<p class="compare-problem" role="alert">${column.problem}</p>`}
    <p class="stats" role="status">${beside}${column?.stats ?? ""}</p>
  </div>`;
}

export function TrainingRun() {
  const runs = runsOf(useStore(models, (m) => m.list)), now = useStore(replay);
  const [job, setJob] = useParam("job");
  const [at, setAt] = useState(0);
  const run = runs.find((one) => one.job === job) ?? runs[0];
  const settled = useSettled(`${run?.job} ${at}`, 250), stops = run?.stops ?? [], here = Math.min(at, stops.length - 1);
  const [moved, setMoved] = useState(false);
  useEffect(() => { if (moved && run) look(stops[here].model, true); }, [settled]);
  if (!run) {
    return html`<${Card} title="Through a training run"><p class="hint">When a fine-tuning job has left checkpoints,
      a slider here shows how the same prompt was answered on the way:${" "}
      <a href="#train">Train</a> makes them.</p><//>`;
  }
  const everything = async () => {
    for (let i = 0; i < stops.length; i++) {
      setAt(i);
      const column = await look(stops[i].model, true);
      if (!column || column.problem || column.stats.endsWith("stopped")) return;
    }
  };
  return html`<${Card} title="Through a training run" className="compare-run">
    <div class="row">
      <${Select} label="Training run" visibleLabel=${true} value=${run.job} options=${runs.map((one) => [one.job, modelLabel(one.name)])}
        onChange=${(to) => { setJob(to); setAt(0); }} />
      <button id="replay" type="button" disabled=${now.busy !== null} onClick=${everything}>Replay all</button>
      ${now.busy !== null && html`<button type="button" onClick=${() => control?.abort()}>Stop</button>`}
    </div>
    <div class="compare-slider">
      <input type="range" min="0" max=${stops.length - 1} step="1" value=${here} aria-label="Checkpoint" aria-valuetext=${stops[here].label}
        onInput=${(e) => { setMoved(true); setAt(Number(e.target.value)); }} />
      <output>${stops[here].label}</output>
    </div>
    <${Stop} stops=${stops} at=${here} />
  <//>`;
}
