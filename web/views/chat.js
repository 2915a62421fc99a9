// SPDX-License-Identifier: MIT
// Chat: a conversation through the model's own chat template. Every word of an answer shows what it was chosen from; questions and answers
// can be changed without losing what was there.

import { fromPiece, isSpecial } from "../lib/answer.js";
import { call } from "../lib/api.js";
import { plural } from "../lib/format.js";
import { html, useEffect, useRef, useState } from "../lib/html.js";
import { NeverTool, Sampling } from "../lib/sampling.js";
import { chosenModel, fail, modelInfo } from "../lib/server.js";
import { useStore } from "../lib/store.js";
import { Legend, tint, TokenLog, TokenText } from "../lib/token_text.js";
import { Card, CopyButton, Dialog, useRunKeys } from "../lib/ui.js";
import { ViewAs } from "../lib/view_as.js";
import { canGoOn, chat, draft, goOn, logOf, newChat, pathTo, regenerate, requestNow, saveChat, send, showVersion, stop, system, takeAlternative, versions, writing } from "./chat/conversation.js";

// ---------------------------------------------------------------- one message
// One message of the chat: its text in tokens, its versions and what can be done with it.

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
    <textarea aria-label="Edit the message" rows=${text.split("\n", 11).length + 1} value=${text} onInput=${(e) => setText(e.target.value)}
      onKeyDown=${(e) => { if (e.key === "Enter" && (e.ctrlKey || e.metaKey)) { e.stopPropagation(); submit(e); } }}
      ref=${(field) => { if (field && !field.dataset.seen) { field.dataset.seen = 1; field.focus(); } }}></textarea>
    <div class="actions">
      <button type="submit" class="primary" disabled=${text.trim() === ""}>Ask this instead</button>
      <button type="button" class="quiet" onClick=${onClose}>Cancel</button>
      <span class="hint">What followed the old question stays as its own version.</span>
    </div>
  </form>`;
}

function Message({ node, last }) {
  const now = useStore(writing, (w) => w.id), colour = useStore(tint);
  const [editing, setEditing] = useState(false);
  const mine = now === node.id, busy = now !== null, fromUser = node.role === "user";
  const log = logOf(node);
  return html`<li class=${`chat-${node.role}`}>
    <div class="chat-head"><span class="chat-who">${fromUser ? "You" : node.model}</span></div>
    ${fromUser ? !editing && html`<div class="text">${node.content}</div>`
      : html`<${TokenText} key=${node.id} log=${log} model=${node.model} colour=${colour} label="The model's answer" running=${mine}
        tools=${(index, token) => html`<${NeverTool} model=${node.model} token=${token} />`}
          onPick=${!busy && canGoOn(node) ? (index, entry) => takeAlternative(node, index, entry) : undefined} />`}
    ${!fromUser && log.items[0]?.id === null && html`<p class="hint">Only the text of this answer is still known, not its tokens.</p>`}
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

// ---------------------------------------------------------------- the view

const QUESTIONS = ["What is the capital of France?", "Explain in two sentences why the sky is blue.", "Write a four-line poem about rain."];

function Start({ model }) {
  const has = modelInfo(model)?.meta?.chat_template;
  if (model && has === null) {
    return html`<div class="empty-state" id="chat-hint"><h2>This model only goes on with a text</h2>
      <p class="hint">${model} has no chat template, so it does not know where a question ends and an answer begins.
        Choose another model at the top, or use <a href="#complete">Complete</a>.</p></div>`;
  }
  return html`<div class="empty-state" id="chat-hint">
    <p class="hint">Ask something. The model's own chat template turns the conversation into one prompt; then it goes on with that text,
      token by token. Point at a word of an answer to see what else it could have been.</p>
    <div class="presets">${QUESTIONS.map((text) => html`<button type="button" class="chip" onClick=${() => send(text)}>${text}</button>`)}</div>
  </div>`;
}

