// SPDX-License-Identifier: MIT
// From named tensors to packed slots. The only place that knows which checkpoint name feeds which slot.
//
// Precision: `auto` keeps what the file has, block for block; the packed values are exactly what `dequantize` gives (kernels.h K3).
#include "engine/infer/weights.h"

#include "base/mem.h"
#include "engine/model/tensor.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- one matrix ---------------------------------------------------------------------------------------------------

struct pack_job {
    struct packed *w;
    struct linear_view view;
    bool quantize; // PACK_Q8 made here from f32 values
    float *rows;   // [threads][rows_each][n_in] scratch; NULL: blocks are copied as they are
    size_t rows_each;
};

static void block_from_q8_0(const unsigned char *src, struct pack_block *b) {
    uint16_t d;
    memcpy(&d, src, 2);
    b->scale = f16_to_f32(d);
    memcpy(b->q, src + 2, 32);
}

static void block_from_q4(const unsigned char *src, bool has_minimum, struct pack_block *b) {
    uint16_t d, m;
    memcpy(&d, src, 2);
    b->scale = f16_to_f32(d);
    b->minimum = -8 * b->scale; // Q4_0: d * (q - 8)
    if (has_minimum) {
        memcpy(&m, src + 2, 2);
        b->minimum = f16_to_f32(m);
    }
    const unsigned char *q = src + (has_minimum ? 4 : 2);
    for (size_t k = 0; k < 16; k++) {
        b->q[k] = (int8_t)(q[k] & 15);
        b->q[k + 16] = (int8_t)(q[k] >> 4);
    }
}

// Sixteenth `i` of a Q6_K super-block of 256: ql[128] low nibbles, qh[64] high pairs of bits, 16 int8 scales, f16 d.
static void block_from_q6_k(const unsigned char *src, size_t i, struct pack_block *b) {
    const unsigned char *ql = src + i / 8 * 64, *qh = src + 128 + i / 8 * 32;
    size_t quarter = i % 8 / 2, half = i % 2 * 16; // which 32 of the 128, which 16 of the 32
    uint16_t d;
    memcpy(&d, src + 208, 2);
    b->scale = f16_to_f32(d) * (float)(int8_t)src[192 + i];
    for (size_t k = 0; k < 16; k++) {
        size_t l = half + k;
        unsigned low = ql[l + quarter % 2 * 32] >> (quarter / 2 * 4) & 15, high = qh[l] >> (2 * quarter) & 3;
        b->q[k] = (int8_t)((int)(low | high << 4) - 32);
    }
}

static void pack_blocks(const struct pack_job *job, size_t output) {
    const unsigned char *src = linear_view_blocks(&job->view, output);
    enum dtype type = job->view.t->type;
    size_t step = pack_block(job->w->type), n = job->w->n_in / step, bytes = dtype_block_bytes(type);
    for (size_t i = 0; i < n; i++) {
        struct pack_block b = {0};
        switch (type) {
        case DTYPE_Q8_0: block_from_q8_0(src + i * bytes, &b); break;
        case DTYPE_Q4_0: block_from_q4(src + i * bytes, false, &b); break;
        case DTYPE_Q4_1: block_from_q4(src + i * bytes, true, &b); break;
        default: block_from_q6_k(src + i / 16 * bytes, i % 16, &b);
        }
        pack_block_put(job->w, output, i, &b);
    }
}

static bool type_is_quantized(enum dtype t) { return dtype_block(t) > 1; }

static void pack_one_panel(void *ctx, size_t panel) {
    const struct pack_job *job = ctx;
    size_t first = panel * PANEL, n = MIN((size_t)PANEL, job->w->n_out - first);
    if (!job->rows) {
        for (size_t o = first; o < first + n; o++) pack_blocks(job, o);
        return;
    }
    float *rows = job->rows + pool_self() * job->rows_each * job->w->n_in; // [n][n_in]
    linear_view_expand(&job->view, first, n, rows);
    if (job->quantize) pack_panel_quantize(job->w, panel, rows, n);
    else pack_panel_f32(job->w, panel, rows, n);
}

