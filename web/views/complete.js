// SPDX-License-Identifier: MIT
// Complete: a text goes in, the model goes on with it; every token shows what it was chosen from, and any alternative can be taken instead.

import { streamed } from "../lib/answer.js";
import { call } from "../lib/api.js";
import { html, useEffect, useState } from "../lib/html.js";
import { NeverTool, Sampling, sampling } from "../lib/sampling.js";
import { chosenModel, models } from "../lib/server.js";
import { address, useStore } from "../lib/store.js";
import { Legend, tint, TokenLog, TokenText } from "../lib/token_text.js";
import { Card, CopyButton, useRunKeys, useSettled } from "../lib/ui.js";
import { ViewAs } from "../lib/view_as.js";
import { answers, appendToPrompt, closeScored, complete, goOn, PATH, prompt, requestNow, saveAnswer, scored, scorePrompt, shareLink, show, shown, stop, takeAlternative, takeShared } from "./complete/run.js";

// ---------------------------------------------------------------- the prompt
// The prompt: its text, how many tokens it has, and on demand how likely the model finds each of them.

const EXAMPLES = [
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

function Prompt() {
  const model = useStore(chosenModel), state = useStore(models, (m) => m.state), text = useStore(prompt);
  const busy = useStore(answers, (a) => a.busy), reading = useStore(scored, (s) => s?.busy ?? false);
  return html`<${Card} title="Prompt" labelFor="prompt" tools=${html`<${PromptCount} model=${model} text=${text} />`}>
    <textarea id="prompt" rows="7" spellcheck="false" placeholder="Begin a text; the model goes on with it." value=${text}
      onInput=${(e) => prompt.set(e.target.value)}></textarea>
    <div class="actions">
      <button id="run" class="primary" type="button" disabled=${state !== "ready" || !model} aria-disabled=${busy}
        onClick=${() => complete()}>Complete <kbd>Ctrl ↵</kbd></button>
      ${busy && html`<button id="stop" type="button" onClick=${() => { stop(); document.getElementById("run").focus(); }}>Stop <kbd>Esc</kbd></button>`}
      <button id="score" type="button" class="quiet" disabled=${reading || !model || text === ""}
        title="How likely does the model find each token of the prompt?" onClick=${scorePrompt}>Score the prompt</button>
      <${ViewAs} request=${() => ({ path: PATH, body: streamed(PATH, requestNow()) })} link=${shareLink} />
      <span class="examples">${EXAMPLES.map(([name, words]) => html`<button type="button" class="quiet" title=${words}
        onClick=${() => prompt.set(words)}>${name}</button>`)}</span>
    </div>
  <//>`;
}

function Scored() {
  const now = useStore(scored), text = useStore(prompt), model = useStore(chosenModel), colour = useStore(tint);
  if (!now) return null;
  const stale = now.text !== text || now.model !== model;
  return html`<${Card} title="What the model thinks of the prompt" tools=${html`<${Legend} />
      ${stale && html`<button type="button" class="quiet" onClick=${scorePrompt}>Score it again</button>`}
      <button type="button" class="quiet" onClick=${closeScored}>${now.busy ? "Stop" : "Close"}</button>`}>
    <${TokenText} id="scored" log=${now.log} model=${now.model} colour=${colour} label="The tokens of the prompt" running=${now.busy} />
    <p class="stats" role="status">${now.busy ? "reading…" : now.stats}${stale ? " · of an earlier prompt or another model" : ""}</p>
  <//>`;
}

// ---------------------------------------------------------------- the answer
// The answer: its tokens, what each was chosen from, and the versions that steering left behind.

const NOTHING = new TokenLog();

function Versions({ now, busy }) {
  const { versions, at } = now;
  if (versions.length === 0 || (versions.length < 2 && at >= 0)) return null;
  const step = (to, sign, words) => html`<button type="button" class="quiet" disabled=${busy || !versions[to]} aria-label=${words} title=${words}
    onClick=${() => show(versions[to])}>${sign}</button>`;
  return html`<span class="complete-versions">
    ${step(at < 0 ? versions.length - 1 : at - 1, "‹", "Earlier answer")}
    ${at >= 0 && html`<span class="count">${at + 1} of ${versions.length}</span>${step(at + 1, "›", "Later answer")}`}
  </span>`;
}

function Nothing({ now }) {
  const text = useStore(prompt);
  if (now.versions.length > 0) return html`<p class="hint">The answer is part of the prompt now.</p>`;
  const tryOne = () => {
    prompt.set(EXAMPLES[0][1]);
    complete();
  };
  return html`<div class="complete-nothing"><p class="hint">Nothing is written yet. Every token that the model writes can be pointed at:
      how likely it was, and what else could stand there.</p>
    ${text === "" && html`<p><button type="button" onClick=${tryOne}>Try it with an example</button></p>`}</div>`;
}

function Answer() {
  const now = useStore(answers), colour = useStore(tint), { busy } = now, version = shown(now);
  const tokens = version?.log.items.length ?? 0;
  const can = version && !busy && version.log.promptIds;
  const tool = (words, title, act) => html`<button type="button" class="quiet" title=${title} onClick=${act}>${words}</button>`;
  return html`<${Card} title="Answer" className="answer" tools=${html`<${Versions} now=${now} busy=${busy} />${version && html`<${Legend} />`}`}>
    ${now.versions.includes(version?.from) && !busy && html`<p
      class="complete-back">${tool("↶ Back to the earlier answer", "As it was before the alternative was taken", () => show(version.from))}</p>`}
    <${TokenText} key=${version ? now.at : "none"} id="answer" log=${version?.log ?? NOTHING} model=${version?.model} colour=${colour}
      label="The model's answer" running=${busy} tools=${version && ((index, token) => html`<${NeverTool} model=${version.model} token=${token} />`)}
      onPick=${can ? (index, entry) => takeAlternative(version, index, entry) : undefined} />
    ${!version && html`<${Nothing} now=${now} />`}
    <p id="stats" class="stats" role="status">${version?.stats}</p>
    ${version && !busy && html`<div class="actions">
      ${tool("Another answer", "The same prompt once more, with another seed", () => complete(version))}
      ${can && tokens > 0 && tool("Go on writing", "Up to Max tokens more", () => goOn(version))}
      ${tokens > 0 && tool("Append to prompt", "To edit the text or to go on with other settings", () => appendToPrompt(version))}
      <${CopyButton} text=${() => version.log.text} />
      ${tokens > 0 && tool("Export as JSON", "Prompt, settings, tokens, probabilities and alternatives", () => saveAnswer(version))}
    </div>`}
  <//>`;
}

// ---------------------------------------------------------------- the view

export default function Complete() {
  const given = useStore(address, (a) => a.params.prompt);
  useEffect(takeShared, [given]);
  useRunKeys(() => complete(), stop);
  return html`<div class="with-side">
    <div class="stack"><${Prompt} /><${Scored} /><${Answer} /></div>
    <aside aria-label="Sampling"><${Sampling} open=${matchMedia("(min-width: 861px)").matches} /></aside>
  </div>`;
}
