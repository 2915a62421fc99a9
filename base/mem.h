// SPDX-License-Identifier: MIT
// Memory and checked size arithmetic.
//
// Two kinds of allocation. Small, of a size the program itself chose: mem_alloc & co. abort with size and place when the
// system refuses. Anything sized by a file or a request: mem_try_* reports ERR_NO_MEMORY, after checked arithmetic.
#pragma once

#include "base/err.h"

#include <stdint.h>

// Never NULL (size 0 gives a unique pointer). Freed by free(). Zeroed: mem_alloc always zeroes.
void *mem_alloc_at(size_t n, size_t size, const char *file, int line) __attribute__((returns_nonnull));
void *mem_resize_at(void *p, size_t n, size_t size, const char *file, int line) __attribute__((returns_nonnull));
#define mem_alloc(n, size) mem_alloc_at((n), (size), __FILE__, __LINE__)       // n objects of size bytes, zeroed
#define mem_resize(p, n, size) mem_resize_at((p), (n), (size), __FILE__, __LINE__) // new tail NOT zeroed
#define mem_new(type) ((type *)mem_alloc(1, sizeof(type)))
char *mem_strdup(const char *s);
char *mem_strndup(const char *s, size_t n); // copies n bytes and adds a NUL

// NULL + ERR_NO_MEMORY when n * size overflows or the system refuses. `what` names the thing in the message. Zeroed.
void *mem_try_alloc(size_t n, size_t size, const char *what, struct err *err) MUST_CHECK;

// Large arrays that kernels read: 64-byte aligned, huge pages advised, committed as touched, zero on first touch.
// Release with mem_unmap_array(p, size). size > 0.
void *mem_map_array(size_t size, const char *what, struct err *err) MUST_CHECK;
void mem_unmap_array(void *p, size_t size); // accepts NULL

// *out = a op b; false on overflow, *out untouched.
static inline bool size_mul(size_t a, size_t b, size_t *out) {
    size_t r;
    if (__builtin_mul_overflow(a, b, &r)) return false;
    *out = r;
    return true;
}
static inline bool size_add(size_t a, size_t b, size_t *out) {
    size_t r;
    if (__builtin_add_overflow(a, b, &r)) return false;
    *out = r;
    return true;
}

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

// Grows `*items` (element size `size`) so that at least `need` fit; doubles. For small arrays (aborts on failure).
void mem_grow_at(void **items, size_t *cap, size_t need, size_t size, const char *file, int line);
#define mem_grow(items_ptr, cap_ptr, need) \
    mem_grow_at((void **)(items_ptr), (cap_ptr), (need), sizeof(**(items_ptr)), __FILE__, __LINE__)
