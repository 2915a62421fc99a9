// SPDX-License-Identifier: MIT
// The 16-bit floats of model files and packed weights: IEEE half and bfloat16, to f32 (exact) and back (to nearest even). Plain C, so that the
// bits are those of every processor; the vector kernels have the hardware's own.
#pragma once

#include <stdint.h>
#include <string.h>

static inline float float_of_bits(uint32_t u) {
    float f;
    memcpy(&f, &u, sizeof(f));
    return f;
}

static inline uint32_t bits_of_float(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof(u));
    return u;
}

// Branch-light so that loops over it vectorise. Normal numbers and infinities: shift the exponent by multiplying with
// 2^112 (exact); subnormals: the mantissa as an integer above a magic exponent, minus the magic (exact).
static inline float f16_to_f32(uint16_t h) {
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16, rest = (uint32_t)(h & 0x7fffu) << 13;
    const uint32_t normal = rest + ((uint32_t)(127 - 15) << 23);
    const uint32_t special = rest | 0x7f800000u;
    const uint32_t subnormal = bits_of_float(float_of_bits((rest >> 13) | 0x3f000000u) - 0.5f); // m * 2^-24
    uint32_t u = rest >= 0x0f800000u ? special : normal;
    u = rest < 0x00800000u ? subnormal : u;
    return float_of_bits(sign | u);
}

static inline uint16_t f32_to_f16(float f) {
    const uint32_t u = bits_of_float(f), sign = (u >> 16) & 0x8000u, a = u & 0x7fffffffu;
    if (a > 0x7f800000u) return (uint16_t)(sign | 0x7e00u | ((a >> 13) & 0x3ffu)); // NaN stays one
    if (a >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u);                       // 65520 and more round to infinity
    if (a < 0x38800000u) { // below 2^-14: the sum's rounding to a multiple of 2^-24 is the rounding wanted
        const float sum = float_of_bits(a) + 0.5f;
        return (uint16_t)(sign | (bits_of_float(sum) - 0x3f000000u));
    }
    const uint32_t odd = (a >> 13) & 1u;
    return (uint16_t)(sign | ((a - 0x38000000u + 0xfffu + odd) >> 13));
}

static inline float bf16_to_f32(uint16_t h) { return float_of_bits((uint32_t)h << 16); }

static inline uint16_t f32_to_bf16(float f) {
    const uint32_t u = bits_of_float(f);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(u >> 16 | 0x40u); // NaN stays one
    return (uint16_t)((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}
