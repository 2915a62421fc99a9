// SPDX-License-Identifier: MIT
// One streamed answer: its tokens with their probabilities and alternatives into a TokenLog, and the figures of how it went.

import { stream } from "./api.js";
import { plural } from "./format.js";

const FINISH = { stop: "ended by itself", length: "cut at max tokens" };
export const ALTERNATIVES = 8;

/** The tokens of one chunk of /v1/completions or /v1/chat/completions, as TokenText wants them. */
function tokensOf(choice) {
  const chat = choice.logprobs?.content;
  if (chat) {
    return chat.map((t) => ({ id: t.id ?? null, text: t.token, logprob: t.logprob,
      top: t.top_logprobs.map((o) => ({ id: o.id ?? null, text: o.token, logprob: o.logprob })) }));
  }
  const old = choice.logprobs;
  if (!old?.tokens) return null;
  return old.tokens.map((text, i) => {
    const ids = old.top_token_ids?.[i] ?? [];
    const top = Object.entries(old.top_logprobs?.[i] ?? {}).map(([t, logprob]) => ({ text: t, logprob }));
    top.sort((a, b) => b.logprob - a.logprob);
    return { id: choice.token_ids?.[i] ?? null, text, logprob: old.token_logprobs[i], top: top.map((entry, k) => ({ id: ids[k] ?? null, ...entry })) };
  });
}

/**
 * Streams an answer into `log`. Resolves to {prompt, cached, tokens, first_ms, tokens_per_second, finish, promptIds}; a stop by `signal` is an answer
 * too (finish "stopped"). Throws what the server refuses.
 */
export async function answer(path, body, log, signal) {
  const chat = path.includes("chat");
  const wanted = chat ? { logprobs: true, top_logprobs: ALTERNATIVES } : { logprobs: ALTERNATIVES };
  const began = performance.now();
  const out = { prompt: null, cached: null, tokens: 0, first_ms: null, tokens_per_second: null, finish: null, promptIds: null };
  let last = began;
  try {
    for await (const event of stream(path, { ...body, ...wanted, return_token_ids: true, stream: true, stream_options: { include_usage: true } }, signal)) {
      const choice = event.choices?.[0];
      if (event.usage) {
        Object.assign(out, { prompt: event.usage.prompt_tokens, tokens: event.usage.completion_tokens, cached: event.usage.prompt_tokens_details?.cached_tokens ?? null });
      }
      if (!choice) continue;
      out.promptIds ??= choice.prompt_token_ids ?? null;
      out.finish = choice.finish_reason ?? out.finish;
      const tokens = tokensOf(choice) ?? [];
      if (tokens.length === 0) continue;
      last = performance.now();
      out.first_ms ??= last - began;
      log.push(...tokens);
    }
  } catch (error) {
    if (error.name !== "AbortError") throw error;
    out.finish = "stopped";
  }
  out.tokens ||= log.items.length;
  const writing = last - began - (out.first_ms ?? 0);
  if (out.tokens > 1 && writing > 0) out.tokens_per_second = ((out.tokens - 1) * 1000) / writing;
  return out;
}

/** "prompt 12 (8 cached) · answer 24 tokens · first after 31 ms · 80.2 tokens/s · ended by itself" */
export function summary(a) {
  const parts = [];
  if (a.prompt !== null) parts.push(`prompt ${a.prompt}`);
  if (a.cached) parts.push(`${a.cached} of it cached`);
  parts.push(`answer ${plural(a.tokens, "token")}`);
  if (a.first_ms !== null) parts.push(`first after ${Math.round(a.first_ms)} ms`);
  if (a.tokens_per_second !== null) parts.push(`${a.tokens_per_second.toFixed(1)} tokens/s`);
  parts.push(FINISH[a.finish] ?? a.finish ?? "");
  return parts.filter(Boolean).join(" · ");
}
