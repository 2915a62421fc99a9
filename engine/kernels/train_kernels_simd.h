// SPDX-License-Identifier: MIT
// Training's vector kernels, written once against v16 like kernels_simd.h. The including file defines TRAIN_KERNELS_NAME and
// TRAIN_KERNELS_TABLE. scale, dropout, adamw and sgd do without fused multiply-adds: their bits are plain C's too.
#include "engine/kernels/train_kernels.h"
#include "engine/kernels/vec.h"

#include <math.h>

// ---- norms, activations -------------------------------------------------------------------------------------------------

// With xhat = (x - mean) inv and g = dy w: dx += inv (g - mean(g) - xhat mean(g xhat)).
static void layernorm_backward(float *dx, float *dw, float *db, const float *dy, const float *x, const float *w, size_t n, float eps) {
    float mean = row_sum(x, n) / (float)n, inv = 1.0f / __builtin_sqrtf(row_sum_squares(x, n, mean) / (float)n + eps);
    v16 c = v16_set(mean), s = v16_set(inv), sum = v16_zero(), dot = v16_zero();
    ROW_LOOP(n, {
        v16 xhat = v16_mul(v16_sub(v16_load_m(x + i, m), c), s);
        v16 g = v16_mul(v16_load_m(dy + i, m), v16_load_m(w + i, m)); // 0 past the end
        sum = v16_add(sum, g);
        dot = v16_fma(g, xhat, dot);
    });
    v16 mean_g = v16_set(v16_sum(sum) / (float)n), minus_dot = v16_set(-v16_sum(dot) / (float)n);
    ROW_LOOP(n, {
        v16 d = v16_load_m(dy + i, m), xhat = v16_mul(v16_sub(v16_load_m(x + i, m), c), s);
        v16 g = v16_fma(xhat, minus_dot, v16_sub(v16_mul(d, v16_load_m(w + i, m)), mean_g));
        v16_store_m(dx + i, v16_fma(s, g, v16_load_m(dx + i, m)), m);
        if (dw) v16_store_m(dw + i, v16_fma(d, xhat, v16_load_m(dw + i, m)), m);
        if (db) v16_store_m(db + i, v16_add(d, v16_load_m(db + i, m)), m);
    });
}

static void rmsnorm_backward(float *dx, float *dw, const float *dy, const float *x, const float *w, size_t n, float eps) {
    v16 s = v16_set(1.0f / __builtin_sqrtf(row_sum_squares(x, n, 0) / (float)n + eps)), dot = v16_zero();
    ROW_LOOP(n, {
        v16 g = v16_mul(v16_load_m(dy + i, m), v16_load_m(w + i, m));
        dot = v16_fma(g, v16_mul(v16_load_m(x + i, m), s), dot);
    });
    v16 minus_dot = v16_set(-v16_sum(dot) / (float)n);
    ROW_LOOP(n, {
        v16 d = v16_load_m(dy + i, m), xhat = v16_mul(v16_load_m(x + i, m), s);
        v16 g = v16_fma(xhat, minus_dot, v16_mul(d, v16_load_m(w + i, m)));
        v16_store_m(dx + i, v16_fma(s, g, v16_load_m(dx + i, m)), m);
        if (dw) v16_store_m(dw + i, v16_fma(d, xhat, v16_load_m(dw + i, m)), m);
    });
}

// s + x s (1 - s) 2u' with s = sigmoid(2u), u as in gelu_tanh. Beyond 16 it is 0 or 1 and the cube may overflow. NaN stays.
static void gelu_tanh_backward(float *dx, const float *dy, const float *x, size_t n) {
    v16 one = v16_set(1.0f), a = v16_set(2 * 0.7978845608028654f), limit = v16_set(16.0f), minus_limit = v16_set(-16.0f);
    ROW_LOOP(n, {
        v16 c = v16_min(limit, v16_max(minus_limit, v16_load_m(x + i, m)));
        v16 square = v16_mul(v16_set(0.044715f), v16_mul(c, c)), s = v16_sigmoid(v16_mul(a, v16_fma(square, c, c)));
        v16 slope = v16_mul(a, v16_fma(v16_set(3.0f), square, one));
        v16 t = v16_mul(v16_mul(c, s), v16_mul(v16_sub(one, s), slope));
        v16_store_m(dx + i, v16_mul(v16_load_m(dy + i, m), v16_add(s, t)), m);
    });
}

