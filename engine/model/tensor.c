// SPDX-License-Identifier: MIT
// Rows, vectors and linear views of named tensors.
//
// Invariants: (1) a tensor's bytes were bounded when its file was opened, so nothing here can fail; (2) "file row"
// means a run of blocks along the file's last dimension: shape[1] elements, or shape[0] where the data are transposed.
// Immutable inputs; any thread.
#include "engine/model/tensor.h"

#include "base/mem.h"

#include <assert.h>

enum { BLOCK_MAX = 256 }; // elements of the largest block

static size_t file_row_bytes(const struct tensor *t) {
    const size_t n = t->transposed ? t->shape[0] : t->shape[1];
    return n / dtype_block(t->type) * dtype_block_bytes(t->type);
}

// llama.cpp's permute is reshape(heads, 2, hs / 2).swapaxes(1, 2): half a of pair b moves from a * hs / 2 + b to 2 b +
// a.
size_t tensor_file_row(const struct tensor *t, size_t row) {
    assert(row < t->shape[0]);
    if (!t->rope_heads) return row;
    const size_t hs = t->shape[0] / t->rope_heads, in_head = row % hs;
    return row - in_head + 2 * (in_head % (hs / 2)) + in_head / (hs / 2);
}

// Element `i` of the file row that starts at `row`.
static float element(const struct tensor *t, const unsigned char *row, size_t i) {
    float block[BLOCK_MAX];
    const size_t n = dtype_block(t->type);
    dequantize(t->type, row + i / n * dtype_block_bytes(t->type), block, n);
    return block[i % n];
}

void tensor_row(const struct tensor *t, size_t row, float *out) {
    assert(t->n_dims == 2 && row < t->shape[0]);
    const size_t stride = file_row_bytes(t);
    if (!t->transposed) {
        dequantize(t->type, t->data + tensor_file_row(t, row) * stride, out, t->shape[1]);
        return;
    }
    for (size_t c = 0; c < t->shape[1]; c++) out[c] = element(t, t->data + c * stride, row);
}

void tensor_vector(const struct tensor *t, float *out) {
    assert(t->n_dims == 1);
    if (!t->rope_heads) {
        dequantize(t->type, t->data, out, t->shape[0]);
        return;
    }
    for (size_t i = 0; i < t->shape[0]; i++) out[i] = element(t, t->data, tensor_file_row(t, i));
}

bool linear_view_contiguous(const struct linear_view *v) { return v->conv1d == v->t->transposed; }

const void *linear_view_blocks(const struct linear_view *v, size_t o) {
    assert(linear_view_contiguous(v) && o < v->n_out);
    return v->t->data + (v->conv1d ? o : tensor_file_row(v->t, o)) * file_row_bytes(v->t);
}

// The file is in-features-major: outputs [o0, o0 + n) are a stretch of each file row. Walks the file in order, a few
// blocks at a time, so that both sides stay in cache.
static void expand_columns(const struct linear_view *v, size_t o0, size_t n, float *out) {
    const size_t stride = file_row_bytes(v->t), block = dtype_block(v->t->type), bytes = dtype_block_bytes(v->t->type);
    const size_t width = MAX(block, (size_t)32);
    float part[BLOCK_MAX];
    for (size_t at = o0 / block * block; at < o0 + n; at += width) {
        const size_t count = MIN(width, v->n_out - at);
        const size_t first = MAX(at, o0), end = MIN(at + count, o0 + n);
        for (size_t i = 0; i < v->n_in; i++) {
            dequantize(v->t->type, v->t->data + i * stride + at / block * bytes, part, count);
            for (size_t o = first; o < end; o++) out[(o - o0) * v->n_in + i] = part[o - at];
        }
    }
}

void linear_view_expand(const struct linear_view *v, size_t o0, size_t n, float *out) {
    assert(o0 <= v->n_out && n <= v->n_out - o0);
    if (!linear_view_contiguous(v)) {
        expand_columns(v, o0, n, out);
        return;
    }
    for (size_t o = 0; o < n; o++) dequantize(v->t->type, linear_view_blocks(v, o0 + o), out + o * v->n_in, v->n_in);
}
