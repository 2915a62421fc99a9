// SPDX-License-Identifier: MIT
// The network's arrays and life, the helpers over rows, and its public calls.
//
// Invariants: (1) all arrays lie in one block, placed by network_place, which runs once to count and once to point; (2) nothing a call does
// depends on what an earlier call left in them; (3) layers[l + 1].x is layer l's output.
#include "engine/train/network_internal.h"

#include "base/clock.h"
#include "base/mem.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

// ---- layout -------------------------------------------------------------------------------------------------------------

struct block {
    float *base; // NULL: counting
    size_t used; // floats
    bool overflow;
};

static float *place(struct block *m, size_t rows, size_t width) {
    size_t n, end, at = m->used;
    if (!size_mul(rows, width, &n) || !size_add(n, 15, &n) || !size_add(at, n / 16 * 16, &end)) {
        m->overflow = true;
        return NULL;
    }
    m->used = end;
    return m->base ? m->base + at : NULL;
}

// The linear layers of a block by number; NULL where the model has none of that number.
static const struct param_linear *linear_at(const struct param_layer *y, size_t i) {
    if (i < LINEAR_OUT) return i < y->n_qkv ? &y->qkv[i] : NULL;
    if (i == LINEAR_OUT) return &y->out;
    if (i < LINEAR_DOWN) return i - LINEAR_UP < y->n_up ? &y->up[i - LINEAR_UP] : NULL;
    return &y->down;
}

static size_t lora_rank(const struct network *n, size_t layer, size_t i) {
    const struct param_linear *l = linear_at(&n->p->layers[layer], i);
    return l && l->lora.a ? l->lora.a->shape[0] : 0;
}

static void place_kept(struct network *n, struct block *m, struct layer_arrays *a, size_t R) {
    a->qkv = place(m, R, n->QKV);
    a->lse = place(m, n->shape.n_head, R);
    a->att = place(m, R, n->Q);
    a->x_mid = n->c.inference ? a->x : place(m, R, n->C);
    a->up = place(m, R, n->UP);
}

static void place_layers(struct network *n, struct block *m, size_t R, size_t rank) {
    struct layer_arrays *first = &n->layers[0];
    for (size_t l = 0; l <= n->L; l++) {
        struct layer_arrays *a = &n->layers[l];
        bool shared = l > 0 && (n->c.inference || n->c.recompute);
        if (shared) *a = *first;
        if (!shared || !n->c.inference) a->x = place(m, R, n->C);
        if (shared && n->c.recompute && rank > 0 && l < n->L) a->u[LINEAR_DOWN] = place(m, R, rank); // `down` is not run again
        if (l == n->L || shared) continue;
        place_kept(n, m, a, R);
        bool for_all = n->c.inference || n->c.recompute; // whichever layer has them
        for (size_t i = 0; i < LINEARS; i++)
            if (for_all ? rank > 0 : lora_rank(n, l, i) > 0) a->u[i] = place(m, R, rank);
    }
}

static void network_place(struct network *n, struct block *m, size_t threads) {
    size_t R = n->c.max_rows, blocks = (R + ROW_BLOCK - 1) / ROW_BLOCK, rank = 0;
    for (size_t l = 0; l < n->L; l++)
        for (size_t i = 0; i < LINEARS; i++) rank = MAX(rank, lora_rank(n, l, i));
    place_layers(n, m, R, rank);
    n->h = place(m, R, n->C);
    n->proj = place(m, R, n->C);
    n->act = place(m, R, MAX(n->F, n->QKV));
    if (!n->c.inference) {
        n->dx = place(m, R, n->C);
        n->datt = place(m, R, n->Q);
        n->dqkv = n->act; // the mlp's gradient is used up before attention's begins
        n->dup = n->p->config.mlp == MLP_SWIGLU ? place(m, R, n->UP) : n->act;
        n->du = place(m, 3 * R, rank);
        n->partial_width = MAX(MAX(3 * n->C, n->UP), n->QKV);
        n->partial = place(m, blocks, n->partial_width);
        if (rank && n->c.dropout_lora > 0) n->dropped = place(m, R, MAX(MAX(n->C, n->Q), n->F));
    }
    if (n->p->config.position == POSITION_ROTARY) n->rope = place(m, R, n->shape.head_size / 2 * 3);
    n->attention_scratch = place(m, threads, attention_scratch(&n->shape, n->c.max_segment));
    n->hidden = place(m, LOSS_ROWS, n->C);
    n->logits = place(m, LOSS_ROWS, n->vocab_stride);
    n->losses = place(m, R, 1);
    n->positions = (uint32_t *)(void *)place(m, R, 1);
    n->supervised = (uint32_t *)(void *)place(m, R, 1);
    n->correct = (uint32_t *)(void *)place(m, R, 1);
}

