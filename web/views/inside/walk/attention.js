// SPDX-License-Identifier: MIT
// Steps 3 to 6: attention in its plainest form, with what is compared learned, with the mask and dropout, with many heads. Each once with the
// model's numbers for the sentence and once with those of the worked example.

import { number, percent } from "../../../lib/format.js";
import { html, useMemo, useState } from "../../../lib/html.js";
import { range } from "../../../lib/inspect.js";
import { Segmented } from "../../../lib/ui.js";
import { Canvas, CLEAR, drawMap, Scale, toBytes, weightPalette } from "../attention.js";
import { arrayOf, byHand, DIVIDED, finding, FIRST, greatestDifference, HEADS, IN, Inputs, LINEAR, list, mapped, page, part, product, RAND, row,
  rowSums, sideBySide, slider, small, softmax, sum, tables, useExample, useInputs, useLook, useText, waiting, WORDS } from "./arrays.js";

const VECTOR = { rowLabels: WORDS, digits: 4 }, SQUARE = { ...VECTOR, columnLabels: WORDS }; // of the example

/** Digits of scores: their whole part is long. */
const scoreDigits = (a) => (a.data.some((x) => Math.abs(x) >= 10 && Number.isFinite(x)) ? 1 : 2);

/** Whether matrices have a bias: GPT-2's class has, and the example's last one; whether query heads share keys and values. */
const bias = ({ example, architecture: a }) => example || a.norm === "layernorm";
const grouped = ({ example, architecture: a }) => !example && a.n_kv_head < a.n_head;

/** How scores, weights and vectors are drawn so that two or three tables fit beside each other, and the row that is followed by hand. */
function useLooks(labels, exact, scores) {
  const [chosen, onPick] = useState(1), picked = Math.min(chosen, labels.length - 1);
  const digits = useMemo(() => (exact ? 4 : scoreDigits(scores)), [scores]), all = { rowLabels: labels, picked, onPick, maxRows: 8 };
  const square = { ...all, columnLabels: labels, maxColumns: 8, digits };
  return { picked, square, share: { ...square, digits: exact ? 4 : 2 }, vector: { ...all, maxColumns: 4, digits: exact ? 4 : 3 } };
}

/** The line of e to the power of s, and the sum that shares them out. */
function powers(s, name) {
  const most = Math.max(...s), shift = most > 60 || most < 0 ? most : 0; // what leaves a float32, or is all too small to read
  const xs = Array.from(s, (x) => Math.exp(x - shift));
  return { line: [shift ? `exp(${name} − max)` : `exp(${name})`, Math.max(...xs) > 9999 ? 1 : 4, xs],
    total: `the line of exp sums to ${number(sum(xs), 6)}` };
}

const sums = (name, a, rowLabels, note) => [name, rowSums(a), { rowLabels, columnLabels: ["Σ"], heat: "none", maxRows: 8 }, note];

// ---------------------------------------------------------------- step 3

const MOST_TOKENS = 64, MOST_COLUMNS = 1024; // what /v1/inspect takes as matrices is wider; more tokens than these nobody reads

function PlainNumbers({ answer: { scores, weights, context }, labels, inputs, columnLabels, exact }) {
  const { picked, square, share, vector } = useLooks(labels, exact, scores);
  const s = Array.from(row(scores, picked)), all = sum(s), positive = s.every((x) => x > 0), { line, total } = powers(s, "s");
  const lines = [["score s", 4, s], positive && ["s / Σ s", 4, s.map((x) => x / all)], line, ["softmax", 4, row(weights, picked)]];
  return html`
    ${tables(inputs, ["scores = x xᵀ", scores, square, "Each cell: the dot product of two words' vectors. Pick a row to follow it by hand."])}
    ${byHand(lines.filter(Boolean), labels[picked], `Softmax: ${total}; each is divided by that. ${positive
    ? "Dividing the scores by their sum makes shares too, but only while none is negative; softmax always does, and lifts the large ones."
    : "Some scores are not above 0: dividing them by their sum would make no shares. Softmax always does."}`, { columnLabels: labels })}
    ${tables(["weights = softmax(scores)", weights, share], sums("row sums", weights, labels), ["context vectors = weights · x", context,
    { ...vector, columnLabels }, "Each row: the average of all words' vectors, weighted by its row of weights."])}`;
}

