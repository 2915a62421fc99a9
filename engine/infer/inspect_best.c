// SPDX-License-Identifier: MIT
// Best lists of an inspection: the lens (what each block's output would say) and a token's neighbours in the embedding table.
#include "engine/infer/inspect_internal.h"

#include "base/mem.h"
#include "engine/infer/best.h"
#include "engine/infer/logit_row.h"
#include "engine/model/tensor.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

// Its id-and-value pairs as the answer's two arrays have them.
static void best_split(const struct best *b, uint32_t *ids, float *values) {
    for (size_t i = 0; i < b->n; i++) ids[i] = b->top[i].id, values[i] = b->top[i].logprob;
}

// ---- the lens -----------------------------------------------------------------------------------------------------------

struct lens_job {
    const struct look *l;
    const float *logits;  // [rows][V]
    size_t stride, first; // of the batch in the lens's rows
    float *block_max;     // [threads][row_blocks(V)]
    bool finite[LOGIT_ROWS];
};

static void lens_row(void *ctx, size_t row) {
    struct lens_job *j = ctx;
    const struct inspect_best *out = &j->l->out->lens;
    const size_t V = j->l->c->n_vocab, k = out->shape[out->n_dims - 1];
    const float *x = j->logits + row * j->stride;
    float max, *block_max = j->block_max + pool_self() * row_blocks(V);
    size_t arg_max;
    j->finite[row] = row_max(x, V, block_max, &max, &arg_max);
    if (!j->finite[row]) return;
    struct top_logprob top[INSPECT_MAX_BEST];
    const struct best best = {.n = row_best(x, V, block_max, k, top), .top = top};
    const float log_sum = (float)row_logsumexp(x, V, max);
    for (size_t i = 0; i < best.n; i++) top[i].logprob = expf(top[i].logprob - log_sum);
    best_split(&best, out->ids + (j->first + row) * k, out->values + (j->first + row) * k);
}

bool look_lens(struct look *l, struct err *err) {
    const struct inspect_best *out = &l->out->lens;
    const size_t C = l->c->n_embd, each = MIN((size_t)LOGIT_ROWS, l->r->n_ids);
    size_t n = 1;
    for (int i = 0; i + 1 < out->n_dims; i++) n *= out->shape[i];
    struct lens_job job = {.l = l, .block_max = mem_alloc(pool_threads(l->pool) * row_blocks(l->c->n_vocab), sizeof(float))};
    bool finite = true;
    for (; job.first < n && finite && !look_cancelled(l); job.first += each) {
        const size_t rows = MIN(each, n - job.first);
        job.logits = transformer_read(l->transformer, l->residual + job.first * C, rows, model_adapter(l->r->model), &job.stride);
        pool_run(l->pool, lens_row, &job, rows);
        for (size_t i = 0; i < rows; i++) finite &= job.finite[i];
    }
    free(job.block_max);
    if (l->cancelled) return look_cancelled_error(err);
    return finite || err_set(err, ERR_UNSUPPORTED, "the model's logits are not finite numbers: there is nothing to read in them");
}

// ---- neighbours -----------------------------------------------------------------------------------------------------------

enum { TABLE_ROWS = 32 };  // rows of the table in one task
enum { ROUND_TASKS = 16 }; // tasks between two looks at the caller's wish

struct neighbours_job {
    const struct look *l;
    const struct kernels *kernels;
    float *tokens;     // [T][C], of length 1 (0 where the row is zero)
    size_t first;      // task of the round
    float *rows;       // [threads][TABLE_ROWS][C]
    float *cosines;    // [threads][T][TABLE_ROWS]
    struct best *best; // [threads][T]
};

static float length_inverse(const struct kernels *kernels, const float *x, size_t n) {
    float square;
    kernels->dots(x, 1, n, x, n, 1, &square, 1);
    return square > 0 ? 1.0f / sqrtf(square) : 0;
}

