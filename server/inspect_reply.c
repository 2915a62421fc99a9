// SPDX-License-Identifier: MIT
// The answer of POST /v1/inspect, and of `couplet inspect attention --json`. Any thread: it reads what the look left.
#include "server/inspection.h"

#include "base/mem.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static void add_shape(struct buf *out, const size_t *shape, int n_dims) {
    buf_add_str(out, "{\"shape\":[");
    for (int i = 0; i < n_dims; i++) buf_printf(out, i ? ",%zu" : "%zu", shape[i]);
    buf_add_byte(out, ']');
}

static size_t count_of(const size_t *shape, int n_dims) {
    size_t n = 1;
    for (int i = 0; i < n_dims; i++) n *= shape[i];
    return n;
}

// A second's work where there are millions of them: it ends with nobody waiting for it.
static void add_numbers(struct buf *out, const struct inspect_look *l, const float *data, size_t n) {
    const struct inspect_request *q = &l->request;
    buf_add_str(out, ",\"data\":[");
    for (size_t i = 0; i < n; i++) {
        if (i % 65536 == 0 && q->cancelled && q->cancelled(q->ctx)) break;
        if (i) buf_add_byte(out, ',');
        buf_add_float(out, data[i]);
    }
    buf_add_byte(out, ']');
}

static void add_bytes(struct buf *out, const float *data, size_t n) {
    unsigned char bytes[3 * 1024]; // a multiple of 3: pieces follow each other without padding
    buf_add_str(out, ",\"encoding\":\"uint8\",\"data\":\"");
    buf_reserve(out, n / 3 * 4 + 8);
    for (size_t at = 0; at < n; at += sizeof bytes) {
        size_t piece = MIN(sizeof bytes, n - at);
        for (size_t i = 0; i < piece; i++) bytes[i] = (unsigned char)(MIN(MAX(data[at + i], 0.0f), 1.0f) * 255 + 0.5f);
        buf_add_base64(out, bytes, piece);
    }
    buf_add_byte(out, '"');
}

// Without its closing brace.
static void open_array(struct buf *out, const struct inspect_look *l, const struct inspect_array *a, enum array_encoding encoding) {
    size_t n = count_of(a->shape, a->n_dims);
    add_shape(out, a->shape, a->n_dims);
    if (encoding == ENCODING_NUMBERS) {
        add_numbers(out, l, a->data, n);
    } else if (encoding == ENCODING_UINT8) {
        add_bytes(out, a->data, n);
    } else {
        buf_add_str(out, ",\"encoding\":\"float32\",\"data\":\"");
        buf_add_base64(out, a->data, n * sizeof *a->data); // little-endian, as every machine that couplet is built for
        buf_add_byte(out, '"');
    }
}

static void add_array(struct buf *out, const struct inspect_look *l, const char *name, const struct inspect_array *a, enum array_encoding encoding) {
    buf_printf(out, "\"%s\":", name);
    if (a->data) open_array(out, l, a, encoding);
    buf_add_str(out, a->data ? "}" : "null");
}

// ---- tokens ----

// What is no whole character reads U+FFFD.
static void add_text(struct buf *out, const struct tokenizer *t, uint32_t id) {
    char name[16];
    size_t len = 0;
    const char *bytes = name;
    if (t && id < tokenizer_size(t)) bytes = tokenizer_bytes(t, id, &len);
    else len = (size_t)snprintf(name, sizeof name, "<%u>", id);
    buf_add_json_string(out, bytes, len);
}

static void add_ids(struct buf *out, const struct model *m, const uint32_t *ids, size_t n) {
    const struct tokenizer *t = model_tokenizer(m);
    buf_add_str(out, "\"ids\":[");
    for (size_t i = 0; i < n; i++) buf_printf(out, i ? ",%u" : "%u", ids[i]);
    buf_add_str(out, "],\"texts\":[");
    for (size_t i = 0; i < n; i++) {
        if (i) buf_add_byte(out, ',');
        add_text(out, t, ids[i]);
    }
    buf_add_byte(out, ']');
}

static void add_best(struct buf *out, const struct model *m, const struct inspect_best *b, const char *values) {
    size_t n = count_of(b->shape, b->n_dims);
    add_shape(out, b->shape, b->n_dims);
    buf_add_byte(out, ',');
    add_ids(out, m, b->ids, n);
    buf_printf(out, ",\"%s\":[", values);
    for (size_t i = 0; i < n; i++) {
        if (i) buf_add_byte(out, ',');
        buf_add_float(out, b->values[i]);
    }
    buf_add_byte(out, ']');
}

// ---- the head of the answer ----

static void add_architecture(struct buf *out, const struct model *m) {
    const struct model_config *c = model_config(m);
    const bool rotary = c->position == POSITION_ROTARY;
    buf_printf(out,
               "{\"n_layer\":%zu,\"n_head\":%zu,\"n_kv_head\":%zu,\"n_embd\":%zu,\"head_size\":%zu,\"n_ctx\":%zu,\"n_vocab\":%zu,\"positions\":\"%s\","
               "\"rope_theta\":",
               c->n_layer, c->n_head, c->n_kv_head, c->n_embd, c->head_size, c->n_ctx, c->n_vocab, rotary ? "rotary" : "learned");
    buf_add_json_number(out, rotary ? c->rope_theta : NAN);
    buf_printf(out, ",\"norm\":\"%s\",\"mlp\":\"%s\"}", c->norm == NORM_RMSNORM ? "rmsnorm" : "layernorm", c->mlp == MLP_SWIGLU ? "swiglu" : "gelu");
}