function PlainExample() {
  const answer = useExample({}, { mask: "none" });
  return answer ? html`<${PlainNumbers} answer=${answer} labels=${WORDS} exact columnLabels=${["z₀", "z₁", "z₂"]}
    inputs=${html`<${Inputs} />`} />` : waiting();
}

function PlainSentence({ ctx }) {
  const x = useText(ctx, ["embeddings"])?.embeddings.sum, labels = ctx.labels.slice(0, MOST_TOKENS);
  const inputs = useMemo(() => x && labels.map((_, r) => Array.from(row(x, r).subarray(0, MOST_COLUMNS))), [x]);
  const answer = useLook(inputs && { matrices: { inputs }, mask: "none" });
  if (!answer || answer.scores.shape[0] !== labels.length) return waiting();
  return html`
    ${x.shape[1] > MOST_COLUMNS && html`<p class="hint">The first ${MOST_COLUMNS} of ${x.shape[1]} columns are used: so many the server takes.</p>`}
    ${ctx.labels.length > MOST_TOKENS && html`<p class="hint">The first ${MOST_TOKENS} tokens are used, so that the tables stay readable.</p>`}
    <${PlainNumbers} answer=${answer} labels=${labels} inputs=${["inputs x", x, { rowLabels: labels, maxRows: 8, maxColumns: 4, digits: 3 },
    "What the first block reads: the end of step 2."]} />`;
}

export const Plain = ({ ctx }) => page(ctx, html`Attention in its plainest form: every word looks at every word. How much one matters to another is
    the dot product of their vectors, large where they point the same way. Softmax turns a row of such scores into shares that sum to 1, and the
    shares mix the vectors: the result is a <em>context vector</em>, a word in the light of its sentence.`,
"the weights are the softmax of x times x transposed; the context is the weights times x", "weights = softmax(x xᵀ), z = weights · x",
ctx.example ? PlainExample : PlainSentence, ctx.example
  ? html`<li>Make two words' numbers equal: they get the same row everywhere.</li>
    <li>Multiply a word's numbers by ten: softmax then gives it nearly everything.</li>`
  : html`<li>Most words look at themselves most: a vector is most like itself. So models do not stop here, but learn what to compare (step 4).</li>
    <li>The worked example above shows the same with three numbers a word, small enough to check with a pencil.</li>`);

// ---------------------------------------------------------------- step 4

const CHOICES = {
  rand: [RAND, "torch.rand", "cell 29: torch.manual_seed(123), random numbers from 0 to 1"],
  linear: [LINEAR, "nn.Linear", "cell 45: torch.manual_seed(789), as nn.Linear starts"],
};

/** From queries and keys to context, for the picked row by hand and for all. */
function QueryNumbers({ answer: { qkv, scores, weights, context, scale }, labels, exact, inputs }) {
  const { picked, square, share, vector } = useLooks(labels, exact, scores), s = row(scores, picked), scaled = s.map((x) => x * scale);
  const { line, total } = powers(scaled, "s / √d");
  const own = (name, key, note) => [`${name}${exact ? ` = x W_${key}` : ""}`, qkv[key], vector, note];
  return html`${tables(inputs, own("queries", "q", "What each word asks for."), own("keys", "k", "What each word answers to."),
    own("values", "v", "What each word passes on."))}
    ${tables(["scores = q kᵀ", scores, square, "Row: who asks. Column: who is asked."])}
    ${byHand([["score s", 4, s], ["s / √d", 4, scaled], line, ["softmax", 4, row(weights, picked)]], labels[picked],
    `Softmax: ${total}; each is divided by that.`, { columnLabels: labels })}
    ${tables(["weights = softmax(scores / √d)", weights, share], ["context vectors = weights · v", context, vector])}`;
}

/** What the notebook printed for its second class, which takes the values of an earlier cell instead of its own. */
function Slip({ weights }) {
  const values = product(arrayOf(useInputs()), arrayOf(RAND.W_v));
  return html`<section class="walk-demo" aria-label="The notebook's slip"><h3>Where the notebook is wrong</h3>
    <p>Its class SelfAttention_v2 computes its own values and then multiplies by the variable <code>values</code> of cell 31, which came from other
      matrices: it printed the table below. The context vectors above are the right ones. In SelfAttention_v1 the same slip does no harm: there
      both are equal.</p>
    ${tables(["what the notebook printed (cell 45)", product(weights, values), VECTOR])}</section>`;
}

