// SPDX-License-Identifier: MIT
// The guided walk: from text to the next word in eight steps, with the numbers of one's own sentence, one step a screen. The worked example, six
// words of three numbers each, takes the sentence's place in steps 3 to 6. Here: the frame, and the steps around attention: 1, 7 and 8.
//
// In the address: step (1 to 8), layer, head, source ("example"). A step gets
//   ctx: {text, setText, plain (the text is ids), model, tokens, labels, architecture, layer, head, setHead, example, params}

import { call } from "../../lib/api.js";
import { count, hex, number, percent, plural, visible } from "../../lib/format.js";
import { html, useEffect, useMemo, useRef, useState } from "../../lib/html.js";
import { namesOf, range, within } from "../../lib/inspect.js";
import { address, linkTo, useParam, useStore } from "../../lib/store.js";
import { Segmented, Select } from "../../lib/ui.js";
import { arrayOf, byHand, byRow, finding, formula, greatestDifference, labelsOf, list, norm, page, row, slider, small, softmax, sum, tables, token,
  useText, waiting } from "./walk/arrays.js";
import { Heads, Mask, Plain, Queries } from "./walk/attention.js";
import { Positions } from "./walk/positions.js";

// ---------------------------------------------------------------- step 1

const SHOWN = 64;
const BROKEN = "\ufffd";

/** In which byte of the text each token begins; null where the text's own tokens are others. Only needed where a token is no whole character. */
function useOffsets({ plain, model, text, tokens }) {
  const [offsets, setOffsets] = useState(null), wanted = !plain && tokens.texts.some((one) => one.includes(BROKEN));
  useEffect(() => {
    setOffsets(null);
    if (!wanted) return undefined;
    const control = new AbortController();
    call("/tokenize", { model, prompt: text, return_offsets: true }, control.signal).then((reply) => {
      if (reply.tokens.join() === tokens.ids.join()) setOffsets(reply.offsets);
    }, () => {}); // the table says "part of a character" instead
    return () => control.abort();
  }, [model, text, tokens, wanted]);
  return offsets;
}

function TokenList({ ctx: { plain, text, tokens: { ids, texts } }, ctx }) {
  const offsets = useOffsets(ctx), encode = (one) => new TextEncoder().encode(one), whole = encode(text);
  const bytes = (i) => {
    if (plain) return "no tokenizer";
    if (texts[i].includes(BROKEN) && !offsets) return "part of a character";
    return hex(texts[i].includes(BROKEN) ? whole.subarray(offsets[i], offsets[i + 1]) : encode(texts[i]), " ");
  };
  const rows = ids.slice(0, SHOWN).map((id, i) => [i, token(visible(texts[i]), i), id, html`<code>${bytes(i)}</code>`]);
  return html`<p class="walk-text text" aria-label="The text in its tokens">${texts.map((one, i) => token(one, i, `id ${ids[i]}`))}</p>
    <p class="hint">
      ${!plain && `${plural(Array.from(text).length, "character")}, ${plural(whole.length, "byte")}, `}${plural(ids.length, "token")}.</p>
    ${list("Tokens, ids and bytes", "walk-tokens", [["position", "num"], ["token", "th"], ["id", "num"], ["bytes"]], rows)}
    ${ids.length > SHOWN && html`<p class="hint">… ${plural(ids.length - SHOWN, "more token")}</p>`}`;
}

function Tokens({ ctx }) {
  const vocabulary = ctx.architecture.n_vocab;
  return page(ctx, html`A model cannot read letters; it reads numbers. A tokenizer cuts the text into pieces that it knows, its <em>tokens</em>, and
    gives each its number in the vocabulary of ${count(vocabulary)}. Frequent words are one token, with the blank before them; rare ones fall into
    several. Below the characters are bytes, so that no text is without tokens.`,
  "text becomes ids, a list of whole numbers below the size of the vocabulary",
  html`text → ids ∈ {0, …, ${count(vocabulary - 1)}}<sup>T</sup>, here T = ${ctx.tokens.ids.length}`, TokenList,
  html`<li>Write a word with and without a blank or a capital before it: the same word gets another id.</li>
    <li>Write a rare word, a name or an emoji: it falls into pieces, down to bytes.</li>
    <li>How the pieces were glued together, pair by pair, is shown in <a href="#tokens">Tokens</a>.</li>`);
}

// ---------------------------------------------------------------- step 7

const MLPS = { gelu: "two matrices with GELU between them", swiglu: "three matrices, one a gate (SwiGLU)" };

