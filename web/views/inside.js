// SPDX-License-Identifier: MIT
// Inside: one text, one model, and what the model computes on it, in parts (tabs), the smallest of them, Neighbours, here. The frame owns the
// text and its tokens; a part gets
//   {text, setText, plain (the text is ids), model, tokens: {ids, texts}, architecture (of /v1/inspect)}
// and asks /v1/inspect for the rest with `prompt: tokens.ids`; another model is another part. What stands in the address: tab, layer, head, step and
// what a part adds.

import { call } from "../lib/api.js";
import { count, plural, visible } from "../lib/format.js";
import { html, useEffect, useMemo, useRef, useState } from "../lib/html.js";
import { Failed, giveUp, Looking, namesOf, Strip, tokensOf, useInspect, within } from "../lib/inspect.js";
import { chosenModel, fail, models } from "../lib/server.js";
import { address, linkTo, persistentStore, useParam, useStore } from "../lib/store.js";
import { Bars } from "../lib/token_text.js";
import { Card, Empty, Facts, useSettled } from "../lib/ui.js";
import { Attention } from "./inside/attention.js";
import { Heads, Lens } from "./inside/next.js";
import Walk from "./inside/walk.js";

// ---------------------------------------------------------------- the text

const EXAMPLES = [
  ["Dog and man", "The old man chased the dog. Then the dog chased the"],
  ["Facts", "The Eiffel Tower stands in Paris, the capital of"],
  ["Count", "Monday, Tuesday, Wednesday, Thursday,"],
];
const text = persistentStore("inside.text", EXAMPLES[0][1]);
const idText = persistentStore("inside.ids", "1 2 3 4 5 6 7 8"); // for a model without tokenizer

/** What is asked about: the text, its first so many ids, or the given ids; null while there is nothing. */
function usePrompt(model, plain, words, first) {
  const [ids, setIds] = useState(null), empty = !model || words.trim() === "";
  useEffect(() => {
    setIds(null);
    if (empty || plain || !first) return undefined;
    const control = new AbortController();
    call("/tokenize", { model, prompt: words }, control.signal).then((reply) => setIds(reply.tokens), fail);
    return () => control.abort();
  }, [model, plain, words, first]);
  return useMemo(() => {
    if (empty) return null;
    const all = plain ? words.split(/[\s,]+/).filter(Boolean).map(Number) : first ? ids : words;
    return first && all ? all.slice(0, first) : all;
  }, [model, plain, words, first, ids]);
}

function Architecture({ a }) {
  const shared = a.n_kv_head < a.n_head, rotary = a.positions === "rotary";
  return html`<${Facts} items=${[
    ["layers", a.n_layer],
    ["heads", shared ? `${a.n_head} on ${a.n_kv_head}` : a.n_head,
      shared && `${a.n_head} query heads share ${plural(a.n_kv_head, "key/value head")}`],
    ["width", a.n_embd, "numbers that stand for a token between layers"],
    ["head size", a.head_size],
    ["vocabulary", count(a.n_vocab)],
    ["positions", rotary ? "rotary" : "learned", rotary ? "queries and keys are turned by their place" : "a vector of its own for each place"],
  ]} />`;
}

function TextCard({ plain, store, value, look, first, setFirst, onAgain }) {
  const n = look?.tokens.ids.length, counted = n > 0 && plural(n, "token");
  const tools = counted && html`<span id="inside-count" class="count">${first && n === first ? `the first ${counted}` : counted}</span>
    ${first > 0 && html`<button type="button" class="quiet" onClick=${() => setFirst(null)}>Look at all</button>`}
    ${onAgain && html`<button type="button" class="quiet" title="This model is being trained: see what it has become" onClick=${onAgain}>
      Look again</button>`}`;
  return html`<${Card} title=${plain ? "Token ids" : "Text"} labelFor="inside-text" tools=${tools}>
    <textarea id="inside-text" rows="2" spellcheck="false" value=${value} onInput=${(e) => store.set(e.target.value)}
      placeholder=${plain ? "1 2 3: this model has no tokenizer, it reads ids" : "Write a sentence to look inside."}></textarea>
    <div class="actions">
      ${look && html`<${Architecture} a=${look.architecture} />`}
      ${!plain && html`<span class="examples">${EXAMPLES.map(([name, words]) =>
        html`<button type="button" class="quiet" title=${words} onClick=${() => text.set(words)}>${name}</button>`)}</span>`}
    </div>
  <//>`;
}

