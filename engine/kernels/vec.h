// SPDX-License-Identifier: MIT
// v16: sixteen floats, whatever the register width: one zmm, or two ymm. Kernels are written once against it (kernels_simd.h) and
// compiled once per instruction set, so AVX2 and AVX-512 do the same operations in the same order (K4). At the end: what several
// row kernels share.
#pragma once

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

#ifdef __AVX512F__
typedef __m512 v16;
typedef __m512i i16x; // sixteen 32-bit integers

INLINE v16 v16_zero(void) { return _mm512_setzero_ps(); }
INLINE v16 v16_set(float x) { return _mm512_set1_ps(x); }
INLINE v16 v16_load(const float *p) { return _mm512_loadu_ps(p); }
INLINE void v16_store(float *p, v16 a) { _mm512_storeu_ps(p, a); }
INLINE v16 v16_add(v16 a, v16 b) { return _mm512_add_ps(a, b); }
INLINE v16 v16_sub(v16 a, v16 b) { return _mm512_sub_ps(a, b); }
INLINE v16 v16_mul(v16 a, v16 b) { return _mm512_mul_ps(a, b); }
INLINE v16 v16_div(v16 a, v16 b) { return _mm512_div_ps(a, b); }
INLINE v16 v16_fma(v16 a, v16 b, v16 c) { return _mm512_fmadd_ps(a, b, c); } // a * b + c
INLINE v16 v16_max(v16 a, v16 b) { return _mm512_max_ps(a, b); }
INLINE v16 v16_min(v16 a, v16 b) { return _mm512_min_ps(a, b); }
INLINE v16 v16_first(v16 a, size_t n) { return _mm512_maskz_mov_ps((__mmask16)((1u << n) - 1), a); } // lanes >= n become 0; n < 16
INLINE v16 v16_load_first(const float *p, size_t n) { return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p); }
INLINE void v16_store_first(float *p, v16 a, size_t n) { _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), a); }
INLINE v16 v16_from_i8(const int8_t *p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}
INLINE i16x i16x_from_u8(const uint8_t *p) { return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)); }
// 0..15 as floats out of the nibbles of each lane; the table look-up masks the index to four bits by itself.
INLINE v16 v16_nibble_table(void) { return _mm512_set_ps(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0); }
INLINE v16 v16_low_nibble(i16x x, v16 table) { return _mm512_permutexvar_ps(x, table); }
INLINE v16 v16_high_nibble(i16x x, v16 table) { return _mm512_permutexvar_ps(_mm512_srli_epi32(x, 4), table); }
INLINE v16 v16_from_f16(const uint16_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }
INLINE v16 v16_from_bf16(const uint16_t *p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16));
}
INLINE v16 v16_round(v16 a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
INLINE v16 v16_pow2(v16 n) { // 2^n for integral n in [-126, 127]
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127)), 23));
}
INLINE v16 v16_sqrt(v16 a) { return _mm512_sqrt_ps(a); }
INLINE unsigned v16_equal(v16 a, v16 b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); } // bit i: lane i
INLINE i16x i16x_set(uint32_t x) { return _mm512_set1_epi32((int)x); }
INLINE i16x i16x_lanes(void) { return _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0); }
INLINE i16x i16x_add(i16x a, i16x b) { return _mm512_add_epi32(a, b); }
INLINE i16x i16x_xor(i16x a, i16x b) { return _mm512_xor_si512(a, b); }
INLINE i16x i16x_mul_wide(i16x a, i16x b, i16x *low) { // unsigned; returns the upper 32 bits
    __m512i even = _mm512_mul_epu32(a, b), odd = _mm512_mul_epu32(_mm512_srli_epi64(a, 32), _mm512_srli_epi64(b, 32));
    *low = _mm512_mask_mov_epi32(even, 0xaaaa, _mm512_slli_epi64(odd, 32));
    return _mm512_mask_mov_epi32(_mm512_srli_epi64(even, 32), 0xaaaa, odd);
}
INLINE v16 v16_where_at_least(v16 x, i16x a, i16x b) { // x where a >= b (unsigned), else 0
    return _mm512_maskz_mov_ps(_mm512_cmpge_epu32_mask(a, b), x);
}
typedef struct {
    __m512d lo, hi;
} d16; // sixteen doubles