// What is added to a norm's divisor, so that it is never 0: models have one of these.
const EPSILONS = [1e-5, 1e-6, 1e-8];

/**
 * A norm in its two halves: every word divided, and what each column is then multiplied by (and, `centred`, what is added): the straight line that
 * fits all words, for the server does not tell. sizes: [mean, divisor] of each word.
 */
function halves(x, normed, centred, epsilon) {
  const [n, width] = x.shape, sizes = [];
  const divided = byRow(x, (xs) => {
    const mean = centred ? sum(xs) / width : 0, size = Math.sqrt(xs.reduce((all, one) => all + (one - mean) ** 2, 0) / width + epsilon);
    sizes.push([mean, size]);
    return xs.map((one) => (one - mean) / size);
  });
  const lines = Array.from(row(x, 0), (_, c) => {
    const from = sizes.map((_x, t) => row(divided, t)[c]), to = sizes.map((_x, t) => row(normed, t)[c]);
    const [a, b] = [from, to].map((xs) => (centred ? sum(xs) / n : 0));
    const weight = sum(from.map((one, t) => (one - a) * (to[t] - b))) / sum(from.map((one) => (one - a) ** 2));
    return [weight, b - weight * a];
  });
  const apart = greatestDifference(byRow(divided, (xs) => xs.map((one, c) => one * lines[c][0] + lines[c][1])), normed);
  return { divided, sizes, weights: lines.map((one) => one[0]), biases: lines.map((one) => one[1]), epsilon, apart };
}

/** LayerNorm or RMSNorm, from what it reads to what it makes, for all words and for one by hand. */
function Norm({ name, x, normed, centred, rowLabels }) {
  const [chosen, onPick] = useState(1), picked = within(chosen, rowLabels.length);
  const { divided, sizes, weights, biases, epsilon, apart } = useMemo(() => EPSILONS.map((one) => halves(x, normed, centred, one))
    .reduce((best, one) => (one.apart < best.apart / 2 ? one : best)), [x, normed]);
  const vector = { rowLabels, maxColumns: 4, maxRows: 8 }, known = rowLabels.length > 1 || !centred, width = x.shape[1];
  const size = `√${width} = ${number(Math.sqrt(width), 4)}`, digits = (xs) => (xs.some((one) => Math.abs(one) >= 100) ? 2 : 4);
  const own = row(x, picked), [mean, by] = sizes[picked];
  const lines = [["x", digits(own), own], centred && ["x − mean", digits(own), own.map((one) => one - mean)],
    [`÷ ${number(by, 5)}`, 4, row(divided, picked)], known && ["times weight", 4, weights], known && centred && ["plus bias", 4, biases],
    [name, 4, row(normed, picked)]];
  return html`<p>${centred ? `LayerNorm: each word's mean is taken off its numbers, and what is left is divided by its standard deviation. Then
      each column is multiplied by a learned weight, and a learned bias is added.` : `RMSNorm: each word's numbers are divided by their root mean
      square. Then each column is multiplied by a learned weight.`}</p>
    ${centred ? formula("x minus its mean, divided by the root of its variance plus epsilon, times weight, plus bias",
    html`(x − mean) / √(variance + ε) · weight + bias`) : formula("x divided by the root of the mean of its squares plus epsilon, times weight",
    html`x / √(mean of x² + ε) · weight`)}
    ${tables(["divided", divided, { ...vector, picked, onPick }],
    ["of each word", arrayOf(sizes.map(([m, s], t) => [...(centred ? [m] : []), s, norm(row(divided, t))])), { rowLabels, maxRows: 8, heat: "none",
      columnLabels: [...(centred ? ["mean"] : []), "divided by", "length then"], digits: sizes.map((one) => digits(one)) },
    `Divided, every word is about ${size} long; the weights make lengths differ again.`])}
    ${byHand(lines.filter(Boolean), rowLabels[picked], html`${known && `One weight ${centred ? "and one bias " : ""}a column for all words, found from
      what the norm reads and makes: they fit up to ${small(apart)}.`} ε = ${epsilon.toFixed(8).replace(/0+$/, "")}.`, { maxColumns: 6 })}`;
}

