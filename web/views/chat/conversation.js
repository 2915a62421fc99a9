// SPDX-License-Identifier: MIT
// The conversation of Chat: its tree of messages, and the answers being written into it. Both outlive the view.

import { alternativeOf, answer, condensed, exported, idsOf, isSpecial, respell, restored, streamed, summary } from "../../lib/answer.js";
import { saveJson } from "../../lib/api.js";
import { anotherSeed, sampling, samplingFits, samplingRequest } from "../../lib/sampling.js";
import { chosenModel, fail, say } from "../../lib/server.js";
import { createStore, persistentStore } from "../../lib/store.js";
import { TokenLog } from "../../lib/token_text.js";

// ---------------------------------------------------------------- the tree
// A conversation whose answers and questions may have several versions: a tree of messages, of which one path is shown. Nothing is ever overwritten;
// editing a question or asking for another answer grows a branch beside the old one. Survives a reload.

const EMPTY = { nodes: {}, leaf: null, next: 1 }; // nodes: id -> {id, parent (null: first), role, content, model}
export const chat = persistentStore("chat", EMPTY);
export const system = persistentStore("chat.system", "");

/** The messages from the first one to `leaf`. */
export function pathTo(leaf, { nodes } = chat.get()) {
  const path = [];
  for (let node = nodes[leaf]; node; node = nodes[node.parent]) path.unshift(node);
  return path;
}

/** The versions of a message: all that follow the same one. Ids grow, so they stand in the order of their making. */
export const versions = (node, { nodes } = chat.get()) =>
  Object.values(nodes).filter((other) => other.parent === node.parent).sort((a, b) => a.id - b.id);

/** Adds a message behind `parent` and shows it; returns its id. */
function addMessage(parent, role, content, model = null) {
  const { nodes, next } = chat.get();
  chat.set({ nodes: { ...nodes, [next]: { id: next, parent, role, content, model } }, leaf: next, next: next + 1 });
  return next;
}

function setContent(id, content) {
  const { nodes } = chat.get();
  if (nodes[id]) chat.patch({ nodes: { ...nodes, [id]: { ...nodes[id], content } } });
}

/** Takes back a message that nothing follows. */
function removeMessage(id) {
  const { [id]: gone, ...nodes } = chat.get().nodes;
  if (gone) chat.patch({ nodes, leaf: gone.parent });
  logs.delete(id);
}

/** Shows the version `id` of a message and what followed it last. */
export function showVersion(id) {
  const all = Object.values(chat.get().nodes);
  for (let last = id; last !== undefined;) {
    id = last;
    last = all.filter((node) => node.parent === id).at(-1)?.id;
  }
  chat.patch({ leaf: id });
}

export function newChat() { // whose messages have the same ids
  logs.clear();
  keptTokens.set({});
  chat.set(EMPTY);
}

// ---------------------------------------------------------------- the tokens behind the texts
// Kept apart from the tree, and bounded: what is lost of them costs no text.

const TOKENS_CHARS = 1_000_000; // of about 5 million that a browser keeps for this page
const keptTokens = persistentStore("chat.tokens", {}); // id of a message -> {chars, of: condensed tokens}
const logs = new Map(); // id -> TokenLog

/** The tokens of a message; its text alone where they are no longer known. */
export function logOf(node) {
  if (logs.has(node.id)) return logs.get(node.id);
  let log = null;
  try {
    log = restored(keptTokens.get()[node.id].of, node.content);
  } catch { /* none were kept, or by another version of the page */ }
  if (!log) {
    log = new TokenLog();
    if (node.content) log.push({ id: null, text: node.content, logprob: null, top: [] });
  }
  logs.set(node.id, log);
  return log;
}

/** Keeps what was written into a message, as it stands. Where there is no more room, the oldest messages lose their tokens. */
function keepLog(id) {
  const log = logs.get(id), of = condensed(log), kept = { ...keptTokens.get(), [id]: { chars: JSON.stringify(of).length, of } };
  let chars = Object.values(kept).reduce((sum, one) => sum + one.chars, 0);
  for (const oldest of Object.keys(kept)) {
    if (chars <= TOKENS_CHARS) break;
    chars -= kept[oldest].chars;
    delete kept[oldest];
  }
  keptTokens.set(kept);
  setContent(id, log.text);
}

// ---------------------------------------------------------------- writing
// The answers of the chat: one is written at a time, into the tree. What is being written, and the tokens of what was, outlives the view.

const PATH = "/v1/chat/completions";

