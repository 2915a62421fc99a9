// SPDX-License-Identifier: MIT
// POST /v1/inspect: arrays decoded to typed arrays, the last answers kept, a question asked twice at once sent once, and given up when nobody
// waits for it any more.
//
// An array of an answer is {shape, data}: data a Float32Array, or a Uint8Array of encoding "uint8" (255 is 1).

import { call } from "./api.js";
import { useEffect, useState } from "./html.js";
import { modelInfo } from "./server.js";

const KEPT_BYTES = 48e6;
const kept = new Map(); // request as text -> {answer, bytes}, least recently used first
const asked = new Map(); // request as text -> {promise, control, waiting}
const times = new WeakMap();
/** How long an answer took, in ms: {ask: until its JSON was here, decode}. */
export const timesOf = (answer) => times.get(answer) ?? { ask: 0, decode: 0 };

/** Texts of tokens to be shown; one that is no whole character by its id, so that two of them can be told apart. */
export const namesOf = ({ ids, texts }) => texts.map((text, i) => (text.includes("\ufffd") ? `‹${ids[i]}›` : text));

function bytesOf(base64) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
  const text = atob(base64), bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

function dataOf({ data, encoding }) {
  if (encoding === "uint8") return bytesOf(data);
  if (encoding === "float32") return new Float32Array(bytesOf(data).buffer);
  return Float32Array.from(data, (x) => x ?? -Infinity); // null: where the mask forbids
}

/** Decodes the arrays of an answer where they stand; returns the bytes they take. */
function decode(node) {
  if (node === null || typeof node !== "object" || Array.isArray(node)) return 0;
  let bytes = 0;
  if (node.shape && node.data !== undefined) {
    node.data = dataOf(node);
    bytes = node.data.byteLength;
  }
  for (const member of Object.values(node)) if (!ArrayBuffer.isView(member)) bytes += decode(member);
  return bytes;
}

function keep(key, answer, bytes) {
  kept.set(key, { answer, bytes });
  let total = 0;
  for (const one of kept.values()) total += one.bytes;
  for (const [oldest, one] of kept) {
    if (total <= KEPT_BYTES || kept.size === 1) break;
    kept.delete(oldest);
    total -= one.bytes;
  }
}

async function send(key, body, signal) {
  const began = performance.now();
  const answer = await call("/v1/inspect", body, signal);
  const came = performance.now();
  const bytes = decode(answer) + 4096; // texts and ids
  times.set(answer, { ask: came - began, decode: performance.now() - came });
  if (modelInfo(body.model)?.couplet?.origin !== "live") keep(key, answer, bytes); // what is being trained changes under its name
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
  if (!one) {
    const control = new AbortController();
    const over = () => { if (asked.get(key) === one) asked.delete(key); };
    one = { control, prompt: body.prompt, waiting: 0, promise: send(key, body, control.signal).finally(over) };
    asked.set(key, one);
  }
  one.waiting++;
  const leave = () => {
    if (--one.waiting > 0) return;
    if (asked.get(key) === one) asked.delete(key);
    one.control.abort();
  };
  signal?.addEventListener("abort", leave);
  try {
    const answer = await one.promise;
    signal?.throwIfAborted();
    return answer;
  } finally {
    signal?.removeEventListener("abort", leave);
  }
}

/**
 * Gives up whatever is asked about these ids or their beginning, because another text is now of interest: the server looks at one thing after the
 * other. A useInspect that still wants it asks once more, later.
 */
export function giveUp(ids) {
  for (const [key, one] of asked) {
    if (!Array.isArray(one.prompt) || one.prompt.some((id, i) => id !== ids[i])) continue;
    asked.delete(key);
    one.control.abort();
  }
}
const LATER_MS = 100;

/**
 * The answer to `body` (null: nothing is asked) as {answer, error, busy, again}. While a new question is open the last answer stays, with busy true:
 * `answer` belongs to `asked`. What is no longer wanted is given up.
 */
export function useInspect(body) {
  const key = body && JSON.stringify(body);
  const [turn, setTurn] = useState(0);
  const [found, setFound] = useState({ key: null, answer: null, error: null, asked: null });
  useEffect(() => {
    if (!body) {
      setFound({ key: null, answer: null, error: null, asked: null });
      return undefined;
    }
    const control = new AbortController();
    let timer = 0;
    inspect(body, control.signal).then(
      (answer) => { if (!control.signal.aborted) setFound({ key, answer, error: null, asked: body }); },
      (error) => {
        if (control.signal.aborted) return;
        if (error.name === "AbortError") timer = setTimeout(() => setTurn((n) => n + 1), LATER_MS);
        else setFound({ key, answer: null, error, asked: body });
      });
    return () => { clearTimeout(timer); control.abort(); };
  }, [key, turn]);
  return { answer: found.answer, asked: found.asked, error: found.key === key ? found.error : null, busy: Boolean(body) && found.key !== key,
    again: () => { setFound((now) => ({ ...now, key: null })); setTurn((n) => n + 1); } };
}
