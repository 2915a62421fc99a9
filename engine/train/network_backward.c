// SPDX-License-Identifier: MIT
// The forward's op list reversed. dx [R][C] is the gradient of the residual stream all the way down: each half layer adds to it.
//
// What a weight's gradient needs and the forward did not keep (the norms' outputs, the mlp's activation, dropout's decisions) is computed again.
// Nothing is computed for weights that stay: no products for frozen matrices, nothing below the lowest trained layer.
#include "engine/train/network_internal.h"

#include "base/clock.h"
#include "base/mem.h"

#include <string.h>

// ---- linear layers ------------------------------------------------------------------------------------------------------

// Gradients of W and of LoRA's factors; du = scale * dy B stays for dx.
static void linear_weights_backward(struct network *n, const struct param_linear *l, size_t layer, size_t number, const float *x,
                                    const float *dy, size_t lddy, float *du) {
    size_t R = n->b->n_rows;
    if (param_trained(l->w)) { // y = x W: dW = x^T dy, in W's own layout
        struct gemm g = {.trans_a = true, .beta_one = !n->fresh, .m = l->n_in, .n = l->n_out, .k = R, .alpha = 1, .a = x, .lda = l->n_in,
                         .b = dy, .ldb = lddy, .c = l->w->grad, .ldc = l->n_out};
        if (!l->conv1d) {
            g.m = l->n_out, g.n = g.ldc = l->n_in;
            g.a = dy, g.lda = lddy, g.b = x, g.ldb = l->n_in;
        }
        gemm_run(&g, n->pool);
    }
    if (!l->lora.a) return;
    size_t rank = l->lora.a->shape[0]; // y = scale * u B^T, u = x A^T
    gemm_run(&(struct gemm){.m = R, .n = rank, .k = l->n_out, .alpha = l->lora.scale, .a = dy, .lda = lddy, .b = l->lora.b->w, .ldb = rank,
                            .c = du, .ldc = rank}, n->pool);
    gemm_run(&(struct gemm){.trans_a = true, .beta_one = !n->fresh, .m = l->n_out, .n = rank, .k = R, .alpha = l->lora.scale, .a = dy, .lda = lddy,
                            .b = n->layers[layer].u[number], .ldb = rank, .c = l->lora.b->grad, .ldc = rank}, n->pool);
    gemm_run(&(struct gemm){.trans_a = true, .beta_one = !n->fresh, .m = rank, .n = l->n_in, .k = R, .alpha = 1, .a = du, .lda = rank,
                            .b = lora_input(n, l, layer, number, x), .ldb = l->n_in, .c = l->lora.a->grad, .ldc = l->n_in}, n->pool);
}

struct lora_gradient {
    float *dx;
    size_t width, site;
};

static void lora_dropout_block(struct network *n, const void *ctx, size_t first, size_t end, float *partial) {
    const struct lora_gradient *g = ctx;
    for (size_t r = first; r < end; r++) {
        float *d = n->dropped + r * g->width;
        struct dropout_row row = dropout_at(n, n->c.dropout_lora, g->site, r);
        n->train->dropout(d, d, g->width, &row);
        n->kernels->add(g->dx + r * g->width, d, g->width);
    }
}

// dx += dropout(du A)
static void lora_input_backward(struct network *n, const struct param_linear *l, size_t layer, size_t number, const float *du, float *dx) {
    size_t rank = l->lora.a->shape[0];
    float *to = n->dropped ? n->dropped : dx;
    gemm_run(&(struct gemm){.beta_one = to == dx, .m = n->b->n_rows, .n = l->n_in, .k = rank, .alpha = 1, .a = du, .lda = rank,
                            .b = l->lora.a->w, .ldb = l->n_in, .c = to, .ldc = l->n_in}, n->pool);
    struct lora_gradient g = {dx, l->n_in, layer_site(n, layer, SITE_LORA + number)};
    if (to != dx) for_blocks(n, lora_dropout_block, &g, n->b->n_rows, 0);
}

static float *lora_du(const struct network *n, const struct param_linear *l, size_t i) {
    return l->lora.a ? n->du + i * n->b->n_rows * l->lora.a->shape[0] : NULL;
}

