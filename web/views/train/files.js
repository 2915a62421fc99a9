// SPDX-License-Identifier: MIT
// The files that this server keeps for training: the list, uploads (which outlive a change of view, not a reload) and their end; the ways a text
// comes in (dropped anywhere on the view, chosen, pasted, the example); and what training would see of a file: its rows and tokens, its problems with
// what to do about them, its first rows with the mask.

import { ApiError, call, explain, request, text as fetchText, upload } from "../../lib/api.js";
import { ago, bytes, count, hex, plural } from "../../lib/format.js";
import { html, useEffect, useLayoutEffect, useMemo, useRef, useState } from "../../lib/html.js";
import { fail, say } from "../../lib/server.js";
import { address, createStore, go, persistentStore, useStore } from "../../lib/store.js";
import { Card, Dialog, Facts, Progress, useSettled } from "../../lib/ui.js";
import { useAnswer, useBusy } from "./run.js";

// ---------------------------------------------------------------- the list and uploads

const HASHED_BYTES = 64e6; // what is worth reading into memory to save an upload
const KINDS = [".txt", ".md", ".jsonl", ".json"];

/** state: "loading" | "ready" | "failed"; list: newest first. */
export const files = createStore({ state: "loading", list: [] });
/** What is being uploaded: {name, size, share, control}, or null. */
export const uploading = createStore(null);
/** What the last upload turned out to be: {id, text} of a file that was here already, or null. */
export const uploadNote = createStore(null);

const holdPage = (event) => { event.preventDefault(); };
uploading.subscribe((now) => { (now ? addEventListener : removeEventListener)("beforeunload", holdPage); });

export async function loadFiles() {
  try {
    files.set({ state: "ready", list: (await call("/v1/files?purpose=fine-tune")).data });
  } catch (error) {
    files.set((f) => ({ ...f, state: f.list.length ? f.state : "failed" }));
    fail(error, loadFiles);
  }
}

async function sha256(blob) {
  if (!crypto.subtle || blob.size > HASHED_BYTES) return null; // no page but a secure one may hash
  const sum = new Uint8Array(await crypto.subtle.digest("SHA-256", await blob.arrayBuffer()));
  return hex(sum);
}
/** A file's name as part of a model's. */
export const nameOf = (filename) => filename.replace(/\.[^.]*$/, "").replace(/[^A-Za-z0-9_.-]+/g, "-").replace(/^[-.]+|[-.]+$/g, "").slice(0, 40);
/** The name decides how a file is read, so another kind of name is another file. */
const ending = (name) => /\.[^.]*$/.exec(name.toLowerCase())?.[0] ?? "";
const twin = (sum, name, not = null) => files.get().list.find((f) => f.sha256 === sum && f.id !== not && ending(f.filename) === ending(name)) ?? null;

function recognised(old, name) {
  const as = old.filename === name ? "" : ` as ${old.filename}`;
  uploadNote.set({ id: old.id, text: `${name} is here already${as}, uploaded ${ago(old.created_at)}: that one is used.` });
  return old;
}

async function bring(blob, name, signal) {
  const known = twin(await sha256(blob), name);
  if (known) return recognised(known, name);
  const file = await upload(blob, name, (share) => uploading.patch({ share }), signal);
  const old = twin(file.sha256, name, file.id);
  if (!old) return file;
  await request("DELETE", `/v1/files/${file.id}`);
  return recognised(old, name);
}

function refusal(blob, name, kinds) {
  if (uploading.get()) return "One file is being uploaded already. Wait for it, or cancel it.";
  const rows = kinds.filter((kind) => kind.startsWith(".json"));
  if (!kinds.includes(ending(name))) {
    return `${name} cannot be trained on here. Give a text (.txt, .md)${rows.length ? ` or rows (${rows.join(", ")})` : ""}.`;
  }
  return blob.size === 0 ? `${name} is empty. Choose a file with some text in it.` : null;
}

