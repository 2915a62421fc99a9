// SPDX-License-Identifier: MIT
// Inside: one text, one model, and what the model computes on it, in parts (tabs). The frame owns the text and its tokens; a part is a file of
// inside/ whose default export gets
//   {text, setText, plain (the text is ids), model, info (of /v1/models), tokens: {ids, texts}, architecture (of /v1/inspect)}
// and asks /v1/inspect for the rest with `prompt: tokens.ids`. What stands in the address: tab, layer, head, step and what a part adds.

import { call } from "../lib/api.js";
import { count, plural } from "../lib/format.js";
import { html, useEffect, useMemo, useRef, useState } from "../lib/html.js";
import { giveUp, useInspect } from "../lib/inspect.js";
import { chosenModel, fail, models } from "../lib/server.js";
import { address, linkTo, persistentStore, useParam, useStore } from "../lib/store.js";
import { Card, Empty, Facts, useSettled } from "../lib/ui.js";
import { Failed } from "./inside/failed.js";

const TABS = [
  ["walk", "Walk", "Step by step, from text to the next word"],
  ["attention", "Attention", "Where every head of every layer looks"],
  ["lens", "Lens", "What the model would say if it stopped early"],
  ["neighbours", "Neighbours", "Which tokens the model holds for alike"],
  ["heads", "Heads", "What changes when heads are silenced"],
];
const EXAMPLES = [
  ["Dog and man", "The old man chased the dog. Then the dog chased the"],
  ["Facts", "The Eiffel Tower stands in Paris, the capital of"],
  ["Count", "Monday, Tuesday, Wednesday, Thursday,"],
];
const text = persistentStore("inside.text", EXAMPLES[0][1]);
const idText = persistentStore("inside.ids", "1 2 3 4 5 6 7 8"); // for a model without tokenizer

const idsOf = (words) => words.split(/[\s,]+/).filter(Boolean).map(Number);

/** What is asked about: the text, its first so many ids, or the given ids; null while there is nothing. */
function usePrompt(model, plain, words, first) {
  const [ids, setIds] = useState(null);
  useEffect(() => {
    setIds(null);
    if (!model || plain || !first || words === "") return undefined;
    const control = new AbortController();
    call("/tokenize", { model, prompt: words }, control.signal).then((reply) => setIds(reply.tokens), fail);
    return () => control.abort();
  }, [model, plain, words, first]);
  return useMemo(() => {
    if (!model || words.trim() === "") return null;
    if (plain) return idsOf(words).slice(0, first || Infinity);
    return first ? ids?.slice(0, first) ?? null : words;
  }, [model, plain, words, first, ids]);
}

function TextCard({ plain, look, first, setFirst, onAgain }) {
  const store = plain ? idText : text;
  const value = useStore(store);
  const n = look?.tokens.ids.length;
  const counted = plural(n ?? 0, "token");
  const tools = n > 0 && html`<span id="inside-count" class="count">${first && n === first ? `the first ${counted}` : counted}</span>
    ${first > 0 && html`<button type="button" class="quiet" onClick=${() => setFirst(null)}>Look at all</button>`}
    ${onAgain && html`<button type="button" class="quiet" title="This model is being trained: see what it has become" onClick=${onAgain}>
      Look again</button>`}`;
  return html`<${Card} title=${plain ? "Token ids" : "Text"} labelFor="inside-text" tools=${tools}>
    <textarea id="inside-text" rows="2" spellcheck="false" value=${value} onInput=${(e) => store.set(e.target.value)}
      placeholder=${plain ? "1 2 3: this model has no tokenizer, it reads ids" : "Write a sentence to look inside."}></textarea>
    <div class="inside-about">
      ${look ? html`<${Architecture} a=${look.architecture} />` : html`<span></span>`}
      ${!plain && html`<span class="examples">${EXAMPLES.map(([name, words]) =>
        html`<button type="button" class="quiet" title=${words} onClick=${() => text.set(words)}>${name}</button>`)}</span>`}
    </div>
  <//>`;
}

function Architecture({ a }) {
  const heads = a.n_kv_head === a.n_head ? ["heads", a.n_head]
    : ["heads", `${a.n_head} on ${a.n_kv_head}`, `${a.n_head} query heads share ${plural(a.n_kv_head, "key/value head")}`];
  const positions = a.positions === "rotary" ? ["positions", "rotary", "queries and keys are turned by their place"]
    : ["positions", "learned", "a vector of its own for each place"];
  return html`<${Facts} items=${[["layers", a.n_layer], heads, ["width", a.n_embd, "numbers that stand for a token between layers"],
    ["head size", a.head_size], ["vocabulary", count(a.n_vocab)], positions]} />`;
}

