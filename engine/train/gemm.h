// SPDX-License-Identifier: MIT
// Matrix products of training and evaluation: OpenBLAS, single-threaded, under our own partition. The partition is a function of
// the shape alone, so a result never depends on the number of threads (it may differ from serving's kernels in the last bits).
#pragma once

#include "base/pool.h"

// C[m][n] = (beta_one ? C : bias or 0) + alpha * op(A) op(B), row-major. op(A) is m x k: A is [m][k], or [k][m] where trans_a; likewise B.
struct gemm {
    bool trans_a, trans_b, beta_one;
    size_t m, n, k;
    float alpha;
    const float *a;
    size_t lda; // floats between rows as stored
    const float *b;
    size_t ldb;
    float *c;
    size_t ldc;
    const float *bias; // [n] or NULL; only without beta_one
};
// Spread over the pool. Not inside a pool_run.
void gemm_run(const struct gemm *g, struct pool *pool);
// On the calling thread: for use inside a part of a pool_run.
void gemm_part(const struct gemm *g);
// Makes OpenBLAS single-threaded; once, before the first product. Names the core OpenBLAS chose.
const char *gemm_start(void);
// The value of OPENBLAS_CORETYPE that suits this processor better than the core OpenBLAS chose by itself (it predates the
// processor), or NULL: nothing better.
const char *gemm_better_core(void);
const char *gemm_core_for(const char *core, bool has_avx2, bool has_avx512); // the same as a function of what is known
