// SPDX-License-Identifier: MIT
// Step 2: rows of the embedding table, and how the model knows where a token stands.

import { plural } from "../../../lib/format.js";
import { html } from "../../../lib/html.js";
import { Formula, labelsOf, useLook } from "./data.js";
import { OrderDemo } from "./order.js";
import { Arrays, Say, Table, Try, Waiting } from "./parts.js";
import { Rotary } from "./rotary.js";

function Learned({ embeddings, labels }) {
  const places = labels.map((label, i) => `position ${i}`);
  return html`<${Say}><p>A row of the table says what the token is, not where it stands. So the model has learned a second table with a row for each
    place, and adds it.
      The first block reads the sum.</p></${Say}>
    <${Formula} said="x at t is the token embedding of id t plus the position embedding of t">
      x<sub>t</sub> = W<sub>token</sub>[id<sub>t</sub>] + W<sub>position</sub>[t]</${Formula}>
    <${Arrays}>
      <${Table} name="token rows" a=${embeddings.token} rowLabels=${labels} />
      <${Table} name="position rows" a=${embeddings.position} rowLabels=${places} />
      <${Table} name="their sum" a=${embeddings.sum} rowLabels=${labels} />
    </${Arrays}>`;
}

export default function Positions({ ctx }) {
  const { architecture: a, labels } = ctx;
  const rotary = a.positions === "rotary";
  const answer = useLook({ model: ctx.model, prompt: ctx.tokens.ids, what: ["embeddings"] });
  return html`
    <${Say}><p>Each id picks its row of the embedding table: ${plural(a.n_embd, "number")} that stand for this token from here on. They are weights
      of the model, learned in training; tokens that are used alike have rows that point the same way.</p></${Say}>
    ${!answer ? html`<${Waiting} />` : rotary ? html`
      <${Formula} said="x at t is the token embedding of id t">x<sub>t</sub> = W<sub>token</sub>[id<sub>t</sub>]</${Formula}>
      <${Arrays}><${Table} name="token rows" a=${answer.embeddings.token} rowLabels=${labels} /></${Arrays}>
      <${Rotary} ctx=${ctx} />` : html`<${Learned} embeddings=${answer.embeddings} labels=${labels} />`}
    ${!ctx.plain && html`<${OrderDemo} ctx=${ctx} />`}
    <${Try}>
      <li>Repeat a word in your sentence: its token row is the same both
        times${rotary ? ", and only the turning tells the two apart" : ", its sum is not"}.</li>
      <li>Change the two sentences of the demonstration; words that stand in both are compared.</li>
    </${Try}>`;
}
