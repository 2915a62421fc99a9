// SPDX-License-Identifier: MIT
// The request half of POST /v1/inspect: its fields, and what of them fits the model. Pool thread.
#include "server/inspection.h"

#include "base/mem.h"
#include "server/completions.h"
#include "server/request_model.h"

#include <stdio.h>
#include <string.h>

// clang-format off
#define ROW(...) FIELD_ROW(struct inspect_fields, __VA_ARGS__)
#define ROW_SCHEMA "{\"type\":\"array\",\"items\":{\"type\":\"number\"}}"
#define MATRIX_SCHEMA "{\"type\":\"array\",\"items\":" ROW_SCHEMA "}"
#define HEADS_SCHEMA "{\"oneOf\":[" MATRIX_SCHEMA ",{\"type\":\"array\",\"items\":" MATRIX_SCHEMA "}]}"
static const struct field dropout_fields[] = {
    ROW(p, FIELD_NUMBER, .min = 0, .max = 1, .default_text = "0", .required = true, .doc = "The share of weights that are dropped; below 1."),
    ROW(seed, FIELD_INTEGER, .min = 0, .max = 9223372036854775808.0, .default_text = "0",
        .doc = "The same weights are dropped as after torch.manual_seed of it."),
};
static const struct field_table dropout_table = {"InspectDropout", dropout_fields, ARRAY_LEN(dropout_fields), NULL};

static const struct field matrices_fields[] = {
    ROW(inputs, FIELD_VALUE, .schema = MATRIX_SCHEMA, .required = true, .doc = "A row a token; at most 512 rows of 1024."),
    ROW(W_q, FIELD_VALUE, .schema = HEADS_SCHEMA,
        .doc = "inputs x W_q are the queries; a list of matrices is one a head. With W_k and W_v, or absent: the inputs themselves, not scaled."),
    ROW(W_k, FIELD_VALUE, .schema = HEADS_SCHEMA, .doc = "Keys; of W_q's shape."),
    ROW(W_v, FIELD_VALUE, .schema = HEADS_SCHEMA, .doc = "Values; of W_q's shape."),
    ROW(n_head, FIELD_INTEGER, .min = 1, .max = INSPECT_MAX_HEADS, .doc = "Heads among which W_q's columns are divided."),
    ROW(W_o, FIELD_VALUE, .schema = MATRIX_SCHEMA, .doc = "What the heads' outputs, side by side, are multiplied with."),
    ROW(b_o, FIELD_VALUE, .schema = ROW_SCHEMA, .doc = "And what is added to them; with W_o."),
};
static const struct field_table matrices_table = {"InspectMatrices", matrices_fields, ARRAY_LEN(matrices_fields), NULL};

static const struct field inspect_fields[] = {
    ROW(model, FIELD_STRING, .max = 1024, .doc = "Which served model is looked into; required with prompt."),
    ROW(prompt, FIELD_VALUE, .schema = "{\"oneOf\":[{\"type\":\"string\"},{\"type\":\"array\",\"items\":{\"type\":\"integer\",\"minimum\":0}}]}",
        .doc = "A text, as /v1/completions reads it, or token ids; this or matrices."),
    {.name = "matrices", .kind = FIELD_OBJECT, .object = &matrices_table, .doc = "Attention over given vectors, without a model."},
    ROW(what, FIELD_STRINGS, .min = 1, .max = 32, .max_items = 16, .choices = "tokens|embeddings|qkv|scores|weights|context|block|lens|neighbours",
        .doc = "What is shown. Absent: tokens; of matrices: scores, weights and context."),
    ROW(layer, FIELD_INTEGER, .min = 0, .max = 1e6, .doc = "Of this layer alone. Absent: all."),
    ROW(head, FIELD_INTEGER, .min = 0, .max = 1e6, .doc = "Of this query head alone. Absent: all."),
    ROW(mask, FIELD_STRING, .max = 16, .choices = "causal|none", .default_text = "\"causal\"", .doc = "none: tokens attend to what follows them too."),
    ROW(positions, FIELD_STRING, .max = 16, .choices = "on|off", .default_text = "\"on\"", .doc = "off: without learned positions, or without the rotation."),
    {.name = "dropout", .kind = FIELD_OBJECT, .object = &dropout_table, .doc = "Dropout of the attention weights, as torch does it."},
    ROW(ablate, FIELD_VALUE,
        .schema = "{\"type\":\"array\",\"items\":{\"type\":\"array\",\"items\":{\"type\":\"integer\",\"minimum\":0},"
                  "\"minItems\":2,\"maxItems\":2},\"maxItems\":1024}",
        .doc = "[layer, head] pairs: heads that give nothing to their block."),
    ROW(top_k, FIELD_INTEGER, .min = 1, .max = INSPECT_MAX_BEST, .default_text = "5", .doc = "How many tokens lens and neighbours name."),
    ROW(lens_tokens, FIELD_INTEGER, .min = 0, .max = 1e9, .default_text = "16", .doc = "The lens looks at the last so many tokens; 0: at all."),
    ROW(encoding, FIELD_STRING, .max = 16, .choices = "numbers|float32|uint8", .default_text = "\"numbers\"",
        .doc = "Of arrays: lists of numbers, or base64 of little-endian floats; uint8: weights as bytes, 255 for 1, other arrays as float32."),
};
// clang-format on
const struct field_table inspect_table = {"InspectRequest", inspect_fields, ARRAY_LEN(inspect_fields), NULL};

