// SPDX-License-Identifier: MIT
// The panel kernel beside OpenBLAS on one f32 product, for `couplet bench`. One thread calls; the pool and OpenBLAS's
// own threads work.
#pragma once

#include "base/err.h"
#include "base/pool.h"

struct sgemm_result {
    double ours[2], openblas[2]; // GFLOP/s: one thread, all threads of the pool
};

// y[rows][outputs] = x[rows][inputs] w[outputs][inputs]^T; best of `repeat`. Checks that both give the same numbers.
bool bench_sgemm(struct pool *pool, size_t rows, size_t outputs, size_t inputs, size_t repeat, struct sgemm_result *out,
                 struct err *err) MUST_CHECK;
