// SPDX-License-Identifier: MIT
// Passes over one row of logits: maximum, exponentials, log-sum-exp, rank. Plain C in a shape that compilers vectorise, with
// every sum in one fixed order and our own exp and log: the same bits on every machine, compiler and instruction set.
// Pure functions, any thread.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ROW_BLOCK = 128 }; // elements that share one maximum and one partial sum

static inline size_t row_blocks(size_t n) { return (n + ROW_BLOCK - 1) / ROW_BLOCK; }

// block_max[row_blocks(n)]: the largest of each block; *max and *arg_max: the largest of all, ties to the lowest index.
// False when any element is infinite or NaN (the outputs then mean nothing). n > 0.
bool row_max(const float *x, size_t n, float *block_max, float *max, size_t *arg_max);

// w[i] = exp((x[i] - max) * scale) for x <= max, scale > 0: 1 at the maximum, exactly 0 below exp(-86).
// block_sum[row_blocks(n)] (may be NULL) gets the blocks' sums; returns the sum of all. w may be NULL: sums only.
double row_exp(const float *x, size_t n, float max, float scale, float *w, double *block_sum);

// The place of x[at] among the elements, the largest first and ties by the lower index: 1 for the largest.
uint32_t row_rank(const float *x, size_t n, size_t at);

// log(sum(exp(x))), given max = the largest element.
double row_logsumexp(const float *x, size_t n, float max);

float exp_nonpositive(float y); // exp(y), y <= 0; within 2 ulp; exactly 0 below -86
double log_positive(double v);  // log(v), v > 0 and normal; within 2 ulp
