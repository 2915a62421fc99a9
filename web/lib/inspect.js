// SPDX-License-Identifier: MIT
// POST /v1/inspect: arrays decoded to typed arrays, the last answers kept, a question asked twice at once sent once, and given up when nobody
// waits for it any more; and what all who show an answer need: its tokens in a line, the way of the arrow keys, words where it did not come.
//
// An array of an answer is {shape, data}: data a Float32Array, or a Uint8Array of encoding "uint8" (255 is 1).

import { call } from "./api.js";
import { visible } from "./format.js";
import { html, useEffect, useId, useMemo, useRef, useState } from "./html.js";
import { modelInfo } from "./server.js";
import { Card, Empty } from "./ui.js";

const KEPT_BYTES = 48e6, LATER_MS = 100;
const kept = new Map(); // request as text -> {answer, bytes}, least recently used first
let total = 0; // bytes
const asked = new Map(); // request as text -> {promise, control, prompt, waiting}

/** Names of tokens, their texts; one that is no whole character by its id, so that two of them can be told apart. */
export const namesOf = ({ ids, texts }) => texts.map((text, i) => (text.includes("\ufffd") ? `‹${ids[i]}›` : text));
/** [{id, text, p}] of such tokens and the number of each. */
export const tokensOf = (tokens, numbers) => namesOf(tokens).map((text, i) => ({ id: tokens.ids[i], text, p: numbers[i] }));

const bytesOf = (base64) => Uint8Array.fromBase64?.(base64) ?? Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));

function dataOf({ data, encoding }) {
  if (encoding === "uint8") return bytesOf(data);
  if (encoding === "float32") return new Float32Array(bytesOf(data).buffer);
  return Float32Array.from(data, (x) => x ?? -Infinity); // null: where the mask forbids
}

/** Decodes the arrays of an answer where they stand; returns the bytes they take. */
function decode(node) {
  if (node?.constructor !== Object) return 0;
  const own = node.shape && node.data !== undefined ? (node.data = dataOf(node)).byteLength : 0; // a block is an array and has some
  return Object.values(node).reduce((bytes, member) => bytes + decode(member), own);
}

function keep(key, one) {
  total += one.bytes - (kept.get(key)?.bytes ?? 0);
  kept.set(key, one);
  for (const [oldest, { bytes }] of kept) {
    if (total <= KEPT_BYTES || oldest === key) break;
    kept.delete(oldest);
    total -= bytes;
  }
}

/** The answer, with `times`: how long it took, in ms: ask, until its JSON was here, and decode. */
async function send(key, body, signal) {
  const began = performance.now(), answer = await call("/v1/inspect", body, signal);
  const came = performance.now(), bytes = decode(answer) + 4096; // texts and ids
  answer.times = { ask: came - began, decode: performance.now() - came };
  if (modelInfo(body.model)?.couplet?.origin !== "live") keep(key, { answer, bytes }); // what is being trained changes under its name
  return answer;
}

/** The answer to `body`. Answers are shared: nobody changes one. `signal` gives up; the request ends when all who asked it have. */
export async function inspect(body, signal) {
  const key = `${modelInfo(body.model)?.created ?? ""} ${JSON.stringify(body)}`; // a name may stand for another model later
  const old = kept.get(key);
  if (old) {
    kept.delete(key);
    kept.set(key, old);
    return old.answer;
  }
  let one = asked.get(key);
  const over = () => { if (asked.get(key) === one) asked.delete(key); };
  if (!one) {
    const control = new AbortController();
    one = { control, prompt: body.prompt, waiting: 0, promise: send(key, body, control.signal).finally(over) };
    asked.set(key, one);
  }
  one.waiting++;
  const leave = () => {
    if (--one.waiting > 0) return;
    over();
    one.control.abort();
  };
  signal.addEventListener("abort", leave);
  try {
    const answer = await one.promise;
    signal.throwIfAborted();
    return answer;
  } finally {
    signal.removeEventListener("abort", leave);
  }
}

/**
 * Gives up whatever is asked about these ids or their beginning, because another text is now of interest: the server looks at one thing after the
 * other. A useInspect that still wants it asks once more, later.
 */
