// SPDX-License-Identifier: MIT
// POST /v1/chat/completions. work parses, validates and tokenizes on the pool; generation.c does the rest on the loop.
#include "server/chat.h"
#include "server/routes.h"

#include <string.h>

static bool check_response_format(struct http_request *r, const json_t *v) {
    if (!v) return true;
    const json_t *type = json_object_get(v, "type");
    if (!json_is_string(type))
        return request_fail(r, 400, "invalid_type", "response_format",
                            "'response_format' must be an object with a 'type'.");
    if (strcmp(json_string_value(type), "text") == 0) return true;
    return request_fail(r, 400, "unsupported_parameter", "response_format.type",
                        "Only the response format 'text' is supported.");
}

static bool set_counts(struct generation *g, const struct chat_fields *f) {
    if (f->top_logprobs != FIELD_ABSENT && f->top_logprobs > 0 && !f->logprobs)
        return request_fail(g->request, 400, "unsupported_parameter", "top_logprobs",
                            "'top_logprobs' is only allowed with 'logprobs'.");
    g->n = g->best_of = (size_t)f->sampling.n;
    g->logprobs = f->logprobs;
    g->params.n_logprobs = !f->logprobs ? -1 : f->top_logprobs == FIELD_ABSENT ? 0 : (int)f->top_logprobs;
    return true;
}

static bool read_prompt(struct generation *g, const struct chat_fields *f) {
    struct http_request *r = g->request;
    struct ids ids = {0};
    bool ok = chat_messages_encode(r, g->tokenizer, f->messages, true, &ids);
    if (ok) {
        uint32_t *copy = arena_alloc(&r->arena, ids.len + 1, sizeof *copy);
        if (ids.len) memcpy(copy, ids.data, ids.len * sizeof *copy);
        g->prompts = arena_alloc(&r->arena, 1, sizeof *g->prompts);
        g->prompts[0] = (struct prompt){.ids = copy, .n_ids = ids.len, .text = ""};
        g->n_prompts = 1;
    }
    ids_finish(&ids);
    if (ok && !g->prompts[0].n_ids)
        return request_fail(r, 400, "value_out_of_range", "messages", "'messages' have no tokens.");
    int64_t limit = f->max_completion_tokens != FIELD_ABSENT ? f->max_completion_tokens : f->max_tokens;
    return ok && generation_check_length(g, "messages", &g->prompts[0], limit, SIZE_MAX);
}

static bool read_request(struct http_request *r, const json_t *tree, struct generation *g) {
    struct chat_fields f = {0};
    if (!fields_read(r, &chat_table, tree, &f) || !sampling_check_stream(r, tree, &f.sampling) ||
        !check_response_format(r, f.response_format))
        return false;
    if (!generation_init(g, r, &f.sampling, &chat_format)) return false;
    g->ignored = fields_ignored(r, &chat_table, tree);
    return sampling_params_set(r, &f.sampling, model_config(g->model)->n_vocab, &g->params) && set_counts(g, &f) &&
           read_prompt(g, &f) && generation_prepare(g);
}

static bool chat_work(struct http_request *r) { return generation_work(r, read_request); }

const struct http_route chat_routes[] = {
    {"POST", "/v1/chat/completions", SCOPE_INFER, chat_work, generation_start, generation_end, "Answer a conversation"},
    {0},
};