INLINE d16 d16_zero(void) { return (d16){_mm512_setzero_pd(), _mm512_setzero_pd()}; }
INLINE d16 d16_add_square(d16 s, v16 x) { // s + x^2; the square of a float is exact
    __m512d lo = _mm512_cvtps_pd(_mm512_castps512_ps256(x)), hi = _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1));
    return (d16){_mm512_fmadd_pd(lo, lo, s.lo), _mm512_fmadd_pd(hi, hi, s.hi)};
}
INLINE __m256d d16_fold(d16 s) { // lane i + 8, then i + 4
    __m512d y = _mm512_add_pd(s.lo, s.hi);
    return _mm256_add_pd(_mm512_castpd512_pd256(y), _mm512_extractf64x4_pd(y, 1));
}
INLINE __m256 v16_fold(v16 a) { return _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1)); }
INLINE __m256 v16_fold_max(v16 a) { return _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1)); }
#else
typedef struct {
    __m256 lo, hi;
} v16;
typedef struct {
    __m256i lo, hi;
} i16x;

#define V16(l, h) ((v16){(l), (h)})
INLINE v16 v16_zero(void) { return V16(_mm256_setzero_ps(), _mm256_setzero_ps()); }
INLINE v16 v16_set(float x) { return V16(_mm256_set1_ps(x), _mm256_set1_ps(x)); }
INLINE v16 v16_load(const float *p) { return V16(_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)); }
INLINE void v16_store(float *p, v16 a) {
    _mm256_storeu_ps(p, a.lo);
    _mm256_storeu_ps(p + 8, a.hi);
}
INLINE v16 v16_add(v16 a, v16 b) { return V16(_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)); }
INLINE v16 v16_sub(v16 a, v16 b) { return V16(_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)); }
INLINE v16 v16_mul(v16 a, v16 b) { return V16(_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)); }
INLINE v16 v16_div(v16 a, v16 b) { return V16(_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)); }
INLINE v16 v16_fma(v16 a, v16 b, v16 c) { return V16(_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)); }
INLINE v16 v16_max(v16 a, v16 b) { return V16(_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)); }
INLINE v16 v16_min(v16 a, v16 b) { return V16(_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)); }
INLINE v16 v16_load_first(const float *p, size_t n) { // lanes >= n are 0 and not read; n < 16
    float t[16] = {0};
    memcpy(t, p, n * sizeof *p);
    return v16_load(t);
}
INLINE void v16_store_first(float *p, v16 a, size_t n) {
    float t[16];
    v16_store(t, a);
    memcpy(p, t, n * sizeof *p);
}
INLINE v16 v16_first(v16 a, size_t n) { // lanes >= n become 0
    float t[16];
    v16_store(t, a);
    return v16_load_first(t, n);
}
INLINE v16 v16_from_i8(const int8_t *p) {
    return V16(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p))),
               _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(p + 8)))));
}
INLINE i16x i16x_from_u8(const uint8_t *p) {
    return (i16x){_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p)),
                  _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(p + 8)))};
}
INLINE v16 v16_nibble_table(void) { return v16_zero(); } // no table here: the nibbles are masked and converted
INLINE v16 v16_low_nibble(i16x x, v16 table) {
    (void)table;
    __m256i m = _mm256_set1_epi32(15);
    return V16(_mm256_cvtepi32_ps(_mm256_and_si256(x.lo, m)), _mm256_cvtepi32_ps(_mm256_and_si256(x.hi, m)));
}
INLINE v16 v16_high_nibble(i16x x, v16 table) {
    (void)table;
    return V16(_mm256_cvtepi32_ps(_mm256_srli_epi32(x.lo, 4)), _mm256_cvtepi32_ps(_mm256_srli_epi32(x.hi, 4)));
}
INLINE v16 v16_from_f16(const uint16_t *p) {
    return V16(_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)), _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p + 8))));
}
INLINE __m256 y_from_bf16(const uint16_t *p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16));
}
INLINE v16 v16_from_bf16(const uint16_t *p) { return V16(y_from_bf16(p), y_from_bf16(p + 8)); }
INLINE v16 v16_round(v16 a) {
    return V16(_mm256_round_ps(a.lo, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC),
               _mm256_round_ps(a.hi, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
INLINE __m256 y_pow2(__m256 n) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23));
}
INLINE v16 v16_pow2(v16 n) { return V16(y_pow2(n.lo), y_pow2(n.hi)); }
INLINE v16 v16_sqrt(v16 a) { return V16(_mm256_sqrt_ps(a.lo), _mm256_sqrt_ps(a.hi)); }
INLINE unsigned v16_equal(v16 a, v16 b) { // bit i: lane i
    return (unsigned)_mm256_movemask_ps(_mm256_cmp_ps(a.lo, b.lo, _CMP_EQ_OQ)) |
           (unsigned)_mm256_movemask_ps(_mm256_cmp_ps(a.hi, b.hi, _CMP_EQ_OQ)) << 8;
}
INLINE i16x i16x_set(uint32_t x) { return (i16x){_mm256_set1_epi32((int)x), _mm256_set1_epi32((int)x)}; }
INLINE i16x i16x_lanes(void) {
    return (i16x){_mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0), _mm256_set_epi32(15, 14, 13, 12, 11, 10, 9, 8)};
}
INLINE i16x i16x_add(i16x a, i16x b) { return (i16x){_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)}; }
INLINE i16x i16x_xor(i16x a, i16x b) { return (i16x){_mm256_xor_si256(a.lo, b.lo), _mm256_xor_si256(a.hi, b.hi)}; }
INLINE __m256i y_mul_wide(__m256i a, __m256i b, __m256i *low) {
    __m256i even = _mm256_mul_epu32(a, b), odd = _mm256_mul_epu32(_mm256_srli_epi64(a, 32), _mm256_srli_epi64(b, 32));
    *low = _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa);
    return _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
}
INLINE i16x i16x_mul_wide(i16x a, i16x b, i16x *low) { // unsigned; returns the upper 32 bits
    return (i16x){y_mul_wide(a.lo, b.lo, &low->lo), y_mul_wide(a.hi, b.hi, &low->hi)};
}
INLINE __m256 y_at_least(__m256i a, __m256i b) { return _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_max_epu32(a, b), a)); }
INLINE v16 v16_where_at_least(v16 x, i16x a, i16x b) { // x where a >= b (unsigned), else 0
    return V16(_mm256_and_ps(x.lo, y_at_least(a.lo, b.lo)), _mm256_and_ps(x.hi, y_at_least(a.hi, b.hi)));
}
typedef struct {
    __m256d q[4];
} d16; // sixteen doubles

