// SPDX-License-Identifier: MIT
// The n best of many values with their ids: descending, ties by the lower id. Pure functions, any thread.
#pragma once

#include "engine/infer/engine.h"

struct best {
    size_t n, cap;           // n so far, of at most cap
    struct top_logprob *top; // [cap], in order; logprob is whatever value is offered: a logit, a cosine
};

// In any order of ids, each of them once. A NaN beats nothing.
void best_offer(struct best *b, uint32_t id, float value);

// The n_top best of a row; returns how many there are. block_max[row_blocks(n)]: row_max's.
size_t row_best(const float *x, size_t n, const float *block_max, size_t n_top, struct top_logprob *top);
