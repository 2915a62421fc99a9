// SPDX-License-Identifier: MIT
// One streamed answer: its tokens with their probabilities and alternatives into a TokenLog, and the figures of how it went.

import { call, stream } from "./api.js";
import { drawnBy } from "./chances.js";
import { hex, plural, tokenName } from "./format.js";
import { TokenLog } from "./token_text.js";

const FINISH = { stop: "ended by itself", length: "cut at max tokens", broken: "the server broke off here" };
const SPECIAL = /^<(\|.+\||\/?s|bos|eos|pad|unk|(start|end)_of_turn)>$/; // tokens that are no part of the text
const ESCAPED = /^bytes:((?:\\x[0-9a-f]{2})+)$/;
const BURST_MS = 20; // an answer that comes within it came in one piece: the time between its tokens says nothing
const ALTERNATIVES = 8;

const encoder = new TextEncoder();

function bytesOf(raw, bytes) {
  if (bytes) return Uint8Array.from(bytes);
  const [, escaped] = ESCAPED.exec(raw) ?? [];
  return escaped ? Uint8Array.from(escaped.match(/[0-9a-f]{2}/g), (pair) => parseInt(pair, 16)) : encoder.encode(raw);
}

/** Gives tokens their texts: a character made of several tokens belongs to the last of them, the others have none. */
class Speller {
  #decoder = new TextDecoder("utf-8", { ignoreBOM: true });