function QueryExample() {
  const [choice, setChoice] = useState("rand"), [w, , about] = CHOICES[choice];
  const answer = useExample(w, { mask: "none" });
  return html`<div class="row"><span class="hint">Weights from</span><${Segmented} label="Weights from" value=${choice} onChange=${setChoice}
      options=${Object.entries(CHOICES).map(([key, [, label, where]]) => [key, label, where])} /><span class="hint">${about}</span></div>
    ${tables(html`<${Inputs} />`, ...["W_q", "W_k", "W_v"].map((one) => [one, arrayOf(w[one]), { rowLabels: IN, digits: 4 }]))}
    ${answer ? html`<${QueryNumbers} answer=${answer} labels=${WORDS} exact />
      ${choice === "linear" && html`<${Slip} weights=${answer.weights} />`}` : waiting()}`;
}

/** Scores and weights as they would be without a mask. */
const unmasked = ({ qkv, scale }) => {
  const scores = product(qkv.q, qkv.k, true);
  return { scores, weights: softmax(scores, scale) };
};

function QuerySentence({ ctx }) {
  const { layer, head, architecture: a } = ctx, answer = useText(ctx, ["qkv"], { layer, head }), x = useText(ctx, ["block"], { layer })?.block.norm1;
  const all = useMemo(() => {
    if (!answer) return null;
    const open = unmasked(answer);
    return { ...answer, ...open, context: product(open.weights, answer.qkv.v) };
  }, [answer]);
  const group = a.n_head / a.n_kv_head, shared = Math.floor(head / group);
  return html`<p class="hint">Block ${layer}, head ${head}; d = ${a.head_size}${all && `, so 1/√d = ${number(all.scale, 6)}`}.
      ${group > 1 && ` Keys and values are shared: heads ${shared * group} to ${shared * group + group - 1} read key/value head ${shared}.`}
      ${a.positions === "rotary" && " Queries and keys are shown after their turn (step 2)."} The mask comes in the next step: here every
      word may look at every word.</p>
    ${all && x ? html`<${QueryNumbers} answer=${all} labels=${ctx.labels} inputs=${["x, normed", x,
    { rowLabels: ctx.labels, maxColumns: 4, maxRows: 8, digits: 3 }, `What block ${layer} reads, ${layer > 0
      ? `which block ${layer - 1} has made` : "the end of step 2"}, after its first norm (step 7).
      W_q, not shown, makes ${a.head_size} numbers of these ${x.shape[1]}.`]} />` : waiting()}`;
}

/** How q, k or v comes from x: with a bias in GPT-2's class, turned where positions are rotary. */
const made = (name, { example, architecture: a }) => {
  const plain = html`x W<sub>${name}</sub>${!example && a.norm === "layernorm" && html` + b<sub>${name}</sub>`}`;
  return html`${name} = ${!example && name !== "v" && a.positions === "rotary" ? html`turned(${plain})` : plain}, `;
};

export const Queries = ({ ctx }) => page(ctx, html`Now the model may learn what to compare. Three matrices make of each word a <em>query</em> (what
    it looks for), a <em>key</em> (what it offers to be found by) and a <em>value</em> (what it hands over). Scores are queries times keys. Dot
    products of long vectors are large, and softmax of large numbers is nearly all or nothing: dividing by √d keeps them in the range where training
    can still move them.`,
"q, k and v are x times W q, W k and W v; z is the softmax of q times k transposed divided by the square root of d, times v",
html`${["q", "k", "v"].map((name) => made(name, ctx))}z = softmax(q kᵀ / √d) · v`,
ctx.example ? QueryExample : QuerySentence, ctx.example
  ? html`<li>Pick the row of another word and check one score: two products and a sum.</li>
    <li>Switch the weights to nn.Linear, whose numbers may be negative.</li>`
  : html`<li>Go through layers and heads: some look at the word itself, some at the first token, some at the one before.</li>
    <li>Unlike in step 3 the table is not symmetric any more: what a word asks for is not what it answers to.</li>`);

// ---------------------------------------------------------------- step 5

