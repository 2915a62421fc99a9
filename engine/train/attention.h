// SPDX-License-Identifier: MIT
// Causal attention over a ragged batch, forward and backward, query block by query block: scores are never stored for all
// heads. The forward keeps the log-sum-exp of every row, from which the backward computes the weights again (Dao et al.,
// FlashAttention, 2022: the recomputation; here on gemm_part and the row kernels). GQA: NH / NKV query heads share a key/value
// head. Dropout on the weights as in GPT-2, its mask drawn again in the backward. The backward reads the forward's out and lse.
#pragma once

#include "base/pool.h"
#include "engine/kernels/train_kernels.h"
#include "engine/train/batch.h"

struct attention_shape {
    size_t n_head, n_kv_head, head_size; // NH, NKV, HS
    float scale;                         // 1 / sqrt(HS)
};
struct attention_arrays {
    const float *q; // [R][NH * HS], rows qkv_stride apart
    const float *k; // [R][NKV * HS]
    const float *v; // [R][NKV * HS]
    size_t qkv_stride;
    float *out; // [R][NH * HS], contiguous
    float *lse; // [NH][R]
};
struct attention_gradients {
    const float *dout; // [R][NH * HS], contiguous
    float *dq, *dk, *dv; // as q, k, v, rows qkv_stride apart; written, not added to
};
struct attention_dropout { // p 0: none
    float p;
    uint64_t seed;
    uint32_t site, step, first_row; // head h takes site + h; row r of the batch is first_row + r
};

// Floats of scratch a pool thread needs for segments of up to max_rows rows.
size_t attention_scratch(const struct attention_shape *s, size_t max_rows);
// scratch: [pool_threads][attention_scratch]. Both are deterministic whatever the thread count.
void attention_forward(const struct attention_shape *s, const struct attention_arrays *a, const struct batch *b,
                       const struct attention_dropout *d, const struct train_kernels *k, float *scratch, struct pool *pool);
void attention_backward(const struct attention_shape *s, const struct attention_arrays *a, const struct attention_gradients *g,
                        const struct batch *b, const struct attention_dropout *d, const struct train_kernels *k, float *scratch,
                        struct pool *pool);
