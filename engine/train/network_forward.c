// SPDX-License-Identifier: MIT
// The forward: the op list of engine/infer/transformer.c on the same row kernels, its products by OpenBLAS. R rows, C = n_embd, Q = NH HS,
// K = NKV HS, F = n_inner.
//
//     x = embedding [+ positions];  per layer:  x += out(attention(rope(qkv(norm1(x)))));  x += down(act(up(norm2(x))))
//
// A pass over rows adds the half layer's projection and norms the sum at once.
#include "engine/train/network_internal.h"

#include "base/clock.h"

#include <math.h>
#include <string.h>

// ---- rows ---------------------------------------------------------------------------------------------------------------

// Angles and their sines in f32, as the serving transformer computes them.
static void rope_angles(struct network *n, size_t row) {
    size_t half = n->shape.head_size / 2;
    float *cos = n->rope + row * 3 * half, *sin = cos + half, *back = sin + half;
    for (size_t i = 0; i < half; i++) {
        float angle = (float)n->positions[row] * n->rope_frequency[i];
        cos[i] = cosf(angle);
        sin[i] = sinf(angle);
        back[i] = -sin[i];
    }
}

static void embed_block(struct network *n, const void *ctx, size_t first, size_t end, float *partial) {
    const struct param_layer *y = &n->p->layers[0];
    for (size_t r = first; r < end; r++) {
        float *x = n->layers[0].x + r * n->C;
        memcpy(x, n->p->embedding->w + n->b->ids[r] * n->C, n->C * sizeof *x);
        if (n->p->positions) n->kernels->add(x, n->p->positions->w + n->positions[r] * n->C, n->C);
        if (n->training && n->c.dropout_embedding > 0) {
            struct dropout_row d = dropout_at(n, n->c.dropout_embedding, SITE_EMBEDDING, r);
            n->train->dropout(x, x, n->C, &d);
        }
        if (n->rope) rope_angles(n, r);
        norm_row(n, n->h + r * n->C, x, y->norm1_w, y->norm1_b);
    }
}

struct residual { // out = in + dropout(proj); h = norm(out)
    const float *in; // [R][C]
    float *out;      // [R][C], may be in
    size_t site;
    const struct param *w, *b; // the norm's; w NULL: none
};

static void residual_block(struct network *n, const void *ctx, size_t first, size_t end, float *partial) {
    const struct residual *a = ctx;
    for (size_t r = first; r < end; r++) {
        float *x = a->out + r * n->C, *proj = n->proj + r * n->C;
        if (a->out != a->in) memcpy(x, a->in + r * n->C, n->C * sizeof *x);
        if (n->training && n->c.dropout_residual > 0) {
            struct dropout_row d = dropout_at(n, n->c.dropout_residual, a->site, r);
            n->train->dropout(proj, proj, n->C, &d);
        }
        n->kernels->add(x, proj, n->C);
        if (a->w) norm_row(n, n->h + r * n->C, x, a->w, a->b);
    }
}

static void norm1_block(struct network *n, const void *ctx, size_t first, size_t end, float *partial) {
    const struct param_layer *y = &n->p->layers[*(const size_t *)ctx];
    const float *x = n->layers[*(const size_t *)ctx].x;
    for (size_t r = first; r < end; r++) norm_row(n, n->h + r * n->C, x + r * n->C, y->norm1_w, y->norm1_b);
}

static void rope_block(struct network *n, const void *ctx, size_t first, size_t end, float *partial) {
    const struct layer_arrays *a = ctx;
    size_t half = n->shape.head_size / 2;
    for (size_t r = first; r < end; r++) {
        const float *cos = n->rope + r * 3 * half, *sin = cos + half;
        n->kernels->rope(a->qkv + r * n->QKV, cos, sin, n->shape.n_head + n->shape.n_kv_head, n->shape.head_size); // k lies behind q
    }
}

static void act_block(struct network *n, const void *ctx, size_t first, size_t end, float *partial) {
    const struct layer_arrays *a = ctx;
    for (size_t r = first; r < end; r++) act_row(n, n->act + r * n->F, a->up + r * n->UP);
}

void act_row(const struct network *n, float *act, const float *up) {
    if (n->p->config.mlp == MLP_SWIGLU) n->kernels->swiglu(act, up, up + n->F, n->F);
    else n->kernels->gelu_tanh(act, up, n->F);
}

// ---- linear layers ------------------------------------------------------------------------------------------------------

struct lora_input {
    const float *x;
    size_t width, site;
};

static void lora_input_block(struct network *n, const void *ctx, size_t first, size_t end, float *partial) {
    const struct lora_input *i = ctx;
    for (size_t r = first; r < end; r++) {
        struct dropout_row d = dropout_at(n, n->c.dropout_lora, i->site, r);
        n->train->dropout(n->dropped + r * i->width, i->x + r * i->width, i->width, &d);
    }
}

const float *lora_input(struct network *n, const struct param_linear *l, size_t layer, size_t number, const float *x) {
    if (!n->training || !n->dropped) return x;
    struct lora_input in = {x, l->n_in, layer_site(n, layer, SITE_LORA + number)};
    for_blocks(n, lora_input_block, &in, n->b->n_rows, 0);
    return n->dropped;
}