static void swiglu_backward(float *dgate, float *dup, const float *dy, const float *gate, const float *up, size_t n) {
    v16 one = v16_set(1.0f);
    ROW_LOOP(n, {
        v16 d = v16_load_m(dy + i, m), g = v16_load_m(gate + i, m), u = v16_load_m(up + i, m), s = v16_sigmoid(g);
        v16_store_m(dgate + i, v16_mul(v16_mul(d, u), v16_mul(s, v16_fma(g, v16_sub(one, s), one))), m);
        v16_store_m(dup + i, v16_mul(d, v16_mul(g, s)), m);
    });
}

// ---- softmax, loss ------------------------------------------------------------------------------------------------------

static float softmax(float *p, size_t n, float scale) {
    float max = row_max(p, n);
    v16 top = v16_set(max), s = v16_set(scale), sum = v16_zero();
    ROW_LOOP(n, {
        v16 e = v16_exp(v16_mul(v16_sub(v16_load_m(p + i, m), top), s));
        v16_store_m(p + i, e, m);
        sum = v16_add(sum, v16_first_m(e, m));
    });
    float total = v16_sum(sum);
    v16 norm = v16_set(1.0f / total);
    ROW_LOOP(n, v16_store_m(p + i, v16_mul(v16_load_m(p + i, m), norm), m););
    return scale * max + logf(total);
}

static void softmax_from_lse(float *p, size_t n, float scale, float lse) {
    v16 s = v16_set(scale), minus_lse = v16_set(-lse);
    ROW_LOOP(n, v16_store_m(p + i, v16_exp(v16_fma(v16_load_m(p + i, m), s, minus_lse)), m););
}

static void softmax_backward(float *dp, const float *p, size_t n, float delta, float scale) {
    v16 d = v16_set(delta), s = v16_set(scale);
    ROW_LOOP(n, v16_store_m(dp + i, v16_mul(v16_mul(s, v16_load_m(p + i, m)), v16_sub(v16_load_m(dp + i, m), d)), m););
}

enum { LOSS_STRETCH = 1024 }; // logits summed up in f32 before they join the double

static size_t first_equal(const float *x, size_t n, float value) { // 0 where none is
    v16 v = v16_set(value);
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        unsigned lanes = v16_equal(v16_load(x + i), v);
        if (lanes) return i + (size_t)__builtin_ctz(lanes);
    }
    for (; i < n; i++)
        if (x[i] == value) return i;
    return 0;
}

// Sum of e^(x - max); with `keep` the powers stay in x.
static double exp_sum(float *x, size_t n, float max, bool keep) {
    v16 top = v16_set(max);
    double total = 0;
    for (size_t at = 0; at < n; at += LOSS_STRETCH) {
        float *row = x + at;
        size_t left = n - at < LOSS_STRETCH ? n - at : LOSS_STRETCH;
        v16 sum = v16_zero();
        ROW_LOOP(left, {
            v16 e = v16_exp(v16_sub(v16_load_m(row + i, m), top));
            if (keep) v16_store_m(row + i, e, m);
            sum = v16_add(sum, v16_first_m(e, m));
        });
        total += v16_sum(sum);
    }
    return total;
}

static void scale_row(float *x, float a, size_t n) {
    v16 s = v16_set(a);
    ROW_LOOP(n, v16_store_m(x + i, v16_mul(v16_load_m(x + i, m), s), m););
}

static float cross_entropy(float *logits, size_t n, size_t target, float scale, bool backward, size_t *argmax) {
    float max = row_max(logits, n);
    double loss = (double)max - logits[target];
    *argmax = first_equal(logits, n, max);
    double sum = exp_sum(logits, n, max, backward);
    if (backward) {
        scale_row(logits, (float)(scale / sum), n);
        logits[target] -= scale;
    }
    return (float)(loss + log(sum));
}

// ---- sums, scaling, dropout ---------------------------------------------------------------------------------------------

static float dot(const float *x, const float *y, size_t n) {
    v16 s = v16_zero();
    ROW_LOOP(n, s = v16_fma(v16_load_m(x + i, m), v16_load_m(y + i, m), s););
    return v16_sum(s);
}

static double sum_squares(const float *x, size_t n) {
    d16 s = d16_zero();
    ROW_LOOP(n, s = d16_add_square(s, v16_load_m(x + i, m)););
    return d16_sum(s);
}

