// SPDX-License-Identifier: MIT
// Arena: many small allocations with one lifetime (a request, a parsed header). Not thread-safe; `{0}` is an empty one.
#pragma once

#include "base/err.h"

struct arena {
    struct arena_chunk *chunks; // newest first
    size_t used;                // bytes handed out in all
};

void arena_finish(struct arena *a); // frees everything; accepts a zeroed one
void *arena_alloc(struct arena *a, size_t n, size_t size) __attribute__((returns_nonnull)); // zeroed, 16-byte aligned; aborts
char *arena_strndup(struct arena *a, const char *s, size_t len) __attribute__((returns_nonnull));
char *arena_printf(struct arena *a, const char *format, ...) PRINTF_LIKE(2, 3) __attribute__((returns_nonnull));