  /** `text`: what the server says this token added, where it says so for a single token. */
  add(token, text = null) {
    const special = text === "" && SPECIAL.test(token.raw);
    return { ...token, name: tokenName(token.raw), text: special ? "" : this.#decoder.decode(bytesOf(token.raw, token.bytes), { stream: true }) };
  }
}

function fromChat(t) {
  return { id: t.id ?? null, raw: t.token, bytes: t.bytes, logprob: t.logprob, rank: t.rank,
    top: (t.top_logprobs ?? []).map((o) => ({ id: o.id ?? null, text: o.token, bytes: o.bytes, logprob: o.logprob })) };
}

/** The tokens of `choice.logprobs` of /v1/completions; `ids` are the ids of the tokens. */
function fromCompletion(logprobs, ids) {
  return logprobs.tokens.map((raw, i) => {
    const known = logprobs.top_token_ids?.[i] ?? [], rank = logprobs.token_ranks?.[i] ?? undefined;
    const top = Object.entries(logprobs.top_logprobs?.[i] ?? {}).map(([text, logprob]) => ({ text, logprob }));
    // An object puts names that look like numbers first; the ids stand in descending order.
    top.sort((a, b) => b.logprob - a.logprob);
    // Behind the asked-for ones stands the chosen one, whatever its rank.
    const entries = top.map((entry, k) => ({ id: known[k] ?? null, ...entry, ...(k >= ALTERNATIVES ? { beyond: true, rank } : {}) }));
    return { id: ids?.[i] ?? null, raw, logprob: logprobs.token_logprobs[i], rank, top: entries };
  });
}

const decoder = new TextDecoder("utf-8", { fatal: true });

/** A token of /tokenize: its bytes, its text (whole: null where the bytes are no whole characters) and what to show. */
export function fromPiece({ id, piece }) {
  const bytes = typeof piece === "string" ? [...encoder.encode(piece)] : piece;
  let whole = null;
  try {
    whole = typeof piece === "string" ? piece : decoder.decode(new Uint8Array(piece));
  } catch { /* part of a character: shown as its bytes */ }
  return { id, bytes, whole, text: whole ?? `‹${hex(bytes, " ")}›`, logprob: null, top: [] };
}

function tokensOf(choice, speller) {
  const chat = choice.logprobs?.content, old = choice.logprobs?.tokens;
  const list = chat ? chat.map(fromChat) : old ? fromCompletion(choice.logprobs, choice.token_ids) : [];
  const text = choice.delta ? choice.delta.content : choice.text;
  return list.map((token) => speller.add(token, list.length === 1 ? text : null));
}

/** Whether an alternative is a sign, such as the end of the answer, and no text. */
export const isSpecial = (entry) => SPECIAL.test(entry.text);

/** Tokens again from their beginning, as after one of them was exchanged. */
export const respell = (tokens) => {
  const speller = new Speller();
  return tokens.map((token) => speller.add(token, token.text ? null : ""));
};

/** The token that alternative `entry` of `token` would be in its place. */
export const alternativeOf = (token, entry) =>
  ({ id: entry.id, raw: entry.text, bytes: entry.bytes, logprob: entry.logprob, rank: entry.beyond ? entry.rank : token.top.indexOf(entry) + 1,
    top: token.top, picked: true });

/** The whole request for `body`, as answer() sends it. */
export function streamed(path, body) {
  const wanted = path.includes("chat") ? { logprobs: true, top_logprobs: ALTERNATIVES } : { logprobs: ALTERNATIVES };
  return { ...body, ...wanted, return_token_ids: true, stream: true, stream_options: { include_usage: true } };
}

/** A stop text may begin inside a token: what the server did not say is taken off the tokens from `from` on. They stay, without text. */
function cutTo(log, from, said) {
  const written = log.items.slice(from).map((token) => token.text).join("");
  if (written.length <= said.length || !written.startsWith(said)) return;
  let room = said.length;
  log.replace(log.items.map((token, i) => {
    if (i < from) return token;
    const text = token.text.slice(0, room);
    room -= text.length;
    return { ...token, text };
  }));
}

/**
 * Streams an answer into `log`, behind what is there. Resolves to {prompt, cached, tokens, first_ms, tokens_per_second, finish}; a stop by `signal` is an
 * answer too (finish "stopped"). Throws what the server refuses, and where it broke off, with what came until then in `said`.
 */
export async function answer(path, body, log, signal) {
  const began = performance.now();
  const out = { prompt: null, cached: null, tokens: 0, first_ms: null, tokens_per_second: null, finish: null };
  const speller = new Speller(), before = log.items.length, by = drawnBy(body);
  log.items.forEach((token) => token.raw !== undefined && speller.add(token)); // an unfinished character goes on
  let last = began, said = "", broken = null, stopText = null;
  try {
    for await (const event of stream(path, streamed(path, body), signal)) {
      const choice = event.choices?.[0];
      if (event.usage) {
        const { prompt_tokens: prompt, completion_tokens: tokens, prompt_tokens_details: more } = event.usage;
        Object.assign(out, { prompt, tokens, cached: more?.cached_tokens ?? null });
      }
      if (!choice) continue;
      log.promptIds ??= choice.prompt_token_ids ?? null;
      out.finish = choice.finish_reason ?? out.finish;
      if (typeof choice.stop_reason === "string") stopText = choice.stop_reason; // else the model's own end
      said += (choice.delta ? choice.delta.content : choice.text) ?? "";
      const tokens = tokensOf(choice, speller);
      if (tokens.length === 0) continue;
      last = performance.now();
      out.first_ms ??= last - began;
      log.push(...tokens.map((token) => ({ ...token, by })));
    }
  } catch (error) {
    if (error.name !== "AbortError") broken = error;
    if (broken && log.items.length === before) throw error;
    out.finish = broken ? "broken" : "stopped";
  }
  if (out.finish === "stop") cutTo(log, before, said);
  if (stopText !== null) out.finish = `stopped at “${stopText.replaceAll("\n", "⏎")}”`;
  out.tokens ||= log.items.length - before;
  const writing = last - began - (out.first_ms ?? 0);
  if (out.tokens > 1 && writing >= BURST_MS) out.tokens_per_second = ((out.tokens - 1) * 1000) / writing;
  else if (out.tokens > 1 && last > began) out.tokens_per_second = (out.tokens * 1000) / (last - began);
  if (broken) throw Object.assign(broken, { said: summary(out) });
  return out;
}

/** The tokens of `prompt` (a text or ids) with how likely `model` finds each: nothing is written. */
export async function score(model, prompt, signal) {
  const body = { model, prompt, max_tokens: 0, echo: true, logprobs: ALTERNATIVES, return_token_ids: true };
  const [choice] = (await call("/v1/completions", body, signal)).choices;
  const speller = new Speller();
  return fromCompletion(choice.logprobs, choice.prompt_token_ids).map((token) => speller.add(token));
}

export const idsOf = (tokens) => tokens.map((token) => token.id);

/** Tokens as a file holds them: a token's bytes where it is no whole character. */
export const exported = (tokens) => tokens.map(({ id, name, raw, text, logprob, rank, top, picked }) => ({
  id, text, ...(text === "" || raw === undefined ? { name } : {}), logprob, rank, ...(picked ? { chosen_by_hand: true } : {}),
  alternatives: (top ?? []).map((o) => ({ id: o.id, text: tokenName(o.text), logprob: o.logprob })),
}));

const isPlain = (raw, bytes) => !bytes || encoder.encode(raw).join() === bytes.join();
const FINE = 1e4; // parts of a logprob that are kept: the shown probabilities do not change

/**
 * The tokens of `log` as few plain values, for restored(): [promptIds, words, tokens, settings]. words: [id, raw, bytes where they are not raw's];
 * a token: [word, logprob, rank, 1 chosen by hand + 2 no text of its own, place of its settings, and word, logprob of each alternative].
 */
export function condensed({ items, promptIds }) {
  const words = new Map(), settings = [...new Set(items.map((t) => t.by))];
  const word = (id, raw, bytes) => {
    const key = `${id} ${raw}`;
    if (!words.has(key)) words.set(key, [words.size, isPlain(raw, bytes) ? [id, raw] : [id, raw, bytes]]);
    return words.get(key)[0];
  };
  const fine = (logprob) => logprob && Math.round(logprob * FINE);
  const tokens = items.map((t) => [word(t.id, t.raw, t.bytes), fine(t.logprob), t.rank ?? null, (t.picked ? 1 : 0) + (t.text === "" ? 2 : 0), settings.indexOf(t.by),
    ...t.top.flatMap((o) => [word(o.id, o.text, o.bytes), fine(o.logprob)])]);
  return [promptIds, [...words.values()].map(([, one]) => one), tokens, settings];
}

/** A log of such values; null where its text is not `content`: then they are of another answer. */
export function restored([promptIds, words, tokens, settings], content) {
  const log = new TokenLog();
  const items = tokens.map(([at, logprob, rank, flags, by, ...more]) => {
    const [id, raw, bytes] = words[at], top = [];
    for (let k = 0; k < more.length; k += 2) {
      const [oid, text, its] = words[more[k]];
      top.push({ id: oid, text, bytes: its, logprob: more[k + 1] && more[k + 1] / FINE, ...(k >= 2 * ALTERNATIVES ? { beyond: true, rank: flags % 2 ? undefined : rank } : {}) });
    }
    return { id, raw, bytes, logprob: logprob && logprob / FINE, rank: rank ?? undefined, top, by: settings[by], picked: flags % 2 > 0, text: flags > 1 ? "" : raw };
  });
  log.promptIds = promptIds;
  log.push(...respell(items));
  cutTo(log, 0, content);
  return log.text === content ? log : null;
}

/** "prompt 12 · 8 of it cached · answer 24 tokens · first after 31 ms · 80.2 tokens/s · ended by itself" */
export function summary(a) {
  const parts = [];
  if (a.prompt !== null) parts.push(`prompt ${a.prompt}`);
  if (a.cached) parts.push(`${a.cached} of it cached`);
  parts.push(`answer ${plural(a.tokens, "token")}`);
  if (a.first_ms !== null) parts.push(`first after ${Math.round(a.first_ms)} ms`);
  if (a.tokens_per_second !== null) parts.push(`${a.tokens_per_second.toFixed(a.tokens_per_second < 100 ? 1 : 0)} tokens/s`);
  parts.push(FINISH[a.finish] ?? a.finish ?? "");
  return parts.filter(Boolean).join(" · ");
}
