// SPDX-License-Identifier: MIT
// Logits row -> token. A pure function of (row, params, token history, position, seed): same bits whatever the batch,
// the thread count or the machine. No allocation after create; one workspace a thread.
//
// Order of operations, fixed:
//   1. record: log-softmax of the raw row (the model's own distribution), where logprobs are asked for
//   2. logit_bias is added
//   3. repetition_penalty over prompt and generated tokens (HF: positive logits are divided, negative ones multiplied)
//   4. frequency_penalty x count and presence_penalty over generated tokens are subtracted
//   5. banned ids (min_tokens: the caller's list) are out, whatever 2-4 made of them
//   6. temperature 0: the largest logit, ties to the lowest id. Done.
//   7. weights exp((logit - largest) / temperature)
//   8. top_k: the k largest logits, ties to the lowest ids: never more than k
//   9. top_p: the fewest of what is left, largest first (ties: lowest id first), whose share of its weight is >= top_p
//  10. min_p: those at least min_p times as likely as the likeliest
//  11. typical_p: the fewest of what is left whose share is >= typical_p, nearest first to the entropy of what is left
//      (HF's typical decoding; ties: lowest id first)
//  12. draw: u = rng_uniform(seed, position), inverse of the cumulated weights in order of ids
// Shares in 9 and 11 are summed in fixed point, 40 bits below the largest weight: no order of summation can move a cut.
#pragma once

#include "engine/infer/engine.h"
#include "engine/infer/token_counts.h"

struct sampler; // the workspace

struct sampler *sampler_create(size_t n_vocab, struct err *err) MUST_CHECK; // the largest vocabulary it will see
void sampler_destroy(struct sampler *s);                                    // accepts NULL

struct sampler_input {
    const float *logits; // [n_vocab]
    size_t n_vocab;
    const struct sampling_params *params;
    const struct token_counts *counts; // NULL where sampler_needs_counts(params) is false
    const uint32_t *banned;            // ids that may not be drawn now
    size_t n_banned;
    uint64_t position; // index of this token among the generated ones: the random counter
};

bool sampler_needs_counts(const struct sampling_params *p);

// Fills *record (id, has_logprob, logprob, rank, n_top); record->top is the caller's and holds params->n_logprobs entries
// (untouched when there are none). False: a logit is not finite, or every token is banned; *record is then meaningless.
bool sampler_draw(struct sampler *s, const struct sampler_input *in, struct token_record *record) MUST_CHECK;

// The record of a given token under the row's own distribution (prompt scoring): logprob, rank if `ranked`, the n_top best.
// record->top holds n_top entries. n_top best: by logit, descending, ties by id; the chosen token's logprob is the same
// float as its entry's. False: a logit is not finite.
bool sampler_score(struct sampler *s, const float *logits, size_t n_vocab, uint32_t id, size_t n_top, bool ranked,
                   struct token_record *record) MUST_CHECK;
