// SPDX-License-Identifier: MIT
// What training would see of a file: its rows and tokens, its problems with what to do about them, and its first rows with the mask.

import { ApiError, call, explain } from "../../lib/api.js";
import { count, plural } from "../../lib/format.js";
import { html, useEffect, useMemo, useState } from "../../lib/html.js";
import { Facts, useSettled } from "../../lib/ui.js";
import { fileRows } from "./files.js";

const SHOWN_PROBLEMS = 8;

/** What to do about a problem, by how the server words it. */
const ADVICE = [
  [/unknown key/, "Rename the key, or take it out: a row has the keys of one kind, listed under “What a file may hold”."],
  [/keys of two kinds|a row has|without/, "Give each row the keys of one kind: prompt and completion; instruction and output; messages; or text."],
  [/is empty/, "Fill it in, or delete the row."],
  [/the same as line/, "It counts twice. Delete one of them unless you mean it."],
  [/of which the context of/, "Shorten the row, raise the context length, or choose under “Long rows” to cut or to leave out."],
  [/not UTF-8|NUL byte/, "Save the file as UTF-8 text and drop it again."],
  [/chat template/, "Choose a base with a chat template, or write the rows as prompt and completion."],
  [/assistant/, "A conversation begins with the user or the system and ends with the assistant's answer."],
  [/no tokenizer/, "Choose another base."],
  [/outside the model's vocabulary/, "These ids belong to another tokenizer. Choose its model as the base."],
  [/^(line \d+, )?column \d+|expected|JSON/, "The row is no valid JSON there: look at the quotes, commas and brackets."],
  [/too short|shortest|two are the least/, "Add text: there must be something to read and something to learn."],
];
export const advice = (message) => ADVICE.find(([pattern]) => pattern.test(message))?.[1] ?? "";

/** {report, error} of a file as the settings would have it read; both null while it is being read. */
export function useReport(file, settings) {
  const query = useSettled(file && new URLSearchParams(Object.entries(settings).filter(([, v]) => v)).toString(), 250);
  const [state, setState] = useState({ key: null, report: null, error: null });
  const key = file && `${file}?${query}`;
  useEffect(() => {
    if (!file || query === null) return undefined;
    const control = new AbortController();
    call(`/v1/files/${encodeURIComponent(file)}/report?${query}`, undefined, control.signal).then((report) => {
      fileRows.patch({ [file]: report.format === "text" ? "a text" : plural(report.rows, "row") });
      setState({ key, report, error: null });
    }, (error) => { if (error.name !== "AbortError") setState({ key, report: null, error }); });
    return () => control.abort();
  }, [key]);
  return { ...state, stale: state.key !== key };
}

function Problem({ problem }) {
  const what = advice(problem.message);
  return html`<li class=${problem.fatal ? "fatal" : ""}>
    <span class="tag ${problem.fatal ? "bad" : ""}">${problem.fatal ? "must be mended" : "note"}</span>
    ${" "}${problem.line !== null && html`<b>Line ${count(problem.line)}: </b>`}${problem.message}${/[.!?]$/.test(problem.message) ? "" : "."}
    ${what && html` <span class="hint">${what}</span>`}
  </li>`;
}

function Problems({ report }) {
  const [all, setAll] = useState(false);
  const list = [...report.problems].sort((a, b) => b.fatal - a.fatal);
  const fatal = list.filter((p) => p.fatal).length;
  if (list.length === 0) return html`<p class="train-good">No problem found.</p>`;
  return html`<div class="train-problems">
    <h3>${fatal ? `${plural(fatal, "problem")} to mend before this can be trained on` : plural(report.n_problems, "note")}</h3>
    <ul>${list.slice(0, all ? list.length : SHOWN_PROBLEMS).map((p) => html`<${Problem} problem=${p} />`)}</ul>
    ${list.length > SHOWN_PROBLEMS && !all && html`<button type="button" class="quiet" onClick=${() => setAll(true)}>Show ${list.length - SHOWN_PROBLEMS} more</button>`}
    ${all && report.n_problems > list.length && html`<p class="hint">and ${count(report.n_problems - list.length)} more.</p>`}
  </div>`;
}

/** Tokens of one kind behind one another: [{supervised, tokens, broken}]; broken: one of them is no whole character. */
function runsOf(tokens) {
  const runs = [];
  for (const t of tokens) {
    if (runs.at(-1)?.supervised !== t.supervised) runs.push({ supervised: t.supervised, tokens: [], broken: false });
    runs.at(-1).tokens.push(t);
    runs.at(-1).broken ||= t.text.includes("\ufffd");
  }
  return runs;
}

/** The texts of the runs in which characters were cut, by their place; the server puts them together again. */
function useWhole(runs, model) {
  const [whole, setWhole] = useState({});
  useEffect(() => {
    const control = new AbortController();
    const broken = runs.map((run, i) => [i, run]).filter(([, run]) => run.broken);
    setWhole({});
    Promise.all(broken.map(async ([i, run]) => [i, (await call("/detokenize", { model, tokens: run.tokens.map((t) => t.id) }, control.signal)).prompt]))
      .then((texts) => setWhole(Object.fromEntries(texts)), () => {}); // then it is shown token by token, as it came
    return () => control.abort();
  }, [runs]);
  return whole;
}

function Run({ run, whole }) {
  const tag = run.supervised ? "mark" : "span", said = run.supervised ? "learned" : "only read";
  if (whole !== undefined) return html`<${tag} title=${`${run.tokens.length} tokens, ${said}`}>${whole}<//>`;
  return run.tokens.map((t) => html`<${tag} title=${`token ${t.id}, ${said}`}>${t.text}<//>`);
}

function Mask({ preview, model }) {
  const [at, setAt] = useState(0);
  const row = preview[Math.min(at, preview.length - 1)];
  const runs = useMemo(() => runsOf(row.tokens), [row]), whole = useWhole(runs, model);
  const learned = row.tokens.filter((t) => t.supervised).length;
  return html`<div class="train-mask">
    <div class="card-head"><h3>As the model reads it</h3>
      <span class="card-tools" role="group" aria-label="Which one">${preview.length > 1 && preview.map((p, i) => html`<button type="button" class="chip"
        aria-pressed=${i === at} onClick=${() => setAt(i)}>${p.line ? `Line ${p.line}` : `Window ${i + 1}`}</button>`)}</span></div>
    <p class="legend"><mark>learned</mark> ${count(learned)} tokens that it is trained to write · <span>only read</span> ${count(row.tokens.length - learned)}</p>
    <div class="text train-mask-text" tabindex="0" role="region" aria-label="The text as tokens, what is learned is marked">${
      runs.map((run, i) => html`<${Run} run=${run} whole=${whole[i]} />`)}${row.cut && html`<span class="hint"> … and so on</span>`}</div>
  </div>`;
}

const figures = (r) => [
  r.format === "text" ? ["Windows", count(r.examples), `Pieces of ${r.context_length} tokens, one behind the other`] : ["Rows", count(r.rows)],
  ["Tokens", count(r.tokens), "Counted by the base's own tokenizer"],
  r.tokens > 0 && ["Learned", count(r.supervised_tokens), "Tokens that the model is trained to write; the others are only read"],
  r.format === "rows" && r.examples > 0 && ["Tokens a row", `${count(r.tokens / r.examples)} on average, ${count(r.longest)} at most`],
  r.duplicates + r.near_duplicates > 0 && ["Twice", count(r.duplicates + r.near_duplicates), "Rows that are equal, or equal but for case and blanks"],
  r.truncated > 0 && ["Cut", count(r.truncated), "Longer than the context"],
  r.dropped > 0 && ["Left out", count(r.dropped), "Longer than the context"],
  r.leaks !== null && ["Also in validation", count(r.leaks), "Examples of the validation file that share 13 tokens or more in a row with this file"],
];

/** `state`: what useReport gave. `tokenizer`: whose it is, in words. */
export function Report({ state, tokenizer }) {
  const { report, error, stale } = state;
  const mask = useMemo(() => report?.preview.length > 0 && html`<${Mask} key=${report.file} preview=${report.preview} model=${report.model} />`, [report]); // not at every key typed
  if (error && !stale) {
    const gone = error instanceof ApiError && error.status === 404;
    return html`<p class="bad" role="alert">${gone ? "This file is no longer on the server. Choose another one." : explain(error)}</p>`;
  }
  if (!report) return html`<p class="hint" role="status">Reading every row…</p>`;
  return html`<div class="train-report" aria-busy=${stale}>
    <${Facts} items=${figures(report)} />
    <p class="hint">Counted with ${tokenizer}${report.format === "rows" ? "" : `, in windows of ${count(report.context_length)} tokens`}.</p>
    <${Problems} report=${report} />
    ${mask}
  </div>`;
}
