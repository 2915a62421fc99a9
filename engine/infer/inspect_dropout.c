// SPDX-License-Identifier: MIT
// Torch's dropout on a CPU, number for number: MT19937 (Matsumoto and Nishimura 1998) seeded with the seed's low 32 bits, a 53-bit
// uniform number of two draws for every element, kept below 1 - p.
#include "engine/infer/inspect_internal.h"

enum { N = 624, M = 397 };

void dropout_stream_init(struct dropout_stream *d, const struct inspect_dropout *o) {
    d->keep = 1 - o->p;
    d->at = N;
    d->state[0] = (uint32_t)o->seed;
    for (uint32_t i = 1; i < N; i++) d->state[i] = 1812433253u * (d->state[i - 1] ^ d->state[i - 1] >> 30) + i;
}

static void state_next(uint32_t *s) {
    for (size_t i = 0; i < N; i++) {
        uint32_t y = (s[i] & 0x80000000u) | (s[(i + 1) % N] & 0x7fffffffu);
        s[i] = s[(i + M) % N] ^ y >> 1 ^ (y & 1 ? 0x9908b0dfu : 0);
    }
}

static uint32_t draw(struct dropout_stream *d) {
    if (d->at == N) {
        state_next(d->state);
        d->at = 0;
    }
    uint32_t y = d->state[d->at++];
    y ^= y >> 11;
    y ^= y << 7 & 0x9d2c5680u;
    y ^= y << 15 & 0xefc60000u;
    return y ^ y >> 18;
}

void dropout_stream_apply(struct dropout_stream *d, float *x, size_t n) {
    const float scale = 1.0f / (float)d->keep;
    for (size_t i = 0; i < n; i++) {
        uint64_t high = draw(d), bits = high << 32 | draw(d);
        x[i] = (double)(bits & ((UINT64_C(1) << 53) - 1)) * 0x1p-53 < d->keep ? x[i] * scale : 0;
    }
}
