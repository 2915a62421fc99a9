// SPDX-License-Identifier: MIT
// y = x W^T + b over the pool, for a linear layer of several parts.
#pragma once

#include "engine/infer/adapter_rows.h"

// Rows [first, first + n) of a call go through an adapter's factors as well.
struct row_group {
    size_t first, n;
    const struct adapter_linear *adapter; // rank > 0
    float *low;                           // [n][rank]: scratch, x A^T
};

struct linear_rows {
    size_t n;       // T
    const float *x; // [T][n_in], rows x_stride apart
    size_t x_stride;
    float *y;       // [T][n_out], rows y_stride apart
    size_t y_stride;
    const struct row_group *groups; // disjoint; rows outside are the layer's alone
    size_t n_groups;
};

void linear_forward(const struct linear *l, const struct linear_rows *rows, const struct kernels *kernels, struct pool *pool);
