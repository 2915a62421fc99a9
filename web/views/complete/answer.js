// SPDX-License-Identifier: MIT
// The answer: its tokens, what each was chosen from, and the versions that steering left behind.

import { html } from "../../lib/html.js";
import { NeverTool } from "../../lib/sampling.js";
import { useStore } from "../../lib/store.js";
import { Legend, TokenLog, TokenText, tint } from "../../lib/token_text.js";
import { Card, CopyButton } from "../../lib/ui.js";
import { EXAMPLES } from "./prompt.js";
import { answers, appendToPrompt, complete, goOn, prompt, show, shown, takeAlternative } from "./run.js";
import { saveAnswer } from "./share.js";

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

export function Answer() {
  const now = useStore(answers), colour = useStore(tint), { busy } = now, version = shown(now);
  const tokens = version?.log.items.length ?? 0;
  const can = version && !busy && version.promptIds;
  const tool = (words, title, act) => html`<button type="button" class="quiet" title=${title} onClick=${act}>${words}</button>`;
  return html`<${Card} title="Answer" className="answer" tools=${html`<${Versions} now=${now} busy=${busy} />${version && html`<${Legend} />`}`}>
    ${now.versions.includes(version?.from) && !busy && html`<p
      class="complete-back">${tool("↶ Back to the earlier answer", "As it was before the alternative was taken", () => show(version.from))}</p>`}
    <${TokenText} key=${version ? now.at : "none"} id="answer" log=${version?.log ?? NOTHING} colour=${colour} label="The model's answer"
      running=${busy} tools=${version && ((index, token) => html`<${NeverTool} model=${version.model} token=${token} />`)}
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
