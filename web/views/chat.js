// SPDX-License-Identifier: MIT
// Chat: a conversation through the model's own chat template. Every word of an answer shows what it was chosen from; questions and answers
// can be changed without losing what was there.

import { html, useEffect, useRef } from "../lib/html.js";
import { Sampling } from "../lib/sampling.js";
import { chosenModel, modelInfo } from "../lib/server.js";
import { useStore } from "../lib/store.js";
import { Legend } from "../lib/token_text.js";
import { Card, useRunKeys } from "../lib/ui.js";
import { ViewAs } from "../lib/view_as.js";
import { Message } from "./chat/message.js";
import { draft, requestNow, saveChat, send, stop, writing } from "./chat/run.js";
import { chat, newChat, pathTo, system } from "./chat/tree.js";

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
  const text = useStore(draft), box = useRef();
  const onKey = (event) => {
    // Enter alone sends where there is a real keyboard; while a word is being composed it belongs to the input method.
    if (event.key !== "Enter" || event.shiftKey || event.ctrlKey || event.metaKey || event.isComposing) return;
    if (matchMedia("(pointer: coarse)").matches) return;
    event.preventDefault();
    if (!busy) send(text);
  };
  return html`<div class="chat-composer">
    <label class="sr" for="say">Your message</label>
    <textarea id="say" ref=${box} rows="2" placeholder="Your message" value=${text} onInput=${(e) => draft.set(e.target.value)}
      onKeyDown=${onKey}></textarea>
    ${busy ? html`<button id="chat-stop" type="button" onClick=${stop}>Stop <kbd>Esc</kbd></button>`
      : html`<button id="send" class="primary" type="button" disabled=${!model || text.trim() === ""}
        onClick=${() => send(text)}>Send <kbd>↵</kbd></button>`}
  </div>`;
}

export default function Chat() {
  const model = useStore(chosenModel), now = useStore(chat), said = useStore(system), { id, stats } = useStore(writing);
  const path = pathTo(now.leaf), end = useRef();
  useRunKeys(() => send(draft.get()), stop);
  useEffect(() => { if (path.length > 0) end.current.scrollIntoView({ block: "nearest" }); }, [path.length]);
  return html`<div class="with-side">
    <${Card} className="chat-card" title="System message" labelFor="system"
        tools=${path.length > 0 && html`<${Legend} /><button id="chat-new" type="button" class="quiet" disabled=${id !== null}
          onClick=${newChat}>New chat</button>`}>
      <textarea id="system" class="chat-system" rows="1" placeholder="Optional: how it should answer" value=${said}
        onInput=${(e) => system.set(e.target.value)}></textarea>
      ${path.length === 0 && html`<${Start} model=${model} />`}
      <ol id="messages" class="chat-messages" aria-label="Conversation">${path.map((node, i) => html`<${Message} key=${node.id} node=${node}
        last=${i === path.length - 1} />`)}</ol>
      <p id="chat-stats" class="stats" role="status" ref=${end}>${stats}</p>
      <${Composer} model=${model} busy=${id !== null} />
      ${path.length > 0 && html`<div class="chat-tools">
        <${ViewAs} request=${requestNow} />
        <button type="button" class="quiet" disabled=${id !== null} title="The conversation with its tokens, probabilities and alternatives"
          onClick=${saveChat}>Export as JSON</button>
      </div>`}
    <//>
    <aside aria-label="Sampling"><${Sampling} open=${matchMedia("(min-width: 861px)").matches} /></aside>
  </div>`;
}