/** The notebook's first way, weights, then zeros, then shares again; and the mask first, which is what is served. */
function Masked({ open, causal: { scores, weights }, labels, exact }) {
  const { square, share } = useLooks(labels, exact, open.scores);
  const made = useMemo(() => {
    const masked = mapped(open.weights, (x, r, c) => (c <= r ? x : 0)), shares = rowSums(masked).data;
    const again = mapped(masked, (x, r) => x / shares[r]);
    return { mask: mapped(masked, (x, r, c) => (c <= r ? 1 : 0)), masked, again, apart: greatestDifference(again, weights) };
  }, [open, weights]);
  const same = made.apart < 1e-5;
  return html`<h3>One way: weigh first, then cut and share out anew</h3>
    ${tables(["weights without a mask", open.weights, share],
    ["causal mask", made.mask, { ...square, heat: "none", digits: 0 }, "1: may be looked at."])}
    ${tables(["masked weights", made.masked, share], sums("their row sums", made.masked, labels, "No shares any more."),
    ["divided by the row sums", made.again, share])}
    <h3>The usual way: −∞ before softmax</h3>
    ${tables(["scores", open.scores, square], ["scores, masked", scores, square, "exp(−∞) is 0: softmax then leaves nothing there."],
    ["weights", weights, share])}
    ${finding(same, "equal", "not equal", `Both ways give ${same ? "the same" : "different"} weights; the greatest difference is ${small(made.apart)}.
      ${same ? "The second needs one pass less." : ""}`)}`;
}

/** What is dropped, and the section's beginning with its controls. */
function useDropout(first, llama) {
  const [p, setP] = useState(first), [seed, setSeed] = useState(123);
  const title = (text) => html`<h3>Dropout</h3>
    <p>Dropout sets some weights to 0 at random while a model is trained, and multiplies the others by 1/(1 − p) so that their sum stays about the
      same: no word may rely on one other word alone. GPT-2 was trained so with p = 0.1, models of the Llama
      class${llama && ", as this one,"} usually without. When a model is used nothing is dropped. ${text}</p>
    <div class="row">${slider(`Share that is dropped, p = ${p}`, p, setP, 0.9, 0.1)}<label class="walk-slider">seed <input type="number" min="0"
      value=${seed} onInput=${(e) => { if (/^\d{1,15}$/.test(e.target.value)) setSeed(Number(e.target.value)); }} /></label></div>`;
  return { title, seed, ask: p > 0 ? { dropout: { p, seed } } : {} };
}

function ExampleDropout() {
  const { title, seed, ask } = useDropout(0.5), answer = useExample(LINEAR, ask);
  const even = useLook({ matrices: { inputs: WORDS.map(() => [0]) }, mask: "none", what: ["weights"], ...ask }, true); // all weights 1/n
  return html`${title(html`The choice is torch's own after <code>torch.manual_seed(${seed})</code>: the notebook's with 123.`)}
    ${even && answer ? tables(["a table of ones after dropout", mapped(even.weights, (x) => x * WORDS.length), SQUARE],
    ["causal weights after dropout", answer.weights, SQUARE]) : waiting()}`;
}

function MaskExample() {
  const open = useExample(LINEAR, { mask: "none" }), causal = useExample(LINEAR), whole = useExample(FIRST);
  return html`<p class="hint">With the queries and keys of nn.Linear (torch.manual_seed(789)), as in the notebook.</p>
    ${tables(html`<${Inputs} />`)}
    ${open && causal && whole ? html`<${Masked} open=${open} causal=${causal} labels=${WORDS} exact /><${ExampleDropout} />
      <h3>All of it in one class</h3>
      <p>The notebook's <code>CausalAttention</code> (cell 67; nn.Linear after torch.manual_seed(123)) puts these together. It also announces
        dropout, but its forward assigns <code>ttn_weights</code>, a slip of the pen: dropout never acts there, and these are its context
        vectors.</p>
      ${tables(["CausalAttention: weights", whole.weights, SQUARE], ["CausalAttention: context vectors", whole.context, VECTOR])}` : waiting()}`;
}

