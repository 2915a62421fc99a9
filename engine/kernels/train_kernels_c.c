// SPDX-License-Identifier: MIT
// The obvious reference of training's kernels: plain C, sums in double. What the vector kernels are compared with.
#include "engine/kernels/train_kernels.h"

#include "base/rng.h"

#include <math.h>

// y = xhat * w + b with xhat = (x - mean) * inv. With g = dy * w: dx = inv * (g - mean(g) - xhat * mean(g * xhat)).
static void layernorm_backward(float *dx, float *dw, float *db, const float *dy, const float *x, const float *w, size_t n, float eps) {
    double mean = 0, variance = 0, sum = 0, dot = 0;
    for (size_t i = 0; i < n; i++) mean += x[i];
    mean /= (double)n;
    for (size_t i = 0; i < n; i++) variance += (x[i] - mean) * (x[i] - mean);
    double inv = 1 / sqrt(variance / (double)n + eps);
    for (size_t i = 0; i < n; i++) {
        double g = (double)dy[i] * w[i];
        sum += g;
        dot += g * (x[i] - mean) * inv;
    }
    sum /= (double)n, dot /= (double)n;
    for (size_t i = 0; i < n; i++) {
        double xhat = (x[i] - mean) * inv;
        dx[i] += (float)(inv * ((double)dy[i] * w[i] - sum - xhat * dot));
        if (dw) dw[i] += (float)(dy[i] * xhat);
        if (db) db[i] += dy[i];
    }
}

// y = w * xhat with xhat = x * inv: the same without means.
static void rmsnorm_backward(float *dx, float *dw, const float *dy, const float *x, const float *w, size_t n, float eps) {
    double squares = 0, dot = 0;
    for (size_t i = 0; i < n; i++) squares += (double)x[i] * x[i];
    double inv = 1 / sqrt(squares / (double)n + eps);
    for (size_t i = 0; i < n; i++) dot += (double)dy[i] * w[i] * x[i] * inv;
    dot /= (double)n;
    for (size_t i = 0; i < n; i++) {
        double xhat = x[i] * inv;
        dx[i] += (float)(inv * ((double)dy[i] * w[i] - xhat * dot));
        if (dw) dw[i] += (float)(dy[i] * xhat);
    }
}

// y = x s(2u), s the logistic function, u = sqrt(2/pi) (x + 0.044715 x^3): y' = s + x s (1 - s) 2u'.
// Beyond 16 it is 0 or 1 and the cube may overflow.
static void gelu_tanh_backward(float *dx, const float *dy, const float *x, size_t n) {
    for (size_t i = 0; i < n; i++) {
        float c = x[i] > 16 ? 16 : x[i] < -16 ? -16 : x[i]; // NaN stays
        float square = 0.044715f * c * c, s = 1 / (1 + expf(-2 * 0.7978845608028654f * (c + square * c)));
        dx[i] = dy[i] * (s + c * s * (1 - s) * (2 * 0.7978845608028654f) * (1 + 3 * square));
    }
}

static void swiglu_backward(float *dgate, float *dup, const float *dy, const float *gate, const float *up, size_t n) {
    for (size_t i = 0; i < n; i++) {
        float d = dy[i], g = gate[i], u = up[i], s = 1 / (1 + expf(-g));
        dgate[i] = d * u * s * (1 + g * (1 - s));
        dup[i] = d * g * s;
    }
}

static float softmax(float *p, size_t n, float scale) {
    float max = p[0];
    double sum = 0;
    for (size_t i = 1; i < n; i++) max = p[i] > max ? p[i] : max;
    for (size_t i = 0; i < n; i++) sum += p[i] = expf(scale * (p[i] - max));
    for (size_t i = 0; i < n; i++) p[i] = (float)(p[i] / sum);
    return (float)(log(sum) + (double)scale * max);
}

static void softmax_from_lse(float *p, size_t n, float scale, float lse) {
    for (size_t i = 0; i < n; i++) p[i] = expf(scale * p[i] - lse);
}

static void softmax_backward(float *dp, const float *p, size_t n, float delta, float scale) {
    for (size_t i = 0; i < n; i++) dp[i] = scale * p[i] * (dp[i] - delta);
}

static float cross_entropy(float *logits, size_t n, size_t target, float scale, bool backward, size_t *argmax) {
    size_t top = 0;
    double sum = 0;
    for (size_t i = 1; i < n; i++)
        if (logits[i] > logits[top]) top = i;
    float max = logits[top];
    double loss = (double)max - logits[target];
    for (size_t i = 0; i < n; i++) sum += exp((double)logits[i] - max);
    if (backward) {
        for (size_t i = 0; i < n; i++) logits[i] = (float)(exp((double)logits[i] - max) / sum * scale);
        logits[target] -= scale;
    }
    *argmax = top;
    return (float)(loss + log(sum));
}

static float dot(const float *x, const float *y, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)x[i] * y[i];
    return (float)sum;
}

static double sum_squares(const float *x, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)x[i] * x[i];
    return sum;
}

static void scale_row(float *x, float a, size_t n) {
    for (size_t i = 0; i < n; i++) x[i] *= a;
}

static void dropout(float *y, const float *x, size_t n, const struct dropout_row *d) {
    uint32_t threshold = dropout_threshold(d->p), word[4];
    float keep = 1 / (1 - d->p);
    for (size_t e = 0; e < n; e++) {
        uint32_t counter[4] = {(uint32_t)(e / 64 * 16 + e % 16), d->row, d->site, d->step};
        philox4x32(d->seed, counter, word);
        y[e] = word[e % 64 / 16] >= threshold ? x[e] * keep : 0;
    }
}

static void adamw(float *p, float *m, float *v, const float *g, size_t n, const struct adamw_step *s) {
    for (size_t i = 0; i < n; i++) {
        float gi = g[i] * s->grad_scale;
        m[i] = s->beta1 * m[i] + (1 - s->beta1) * gi;
        v[i] = s->beta2 * v[i] + (1 - s->beta2) * (gi * gi);
        p[i] = p[i] * s->decay - s->rate * m[i] / (sqrtf(v[i]) * s->v_scale + s->eps);
    }
}

static void sgd(float *p, float *v, const float *g, size_t n, float lr, float momentum, float decay, float grad_scale) {
    for (size_t i = 0; i < n; i++) {
        float step = g[i] * grad_scale;
        if (v) step = v[i] = momentum * v[i] + step;
        p[i] = p[i] * decay - lr * step;
    }
}

const struct train_kernels train_kernels_c = {
    .name = "c", .layernorm_backward = layernorm_backward, .rmsnorm_backward = rmsnorm_backward,
    .gelu_tanh_backward = gelu_tanh_backward, .swiglu_backward = swiglu_backward, .softmax = softmax,
    .softmax_from_lse = softmax_from_lse, .softmax_backward = softmax_backward, .cross_entropy = cross_entropy, .dot = dot,
    .sum_squares = sum_squares, .scale = scale_row, .dropout = dropout, .adamw = adamw, .sgd = sgd,
};
