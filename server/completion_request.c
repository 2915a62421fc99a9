// SPDX-License-Identifier: MIT
// The request half of /v1/completions: field table, the four forms of `prompt`, parameters. Pool thread.
#include "server/completions.h"

#include "base/mem.h"
#include "base/utf8.h"
#include "tokenizer/text_stream.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// clang-format off
#define ROW(...) FIELD_ROW(struct completion_fields, __VA_ARGS__)
#define IDS_SCHEMA "{\"type\":\"array\",\"items\":{\"type\":\"integer\",\"minimum\":0}}"
static const struct field completion_fields[] = {
    ROW(prompt, FIELD_VALUE,
        .schema = "{\"oneOf\":[{\"type\":\"string\"},{\"type\":\"array\",\"items\":{\"type\":\"string\"}}," IDS_SCHEMA ","
                  "{\"type\":\"array\",\"items\":" IDS_SCHEMA "}],\"default\":\"<|endoftext|>\"}",
        .doc = "A string, token ids, or a list of either. Ids are taken as they are; an empty string is the end-of-text token."),
    ROW(max_tokens, FIELD_INTEGER, .min = 0, .max = 1e9,
        .doc = "Default 16, or what the context has left if that is less. 0 with echo scores the prompt."),
    ROW(best_of, FIELD_INTEGER, .min = 1, .max = 20,
        .doc = "Generate this many and answer the n with the highest mean log-probability. Not with stream."),
    ROW(logprobs, FIELD_INTEGER, .min = 0, .max = ENGINE_MAX_LOGPROBS,
        .doc = "Log-probabilities of the chosen tokens and of this many of the likeliest."),
    ROW(echo, FIELD_BOOLEAN, .default_text = "false",
        .doc = "The prompt is part of the answer, with its log-probabilities if those are asked for."),
    ROW(parse_special, FIELD_BOOLEAN, .default_text = "true",
        .doc = "Special tokens written in a string prompt become their ids, as in /tokenize; false: they are ordinary text."),
    ROW(add_special_tokens, FIELD_BOOLEAN, .default_text = "true",
        .doc = "A string prompt begins with the model's BOS token, if its tokenizer says so."),
    {.name = "suffix", .kind = FIELD_REFUSED, .doc = "The model cannot fill in the middle."},
};
// clang-format on
const struct field_table completion_table = {"CompletionRequest", completion_fields, ARRAY_LEN(completion_fields), &sampling_table};

// -- Prompts -----------------------------------------------------------------------------------------------------------------
static const uint32_t *ids_to_arena(struct http_request *r, struct ids *ids) {
    uint32_t *copy = arena_alloc(&r->arena, ids->len + 1, sizeof *copy);
    if (ids->len) memcpy(copy, ids->data, ids->len * sizeof *copy);
    ids_finish(ids);
    return copy;
}

// Byte offsets of tokens (ascending) -> indices of the code points they lie in.
static void bytes_to_chars(struct text text, const uint32_t *bytes, size_t n, uint32_t *chars) {
    size_t at = 0, count = 0;
    for (size_t i = 0; i < n; i++) {
        while (at < text.len) {
            uint32_t code_point;
            size_t len = utf8_decode(text.s + at, text.len - at, &code_point);
            if (at + len > bytes[i]) break;
            at += len, count++;
        }
        chars[i] = (uint32_t)count;
    }
}

bool prompt_add_stand_in(const struct tokenizer *t, struct ids *ids) {
    uint32_t id;
    if (tokenizer_find(t, "<|endoftext|>", 13, &id) && tokenizer_is_special(t, id)) ids_add(ids, id);
    else if (tokenizer_bos(t) >= 0) ids_add(ids, (uint32_t)tokenizer_bos(t));
    else if (tokenizer_eos(t) >= 0) ids_add(ids, (uint32_t)tokenizer_eos(t));
    return ids->len > 0;
}

bool prompt_from_text(struct http_request *r, const struct tokenizer *t, const char *param, struct text text,
                      bool add_bos, bool special, bool offsets, struct prompt *out) {
    if (!t)
        return request_fail(r, 400, "unsupported_parameter", param,
                            "The model has no tokenizer: '%s' must be given as token ids.", param);
    struct ids ids = {0}, starts = {0};
    if (add_bos && tokenizer_add_bos(t) && tokenizer_bos(t) >= 0) {
        ids_add(&ids, (uint32_t)tokenizer_bos(t));
        ids_add(&starts, 0);
    }
    if (offsets) tokenizer_encode_offsets(t, text.s, text.len, special, &ids, &starts);
    else tokenizer_encode(t, text.s, text.len, special, &ids);
    if (!ids.len) { // "", or bytes that the vocabulary lacks
        if (!prompt_add_stand_in(t, &ids))
            return request_fail(r, 400, "value_out_of_range", param, "'%s' has no tokens.", param);
        ids_add(&starts, 0);
    }
    size_t n = ids.len;
    *out = (struct prompt){.ids = ids_to_arena(r, &ids),
                           .n_ids = n,
                           .text = text.s,
                           .text_len = text.len,
                           .n_chars = utf8_count(text.s, text.len)};
    if (offsets) {
        uint32_t *chars = arena_alloc(&r->arena, n, sizeof *chars);
        bytes_to_chars(text, starts.data, n, chars);
        out->char_offset = chars;
    }
    ids_finish(&starts);
    return true;
}