/** Why there is nothing to see, and the way on. */
function Refused({ error, again, setFirst }) {
  const room = error.code === "context_length_exceeded" && Number(/; (\d+) can be looked at/.exec(error.message)?.[1]);
  if (!room) return html`<${Failed} error=${error} again=${again} />`;
  const action = html`<button type="button" class="primary" onClick=${() => setFirst(room)}>Look at the first ${count(room)} tokens</button>`;
  return html`<${Card}><${Empty} title="The text is too long to look inside" action=${action}>
    ${error.message} Shorten it, or look at its beginning: what follows changes nothing there, for a token sees only what is before it.
  <//><//>`;
}

// ---------------------------------------------------------------- neighbours

const NEAREST = 16;

/** A line of tokens, and the neighbours of the chosen one; each neighbour can be looked at in turn. */
function Explorer({ model, tokens, label, initial = 0 }) {
  const [chosen, setChosen] = useState(initial), [trail, setTrail] = useState([]); // trail: neighbours that were gone to, the last is shown
  const at = within(chosen, tokens.ids.length), texts = useMemo(() => namesOf(tokens), [tokens]);
  const path = [{ id: tokens.ids[at], text: texts[at] }, ...trail], token = path.at(-1), before = path.at(-2);
  useEffect(() => setTrail([]), [tokens, at]);
  const { answer, error, busy, again } = useInspect({ model, prompt: [token.id], what: ["neighbours"], top_k: NEAREST });
  const near = !busy && answer && tokensOf(answer.neighbours, answer.neighbours.similarities), from = visible(token.text);
  return html`<${Strip} texts=${texts} chosen=${at} onChoose=${setChosen} label=${label} />
    ${error ? html`<${Failed} error=${error} again=${again} />` : html`<div class="inside-near" aria-busy=${busy}>
      <p class="row inside-near-head"><code>${from}</code> <span class="count">id ${token.id}</span>
        ${before && html`<button type="button" class="quiet" onClick=${() => setTrail(trail.slice(0, -1))}>← ${visible(before.text)}</button>`}</p>
      ${near && html`<${Bars} label=${`Nearest to ${from}`} rows=${near.map((one) => ({ text: one.text, share: one.p, value: one.p.toFixed(3),
        title: `Look at the neighbours of ${visible(one.text)} (id ${one.id})`, onClick: () => setTrail([...trail, one]) }))} />`}
    </div>`}`;
}

function AnyWord({ model }) {
  const [word, setWord] = useState(" king"), settled = useSettled(word, 250);
  const { answer, error } = useInspect(settled && { model, prompt: settled, what: ["tokens"] });
  return html`<${Card} title="Of any word" labelFor="inside-word" id="inside-any">
    <input id="inside-word" class="inside-wide" autocomplete="off" spellcheck="false" maxlength="200" value=${word}
      onInput=${(e) => setWord(e.target.value)} aria-describedby="inside-word-help" />
    <p class="hint" id="inside-word-help">With a blank in front it is a word inside a text, without one the beginning of a text: two different
      tokens.</p>
    ${error && html`<p class="bad">${error.message}</p>`}
    ${answer?.tokens.ids.length > 0 && html`<${Explorer} model=${model} tokens=${answer.tokens} label="The word's tokens. Arrow keys choose one." />`}
  <//>`;
}