// linears_forward reversed; biases apart, which the passes over rows sum. dx NULL: not wanted; it may be x's memory.
static void linears_backward(struct network *n, const struct param_linear *l, size_t count, size_t layer, size_t number, const float *x,
                             const float *dy, size_t lddy, float *dx) {
    uint64_t at = clock_ns();
    size_t R = n->b->n_rows;
    const float *dy_i = dy;
    for (size_t i = 0; i < count; dy_i += l[i++].n_out)
        linear_weights_backward(n, &l[i], layer, number + i, x, dy_i, lddy, lora_du(n, &l[i], i));
    dy_i = dy;
    for (size_t i = 0; dx && i < count; dy_i += l[i++].n_out) {
        gemm_run(&(struct gemm){.trans_b = l[i].conv1d, .beta_one = i > 0, .m = R, .n = l[i].n_in, .k = l[i].n_out, .alpha = 1, .a = dy_i, .lda = lddy,
                                .b = l[i].w->w, .ldb = l[i].conv1d ? l[i].n_out : l[i].n_in, .c = dx, .ldc = l[i].n_in}, n->pool);
        if (l[i].lora.a) lora_input_backward(n, &l[i], layer, number + i, lora_du(n, &l[i], i), dx);
    }
    time_add(&n->times.linear_backward_ms, &at);
}

// Whether some layer's weight or factor needs its input again.
static bool input_wanted(const struct param_linear *l, size_t count) {
    bool wanted = false;
    for (size_t i = 0; i < count; i++) wanted |= param_trained(l[i].w) || param_trained(l[i].lora.a);
    return wanted;
}

static void biases_reduce(struct network *n, const struct param_linear *l, size_t count) {
    for (size_t i = 0, column = 0; i < count; column += l[i++].n_out) blocks_reduce(n, l[i].bias, n->b->n_rows, column, n->fresh);
}

// ---- rows ---------------------------------------------------------------------------------------------------------------

void norm_row_backward(const struct network *n, float *dx, float *dw, float *db, const float *dy, const float *x, const struct param *w) {
    const struct model_config *c = &n->p->config;
    if (c->norm == NORM_LAYERNORM) n->train->layernorm_backward(dx, dw, db, dy, x, w->w, n->C, c->norm_eps);
    else n->train->rmsnorm_backward(dx, dw, dy, x, w->w, n->C, c->norm_eps);
}

struct layer_pass {
    size_t layer;
    const struct param_layer *y;
    const struct layer_arrays *a;
    bool input; // the linear layer's input is to be computed again
};

// The gradient of a half layer's projection, behind its dropout; its sum over rows is the projection's bias gradient.
static const float *projection_gradient(struct network *n, const struct layer_pass *l, size_t in_layer, size_t r, float *sum) {
    float *d = n->dx + r * n->C;
    if (n->c.dropout_residual > 0) {
        struct dropout_row row = dropout_at(n, n->c.dropout_residual, layer_site(n, l->layer, in_layer), r);
        float *proj = n->proj + r * n->C;
        n->train->dropout(proj, d, n->C, &row);
        d = proj;
    }
    if (sum) n->kernels->add(sum, d, n->C);
    return d;
}

static void down_block(struct network *n, const void *ctx, size_t first, size_t end, float *partial) {
    const struct layer_pass *l = ctx;
    for (size_t r = first; r < end; r++) {
        projection_gradient(n, l, SITE_MLP, r, partial);
        if (l->input) act_row(n, n->act + r * n->F, l->a->up + r * n->UP);
    }
}

static void act_backward_block(struct network *n, const void *ctx, size_t first, size_t end, float *partial) {
    const struct layer_pass *l = ctx;
    for (size_t r = first; r < end; r++) {
        const float *up = l->a->up + r * n->UP, *dact = n->act + r * n->F;
        float *dup = n->dup + r * n->UP;
        if (n->p->config.mlp == MLP_SWIGLU) n->train->swiglu_backward(dup, dup + n->F, dact, up, up + n->F, n->F);
        else n->train->gelu_tanh_backward(dup, dact, up, n->F);
        if (partial) n->kernels->add(partial, dup, n->UP);
        if (l->input) norm_row(n, n->h + r * n->C, l->a->x_mid + r * n->C, l->y->norm2_w, l->y->norm2_b);
    }
}

