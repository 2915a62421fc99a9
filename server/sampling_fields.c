// SPDX-License-Identifier: MIT
// Sampling fields of a request -> struct sampling_params.
#include "server/sampling_fields.h"

#include "base/mem.h"

#include <stdlib.h>
#include <sys/random.h>

// clang-format off
#define ROW(...) FIELD_ROW(struct sampling_fields, __VA_ARGS__)
static const struct field stream_options_fields[] = {
    ROW(include_usage, FIELD_BOOLEAN, .default_text = "false", .doc = "One more chunk before the end, with usage and no choices."),
};
static const struct field_table stream_options_table = {"StreamOptions", stream_options_fields, ARRAY_LEN(stream_options_fields), NULL};

static const struct field sampling_fields[] = {
    ROW(model, FIELD_STRING, .max = 1024, .required = true, .doc = "Which served model answers."),
    ROW(temperature, FIELD_NUMBER, .min = 0, .max = 2, .default_text = "1",
        .doc = "0: the likeliest token, ties to the lowest id."),
    ROW(top_p, FIELD_NUMBER, .min = 0, .max = 1, .default_text = "1",
        .doc = "Sample from the likeliest tokens that hold this much probability; 1: off."),
    ROW(top_k, FIELD_INTEGER, .min = -1, .max = 1e9, .default_text = "0",
        .doc = "Sample from the k likeliest tokens; 0 or -1: off."),
    ROW(min_p, FIELD_NUMBER, .min = 0, .max = 1, .default_text = "0",
        .doc = "Drop tokens less likely than this share of the likeliest; 0: off."),
    ROW(typical_p, FIELD_NUMBER, .min = 0, .max = 1, .default_text = "1", .doc = "Locally typical sampling; 1: off."),
    ROW(repetition_penalty, FIELD_NUMBER, .min = 0.01, .max = 100, .default_text = "1",
        .doc = "Divides (multiplies, where negative) the logits of tokens of prompt and answer; 1: off."),
    ROW(presence_penalty, FIELD_NUMBER, .min = -2, .max = 2, .default_text = "0",
        .doc = "Subtracted once from the logits of generated tokens."),
    ROW(frequency_penalty, FIELD_NUMBER, .min = -2, .max = 2, .default_text = "0",
        .doc = "Subtracted from a generated token's logit, times its count."),
    ROW(logit_bias, FIELD_BIAS, .min = -100, .max = 100, .max_items = 300,
        .doc = "Added to the logits of these token ids; -100 bans, 100 all but forces."),
    ROW(stop, FIELD_STRINGS, .min = 1, .max = ENGINE_MAX_STOP_BYTES, .max_items = ENGINE_MAX_STOPS,
        .doc = "The text ends before the first of these; they are not part of it."),
    ROW(stop_token_ids, FIELD_IDS, .max_items = 256, .doc = "The text ends at any of these tokens."),
    ROW(min_tokens, FIELD_INTEGER, .min = 0, .max = 1e9, .default_text = "0",
        .doc = "Nothing ends the text before this many tokens."),
    ROW(ignore_eos, FIELD_BOOLEAN, .default_text = "false", .doc = "The model's own end tokens do not end the text."),
    ROW(seed, FIELD_INTEGER, .min = -9223372036854775808.0, .max = 9223372036854775808.0,
        .doc = "The same seed gives the same tokens, whatever else the server does. Absent: random."),
    ROW(n, FIELD_INTEGER, .min = 1, .max = 20, .default_text = "1", .doc = "How many choices for each prompt."),
    ROW(stream, FIELD_BOOLEAN, .default_text = "false", .doc = "Answer as server-sent events."),
    {.name = "stream_options", .kind = FIELD_OBJECT, .object = &stream_options_table, .doc = "Only with stream."},
    ROW(return_token_ids, FIELD_BOOLEAN, .default_text = "false",
        .doc = "Adds prompt_token_ids and token_ids to each choice, and to its logprobs the ids of what top_logprobs names (top_token_ids, "
               "in the order of top_logprobs) and each token's place in the whole vocabulary (token_ranks: 1 for the likeliest, ties by id). "
               "In a chat: id in every entry, and rank in each token's."),
    ROW(user, FIELD_STRING, .max = 1024, .doc = "The client's own name for its user; not used."),
};
// clang-format on
const struct field_table sampling_table = {"Sampling", sampling_fields, ARRAY_LEN(sampling_fields), NULL};