static void neighbours_task(void *ctx, size_t part) {
    const struct neighbours_job *j = ctx;
    const size_t T = j->l->r->n_ids, C = j->l->c->n_embd, V = j->l->c->n_vocab, self = pool_self();
    const size_t begin = (j->first + part) * TABLE_ROWS, n = MIN((size_t)TABLE_ROWS, V - begin);
    float *rows = j->rows + self * TABLE_ROWS * C, *cosines = j->cosines + self * T * TABLE_ROWS, inverse[TABLE_ROWS];
    for (size_t i = 0; i < n; i++) {
        tensor_row(j->l->w->embedding, begin + i, rows + i * C);
        inverse[i] = length_inverse(j->kernels, rows + i * C, C);
    }
    j->kernels->dots(rows, n, C, j->tokens, C, T, cosines, TABLE_ROWS);
    for (size_t t = 0; t < T; t++)
        for (size_t i = 0; i < n; i++) {
            const float cosine = cosines[t * TABLE_ROWS + i] * inverse[i];
            if (begin + i != j->l->r->ids[t])
                best_offer(&j->best[self * T + t], (uint32_t)(begin + i), isfinite(cosine) ? cosine : -1);
        }
}

static bool neighbours_run(struct neighbours_job *j, struct look *l, struct top_logprob *top, struct err *err) { // top [threads][T][K]
    struct inspect_best *out = &l->out->neighbours;
    const size_t T = l->r->n_ids, C = l->c->n_embd, k = out->shape[1], threads = pool_threads(l->pool);
    for (size_t t = 0; t < T; t++) {
        float *x = j->tokens + t * C;
        tensor_row(l->w->embedding, l->r->ids[t], x);
        const float inverse = length_inverse(j->kernels, x, C);
        for (size_t d = 0; d < C; d++) x[d] *= inverse;
    }
    for (size_t i = 0; i < threads * T; i++) j->best[i] = (struct best){.cap = k, .top = top + i * k};
    for (size_t n = (l->c->n_vocab + TABLE_ROWS - 1) / TABLE_ROWS; j->first < n; j->first += ROUND_TASKS) {
        if (look_cancelled(l)) return look_cancelled_error(err);
        pool_run(l->pool, neighbours_task, j, MIN((size_t)ROUND_TASKS, n - j->first));
    }
    for (size_t t = 0; t < T; t++) { // the threads' lists together: which thread saw a row changes nothing
        struct top_logprob best[INSPECT_MAX_BEST];
        struct best all = {.cap = k, .top = best};
        for (size_t i = t; i < threads * T; i += T)
            for (size_t b = 0; b < j->best[i].n; b++) best_offer(&all, j->best[i].top[b].id, j->best[i].top[b].logprob);
        assert(all.n == k);
        best_split(&all, out->ids + t * k, out->values + t * k);
    }
    return true;
}

bool look_neighbours(struct look *l, struct err *err) {
    const size_t T = l->r->n_ids, C = l->c->n_embd, threads = pool_threads(l->pool), lists = threads * T;
    const size_t k = l->out->neighbours.shape[1];
    struct neighbours_job j = {.l = l, .kernels = kernels_get(err)};
    j.tokens = mem_try_alloc(T * C + threads * TABLE_ROWS * (C + T), sizeof(float), "the neighbours of tokens", err);
    j.best = mem_try_alloc(lists, sizeof *j.best, "the neighbours of tokens", err);
    struct top_logprob *top = mem_try_alloc(lists * k + 1, sizeof *top, "the neighbours of tokens", err);
    bool ok = j.kernels && j.tokens && j.best && top;
    if (ok) {
        j.rows = j.tokens + T * C;
        j.cosines = j.rows + threads * TABLE_ROWS * C;
        ok = neighbours_run(&j, l, top, err);
    }
    free(j.tokens), free(j.best), free(top);
    return ok;
}