/** The block's parts in their order: [name, what it is, array, what a norm reads]; and how far the output is from their sum. */
function partsOf({ block, architecture }) {
  const { input, norm1, attention, norm2, mlp } = block, plus = (a, b) => ({ shape: a.shape, data: a.data.map((x, i) => x + b.data[i]) });
  const middle = plus(input, attention), output = { shape: block.shape, data: block.data };
  const parts = [
    ["input", "The words' vectors as the block finds them: the residual stream.", input],
    ["norm 1", "What attention reads, so that it sees directions more than sizes.", norm1, input],
    ["attention", "What all heads together found for each word (steps 4 to 6).", attention],
    ["+", "Input plus attention: the block adds to the vectors, it does not replace them.", middle],
    ["norm 2", "The same before the MLP, with weights of its own.", norm2, middle],
    ["MLP", `A small network on each word alone: ${MLPS[architecture.mlp]}. Much of what a model knows is in here.`, mlp],
    ["+ output", "Plus the MLP: the input of the next block.", output],
  ];
  const lengths = byRow(input, (_, t) => parts.map(([, , a]) => norm(a.data.subarray(t * a.shape[1], (t + 1) * a.shape[1]))));
  const means = parts.map((_, i) => sum(lengths.data.filter((_x, at) => at % parts.length === i)) / input.shape[0]);
  return { parts, lengths, means, apart: greatestDifference(plus(middle, mlp), output) / Math.max(...lengths.data) };
}

function BlockNumbers({ ctx: { layer, labels: rowLabels, architecture }, ctx }) {
  const [open, setOpen] = useState(0), answer = useText(ctx, ["block"], { layer });
  const made = useMemo(() => answer && partsOf(answer), [answer]);
  if (!made) return waiting();
  const { parts, lengths, means, apart } = made, [name, what, a, read] = parts[open];
  return html`<div class="walk-block">
      <div class="walk-diagram" role="group" aria-label="The block's parts, from its input to its output">
        <svg viewBox="0 0 40 100" preserveAspectRatio="none" aria-hidden="true"><path d="M36 7H8V50H36M36 50H20V93H36"
          vector-effect="non-scaling-stroke" /></svg>
        <div class="walk-boxes">${parts.map(([one], i) => html`<button type="button" class=${`walk-box ${i % 3 ? "" : "stream"}`}
          aria-pressed=${i === open} onClick=${() => setOpen(i)}><span>${one}</span><span
          class="stats">mean length ${number(means[i], 3)}</span></button>`)}</div>
      </div>
      <div class="walk-part" aria-live="polite"><h3>${name}</h3><p>${what}</p>
        ${read && html`<${Norm} name=${name} x=${read} normed=${a} centred=${architecture.norm === "layernorm"} rowLabels=${rowLabels} />`}
        ${tables([name, a, { key: open, rowLabels, maxColumns: 8, maxRows: 12 }])}</div>
    </div>
    ${tables([`lengths of the vectors in block ${layer}`, lengths, { rowLabels, columnLabels: parts.map(([one]) => one), heat: "none" },
    "The square root of the sum of squares of each word's vector after each part."])}
    ${finding(apart < 1e-5, "adds up", "does not add up", `Input + attention + MLP is the output${apart === 0 ? ", to the last digit"
    : `, up to ${small(apart)} of a vector's length`}.`)}`;
}

const Block = ({ ctx }) => page(ctx, html`Attention is one half of a block. The other is an MLP, a small network that looks at each word alone. Before
    each half the vectors are normed, after each its result is <em>added</em> to what came in, so that a word's vector runs through
    all ${ctx.architecture.n_layer} blocks as a stream to which each block adds something. Then the next block does the same with other weights.`,
"h is x plus attention of norm 1 of x; the output is h plus the MLP of norm 2 of h", "h = x + attention(norm₁(x)), output = h + MLP(norm₂(h))",
BlockNumbers, html`<li>Open the parts from top to bottom. In a norm, divided, all words are about equally long.</li>
  <li>Go through the layers: the stream mostly grows longer, and the first word's is often by far the longest.</li>`);

// ---------------------------------------------------------------- step 8

const BEST = 20;

/** What sampling with this temperature makes of the likeliest tokens' probabilities, 0 where one cannot be drawn. Temperature 0: the first alone. */
const tempered = (probabilities, temperature) => (temperature === 0 ? probabilities.map((_, i) => (i === probabilities.findIndex(Boolean) ? 1 : 0))
  : Array.from(softmax(arrayOf([probabilities.map(Math.log)]), 1 / temperature).data));

/** An index, drawn as the shares say; -1 where all are 0. */
function drawn(shares) {
  let left = Math.random() * sum(shares);
  return shares.findIndex((x) => {
    left -= x;
    return x > 0 && left < 1e-9; // sums are rounded
  });
}

