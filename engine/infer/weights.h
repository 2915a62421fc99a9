// SPDX-License-Identifier: MIT
// Weights of a decoder as the forward pass uses them: packed for the kernels, in slots that GPT-2 and Llama fill from their own names.
//
// A linear layer may have several named parts side by side in its output (q|k|v, gate|up): one product, but each part keeps its own
// checkpoint name, precision and columns, so adapters and export still find it.
#pragma once

#include "base/arena.h"
#include "base/pool.h"
#include "engine/infer/model.h"
#include "engine/kernels/pack.h"

struct linear_part {
    const char *name; // checkpoint name without ".weight"; owned by the weights' arena
    size_t column;    // first output column in y
    struct packed w;
};
struct linear {
    struct linear_part parts[3];
    size_t n_parts, n_in, n_out;
    size_t index; // weights_linear(w, index) is this one
};

struct layer_weights {
    const float *norm1_w, *norm1_b; // [C]; b NULL for rmsnorm
    struct linear qkv;              // C -> (NH + 2 NKV) HS
    struct linear out;              // NH HS -> C
    const float *norm2_w, *norm2_b; // [C]
    struct linear up;               // C -> F (gelu) or gate|up: C -> 2 F (swiglu)
    struct linear down;             // F -> C
};

struct weights {
    const struct model_config *config;
    const struct tensor *embedding; // [V][C], read row by row from the file
    float *positions;               // [n_ctx][C] or NULL
    const float *rope_frequency;    // [HS / 2] or NULL: angle of a position = position * frequency
    struct layer_weights *layers;   // [L]
    const float *norm_w, *norm_b;   // [C]
    struct linear head;             // C -> V
    size_t bytes;                   // packed, in all
    enum pack_type main_type;       // of most bytes
    bool mixed;                     // the matrices (head apart) have several types
    struct arena arena;              // names and vectors
};

bool weights_load(struct weights *w, const struct model_file *file, enum weights_mode mode, struct pool *pool, struct err *err) MUST_CHECK;
void weights_finish(struct weights *w); // accepts a zeroed one

size_t weights_linears(const struct weights *w);                            // how many linear layers; the head is the last
const struct linear *weights_linear(const struct weights *w, size_t index); // in the order of the forward

const struct weights *model_weights(const struct model *m);
