// SPDX-License-Identifier: MIT
// The request fields that /v1/completions and /v1/chat/completions share, and their way into the engine's parameters.
// Thread: pool (route->work).
#pragma once

#include "engine/infer/engine.h"
#include "server/fields.h"

struct sampling_fields {
    struct text model, user;
    double temperature, top_p, min_p, typical_p, repetition_penalty, presence_penalty, frequency_penalty;
    int64_t top_k, seed, min_tokens, n;
    bool ignore_eos, stream, include_usage, return_token_ids;
    struct texts stop;
    struct id_list stop_token_ids;
    struct bias_list logit_bias;
};

// The `common` of the routes' tables: their structs begin with a struct sampling_fields.
extern const struct field_table sampling_table;

// Limits that several fields decide together.
enum {
    GENERATION_MAX_SEQUENCES = 256,          // prompts x max(n, best_of)
    GENERATION_MAX_TOKENS = 1 << 20,         // prompt and generated ones of all sequences
    GENERATION_MAX_LOGPROBS = 2 * (1 << 20), // numbers a reply may have to hold
};

// Everything but max_tokens and the logprob fields. Checks the ids against the vocabulary. Arrays lie in r->arena.
bool sampling_params_set(struct http_request *r, const struct sampling_fields *f, size_t n_vocab,
                         struct sampling_params *out) MUST_CHECK;

// stream_options only with stream.
bool sampling_check_stream(struct http_request *r, const json_t *tree, const struct sampling_fields *f) MUST_CHECK;

// The seed of the k-th choice of a prompt. With a seed given, choice 0 is what the prompt alone would give.
uint64_t sampling_seed(const struct sampling_fields *f, size_t k);

void random_bytes(void *out, size_t n);
