// SPDX-License-Identifier: MIT
// Answers before and after, on rows that were held out: instruction, input, what is correct, what the base said, what the tuned model says; worst first.

import { call } from "../../lib/api.js";
import { number, percent, plural } from "../../lib/format.js";
import { html, useEffect, useState } from "../../lib/html.js";
import { fail } from "../../lib/server.js";
import { Card, Facts, Segmented, Select } from "../../lib/ui.js";
import { askThis } from "./checkpoints.js";

const PAGE = 12;
const SCORES = [
  ["rouge_l", "ROUGE-L", "How much of the correct answer's words come in its order"],
  ["token_f1", "Token F1", "How many words both answers share"],
  ["judge", "Judge", "The judging model's mark, of 100"],
];
const SHOW = [["all", "All"], ["wrong", "Not exact"], ["exact", "Exact"]];
const ORDER = [["worst", "Worst first"], ["best", "Best first"]];

const share = (name, value) => (name === "judge" ? value / 100 : value);

function Score({ name, label, title, value }) {
  if (value === null || value === undefined) return null;
  const text = name === "judge" ? number(value) : percent(value);
  return html`<div class="job-score" title=${title}><span>${label}</span>
    <span class="job-score-bar"><i style=${{ width: `${Math.round(100 * share(name, value))}%` }}></i></span><b>${text}</b></div>`;
}

/** What the model was given: Alpaca's wording, as in training. */
const TASK = "Below is an instruction that describes a task. Write a response that appropriately completes the request.";
const askOf = (card) => `${TASK}\n\n### Instruction:\n${card.instruction}${card.input ? `\n\n### Input:\n${card.input}` : ""}\n\n### Response:\n`;

function ResultCard({ card }) {
  const said = (label, text, className = "") => html`<div class=${className}><dt>${label}</dt>
    <dd class="text">${text === "" ? html`<i class="hint">nothing</i>` : text}</dd></div>`;
  return html`<li class="job-result">
    <div class="job-result-ask"><p class="text">${card.instruction}</p>${card.input && html`<p class="text hint">${card.input}</p>`}</div>
    <dl>
      ${said("Correct", card.reference)}
      ${card.base !== null && card.base !== undefined && said("Before", card.base)}
      ${said("After", card.answer, "after")}
    </dl>
    <div class="job-scores">
      ${SCORES.map(([name, label, title]) => html`<${Score} name=${name} label=${label} title=${title} value=${card[name]} />`)}
      <span class=${`tag ${card.exact ? "good" : ""}`}>${card.exact ? "exact" : "not exact"}</span>
      <button type="button" class="quiet job-ask" title="Puts this row where the checkpoints can be tried"
        onClick=${() => askThis(askOf(card))}>Try this row</button>
    </div>
  </li>`;
}

function useResults(file) {
  const [results, setResults] = useState(null);
  useEffect(() => {
    if (!file) return undefined;
    const control = new AbortController();
    const read = () => call(`/v1/files/${file}/content`, undefined, control.signal).then(setResults, (error) => fail(error, read));
    read();
    return () => control.abort();
  }, [file]);
  return results;
}

function chosen(cards, { show, order, words }) {
  const wanted = words.trim().toLowerCase();
  const said = (card) => [card.instruction, card.input, card.reference, card.answer, card.base].join("\n").toLowerCase();
  const some = cards.filter((card) => (show === "all" || card.exact === (show === "exact")) && said(card).includes(wanted));
  return order === "worst" ? some : some.reverse();
}

/** file: the id of results.json. */
export function Results({ file }) {
  const results = useResults(file);
  const [look, setLook] = useState({ show: "all", order: "worst", words: "" });
  const [most, setMost] = useState(PAGE);
  if (!results?.cards?.length) return null;
  const change = (members) => { setLook({ ...look, ...members }); setMost(PAGE); };
  const cards = chosen(results.cards, look), m = results.means ?? {};
  const tools = html`<${Segmented} label="Which" value=${look.show} options=${SHOW} onChange=${(show) => change({ show })} />
    <${Select} label="Order" value=${look.order} options=${ORDER} onChange=${(order) => change({ order })} />`;
  return html`<${Card} title="Results" id="results" tools=${tools}>
    <p class="hint">Rows that it never learned from, answered by the base and by the fine-tuned model.</p>
    <div class="row">
      <${Facts} items=${[["Rows", String(results.cards.length)], ["Exact", percent(m.exact_match ?? 0)], ["Token F1", percent(m.token_f1 ?? 0)],
        ["ROUGE-L", percent(m.rouge_l ?? 0)], m.judge !== null && m.judge !== undefined && ["Judge", number(m.judge)]]} />
      <input type="search" class="job-search" placeholder="Search the rows" aria-label="Search the rows" value=${look.words}
        onInput=${(e) => change({ words: e.target.value })} />
    </div>
    <p class="sr" role="status">${plural(cards.length, "row")}</p>
    ${cards.length === 0 && html`<p class="hint">No row is like that.</p>`}
    <ul class="job-results">${cards.slice(0, most).map((card) => html`<${ResultCard} key=${results.cards.indexOf(card)} card=${card} />`)}</ul>
    ${cards.length > most && html`<button type="button" onClick=${() => setMost(most + 48)}>Show more of ${cards.length}</button>`}
  <//>`;
}
