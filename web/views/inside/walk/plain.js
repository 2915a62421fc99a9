// SPDX-License-Identifier: MIT
// Step 3: self attention on the vectors themselves: scores, softmax, context vectors. Nothing is learned here.

import { plural } from "../../../lib/format.js";
import { html, useMemo } from "../../../lib/html.js";
import { useStore } from "../../../lib/store.js";
import { Formula, part, rowsOf, rowSums, useLook } from "./data.js";
import { WORDS } from "./example.js";
import { Arrays, ExampleInputs, exampleInputs, Say, scoreDigits, SHARES, SQUARE, Table, Try, usePicked, VECTORS, Waiting } from "./parts.js";

const MOST_TOKENS = 64, MOST_COLUMNS = 1024; // what /v1/inspect takes as matrices is wider; more tokens than these nobody reads

/** One row of scores on its way to weights, by hand. */
function byHand(scores, picked) {
  const s = Array.from(part(scores, picked).data), sum = s.reduce((x, y) => x + y, 0), most = Math.max(...s);
  const shift = most > 60 ? most : 0; // e^x leaves the numbers of a float32
  const powers = s.map((x) => Math.exp(x - shift)), all = powers.reduce((x, y) => x + y, 0);
  const positive = s.every((x) => x > 0);
  const rows = [s, ...(positive ? [s.map((x) => x / sum)] : []), powers, powers.map((x) => x / all)];
  return {
    positive, digits: [4, ...(positive ? [4] : []), most > 9 ? 1 : 4, 4], labels: ["score s", ...(positive ? ["s / Σ s"] : []),
      shift ? "exp(s − max)" : "exp(s)", "softmax"],
    a: { shape: [rows.length, s.length], data: Float32Array.from(rows.flat()) },
  };
}

function Numbers({ answer, labels, inputs, columnLabels, exact }) {
  const [picked, setPicked] = usePicked(labels.length);
  const hand = useMemo(() => byHand(answer.scores, picked), [answer, picked]);
  const sums = useMemo(() => rowSums(answer.weights), [answer]);
  const pick = { rowLabels: labels, picked, onPick: setPicked }, four = exact && { digits: 4 };
  const square = { ...pick, columnLabels: labels };
  return html`<${Arrays}>
      ${inputs}
      <${Table} name="scores = x xᵀ" a=${answer.scores} ...${SQUARE} digits=${exact ? 4 : scoreDigits(answer.scores)} ...${square}
        note="Each cell: the dot product of two words' vectors. Pick a row to follow it by hand." />
    </${Arrays}>
    <${Arrays}><${Table} name=${`the row of “${labels[picked]}” by hand`} a=${hand.a} rowLabels=${hand.labels} columnLabels=${labels} maxColumns=${12}
      heat="none" digits=${hand.digits}
      note=${hand.positive
    ? "Dividing by the sum makes shares too, but only while no score is negative; softmax always does, and lifts the large ones."
    : "Some scores are negative: dividing by their sum would make no shares. Softmax always does."} /></${Arrays}>
    <${Arrays}>
      <${Table} name="weights = softmax(scores)" a=${answer.weights} ...${SHARES} scale=${undefined} ...${square} ...${four} />
      <${Table} name="row sums" a=${sums} rowLabels=${labels} columnLabels=${["Σ"]} heat="none" digits=${4} maxRows=${8} />
      <${Table} name="context vectors = weights · x" a=${answer.context} ...${VECTORS} ...${pick} columnLabels=${columnLabels} ...${four}
        note="Each row: the average of all words' vectors, weighted by its row of weights." />
    </${Arrays}>`;
}

function Example() {
  const inputs = useStore(exampleInputs);
  const answer = useLook({ matrices: { inputs }, mask: "none" }, true);
  return answer ? html`<${Numbers} answer=${answer} labels=${WORDS} exact columnLabels=${["z₀", "z₁", "z₂"]}
    inputs=${html`<${ExampleInputs} />`} />` : html`<${Waiting} />`;
}

function Sentence({ ctx }) {
  const look = useLook({ model: ctx.model, prompt: ctx.tokens.ids, what: ["embeddings"] });
  const inputs = useMemo(() => look && rowsOf(look.embeddings.sum, MOST_TOKENS, Math.min(MOST_COLUMNS, look.embeddings.sum.shape[1])), [look]);
  const answer = useLook(inputs && { matrices: { inputs }, mask: "none" });
  const labels = useMemo(() => ctx.labels.slice(0, MOST_TOKENS), [ctx.labels]);
  if (!answer || !look || answer.scores.shape[0] !== labels.length) return html`<${Waiting} />`;
  const width = look.embeddings.sum.shape[1];
  return html`
    ${width > MOST_COLUMNS && html`<p class="hint">Of the ${width} columns of the embeddings the first ${MOST_COLUMNS} are used: so many
      the server takes as matrices.</p>`}
    ${ctx.labels.length > MOST_TOKENS && html`<p class="hint">The first ${plural(MOST_TOKENS, "token")} are used, so that the tables stay
      readable.</p>`}
    <${Numbers} answer=${answer} labels=${labels} inputs=${html`<${Table} name="inputs x" a=${look.embeddings.sum} rowLabels=${labels} ...${VECTORS}
      note="What the first block reads: the end of step 2." />`} />`;
}

export default function Plain({ ctx }) {
  return html`
    <${Say}><p>Attention in its plainest form: every word looks at every word. How much one matters to another is the dot product of their vectors,
      large where they point the same way. Softmax turns a row of such scores into shares that sum to 1, and the shares mix the vectors: the result
      is a <em>context vector</em>, a word in the light of its sentence.</p></${Say}>
    <${Formula} said="the weights are the softmax of x times x transposed; the context is the weights times x">
      weights = softmax(x xᵀ), z = weights · x</${Formula}>
    ${ctx.example ? html`<${Example} />` : html`<${Sentence} ctx=${ctx} />`}
    <${Try}>
      ${ctx.example ? html`<li>Make two words' numbers equal: they get the same row everywhere.</li>
        <li>Multiply a word's numbers by ten: softmax then gives it nearly everything.</li>`
    : html`<li>Most words look at themselves most: a vector is most like itself. That is why models do not stop here, but learn what to compare
      (step 4).</li>
        <li>The worked example above shows the same with three numbers a word, small enough to check with a pencil.</li>`}
    </${Try}>`;
}
