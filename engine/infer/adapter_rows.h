// SPDX-License-Identifier: MIT
// A LoRA adapter as the forward uses it: beside the linear layers of a base, y_row += (x_row A^T) (scale B)^T for the rows of the
// sequences that ask for it. The base's packed weights stay as they are and are shared.
//
// Numeric contract: x A^T are sums of kernels->dots; the product with B is a chain over the rank in order (kernels->matmul); it is added
// to y once, after the base's product and bias. So a row's bits depend on its own adapter and nothing else of the step.
// Immutable after creation; owned by its model (model_create_adapted). Any number of threads.
#pragma once

#include "engine/infer/weights.h"

struct adapter;

enum { ADAPTER_MAX_RANK = 4096, ADAPTER_MAX_LOW = 3 * ADAPTER_MAX_RANK }; // of a module; of a linear layer's parts together

struct adapter_part {
    size_t r;        // 0: the part is not touched
    size_t low;      // first column of its lower product in a row's [rank]
    const float *a;  // [r][n_in]
    struct packed b; // scale B: n_out x r, PACK_F32. A view of the one block
};
struct adapter_linear {
    struct adapter_part parts[3]; // of the linear layer's own parts
    size_t rank;                  // of its parts together; 0: the layer is not touched
};

struct adapter_rows {
    struct adapter_linear *linears; // [weights_linears]
    unsigned char *factors;         // one block: every B in panels, then every A as it is
    size_t factor_bytes;
    unsigned char hash[32]; // SHA-256 over the factors by their place in the model
    uint64_t version;       // the hash's beginning, never 0: equal factors share what the prefix cache holds
};

// `a` is copied. ERR_INVALID: a module that is no linear layer of `w`, or of another shape, or named twice. ERR_UNSUPPORTED: rank.
struct adapter_rows *adapter_rows_create(const struct weights *w, const struct model_file *file, const struct adapter *a,
                                         struct err *err) MUST_CHECK;
void adapter_rows_destroy(struct adapter_rows *a); // accepts NULL
size_t adapter_rows_bytes(const struct adapter_rows *a, const struct weights *w);