/** Uploads, unless the server has the same bytes already; `then(file object)` when it is there. What goes wrong is said. */
export async function addFile(blob, name, then, kinds = KINDS) {
  const refused = refusal(blob, name, kinds);
  if (refused) return say(refused);
  const control = new AbortController();
  uploadNote.set(null);
  uploading.set({ name, size: blob.size, share: null, control });
  let file = null;
  try {
    await loadFiles();
    file = await bring(blob, name, control.signal);
    say(null);
  } catch (error) {
    fail(error, () => addFile(blob, name, then, kinds));
  }
  uploading.set(null);
  if (!file) return undefined;
  loadFiles();
  return then(file);
}

export function UploadProgress() {
  const now = useStore(uploading);
  if (!now) return null;
  const how = now.share === null ? "reading" : now.share < 1 ? `${Math.floor(now.share * 100)}%` : "the server is checking it";
  return html`<div class="train-uploading">
    <${Progress} share=${now.share} label=${`${now.name}, ${bytes(now.size)}: ${how}`} />
    <button type="button" onClick=${() => now.control.abort()}>Cancel the upload</button>
  </div>`;
}

function Remove({ file, onClose, onGone }) {
  const [busy, run] = useBusy();
  const remove = async () => {
    await run(async () => {
      await request("DELETE", `/v1/files/${file.id}`);
      onGone?.(file.id);
    });
    onClose();
    loadFiles();
  };
  return html`<${Dialog} title="Delete this file?" onClose=${onClose}>
    <p>${file.filename}, ${bytes(file.bytes)}, uploaded ${ago(file.created_at)}. Models that were trained on it stay; the file itself cannot be
      brought back.</p>
    <div class="actions"><button type="button" class="primary" disabled=${busy} onClick=${remove}>Delete ${file.filename}</button></div>
  <//>`;
}

/** Rows of each file, once its report has been read: id -> "120 rows". */
const fileRows = persistentStore("train-rows", {}, true);

/** The uploaded files, each to be used again or deleted. `onUse(file)`; `chosen`: the id of the one in use. */
export function FileList({ onUse, chosen = null, onGone }) {
  const { state, list } = useStore(files);
  const rows = useStore(fileRows);
  const [gone, setGone] = useState(null);
  useEffect(() => { loadFiles(); }, []);
  if (state !== "ready") return html`<p class="hint" role="status">${state === "loading" ? "Reading the list…" : "The list could not be read."}</p>`;
  if (list.length === 0) return html`<p class="hint">No file has been uploaded yet.</p>`;
  return html`<ul class="train-files" tabindex="0" aria-label="Uploaded files">
    ${list.map((file) => html`<li key=${file.id} aria-current=${file.id === chosen ? "true" : undefined}>
      <span class="train-file-name"><bdi>${file.filename}</bdi>${file.shared && html` <span class="tag">shared</span>`}
        <span class="hint">${[rows[file.id], bytes(file.bytes), ago(file.created_at)].filter(Boolean).join(" · ")}</span></span>
      ${file.id === chosen ? html`<span class="tag good">in use</span>`
        : html`<button type="button" class="quiet" aria-label=${`Use ${file.filename}`} onClick=${() => onUse(file)}>Use</button>`}
      <button type="button" class="quiet" aria-label=${`Delete ${file.filename}`} onClick=${() => setGone(file)}>Delete</button>
    </li>`)}</ul>
    ${gone && html`<${Remove} file=${gone} onGone=${onGone} onClose=${() => setGone(null)} />`}`;
}

// ---------------------------------------------------------------- how a text comes in

const carriesFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");

/** The first file of a drop; says so where there were more. */
export function droppedFile(event) {
  const list = [...(event.dataTransfer?.files ?? [])];
  if (list.length > 1) say(`One file at a time: ${list[0].name} is taken, the others are not.`);
  return list[0] ?? null;
}

/** Over what files hover: "page", "nothing" (Start from nothing takes them) or null. */
export const hovering = createStore(null);