function SentenceDropout({ ctx: { layer, head, labels, architecture }, ctx }) {
  const rotary = architecture.positions === "rotary";
  const { title, ask } = useDropout(0.2, rotary), weights = useText(ctx, ["weights"], { layer, head, ...ask }, true)?.weights;
  const mark = (r, c) => (c <= r && row(weights, r)[c] === 0 ? "dropped" : "");
  return html`${title(`Try it on this head${layer > 0 ? ", where the blocks below had their weights dropped too" : ""}.`)}
    ${weights?.shape[0] === labels.length ? tables(["weights after dropout", weights, { rowLabels: labels, columnLabels: labels, maxRows: 8,
    maxColumns: 8, digits: 2, mark }, "Struck out: dropped."], sums("row sums", weights, labels)) : waiting()}`;
}

function MaskSentence({ ctx: { layer, head, labels }, ctx }) {
  const answer = useText(ctx, ["qkv", "scores", "weights", "context"], { layer, head });
  const open = useMemo(() => answer && unmasked(answer), [answer]);
  return html`<p class="hint">Block ${layer}, head ${head}, as served.</p>
    ${open ? html`<${Masked} open=${open} causal=${answer} labels=${labels} />
      ${tables(["context vectors = weights · v", answer.context, { rowLabels: labels, maxRows: 8, maxColumns: 8, digits: 3 }])}
      <${SentenceDropout} ctx=${ctx} />` : waiting()}`;
}

export const Mask = ({ ctx }) => page(ctx, html`A model that is to say the next word must not look at it in training. So a word sees itself and what
    stands before it, never what follows: everything above the diagonal is masked. That is also why an answer can be written word by word: what was
    computed for the words before stays true.`,
"score i j is minus infinity where j is greater than i; the weights are the softmax of the scores over the root of d",
html`s<sub>ij</sub> = −∞ where j > i, weights = softmax(s / √d)`, ctx.example ? MaskExample : MaskSentence,
html`<li>Look at the first row: the first word can only look at itself, so its weight is 1 in every head of every model.</li>
  <li>Move p to 0.9: the few weights that are left are ten times as large.</li>`);

// ---------------------------------------------------------------- step 6

const MAP = innerWidth < 520 ? 78 : 112; // css pixels: three beside each other on a phone too
const LOOKS = ["itself", "the one before", "the first", "others"];

/** Mean share of a head's weights for each of LOOKS; the first rows, where these are one, left out. */
function habits(a) {
  const n = a.shape[0], out = [0, 0, 0];
  for (let t = 2; t < n; t++) [t, t - 1, 0].forEach((at, i) => { out[i] += row(a, t)[at] / (n - 2); });
  return [...out, n > 2 ? Math.max(0, 1 - sum(out)) : 0];
}

/** A head's map and what it looks at most. */
function HeadMap({ a, h, ctx, found }) {
  const draw = (context, scale) => {
    const size = Math.round(MAP * scale), image = context.createImageData(size, size);
    drawMap(new Int32Array(image.data.buffer), size, 0, 0, size, toBytes(a.data), 0, a.shape[0], weightPalette());
    context.putImageData(image, 0, 0);
  };
  const most = Math.max(...found), at = found.indexOf(most);
  const words = at < 3 && most > CLEAR ? `mostly ${LOOKS[at]}, ${percent(most)}` : "several words";
  return html`<button type="button" class="walk-head" style=${{ width: `${MAP + 16}px` }} aria-pressed=${h === ctx.head}
    onClick=${() => ctx.setHead(h)}><${Canvas} width=${MAP} height=${MAP} draw=${draw} deps=${[a]} label="Map of weights" />
    <strong>Head ${h}</strong><span class="hint">${most > 0 && words}</span></button>`;
}

