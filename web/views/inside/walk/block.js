// SPDX-License-Identifier: MIT
// Step 7: a whole block: norm, attention, sum, norm, MLP, sum; a diagram whose parts open their arrays.

import { number } from "../../../lib/format.js";
import { html, useMemo, useState } from "../../../lib/html.js";
import { Formula, greatestDifference, rowNorms, small, useLook } from "./data.js";
import { Arrays, Finding, Say, Table, Try, Waiting } from "./parts.js";

const NORMS = { layernorm: "LayerNorm", rmsnorm: "RMSNorm" };
const MLPS = { gelu: "two matrices with GELU between them", swiglu: "three matrices, one a gate (SwiGLU)" };

/** The block's parts in their order: {id, name, what, a}. */
function partsOf(answer) {
  const { input, norm1, attention, norm2, mlp } = answer.block, { norm, mlp: kind } = answer.architecture;
  const middle = { shape: input.shape, data: input.data.map((x, i) => x + attention.data[i]) };
  const output = { shape: answer.block.shape, data: answer.block.data };
  return [
    { id: "input", name: "input", what: "The words' vectors as the block finds them: the residual stream.", a: input },
    { id: "norm1", name: `norm 1`, what: `${NORMS[norm]}: brings every vector to the same size, so that attention sees directions.`, a: norm1 },
    { id: "attention", name: "attention", what: "What all heads together found for each word (steps 4 to 6).", a: attention },
    { id: "sum1", name: "+", what: "Input plus attention: the block adds to the vectors, it does not replace them.", a: middle },
    { id: "norm2", name: `norm 2`, what: `${NORMS[norm]} once more, before the MLP.`, a: norm2 },
    { id: "mlp", name: "MLP", what: `A small network on each word alone: ${MLPS[kind]}. Much of what a model knows is in here.`, a: mlp },
    { id: "output", name: "+ output", what: "Plus the MLP: the input of the next block.", a: output },
  ];
}

/** Boxes from top to bottom; lines at the sides are what goes past a part to its sum. Each box is a button. */
function Diagram({ parts, open, setOpen }) {
  return html`<div class="walk-diagram" role="group" aria-label="The block's parts, from its input to its output">
    <svg viewBox="0 0 40 100" preserveAspectRatio="none" aria-hidden="true">
      <path d="M36 7 H8 V50 H36" vector-effect="non-scaling-stroke" /><path d="M36 50 H20 V93 H36" vector-effect="non-scaling-stroke" />
    </svg>
    <div class="walk-boxes">${parts.map((one) => html`<button type="button"
      class=${`walk-box ${one.name.startsWith("+") || one.id === "input" ? "stream" : ""}`} aria-pressed=${one.id === open}
      onClick=${() => setOpen(one.id)}><span>${one.name}</span><span class="stats">mean length ${number(one.mean, 3)}</span></button>`)}</div>
  </div>`;
}

export default function Block({ ctx }) {
  const { layer, architecture: a, labels } = ctx;
  const [open, setOpen] = useState("input");
  const answer = useLook({ model: ctx.model, prompt: ctx.tokens.ids, what: ["block"], layer });
  const made = useMemo(() => {
    if (!answer) return null;
    const parts = partsOf(answer).map((one) => {
      const norms = rowNorms(one.a);
      return { ...one, norms, mean: norms.reduce((x, y) => x + y, 0) / norms.length };
    });
    const sum = { shape: answer.block.shape, data: parts[3].a.data.map((x, i) => x + answer.block.mlp.data[i]) };
    return { parts, apart: greatestDifference(sum, answer.block) / Math.max(...parts[6].norms),
      table: { shape: [labels.length, parts.length], data: Float32Array.from(labels.flatMap((_, t) => parts.map((one) => one.norms[t]))) } };
  }, [answer]);
  const part = made?.parts.find((one) => one.id === open);
  return html`
    <${Say}><p>Attention is one half of a block. The other is an MLP, a small network that looks at each word alone. Before each half the vectors
      are normed, after each its result is <em>added</em> to what came in, so that a word's vector runs through all ${a.n_layer} blocks as a stream
      to which each block adds something. Then the next block does the same with other weights.</p></${Say}>
    <${Formula} said="h is x plus attention of norm 1 of x; the output is h plus the MLP of norm 2 of h">
      h = x + attention(norm₁(x)), output = h + MLP(norm₂(h))</${Formula}>
    ${!made ? html`<${Waiting} />` : html`<div class="walk-block">
        <${Diagram} parts=${made.parts} open=${open} setOpen=${setOpen} />
        <div class="walk-part" aria-live="polite"><h3>${part.name}</h3><p>${part.what}</p>
          <${Table} key=${open} name=${part.name} a=${part.a} rowLabels=${labels} maxColumns=${8} maxRows=${12} /></div>
      </div>
      <${Arrays}><${Table} name=${`lengths of the vectors in block ${layer}`} a=${made.table} rowLabels=${labels}
        columnLabels=${made.parts.map((one) => one.name)} heat="none"
        note="The square root of the sum of squares of each word's vector after each part." /></${Arrays}>
      <${Finding} good=${made.apart < 1e-5} label=${made.apart < 1e-5 ? "adds up" : "does not add up"}>
        Input + attention + MLP is the output${made.apart === 0
    ? ", to the last digit" : `, up to ${small(made.apart)} of a vector's length`}.</${Finding}>`}
    <${Try}>
      <li>Open the parts from top to bottom; after a norm all words have about the same length.</li>
      <li>Go through the layers: the stream grows longer, and the first word's often by far the most.</li>
    </${Try}>`;
}