function Neighbours({ model, plain, tokens }) {
  return html`<div class="columns inside-neighbours">
    <${Card} title="Of the text's tokens" id="inside-of-text">
      <p class="hint">A token enters the model as a row of its embedding table. Once a model is trained, rows that point the same way (cosine near 1)
        are of tokens that are used alike. Click a token.</p>
      <${Explorer} model=${model} tokens=${tokens} label="The text. Arrow keys choose a token." initial=${tokens.ids.length > 2 ? 2 : 0} />
    <//>
    ${!plain && html`<${AnyWord} model=${model} />`}
  </div>`;
}

// ---------------------------------------------------------------- parts

const TABS = [
  ["walk", "Walk", "Step by step, from text to the next word", Walk],
  ["attention", "Attention", "Where every head of every layer looks", Attention],
  ["lens", "Lens", "What the model would say if it stopped early", Lens],
  ["neighbours", "Neighbours", "Which tokens the model holds for alike", Neighbours],
  ["heads", "Heads", "What changes when heads are silenced", Heads],
];

function Tabs({ open }) {
  const params = useStore(address, (a) => a.params), host = useRef();
  useEffect(() => host.current.querySelector("[aria-current]").scrollIntoView({ block: "nearest", inline: "center" }), [open]); // of a narrow screen
  return html`<nav class="inside-tabs" ref=${host} aria-label="Parts of Inside">${TABS.map(([tab, label, title]) => html`<a title=${title}
    href=${linkTo("inside", { ...params, tab, step: null })} aria-current=${tab === open ? "page" : undefined}>${label}</a>`)}</nav>`;
}

export default function Inside() {
  const model = useStore(chosenModel), list = useStore(models), info = list.list.find((one) => one.id === model);
  const plain = info?.meta?.vocab_type === "none", store = plain ? idText : text;
  const words = useStore(store), settled = useSettled(words, 350);
  const [wanted] = useParam("tab"), [firstText, setFirst] = useParam("first"), [turn, setTurn] = useState(0);
  const [tab, , , Part] = TABS.find(([name]) => name === wanted) ?? TABS[0], first = Number(firstText) || 0;
  const prompt = usePrompt(info && model, plain, settled, first);
  const { answer, asked, error, busy, again } = useInspect(useMemo(() => prompt && { model, prompt, what: ["tokens"] }, [model, prompt]));
  useEffect(() => { if (error && error.status !== 400) fail(error, again); }, [error]);
  const look = prompt && answer && asked.model === model && !error ? answer : null;
  const tokens = useMemo(() => look?.tokens, [look?.tokens.ids.join(" ")]); // the same object as long as the tokens are the same
  const shownIds = useRef();
  shownIds.current = tokens?.ids ?? [];
  useEffect(() => () => giveUp(shownIds.current), [model, prompt]);
  const part = useMemo(() => look && html`<${Part} key=${`${tab} ${turn}`} text=${settled} setText=${store.set} plain=${plain} model=${model}
    tokens=${tokens} architecture=${look.architecture} />`, [look, tab, turn, settled, plain, model, tokens]); // not drawn at every key
  return html`<div class="stack">
    <${TextCard} plain=${plain} store=${store} value=${words} look=${look} first=${first} setFirst=${setFirst}
      onAgain=${info?.couplet?.origin === "live" && (() => setTurn((n) => n + 1))} />
    <${Tabs} open=${tab} />
    ${error ? html`<${Refused} error=${error} again=${again} setFirst=${setFirst} />`
    : look ? html`<div class="inside-part" aria-busy=${busy || words !== settled}>${part}</div>`
    : words.trim() === "" ? html`<${Card}><${Empty} title="Nothing to look at yet">
        Write into the field above: every part of this page then shows what the model computes on it.<//><//>`
    : html`<${Card}>${list.state === "ready" && !info ? "No model is served. Start couplet with --model, or train one." : html`<${Looking} />`}<//>`}
  </div>`;
}
