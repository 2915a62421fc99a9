// SPDX-License-Identifier: MIT
// What the hostile-file tests share: damage by seed, a check that every refusal is one clear sentence, a walk over all
// that an accepted model offers, and the peak of memory in use.
#pragma once

#include "base/mem.h"
#include "engine/model/model_internal.h"
#include "engine/model/tensor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#if defined(__SANITIZE_ADDRESS__)
#define HOSTILE_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HOSTILE_ASAN 1
#endif
#endif

static inline uint64_t hostile_random(uint64_t *state) { // splitmix64
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

// One to four wounds within the first `region` bytes; may shorten or lengthen. Returns a malloc'ed block of exactly
// *len bytes, so that a sanitizer sees the first byte read too far.
static inline unsigned char *hostile_mutate(const unsigned char *data, size_t *len, size_t region, uint64_t seed) {
    static const uint64_t words[] = {0,
                                     1,
                                     0x7f,
                                     0xff,
                                     0xffff,
                                     0x7fffffff,
                                     0x80000000,
                                     0xffffffff,
                                     0x7fffffffffffffff,
                                     0x8000000000000000,
                                     0xffffffffffffffff,
                                     0x2000000000000001};
    size_t n = *len;
    unsigned char *b = malloc(n + 64);
    memcpy(b, data, n);
    for (size_t left = 1 + hostile_random(&seed) % 4; left > 0 && n > 80; left--) {
        const size_t at = hostile_random(&seed) % MIN(region, n - 16), count = 1 + hostile_random(&seed) % 8;
        const uint64_t word = words[hostile_random(&seed) % ARRAY_LEN(words)];
        switch (hostile_random(&seed) % 7) {
        case 0: b[at] ^= (unsigned char)(1u << hostile_random(&seed) % 8); break;
        case 1: b[at] = (unsigned char)hostile_random(&seed); break;
        case 2: memcpy(b + at, &word, 8); break;
        case 3: memcpy(b + at, &word, 4); break;
        case 4: memmove(b + at, b + at + count, n - at - count), n -= count; break;
        case 5: // a piece of the header over another: keys twice, tensors that overlap
            memmove(b + at, b + hostile_random(&seed) % MIN(region, n - 16), count);
            break;
        default:
            if (n + count <= *len + 64) memmove(b + at + count, b + at, n - at), n += count;
        }
    }
    unsigned char *exact = malloc(n ? n : 1);
    memcpy(exact, b, n);
    free(b);
    *len = n;
    return exact;
}

// Reads everything an accepted model offers; returns a sum so that nothing is optimised away.
static inline double hostile_exercise(const struct model_file *f) {
    const struct model_config *c = model_file_config(f);
    float *row = NULL;
    double sum = 0;
    for (size_t i = 0; i < model_file_tensor_count(f); i++) {
        const struct tensor *t = model_file_tensor_at(f, i);
        const size_t width = t->n_dims == 2 ? t->shape[1] : t->shape[0];
        row = realloc(row, width * sizeof(float));
        if (t->n_dims == 1) tensor_vector(t, row);
        for (size_t r = 0; t->n_dims == 2 && r < t->shape[0]; r += 1 + t->shape[0] / 64) tensor_row(t, r, row);
        if (t->n_dims == 2) tensor_row(t, t->shape[0] - 1, row);
        sum += (double)row[width - 1];
    }
    if (c->position == POSITION_ROTARY) {
        row = realloc(row, c->head_size / 2 * sizeof(float));
        model_config_rope_frequencies(c, row);
    }
    free(row);
    return sum;
}

// Where the last tensor's data end: what a file holds behind it is padding, whose loss is no damage.
static inline size_t hostile_data_end(const struct model_file *f, const void *file) {
    const unsigned char *end = file;
    for (size_t i = 0; i < model_file_tensor_count(f); i++)
        end = MAX(end, model_file_tensor_at(f, i)->data + model_file_tensor_at(f, i)->n_bytes);
    return (size_t)(end - (const unsigned char *)file);
}

// NULL when the error is one clear sentence, else what is wrong with it.
static inline const char *hostile_error_fault(const struct err *e) {
    const size_t n = strlen(e->message);
    if (e->code == ERR_NONE) return "no code";
    if (n < 12) return "no sentence";
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)e->message[i] < ' ') return "a control character";
    return strstr(e->message, "(null)") ? "a null" : NULL;
}

// ---- memory: bytes in use through malloc at their worst (ASan), or the process's peak (otherwise) ----
#ifdef HOSTILE_ASAN
// sanitizer/allocator_interface.h, which not every compiler package ships.
int __sanitizer_install_malloc_and_free_hooks(void (*on_malloc)(const volatile void *, size_t),
                                              void (*on_free)(const volatile void *));
size_t __sanitizer_get_allocated_size(const volatile void *p);
static size_t hostile_live, hostile_peak;
static void hostile_on_malloc(const volatile void *p, size_t n) {
    const size_t live = __atomic_add_fetch(&hostile_live, n, __ATOMIC_RELAXED);
    if (live > hostile_peak) hostile_peak = live;
}
static void hostile_on_free(const volatile void *p) {
    if (p) __atomic_sub_fetch(&hostile_live, __sanitizer_get_allocated_size(p), __ATOMIC_RELAXED);
}
static inline void hostile_memory_start(void) {
    static bool installed;
    if (!installed) __sanitizer_install_malloc_and_free_hooks(hostile_on_malloc, hostile_on_free);
    installed = true;
    hostile_live = hostile_peak = 0;
}
static inline size_t hostile_memory_peak(void) { return hostile_peak; }
#else
static size_t hostile_base;
static inline size_t hostile_max_rss(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (size_t)u.ru_maxrss * 1024;
}
static inline void hostile_memory_start(void) { hostile_base = hostile_max_rss(); }
static inline size_t hostile_memory_peak(void) { return hostile_max_rss() - hostile_base; }
#endif

static inline size_t hostile_memory_bound(size_t file_len) { return 4 * file_len + ((size_t)64 << 20); }