// h holds the gradient of norm2's output. partial: dw, db, then the sum for the bias of `out`.
static void norm2_block(struct network *n, const void *ctx, size_t first, size_t end, float *partial) {
    const struct layer_pass *l = ctx;
    bool w = param_trained(l->y->norm2_w), b = param_trained(l->y->norm2_b), bias = param_trained(l->y->out.bias);
    for (size_t r = first; r < end; r++) {
        norm_row_backward(n, n->dx + r * n->C, w ? partial : NULL, b ? partial + n->C : NULL, n->h + r * n->C, l->a->x_mid + r * n->C, l->y->norm2_w);
        projection_gradient(n, l, SITE_ATTENTION, r, bias ? partial + 2 * n->C : NULL);
    }
}

static void qkv_block(struct network *n, const void *ctx, size_t first, size_t end, float *partial) {
    const struct layer_pass *l = ctx;
    size_t half = n->shape.head_size / 2;
    for (size_t r = first; r < end; r++) {
        float *dqkv = n->dqkv + r * n->QKV;
        const float *rope = n->rope + r * 3 * half;
        if (n->rope) n->kernels->rope(dqkv, rope, rope + 2 * half, n->shape.n_head + n->shape.n_kv_head, n->shape.head_size);
        if (partial) n->kernels->add(partial, dqkv, n->QKV);
        if (l->input) norm_row(n, n->h + r * n->C, l->a->x + r * n->C, l->y->norm1_w, l->y->norm1_b);
    }
}

static void norm1_block(struct network *n, const void *ctx, size_t first, size_t end, float *partial) {
    const struct layer_pass *l = ctx;
    bool w = param_trained(l->y->norm1_w), b = param_trained(l->y->norm1_b);
    for (size_t r = first; r < end; r++)
        norm_row_backward(n, n->dx + r * n->C, w ? partial : NULL, b ? partial + n->C : NULL, n->h + r * n->C, l->a->x + r * n->C, l->y->norm1_w);
}

// ---- layers -------------------------------------------------------------------------------------------------------------

static bool any_bias_trained(const struct param_linear *l, size_t count) {
    bool trained = false;
    for (size_t i = 0; i < count; i++) trained |= param_trained(l[i].bias);
    return trained;
}

// dx of the layer's output -> dx of x_mid; n->proj or n->dx then holds the gradient of out's y.
static void mlp_backward(struct network *n, struct layer_pass *l) {
    const struct param_layer *y = l->y;
    size_t R = n->b->n_rows, C = n->C;
    const float *dproj = n->c.dropout_residual > 0 ? n->proj : n->dx;
    uint64_t at = clock_ns();
    l->input = input_wanted(&y->down, 1);
    for_blocks(n, down_block, l, R, param_trained(y->down.bias) ? C : 0);
    biases_reduce(n, &y->down, 1);
    time_add(&n->times.rows_backward_ms, &at);
    linears_backward(n, &y->down, 1, l->layer, LINEAR_DOWN, n->act, dproj, C, n->act);      // act -> dact [R][F]
    at = clock_ns();
    l->input = input_wanted(y->up, y->n_up);
    for_blocks(n, act_backward_block, l, R, any_bias_trained(y->up, y->n_up) ? n->UP : 0); // dup [R][UP]; h = norm2(x_mid)
    biases_reduce(n, y->up, y->n_up);
    time_add(&n->times.rows_backward_ms, &at);
    linears_backward(n, y->up, y->n_up, l->layer, LINEAR_UP, n->h, n->dup, n->UP, n->h);    // h -> dh [R][C]
    at = clock_ns();
    for_blocks(n, norm2_block, l, R, 3 * C);                                                 // dx += norm2's
    blocks_reduce(n, y->norm2_w, R, 0, n->fresh);
    blocks_reduce(n, y->norm2_b, R, C, n->fresh);
    blocks_reduce(n, y->out.bias, R, 2 * C, n->fresh);
    time_add(&n->times.rows_backward_ms, &at);
}