export function giveUp(ids) {
  for (const [key, { prompt, control }] of asked) {
    if (!Array.isArray(prompt) || prompt.some((id, i) => id !== ids[i])) continue;
    asked.delete(key);
    control.abort();
  }
}

/**
 * The answer to `body` (null: nothing is asked) as {answer, error, busy, again}. While a new question is open the last answer stays, with busy true:
 * `answer` belongs to `asked`. What is no longer wanted is given up.
 */
export function useInspect(body) {
  const key = useMemo(() => body && JSON.stringify(body), [body]);
  const [turn, setTurn] = useState(0), [found, setFound] = useState({}), next = () => setTurn((n) => n + 1);
  useEffect(() => {
    if (!body) return undefined;
    const control = new AbortController();
    let timer = 0;
    const settle = (answer, error) => {
      if (control.signal.aborted) return;
      if (error?.name === "AbortError") timer = setTimeout(next, LATER_MS);
      else setFound({ key, answer, error, asked: body });
    };
    inspect(body, control.signal).then((answer) => settle(answer), (error) => settle(null, error));
    return () => { clearTimeout(timer); control.abort(); };
  }, [key, turn]);
  const shown = body ? found : {}, busy = Boolean(body) && found.key !== key;
  return { ...shown, error: busy ? null : shown.error, busy, again: () => { setFound({ ...found, key: null }); next(); } };
}

// ---------------------------------------------------------------- to show it

/** What is shown where an answer did not come. */
export const Failed = ({ error, again }) => html`<${Card}>
  <${Empty} title="The answer did not come" action=${html`<button type="button" onClick=${again}>Try again</button>`}>${error.message}<//><//>`;

export const Looking = () => html`<p class="hint" role="status">Looking…</p>`;

export const range = (n) => Array.from({ length: n }, (_, i) => i);
/** `x`, a number or its text, as one of 0 to n - 1. */
export const within = (x, n) => Math.min(Math.max(Number(x) || 0, 0), n - 1);

/** Where an arrow key leads from a cell of rows x columns; null for any other key. */
export function arrow(event, [row, column], rows, columns) {
  const ways = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0], Home: [0, -columns], End: [0, columns] };
  const way = ways[event.key];
  if (!way || event.ctrlKey || event.metaKey || event.altKey) return null;
  event.preventDefault();
  return [within(row + way[0], rows), within(column + way[1], columns)];
}

/** The style of what is coloured by a share of 0 to 1. */
export const tinted = (share, colour = "--accent") =>
  ({ backgroundColor: `color-mix(in srgb, var(${colour}) ${Math.round(share * 100)}%, transparent)` });

/** Line breaks stay, as do blanks; a token without any text can still be clicked. */
const inLine = (text) => (text === "" ? "∅" : text.replaceAll("\n", "⏎\n").replaceAll("\t", "⇥"));

/** The text as a line of tokens, one of which is chosen: by click or arrow keys. shade(i), title(i): of a token, 0..1 and words. */
export function Strip({ texts, chosen, onChoose, label, shade, title }) {
  const id = useId(), host = useRef(), n = texts.length;
  const onKey = (event) => {
    const to = arrow(event, [chosen, chosen], n, n); // up and down go about as left and right do
    if (to) onChoose(to[0] + to[1] - chosen);
  };
  useEffect(() => {
    if (host.current === document.activeElement) host.current.querySelector("[aria-selected=true]")?.scrollIntoView({ block: "nearest" });
  }, [chosen]);
  return html`<div class="text inside-strip" role="listbox" aria-orientation="horizontal" tabindex="0" ref=${host} aria-label=${label}
    aria-activedescendant=${`${id}-${chosen}`}
    onKeyDown=${onKey} onClick=${(e) => { const i = e.target.dataset.i; if (i !== undefined) onChoose(Number(i)); }}>
    ${texts.map((text, i) => html`<span id=${`${id}-${i}`} key=${i} data-i=${i} role="option" class="tok" aria-selected=${i === chosen}
      title=${title?.(i) ?? `${visible(text)}, token ${i}`} style=${shade && tinted(0.4 * shade(i))}>${inLine(text)}</span>`)}
  </div>`;
}