// What the ids say, and where each begins in it.
static void describe_ids(struct generation *g, bool offsets, struct prompt *p) {
    struct buf text = {0};
    struct text_stream stream = {0};
    struct char_counter counter = {0};
    uint32_t *chars = offsets ? arena_alloc(&g->request->arena, p->n_ids, sizeof *chars) : NULL;
    for (size_t i = 0; i < p->n_ids; i++) {
        char name[16];
        size_t len = 0;
        const char *bytes = g->tokenizer && p->ids[i] < tokenizer_size(g->tokenizer)
                                ? tokenizer_bytes(g->tokenizer, p->ids[i], &len)
                                : NULL;
        if (!g->tokenizer) len = (size_t)snprintf(name, sizeof name, "<%u>", p->ids[i]), bytes = name;
        text_stream_add(&stream, bytes ? bytes : "", len, &text);
        size_t at = char_counter_add(&counter, bytes ? bytes : "", len);
        if (chars) chars[i] = (uint32_t)at;
    }
    text_stream_end(&stream, &text);
    p->text = arena_strndup(&g->request->arena, buf_str(&text), text.len);
    p->text_len = text.len;
    p->n_chars = utf8_count(p->text, p->text_len);
    p->char_offset = chars;
    buf_finish(&text);
}

bool prompt_ids_read(struct http_request *r, const char *param, const json_t *array, size_t n_vocab, struct id_list *out) {
    if (!id_list_read(r, param, array, out)) return false;
    if (!out->n) return request_fail(r, 400, "value_out_of_range", param, "'%s' has no tokens.", param);
    for (size_t i = 0; i < out->n; i++)
        if (out->items[i] >= n_vocab)
            return request_fail(r, 400, "invalid_token_id", param,
                                "'%s' holds an id that is not below %zu, the size of the vocabulary (entry %zu).",
                                param, n_vocab, i);
    return true;
}

static bool prompt_from_ids(struct generation *g, const struct completion_fields *f, const char *param,
                            const json_t *array, struct prompt *out) {
    struct id_list list;
    if (!prompt_ids_read(g->request, param, array, model_config(g->model)->n_vocab, &list)) return false;
    *out = (struct prompt){.ids = list.items, .n_ids = list.n};
    if (f->echo || f->logprobs != FIELD_ABSENT) describe_ids(g, f->echo && f->logprobs != FIELD_ABSENT, out);
    return true;
}

static bool prompt_read(struct generation *g, const struct completion_fields *f, const char *param, const json_t *v,
                        struct prompt *out) {
    struct http_request *r = g->request;
    if (json_is_array(v)) {
        if (!prompt_from_ids(g, f, param, v, out)) return false;
    } else if (json_is_string(v)) {
        bool offsets = f->echo && f->logprobs != FIELD_ABSENT;
        if (!prompt_from_text(r, g->tokenizer, param, text_copy(r, v), f->add_special_tokens, f->parse_special, offsets,
                              out))
            return false;
    } else {
        return request_fail(r, 400, "invalid_type", param, "'%s' must be a string or a list of token ids.", param);
    }
    return generation_check_length(g, param, out, f->max_tokens, 16);
}

bool completion_prompts_read(struct generation *g, const struct completion_fields *f) {
    struct http_request *r = g->request;
    const json_t *v = f->prompt;
    // [1, 2] is one prompt, ["a", "b"] and [[1], [2]] are two (a list may mix strings and lists of ids).
    bool many = json_is_array(v) && !json_is_number(json_array_get(v, 0));
    g->n_prompts = many ? json_array_size(v) : 1;
    if (g->n_prompts == 0) return request_fail(r, 400, "value_out_of_range", "prompt", "'prompt' is an empty list.");
    if (g->n_prompts > GENERATION_MAX_SEQUENCES)
        return request_fail(r, 400, "value_out_of_range", "prompt", "'prompt' may hold at most %d prompts.",
                            GENERATION_MAX_SEQUENCES);
    g->prompts = arena_alloc(&r->arena, g->n_prompts, sizeof *g->prompts);
    if (!v) {
        struct text empty = {"", 0};
        return prompt_from_text(r, g->tokenizer, "prompt", empty, f->add_special_tokens, f->parse_special, f->echo,
                                &g->prompts[0]) &&
               generation_check_length(g, "prompt", &g->prompts[0], f->max_tokens, 16);
    }
    for (size_t i = 0; i < g->n_prompts; i++) {
        char param[32] = "prompt";
        if (many) snprintf(param, sizeof param, "prompt[%zu]", i);
        if (!prompt_read(g, f, param, many ? json_array_get(v, i) : v, &g->prompts[i])) return false;
    }
    return true;
}