// dx of x_mid -> dx of x
static void attention_half_backward(struct network *n, struct layer_pass *l, bool below) {
    const struct param_layer *y = l->y;
    size_t R = n->b->n_rows;
    const float *dproj = n->c.dropout_residual > 0 ? n->proj : n->dx;
    linears_backward(n, &y->out, 1, l->layer, LINEAR_OUT, l->a->att, dproj, n->C, n->datt);          // datt [R][Q]
    uint64_t at = clock_ns();
    struct attention_arrays arrays = attention_of(n, l->layer);
    struct attention_dropout dropout = attention_dropout_of(n, l->layer);
    struct attention_gradients gradients = {n->datt, n->dqkv, n->dqkv + n->Q, n->dqkv + n->Q + n->K};
    attention_backward(&n->shape, &arrays, &gradients, n->b, &dropout, n->train, n->attention_scratch, n->pool); // dqkv [R][Q + 2K]
    time_add(&n->times.attention_backward_ms, &at);
    l->input = input_wanted(y->qkv, y->n_qkv);
    for_blocks(n, qkv_block, l, R, any_bias_trained(y->qkv, y->n_qkv) ? n->QKV : 0);                  // rotated back; h = norm1(x)
    biases_reduce(n, y->qkv, y->n_qkv);
    time_add(&n->times.rows_backward_ms, &at);
    bool deeper = below || param_trained(y->norm1_w);
    linears_backward(n, y->qkv, y->n_qkv, l->layer, LINEAR_QKV, n->h, n->dqkv, n->QKV, deeper ? n->h : NULL); // h -> dh [R][C]
    if (!deeper) return;
    at = clock_ns();
    for_blocks(n, norm1_block, l, R, 2 * n->C);                                                        // dx += norm1's
    blocks_reduce(n, y->norm1_w, R, 0, n->fresh);
    blocks_reduce(n, y->norm1_b, R, n->C, n->fresh);
    time_add(&n->times.rows_backward_ms, &at);
}

static void layer_backward(struct network *n, size_t layer) {
    const struct param_layer *y = &n->p->layers[layer];
    struct layer_pass l = {.layer = layer, .y = y, .a = &n->layers[layer]};
    bool below = layer > n->lowest || n->stem_trained, attention = below || param_trained(y->norm1_w) || linear_trained(&y->out);
    for (size_t i = 0; i < y->n_qkv; i++) attention |= linear_trained(&y->qkv[i]);
    if (n->c.recompute && layer + 1 < n->L) layer_recompute(n, layer); // the last one's are still there
    mlp_backward(n, &l);
    if (attention) attention_half_backward(n, &l, below);
}

// ---- embedding ----------------------------------------------------------------------------------------------------------

static void embedding_dropout_block(struct network *n, const void *ctx, size_t first, size_t end, float *partial) {
    for (size_t r = first; r < end; r++) {
        struct dropout_row d = dropout_at(n, n->c.dropout_embedding, SITE_EMBEDDING, r);
        n->train->dropout(n->dx + r * n->C, n->dx + r * n->C, n->C, &d);
    }
}

enum { SCATTER_COLUMNS = 64, ZERO_FLOATS = 1 << 18 };

static void zero_part(void *ctx, size_t part) {
    const struct param *p = ctx;
    size_t at = part * ZERO_FLOATS;
    memset(p->grad + at, 0, MIN((size_t)ZERO_FLOATS, p->n - at) * sizeof *p->grad);
}

// A stretch of columns of every row, in row order: several rows may have the same token.
static void scatter_part(void *ctx, size_t part) {
    struct network *n = ctx;
    size_t column = part * SCATTER_COLUMNS, width = MIN((size_t)SCATTER_COLUMNS, n->C - column);
    const struct param *e = n->p->embedding, *p = n->p->positions;
    for (size_t r = 0; r < n->b->n_rows; r++) {
        const float *dx = n->dx + r * n->C + column;
        if (param_trained(e)) n->kernels->add(e->grad + n->b->ids[r] * n->C + column, dx, width);
        if (p && param_trained(p)) n->kernels->add(p->grad + n->positions[r] * n->C + column, dx, width);
    }
}

static void embedding_backward(struct network *n) {
    uint64_t at = clock_ns();
    struct param *zeroed[] = {n->p->embedding == n->p->head ? NULL : n->p->embedding, n->p->positions}; // the head's product wrote a tied one
    for (size_t i = 0; n->fresh && i < ARRAY_LEN(zeroed); i++)
        if (zeroed[i] && zeroed[i]->grad) pool_run(n->pool, zero_part, zeroed[i], (zeroed[i]->n + ZERO_FLOATS - 1) / ZERO_FLOATS);
    if (n->c.dropout_embedding > 0) for_blocks(n, embedding_dropout_block, NULL, n->b->n_rows, 0);
    pool_run(n->pool, scatter_part, n, (n->C + SCATTER_COLUMNS - 1) / SCATTER_COLUMNS);
    time_add(&n->times.embed_ms, &at);
}

void network_backward(struct network *n) {
    for (size_t l = n->L; l-- > n->lowest;) layer_backward(n, l);
    if (n->stem_trained) embedding_backward(n);
}
