// SPDX-License-Identifier: MIT
// Block formats to f32, one obvious function a format.
//
// Invariants: (1) results are bit-equal to PyPI `gguf`: one rounding for d * scale, one for the product, one for the
// sum, in that order; (2) `src` may lie at any address: every multi-byte load is a memcpy; (3) nothing here can fail.
// Layouts: ggml-common.h of llama.cpp. Any thread.
#include "engine/model/tensor.h"

#include <assert.h>
#include <string.h>

static const struct {
    const char *name;
    size_t block, bytes;
} dtypes[DTYPE_COUNT] = {
    [DTYPE_F32] = {"f32", 1, 4},       [DTYPE_F16] = {"f16", 1, 2},     [DTYPE_BF16] = {"bf16", 1, 2},
    [DTYPE_Q8_0] = {"q8_0", 32, 34},   [DTYPE_Q4_0] = {"q4_0", 32, 18}, [DTYPE_Q4_1] = {"q4_1", 32, 20},
    [DTYPE_Q6_K] = {"q6_k", 256, 210},
};

size_t dtype_block(enum dtype t) {
    assert((unsigned)t < DTYPE_COUNT);
    return dtypes[t].block;
}

size_t dtype_block_bytes(enum dtype t) {
    assert((unsigned)t < DTYPE_COUNT);
    return dtypes[t].bytes;
}

const char *dtype_name(enum dtype t) {
    assert((unsigned)t < DTYPE_COUNT);
    return dtypes[t].name;
}

static inline uint16_t load_u16(const unsigned char *p) {
    uint16_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}

static void expand_f16(const unsigned char *src, float *out, size_t n) {
    for (size_t i = 0; i < n; i++) out[i] = f16_to_f32(load_u16(src + 2 * i));
}

static void expand_bf16(const unsigned char *src, float *out, size_t n) {
    for (size_t i = 0; i < n; i++) out[i] = bf16_to_f32(load_u16(src + 2 * i));
}

static void expand_q8_0(const unsigned char *src, float *out, size_t n) { // f16 d; i8 q[32]
    for (size_t b = 0; b < n / 32; b++, src += 34, out += 32) {
        const float d = f16_to_f32(load_u16(src));
        for (size_t i = 0; i < 32; i++) out[i] = d * (float)(signed char)src[2 + i];
    }
}

static void expand_q4_0(const unsigned char *src, float *out,
                        size_t n) { // f16 d; low nibbles are 0-15, high ones 16-31
    for (size_t b = 0; b < n / 32; b++, src += 18, out += 32) {
        const float d = f16_to_f32(load_u16(src));
        for (size_t i = 0; i < 16; i++) {
            out[i] = d * (float)((src[2 + i] & 15) - 8);
            out[16 + i] = d * (float)((src[2 + i] >> 4) - 8);
        }
    }
}

static void expand_q4_1(const unsigned char *src, float *out, size_t n) { // f16 d; f16 m; nibbles as above
    for (size_t b = 0; b < n / 32; b++, src += 20, out += 32) {
        const float d = f16_to_f32(load_u16(src)), m = f16_to_f32(load_u16(src + 2));
        for (size_t i = 0; i < 16; i++) {
            out[i] = d * (float)(src[4 + i] & 15) + m;
            out[16 + i] = d * (float)(src[4 + i] >> 4) + m;
        }
    }
}

// u8 ql[128]; u8 qh[64]; i8 scale[16]; f16 d. Each half of 128 elements: element 32 k + i (k = 0..3) has its low nibble
// in ql[32 (k & 1) + i] (low nibbles for k < 2), its two high bits at 2 k of qh[i]; a scale covers 16 elements.
static void expand_q6_k(const unsigned char *src, float *out, size_t n) {
    for (size_t b = 0; b < n / 256; b++, src += 210) {
        const float d = f16_to_f32(load_u16(src + 208));
        for (size_t half = 0; half < 2; half++, out += 128) {
            const unsigned char *ql = src + 64 * half, *qh = src + 128 + 32 * half, *scale = src + 192 + 8 * half;
            for (size_t k = 0; k < 4; k++) {
                for (size_t i = 0; i < 32; i++) {
                    const int low = (ql[32 * (k & 1) + i] >> (k < 2 ? 0 : 4)) & 15, high = (qh[i] >> (2 * k)) & 3;
                    const float s = d * (float)(signed char)scale[2 * k + i / 16];
                    out[32 * k + i] = s * (float)((low | high << 4) - 32);
                }
            }
        }
    }
}

void dequantize(enum dtype type, const void *src, float *out, size_t n) {
    assert((unsigned)type < DTYPE_COUNT && n % dtypes[type].block == 0);
    switch (type) {
    case DTYPE_F32: memcpy(out, src, n * sizeof(float)); break;
    case DTYPE_F16: expand_f16(src, out, n); break;
    case DTYPE_BF16: expand_bf16(src, out, n); break;
    case DTYPE_Q8_0: expand_q8_0(src, out, n); break;
    case DTYPE_Q4_0: expand_q4_0(src, out, n); break;
    case DTYPE_Q4_1: expand_q4_1(src, out, n); break;
    case DTYPE_Q6_K: expand_q6_k(src, out, n); break;
    case DTYPE_COUNT: break;
    }
}