/** Files dropped anywhere on the page go to `take`; a part of the page that takes them itself stops the event. */
export function usePageDrop(take) {
  const latest = useRef(take);
  latest.current = take;
  useLayoutEffect(() => { // before the page is seen: nobody's file is opened in its place
    const drag = (event) => {
      if (!carriesFiles(event)) return;
      event.preventDefault(); // else the browser opens the file in place of the page
      hovering.set("page");
    };
    const leave = (event) => { if (!event.relatedTarget) hovering.set(null); };
    const drop = (event) => {
      hovering.set(null);
      if (!carriesFiles(event)) return;
      event.preventDefault();
      const file = droppedFile(event);
      if (file) latest.current(file);
    };
    const heard = Object.entries({ dragover: drag, dragleave: leave, drop });
    for (const [name, listener] of heard) addEventListener(name, listener);
    return () => { for (const [name, listener] of heard) removeEventListener(name, listener); };
  }, []);
}

/** Opens a new fine-tune with a file that the server has; nobody is fetched back from another view for it. */
export function useForNew(file) {
  if (address.get().view === "train") go("train", { new: 1, file: file.id });
  else say(`${file.filename} is uploaded and waits in Train.`);
}

/** A button that opens the system's file dialog. */
export function PickFile({ label, kinds = KINDS, onPick, className = "", disabled = false }) {
  const input = useRef();
  const picked = (event) => {
    const file = event.target.files[0];
    event.target.value = ""; // the same file may be picked again
    if (file) onPick(file);
  };
  return html`<button type="button" class=${className} disabled=${disabled} onClick=${() => input.current.click()}>${label}</button>
    <input hidden type="file" accept=${kinds.join(",")} ref=${input} onChange=${picked} />`;
}

/** What somebody pasted, named by what it is: rows where every line is an object, an array of them, or a text. */
function nameOfPasted(words) {
  const at = words.trim();
  try {
    if (at.startsWith("[") && Array.isArray(JSON.parse(at))) return "pasted.json";
    const rows = at.split("\n").filter((line) => line.trim());
    if (at.startsWith("{") && rows.every((line) => typeof JSON.parse(line) === "object")) return "pasted.jsonl";
  } catch { /* then it is a text */ }
  return "pasted.txt";
}

function Paste({ onText }) {
  const [words, setWords] = useState(""), field = useRef();
  useEffect(() => field.current.focus(), []);
  return html`<div class="train-paste">
    <label for="train-paste">A text, or rows as JSON</label>
    <textarea id="train-paste" rows="6" spellcheck="false" value=${words} onInput=${(e) => setWords(e.target.value)}
      placeholder=${'{"prompt": "Question", "completion": " answer"}'} ref=${field}></textarea>
    <div class="actions"><button type="button" class="primary" disabled=${words.trim() === ""}
      onClick=${() => onText(words)}>Use this text</button></div>
  </div>`;
}

const byTouch = () => matchMedia("(pointer: coarse)").matches; // nobody drops files with a finger

const KINDS_IN_WORDS = [
  ["a text (.txt, .md)", "the model learns to go on with it"],
  ["instruction and output, input if there is one (.json, .jsonl)", "it learns the output"],
  ["prompt and completion", "it learns the completion"],
  ["messages, as in a chat", "it learns what the assistant says"],
];

