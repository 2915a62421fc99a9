// SPDX-License-Identifier: MIT
// Step 6: many heads, each with weights of its own, side by side, and what joins them.

import { percent } from "../../../lib/format.js";
import { Canvas, drawMap, toBytes, weightPalette } from "../../../lib/heat.js";
import { html, useMemo } from "../../../lib/html.js";
import { useStore } from "../../../lib/store.js";
import { Formula, part, sideBySide, useLook } from "./data.js";
import { HEADS, JOIN, WORDS } from "./example.js";
import { Arrays, ExampleInputs, exampleInputs, Say, SHARES, Table, Try, VECTORS, Waiting } from "./parts.js";

const MAP = innerWidth < 520 ? 78 : 112; // css pixels: three beside each other on a phone too

/** Mean share of a head's weights on the word itself, the one before, the first, and the rest; the first rows, where these are one, left out. */
function habits(a) {
  const n = a.shape[0], out = { itself: 0, before: 0, first: 0, other: 0 };
  const rows = Math.max(n - 2, 0);
  for (let t = 2; t < n; t++) {
    const row = a.data.subarray(t * n, t * n + n);
    out.itself += row[t] / rows;
    out.before += row[t - 1] / rows;
    out.first += row[0] / rows;
  }
  out.other = rows ? Math.max(0, 1 - out.itself - out.before - out.first) : 0;
  return out;
}
const NAMED = { itself: "itself", before: "the one before", first: "the first", other: "others" };

function HeadMap({ a, h, chosen, onPick, found }) {
  const n = a.shape[0];
  const draw = (context, scale) => {
    const size = Math.round(MAP * scale), image = context.createImageData(size, size);
    drawMap(new Int32Array(image.data.buffer), size, 0, 0, size, toBytes(a.data), 0, n, weightPalette());
    context.putImageData(image, 0, 0);
  };
  const most = n > 2 ? Object.entries(found).sort((x, y) => y[1] - x[1])[0] : null;
  const words = !most ? "" : most[0] === "other" ? "several words" : `mostly ${NAMED[most[0]]}, ${percent(most[1])}`;
  return html`<button type="button" class="walk-head" style=${{ width: `${MAP + 16}px` }} aria-pressed=${chosen} onClick=${onPick}>
    <${Canvas} width=${MAP} height=${MAP} draw=${draw} deps=${[a]} label="Map of weights" />
    <span class="walk-head-name">Head ${h}</span><span class="hint">${words}</span></button>`;
}

function Habits({ all }) {
  return html`<details><summary>Where each head looks, in numbers</summary>
    <div class="table-scroll" tabindex="0" role="group" aria-label="Where each head looks"><table class="walk-table">
      <thead><tr><th scope="col">head</th>${Object.values(NAMED).map((name) => html`<th scope="col" class="num">${name}</th>`)}</tr></thead>
      <tbody>${all.map((one, h) => html`<tr><th scope="row">head ${h}</th>
        ${Object.keys(NAMED).map((key) => html`<td class="num">${percent(one[key])}</td>`)}</tr>`)}</tbody>
    </table></div><p class="hint">Mean over the words from the third on.</p></details>`;
}

/** Heads that read the same keys and values stand together. */
function Groups({ weights, ctx, found }) {
  const { architecture: a, head, setHead } = ctx;
  const size = a.n_head / a.n_kv_head;
  const one = (h) => html`<${HeadMap} key=${h} a=${part(weights, h)} h=${h} chosen=${h === head} found=${found[h]} onPick=${() => setHead(h)} />`;
  if (size === 1) return html`<div class="walk-heads">${Array.from({ length: a.n_head }, (_, h) => one(h))}</div>`;
  const group = (_, g) => html`<fieldset class="walk-group"><legend>key/value head ${g}</legend>
    <div class="walk-heads">${Array.from({ length: size }, (_one, i) => one(g * size + i))}</div></fieldset>`;
  return html`<div class="walk-groups">${Array.from({ length: a.n_kv_head }, group)}</div>`;
}

