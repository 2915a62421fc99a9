// SPDX-License-Identifier: MIT
// Step 5: the causal mask, in the notebook's two ways; dropout with torch's own choice of what is dropped.

import { html, useMemo, useState } from "../../../lib/html.js";
import { useStore } from "../../../lib/store.js";
import { Formula, greatestDifference, mapped, product, rowSums, small, softmax, useLook } from "./data.js";
import { HEADS, LINEAR, WORDS } from "./example.js";
import { Arrays, ExampleInputs, exampleInputs, Finding, Say, scoreDigits, SHARES, SQUARE, Table, Try, usePicked, VECTORS, Waiting } from "./parts.js";

const EVERY = ["qkv", "scores", "weights", "context"];
const EQUAL = 1e-5;

/** The mask first (what is served), and the notebook's first way: weights, then zeros, then shares again. */
function Masked({ open, openWeights, scores, weights, labels, exact }) {
  const [picked, setPicked] = usePicked(labels.length);
  const made = useMemo(() => {
    const mask = mapped(openWeights, (x, r, c) => (c <= r ? 1 : 0)), masked = mapped(openWeights, (x, r, c) => (c <= r ? x : 0));
    const sums = rowSums(masked);
    const again = mapped(masked, (x, r) => x / sums.data[r]);
    return { mask, masked, sums, again, apart: greatestDifference(again, weights) };
  }, [openWeights, weights]);
  const square = { ...SQUARE, rowLabels: labels, columnLabels: labels, picked, onPick: setPicked, digits: exact ? 4 : scoreDigits(open) };
  const share = { ...SHARES, ...square, digits: exact ? 4 : 2 };
  return html`<h3>One way: weigh first, then cut and share out anew</h3>
    <${Arrays}>
      <${Table} name="weights without a mask" a=${openWeights} ...${share} />
      <${Table} name="causal mask" a=${made.mask} ...${square} heat="none" digits=${0} note="1: may be looked at." />
    </${Arrays}>
    <${Arrays}>
      <${Table} name="masked weights" a=${made.masked} ...${share} />
      <${Table} name="their row sums" a=${made.sums} rowLabels=${labels} columnLabels=${["Σ"]} heat="none" digits=${4} maxRows=${8}
        note="No shares any more." />
      <${Table} name="divided by the row sums" a=${made.again} ...${share} />
    </${Arrays}>
    <h3>The usual way: −∞ before softmax</h3>
    <${Arrays}>
      <${Table} name="scores" a=${open} ...${square} />
      <${Table} name="scores, masked" a=${scores} ...${square} note="exp(−∞) is 0: softmax then leaves nothing there." />
      <${Table} name="weights" a=${weights} ...${share} />
    </${Arrays}>
    <${Finding} good=${made.apart < EQUAL} label=${made.apart < EQUAL ? "equal" : "not equal"}>
      Both ways give ${made.apart < EQUAL ? "the same weights" : "different weights"};
      the greatest difference is ${small(made.apart)}. ${made.apart < EQUAL ? "The second needs one pass less." : ""}</${Finding}>`;
}

function DropoutControls({ p, seed, setP, setSeed }) {
  return html`<div class="row walk-dropout">
    <label>p = ${p}<input type="range" min="0" max="0.9" step="0.1" value=${p} aria-label="Share of weights that are dropped"
      onInput=${(e) => setP(Number(e.target.value))} /></label>
    <label>seed <input type="number" min="0" step="1" value=${seed}
      onInput=${(e) => { if (/^\d{1,15}$/.test(e.target.value)) setSeed(Number(e.target.value)); }} /></label>
  </div>`;
}

const DropoutText = ({ children }) => html`<h3>Dropout</h3>
  <p>In training some weights are set to 0 at random, and the others grow by 1/(1 − p) so that the sum stays about the same: no word may rely on one
    other word alone. When a model is used, as here, nothing is dropped. ${children}</p>`;

/** What torch drops of a table of ones: seen on weights that are all 1/n. */
function onesOf(answer, n) {
  return answer && mapped(answer.weights, (x) => x * n);
}

function ExampleDropout({ inputs }) {
  const [p, setP] = useState(0.5), [seed, setSeed] = useState(123);
  const n = WORDS.length, dropout = p > 0 ? { p, seed } : undefined;
  const ones = onesOf(useLook({ matrices: { inputs: WORDS.map(() => [0]) }, mask: "none", ...(dropout && { dropout }), what: ["weights"] }, true), n);
  const answer = useLook({ matrices: { inputs, ...LINEAR }, ...(dropout && { dropout }), what: ["weights", "context"] }, true);
  const square = { rowLabels: WORDS, columnLabels: WORDS, digits: 4, heat: "share" };
  return html`<${DropoutText}>The choice is torch's own after <code>torch.manual_seed(${seed})</code>: the notebook's with 123.</${DropoutText}>
    <${DropoutControls} p=${p} seed=${seed} setP=${setP} setSeed=${setSeed} />
    ${ones && answer ? html`<${Arrays}>
      <${Table} name="a table of ones after dropout" a=${ones} ...${square} />
      <${Table} name="causal weights after dropout" a=${answer.weights} ...${square} />
    </${Arrays}>` : html`<${Waiting} />`}`;
}