void random_bytes(void *out, size_t n) {
    if (getrandom(out, n, 0) != (ssize_t)n) abort(); // cannot happen for up to 256 bytes
}

static uint64_t mix64(uint64_t x) { // splitmix64's finaliser
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

uint64_t sampling_seed(const struct sampling_fields *f, size_t k) {
    uint64_t seed;
    if (f->seed == FIELD_ABSENT) random_bytes(&seed, sizeof seed);
    else seed = k == 0 ? (uint64_t)f->seed : mix64((uint64_t)f->seed + k * 0x9e3779b97f4a7c15u);
    return seed;
}

bool sampling_check_stream(struct http_request *r, const json_t *tree, const struct sampling_fields *f) {
    const json_t *options = json_object_get(tree, "stream_options");
    if (!options || json_is_null(options) || f->stream) return true;
    return request_fail(r, 400, "unsupported_parameter", "stream_options",
                        "'stream_options' is only allowed with 'stream'.");
}

static bool unknown_id(struct http_request *r, const char *name) {
    return request_fail(r, 400, "invalid_token_id", name,
                        "'%s' names a token id that the model's vocabulary does not have.", name);
}

static bool set_ids(struct http_request *r, const struct sampling_fields *f, size_t n_vocab,
                    struct sampling_params *out) {
    struct logit_bias *bias = arena_alloc(&r->arena, f->logit_bias.n + 1, sizeof *bias);
    for (size_t i = 0; i < f->logit_bias.n; i++) {
        if (f->logit_bias.items[i].id >= n_vocab) return unknown_id(r, "logit_bias");
        bias[i] = (struct logit_bias){f->logit_bias.items[i].id, f->logit_bias.items[i].bias};
    }
    for (size_t i = 0; i < f->stop_token_ids.n; i++)
        if (f->stop_token_ids.items[i] >= n_vocab) return unknown_id(r, "stop_token_ids");
    out->logit_bias = bias, out->n_logit_bias = f->logit_bias.n;
    out->stop_ids = f->stop_token_ids.items, out->n_stop_ids = f->stop_token_ids.n;
    return true;
}

// Before min_tokens no stop id may come: something else of the vocabulary must be left to come instead.
static bool leaves_tokens(struct http_request *r, const struct sampling_fields *f, size_t n_vocab) {
    const struct id_list *stop = &f->stop_token_ids;
    size_t own = 4, distinct = 0; // own: the most that a tokenizer has, tokenizer_stop_ids
    if (f->min_tokens == 0 || stop->n + own < n_vocab) return true;
    for (size_t i = 0, j; i < stop->n; i++) {
        for (j = 0; j < i && stop->items[j] != stop->items[i]; j++) {}
        distinct += j == i;
    }
    if (distinct + own < n_vocab) return true;
    return request_fail(r, 400, "value_out_of_range", "stop_token_ids",
                        "'stop_token_ids' leaves no token that could come before 'min_tokens'.");
}

bool sampling_params_set(struct http_request *r, const struct sampling_fields *f, size_t n_vocab,
                         struct sampling_params *out) {
    struct stop_string *stops = arena_alloc(&r->arena, f->stop.n + 1, sizeof *stops);
    for (size_t i = 0; i < f->stop.n; i++) stops[i] = (struct stop_string){f->stop.items[i].s, f->stop.items[i].len};
    *out = (struct sampling_params){
        .temperature = (float)f->temperature,
        .top_k = f->top_k > 0 ? (size_t)f->top_k : 0,
        .top_p = (float)f->top_p,
        .min_p = (float)f->min_p,
        .typical_p = (float)f->typical_p,
        .repetition_penalty = (float)f->repetition_penalty,
        .presence_penalty = (float)f->presence_penalty,
        .frequency_penalty = (float)f->frequency_penalty,
        .min_tokens = (size_t)f->min_tokens,
        .ignore_eos = f->ignore_eos,
        .stops = stops,
        .n_stops = f->stop.n,
        .n_logprobs = -1,
    };
    return set_ids(r, f, n_vocab, out) && leaves_tokens(r, f, n_vocab);
}