/** Appends a token to the text; busy until the text's tokens are there, so that no token is drawn for a text of yesterday. */
function useTaking(ctx, best, fresh) {
  const [taken, setTaken] = useState(null), [from, setFrom] = useState(null);
  const busy = from === ctx.tokens || !fresh;
  const take = (i) => {
    if (busy || i < 0) return;
    const text = ctx.plain ? `${ctx.text.trim()} ${best.ids[i]}` : ctx.text + best.texts[i];
    setTaken({ word: best.texts[i], text });
    setFrom(ctx.tokens);
    ctx.setText(text);
  };
  return { word: !busy && taken?.text === ctx.text ? taken.word : null, busy, take }; // of any other text nothing was taken
}

function NextNumbers({ ctx: { architecture: { n_layer: layers, n_vocab: vocabulary }, tokens, params, plain }, ctx }) {
  const [temperature, setTemperature] = useState(1);
  const answer = useText(ctx, ["lens"], { layer: layers - 1, lens_tokens: 1, top_k: Math.min(BEST, vocabulary) }, true), best = answer?.lens;
  const { word, busy, take } = useTaking(ctx, best, answer?.tokens.ids.join() === tokens.ids.join());
  if (!best) return waiting();
  const { texts, ids, probabilities } = best, names = namesOf(best);
  const cut = Number(params.first) > 0; // only the text's beginning is looked at: what is appended would not be seen
  const takeable = texts.map((text) => plain || (text !== "" && !text.includes(BROKEN))), parts = takeable.filter((one) => !one).length;
  const none = cut || parts === ids.length, shares = none ? Array.from(ids, () => 0)
    : tempered(takeable.map((one, i) => (one ? probabilities[i] : 0)), temperature);
  const longest = Math.max(probabilities[0], ...shares), bar = (name, x) => html`<span class=${name}
    style=${{ width: `${x && Math.max((x / longest) * 100, 0.4)}%` }}></span>`;
  const rows = names.map((text, i) => [html`<button type="button" class="quiet" disabled=${cut || !takeable[i]} aria-disabled=${busy}
    title=${!cut && takeable[i] ? "Take this one" : "Cannot be appended to this text"} onClick=${() => take(i)}>${visible(text)}</button>`,
  ids[i], Math.log(probabilities[i] / probabilities[0]).toFixed(3).replace("-", "−"), percent(probabilities[i]),
  takeable[i] ? percent(shares[i]) : "–", [bar("model", probabilities[i]), bar("sampled", shares[i])]]);
  return html`<p class="walk-text text" aria-label="The text so far">${tokens.texts.map((text, i) => token(text, i))}…</p>
    <div class="row">${slider(`Temperature ${temperature.toFixed(1)}`, temperature, setTemperature, 2, 0.1)}
      <button type="button" class="primary" disabled=${none} aria-disabled=${busy} onClick=${() => take(drawn(shares))}>Take one</button>
      <span role="status" class="hint">${word !== null && html`Took “${visible(word)}”. The numbers are those of the longer text.
        ${" "}<a href=${linkTo("inside", { ...params, step: null })}>Walk through it again</a>`}</span></div>
    ${list("The likeliest next tokens", "walk-next", [["token", "th"], ["id", "num"],
    ["logit − max", "num", "The token's logit, less the largest"], ["model", "num", "The model's probability"],
    ["drawn", "num", "The chance to be drawn at this temperature"],
    [html`<span class="sr">Bars</span>`, "walk-bars"]], rows)}
    <p class="hint">By hand: e to the power of a token's logit, less the largest, summed over all ${count(vocabulary)} tokens,
      is ${number(1 / probabilities[0], 5)}. Each token's part of this sum is the model's probability.</p>
    <p class="hint"><span class="walk-key model"></span> the model's probability <span class="walk-key sampled"></span> the chance to be drawn
      among these ${` ${ids.length}`} (top k = ${ids.length})${parts > 0 && !none && `, but for ${parts} that are no text by themselves (parts of
      a character),`} at temperature ${temperature.toFixed(1)}; the longest bar fills the row. All
      other ${` ${count(vocabulary - ids.length)}`} tokens have ${percent(Math.max(0, 1 - sum(probabilities)))} together.
      ${cut ? " Only the beginning of the text is looked at, so that nothing can be appended: look at all of it first."
    : none && " None of these is a text by itself (they are parts of a character), so that none can be appended."}</p>`;
}