static bool text_is(struct text t, const char *s) { return t.s && strcmp(t.s, s) == 0; }

enum {
    OF_HEADS = INSPECT_QKV | INSPECT_SCORES | INSPECT_WEIGHTS | INSPECT_CONTEXT,
    TOKENS = 0, // always there
};

static unsigned what_read(const struct inspect_fields *f, unsigned absent) {
    static const struct {
        const char *name;
        unsigned what;
    } names[] = {{"tokens", TOKENS},          {"embeddings", INSPECT_EMBEDDINGS}, {"qkv", INSPECT_QKV},
                 {"scores", INSPECT_SCORES},  {"weights", INSPECT_WEIGHTS},       {"context", INSPECT_CONTEXT},
                 {"block", INSPECT_BLOCK},    {"lens", INSPECT_LENS},             {"neighbours", INSPECT_NEIGHBOURS}};
    unsigned what = 0;
    for (size_t i = 0; i < f->what.n; i++)
        for (size_t k = 0; k < ARRAY_LEN(names); k++)
            if (text_is(f->what.items[i], names[k].name)) what |= names[k].what;
    return f->what.n ? what : absent;
}

// ---- with a model ----

static bool prompt_read(struct http_request *r, const struct inspect_fields *f, struct inspect_request *out) {
    const struct model_config *c = model_config(out->model);
    if (json_is_array(f->prompt)) {
        struct id_list list;
        if (!prompt_ids_read(r, "prompt", f->prompt, c->n_vocab, &list)) return false;
        out->ids = list.items, out->n_ids = list.n;
    } else if (json_is_string(f->prompt)) {
        struct prompt prompt;
        if (!prompt_from_text(r, model_tokenizer(out->model), "prompt", text_copy(r, f->prompt), true, true, false, &prompt)) return false;
        out->ids = prompt.ids, out->n_ids = prompt.n_ids;
    } else {
        return request_fail(r, 400, "invalid_type", "prompt", "'prompt' must be a string or a list of token ids.");
    }
    size_t most = MIN(c->n_ctx, r->server->config.max_inspect_tokens);
    if (out->n_ids > most)
        return request_fail(r, 400, "context_length_exceeded", "prompt", "'prompt' has %zu tokens; %zu can be looked at.", out->n_ids, most);
    return true;
}

static bool index_read(struct http_request *r, const char *name, int64_t value, size_t n, int *out) {
    *out = value == FIELD_ABSENT ? -1 : (int)value;
    return value < (int64_t)n || request_fail(r, 400, "value_out_of_range", name, "'%s' must be below %zu, the model's number of them.", name, n);
}

static bool pair_read(struct http_request *r, const json_t *v, size_t i, const struct model_config *c, struct head_place *out) {
    char param[32];
    snprintf(param, sizeof param, "ablate[%zu]", i);
    const json_t *layer = json_array_get(v, 0), *head = json_array_get(v, 1);
    if (json_array_size(v) != 2 || !json_is_integer(layer) || !json_is_integer(head))
        return request_fail(r, 400, "invalid_type", param, "'%s' must be a pair of integers: layer and head.", param);
    json_int_t l = json_integer_value(layer), h = json_integer_value(head);
    if (l < 0 || (size_t)l >= c->n_layer || h < 0 || (size_t)h >= c->n_head)
        return request_fail(r, 400, "value_out_of_range", param, "'%s' must name a layer below %zu and a head below %zu.", param, c->n_layer, c->n_head);
    *out = (struct head_place){(uint32_t)l, (uint32_t)h};
    return true;
}

