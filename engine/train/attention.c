// SPDX-License-Identifier: MIT
// Attention of training (see attention.h). A part of the pool's work is one segment of one head (forward) or of one key/value
// head (backward), query block by query block.
//
// Invariants:
//  1. Scratch holds the weights, and in the backward their gradient, of one query block of one head: [QUERY_BLOCK][keys], rows
//     `keys` apart; keys past the block's end are not computed, what lies right of the diagonal is 0.
//  2. A key/value head's dk and dv are added up by one part, in a fixed order: bits do not depend on the thread count.
// Thread: any of the pool's, own scratch each.
#include "engine/train/attention.h"

#include "base/mem.h"
#include "engine/train/gemm.h"

#include <string.h>

enum { QUERY_BLOCK = 64 };

struct attention_run {
    const struct attention_shape *s;
    const struct attention_arrays *a;
    const struct attention_gradients *g; // backward only
    const struct batch *b;
    const struct attention_dropout *d;
    const struct train_kernels *k;
    float *scratch;
    size_t scratch_stride;
};

// One query block of one head. Keys 0 .. n_keys - 1 of the segment; query i is the segment's row at + i.
struct query_block {
    size_t start; // the segment's first row in the batch
    size_t at, n_rows, n_keys;
    size_t head, kv_head;
};

static size_t segment_rows(const struct batch *b, size_t i) { return b->starts[i + 1] - b->starts[i]; }

static size_t longest_segment(const struct batch *b) {
    size_t n = 0;
    for (size_t i = 0; i < b->n_segments; i++) n = MAX(n, segment_rows(b, i));
    return n;
}

size_t attention_scratch(const struct attention_shape *s, size_t max_rows) {
    (void)s;
    return 2 * QUERY_BLOCK * max_rows;
}

static struct query_block query_block_at(const struct attention_run *r, size_t segment, size_t at, size_t head) {
    size_t rows = MIN(segment_rows(r->b, segment) - at, (size_t)QUERY_BLOCK);
    return (struct query_block){.start = r->b->starts[segment], .at = at, .n_rows = rows, .n_keys = at + rows, .head = head,
                                .kv_head = head / (r->s->n_head / r->s->n_kv_head)};
}

static const float *queries(const struct attention_run *r, const struct query_block *q) {
    return r->a->q + (q->start + q->at) * r->a->qkv_stride + q->head * r->s->head_size;
}
static size_t key_offset(const struct attention_run *r, const struct query_block *q) { // of k, v, dk, dv
    return q->start * r->a->qkv_stride + q->kv_head * r->s->head_size;
}
static size_t out_offset(const struct attention_run *r, const struct query_block *q) { // of out, dout
    return ((q->start + q->at) * r->s->n_head + q->head) * r->s->head_size;
}

static void drop_row(const struct attention_run *r, const struct query_block *q, size_t row, float *x) {
    struct dropout_row d = {.seed = r->d->seed, .row = r->d->first_row + (uint32_t)(q->start + q->at + row),
                            .site = r->d->site + (uint32_t)q->head, .step = r->d->step, .p = r->d->p};
    if (r->d->p > 0) r->k->dropout(x, x, q->at + row + 1, &d);
}

// x[n_rows][n_keys] = rows of y (y_stride apart) times those of k or v.
static void rows_times_keys(const struct attention_run *r, const struct query_block *q, const float *y, size_t y_stride,
                            const float *keys, float *x) {
    gemm_part(&(struct gemm){.trans_b = true, .m = q->n_rows, .n = q->n_keys, .k = r->s->head_size, .alpha = 1, .a = y, .lda = y_stride,
                             .b = keys + key_offset(r, q), .ldb = r->a->qkv_stride, .c = x, .ldc = q->n_keys});
}

static void block_forward(const struct attention_run *r, const struct query_block *q, float *p) {
    rows_times_keys(r, q, queries(r, q), r->a->qkv_stride, r->a->k, p);
    for (size_t i = 0; i < q->n_rows; i++) {
        float *row = p + i * q->n_keys;
        size_t n = q->at + i + 1;
        r->a->lse[q->head * r->b->n_rows + q->start + q->at + i] = r->k->softmax(row, n, r->s->scale);
        drop_row(r, q, i, row);
        memset(row + n, 0, (q->n_keys - n) * sizeof *row);
    }
    gemm_part(&(struct gemm){.m = q->n_rows, .n = r->s->head_size, .k = q->n_keys, .alpha = 1, .a = p, .lda = q->n_keys,
                             .b = r->a->v + key_offset(r, q), .ldb = r->a->qkv_stride, .c = r->a->out + out_offset(r, q),
                             .ldc = r->s->n_head * r->s->head_size});
}