/** Everything that brings a file in; then a new fine-tune is opened with it. */
export function DropZone() {
  const busy = Boolean(useStore(uploading));
  const [pasting, setPasting] = useState(false);
  const [earlier, setEarlier] = useState(false);
  const over = useStore(hovering) === "page";
  const take = (blob, name = blob.name) => addFile(blob, name, useForNew);
  const [, run] = useBusy();
  const example = () => run(async () => take(new Blob([await fetchText("/examples/instructions.json")]), "instructions.json"));
  return html`<${Card} title="Fine-tune a model on your text" className="train-drop-card">
    <div class=${`train-drop ${over ? "over" : ""}`}>
      ${busy ? html`<${UploadProgress} />` : html`
        <p class="train-drop-title">${over ? "Let go, and it is read" : byTouch() ? "A text, or rows of examples"
          : "Drop a file anywhere on this page"}</p>
        <div class="row">
          <${PickFile} label="Choose a file" className="primary" onPick=${take} />
          <button type="button" aria-expanded=${pasting} onClick=${() => setPasting(!pasting)}>Paste text</button>
          <button type="button" class="quiet" title="120 instructions with short answers" onClick=${example}>Take the example</button>
        </div>`}
    </div>
    ${pasting && !busy && html`<${Paste} onText=${(words) => { setPasting(false); take(new Blob([words]), nameOfPasted(words)); }} />`}
    <details class="train-kinds"><summary>What a file may hold</summary>
      <ul>${KINDS_IN_WORDS.map(([what, learned]) => html`<li><b>${what}</b>: ${learned}</li>`)}</ul>
    </details>
    <details class="train-earlier" onToggle=${(e) => setEarlier(e.target.open)}><summary>Earlier uploads</summary>
      ${earlier && html`<${FileList} onUse=${useForNew} />`}
    </details>
  <//>`;
}

// ---------------------------------------------------------------- what is in it

const SHOWN_PROBLEMS = 8;

