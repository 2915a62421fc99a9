// SPDX-License-Identifier: MIT
// Reading tensors: dequantisation, bit-equal to PyPI `gguf` (the Python reference of the formats).
#pragma once

#include "base/float16.h"
#include "engine/model/model_file.h"

// Expands n elements (a multiple of the block size) at `src` to f32.
void dequantize(enum dtype type, const void *src, float *out, size_t n);

// Where HF row r lies in the file (identity unless rope_heads).
size_t tensor_file_row(const struct tensor *t, size_t row);
// HF row `row` as f32, out[shape[1]]; for transposed tensors this gathers a column of the file. Vectors: row 0 of 1 x n is
// tensor_vector's job.
void tensor_row(const struct tensor *t, size_t row, float *out);
void tensor_vector(const struct tensor *t, float *out); // out[shape[0]] of a 1-d tensor

// A linear layer's weight seen the one way the engine uses it: out-features x in-features. For GPT-2's Conv1D (HF shape (in, out)) this
// is the transpose; for nn.Linear (out, in) it is the tensor itself.
struct linear_view {
    const struct tensor *t;
    bool conv1d; // HF shape is (in, out)
    size_t n_out, n_in;
};
// True when in-features of one output lie contiguously in the file (blocks along in-features): quantised data can be kept.
bool linear_view_contiguous(const struct linear_view *v);
// Address of the blocks of output `o` (contiguous views only).
const void *linear_view_blocks(const struct linear_view *v, size_t o);
// Weights of outputs [o0, o0 + n) as f32, out[n][n_in], o-major. Any view.
void linear_view_expand(const struct linear_view *v, size_t o0, size_t n, float *out);