// y += scale * (dropout(x) A^T) B^T; u = dropout(x) A^T is kept.
static void lora_forward(struct network *n, const struct param_linear *l, size_t layer, size_t number, const float *x, float *y, size_t ldy) {
    size_t R = n->b->n_rows, rank = l->lora.a->shape[0];
    float *u = n->layers[layer].u[number];
    gemm_run(&(struct gemm){.trans_b = true, .m = R, .n = rank, .k = l->n_in, .alpha = 1, .a = lora_input(n, l, layer, number, x), .lda = l->n_in,
                            .b = l->lora.a->w, .ldb = l->n_in, .c = u, .ldc = rank}, n->pool);
    gemm_run(&(struct gemm){.trans_b = true, .beta_one = true, .m = R, .n = l->n_out, .k = rank, .alpha = l->lora.scale, .a = u, .lda = rank,
                            .b = l->lora.b->w, .ldb = rank, .c = y, .ldc = ldy}, n->pool);
}

// Linear layers `number`, number + 1, ... side by side in y's columns. x: [R][n_in], contiguous.
static void linears_forward(struct network *n, const struct param_linear *l, size_t count, size_t layer, size_t number, const float *x, float *y,
                            size_t ldy) {
    for (size_t i = 0; i < count; y += l[i++].n_out) {
        gemm_run(&(struct gemm){.trans_b = !l[i].conv1d, .m = n->b->n_rows, .n = l[i].n_out, .k = l[i].n_in, .alpha = 1, .a = x, .lda = l[i].n_in,
                                .b = l[i].w->w, .ldb = l[i].conv1d ? l[i].n_out : l[i].n_in, .c = y, .ldc = ldy,
                                .bias = l[i].bias ? l[i].bias->w : NULL}, n->pool);
        if (l[i].lora.a) lora_forward(n, &l[i], layer, number + i, x, y, ldy);
    }
}

// ---- layers -------------------------------------------------------------------------------------------------------------

struct attention_arrays attention_of(const struct network *n, size_t layer) {
    const struct layer_arrays *a = &n->layers[layer];
    return (struct attention_arrays){a->qkv, a->qkv + n->Q, a->qkv + n->Q + n->K, n->QKV, a->att, a->lse};
}

struct attention_dropout attention_dropout_of(const struct network *n, size_t layer) {
    return (struct attention_dropout){.p = n->training ? n->c.dropout_attention : 0, .seed = n->c.dropout_seed,
                                      .site = (uint32_t)layer_site(n, layer, SITE_HEADS), .step = n->step, .first_row = (uint32_t)n->b->first_row};
}

// h = norm1(x) -> x_mid, up
static void layer_forward_kept(struct network *n, size_t layer) {
    const struct param_layer *y = &n->p->layers[layer];
    struct layer_arrays *a = &n->layers[layer];
    struct network_times *t = &n->times;
    uint64_t at = clock_ns();
    size_t R = n->b->n_rows;
    linears_forward(n, y->qkv, y->n_qkv, layer, LINEAR_QKV, n->h, a->qkv, n->QKV);       // qkv [R][Q + 2K]
    time_add(&t->linear_forward_ms, &at);
    if (n->rope) for_blocks(n, rope_block, a, R, 0);
    time_add(&t->rows_forward_ms, &at);
    struct attention_arrays arrays = attention_of(n, layer);
    struct attention_dropout dropout = attention_dropout_of(n, layer);
    attention_forward(&n->shape, &arrays, n->b, &dropout, n->train, n->attention_scratch, n->pool); // att [R][Q]
    time_add(&t->attention_forward_ms, &at);
    linears_forward(n, &y->out, 1, layer, LINEAR_OUT, a->att, n->proj, n->C);            // proj [R][C]
    time_add(&t->linear_forward_ms, &at);
    struct residual residual = {a->x, a->x_mid, layer_site(n, layer, SITE_ATTENTION), y->norm2_w, y->norm2_b};
    for_blocks(n, residual_block, &residual, R, 0);                                       // x_mid, h [R][C]
    time_add(&t->rows_forward_ms, &at);
    linears_forward(n, y->up, y->n_up, layer, LINEAR_UP, n->h, a->up, n->UP);            // up [R][F] or gate|up [R][2F]
    time_add(&t->linear_forward_ms, &at);
}

static void layer_forward(struct network *n, size_t layer) {
    const struct param_layer *y = &n->p->layers[layer];
    struct layer_arrays *a = &n->layers[layer];
    size_t R = n->b->n_rows;
    layer_forward_kept(n, layer);
    uint64_t at = clock_ns();
    for_blocks(n, act_block, a, R, 0);                                                    // act [R][F]
    time_add(&n->times.rows_forward_ms, &at);
    linears_forward(n, &y->down, 1, layer, LINEAR_DOWN, n->act, n->proj, n->C);           // proj [R][C]
    time_add(&n->times.linear_forward_ms, &at);
    struct residual residual = {a->x_mid, a[1].x, layer_site(n, layer, SITE_MLP), NULL, NULL};
    if (layer + 1 < n->L) residual.w = y[1].norm1_w, residual.b = y[1].norm1_b;
    for_blocks(n, residual_block, &residual, R, 0);                                       // the next layer's x and h
    time_add(&n->times.rows_forward_ms, &at);
}

void layer_recompute(struct network *n, size_t layer) {
    uint64_t at = clock_ns();
    for_blocks(n, norm1_block, &layer, n->b->n_rows, 0);
    time_add(&n->times.rows_forward_ms, &at);
    layer_forward_kept(n, layer);
}

void network_forward(struct network *n) {
    uint64_t at = clock_ns();
    for (size_t i = 0; i < n->b->n_segments; i++)
        for (size_t r = n->b->starts[i]; r < n->b->starts[i + 1]; r++) n->positions[r] = (uint32_t)r - n->b->starts[i];
    for_blocks(n, embed_block, NULL, n->b->n_rows, 0);                                    // x, h [R][C]
    time_add(&n->times.embed_ms, &at);
    for (size_t l = 0; l < n->L; l++) layer_forward(n, l);
}
