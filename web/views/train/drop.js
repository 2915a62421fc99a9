// SPDX-License-Identifier: MIT
// The ways a text comes in: dropped anywhere on the view, chosen, pasted, taken from the example or from what was uploaded before.

import { text as fetchText } from "../../lib/api.js";
import { html, useEffect, useRef, useState } from "../../lib/html.js";
import { fail, say } from "../../lib/server.js";
import { address, createStore, go, useStore } from "../../lib/store.js";
import { Card } from "../../lib/ui.js";
import { addFile, FileList, KINDS, uploading, UploadProgress } from "./files.js";

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
  useEffect(() => {
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
export function nameOfPasted(words) {
  const at = words.trim();
  try {
    if (at.startsWith("[") && Array.isArray(JSON.parse(at))) return "pasted.json";
    if (at.startsWith("{") && at.split("\n").filter((line) => line.trim()).every((line) => typeof JSON.parse(line) === "object")) return "pasted.jsonl";
  } catch { /* then it is a text */ }
  return "pasted.txt";
}

function Paste({ onText }) {
  const [words, setWords] = useState("");
  const id = "train-paste";
  return html`<div class="train-paste">
    <label for=${id}>A text, or rows as JSON</label>
    <textarea id=${id} rows="6" spellcheck="false" value=${words} onInput=${(e) => setWords(e.target.value)}
      placeholder=${'{"prompt": "Question", "completion": " answer"}'} ref=${(node) => { if (node && !node.dataset.seen) { node.dataset.seen = 1; node.focus(); } }}></textarea>
    <div class="actions"><button type="button" class="primary" disabled=${words.trim() === ""} onClick=${() => onText(words)}>Use this text</button></div>
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
  const example = async () => {
    try {
      take(new Blob([await fetchText("/examples/instructions.json")]), "instructions.json");
    } catch (error) {
      fail(error, example);
    }
  };
  return html`<${Card} title="Fine-tune a model on your text" className="train-drop-card">
    <div class=${`train-drop ${over ? "over" : ""}`}>
      ${busy ? html`<${UploadProgress} />` : html`
        <p class="train-drop-title">${over ? "Let go, and it is read" : byTouch() ? "A text, or rows of examples" : "Drop a file anywhere on this page"}</p>
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
