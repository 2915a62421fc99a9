// SPDX-License-Identifier: MIT
// The conversation of Chat: its tree of messages, and the answers being written into it. Both outlive the view.

import { alternativeOf, answer, exported, idsOf, isSpecial, respell, streamed, summary } from "../../lib/answer.js";
import { saveJson } from "../../lib/api.js";
import { anotherSeed, sampling, samplingFits, samplingRequest } from "../../lib/sampling.js";
import { chosenModel, fail, say } from "../../lib/server.js";
import { createStore, persistentStore } from "../../lib/store.js";
import { TokenLog } from "../../lib/token_text.js";

// ---------------------------------------------------------------- the tree
// A conversation whose answers and questions may have several versions: a tree of messages, of which one path is shown. Nothing is ever overwritten;
// editing a question or asking for another answer grows a branch beside the old one. Survives a reload; the tokens behind the texts do not.

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

export const newChat = () => chat.set(EMPTY);

// ---------------------------------------------------------------- writing
// The answers of the chat: one is written at a time, into the tree. What is being written, and the tokens of what was, outlives the view.

const PATH = "/v1/chat/completions";

/** id: the message that is being written, or null. draft: what stands in the box. stats: how the last answer went. */
export const writing = createStore({ id: null, stats: "" });
export const draft = createStore("");
const details = new Map(); // id -> {log, promptIds}
let control = null;

/** The tokens of a message; of one from before a reload, its text alone. */
export function logOf(node) {
  if (!details.has(node.id)) {
    const log = new TokenLog();
    if (node.content) log.push({ id: null, text: node.content, logprob: null, top: [] });
    details.set(node.id, { log, promptIds: null });
  }
  return details.get(node.id).log;
}

/** Whether an alternative of this message can be taken: only with the ids that led to it. */
export const canGoOn = (node) => Boolean(details.get(node.id)?.promptIds);
export const stop = () => control?.abort();

const ready = () => samplingFits() && !control && Boolean(chosenModel.get());

async function write(id, path, body, { promptIds = null, again }) {
  const { model } = chat.get().nodes[id]; // the one that goes on, if it goes on: another one may know other ids
  const { log } = details.get(id);
  control = new AbortController();
  say(null);
  writing.set({ id, stats: "" });
  try {
    const done = await answer(path, { model, ...samplingRequest(sampling.get(), model), ...body }, log, control.signal);
    details.get(id).promptIds ??= promptIds ?? done.promptIds;
    writing.patch({ stats: summary(done) });
    setContent(id, log.text);
    return true;
  } catch (error) {
    setContent(id, log.text); // what came until then stays
    if (log.items.length === 0) removeMessage(id);
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
  if (id !== null) setContent(id, details.get(id).log.text);
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
    ...(canGoOn(node) ? { prompt_token_ids: details.get(node.id).promptIds, tokens: exported(logOf(node).items) } : {}),
  }));
  saveJson({ model: chosenModel.get(), system: system.get(), settings: samplingRequest(), messages }, "chat.json");
}

/** Writes an answer to the message `parent`. */
async function reply(parent, body = {}) {
  const messages = messagesTo(parent);
  const id = addMessage(parent, "assistant", "", chosenModel.get());
  details.set(id, { log: new TokenLog(), promptIds: null });
  return write(id, PATH, { messages, ...body }, { again: () => reply(parent, body) });
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
  const { log, promptIds } = details.get(node.id);
  const kept = respell([...log.items.slice(0, index), alternativeOf(log.items[index], entry)]);
  const id = addMessage(node.parent, "assistant", "", node.model);
  const fresh = new TokenLog();
  fresh.push(...kept);
  details.set(id, { log: fresh, promptIds });
  setContent(id, fresh.text);
  if (isSpecial(entry)) writing.set({ id: null, stats: `the answer ends here, with ${entry.text}` });
  else write(id, "/v1/completions", { prompt: [...promptIds, ...idsOf(kept)] }, { promptIds, again: null });
}

/** Goes on where the answer was cut. */
export function goOn(node) {
  const { log, promptIds } = details.get(node.id);
  if (ready()) write(node.id, "/v1/completions", { prompt: [...promptIds, ...idsOf(log.items)] }, { promptIds, again: null });
}
