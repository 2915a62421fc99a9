// SPDX-License-Identifier: MIT
// The guided walk: from text to the next word in eight steps, with the numbers of one's own sentence, one step a screen. The worked example, six
// words of three numbers each, takes the sentence's place in steps 3 to 6.
//
// In the address: step (1 to 8), layer, head, source ("example"). A step is a file of walk/ and gets
//   ctx: {text, setText, plain (the text is ids), model, tokens, labels, architecture, layer, head, setHead, example, params}

import { html, useEffect, useMemo, useRef } from "../../lib/html.js";
import { address, linkTo, useParam, useStore } from "../../lib/store.js";
import { Segmented, Select } from "../../lib/ui.js";
import Block from "./walk/block.js";
import { labelsOf } from "./walk/data.js";
import Heads from "./walk/heads.js";
import Mask from "./walk/mask.js";
import Next from "./walk/next.js";
import Plain from "./walk/plain.js";
import Positions from "./walk/positions.js";
import Queries from "./walk/qkv.js";
import Tokens from "./walk/tokens.js";

const STEPS = [
  ["Tokens", Tokens, ""],
  ["Embeddings and positions", Positions, ""],
  ["Plain self attention", Plain, "example"],
  ["Queries, keys, values", Queries, "example layer head"],
  ["Mask and dropout", Mask, "example layer head"],
  ["Many heads", Heads, "example layer"],
  ["The whole block", Block, "layer"],
  ["The next token", Next, ""],
];
const OWN_ARROWS = "input, select, textarea, [contenteditable], .matrix-scroll, .token-text, dialog";

const whole = (text, most) => Math.min(Math.max(Math.trunc(Number(text)) || 0, 0), most);

/** Arrow keys turn the page wherever they mean nothing else. */
function useArrows(turn) {
  const latest = useRef(turn);
  latest.current = turn;
  useEffect(() => {
    const press = (event) => {
      if (event.defaultPrevented || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey || event.target.closest?.(OWN_ARROWS)) return;
      if (event.key === "ArrowRight") latest.current(1);
      if (event.key === "ArrowLeft") latest.current(-1);
    };
    document.addEventListener("keydown", press);
    return () => document.removeEventListener("keydown", press);
  }, []);
}

function Contents({ step, params }) {
  const strip = useRef();
  useEffect(() => { // on a phone the steps are a strip that scrolls sideways
    strip.current.scrollLeft = strip.current.querySelector("[aria-current]").offsetLeft - strip.current.offsetLeft - 24;
  }, [step]);
  return html`<nav class="walk-contents" ref=${strip} aria-label="Steps of the walk"><ol>${STEPS.map(([name], i) =>
    html`<li><a href=${linkTo("inside", { ...params, step: i ? i + 1 : null })} aria-current=${i === step ? "step" : undefined}><span
      class="walk-number">${i + 1}</span> ${name}</a></li>`)}</ol></nav>`;
}

const SOURCES = [
  ["sentence", "Your sentence"],
  ["example", "Worked example", "Six words of three numbers each, from the notebook that this walk follows"],
];
const numbers = (n) => Array.from({ length: n }, (_, i) => [String(i), String(i)]);

function Choices({ needs, architecture: a, layer, setLayer, head, setHead, example, setSource }) {
  const has = (name) => needs.includes(name);
  return html`<div class="row walk-choices">
    ${has("example") && html`<${Segmented} label="Numbers of" value=${example ? "example" : "sentence"}
      onChange=${(value) => setSource(value === "example" ? value : null)}
      options=${SOURCES} />`}
    ${has("layer") && !example && html`<span><${Select} label="Layer" visibleLabel value=${String(layer)} options=${numbers(a.n_layer)}
      onChange=${setLayer} /></span>`}
    ${has("head") && !example && html`<span><${Select} label="Head" visibleLabel value=${String(head)} options=${numbers(a.n_head)}
      onChange=${setHead} /></span>`}
  </div>`;
}

function ExampleSource() {
  return html`<p class="hint">The worked example: “Your journey starts with one step”, three numbers a word, and the weights that torch draws
    for a fixed seed; from attention_mechanism.ipynb of
    ${" "}Sangameeee/LLM-from-scratch (cells counted from 0). Computed by this server, shown to 4 decimals.</p>`;
}

export default function Walk({ text, setText, plain, model, tokens, architecture }) {
  const params = useStore(address, (a) => a.params);
  const [stepText, setStep] = useParam("step", "1"), [layerText, setLayer] = useParam("layer", "0"), [headText,
    setHead] = useParam("head", "0"), [source, setSource] = useParam("source");
  const step = whole(Number(stepText) - 1, STEPS.length - 1);
  const [name, Step, needs] = STEPS[step];
  const layer = whole(layerText, architecture.n_layer - 1), head = whole(headText, architecture.n_head - 1);
  const example = source === "example" && needs.includes("example");
  const labels = useMemo(() => labelsOf(tokens.texts), [tokens]);
  const title = useRef(), turned = useRef(step);
  const turn = (by) => { if (STEPS[step + by]) setStep(String(step + by + 1)); };
  useArrows(turn);
  useEffect(() => {
    if (turned.current === step) return; // not on opening: the text above has the eye then
    turned.current = step;
    title.current.focus({ preventScroll: true });
    title.current.scrollIntoView({ block: "start" });
  }, [step]);
  const ctx = { text, setText, plain, model, tokens, labels, architecture, layer, head, setHead: (h) => setHead(String(h)), example, params };
  return html`<div class="walk">
    <${Contents} step=${step} params=${params} />
    <section class="card walk-step" aria-labelledby="walk-title">
      <div class="walk-top"><h2 id="walk-title" ref=${title} tabindex="-1">${step + 1}. ${name}</h2>
        <${Choices} needs=${needs} architecture=${architecture} layer=${layer} setLayer=${setLayer} head=${head} setHead=${setHead} example=${example}
          setSource=${setSource} /></div>
      ${example && html`<${ExampleSource} />`}
      <${Step} key=${`${step} ${model}`} ctx=${ctx} />
      <div class="walk-turn">
        <button type="button" disabled=${step === 0} onClick=${() => turn(-1)}>← Back${step > 0 && html`<span
          class="walk-turn-name">: ${STEPS[step - 1][0]}</span>`}</button>
        <span class="hint">${step + 1} of ${STEPS.length}</span>
        <button type="button" class="primary" disabled=${step === STEPS.length - 1}
          onClick=${() => turn(1)}>Next${step < STEPS.length - 1 && html`<span class="walk-turn-name">: ${STEPS[step + 1][0]}</span>`} →</button>
      </div>
    </section>
  </div>`;
}
