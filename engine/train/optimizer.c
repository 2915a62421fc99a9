// SPDX-License-Identifier: MIT
// AdamW and SGD, one pass over weights, moments and gradients. Thread: the trainer's.
//
// Invariants: (1) sums and updates are cut at places that depend on the parameters' shapes alone, and chunk sums are added in order: results do
// not depend on the thread count. (2) The gaps between arrays are zero in weights, gradients and moments, and every formula keeps them so:
// a piece may run across them. (3) Kernel scalars are worked out in double from the very floats the kernel uses: the bias correction
// 1 - beta^t belongs to the rounded beta, or the first updates would be off by beta's rounding over 1 - beta.
#include "engine/train/optimizer.h"

#include "base/mem.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

struct optimizer_piece {
    size_t at, n; // floats of the trained block
    bool decay;
};

static size_t chunk_count(const struct params *p) {
    return (p->n_trained + OPTIMIZER_CHUNK - 1) / OPTIMIZER_CHUNK;
}

// Cuts the trained block into pieces; returns how many, writes them where `out` is not NULL. Trained arrays come in block order.
static size_t pieces_cut(const struct params *p, struct optimizer_piece *out) {
    size_t n = 0, done = 0;
    for (size_t i = 0; i < p->n_items;) {
        const bool decay = p->items[i].decay;
        if (!p->items[i].grad) {
            i++;
            continue;
        }
        size_t at = (size_t)(p->items[i].w - p->trained), end = at;
        assert(at >= done);
        for (; i < p->n_items && (!p->items[i].grad || p->items[i].decay == decay); i++)
            if (p->items[i].grad) end = (size_t)(p->items[i].w - p->trained) + p->items[i].n;
        for (; at < end; at += OPTIMIZER_CHUNK, n++)
            if (out) out[n] = (struct optimizer_piece){at, MIN(end - at, (size_t)OPTIMIZER_CHUNK), decay};
        done = end;
    }
    return n;
}

bool optimizer_init(struct optimizer *o, const struct optimizer_config *c, struct params *p, struct pool *pool, struct err *err) {
    struct optimizer made = {.config = *c, .params = p, .pool = pool};
    const bool adamw = c->kind == OPTIMIZER_ADAMW, moment = adamw || c->beta1 > 0;
    size_t bytes;
    assert(p->n_trained > 0);
    if (!(made.kernels = train_kernels_get(err))) return false;
    if (!size_mul(p->n_trained, sizeof(float), &bytes)) return err_set(err, ERR_NO_MEMORY, "the model is too large for this machine");
    if (moment && !(made.m = mem_map_array(bytes, "optimizer moments", err))) goto fail;
    if (adamw && !(made.v = mem_map_array(bytes, "optimizer moments", err))) goto fail;
    made.n_pieces = pieces_cut(p, NULL);
    made.pieces = mem_alloc(made.n_pieces, sizeof(*made.pieces));
    pieces_cut(p, made.pieces);
    made.sums = mem_alloc(chunk_count(p), sizeof(*made.sums));
    *o = made;
    return true;
fail:
    optimizer_finish(&made);
    return false;
}

void optimizer_finish(struct optimizer *o) {
    const size_t bytes = o->params ? o->params->n_trained * sizeof(float) : 0;
    mem_unmap_array(o->m, bytes);
    mem_unmap_array(o->v, bytes);
    free(o->pieces);
    free(o->sums);
    *o = (struct optimizer){0};
}

// ---- norms ----

struct sum_task {
    const struct optimizer *o;
    const float *x; // [n_trained]
};

static void sum_part(void *ctx, size_t part) {
    const struct sum_task *t = ctx;
    const size_t at = part * OPTIMIZER_CHUNK, n = MIN(t->o->params->n_trained - at, (size_t)OPTIMIZER_CHUNK);
    t->o->sums[part] = t->o->kernels->sum_squares(t->x + at, n);
}

static double sum_squares(const struct optimizer *o, const float *x) {
    const size_t n = chunk_count(o->params);
    double sum = 0;
    pool_run(o->pool, sum_part, &(struct sum_task){o, x}, n);
    for (size_t i = 0; i < n; i++) sum += o->sums[i];
    return sum;
}

double optimizer_grad_norm(const struct optimizer *o) {
    return sqrt(sum_squares(o, o->params->grads));
}

bool optimizer_weights_finite(const struct optimizer *o) {
    return isfinite(sum_squares(o, o->params->trained));
}

// ---- steps ----

struct step_task {
    const struct optimizer *o;
    struct adamw_step adamw[2]; // without and with decay
    float lr;                   // SGD
};

static void step_part(void *ctx, size_t part) {
    const struct step_task *t = ctx;
    const struct optimizer *o = t->o;
    const struct optimizer_piece *piece = &o->pieces[part];
    const struct adamw_step *s = &t->adamw[piece->decay];
    float *p = o->params->trained + piece->at, *m = o->m ? o->m + piece->at : NULL;
    const float *g = o->params->grads + piece->at;
    if (o->config.kind == OPTIMIZER_ADAMW) o->kernels->adamw(p, m, o->v + piece->at, g, piece->n, s);
    else o->kernels->sgd(p, m, g, piece->n, t->lr, s->beta1, s->decay, s->grad_scale);
}

void optimizer_step(struct optimizer *o, double lr, double norm) {
    const struct optimizer_config *c = &o->config;
    const double t = (double)++o->steps, clip = c->clip;
    assert(isfinite(norm));
    struct adamw_step s = {
        .beta1 = c->beta1,
        .beta2 = c->beta2,
        .eps = c->eps,
        .decay = 1.0f,
        .rate = (float)(lr / (1.0 - pow(c->beta1, t))),
        .v_scale = (float)(1.0 / sqrt(1.0 - pow(c->beta2, t))),
        .grad_scale = clip > 0 && norm > clip ? (float)(clip / (norm + 1e-6)) : 1.0f,
    };
    struct step_task task = {.o = o, .adamw = {s, s}, .lr = (float)lr};
    task.adamw[1].decay = (float)(1.0 - lr * c->weight_decay);
    pool_run(o->pool, step_part, &task, o->n_pieces);
}