static bool layer_trained(const struct param_layer *y) {
    bool trained = param_trained(y->norm1_w) || param_trained(y->norm2_w);
    for (size_t i = 0; i < LINEARS; i++) trained |= linear_at(y, i) && linear_trained(linear_at(y, i));
    return trained;
}

static void network_shape(struct network *n, struct params *p, const struct network_config *c) {
    const struct model_config *m = &p->config;
    size_t HS = m->head_size;
    *n = (struct network){.p = p, .c = *c, .C = m->n_embd, .Q = m->n_head * HS, .K = m->n_kv_head * HS, .F = m->n_inner, .V = m->n_vocab,
                          .L = m->n_layer};
    n->UP = m->mlp == MLP_SWIGLU ? 2 * n->F : n->F;
    n->QKV = n->Q + 2 * n->K;
    n->vocab_stride = (n->V + 15) / 16 * 16;
    n->shape = (struct attention_shape){m->n_head, m->n_kv_head, HS, 1.0f / sqrtf((float)HS)};
    n->layers = mem_alloc(n->L + 1, sizeof *n->layers);
    n->stem_trained = param_trained(p->embedding) || (p->positions && param_trained(p->positions));
    for (n->lowest = 0; n->lowest < n->L && !n->stem_trained && !layer_trained(&p->layers[n->lowest]);) n->lowest++;
}

size_t network_bytes(const struct params *p, const struct network_config *c) {
    struct network n;
    struct block count = {0};
    network_shape(&n, (struct params *)(uintptr_t)p, c);
    network_place(&n, &count, pool_cpu_count());
    free(n.layers);
    return count.overflow || count.used > SIZE_MAX / sizeof(float) ? SIZE_MAX : count.used * sizeof(float);
}

struct network *network_create(struct params *p, const struct network_config *c, struct pool *pool, struct err *err) {
    assert(c->max_rows > 0 && c->max_segment > 0 && c->max_segment <= p->config.n_ctx);
    const struct kernels *kernels = kernels_get(err);
    const struct train_kernels *train = kernels ? train_kernels_get(err) : NULL;
    if (!train) return NULL;
    gemm_start();
    struct network *n = mem_new(struct network);
    struct block count = {0};
    network_shape(n, p, c);
    n->pool = pool;
    n->kernels = kernels;
    n->train = train;
    network_place(n, &count, pool_threads(pool));
    n->memory_bytes = count.used * sizeof(float);
    if (count.overflow || count.used > SIZE_MAX / sizeof(float))
        err_set(err, ERR_NO_MEMORY, "a batch of %zu rows does not fit in memory", c->max_rows);
    else n->memory = mem_map_array(n->memory_bytes, "activations", err);
    if (!n->memory) {
        network_destroy(n);
        return NULL;
    }
    network_place(n, &(struct block){.base = n->memory}, pool_threads(pool));
    if (n->rope) {
        n->rope_frequency = mem_alloc(n->shape.head_size / 2, sizeof *n->rope_frequency);
        model_config_rope_frequencies(&p->config, n->rope_frequency);
    }
    return n;
}

void network_destroy(struct network *n) {
    if (!n) return;
    mem_unmap_array(n->memory, n->memory_bytes);
    free(n->layers);
    free(n->rope_frequency);
    free(n);
}

// ---- rows ---------------------------------------------------------------------------------------------------------------

struct blocks_job {
    struct network *n;
    block_fn *fn;
    const void *ctx;
    size_t rows, width;
};