/** Why there is nothing to see, and the way on. */
function Refused({ error, again, setFirst }) {
  const room = error.code === "context_length_exceeded" && Number(/; (\d+) can be looked at/.exec(error.message)?.[1]);
  if (!room) return html`<${Failed} title="There is nothing to see yet" error=${error} again=${again} />`;
  const action = html`<button type="button" class="primary" onClick=${() => setFirst(room)}>Look at the first ${count(room)} tokens</button>`;
  return html`<${Card}><${Empty} title="The text is too long to look inside" action=${action}>
    ${error.message} Shorten it, or look at its beginning: what follows changes nothing there, for a token sees only what is before it.
  <//><//>`;
}

function usePart(tab) {
  const [part, setPart] = useState({ tab: null, Component: null });
  useEffect(() => {
    let gone = false;
    import(`./inside/${tab}.js`).then(
      (module) => { if (!gone) setPart({ tab, Component: module.default }); },
      (error) => { if (!gone) fail(error); });
    return () => { gone = true; };
  }, [tab]);
  return part.tab === tab ? part.Component : null;
}

function Tabs({ tab }) {
  const params = useStore(address, (a) => a.params), host = useRef();
  useEffect(() => { // on a narrow screen the open one may lie outside
    const open = host.current.querySelector("[aria-current]");
    host.current.scrollLeft = open.offsetLeft - (host.current.clientWidth - open.offsetWidth) / 2;
  }, [tab]);
  return html`<nav class="inside-tabs" ref=${host} aria-label="Parts of Inside">${TABS.map(([name, label, title]) => html`<a title=${title}
    href=${linkTo("inside", { ...params, tab: name, step: null })} aria-current=${name === tab ? "page" : undefined}>${label}</a>`)}</nav>`;
}

export default function Inside() {
  const model = useStore(chosenModel), list = useStore(models);
  const info = list.list.find((one) => one.id === model) ?? null;
  const plain = info?.meta?.vocab_type === "none";
  const words = useStore(plain ? idText : text), settled = useSettled(words, 350);
  const [wanted] = useParam("tab", TABS[0][0]), [firstText, setFirst] = useParam("first");
  const tab = TABS.some(([name]) => name === wanted) ? wanted : TABS[0][0], first = Math.max(0, Number(firstText) || 0);
  const prompt = usePrompt(info ? model : "", plain, settled, first);
  const { answer, asked, error, busy, again } = useInspect(prompt && { model, prompt, what: ["tokens"] });
  const Part = usePart(tab), shownIds = useRef(null), [turn, setTurn] = useState(0);
  useEffect(() => () => { if (shownIds.current) giveUp(shownIds.current); }, [model, prompt]);
  useEffect(() => { if (error && [401, 404, 429, undefined].includes(error.status)) fail(error, again); }, [error]);
  const look = prompt && answer && asked.model === model && !error ? answer : null;
  const tokens = look?.tokens, key = tokens?.ids.join(" ");
  const shared = useMemo(() => tokens, [key]); // the same object as long as the tokens are the same
  shownIds.current = shared?.ids ?? null;
  return html`<div class="stack">
    <${TextCard} plain=${plain} look=${look} first=${first} setFirst=${setFirst}
      onAgain=${info?.couplet?.origin === "live" ? () => setTurn((n) => n + 1) : null} />
    <${Tabs} tab=${tab} />
    ${error ? html`<${Refused} error=${error} again=${again} setFirst=${setFirst} />`
    : look && Part ? html`<${Part} key=${`${tab} ${turn}`} text=${settled} setText=${(plain ? idText : text).set} plain=${plain} model=${model}
        info=${info} tokens=${shared} architecture=${look.architecture} />`
    : words.trim() === "" ? html`<${Card}><${Empty} title="Nothing to look at yet">
        ${plain ? "Give a few token ids above." : "Write a sentence above, or take an example."}
        ${" "}Every part of this page then shows what the model computes on it.<//><//>`
    : html`<${Card}><p class="hint" role="status">${list.state === "ready" && !info ? "No model is served. Start couplet with --model, or train one."
        : busy || !Part ? "Looking…" : ""}</p><//>`}
  </div>`;
}