INLINE d16 d16_zero(void) { return (d16){{_mm256_setzero_pd(), _mm256_setzero_pd(), _mm256_setzero_pd(), _mm256_setzero_pd()}}; }
INLINE __m256d y_add_square(__m256d s, __m128 x) {
    __m256d d = _mm256_cvtps_pd(x);
    return _mm256_fmadd_pd(d, d, s);
}
INLINE d16 d16_add_square(d16 s, v16 x) { // s + x^2; the square of a float is exact
    return (d16){{y_add_square(s.q[0], _mm256_castps256_ps128(x.lo)), y_add_square(s.q[1], _mm256_extractf128_ps(x.lo, 1)),
                  y_add_square(s.q[2], _mm256_castps256_ps128(x.hi)), y_add_square(s.q[3], _mm256_extractf128_ps(x.hi, 1))}};
}
INLINE __m256d d16_fold(d16 s) { // lane i + 8, then i + 4
    return _mm256_add_pd(_mm256_add_pd(s.q[0], s.q[2]), _mm256_add_pd(s.q[1], s.q[3]));
}
INLINE __m256 v16_fold(v16 a) { return _mm256_add_ps(a.lo, a.hi); }
INLINE __m256 v16_fold_max(v16 a) { return _mm256_max_ps(a.lo, a.hi); }
#endif

