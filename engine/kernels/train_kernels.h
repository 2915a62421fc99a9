// SPDX-License-Identifier: MIT
// The hot loops of training that are not matrix products, behind one table like kernels.h and under the same contract: sums
// along a row take 16 lanes and one fixed tree (K2), AVX2 and AVX-512 give equal bits (K4), kernels_get chooses. What decides
// or moves parameters (scale, dropout, adamw, sgd) gives plain C's bits too. n >= 1. All pointers may be unaligned; an output
// may be an input only where that is said. Nothing here can fail. A NaN going in comes out. Gradients are named d<name>.
#pragma once

#include "base/err.h"

#include <stdint.h>

// AdamW's step t with its scalars worked out once: p *= decay; m, v; p -= rate * m / (sqrt(v) * v_scale + eps).
struct adamw_step {
    float beta1, beta2, eps;
    float decay;      // 1 - lr * weight_decay, or 1
    float rate;       // lr / (1 - beta1^t)
    float v_scale;    // 1 / sqrt(1 - beta2^t)
    float grad_scale; // the clipping factor, multiplied into every gradient
};

// Where in the random stream a row of dropout decisions lies (Philox4x32-10, key = seed): element e takes word (e % 64) / 16 of
// the counter {e / 64 * 16 + e % 16, row, site, step} and is kept when that word >= p * 2^32.
struct dropout_row {
    uint64_t seed;
    uint32_t row, site, step;
    float p; // 0 <= p < 1; kept elements are scaled by 1 / (1 - p)
};
// The least word that keeps an element: p * 2^32 is exact in a double, and below 2^32.
static inline uint32_t dropout_threshold(float p) {
    double t = (double)p * 0x1p32;
    uint32_t whole = (uint32_t)t;
    return whole + (whole < t);
}

struct train_kernels {
    const char *name; // "c" | "avx2" | "avx512"
    // One row of y = norm(x) * w (+ b): dx [n] += its gradient, dw and db [n] += where they are not NULL.
    void (*layernorm_backward)(float *dx, float *dw, float *db, const float *dy, const float *x, const float *w, size_t n,
                               float eps);
    void (*rmsnorm_backward)(float *dx, float *dw, const float *dy, const float *x, const float *w, size_t n, float eps);
    void (*gelu_tanh_backward)(float *dx, const float *dy, const float *x, size_t n); // dx = ; dx may be dy or x
    // dgate = , dup = of y = gate * sigmoid(gate) * up; dgate may be gate or dy, dup up or dy, and not each other.
    void (*swiglu_backward)(float *dgate, float *dup, const float *dy, const float *gate, const float *up, size_t n);
    // Scores s, in place, become p[i] = e^(scale * s[i]) / sum of them; scale > 0. Returns the log of that sum.
    float (*softmax)(float *p, size_t n, float scale);
    // p[i] = e^(scale * s[i] - lse), in place: the softmax again, from a kept log-sum-exp.
    void (*softmax_from_lse)(float *p, size_t n, float scale, float lse);
    // ds[i] = scale * p[i] * (dp[i] - delta), into dp: softmax's gradient (delta = sum of p * dp).
    void (*softmax_backward)(float *dp, const float *p, size_t n, float delta, float scale);
    // Cross-entropy of one row: logits[n] become dlogits = (softmax - onehot) * scale where `backward`, stay otherwise. Returns
    // -log softmax[target], good for 6e-7 of its value whatever n; *argmax is the first largest logit.
    float (*cross_entropy)(float *logits, size_t n, size_t target, float scale, bool backward, size_t *argmax);
    float (*dot)(const float *x, const float *y, size_t n);
    double (*sum_squares)(const float *x, size_t n); // in double; not finite where x is not
    void (*scale)(float *x, float a, size_t n);
    void (*dropout)(float *y, const float *x, size_t n, const struct dropout_row *d); // y may be x; also its own backward
    void (*adamw)(float *p, float *m, float *v, const float *g, size_t n, const struct adamw_step *s);
    // v = momentum * v + g * grad_scale; p = p * decay - lr * v. v NULL: no momentum.
    void (*sgd)(float *p, float *v, const float *g, size_t n, float lr, float momentum, float decay, float grad_scale);
};

const struct train_kernels *train_kernels_get(struct err *err) MUST_CHECK; // the set that kernels_get chooses
const struct train_kernels *train_kernels_by_name(const char *name, struct err *err) MUST_CHECK;
extern const struct train_kernels train_kernels_c; // always there: the obvious reference
