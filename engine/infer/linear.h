// SPDX-License-Identifier: MIT
// y = x W^T + b over the pool, for a linear layer of several parts.
#pragma once

#include "engine/infer/weights.h"

// The rows of one call. What a later kind of row needs (an adapter for some of them) becomes a field here.
struct linear_rows {
    size_t n;       // T
    const float *x; // [T][n_in], rows x_stride apart
    size_t x_stride;
    float *y;       // [T][n_out], rows y_stride apart
    size_t y_stride;
};

void linear_forward(const struct linear *l, const struct linear_rows *rows, const struct kernels *kernels, struct pool *pool);