// The one tree of K2: lane i meets lane i + 8, then i + 4, i + 2, i + 1.
INLINE float v16_sum(v16 a) {
    __m256 y = v16_fold(a);
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}
INLINE double d16_sum(d16 s) {
    __m256d y = d16_fold(s);
    __m128d x = _mm_add_pd(_mm256_castpd256_pd128(y), _mm256_extractf128_pd(y, 1));
    return _mm_cvtsd_f64(_mm_add_sd(x, _mm_unpackhi_pd(x, x)));
}
INLINE float v16_max_lane(v16 a) {
    __m256 y = v16_fold_max(a);
    __m128 x = _mm_max_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
    x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}

// e^x within 2 ulp: x = n ln 2 + r, |r| <= ln 2 / 2, e^r by a polynomial (Cephes expf). Clamped to [-87.3, 88.3], so never 0, never infinite.
// NaN stays NaN: max and min give their second operand when one of them is.
INLINE v16 v16_exp(v16 x) {
    x = v16_min(v16_set(88.3f), v16_max(v16_set(-87.3f), x));
    v16 n = v16_round(v16_mul(x, v16_set(1.44269504088896341f)));
    v16 r = v16_fma(n, v16_set(-0.693359375f), x);
    r = v16_fma(n, v16_set(2.12194440e-4f), r);
    v16 p = v16_set(1.9875691500e-4f);
    p = v16_fma(p, r, v16_set(1.3981999507e-3f));
    p = v16_fma(p, r, v16_set(8.3334519073e-3f));
    p = v16_fma(p, r, v16_set(4.1665795894e-2f));
    p = v16_fma(p, r, v16_set(1.6666665459e-1f));
    p = v16_fma(p, r, v16_set(5.0000001201e-1f));
    p = v16_fma(v16_mul(r, r), p, v16_add(r, v16_set(1.0f)));
    return v16_mul(p, v16_pow2(n));
}

// A loop over a row of n floats: the body runs for i = 0, 16, 32 ... with m elements to handle, 16 but for the last. m is a
// constant in the loop proper, so v16_load_m and v16_store_m cost nothing there.
#define ROW_LOOP(n, ...)                   \
    do {                                   \
        size_t i = 0;                      \
        for (; i + 16 <= (n); i += 16) {   \
            const size_t m = 16;           \
            __VA_ARGS__                    \
        }                                  \
        if (i < (n)) {                     \
            const size_t m = (n) - i;      \
            __VA_ARGS__                    \
        }                                  \
    } while (0)

INLINE v16 v16_load_m(const float *p, size_t m) { return m == 16 ? v16_load(p) : v16_load_first(p, m); }
INLINE v16 v16_first_m(v16 a, size_t m) { return m == 16 ? a : v16_first(a, m); }
INLINE void v16_store_m(float *p, v16 a, size_t m) {
    if (m == 16) v16_store(p, a);
    else v16_store_first(p, a, m);
}

INLINE float row_sum(const float *x, size_t n) {
    v16 s = v16_zero();
    ROW_LOOP(n, s = v16_add(s, v16_load_m(x + i, m)););
    return v16_sum(s);
}

// sum of (x - mean)^2
INLINE float row_sum_squares(const float *x, size_t n, float mean) {
    v16 s = v16_zero(), c = v16_set(mean);
    ROW_LOOP(n, v16 d = v16_first_m(v16_sub(v16_load_m(x + i, m), c), m); s = v16_fma(d, d, s););
    return v16_sum(s);
}

INLINE float row_max(const float *x, size_t n) { // n >= 1; a NaN may be passed over
    v16 top = v16_set(x[0]);
    size_t i = 0;
    for (; i + 16 <= n; i += 16) top = v16_max(top, v16_load(x + i));
    float max = v16_max_lane(top);
    for (; i < n; i++) max = x[i] > max ? x[i] : max;
    return max;
}

INLINE v16 v16_sigmoid(v16 x) { return v16_div(v16_set(1.0f), v16_add(v16_set(1.0f), v16_exp(v16_sub(v16_zero(), x)))); }
