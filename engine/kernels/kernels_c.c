// SPDX-License-Identifier: MIT
// The obvious reference: every kernel in plain C, for processors without a vector table and as what the others are compared
// with. Loops run over outputs inside k, so K1 holds here too and compilers can vectorise them.
#include "engine/kernels/kernels.h"

#include "base/float16.h"

#include <math.h>
#include <string.h>

// The PANEL weights at k of a panel.
static void expand_k(enum pack_type type, const unsigned char *panel, size_t k, float out[PANEL]) {
    const uint16_t *h = (const uint16_t *)(const void *)panel;
    switch (type) {
    case PACK_F32: memcpy(out, panel + k * PANEL * 4, PANEL * 4); break;
    case PACK_F16:
        for (size_t o = 0; o < PANEL; o++) out[o] = f16_to_f32(h[k * PANEL + o]);
        break;
    case PACK_BF16:
        for (size_t o = 0; o < PANEL; o++) out[o] = bf16_to_f32(h[k * PANEL + o]);
        break;
    case PACK_Q8: {
        const unsigned char *block = panel + k / 32 * (PANEL * 2 + PANEL * 32);
        const int8_t *q = (const int8_t *)block + PANEL * 2 + k % 32 * PANEL;
        for (size_t o = 0; o < PANEL; o++) out[o] = f16_to_f32(((const uint16_t *)(const void *)block)[o]) * (float)q[o];
        break;
    }
    case PACK_Q8S: {
        const unsigned char *block = panel + k / 16 * (PANEL * 4 + PANEL * 16);
        const int8_t *q = (const int8_t *)block + PANEL * 4 + k % 16 * PANEL;
        for (size_t o = 0; o < PANEL; o++) out[o] = ((const float *)(const void *)block)[o] * (float)q[o];
        break;
    }
    default: {
        const unsigned char *block = panel + k / 32 * (PANEL * 4 + PANEL * 16), *q = block + PANEL * 4 + k % 32 / 2 * PANEL;
        const uint16_t *scales = (const uint16_t *)(const void *)block;
        for (size_t o = 0; o < PANEL; o++) // d * q is exact, so this rounds once, like a fused multiply-add
            out[o] = f16_to_f32(scales[o]) * (float)(k % 2 ? q[o] >> 4 : q[o] & 15) + f16_to_f32(scales[PANEL + o]);
    }
    }
}

enum { ROWS = 64 };

static void matmul_rows(const struct packed *w, size_t panel, const float *x, size_t x_stride, size_t n_rows, float *y, size_t y_stride) {
    float sums[ROWS][PANEL] = {{0}};
    for (size_t k = 0; k < w->n_in; k++) {
        float wk[PANEL];
        expand_k(w->type, w->data + panel * w->panel_bytes, k, wk);
        for (size_t r = 0; r < n_rows; r++)
            for (size_t o = 0; o < PANEL; o++) sums[r][o] += x[r * x_stride + k] * wk[o];
    }
    size_t first = panel * PANEL, n = w->n_out - first < PANEL ? w->n_out - first : PANEL;
    for (size_t r = 0; r < n_rows; r++)
        for (size_t o = 0; o < n; o++) y[r * y_stride + first + o] = sums[r][o] + (w->bias ? w->bias[first + o] : 0);
}

static void matmul(const struct packed *w, size_t panel, size_t n_panels, const float *x, size_t x_stride, size_t n_rows, float *y,
                   size_t y_stride) {
    for (size_t p = panel; p < panel + n_panels; p++)
        for (size_t r = 0; r < n_rows; r += ROWS)
            matmul_rows(w, p, x + r * x_stride, x_stride, n_rows - r < ROWS ? n_rows - r : ROWS, y + r * y_stride, y_stride);
}

