// SPDX-License-Identifier: MIT
// Complete: a text goes in, the model goes on with it; every token shows what it was chosen from, and any alternative can be taken instead.

import { call } from "../lib/api.js";
import { answer, summary } from "../lib/answer.js";
import { html, useEffect, useRef, useState } from "../lib/html.js";
import { Sampling, samplingProblem, samplingRequest, sampling } from "../lib/sampling.js";
import { chosenModel, fail, models, say } from "../lib/server.js";
import { persistentStore, useStore } from "../lib/store.js";
import { TokenLog, TokenText } from "../lib/token_text.js";
import { Card, CopyButton, useSettled } from "../lib/ui.js";

const EXAMPLES = [
  ["Story", "Once upon a time, in a library that nobody had visited for a hundred years,"],
  ["Facts", "Water boils at a lower temperature on high mountains because"],
  ["List", "Five good habits for people who write programs:\n1."],
];
const prompt = persistentStore("prompt", "");
const log = new TokenLog(); // outlives the view, as does what runs
let running = null;

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

export default function Complete() {
  const model = useStore(chosenModel), state = useStore(models, (m) => m.state), text = useStore(prompt);
  const [stats, setStats] = useState("");
  const [busy, setBusy] = useState(Boolean(running));
  const complete = async (body = null) => {
    const wrong = samplingProblem();
    if (wrong) say(`Sampling: ${wrong}`);
    if (wrong || running || !model) return;
    say(null);
    running = new AbortController();
    setBusy(true);
    setStats("");
    log.clear();
    try {
      setStats(summary(await answer("/v1/completions", { model, prompt: prompt.get(), ...samplingRequest(), ...body }, log, running.signal)));
    } catch (error) {
      fail(error, () => complete(body));
    } finally {
      running = null;
      setBusy(false);
    }
  };
  return html`<div class="with-side">
    <div class="stack">
      <${Card} title="Prompt" labelFor="prompt" tools=${html`<${PromptCount} model=${model} text=${text} />`}>
        <textarea id="prompt" rows="7" spellcheck="false" placeholder="Begin a text; the model goes on with it." value=${text} onInput=${(e) => prompt.set(e.target.value)}></textarea>
        <div class="actions">
          <button id="run" class="primary" type="button" disabled=${busy || state !== "ready" || !model} onClick=${() => complete()}>Complete <kbd>Ctrl ↵</kbd></button>
          ${busy && html`<button id="stop" type="button" onClick=${() => running?.abort()}>Stop <kbd>Esc</kbd></button>`}
          <span class="examples">${EXAMPLES.map(([name, words]) => html`<button type="button" class="quiet" title=${words} onClick=${() => prompt.set(words)}>${name}</button>`)}</span>
        </div>
      <//>
      <${Card} title="Answer" className="answer" tools=${html`<${CopyButton} text=${() => log.text} />`}>
        <${TokenText} id="answer" log=${log} label="The model's answer" running=${busy} />
        <p id="stats" class="stats" role="status">${stats}</p>
      <//>
    </div>
    <aside aria-label="Sampling"><${Sampling} open=${matchMedia("(min-width: 861px)").matches} /></aside>
  </div>`;
}