// to[n_keys][HS] (= or +=) x^T y: the block's share of dk (x = dS, y = queries) or dv (x = P, y = dout).
static void add_to_keys(const struct attention_run *r, const struct query_block *q, const float *x, const float *y, size_t y_stride,
                        float *to, bool add) {
    gemm_part(&(struct gemm){.trans_a = true, .m = q->n_keys, .n = r->s->head_size, .k = q->n_rows, .alpha = 1, .a = x,
                             .lda = q->n_keys, .b = y, .ldb = y_stride, .c = to + key_offset(r, q), .ldc = r->a->qkv_stride,
                             .beta_one = add});
}

// The weights P again from the scores and lse; dP = dO V^T under the dropout's mask; dS = scale P (dP - delta), where
// delta = sum of P dP = dO . O. Then dV += (dropped P)^T dO, dQ = dS K, dK += dS^T Q.
static void block_backward(const struct attention_run *r, const struct query_block *q, float *p, float *dp, bool first) {
    size_t n_out = r->s->n_head * r->s->head_size;
    const float *dout = r->g->dout + out_offset(r, q), *out = r->a->out + out_offset(r, q);
    rows_times_keys(r, q, queries(r, q), r->a->qkv_stride, r->a->k, p);
    rows_times_keys(r, q, dout, n_out, r->a->v, dp);
    for (size_t i = 0; i < q->n_rows; i++) {
        float *pi = p + i * q->n_keys, *di = dp + i * q->n_keys;
        size_t n = q->at + i + 1;
        r->k->softmax_from_lse(pi, n, r->s->scale, r->a->lse[q->head * r->b->n_rows + q->start + q->at + i]);
        drop_row(r, q, i, di);
        r->k->softmax_backward(di, pi, n, r->k->dot(dout + i * n_out, out + i * n_out, r->s->head_size), r->s->scale);
        drop_row(r, q, i, pi);
        memset(pi + n, 0, (q->n_keys - n) * sizeof *pi);
        memset(di + n, 0, (q->n_keys - n) * sizeof *di);
    }
    add_to_keys(r, q, p, dout, n_out, r->g->dv, !first);
    add_to_keys(r, q, dp, queries(r, q), r->a->qkv_stride, r->g->dk, !first);
    gemm_part(&(struct gemm){.m = q->n_rows, .n = r->s->head_size, .k = q->n_keys, .alpha = 1, .a = dp, .lda = q->n_keys,
                             .b = r->a->k + key_offset(r, q), .ldb = r->a->qkv_stride,
                             .c = r->g->dq + (queries(r, q) - r->a->q), .ldc = r->a->qkv_stride});
}

static void forward_part(void *ctx, size_t part) {
    const struct attention_run *r = ctx;
    size_t segment = part / r->s->n_head;
    for (size_t at = 0; at < segment_rows(r->b, segment); at += QUERY_BLOCK) {
        struct query_block q = query_block_at(r, segment, at, part % r->s->n_head);
        block_forward(r, &q, r->scratch + pool_self() * r->scratch_stride);
    }
}

// From the last query block back: it sees every key, so what it writes the others add to.
static void backward_part(void *ctx, size_t part) {
    const struct attention_run *r = ctx;
    size_t segment = part / r->s->n_kv_head, kv_head = part % r->s->n_kv_head, group = r->s->n_head / r->s->n_kv_head;
    size_t n_blocks = (segment_rows(r->b, segment) + QUERY_BLOCK - 1) / QUERY_BLOCK;
    float *p = r->scratch + pool_self() * r->scratch_stride;
    for (size_t block = n_blocks; block-- > 0;)
        for (size_t h = 0; h < group; h++) {
            struct query_block q = query_block_at(r, segment, block * QUERY_BLOCK, kv_head * group + h);
            block_backward(r, &q, p, p + r->scratch_stride / 2, block == n_blocks - 1 && h == 0);
        }
}

void attention_forward(const struct attention_shape *s, const struct attention_arrays *a, const struct batch *b,
                       const struct attention_dropout *d, const struct train_kernels *k, float *scratch, struct pool *pool) {
    struct attention_run r = {.s = s, .a = a, .b = b, .d = d, .k = k, .scratch = scratch,
                              .scratch_stride = attention_scratch(s, longest_segment(b))};
    pool_run(pool, forward_part, &r, b->n_segments * s->n_head);
}

void attention_backward(const struct attention_shape *s, const struct attention_arrays *a, const struct attention_gradients *g,
                        const struct batch *b, const struct attention_dropout *d, const struct train_kernels *k, float *scratch,
                        struct pool *pool) {
    struct attention_run r = {.s = s, .a = a, .g = g, .b = b, .d = d, .k = k, .scratch = scratch,
                              .scratch_stride = attention_scratch(s, longest_segment(b))};
    pool_run(pool, backward_part, &r, b->n_segments * s->n_kv_head);
}