// Philox4x32-10 (base/rng.h) of sixteen counters; c becomes the four words.
INLINE void philox16(uint64_t key, i16x c[4]) {
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    i16x m0 = i16x_set(0xD2511F53), m1 = i16x_set(0xCD9E8D57);
    for (int round = 0; round < 10; round++) {
        i16x low0, low1, high0 = i16x_mul_wide(c[0], m0, &low0), high1 = i16x_mul_wide(c[2], m1, &low1);
        c[0] = i16x_xor(i16x_xor(high1, c[1]), i16x_set(k0));
        c[2] = i16x_xor(i16x_xor(high0, c[3]), i16x_set(k1));
        c[1] = low1;
        c[3] = low0;
        k0 += 0x9E3779B9;
        k1 += 0xBB67AE85;
    }
}

static void dropout(float *y, const float *x, size_t n, const struct dropout_row *d) {
    i16x threshold = i16x_set(dropout_threshold(d->p)), row = i16x_set(d->row), site = i16x_set(d->site), step = i16x_set(d->step);
    v16 keep = v16_set(1 / (1 - d->p));
    for (size_t at = 0; at < n; at += 64) {
        i16x c[4] = {i16x_add(i16x_lanes(), i16x_set((uint32_t)(at / 4))), row, site, step};
        philox16(d->seed, c);
        for (size_t j = 0; j < 4 && at + 16 * j < n; j++) {
            size_t i = at + 16 * j, m = n - i < 16 ? n - i : 16;
            v16_store_m(y + i, v16_where_at_least(v16_mul(v16_load_m(x + i, m), keep), c[j], threshold), m);
        }
    }
}

// ---- optimizers ---------------------------------------------------------------------------------------------------------

static void adamw(float *p, float *mean, float *square, const float *g, size_t n, const struct adamw_step *s) {
    v16 beta1 = v16_set(s->beta1), beta2 = v16_set(s->beta2), rest1 = v16_set(1 - s->beta1), rest2 = v16_set(1 - s->beta2);
    v16 decay = v16_set(s->decay), rate = v16_set(s->rate), v_scale = v16_set(s->v_scale), eps = v16_set(s->eps);
    v16 factor = v16_set(s->grad_scale);
    ROW_LOOP(n, {
        v16 gi = v16_mul(v16_load_m(g + i, m), factor);
        v16 mi = v16_add(v16_mul(beta1, v16_load_m(mean + i, m)), v16_mul(rest1, gi));
        v16 vi = v16_add(v16_mul(beta2, v16_load_m(square + i, m)), v16_mul(rest2, v16_mul(gi, gi)));
        v16 step = v16_div(v16_mul(rate, mi), v16_add(v16_mul(v16_sqrt(vi), v_scale), eps));
        v16_store_m(mean + i, mi, m);
        v16_store_m(square + i, vi, m);
        v16_store_m(p + i, v16_sub(v16_mul(v16_load_m(p + i, m), decay), step), m);
    });
}

static void sgd(float *p, float *velocity, const float *g, size_t n, float lr, float momentum, float decay, float grad_scale) {
    v16 rate = v16_set(lr), keep = v16_set(momentum), d = v16_set(decay), factor = v16_set(grad_scale);
    ROW_LOOP(n, {
        v16 step = v16_mul(v16_load_m(g + i, m), factor);
        if (velocity) {
            step = v16_add(v16_mul(keep, v16_load_m(velocity + i, m)), step);
            v16_store_m(velocity + i, step, m);
        }
        v16_store_m(p + i, v16_sub(v16_mul(v16_load_m(p + i, m), d), v16_mul(rate, step)), m);
    });
}

const struct train_kernels TRAIN_KERNELS_TABLE;
const struct train_kernels TRAIN_KERNELS_TABLE = {
    .name = TRAIN_KERNELS_NAME, .layernorm_backward = layernorm_backward, .rmsnorm_backward = rmsnorm_backward,
    .gelu_tanh_backward = gelu_tanh_backward, .swiglu_backward = swiglu_backward, .softmax = softmax, .softmax_from_lse = softmax_from_lse,
    .softmax_backward = softmax_backward, .cross_entropy = cross_entropy, .dot = dot, .sum_squares = sum_squares, .scale = scale_row,
    .dropout = dropout, .adamw = adamw, .sgd = sgd,
};
