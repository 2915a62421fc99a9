// SPDX-License-Identifier: MIT
// See logit_row.h. The loops over LANES are what the compiler turns into vectors: each lane is an accumulator of its
// own, so no reassociation (-ffast-math) is needed, and the bits do not depend on the vector width it picks.
#include "engine/infer/logit_row.h"

#include <assert.h>
#include <string.h>

// gcc -O3 unrolls a loop of up to 16 rounds before it vectorises, which made row_max four times slower: 32 escapes
// that.
enum { LANES = 32 };

#define ALWAYS_INLINE static inline __attribute__((always_inline))

// ---- exp and log ----

// Cody-Waite: y = k ln2 + r, |r| <= ln2/2; degree 7 of exp(r)'s series; 2^k added into the exponent.
ALWAYS_INLINE float exp_lane(float y) {
    const float shift = 0x1.8p23f; // adding it rounds to an integer in the low mantissa bits
    float t = y * 0x1.715476p+0f + shift;
    float k = t - shift;
    float r = (y - k * 0x1.62e4p-1f) - k * 0x1.7f7d1cp-20f;
    float p = 0x1.a01a02p-13f;
    p = p * r + 0x1.6c16c2p-10f;
    p = p * r + 0x1.111112p-7f;
    p = p * r + 0x1.555556p-5f;
    p = p * r + 0x1.555556p-3f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    uint32_t bits, power;
    memcpy(&power, &t, 4);
    memcpy(&bits, &p, 4);
    bits += power << 23;
    bits = y < -86.0f ? 0 : bits; // below that the exponent would wrap; also what makes a banned token impossible
    memcpy(&p, &bits, 4);
    return p;
}

float exp_nonpositive(float y) { return exp_lane(y); }

// v = 2^e m, m in [sqrt(1/2), sqrt(2)); log m = 2 atanh(s), s = (m - 1) / (m + 1), |s| < 0.172.
double log_positive(double v) {
    uint64_t bits;
    memcpy(&bits, &v, 8);
    uint64_t shifted = bits - UINT64_C(0x3fe6a09e667f3bcd); // bits of sqrt(1/2)
    int64_t e = (int64_t)shifted >> 52;
    bits -= (uint64_t)e << 52;
    double m;
    memcpy(&m, &bits, 8);
    double s = (m - 1) / (m + 1), s2 = s * s, sum = 0;
    for (int k = 23; k >= 3; k -= 2) sum = (sum + 1.0 / k) * s2;
    return (double)e * 0x1.62e42fefa39efp-1 + 2 * (s + s * sum);
}

// ---- maximum ----

// *poison becomes NaN when an element is not finite (x - x).
ALWAYS_INLINE float block_max_of(const float *x, size_t n, float *poison) {
    float max[LANES], bad[LANES] = {0};
    for (size_t j = 0; j < LANES; j++) max[j] = x[0];
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t j = 0; j < LANES; j++) {
            float v = x[i + j];
            max[j] = v > max[j] ? v : max[j];
            bad[j] += v - v;
        }
    for (size_t j = 0; i + j < n; j++) {
        max[j] = x[i + j] > max[j] ? x[i + j] : max[j];
        bad[j] += x[i + j] - x[i + j];
    }
    for (size_t half = LANES / 2; half; half /= 2)
        for (size_t j = 0; j < half; j++) {
            max[j] = max[j + half] > max[j] ? max[j + half] : max[j];
            bad[j] += bad[j + half];
        }
    *poison += bad[0];
    return max[0];
}

bool row_max(const float *x, size_t n, float *block_max, float *max, size_t *arg_max) {
    assert(n > 0);
    float poison = 0, best = x[0];
    size_t best_block = 0;
    for (size_t b = 0, at = 0; at < n; b++, at += ROW_BLOCK) {
        float m =
            n - at >= ROW_BLOCK ? block_max_of(x + at, ROW_BLOCK, &poison) : block_max_of(x + at, n - at, &poison);
        block_max[b] = m;
        if (m > best) best = m, best_block = b;
    }
    if (poison != 0) return false; // NaN compares unequal too
    size_t i = best_block * ROW_BLOCK;
    while (x[i] != best) i++;
    *max = best;
    *arg_max = i;
    return true;
}

uint32_t row_rank(const float *x, size_t n, size_t at) {
    assert(at < n);
    const float v = x[at];
    uint32_t rank = 1; // of the elements' own width: the sums stay in the comparisons' lanes
    for (size_t i = 0; i < at; i++) rank += x[i] >= v;
    for (size_t i = at + 1; i < n; i++) rank += x[i] > v;
    return rank;
}

// ---- exponentials ----

ALWAYS_INLINE double block_exp(const float *x, size_t n, float max, float scale, float *w) {
    float sum[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        float e[LANES];
        for (size_t j = 0; j < LANES; j++) e[j] = exp_lane((x[i + j] - max) * scale);
        for (size_t j = 0; j < LANES; j++) sum[j] += e[j];
        if (w) memcpy(w + i, e, sizeof e);
    }
    for (size_t j = 0; i + j < n; j++) {
        float e = exp_lane((x[i + j] - max) * scale);
        sum[j] += e;
        if (w) w[i + j] = e;
    }
    for (size_t half = LANES / 2; half; half /= 2)
        for (size_t j = 0; j < half; j++) sum[j] += sum[j + half];
    return sum[0];
}

double row_exp(const float *x, size_t n, float max, float scale, float *w, double *block_sum) {
    double total = 0;
    for (size_t b = 0, at = 0; at < n; b++, at += ROW_BLOCK) {
        float *out = w ? w + at : NULL;
        double s = n - at >= ROW_BLOCK ? block_exp(x + at, ROW_BLOCK, max, scale, out)
                                       : block_exp(x + at, n - at, max, scale, out);
        if (block_sum) block_sum[b] = s;
        total += s; // float within a block, double across: the rounding error stays near 1e-7 of the sum
    }
    return total;
}

double row_logsumexp(const float *x, size_t n, float max) {
    return (double)max + log_positive(row_exp(x, n, max, 1.0f, NULL, NULL));
}
