// SPDX-License-Identifier: MIT
// Step 4: queries, keys and values: what is compared and what is passed on are learned; scaled scores.

import { number } from "../../../lib/format.js";
import { html, useMemo, useState } from "../../../lib/html.js";
import { useStore } from "../../../lib/store.js";
import { Segmented } from "../../../lib/ui.js";
import { arrayOf, Formula, part, product, softmax, useLook } from "./data.js";
import { LINEAR, RAND, WORDS } from "./example.js";
import { Arrays, ExampleInputs, exampleInputs, Say, scoreDigits, SHARES, SQUARE, Table, Try, usePicked, VECTORS, Waiting } from "./parts.js";

const IN = ["x₀", "x₁", "x₂"];
const CHOICES = {
  rand: [RAND, "torch.rand", "cell 29: torch.manual_seed(123), random numbers from 0 to 1"],
  linear: [LINEAR, "nn.Linear", "cell 45: torch.manual_seed(789), as nn.Linear starts"],
};
const EVERY = ["qkv", "scores", "weights", "context"];

/** From queries and keys to context, for the picked row by hand and for all. */
function Numbers({ q, k, v, scores, weights, context, scale, labels, exact, names }) {
  const [picked, setPicked] = usePicked(labels.length);
  const hand = useMemo(() => {
    const s = part(scores, picked).data, w = part(weights, picked).data;
    return { shape: [3, s.length], data: Float32Array.from([...s, ...s.map((x) => x * scale), ...w]) };
  }, [scores, weights, picked]);
  const pick = { rowLabels: labels, picked, onPick: setPicked, ...(exact && { digits: 4 }) };
  const square = { columnLabels: labels, ...pick }, tall = { ...VECTORS, ...pick };
  return html`<${Arrays}>
      <${Table} name=${`queries ${names.q}`} a=${q} ...${tall} note="What each word asks for." />
      <${Table} name=${`keys ${names.k}`} a=${k} ...${tall} note="What each word answers to." />
      <${Table} name=${`values ${names.v}`} a=${v} ...${tall} note="What each word passes on." />
    </${Arrays}>
    <${Arrays}><${Table} name="scores = q kᵀ" a=${scores} ...${SQUARE} digits=${scoreDigits(scores)} ...${square}
      note="Row: who asks. Column: who is asked." /></${Arrays}>
    <${Arrays}><${Table} name=${`the row of “${labels[picked]}” by hand`} a=${hand} rowLabels=${["score s", "s / √d", "softmax"]}
      columnLabels=${labels} maxColumns=${12} heat="none" digits=${exact ? 4 : [scoreDigits(scores), 2, 4]} /></${Arrays}>
    <${Arrays}>
      <${Table} name="weights = softmax(scores / √d)" a=${weights} ...${SHARES} scale=${undefined} ...${square} />
      <${Table} name="context vectors = weights · v" a=${context} ...${tall} />
    </${Arrays}>`;
}

/** What the notebook printed for its second class, which takes the values of an earlier cell instead of its own. */
function Notebook({ weights, inputs }) {
  const values = useMemo(() => product(arrayOf(inputs), arrayOf(RAND.W_v)), [inputs]);
  const printed = useMemo(() => product(weights, values), [weights, values]);
  return html`<section class="walk-demo" aria-label="The notebook's slip">
    <h3>Where the notebook is wrong</h3>
    <p>Its class SelfAttention_v2 computes its own values and then multiplies by the variable <code>values</code> of cell 31, which came from other
      matrices. It therefore printed the table below. The context vectors above are the right ones. In SelfAttention_v1 the same slip does no harm:
      there both are equal.</p>
    <${Arrays}><${Table} name="what the notebook printed (cell 45)" a=${printed} rowLabels=${WORDS} digits=${4} /></${Arrays}>
  </section>`;
}

function Example() {
  const inputs = useStore(exampleInputs);
  const [choice, setChoice] = useState("rand");
  const [w, , about] = CHOICES[choice];
  const answer = useLook({ matrices: { inputs, ...w }, mask: "none", what: EVERY }, true);
  const weightTables = ["W_q", "W_k", "W_v"].map((one) => html`<${Table} key=${choice + one} name=${one} a=${arrayOf(w[one])} rowLabels=${IN}
    digits=${4} />`);
  return html`<div class="row"><span class="hint">Weights from</span><${Segmented} label="Weights from" value=${choice} onChange=${setChoice}
      options=${Object.entries(CHOICES).map(([key, [, label, where]]) => [key, label, where])} />
      <span class="hint">${about}</span></div>
    <${Arrays}><${ExampleInputs} />${weightTables}</${Arrays}>
    ${answer ? html`<${Numbers} q=${answer.qkv.q} k=${answer.qkv.k} v=${answer.qkv.v} scores=${answer.scores} weights=${answer.weights}
      context=${answer.context} scale=${answer.scale}
        labels=${WORDS} exact names=${{ q: "= x W_q", k: "= x W_k", v: "= x W_v" }} />
      ${choice === "linear" && html`<${Notebook} weights=${answer.weights} inputs=${inputs} />`}` : html`<${Waiting} />`}`;
}

function Sentence({ ctx }) {
  const { layer, head, architecture: a } = ctx;
  const answer = useLook({ model: ctx.model, prompt: ctx.tokens.ids, what: ["qkv"], layer, head });
  const all = useMemo(() => {
    if (!answer) return null;
    const { q, k, v } = answer.qkv, scores = product(q, k, true), weights = softmax(scores, answer.scale);
    return { q, k, v, scores, weights, context: product(weights, v), scale: answer.scale };
  }, [answer]);
  const group = a.n_head / a.n_kv_head, shared = Math.floor(head / group);
  return html`<p class="hint">Block ${layer}, head ${head}; d = ${a.head_size}${all ? html`, so 1/√d = ${number(all.scale, 6)}` : ""}.
      ${group > 1 && ` Keys and values are shared: heads ${shared * group} to ${shared * group + group - 1} read key/value head ${shared}.`}
      ${a.positions === "rotary" && " Queries and keys are shown after their turn (step 2)."} The mask comes in the next step: here every
      word may look at every word.</p>
    ${all ? html`<${Numbers} ...${all} labels=${ctx.labels} names=${{ q: "", k: "", v: "" }} />` : html`<${Waiting} />`}`;
}

export default function Queries({ ctx }) {
  return html`
    <${Say}><p>Now the model may learn what to compare. Three matrices make of each word a <em>query</em> (what it looks for), a <em>key</em> (what
      it offers to be found by) and a <em>value</em> (what it hands over). Scores are queries times keys. Dot products of long vectors are large,
      and softmax of large numbers is nearly all or nothing: dividing by √d keeps them in the range where training can still move them.</p></${Say}>
    <${Formula}
      said="q, k and v are x times W q, W k and W v; z is the softmax of q times k transposed divided by the square root of d, times v">
      q = x W<sub>q</sub>, k = x W<sub>k</sub>, v = x W<sub>v</sub>, z = softmax(q kᵀ / √d) · v</${Formula}>
    ${ctx.example ? html`<${Example} />` : html`<${Sentence} ctx=${ctx} />`}
    <${Try}>
      ${ctx.example ? html`<li>Pick the row of another word and check one score: two products and a sum.</li>
        <li>Switch the weights to nn.Linear, whose numbers may be negative.</li>`
    : html`<li>Go through layers and heads: some look at the word itself, some at the first token, some at the one before.</li>
        <li>Unlike in step 3 the table is not symmetric any more: what a word asks for is not what it answers to.</li>`}
    </${Try}>`;
}