/** CausalAttention of cell 67: matrices of its own. */
function WholeClass({ inputs }) {
  const w = { W_q: HEADS.W_q[0], W_k: HEADS.W_k[0], W_v: HEADS.W_v[0] };
  const answer = useLook({ matrices: { inputs, ...w }, what: ["weights", "context"] }, true);
  return html`<h3>All of it in one class</h3>
    <p>The notebook's <code>CausalAttention</code> (cell 67; nn.Linear after torch.manual_seed(123)) puts these together. It also announces dropout,
      but its forward assigns <code>ttn_weights</code>, a slip of the pen: dropout never acts there, and these are its context vectors.</p>
    ${answer ? html`<${Arrays}>
      <${Table} name="CausalAttention: weights" a=${answer.weights} rowLabels=${WORDS} columnLabels=${WORDS} heat="share" scale=${1} digits=${4} />
      <${Table} name="CausalAttention: context vectors" a=${answer.context} rowLabels=${WORDS} digits=${4} />
    </${Arrays}>` : html`<${Waiting} />`}`;
}

function Example() {
  const inputs = useStore(exampleInputs);
  const open = useLook({ matrices: { inputs, ...LINEAR }, mask: "none", what: EVERY }, true);
  const causal = useLook({ matrices: { inputs, ...LINEAR }, what: EVERY }, true);
  return html`<p class="hint">With the queries and keys of nn.Linear (torch.manual_seed(789)), as in the notebook.</p>
    <${Arrays}><${ExampleInputs} /></${Arrays}>
    ${open && causal ? html`<${Masked} open=${open.scores} openWeights=${open.weights} scores=${causal.scores} weights=${causal.weights}
      labels=${WORDS} exact />
      <${ExampleDropout} inputs=${inputs} /><${WholeClass} inputs=${inputs} />` : html`<${Waiting} />`}`;
}

function SentenceDropout({ ctx }) {
  const [p, setP] = useState(0.2), [seed, setSeed] = useState(123);
  const { model, tokens, layer, head } = ctx;
  const answer = useLook({ model, prompt: tokens.ids, what: ["weights"], layer, head, ...(p > 0 && { dropout: { p, seed } }) }, true);
  const sums = useMemo(() => answer && rowSums(answer.weights), [answer]);
  const dropped = (r, c) => (c <= r && answer.weights.data[r * answer.weights.shape[1] + c] === 0 ? "dropped" : "");
  const fits = answer && answer.weights.shape[0] === ctx.labels.length;
  return html`<${DropoutText}>Try it on this head${ctx.layer > 0 ? ", where the blocks below had their weights dropped too" : ""}.</${DropoutText}>
    <${DropoutControls} p=${p} seed=${seed} setP=${setP} setSeed=${setSeed} />
    ${fits ? html`<${Arrays}>
      <${Table} name="weights after dropout" a=${answer.weights} ...${SHARES} rowLabels=${ctx.labels} columnLabels=${ctx.labels} mark=${dropped}
        note="Struck out: dropped." />
      <${Table} name="row sums" a=${sums} rowLabels=${ctx.labels} columnLabels=${["Σ"]} heat="none" maxRows=${8} />
    </${Arrays}>` : html`<${Waiting} />`}`;
}

function Sentence({ ctx }) {
  const { layer, head, labels } = ctx;
  const answer = useLook({ model: ctx.model, prompt: ctx.tokens.ids, what: EVERY, layer, head });
  const open = useMemo(() => {
    if (!answer) return null;
    const scores = product(answer.qkv.q, answer.qkv.k, true);
    return { scores, weights: softmax(scores, answer.scale) };
  }, [answer]);
  return html`<p class="hint">Block ${layer}, head ${head}, as served.</p>
    ${open ? html`<${Masked} open=${open.scores} openWeights=${open.weights} scores=${answer.scores} weights=${answer.weights} labels=${labels} />
      <${Arrays}><${Table} name="context vectors = weights · v" a=${answer.context} rowLabels=${labels} ...${VECTORS} maxColumns=${8} /></${Arrays}>
      <${SentenceDropout} ctx=${ctx} />` : html`<${Waiting} />`}`;
}

export default function Mask({ ctx }) {
  return html`
    <${Say}><p>A model that is to say the next word must not look at it in training. So a word sees itself and what stands before it, never what
      follows: everything above the diagonal is masked. That is also why an answer can be written word by word: what was computed for the words
      before stays true.</p></${Say}>
    <${Formula} said="score i j is minus infinity where j is greater than i; the weights are the softmax of the scores over the root of d">
      s<sub>ij</sub> = −∞ where j > i, weights = softmax(s / √d)</${Formula}>
    ${ctx.example ? html`<${Example} />` : html`<${Sentence} ctx=${ctx} />`}
    <${Try}>
      <li>Look at the first row: the first word can only look at itself, so its weight is 1 in every head of every model.</li>
      <li>Move p to 0.9: the few weights that are left are ten times as large.</li>
    </${Try}>`;
}