static bool scratch_alloc(struct pack_job *job, struct pool *pool, struct err *err) {
    if (pack_block(job->w->type) > 1 && !job->quantize) return true;
    size_t rows, floats;
    job->rows_each = MIN((size_t)PANEL, job->w->n_out);
    if (!size_mul(job->rows_each, pool_threads(pool), &rows) || !size_mul(rows, job->w->n_in, &floats))
        return err_set(err, ERR_NO_MEMORY, "a panel of %zu inputs is too large for memory", job->w->n_in);
    job->rows = mem_try_alloc(floats, sizeof *job->rows, "packing weights", err);
    return job->rows != NULL;
}

// Q4_0's minimum -8 d must fit the panel's f16: true of every real file; others are expanded.
static bool q4_0_fits(const struct linear_view *v) {
    size_t blocks = v->n_in / 32;
    for (size_t o = 0; o < v->n_out; o++) {
        const unsigned char *src = linear_view_blocks(v, o);
        for (size_t i = 0; i < blocks; i++) {
            uint16_t d;
            memcpy(&d, src + i * dtype_block_bytes(DTYPE_Q4_0), 2);
            if (!(fabsf(f16_to_f32(d)) <= 8188.0f)) return false;
        }
    }
    return true;
}

static enum pack_type choose_type(const struct linear_view *v, enum weights_mode mode, bool *quantize) {
    enum dtype t = v->t->type;
    *quantize = false;
    if (mode == WEIGHTS_F32) return PACK_F32;
    if (type_is_quantized(t) && linear_view_contiguous(v)) {
        if (t == DTYPE_Q8_0) return PACK_Q8;
        if (t == DTYPE_Q4_1 || (t == DTYPE_Q4_0 && q4_0_fits(v))) return PACK_Q4;
        if (t == DTYPE_Q6_K) return PACK_Q8S;
    }
    if (mode == WEIGHTS_Q8 && v->n_in % 32 == 0) {
        *quantize = true;
        return PACK_Q8;
    }
    return t == DTYPE_F16 ? PACK_F16 : t == DTYPE_BF16 ? PACK_BF16 : PACK_F32;
}

// ---- loading ------------------------------------------------------------------------------------------------------

struct loader {
    struct weights *w;
    const struct model_file *file;
    enum weights_mode mode;
    struct pool *pool;
    size_t bytes_of[PACK_TYPES]; // of the layers' matrices
    size_t bytes_max;
    struct err *err;
};

static bool load_matrix(struct loader *l, struct packed *w, const char *name, size_t n_out, size_t n_in, bool conv1d, const float *bias) {
    struct pack_job job = {.w = w};
    const struct tensor *t = model_file_require(l->file, name, conv1d ? n_in : n_out, conv1d ? n_out : n_in, l->err);
    if (!t) return false;
    job.view = (struct linear_view){.t = t, .conv1d = conv1d, .n_out = n_out, .n_in = n_in};
    enum pack_type type = choose_type(&job.view, l->mode, &job.quantize);
    if (!packed_init(w, type, n_out, n_in, bias != NULL, l->err) || !scratch_alloc(&job, l->pool, l->err)) return err_prefix(l->err, "%s", name);
    if (bias) memcpy((float *)(uintptr_t)w->bias, bias, n_out * sizeof *bias);
    l->w->bytes += packed_bytes(w);
    bool bounded = l->w->bytes <= l->bytes_max;
    if (bounded) pool_run(l->pool, pack_one_panel, &job, w->n_panels);
    free(job.rows);
    if (!bounded) return err_set(l->err, ERR_TOO_LARGE, "the model's matrices are so narrow that they take over four times their file");
    l->bytes_of[type] += packed_bytes(w);
    return true;
}

static bool load_vector(struct loader *l, const float **out, const char *name, size_t n) {
    const struct tensor *t = model_file_require(l->file, name, n, 0, l->err);
    if (!t) return false;
    float *v = arena_alloc(&l->w->arena, n, sizeof *v);
    tensor_vector(t, v);
    *out = v;
    return true;
}

// Adds a part of `n_out` columns called `name` ("….weight" and, if `bias`, "….bias").
static bool load_part(struct loader *l, struct linear *linear, const char *name, size_t n_out, size_t n_in, bool conv1d, bool bias) {
    const float *b = NULL;
    char *weight = arena_printf(&l->w->arena, "%s.weight", name);
    if (bias && !load_vector(l, &b, arena_printf(&l->w->arena, "%s.bias", name), n_out)) return false;
    struct linear_part *p = &linear->parts[linear->n_parts];
    if (!load_matrix(l, &p->w, weight, n_out, n_in, conv1d, b)) return false;
    p->name = arena_strndup(&l->w->arena, name, strlen(name));
    p->column = linear->n_out;
    linear->n_parts++;
    linear->n_in = n_in;
    linear->n_out += n_out;
    return true;
}

