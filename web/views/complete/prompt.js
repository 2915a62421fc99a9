// SPDX-License-Identifier: MIT
// The prompt: its text, how many tokens it has, and on demand how likely the model finds each of them.

import { call } from "../../lib/api.js";
import { html, useEffect, useState } from "../../lib/html.js";
import { sampling } from "../../lib/sampling.js";
import { chosenModel, models } from "../../lib/server.js";
import { useStore } from "../../lib/store.js";
import { Legend, TokenText, tint } from "../../lib/token_text.js";
import { Card, useSettled } from "../../lib/ui.js";
import { ViewAs } from "../../lib/view_as.js";
import { streamed } from "../../lib/answer.js";
import { answers, closeScored, complete, PATH, prompt, requestNow, scored, scorePrompt, stop } from "./run.js";
import { shareLink } from "./share.js";

export const EXAMPLES = [
  ["Story", "Once upon a time, in a library that nobody had visited for a hundred years,"],
  ["Facts", "Water boils at a lower temperature on high mountains because"],
  ["List", "Five good habits for people who write programs:\n1."],
];

function PromptCount({ model, text }) {
  const settled = useSettled(text);
  const [counted, setCounted] = useState(null);
  const wanted = useStore(sampling, (s) => Number(s.max_tokens || 16));
  useEffect(() => {
    setCounted(null);
    if (!model || settled === "") return undefined;
    const control = new AbortController();
    call("/tokenize", { model, prompt: settled }, control.signal).then(setCounted, () => {}); // only a count: running the prompt says what is wrong
    return () => control.abort();
  }, [model, settled]);
  if (!counted) return html`<span id="prompt-count" class="count"></span>`;
  const { count, max_model_len: room } = counted;
  const over = count + wanted > room;
  const more = over ? (count >= room ? ", too long" : `, no room for ${wanted} more`) : "";
  return html`<span id="prompt-count" class=${`count ${over ? "over" : ""}`} title="What the model reads, counted by its own tokenizer">
    ${count} ${count === 1 ? "token" : "tokens"} of ${room}${more}</span>`;
}

export function Prompt() {
  const model = useStore(chosenModel), state = useStore(models, (m) => m.state), text = useStore(prompt);
  const busy = useStore(answers, (a) => a.busy), reading = useStore(scored, (s) => s?.busy ?? false);
  return html`<${Card} title="Prompt" labelFor="prompt" tools=${html`<${PromptCount} model=${model} text=${text} />`}>
    <textarea id="prompt" rows="7" spellcheck="false" placeholder="Begin a text; the model goes on with it." value=${text}
      onInput=${(e) => prompt.set(e.target.value)}></textarea>
    <div class="actions">
      <button id="run" class="primary" type="button" disabled=${busy || state !== "ready" || !model}
        onClick=${() => complete()}>Complete <kbd>Ctrl ↵</kbd></button>
      ${busy && html`<button id="stop" type="button" onClick=${stop}>Stop <kbd>Esc</kbd></button>`}
      <button id="score" type="button" class="quiet" disabled=${reading || !model || text === ""}
        title="How likely does the model find each token of the prompt?" onClick=${scorePrompt}>Score the prompt</button>
      <${ViewAs} request=${() => ({ path: PATH, body: streamed(PATH, requestNow()) })} link=${shareLink} />
      <span class="examples">${EXAMPLES.map(([name, words]) => html`<button type="button" class="quiet" title=${words}
        onClick=${() => prompt.set(words)}>${name}</button>`)}</span>
    </div>
  <//>`;
}

export function Scored() {
  const now = useStore(scored), text = useStore(prompt), model = useStore(chosenModel), colour = useStore(tint);
  if (!now) return null;
  const stale = now.text !== text || now.model !== model;
  return html`<${Card} title="What the model thinks of the prompt" tools=${html`<${Legend} />
      ${stale && html`<button type="button" class="quiet" onClick=${scorePrompt}>Score it again</button>`}
      <button type="button" class="quiet" onClick=${closeScored}>${now.busy ? "Stop" : "Close"}</button>`}>
    <${TokenText} id="scored" log=${now.log} colour=${colour} label="The tokens of the prompt" running=${now.busy} />
    <p class="stats" role="status">${now.busy ? "reading…" : now.stats}${stale ? " · of an earlier prompt or another model" : ""}</p>
  <//>`;
}