function Composer({ model, busy }) {
  const text = useStore(draft), box = useRef(), touch = matchMedia("(pointer: coarse)").matches;
  const then = (act) => () => { act(); if (!touch) box.current.focus(); }; // the button goes; a finger would get the keyboard over the answer
  const onKey = (event) => {
    // Enter alone sends where there is a real keyboard; while a word is being composed it belongs to the input method.
    if (event.key !== "Enter" || event.shiftKey || event.ctrlKey || event.metaKey || event.isComposing) return;
    if (touch) return;
    event.preventDefault();
    if (!busy) send(text);
  };
  return html`<div class="chat-composer">
    <label class="sr" for="say">Your message</label>
    <textarea id="say" ref=${box} rows="2" placeholder="Your message" value=${text} onInput=${(e) => draft.set(e.target.value)}
      onKeyDown=${onKey}></textarea>
    ${busy ? html`<button id="chat-stop" type="button" onClick=${then(stop)}>Stop <kbd>Esc</kbd></button>`
      : html`<button id="send" class="primary" type="button" disabled=${!model || text.trim() === ""}
        onClick=${then(() => send(text))}>Send <kbd>↵</kbd></button>`}
  </div>`;
}

/** The conversation as the model reads it: through its template, in tokens. */
function ShowPrompt() {
  const [found, setFound] = useState(null);
  const show = async () => {
    const { model, messages } = requestNow().body, log = new TokenLog();
    try {
      log.push(...(await call("/tokenize", { model, messages, add_generation_prompt: true, with_pieces: true })).tokens.map(fromPiece));
      setFound({ model, log });
    } catch (error) {
      fail(error, show);
    }
  };
  return html`<button type="button" class="quiet" onClick=${show}>Show the prompt</button>
    ${found && html`<${Dialog} title=${`What ${found.model} reads`} onClose=${() => setFound(null)}>
      <div class="stack"><p class="hint">Its chat template makes ${plural(found.log.items.length, "token")} of the conversation: signs (bold) say who speaks, and a system
        message of its own may stand first. The answer goes on behind the last one.</p>
      <${TokenText} id="chat-prompt" log=${found.log} model=${found.model} colour="turn" label="The prompt" mark=${(_, one) => isSpecial(one) && "sign"} /></div>
    <//>`}`;
}

function System() {
  const said = useStore(system);
  return html`<textarea id="system" class="chat-system" rows="1" placeholder="Optional: how it should answer" value=${said}
    onInput=${(e) => system.set(e.target.value)}></textarea>`;
}

export default function Chat() {
  const model = useStore(chosenModel), now = useStore(chat), { id, stats } = useStore(writing);
  const path = pathTo(now.leaf), end = useRef();
  useRunKeys(() => send(draft.get()), stop);
  useEffect(() => { if (path.length > 0) end.current.scrollIntoView({ block: "nearest" }); }, [path.length]);
  return html`<div class="with-side">
    <${Card} className="chat-card" title="System message" labelFor="system"
        tools=${path.length > 0 && html`<${Legend} /><button id="chat-new" type="button" class="quiet" disabled=${id !== null}
          onClick=${newChat}>New chat</button>`}>
      <${System} />
      ${path.length === 0 && html`<${Start} model=${model} />`}
      <ol id="messages" class="chat-messages" aria-label="Conversation">${path.map((node, i) => html`<${Message} key=${node.id} node=${node}
        last=${i === path.length - 1} />`)}</ol>
      <p id="chat-stats" class="stats" role="status" ref=${end}>${stats}</p>
      <${Composer} model=${model} busy=${id !== null} />
      ${path.length > 0 && html`<div class="chat-tools">
        <${ViewAs} request=${requestNow} /><${ShowPrompt} />
        <button type="button" class="quiet" disabled=${id !== null} title="The conversation with its tokens, probabilities and alternatives"
          onClick=${saveChat}>Export as JSON</button>
      </div>`}
    <//>
    <aside aria-label="Sampling"><${Sampling} open=${matchMedia("(min-width: 861px)").matches} /></aside>
  </div>`;
}
