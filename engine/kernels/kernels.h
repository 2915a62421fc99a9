// SPDX-License-Identifier: MIT
// The hot loops of the forward pass, behind one table. Every instruction set computes the same operations; which is used is
// decided once, at start, from CPUID (or COUPLET_ISA=c|avx2|avx512).
//
// Numeric contract, the ground of batch invariance:
//   K1. An output element is one chain of multiply-adds over k = 0, 1, 2 ... strictly in order; vector lanes run across outputs,
//       never along k. So the bits of a row do not depend on how many rows are computed with it, nor on the thread that does it.
//   K2. Sums along a row (norms, softmax) use 16 lanes, element i in lane i mod 16, and one fixed tree at the end.
//   K3. Quantised weights enter the products as exactly the f32 values that `dequantize` gives: a quantised file and its
//       f32 expansion give equal bits.
//   K4. AVX2 and AVX-512 give equal bits. Plain C multiplies and adds without fusing: invariant in itself, equal to no other.
// All pointers to f32 may be unaligned but for packed panels. Nothing here can fail; sizes were checked at creation.
#pragma once

#include "base/err.h"

#include <stdint.h>

enum { PANEL = 32 };      // outputs a panel of packed weights
enum { KV_BLOCK = 32 };   // positions a block of the KV cache
enum { SCALE_BLOCK = 32 }; // weights along k that share a scale (PACK_Q8, PACK_Q4)

// How weights lie in a panel: for every k (or block of k), the PANEL outputs side by side.
enum pack_type {
    PACK_F32,  // k x PANEL float
    PACK_F16,  // k x PANEL IEEE half
    PACK_BF16, // k x PANEL bfloat16
    PACK_Q8,   // per 32 k: PANEL f16 scales, then 32 x PANEL int8            w = d * q
    PACK_Q8S,  // per 16 k: PANEL f32 scales, then 16 x PANEL int8            w = d * q   (Q6_K, whose scale has more bits than f16)
    PACK_Q4,   // per 32 k: PANEL f16 scales, PANEL f16 minima, then 16 x PANEL bytes, k in the low and k + 1 in the high nibble    w = d * q + m
    PACK_TYPES
};

// A matrix of n_out x n_in weights for y = x W^T + b.
struct packed {
    enum pack_type type;
    size_t n_out, n_in;
    size_t n_panels;     // ceil(n_out / PANEL); the last one is padded with zero weights
    size_t panel_bytes;  // multiple of 64
    unsigned char *data; // [n_panels][panel_bytes], 64-byte aligned
    const float *bias;   // [n_panels * PANEL] or NULL
};

// One head group of one stretch of consecutive positions of one sequence against its cached keys and values.
struct attention_task {
    size_t n_rows, n_group; // query rows; heads that share this key/value head
    size_t position;        // of row 0; row i sees positions 0 .. position + i
    size_t head_size;       // HS
    size_t v_stride;        // floats between two positions of a value block: HS rounded up to 16
    float scale;
    const float *q;         // [n_rows][n_group][HS], rows q_stride floats apart
    size_t q_stride;
    float *out;             // [n_rows][n_group][HS], rows out_stride floats apart
    size_t out_stride;
    // Block i of the sequence lies at kv + table[i] * kv_stride: keys [HS][KV_BLOCK] at + key_at, values [KV_BLOCK][v_stride] at + value_at.
    const float *kv;
    const uint32_t *table;
    size_t kv_stride, key_at, value_at; // floats
    float *scores;          // scratch, afterwards e^(score - max) or (plain C) the softmax itself: n_rows * n_group rows of `score_stride` floats
    size_t score_stride;    // >= positions, rounded up to KV_BLOCK
};

static inline const float *attention_keys(const struct attention_task *t, size_t block) {
    return t->kv + t->table[block] * t->kv_stride + t->key_at;
}
static inline const float *attention_values(const struct attention_task *t, size_t block) {
    return t->kv + t->table[block] * t->kv_stride + t->value_at;
}

struct kernels {
    const char *name; // "c" | "avx2" | "avx512"
    // y[r][o] = bias[o] + sum over k of x[r][k] * w[o][k], for the outputs of panels [panel, panel + n_panels).
    // x: [n_rows][n_in], rows x_stride apart; y: [n_rows][n_out], rows y_stride apart.
    void (*matmul)(const struct packed *w, size_t panel, size_t n_panels, const float *x, size_t x_stride, size_t n_rows, float *y,
                   size_t y_stride);
    // t[r][j] = sum over k of x[r][k] * a[j][k], each a sum of K2: for products whose outputs are few, such as an adapter's lower half.
    // a: [n_out][n_in]; x: [n_rows][n_in], rows x_stride apart; t: [n_rows][n_out], rows t_stride apart.
    void (*dots)(const float *a, size_t n_out, size_t n_in, const float *x, size_t x_stride, size_t n_rows, float *t, size_t t_stride);
    void (*attention)(const struct attention_task *t);
    void (*layernorm)(float *y, const float *x, const float *w, const float *b, size_t n, float eps); // y may be x
    void (*rmsnorm)(float *y, const float *x, const float *w, size_t n, float eps);
    void (*gelu_tanh)(float *y, const float *x, size_t n);                   // y may be x
    void (*swiglu)(float *y, const float *gate, const float *up, size_t n);  // y = gate * sigmoid(gate) * up
    void (*add)(float *y, const float *x, size_t n);                         // y += x
    void (*rope)(float *x, const float *cos, const float *sin, size_t n_head, size_t head_size); // rotates halves; cos, sin: [HS/2]
};

// The table in force. NULL: COUPLET_ISA names something unknown or something this processor lacks.
const struct kernels *kernels_get(struct err *err) MUST_CHECK;
// A table by name, whatever COUPLET_ISA says (tests and `bench` compare them). NULL + ERR_UNSUPPORTED.
const struct kernels *kernels_by_name(const char *name, struct err *err) MUST_CHECK;

extern const struct kernels kernels_c; // always there: the obvious reference
