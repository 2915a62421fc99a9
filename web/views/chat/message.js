// SPDX-License-Identifier: MIT
// One message of the chat: its text in tokens, its versions and what can be done with it.

import { html, useState } from "../../lib/html.js";
import { NeverTool } from "../../lib/sampling.js";
import { useStore } from "../../lib/store.js";
import { TokenText, tint } from "../../lib/token_text.js";
import { CopyButton } from "../../lib/ui.js";
import { canGoOn, goOn, logOf, regenerate, send, takeAlternative, writing } from "./run.js";
import { showVersion, versions } from "./tree.js";

function Versions({ node, disabled }) {
  const all = versions(node);
  if (all.length < 2) return null;
  const at = all.findIndex((other) => other.id === node.id);
  const what = node.role === "user" ? "question" : "answer";
  const step = (by, sign, words) => html`<button type="button" class="quiet" disabled=${disabled || !all[at + by]} aria-label=${`${words} ${what}`}
    title=${`${words} ${what}`}
    onClick=${() => showVersion(all[at + by].id)}>${sign}</button>`;
  return html`<span class="chat-versions">${step(-1, "‹", "Earlier")}<span
    class="stats">${at + 1} of ${all.length}</span>${step(1, "›", "Later")}</span>`;
}

function Edit({ node, onClose }) {
  const [text, setText] = useState(node.content);
  const submit = (event) => {
    event.preventDefault();
    onClose();
    if (text.trim() !== node.content) send(text, node.parent);
  };
  return html`<form onSubmit=${submit} onKeyDown=${(e) => { if (e.key === "Escape") { e.stopPropagation(); onClose(); } }}>
    <textarea aria-label="Edit the message" rows=${Math.min(12, text.split("\n").length + 1)} value=${text} onInput=${(e) => setText(e.target.value)}
      onKeyDown=${(e) => { if (e.key === "Enter" && (e.ctrlKey || e.metaKey)) { e.stopPropagation(); submit(e); } }}
      ref=${(field) => { if (field && !field.dataset.seen) { field.dataset.seen = 1; field.focus(); } }}></textarea>
    <div class="actions">
      <button type="submit" class="primary" disabled=${text.trim() === ""}>Ask this instead</button>
      <button type="button" class="quiet" onClick=${onClose}>Cancel</button>
      <span class="hint">What followed the old question stays as its own version.</span>
    </div>
  </form>`;
}

export function Message({ node, last }) {
  const now = useStore(writing, (w) => w.id), colour = useStore(tint);
  const [editing, setEditing] = useState(false);
  const mine = now === node.id, busy = now !== null, fromUser = node.role === "user";
  const log = logOf(node);
  return html`<li class=${`chat-${node.role}`}>
    <div class="chat-head"><span class="chat-who">${fromUser ? "You" : node.model}</span></div>
    ${fromUser ? !editing && html`<div class="text">${node.content}</div>`
      : html`<${TokenText} key=${node.id} log=${log} colour=${colour} label="The model's answer" running=${mine}
        tools=${(index, token) => html`<${NeverTool} model=${node.model} token=${token} />`}
          onPick=${!busy && canGoOn(node) ? (index, entry) => takeAlternative(node, index, entry) : undefined} />`}
    ${!fromUser && !mine && log.items.length === 0 && html`<p class="hint">No text came.</p>`}
    ${editing && html`<${Edit} node=${node} onClose=${() => setEditing(false)} />`}
    ${!editing && html`<div class="chat-tools">
      <${Versions} node=${node} disabled=${busy} />
      ${fromUser && html`<button type="button" class="quiet" disabled=${busy} onClick=${() => setEditing(true)}>Edit</button>`}
      ${!fromUser && html`<button type="button" class="quiet" disabled=${busy} onClick=${() => regenerate(node)}>Another answer</button>`}
      ${!fromUser && last && !busy && canGoOn(node) && html`<button type="button" class="quiet" onClick=${() => goOn(node)}>Go on writing</button>`}
      <${CopyButton} text=${() => (fromUser ? node.content : log.text)} />
    </div>`}
  </li>`;
}
