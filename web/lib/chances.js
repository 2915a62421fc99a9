// SPDX-License-Identifier: MIT
// How likely each alternative of a token was to be drawn with the settings of its answer, as far as that can be told from the few that are known.
// The order of the steps is the server's: bias, temperature, top k, top p, min p.

const SURE = 0.02; // what is not known of the tokens that are not listed may change a chance by so much, as a share of it
const NAMES = ["temperature", "top_k", "top_p", "min_p", "typical_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "min_tokens",
  "logit_bias"];

/** What of a request decides how its tokens are drawn. */
export const drawnBy = (body) => Object.fromEntries(NAMES.filter((name) => body[name] !== undefined).map((name) => [name, body[name]]));

const sumOf = (xs) => xs.reduce((a, b) => a + b, 0);

/** How many of the weights, largest first, make the share top_p of all, which weigh from `least` to `most`; NaN where that decides. */
function shareOf(weights, top_p, least, most) {
  let upTo = 0;
  for (let n = 0; n < weights.length; n++) {
    if (upTo < top_p * most && upTo >= top_p * least) return NaN;
    upTo += weights[n];
    if (upTo >= top_p * most) return n + 1;
  }
  return NaN;
}

/** For each of `top` (likeliest first) its chance, undefined where nothing is known; null where too little is known for all. */
export function chances(top, by) {
  const { temperature, top_k = 0, top_p = 1, min_p = 0, typical_p = 1, repetition_penalty = 1, presence_penalty = 0, frequency_penalty = 0,
    min_tokens = 0, logit_bias = {} } = by ?? {};
  const free = top.filter((one) => !one.beyond && !(one.id in logit_bias));
  const others = typical_p < 1 || repetition_penalty !== 1 || presence_penalty || frequency_penalty || min_tokens; // change what is not known here
  if (temperature === undefined || others || free.length === 0) return null;
  const best = free[0].logprob, least = free.at(-1).logprob;
  let weights = free.map((one) => (temperature > 0 ? Math.exp((one.logprob - best) / temperature) : Number(one === free[0])));
  let known = 0, rest = 0; // what all others weigh, and what they may weigh beyond it: none is likelier than the last one here
  if (top_k > 0 && top_k <= weights.length) {
    weights = weights.slice(0, top_k);
  } else if (temperature > 0 && !(top_p >= 1 && min_p > weights.at(-1))) {
    const left = Math.max(0, 1 - sumOf(top.map((one) => (one.beyond ? 0 : Math.exp(one.logprob))))),
      listed = Object.keys(logit_bias).every((id) => top.some((one) => one.id === Number(id)));
    if (temperature === 1 && top_k === 0 && min_p === 0 && listed) known = left * Math.exp(-best);
    else rest = temperature <= 1 ? left * Math.exp((least - best) / temperature - least) : Infinity;
  }
  if (top_p < 1) {
    const all = sumOf(weights) + known, n = shareOf(weights, top_p, all, all + rest);
    if (!n) return null;
    weights = weights.slice(0, n);
    known = rest = 0;
  }
  weights = weights.filter((w) => w >= min_p);
  const sum = sumOf(weights) + known + rest / 2;
  if (!(rest < SURE * sum)) return null;
  return top.map((one) => (one.id in logit_bias ? 0 : one.beyond ? undefined : (weights[free.indexOf(one)] ?? 0) / sum));
}
