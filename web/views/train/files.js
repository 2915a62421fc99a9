// SPDX-License-Identifier: MIT
// The files that this server keeps for training: the list, uploads (which outlive a change of view, not a reload) and their end.

import { request, call, upload } from "../../lib/api.js";
import { ago, bytes } from "../../lib/format.js";
import { html, useEffect, useState } from "../../lib/html.js";
import { fail, say } from "../../lib/server.js";
import { createStore, persistentStore, useStore } from "../../lib/store.js";
import { Dialog, Progress } from "../../lib/ui.js";

const HASHED_BYTES = 64e6; // what is worth reading into memory to save an upload
export const KINDS = [".txt", ".md", ".jsonl", ".json"];

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
  return Array.from(sum, (byte) => byte.toString(16).padStart(2, "0")).join("");
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
  if (!kinds.includes(ending(name))) return `${name} cannot be trained on here. Give a text (.txt, .md)${rows.length ? ` or rows (${rows.join(", ")})` : ""}.`;
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
  const [busy, setBusy] = useState(false);
  const remove = async () => {
    setBusy(true);
    try {
      await request("DELETE", `/v1/files/${file.id}`);
      onGone?.(file.id);
    } catch (error) {
      fail(error);
    }
    onClose();
    loadFiles();
  };
  return html`<${Dialog} title="Delete this file?" onClose=${onClose}>
    <p>${file.filename}, ${bytes(file.bytes)}, uploaded ${ago(file.created_at)}. Models that were trained on it stay; the file itself cannot be brought back.</p>
    <div class="actions"><button type="button" class="primary" disabled=${busy} onClick=${remove}>Delete ${file.filename}</button></div>
  <//>`;
}

/** Rows of each file, once its report has been read: id -> "120 rows". */
export const fileRows = persistentStore("train-rows", {});

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
      <span class="train-file-name">${file.filename}${file.shared && html` <span class="tag">shared</span>`}
        <span class="hint">${[rows[file.id], bytes(file.bytes), ago(file.created_at)].filter(Boolean).join(" · ")}</span></span>
      ${file.id === chosen ? html`<span class="tag good">in use</span>`
        : html`<button type="button" class="quiet" aria-label=${`Use ${file.filename}`} onClick=${() => onUse(file)}>Use</button>`}
      <button type="button" class="quiet" aria-label=${`Delete ${file.filename}`} onClick=${() => setGone(file)}>Delete</button>
    </li>`)}</ul>
    ${gone && html`<${Remove} file=${gone} onGone=${onGone} onClose=${() => setGone(null)} />`}`;
}
