// SPDX-License-Identifier: MIT
// POST /v1/completions. work parses, validates and tokenizes on the pool; generation.c does the rest on the loop.
#include "server/completions.h"
#include "server/routes.h"

static bool set_counts(struct generation *g, const struct completion_fields *f) {
    struct http_request *r = g->request;
    g->n = (size_t)f->sampling.n;
    g->best_of = f->best_of == FIELD_ABSENT ? g->n : (size_t)f->best_of;
    if (g->best_of < g->n)
        return request_fail(r, 400, "value_out_of_range", "best_of", "'best_of' must not be less than 'n'.");
    if (g->best_of > g->n && f->sampling.stream)
        return request_fail(r, 400, "unsupported_parameter", "best_of",
                            "'best_of' cannot be streamed: which text is the best is known at the end.");
    g->echo = f->echo;
    g->logprobs = f->logprobs != FIELD_ABSENT;
    g->params.n_logprobs = g->logprobs ? (int)f->logprobs : g->best_of > g->n ? 0 : -1;
    g->params.prompt_logprobs = g->echo && g->logprobs;
    return true;
}

static bool read_request(struct http_request *r, const json_t *tree, struct generation *g) {
    struct completion_fields f = {0};
    if (!fields_read(r, &completion_table, tree, &f) || !sampling_check_stream(r, tree, &f.sampling)) return false;
    if (!generation_init(g, r, &f.sampling, &completion_format)) return false;
    g->ignored = fields_ignored(r, &completion_table, tree);
    return sampling_params_set(r, &f.sampling, model_config(g->model)->n_vocab, &g->params) && set_counts(g, &f) &&
           completion_prompts_read(g, &f) && generation_prepare(g);
}

static bool completions_work(struct http_request *r) { return generation_work(r, read_request); }

const struct http_route completion_routes[] = {
    {"POST", "/v1/completions", SCOPE_INFER, completions_work, generation_start, generation_end,
     "Complete a text, or score it"},
    {0},
};