static void dots(const float *a, size_t n_out, size_t n_in, const float *x, size_t x_stride, size_t n_rows, float *t, size_t t_stride) {
    for (size_t r = 0; r < n_rows; r++)
        for (size_t j = 0; j < n_out; j++) {
            float sum = 0;
            for (size_t k = 0; k < n_in; k++) sum += x[r * x_stride + k] * a[j * n_in + k];
            t[r * t_stride + j] = sum;
        }
}

static void attention_query(const struct attention_task *t, const float *q, size_t n, float *p, float *out) {
    float max = -INFINITY, sum = 0;
    for (size_t i = 0; i < n; i++) {
        const float *k = attention_keys(t, i / KV_BLOCK) + i % KV_BLOCK;
        float dot = 0;
        for (size_t d = 0; d < t->head_size; d++) dot += q[d] * k[d * KV_BLOCK];
        p[i] = dot * t->scale;
        max = fmaxf(max, p[i]);
    }
    for (size_t i = 0; i < n; i++) sum += p[i] = expf(p[i] - max);
    memset(out, 0, t->head_size * sizeof *out);
    for (size_t i = 0; i < n; i++) {
        const float *v = attention_values(t, i / KV_BLOCK) + i % KV_BLOCK * t->v_stride;
        p[i] /= sum;
        for (size_t d = 0; d < t->head_size; d++) out[d] += p[i] * v[d];
    }
}

static void attention(const struct attention_task *t) {
    for (size_t row = 0; row < t->n_rows; row++)
        for (size_t g = 0; g < t->n_group; g++)
            attention_query(t, t->q + row * t->q_stride + g * t->head_size, t->position + row + 1,
                            t->scores + (row * t->n_group + g) * t->score_stride, t->out + row * t->out_stride + g * t->head_size);
}

static void layernorm(float *y, const float *x, const float *w, const float *b, size_t n, float eps) {
    double mean = 0, variance = 0;
    for (size_t i = 0; i < n; i++) mean += x[i];
    mean /= (double)n;
    for (size_t i = 0; i < n; i++) variance += (x[i] - mean) * (x[i] - mean);
    float inv = (float)(1 / sqrt(variance / (double)n + eps)), m = (float)mean;
    for (size_t i = 0; i < n; i++) y[i] = (x[i] - m) * inv * w[i] + b[i];
}

static void rmsnorm(float *y, const float *x, const float *w, size_t n, float eps) {
    double squares = 0;
    for (size_t i = 0; i < n; i++) squares += (double)x[i] * x[i];
    float inv = (float)(1 / sqrt(squares / (double)n + eps));
    for (size_t i = 0; i < n; i++) y[i] = w[i] * (x[i] * inv);
}

static void gelu_tanh(float *y, const float *x, size_t n) {
    for (size_t i = 0; i < n; i++) {
        float u = 0.7978845608028654f * (x[i] + 0.044715f * x[i] * x[i] * x[i]);
        y[i] = x[i] / (1 + expf(-2 * u)); // = 0.5 x (1 + tanh u)
    }
}

static void swiglu(float *y, const float *gate, const float *up, size_t n) {
    for (size_t i = 0; i < n; i++) y[i] = gate[i] / (1 + expf(-gate[i])) * up[i];
}

static void add(float *y, const float *x, size_t n) {
    for (size_t i = 0; i < n; i++) y[i] += x[i];
}

static void rope(float *x, const float *cos, const float *sin, size_t n_head, size_t head_size) {
    size_t half = head_size / 2;
    for (size_t h = 0; h < n_head; h++)
        for (size_t i = 0; i < half; i++) {
            float *a = x + h * head_size + i, *b = a + half, x1 = *a, x2 = *b;
            *a = x1 * cos[i] - x2 * sin[i];
            *b = x2 * cos[i] + x1 * sin[i];
        }
}

const struct kernels kernels_c = {
    .name = "c", .matmul = matmul, .dots = dots, .attention = attention, .layernorm = layernorm, .rmsnorm = rmsnorm,
    .gelu_tanh = gelu_tanh, .swiglu = swiglu, .add = add, .rope = rope,
};