const Next = ({ ctx }) => page(ctx, html`After the last block, the vector of the last word, “${ctx.labels.at(-1)}”, is normed once more and compared
    with the row of every token of the vocabulary. These ${count(ctx.architecture.n_vocab)} scores are the <em>logits</em>; softmax makes
    probabilities of them. That is all a model says: how likely each token is as the next one. Sampling picks one, and the whole walk begins anew.`,
"p is the softmax of the logits divided by the temperature T", html`p = softmax(logits / T), logits = norm(x<sub>last</sub>) · Wᵀ`, NextNumbers,
html`<li>Temperature 0 always takes the first that can be appended; 2 makes the unlikely likely.</li>
  <li>Take several, one after the other: this is what Complete does, only faster.</li>
  <li>See in <a href=${linkTo("inside", { ...ctx.params, tab: "lens", step: null })}>Lens</a> at which block the answer appears.</li>`);

// ---------------------------------------------------------------- the frame

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
const SOURCES = [
  ["sentence", "Your sentence"],
  ["example", "Worked example", "Six words of three numbers each, from the notebook that this walk follows"],
];

/** Arrow keys turn the page wherever they mean nothing else. */
function useArrows(turn) {
  const latest = useRef();
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

/** A whole number of the address, from 0 to n - 1: [it, its setter]. */
function useWhole(name, n, first = 0, pushed = false) {
  const [text, setText] = useParam(name, String(first), pushed);
  return [within(Math.trunc(text) - first, n), (x) => setText(String(x + first))];
}

export default function Walk({ text, setText, plain, model, tokens, architecture }) {
  const params = useStore(address, (a) => a.params);
  const [step, setStep] = useWhole("step", STEPS.length, 1, true), [name, Step, needs] = STEPS[step];
  const [layer, setLayer] = useWhole("layer", architecture.n_layer), [head, setHead] = useWhole("head", architecture.n_head);
  const [source, setSource] = useParam("source"), has = (what) => needs.includes(what), example = source === "example" && has("example");
  const labels = useMemo(() => labelsOf(tokens.texts), [tokens]);
  const title = useRef(), turned = useRef(step);
  const turn = (by) => { if (STEPS[step + by]) setStep(step + by); };
  useArrows(turn);
  useEffect(() => {
    if (turned.current === step) return; // not on opening: the text above has the eye then
    turned.current = step;
    title.current.focus({ preventScroll: true });
    title.current.scrollIntoView({ block: "start" });
  }, [step]);
  const ctx = { text, setText, plain, model, tokens, labels, architecture, layer, head, setHead, example, params };
  const choice = (what, label, value, set, n) => has(what) && !example && html`<span><${Select} label=${label} visibleLabel value=${String(value)}
    options=${range(n).map((i) => [String(i), String(i)])} onChange=${(x) => set(Number(x))} /></span>`;
  const nameAt = (i) => STEPS[i] && html`<span class="walk-turn-name">: ${STEPS[i][0]}</span>`;
  return html`<div class="walk">
    <${Contents} step=${step} params=${params} />
    <section class="card walk-step" aria-labelledby="walk-title">
      <div class="walk-top"><h2 id="walk-title" ref=${title} tabindex="-1">${step + 1}. ${name}</h2>
        <div class="row">${has("example") && html`<${Segmented} label="Numbers of" value=${example ? "example" : "sentence"} options=${SOURCES}
          onChange=${(to) => setSource(to === "example" ? to : null)} />`}
          ${choice("layer", "Layer", layer, setLayer, architecture.n_layer)}${choice("head", "Head", head, setHead, architecture.n_head)}</div></div>
      ${example && html`<p class="hint">The worked example: “Your journey starts with one step”, three numbers a word, and the weights that torch
        draws for a fixed seed; from attention_mechanism.ipynb of Sangameeee/LLM-from-scratch (cells counted from 0). Computed by this server, shown
        to 4 decimals.</p>`}
      <${Step} key=${`${step} ${model}`} ctx=${ctx} />
      <div class="walk-turn">
        <button type="button" disabled=${step === 0} onClick=${() => turn(-1)}>← Back${nameAt(step - 1)}</button>
        <span class="hint">${step + 1} of ${STEPS.length}</span>
        <button type="button" class="primary" disabled=${!STEPS[step + 1]} onClick=${() => turn(1)}>Next${nameAt(step + 1)} →</button>
      </div>
    </section>
  </div>`;
}
