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

extern const struct field_table stream_options_table; // offsets are those in struct sampling_fields, which comes first everywhere

#define SAMPLING_FIELD(name_, kind_, min_, max_, default_, doc_) \
    {.name = #name_, .kind = kind_, .offset = offsetof(struct sampling_fields, name_), .min = min_, .max = max_, .default_text = default_, .doc = doc_}

// Rows for a field table whose struct begins with a struct sampling_fields.
#define SAMPLING_FIELDS \
    {.name = "model", .kind = FIELD_STRING, .offset = offsetof(struct sampling_fields, model), .max = 1024, .required = true, .doc = "Which served model answers."}, \
    SAMPLING_FIELD(temperature, FIELD_NUMBER, 0, 2, "1", "0: the likeliest token, ties to the lowest id."), \
    SAMPLING_FIELD(top_p, FIELD_NUMBER, 0, 1, "1", "Sample from the likeliest tokens that hold this much probability; 1: off."), \
    SAMPLING_FIELD(top_k, FIELD_INTEGER, -1, 1e9, "0", "Sample from the k likeliest tokens; 0 or -1: off."), \
    SAMPLING_FIELD(min_p, FIELD_NUMBER, 0, 1, "0", "Drop tokens less likely than this share of the likeliest; 0: off."), \
    SAMPLING_FIELD(typical_p, FIELD_NUMBER, 0, 1, "1", "Locally typical sampling; 1: off."), \
    SAMPLING_FIELD(repetition_penalty, FIELD_NUMBER, 0.01, 100, "1", "Divides (multiplies, where negative) the logits of tokens of prompt and answer; 1: off."), \
    SAMPLING_FIELD(presence_penalty, FIELD_NUMBER, -2, 2, "0", "Subtracted once from the logits of generated tokens."), \
    SAMPLING_FIELD(frequency_penalty, FIELD_NUMBER, -2, 2, "0", "Subtracted from a generated token's logit, times its count."), \
    {.name = "logit_bias", .kind = FIELD_BIAS, .offset = offsetof(struct sampling_fields, logit_bias), .min = -100, .max = 100, .max_items = 300, \
     .doc = "Added to the logits of these token ids; -100 bans, 100 all but forces."}, \
    {.name = "stop", .kind = FIELD_STRINGS, .offset = offsetof(struct sampling_fields, stop), .min = 1, .max = ENGINE_MAX_STOP_BYTES, .max_items = ENGINE_MAX_STOPS, \
     .doc = "The text ends before the first of these; they are not part of it."}, \
    {.name = "stop_token_ids", .kind = FIELD_IDS, .offset = offsetof(struct sampling_fields, stop_token_ids), .max_items = 256, .doc = "The text ends at any of these tokens."}, \
    SAMPLING_FIELD(min_tokens, FIELD_INTEGER, 0, 1e9, "0", "Nothing ends the text before this many tokens."), \
    SAMPLING_FIELD(ignore_eos, FIELD_BOOLEAN, 0, 0, "false", "The model's own end tokens do not end the text."), \
    SAMPLING_FIELD(seed, FIELD_INTEGER, -9223372036854775808.0, 9223372036854775808.0, NULL, "The same seed gives the same tokens, whatever else the server does. Absent: random."), \
    SAMPLING_FIELD(n, FIELD_INTEGER, 1, 20, "1", "How many choices for each prompt."), \
    SAMPLING_FIELD(stream, FIELD_BOOLEAN, 0, 0, "false", "Answer as server-sent events."), \
    {.name = "stream_options", .kind = FIELD_OBJECT, .object = &stream_options_table, .doc = "Only with stream."}, \
    SAMPLING_FIELD(return_token_ids, FIELD_BOOLEAN, 0, 0, "false", "Adds prompt_token_ids and token_ids to each choice."), \
    {.name = "user", .kind = FIELD_STRING, .offset = offsetof(struct sampling_fields, user), .max = 1024, .doc = "The client's own name for its user; not used."}

// Limits that several fields decide together.
enum {
    GENERATION_MAX_SEQUENCES = 256,         // prompts x max(n, best_of)
    GENERATION_MAX_TOKENS = 1 << 20,        // prompt and generated ones of all sequences
    GENERATION_MAX_LOGPROBS = 2 * (1 << 20), // numbers a reply may have to hold
};

// Everything but max_tokens and the logprob fields. Checks the ids against the vocabulary. Arrays lie in r->arena.
bool sampling_params_set(struct http_request *r, const struct sampling_fields *f, size_t n_vocab, struct sampling_params *out) MUST_CHECK;

// stream_options only with stream.
bool sampling_check_stream(struct http_request *r, const json_t *tree, const struct sampling_fields *f) MUST_CHECK;

// The seed of the k-th choice of a prompt. With a seed given, choice 0 is what the prompt alone would give.
uint64_t sampling_seed(const struct sampling_fields *f, size_t k);

void random_bytes(void *out, size_t n);