static bool ablate_read(struct http_request *r, const json_t *list, struct inspect_request *out) {
    size_t n = json_array_size(list);
    if (list && !json_is_array(list)) return request_fail(r, 400, "invalid_type", "ablate", "'ablate' must be a list of [layer, head] pairs.");
    if (n > INSPECT_MAX_ABLATED)
        return request_fail(r, 400, "value_out_of_range", "ablate", "'ablate' may have at most %d entries.", INSPECT_MAX_ABLATED);
    struct head_place *places = arena_alloc(&r->arena, n + 1, sizeof *places);
    for (size_t i = 0; i < n; i++)
        if (!pair_read(r, json_array_get(list, i), i, model_config(out->model), &places[i])) return false;
    out->ablate = places, out->n_ablate = n;
    return true;
}

static bool model_request_read(struct http_request *r, const struct inspect_fields *f, struct inspect_request *out) {
    const struct model_config *c = model_config(out->model);
    out->what = what_read(f, TOKENS);
    out->no_positions = text_is(f->positions, "off");
    out->n_best = (size_t)f->top_k;
    out->lens_rows = (size_t)f->lens_tokens;
    size_t threads = r->server->config.threads;
    out->n_threads = threads ? threads : pool_cpu_count();
    if (f->head != FIELD_ABSENT && !(out->what & OF_HEADS))
        return request_fail(r, 400, "unsupported_parameter", "head", "'head' chooses among qkv, scores, weights and context; 'what' names none of them.");
    return index_read(r, "layer", f->layer, c->n_layer, &out->layer) && index_read(r, "head", f->head, c->n_head, &out->head) &&
           ablate_read(r, f->ablate, out) && prompt_read(r, f, out);
}

// ---- with matrices ----

static bool matrices_read(struct http_request *r, const struct inspect_fields *f, struct inspect_look *out) {
    const struct {
        const char *name;
        bool given;
    } of_models[] = {{"layer", f->layer != FIELD_ABSENT}, {"head", f->head != FIELD_ABSENT}, {"ablate", f->ablate != NULL},
                     {"positions", text_is(f->positions, "off")}};
    for (size_t i = 0; i < ARRAY_LEN(of_models); i++)
        if (of_models[i].given)
            return request_fail(r, 400, "unsupported_parameter", of_models[i].name, "'%s' is a model's: it cannot stand beside 'matrices'.", of_models[i].name);
    for (size_t i = 0; i < f->what.n; i++)
        if (text_is(f->what.items[i], "tokens"))
            return request_fail(r, 400, "unsupported_parameter", "what", "'what' names tokens, which need a model: 'matrices' have none.");
    out->request.what = what_read(f, INSPECT_SCORES | INSPECT_WEIGHTS | INSPECT_CONTEXT);
    if (out->request.what & ~(unsigned)OF_HEADS)
        return request_fail(r, 400, "unsupported_parameter", "what", "Of 'matrices' there are qkv, scores, weights and context; the rest needs a model.");
    out->request.layer = out->request.head = -1;
    out->matrices.no_mask = out->request.no_mask;
    out->matrices.dropout = out->request.dropout;
    out->matrices.max_bytes = INSPECT_MAX_BYTES;
    return inspect_matrices_read(r, f, &out->matrices);
}

bool inspect_look_read(struct http_request *r, const json_t *tree, struct inspect_look *out) {
    struct inspect_fields f = {0};
    if (!fields_read(r, &inspect_table, tree, &f)) return false;
    if (!f.prompt == !f.inputs)
        return request_fail(r, 400, f.prompt ? "unsupported_parameter" : "missing_required_parameter", "prompt",
                            "Exactly one of 'prompt' and 'matrices' is required.");
    if (f.p >= 1) return request_fail(r, 400, "value_out_of_range", "dropout.p", "'dropout.p' must be below 1.");
    out->encoding = text_is(f.encoding, "uint8") ? ENCODING_UINT8 : text_is(f.encoding, "float32") ? ENCODING_FLOAT32 : ENCODING_NUMBERS;
    out->request = (struct inspect_request){.no_mask = text_is(f.mask, "none"), .dropout = {f.p, (uint64_t)f.seed}, .max_bytes = INSPECT_MAX_BYTES};
    if (f.inputs) return matrices_read(r, &f, out);
    if (!f.model.len) return request_fail(r, 400, "missing_required_parameter", "model", "'model' is required.");
    out->model_id = f.model.s;
    struct model *m = out->request.model = request_model(r, f.model);
    if (m && model_request_read(r, &f, &out->request)) return true;
    model_release(m);
    return false;
}