static bool load_gpt2_layer(struct loader *l, struct layer_weights *y, size_t i) {
    const struct model_config *c = l->w->config;
    size_t C = c->n_embd;
    struct arena *a = &l->w->arena;
    const char *at = arena_printf(a, "transformer.h.%zu", i);
    return load_vector(l, &y->norm1_w, arena_printf(a, "%s.ln_1.weight", at), C) &&
           load_vector(l, &y->norm1_b, arena_printf(a, "%s.ln_1.bias", at), C) &&
           load_part(l, &y->qkv, arena_printf(a, "%s.attn.c_attn", at), 3 * C, C, true, c->qkv_bias) &&
           load_part(l, &y->out, arena_printf(a, "%s.attn.c_proj", at), C, C, true, c->attn_bias) &&
           load_vector(l, &y->norm2_w, arena_printf(a, "%s.ln_2.weight", at), C) &&
           load_vector(l, &y->norm2_b, arena_printf(a, "%s.ln_2.bias", at), C) &&
           load_part(l, &y->up, arena_printf(a, "%s.mlp.c_fc", at), c->n_inner, C, true, c->mlp_bias) &&
           load_part(l, &y->down, arena_printf(a, "%s.mlp.c_proj", at), C, c->n_inner, true, c->mlp_bias);
}

static bool load_llama_layer(struct loader *l, struct layer_weights *y, size_t i) {
    const struct model_config *c = l->w->config;
    size_t C = c->n_embd, Q = c->n_head * c->head_size, KV = c->n_kv_head * c->head_size, F = c->n_inner;
    struct arena *a = &l->w->arena;
    const char *at = arena_printf(a, "model.layers.%zu", i);
    return load_vector(l, &y->norm1_w, arena_printf(a, "%s.input_layernorm.weight", at), C) &&
           load_part(l, &y->qkv, arena_printf(a, "%s.self_attn.q_proj", at), Q, C, false, c->attn_bias) &&
           load_part(l, &y->qkv, arena_printf(a, "%s.self_attn.k_proj", at), KV, C, false, c->attn_bias) &&
           load_part(l, &y->qkv, arena_printf(a, "%s.self_attn.v_proj", at), KV, C, false, c->attn_bias) &&
           load_part(l, &y->out, arena_printf(a, "%s.self_attn.o_proj", at), C, Q, false, c->attn_bias) &&
           load_vector(l, &y->norm2_w, arena_printf(a, "%s.post_attention_layernorm.weight", at), C) &&
           load_part(l, &y->up, arena_printf(a, "%s.mlp.gate_proj", at), F, C, false, c->mlp_bias) &&
           load_part(l, &y->up, arena_printf(a, "%s.mlp.up_proj", at), F, C, false, c->mlp_bias) &&
           load_part(l, &y->down, arena_printf(a, "%s.mlp.down_proj", at), C, F, false, c->mlp_bias);
}

static bool load_positions(struct loader *l) {
    struct weights *w = l->w;
    const struct model_config *c = w->config;
    const struct tensor *t = model_file_require(l->file, "transformer.wpe.weight", c->n_ctx, c->n_embd, l->err);
    if (!t) return false;
    w->positions = mem_try_alloc(c->n_ctx * c->n_embd, sizeof(float), "position embeddings", l->err);
    if (!w->positions) return false;
    for (size_t p = 0; p < c->n_ctx; p++) tensor_row(t, p, w->positions + p * c->n_embd);
    return true;
}

// No table over positions: the context length is a number that nothing in the file pays for.
static bool load_rope(struct loader *l) {
    float *frequency = arena_alloc(&l->w->arena, l->w->config->head_size / 2, sizeof *frequency);
    model_config_rope_frequencies(l->w->config, frequency);
    l->w->rope_frequency = frequency;
    return true;
}

enum { LAYER_LINEARS = 4 };

size_t weights_linears(const struct weights *w) { return w->config->n_layer * LAYER_LINEARS + 1; }