static void blocks_task(void *ctx, size_t part) {
    const struct blocks_job *j = ctx;
    float *partial = j->width ? j->n->partial + part * j->n->partial_width : NULL;
    if (partial) memset(partial, 0, j->width * sizeof *partial);
    j->fn(j->n, j->ctx, part * ROW_BLOCK, MIN((part + 1) * ROW_BLOCK, j->rows), partial);
}

void for_blocks(struct network *n, block_fn *fn, const void *ctx, size_t rows, size_t width) {
    struct blocks_job job = {n, fn, ctx, rows, width};
    pool_run(n->pool, blocks_task, &job, (rows + ROW_BLOCK - 1) / ROW_BLOCK);
}

void blocks_reduce(struct network *n, const struct param *p, size_t rows, size_t column, bool fresh) {
    if (!param_trained(p)) return;
    if (fresh) memset(p->grad, 0, p->n * sizeof *p->grad);
    for (size_t i = 0; i * ROW_BLOCK < rows; i++) n->kernels->add(p->grad, n->partial + i * n->partial_width + column, p->n);
}

struct dropout_row dropout_at(const struct network *n, float p, size_t site, size_t row) {
    return (struct dropout_row){n->c.dropout_seed, (uint32_t)(n->b->first_row + row), (uint32_t)site, n->step, p};
}

size_t layer_site(const struct network *n, size_t layer, size_t in_layer) { return 1 + layer * (SITE_HEADS + n->shape.n_head) + in_layer; }

void norm_row(const struct network *n, float *y, const float *x, const struct param *w, const struct param *b) {
    if (n->p->config.norm == NORM_LAYERNORM) n->kernels->layernorm(y, x, w->w, b->w, n->C, n->p->config.norm_eps);
    else n->kernels->rmsnorm(y, x, w->w, n->C, n->p->config.norm_eps);
}

void time_add(double *ms, uint64_t *since) {
    uint64_t now = clock_ns();
    *ms += (double)(now - *since) / 1e6;
    *since = now;
}

const struct network_times *network_times(const struct network *n) { return &n->times; }

// ---- calls --------------------------------------------------------------------------------------------------------------

static void batch_check(const struct network *n, const struct batch *b) {
    assert(b->n_rows > 0 && b->n_rows <= n->c.max_rows && b->starts[0] == 0 && b->starts[b->n_segments] == b->n_rows);
    for (size_t i = 0; i < b->n_segments; i++) assert(b->starts[i] < b->starts[i + 1] && b->starts[i + 1] - b->starts[i] <= n->c.max_segment);
    for (size_t r = 0; r < b->n_rows; r++) assert(b->ids[r] < n->V && (b->targets[r] < 0 || (size_t)b->targets[r] < n->V));
}

void network_train(struct network *n, const struct batch *b, float grad_scale, bool fresh, uint32_t step, struct loss_sums *out) {
    assert(!n->c.inference);
    batch_check(n, b);
    n->b = b;
    n->fresh = fresh;
    n->step = step;
    network_supervise(n);
    *out = (struct loss_sums){0};
    if (n->n_supervised == 0) {
        if (fresh && n->p->n_trained) memset(n->p->grads, 0, n->p->n_trained * sizeof *n->p->grads);
        return;
    }
    n->training = true;
    network_forward(n);
    network_loss(n, true, grad_scale, out);
    network_backward(n);
    n->training = false;
}

void network_evaluate(struct network *n, const struct batch *b, struct loss_sums *out, float *token_losses) {
    batch_check(n, b);
    n->b = b;
    network_supervise(n);
    *out = (struct loss_sums){0};
    if (token_losses) memset(token_losses, 0, b->n_rows * sizeof *token_losses);
    if (n->n_supervised == 0) return;
    network_forward(n);
    network_loss(n, false, 0, out);
    for (size_t i = 0; token_losses && i < n->n_supervised; i++) token_losses[n->supervised[i]] = n->losses[i];
}

void network_logits(struct network *n, const struct batch *b, const uint32_t *wanted, size_t n_wanted, float *out) {
    batch_check(n, b);
    n->b = b;
    network_forward(n);
    for (size_t i = 0; i < n_wanted; i += LOSS_ROWS) network_head(n, wanted + i, MIN((size_t)LOSS_ROWS, n_wanted - i), out + i * n->V, n->V);
}