function HeadsSentence({ ctx }) {
  const { layer, head, architecture: a, labels } = ctx, answer = useText(ctx, ["weights", "context", "block"], { layer });
  const made = useMemo(() => {
    if (answer?.weights.shape[0] !== a.n_head) return null;
    const maps = range(a.n_head).map((h) => part(answer.weights, h));
    return { maps, found: maps.map(habits), joined: sideBySide(answer.context) };
  }, [answer]);
  if (!made) return waiting();
  const size = a.n_head / a.n_kv_head, vector = { rowLabels: labels, maxRows: 8, maxColumns: 6, digits: 3 };
  const maps = (from, to) => html`<div class="walk-heads">${made.maps.slice(from, to).map((one, i) => html`<${HeadMap} a=${one} h=${from + i}
    ctx=${ctx} found=${made.found[from + i]} />`)}</div>`;
  return html`
    <p>Block ${layer} has ${a.n_head} heads of ${a.head_size} numbers each: ${a.n_head} × ${a.head_size} = ${a.n_head * a.head_size}.
      ${size > 1 && html`${" "}<strong>Grouped queries:</strong> it has only ${a.n_kv_head} heads of keys and values, and ${size} query heads share
        each. That makes the cache of keys and values ${`${size} times smaller.`}`}</p>
    ${size === 1 ? maps(0, a.n_head) : html`<div class="walk-heads">${range(a.n_kv_head).map((g) => html`<fieldset
      class="walk-group"><legend>key/value head ${g}</legend>${maps(g * size, g * size + size)}</fieldset>`)}</div>`}
    <${Scale} />
    <details><summary>Where each head looks, in numbers</summary>${list("Where each head looks", null, [["head", "th"],
    ...LOOKS.map((name) => [name, "num"])], made.found.map((one, h) => [`head ${h}`, ...one.map(percent)]))}
      <p class="hint">Mean over the words from the third on.</p></details>
    ${tables([`weights of head ${head}`, made.maps[head], { ...vector, columnLabels: labels, maxColumns: 8, digits: 2 }])}
    ${tables(["context vectors, heads side by side", made.joined, { ...vector,
    columnLabels: Array.from(row(made.joined, 0), (_, i) => `h${Math.floor(i / a.head_size)}.${i % a.head_size}`) }],
    [`joined: · W_o${bias(ctx) ? " + b_o" : ""}`, answer.block.attention, vector, "What attention adds to the words' vectors in this block."])}`;
}

function HeadsExample() {
  const two = useExample(HEADS), divided = useExample(DIVIDED);
  if (!two || !divided) return waiting();
  const each = (name, a, what, look) => [0, 1].map((h) => [`${name}head ${h}: ${what}`, part(a, h), look]);
  return html`${tables(html`<${Inputs} />`)}
    <h3>Two heads, one beside the other</h3>
    <p>MultiHeadAttentionWrapper (cell 72): two causal heads, each with matrices of its own (torch.manual_seed(123)).</p>
    ${tables(...each("", two.weights, "weights", SQUARE))}
    ${tables(...each("", two.context, "context", VECTOR), ["both side by side", two.output, { ...VECTOR,
    columnLabels: ["h0.0", "h0.1", "h1.0", "h1.1"] }])}
    <h3>One matrix, divided among the heads</h3>
    <p>What is used in practice, and by this server: one large matrix multiplication whose columns are divided (here two columns, one a head), then
      a matrix W<sub>o</sub> and a bias that join them. The notebook's class of cell 75 makes W<sub>o</sub> of d<sub>in</sub> columns and would fail
      wherever d<sub>in</sub> is not d<sub>out</sub>; these are the numbers of the same class with the sizes put right.</p>
    ${tables(...each("divided, ", divided.weights, "weights", SQUARE))}
    ${tables(["context, side by side", sideBySide(divided.context), VECTOR], ["output = context · W_o + b_o", divided.output, VECTOR])}`;
}

export const Heads = ({ ctx }) => page(ctx, html`One head can look for one thing. So every block has several, each with queries${grouped(ctx)
    ? " of its own and keys and values that it shares with its group," : ", keys and values of its own,"} all made of the same x, the block's normed
    input. They look at the same words for different reasons: the word before, the first word, a word of the same kind. Their context vectors stand
    side by side, and one more matrix mixes them.`,
`the output is the heads' context vectors side by side, times W o${bias(ctx) ? ", plus b o" : ""}`,
html`output = [z<sup>0</sup> | z<sup>1</sup> | … | z<sup>H−1</sup>] · W<sub>o</sub>${bias(ctx) && html` + b<sub>o</sub>`}`,
ctx.example ? HeadsExample : HeadsSentence, ctx.example
  ? html`<li>The columns of “both side by side” are the two tables of context before it, unchanged.</li>`
  : html`<li>Pick a head: its weights open below, and steps 4 and 5 go on with it.</li>
    <li>Go to a later layer: heads that look only at the first word have found nothing to look for.</li>`);