/** id: the message that is being written, or null. draft: what stands in the box. stats: how the last answer went. */
export const writing = createStore({ id: null, stats: "" });
export const draft = createStore("");
let control = null;

/** Whether an alternative of this message can be taken: only with the ids that led to it. */
export const canGoOn = (node) => Boolean(logOf(node).promptIds);
export const stop = () => control?.abort();

const ready = () => samplingFits() && !control && Boolean(chosenModel.get());

async function write(id, path, body, again = null) {
  const { model } = chat.get().nodes[id]; // the one that goes on, if it goes on: another one may know other ids
  const log = logs.get(id);
  control = new AbortController();
  say(null);
  writing.set({ id, stats: "" });
  try {
    const done = await answer(path, { model, ...samplingRequest(sampling.get(), model), ...body }, log, control.signal);
    writing.patch({ stats: summary(done) });
    keepLog(id);
    return true;
  } catch (error) {
    if (log.items.length === 0) removeMessage(id);
    else keepLog(id); // what came until then stays
    writing.patch({ stats: error.said ?? "" });
    fail(error, again);
    return false;
  } finally {
    control = null;
    writing.patch({ id: null });
  }
}

// A reload in the middle of an answer keeps what came. Capturing, it is called before the stores are saved.
addEventListener("pagehide", () => {
  const { id } = writing.get();
  if (id !== null) keepLog(id);
}, true);

/** The conversation up to the message `leaf` as the server wants it. */
function messagesTo(leaf) {
  const said = system.get().trim();
  return [...(said ? [{ role: "system", content: said }] : []), ...pathTo(leaf).map(({ role, content }) => ({ role, content }))];
}

/** What Send would send now; without a draft, what gave the last answer. */
export function requestNow() {
  const { leaf, nodes } = chat.get(), text = draft.get().trim(), last = nodes[leaf];
  const messages = text ? [...messagesTo(leaf), { role: "user", content: text }] : messagesTo(last?.role === "assistant" ? last.parent : leaf);
  return { path: PATH, body: streamed(PATH, { model: chosenModel.get(), messages, ...samplingRequest() }) };
}

/** The conversation that is shown, with what is known of its tokens. */
export function saveChat() {
  const messages = pathTo(chat.get().leaf).map((node) => ({
    role: node.role, content: node.content, ...(node.model ? { model: node.model } : {}),
    ...(canGoOn(node) ? { prompt_token_ids: logOf(node).promptIds, tokens: exported(logOf(node).items) } : {}),
  }));
  saveJson({ model: chosenModel.get(), system: system.get(), settings: samplingRequest(), messages }, "chat.json");
}

/** Writes an answer to the message `parent`. */
async function reply(parent, body = {}) {
  const messages = messagesTo(parent);
  const id = addMessage(parent, "assistant", "", chosenModel.get());
  logs.set(id, new TokenLog());
  return write(id, PATH, { messages, ...body }, () => reply(parent, body));
}

/** Says `text` behind the message `parent`, as a new version where something was said there before. What is refused comes back into the box. */
export async function send(text, parent = chat.get().leaf) {
  if (text.trim() === "" || !ready()) return;
  const before = chat.get().leaf, id = addMessage(parent, "user", text.trim());
  if (draft.get().trim() === text.trim()) draft.set("");
  await reply(id);
  if (chat.get().leaf !== id) return;
  removeMessage(id); // not a word came: the conversation is as it was
  chat.patch({ leaf: before });
  if (draft.get() === "") draft.set(text);
}

/** Another answer to the same question. */
export function regenerate(node) {
  if (ready()) reply(node.parent, anotherSeed());
}

/** A new version of the answer: the same up to `index`, there the alternative, and what the model says then. */
export function takeAlternative(node, index, entry) {
  if (!ready()) return;
  const log = logOf(node), { promptIds } = log;
  const kept = respell([...log.items.slice(0, index), alternativeOf(log.items[index], entry)]);
  const id = addMessage(node.parent, "assistant", "", node.model);
  const fresh = Object.assign(new TokenLog(), { promptIds });
  fresh.push(...kept);
  logs.set(id, fresh);
  keepLog(id);
  if (isSpecial(entry)) writing.set({ id: null, stats: `the answer ends here, with ${entry.text}` });
  else write(id, "/v1/completions", { prompt: [...promptIds, ...idsOf(kept)] });
}

/** Goes on where the answer was cut. */
export function goOn(node) {
  const { items, promptIds } = logOf(node);
  if (ready()) write(node.id, "/v1/completions", { prompt: [...promptIds, ...idsOf(items)] });
}