static void add_index(struct buf *out, const char *name, int value) {
    if (value < 0) buf_printf(out, ",\"%s\":null", name);
    else buf_printf(out, ",\"%s\":%d", name, value);
}

static void add_head(struct buf *out, const struct inspect_look *l, float scale) {
    const struct inspect_request *q = &l->request;
    buf_add_str(out, "{\"object\":\"inspection\",\"model\":");
    if (l->model_id) buf_add_json_string(out, l->model_id, strlen(l->model_id));
    else buf_add_str(out, "null");
    buf_add_str(out, ",\"architecture\":");
    if (q->model) add_architecture(out, q->model);
    else buf_add_str(out, "null");
    add_index(out, "layer", q->layer);
    add_index(out, "head", q->head);
    buf_printf(out, ",\"mask\":\"%s\",\"positions\":\"%s\",\"dropout\":", q->no_mask ? "none" : "causal", q->no_positions ? "off" : "on");
    if (q->dropout.p > 0) {
        buf_add_str(out, "{\"p\":");
        buf_add_json_number(out, q->dropout.p);
        buf_printf(out, ",\"seed\":%llu}", (unsigned long long)q->dropout.seed);
    } else {
        buf_add_str(out, "null");
    }
    buf_add_str(out, ",\"ablate\":[");
    for (size_t i = 0; i < q->n_ablate; i++) buf_printf(out, i ? ",[%u,%u]" : "[%u,%u]", q->ablate[i].layer, q->ablate[i].head);
    buf_add_str(out, "],\"scale\":");
    buf_add_float(out, scale);
}

// ---- the whole ----

struct member {
    const char *name;
    const struct inspect_array *array;
};

static void add_group(struct buf *out, const struct inspect_look *l, const char *name, const struct member *members, size_t n, enum array_encoding encoding) {
    buf_printf(out, ",\"%s\":", name);
    for (size_t i = 0; i < n; i++) {
        buf_add_byte(out, i ? ',' : '{');
        add_array(out, l, members[i].name, members[i].array, encoding);
    }
    buf_add_byte(out, '}');
}

// The residual stream, and inside the object what is there of the block's parts.
static void add_block(struct buf *out, const struct inspect_look *l, const struct inspection *i, enum array_encoding encoding) {
    const struct member parts[] = {{"input", &i->input}, {"norm1", &i->norm1}, {"attention", &i->attention},
                                   {"norm2", &i->norm2}, {"mlp", &i->mlp},     {"final_norm", &i->final_norm}};
    buf_add_str(out, ",\"block\":");
    open_array(out, l, &i->block, encoding);
    for (size_t n = 0; n < ARRAY_LEN(parts); n++) {
        if (!parts[n].array->data) continue;
        buf_add_byte(out, ',');
        add_array(out, l, parts[n].name, parts[n].array, encoding);
    }
    buf_add_byte(out, '}');
}

static void add_arrays(struct buf *out, const struct inspect_look *l, const struct inspection *i) {
    const unsigned what = l->request.what;
    const enum array_encoding weights = l->encoding, other = weights == ENCODING_UINT8 ? ENCODING_FLOAT32 : weights;
    const struct member embeddings[] = {{"token", &i->token}, {"position", &i->position}, {"sum", &i->embedding}};
    const struct member qkv[] = {{"q", &i->q}, {"k", &i->k}, {"v", &i->v}};
    const struct member single[] = {{"scores", &i->scores}, {"weights", &i->weights}, {"context", &i->context}};
    const unsigned bits[] = {INSPECT_SCORES, INSPECT_WEIGHTS, INSPECT_CONTEXT};
    if (what & INSPECT_EMBEDDINGS) add_group(out, l, "embeddings", embeddings, ARRAY_LEN(embeddings), other);
    if (what & INSPECT_QKV) add_group(out, l, "qkv", qkv, ARRAY_LEN(qkv), other);
    for (size_t n = 0; n < ARRAY_LEN(single); n++) {
        if (!(what & bits[n])) continue;
        buf_add_byte(out, ',');
        add_array(out, l, single[n].name, single[n].array, bits[n] == INSPECT_WEIGHTS ? weights : other);
    }
    if (what & INSPECT_BLOCK) add_block(out, l, i, other);
}

void inspect_reply_write(const struct inspect_look *l, const struct inspection *i, const struct inspect_array *output, struct buf *out) {
    const struct inspect_request *q = &l->request;
    add_head(out, l, i->scale);
    if (q->model) {
        buf_add_str(out, ",\"tokens\":{");
        add_ids(out, q->model, q->ids, q->n_ids);
        buf_add_byte(out, '}');
    }
    add_arrays(out, l, i);
    if (q->what & INSPECT_LENS) {
        buf_add_str(out, ",\"lens\":");
        add_best(out, q->model, &i->lens, "probabilities");
        buf_printf(out, ",\"first_token\":%zu}", i->lens_first);
    }
    if (q->what & INSPECT_NEIGHBOURS) {
        buf_add_str(out, ",\"neighbours\":");
        add_best(out, q->model, &i->neighbours, "similarities");
        buf_add_byte(out, '}');
    }
    if (output) {
        buf_add_byte(out, ',');
        add_array(out, l, "output", output, l->encoding == ENCODING_UINT8 ? ENCODING_FLOAT32 : l->encoding);
    }
    buf_add_byte(out, '}');
}