/** What to do about a problem, by how the server words it. */
const ADVICE = [
  [/unknown key/, "Rename the key, or take it out: a row has the keys of one kind, listed under “What a file may hold”."],
  [/keys of two kinds|a row has|without/, "Give each row the keys of one kind: prompt and completion; instruction and output; messages; or text."],
  [/is empty/, "Fill it in, or delete the row."],
  [/the same as (line|row)/, "It counts twice. Delete one of them unless you mean it."],
  [/of which the context of/, "Shorten the row, raise the context length, or choose under “Long rows” to cut or to leave out."],
  [/not UTF-8|NUL byte/, "Save the file as UTF-8 text and drop it again."],
  [/chat template/, "Choose a base with a chat template, or write the rows as prompt and completion."],
  [/assistant/, "A conversation begins with the user or the system and ends with the assistant's answer."],
  [/no tokenizer/, "Choose another base."],
  [/outside the model's vocabulary/, "These ids belong to another tokenizer. Choose its model as the base."],
  [/^(line \d+, )?column \d+|expected|JSON/, "The row is no valid JSON there: look at the quotes, commas and brackets."],
  [/too short|shortest|two are the least/, "Add text: there must be something to read and something to learn."],
];
const advice = (message) => ADVICE.find(([pattern]) => pattern.test(message))?.[1] ?? "";

/** {report, error} of a file as the settings would have it read; both null while it is being read. */
export function useReport(file, settings) {
  const query = useSettled(file && new URLSearchParams(Object.entries(settings).filter(([, v]) => v)).toString(), 250);
  const key = file && query !== null ? `/v1/files/${encodeURIComponent(file)}/report?${query}` : null;
  const { of, data: report, error } = useAnswer(key, async (signal) => {
    const read = await call(key, undefined, signal);
    fileRows.patch({ [file]: read.format === "text" ? "a text" : plural(read.rows, "row") });
    return read;
  });
  return { report, error, stale: of !== key };
}

const placeOf = (report) => (report.numbered_by === "row" ? "Row" : "Line"); // an array on one line is told by rows

function Problem({ problem, place }) {
  const what = advice(problem.message);
  return html`<li class=${problem.fatal ? "fatal" : ""}>
    <span class="tag ${problem.fatal ? "bad" : ""}">${problem.fatal ? "must be mended" : "note"}</span>
    ${" "}${problem.line !== null && html`<b>${place} ${count(problem.line)}: </b>`}${problem.message}${/[.!?]$/.test(problem.message) ? "" : "."}
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
    <ul>${list.slice(0, all ? list.length : SHOWN_PROBLEMS).map((p) => html`<${Problem} problem=${p} place=${placeOf(report)} />`)}</ul>
    ${list.length > SHOWN_PROBLEMS && !all && html`<button type="button" class="quiet"
      onClick=${() => setAll(true)}>Show ${list.length - SHOWN_PROBLEMS} more</button>`}
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
  const textOf = async ({ tokens }, signal) => (await call("/detokenize", { model, tokens: tokens.map((t) => t.id) }, signal)).prompt;
  const { of, data } = useAnswer(runs, (signal) => Promise.all(runs.map((run) => (run.broken ? textOf(run, signal) : undefined))));
  return of === runs && data ? data : []; // until then, and where that fails, it is shown token by token, as it came
}

function Run({ run, whole }) {
  const tag = run.supervised ? "mark" : "span", said = run.supervised ? "learned" : "only read";
  if (whole !== undefined) return html`<${tag} title=${`${run.tokens.length} tokens, ${said}`}>${whole}<//>`;
  return run.tokens.map((t) => html`<${tag} title=${`token ${t.id}, ${said}`}>${t.text}<//>`);
}

function Mask({ preview, model, place }) {
  const [at, setAt] = useState(0);
  const row = preview[Math.min(at, preview.length - 1)];
  const runs = useMemo(() => runsOf(row.tokens), [row]), whole = useWhole(runs, model);
  const learned = row.tokens.filter((t) => t.supervised).length;
  return html`<div class="train-mask">
    <div class="card-head"><h3>As the model reads it</h3>
      <span class="card-tools" role="group" aria-label="Which one">${preview.length > 1 && preview.map((p, i) => html`<button type="button"
        class="chip" aria-pressed=${i === at} onClick=${() => setAt(i)}>${p.line ? `${place} ${p.line}` : `Window ${i + 1}`}</button>`)}</span></div>
    <p class="legend"><mark>learned</mark> ${count(learned)} tokens${row.cut && ` of the first ${count(row.tokens.length)}`} that it is trained to write ·${" "}
      <span>only read</span> ${count(row.tokens.length - learned)}</p>
    <div class="text train-mask-text" tabindex="0" role="region" aria-label="The text as tokens, what is learned is marked">${
      runs.map((run, i) => html`<${Run} run=${run} whole=${whole[i]} />`)}${row.cut && html`<span class="hint"> … and so on</span>`}</div>
  </div>`;
}

/** The last tokens of a text, which fill no window. */
const tailOf = (r, context, stride = context) => (r.format === "text" && r.tokens > context ? (r.tokens - 1 - context) % stride : 0);

function Tail({ report, tail }) {
  let less = report.context_length;
  while (less >= 32 && 20 * tailOf(report, less) >= report.tokens) less >>= 1;
  return html`<p class="train-warning">The last ${count(tail)} tokens fill no window, and are not learned. ${less < 32 ? "Add text."
    : `A context of ${count(less)} leaves out ${count(tailOf(report, less))}.`}</p>`;
}

const reportFigures = (r) => [
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
export function Report({ state, tokenizer, stride }) {
  const { report, error, stale } = state;
  const mask = useMemo(() => report?.preview.length > 0 && html`<${Mask} key=${report.file} preview=${report.preview} model=${report.model} place=${placeOf(report)} />`,
    [report]); // not at every key typed
  if (error && !stale) {
    const gone = error instanceof ApiError && error.status === 404;
    return html`<p class="bad" role="alert">${gone ? "This file is no longer on the server. Choose another one." : explain(error)}</p>`;
  }
  if (!report) return html`<p class="hint" role="status">Reading every row…</p>`;
  const tail = tailOf(report, report.context_length, stride || undefined);
  return html`<div class="train-report" aria-busy=${stale}>
    <${Facts} items=${reportFigures(report)} />
    <p class="hint">Counted with ${tokenizer}${report.format === "text" ? `, in windows of ${count(report.context_length)} tokens` : ""}.</p>
    ${20 * tail >= report.tokens && tail ? html`<${Tail} report=${report} tail=${tail} />` : html`<${Problems} report=${report} />`}
    ${mask}
  </div>`;
}
