// SPDX-License-Identifier: MIT
// A conversation whose answers and questions may have several versions: a tree of messages, of which one path is shown. Nothing is ever overwritten;
// editing a question or asking for another answer grows a branch beside the old one. Survives a reload; the tokens behind the texts do not.

import { persistentStore } from "../../lib/store.js";

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
export function addMessage(parent, role, content, model = null) {
  const { nodes, next } = chat.get();
  chat.set({ nodes: { ...nodes, [next]: { id: next, parent, role, content, model } }, leaf: next, next: next + 1 });
  return next;
}

export function setContent(id, content) {
  const { nodes } = chat.get();
  if (nodes[id]) chat.patch({ nodes: { ...nodes, [id]: { ...nodes[id], content } } });
}

/** Takes back a message that nothing follows. */
export function removeMessage(id) {
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
