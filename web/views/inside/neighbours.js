// SPDX-License-Identifier: MIT
// Neighbours: the tokens whose rows of the served embedding table point the same way. Of the text's tokens, of any word, and of neighbours in turn.

import { visible } from "../../lib/format.js";
import { html, useEffect, useMemo, useState } from "../../lib/html.js";
import { namesOf, useInspect } from "../../lib/inspect.js";
import { Card, useSettled } from "../../lib/ui.js";
import { Failed } from "./failed.js";
import { Strip } from "./strip.js";

const NEAREST = 16;
const NONE = { ids: [], texts: [] };

/** The bars of one token; each neighbour can be looked at in turn. */
function Nearest({ model, token, onGo, trail, onBack }) {
  const { answer, asked, error, busy, again } = useInspect({ model, prompt: [token.id], what: ["neighbours"], top_k: NEAREST });
  if (error) return html`<${Failed} title="The neighbours did not come" error=${error} again=${again} />`;
  const near = answer && asked.model === model ? { ...answer.neighbours, texts: namesOf(answer.neighbours) } : null;
  const from = near ? namesOf(answer.tokens)[0] : token.text;
  return html`<div class="inside-near" aria-busy=${busy}>
    <p class="inside-near-head"><code>${visible(from)}</code> <span class="stats">id ${near ? answer.tokens.ids[0] : token.id}</span>
      ${trail.length > 0 && html`<button type="button" class="quiet" onClick=${onBack}>← ${visible(trail[trail.length - 1].text)}</button>`}</p>
    ${near && html`<ol class="bars" aria-label=${`Nearest to ${visible(from)}`}>${near.ids.map((id, i) => html`<li><button type="button"
      class="bar chosen" title=${`Look at the neighbours of ${visible(near.texts[i])} (id ${id})`}
      onClick=${() => onGo({ id, text: near.texts[i] }, { id: answer.tokens.ids[0], text: from })}>
      <span class="bar-fill" style=${{ width: `${Math.max(0, near.similarities[i]) * 100}%` }}></span>
      <span class="bar-text">${visible(near.texts[i])}</span><span class="bar-value">${near.similarities[i].toFixed(3)}</span></button></li>`)}</ol>`}
  </div>`;
}

/** A line of tokens, and the neighbours of the chosen one. */
function Explorer({ model, tokens, label, initial = 0 }) {
  const [chosen, setChosen] = useState(initial);
  const [trail, setTrail] = useState([]), [gone, setGone] = useState(null); // gone: a neighbour that is looked at instead
  const at = Math.min(chosen, tokens.ids.length - 1), texts = useMemo(() => namesOf(tokens), [tokens]);
  useEffect(() => { setTrail([]); setGone(null); }, [tokens, model]);
  const choose = (i) => { setChosen(i); setTrail([]); setGone(null); };
  const back = () => {
    const before = trail[trail.length - 1];
    setTrail(trail.slice(0, -1));
    setGone(trail.length > 1 ? before : null);
  };
  return html`<${Strip} texts=${texts} chosen=${at} onChoose=${choose} label=${label} />
    <${Nearest} model=${model} token=${gone ?? { id: tokens.ids[at], text: texts[at] }} trail=${trail} onBack=${back}
      onGo=${(to, from) => { setTrail([...trail, from]); setGone(to); }} />`;
}

function AnyWord({ model }) {
  const [word, setWord] = useState(" king"), settled = useSettled(word, 250);
  const { answer, error } = useInspect(settled === "" ? null : { model, prompt: settled, what: ["tokens"] });
  const tokens = settled !== "" && answer ? answer.tokens : NONE;
  return html`<${Card} title="Of any word" labelFor="inside-word" id="inside-any">
    <input id="inside-word" class="inside-wide" autocomplete="off" spellcheck="false" maxlength="200" value=${word}
      onInput=${(e) => setWord(e.target.value)} aria-describedby="inside-word-help" />
    <p class="hint" id="inside-word-help">With a blank in front it is a word inside a text, without one the beginning of a text: two different
      tokens.</p>
    ${error && html`<p class="bad">${error.message}</p>`}
    ${tokens.ids.length > 0 && html`<${Explorer} model=${model} tokens=${tokens} label="The word's tokens. Arrow keys choose one." />`}
  <//>`;
}

export default function Neighbours({ model, info, tokens }) {
  return html`<div class="columns inside-neighbours">
    <${Card} title="Of the text's tokens" id="inside-of-text">
      <p class="hint">A token enters the model as a row of its embedding table. Rows that point the same way (cosine near 1) were used alike in
        training. Click a token.</p>
      <${Explorer} model=${model} tokens=${tokens} label="The text. Arrow keys choose a token." initial=${tokens.ids.length > 2 ? 2 : 0} />
    <//>
    ${info.meta?.vocab_type !== "none" && html`<${AnyWord} model=${model} />`}
  </div>`;
}