const struct linear *weights_linear(const struct weights *w, size_t index) {
    if (index == w->config->n_layer * LAYER_LINEARS) return &w->head;
    const struct layer_weights *y = &w->layers[index / LAYER_LINEARS];
    return (const struct linear *const[]){&y->qkv, &y->out, &y->up, &y->down}[index % LAYER_LINEARS];
}

static void linears_number(struct weights *w) {
    for (size_t i = 0; i < w->config->n_layer; i++) {
        struct layer_weights *y = &w->layers[i];
        struct linear *linears[LAYER_LINEARS] = {&y->qkv, &y->out, &y->up, &y->down};
        for (size_t k = 0; k < LAYER_LINEARS; k++) linears[k]->index = i * LAYER_LINEARS + k;
    }
    w->head.index = w->config->n_layer * LAYER_LINEARS;
}

static bool load_all(struct loader *l) {
    struct weights *w = l->w;
    const struct model_config *c = w->config;
    bool gpt2 = c->arch == ARCH_GPT2;
    const char *embedding = gpt2 ? "transformer.wte.weight" : "model.embed_tokens.weight";
    w->embedding = model_file_require(l->file, embedding, c->n_vocab, c->n_embd, l->err);
    if (!w->embedding) return false;
    if (!(c->position == POSITION_LEARNED ? load_positions(l) : load_rope(l))) return false;
    w->layers = mem_try_alloc(c->n_layer, sizeof *w->layers, "the layers", l->err);
    if (!w->layers) return false;
    for (size_t i = 0; i < c->n_layer; i++)
        if (!(gpt2 ? load_gpt2_layer(l, &w->layers[i], i) : load_llama_layer(l, &w->layers[i], i))) return false;
    for (int t = 0; t < PACK_TYPES; t++) {
        if (l->bytes_of[t] > l->bytes_of[w->main_type]) w->main_type = (enum pack_type)t;
        w->mixed |= l->bytes_of[t] && l->bytes_of[t] != w->bytes;
    }
    if (!load_vector(l, &w->norm_w, gpt2 ? "transformer.ln_f.weight" : "model.norm.weight", c->n_embd)) return false;
    if (gpt2 && !load_vector(l, &w->norm_b, "transformer.ln_f.bias", c->n_embd)) return false;
    struct linear_part *head = &w->head.parts[0];
    head->name = c->tied_head ? embedding : "lm_head";
    w->head.n_parts = 1;
    w->head.n_in = c->n_embd;
    w->head.n_out = c->n_vocab;
    return load_matrix(l, &head->w, c->tied_head ? embedding : "lm_head.weight", c->n_vocab, c->n_embd, false, NULL);
}

// What a file may make us allocate: a panel is PANEL outputs wide whatever the matrix, so that one output costs as much as 32.
static size_t bytes_bound(const struct model_file *file) {
    size_t bytes = (size_t)64 << 20;
    for (size_t i = 0; i < model_file_tensor_count(file); i++) bytes += 4 * model_file_tensor_at(file, i)->n_bytes;
    return bytes;
}

bool weights_load(struct weights *w, const struct model_file *file, enum weights_mode mode, struct pool *pool, struct err *err) {
    *w = (struct weights){.config = model_file_config(file)};
    struct loader l = {.w = w, .file = file, .mode = mode, .pool = pool, .bytes_max = SIZE_MAX, .err = err};
    if (mode == WEIGHTS_AUTO) l.bytes_max = bytes_bound(file); // the others are asked for in spite of what they cost
    if (load_all(&l)) {
        linears_number(w);
        return true;
    }
    weights_finish(w);
    return false;
}

static void linear_finish(struct linear *l) {
    for (size_t i = 0; i < ARRAY_LEN(l->parts); i++) packed_finish(&l->parts[i].w);
}

void weights_finish(struct weights *w) {
    for (size_t i = 0; w->layers && i < w->config->n_layer; i++) {
        struct layer_weights *y = &w->layers[i];
        linear_finish(&y->qkv);
        linear_finish(&y->out);
        linear_finish(&y->up);
        linear_finish(&y->down);
    }
    linear_finish(&w->head);
    free(w->layers);
    free(w->positions);
    arena_finish(&w->arena);
    *w = (struct weights){0};
}