function Sentence({ ctx }) {
  const { layer, head, architecture: a, labels } = ctx;
  const answer = useLook({ model: ctx.model, prompt: ctx.tokens.ids, what: ["weights", "context", "block"], layer });
  const made = useMemo(() => answer && {
    found: Array.from({ length: a.n_head }, (_, h) => habits(part(answer.weights, h))),
    joined: sideBySide(answer.context),
  }, [answer]);
  if (!made || made.found.length !== a.n_head) return html`<${Waiting} />`;
  const size = a.n_head / a.n_kv_head;
  const names = Array.from({ length: a.n_head * a.head_size }, (_, i) => `h${Math.floor(i / a.head_size)}.${i % a.head_size}`);
  return html`
    <p>Block ${layer} has ${a.n_head} heads of ${a.head_size} numbers each: ${a.n_head} × ${a.head_size} = ${a.n_head * a.head_size}.
      ${size > 1 && html`${" "}<strong>Grouped queries:</strong> it has only ${a.n_kv_head} heads of keys and values, and ${size} query heads share
        each. That makes the cache of keys and values ${`${size} times smaller.`}`}</p>
    <${Groups} weights=${answer.weights} ctx=${ctx} found=${made.found} />
    <${Habits} all=${made.found} />
    <${Arrays}><${Table} name=${`weights of head ${head}`} a=${part(answer.weights, head)} ...${SHARES} rowLabels=${labels} columnLabels=${labels} />
    </${Arrays}>
    <${Arrays}>
      <${Table} name="context vectors, heads side by side" a=${made.joined} rowLabels=${labels} columnLabels=${names} ...${VECTORS} maxColumns=${6} />
      <${Table} name="joined: · W_o" a=${answer.block.attention} rowLabels=${labels} ...${VECTORS} maxColumns=${6}
        note="What attention adds to the words' vectors in this block." />
    </${Arrays}>`;
}

function Example() {
  const inputs = useStore(exampleInputs);
  const two = useLook({ matrices: { inputs, ...HEADS }, what: ["weights", "context"] }, true);
  const one = { W_q: HEADS.W_q[0], W_k: HEADS.W_k[0], W_v: HEADS.W_v[0] };
  const split = useLook({ matrices: { inputs, ...one, n_head: 2, ...JOIN }, what: ["weights", "context"] }, true);
  if (!two || !split) return html`<${Waiting} />`;
  const heads = (answer, name) => [0, 1].map((h) => html`<${Table} name=${`${name}head ${h}: weights`} a=${part(answer.weights, h)} rowLabels=${WORDS}
    columnLabels=${WORDS} heat="share" scale=${1} digits=${4} />`);
  return html`<${Arrays}><${ExampleInputs} /></${Arrays}>
    <h3>Two heads, one beside the other</h3>
    <p>MultiHeadAttentionWrapper (cell 72): two causal heads, each with matrices of its own (torch.manual_seed(123)).</p>
    <${Arrays}>${heads(two, "")}</${Arrays}>
    <${Arrays}>${[0, 1].map((h) => html`<${Table} name=${`head ${h}: context`} a=${part(two.context, h)} rowLabels=${WORDS} digits=${4} />`)}
      <${Table} name="both side by side" a=${two.output} rowLabels=${WORDS} digits=${4} columnLabels=${["h0.0", "h0.1", "h1.0", "h1.1"]} />
    </${Arrays}>
    <h3>One matrix, divided among the heads</h3>
    <p>What is used in practice, and by this server: one large matrix multiplication whose columns are divided (here two columns, one a head), then
      a matrix W<sub>o</sub> and a bias that join them. The notebook's class of cell 75 makes W<sub>o</sub> of d<sub>in</sub> columns and would fail
      wherever d<sub>in</sub> is not d<sub>out</sub>; these are the numbers of the same class with the sizes put right.</p>
    <${Arrays}>${heads(split, "divided, ")}</${Arrays}>
    <${Arrays}><${Table} name="context, side by side" a=${sideBySide(split.context)} rowLabels=${WORDS} digits=${4} />
      <${Table} name="output = context · W_o + b_o" a=${split.output} rowLabels=${WORDS} digits=${4} /></${Arrays}>`;
}

export default function Heads({ ctx }) {
  return html`
    <${Say}><p>One head can look for one thing. So every block has several, each with queries, keys and values of its own, which look at the same
      words for different reasons: the word before, the first word, a word of the same kind. Their context vectors stand side by side, and one more
      matrix mixes them.</p></${Say}>
    <${Formula} said="the output is the heads' context vectors side by side, times W o">
      output = [z<sup>0</sup> | z<sup>1</sup> | … | z<sup>H−1</sup>] · W<sub>o</sub></${Formula}>
    ${ctx.example ? html`<${Example} />` : html`<${Sentence} ctx=${ctx} />`}
    <${Try}>
      ${ctx.example ? html`<li>The columns of “both side by side” are the two tables of context before it, unchanged.</li>`
    : html`<li>Pick a head: its weights open below, and steps 4 and 5 go on with it.</li><li>Go to a later layer: heads that look only at the first
      word have found nothing to look for.</li>`}
    </${Try}>`;
}
