// SPDX-License-Identifier: MIT
// Arena: chunks that double, each zeroed by the system allocator once, so an allocation is an addition.
#include "base/arena.h"
#include "base/mem.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ARENA_ALIGN 16
#define ARENA_CHUNK_MIN ((size_t)4 << 10)
#define ARENA_CHUNK_MAX ((size_t)1 << 20)

struct arena_chunk {
    struct arena_chunk *next;
    size_t cap, used; // bytes of data; used is a multiple of ARENA_ALIGN
    _Alignas(ARENA_ALIGN) unsigned char data[];
};

void arena_finish(struct arena *a) {
    for (struct arena_chunk *chunk = a->chunks, *next; chunk; chunk = next) {
        next = chunk->next;
        free(chunk);
    }
    *a = (struct arena){0};
}

static struct arena_chunk *chunk_create(size_t cap) {
    struct arena_chunk *chunk = mem_alloc(sizeof *chunk + cap, 1);
    chunk->cap = cap;
    return chunk;
}

// A chunk with room for `bytes`, which is a multiple of ARENA_ALIGN.
static struct arena_chunk *arena_chunk_for(struct arena *a, size_t bytes) {
    struct arena_chunk *head = a->chunks;
    if (head && head->cap - head->used >= bytes) return head;
    if (head && bytes > ARENA_CHUNK_MAX / 4) {
        // A large object gets its own chunk behind the newest one, whose free tail stays in use.
        struct arena_chunk *own = chunk_create(bytes);
        own->next = head->next;
        head->next = own;
        return own;
    }
    size_t cap = head ? MIN(head->cap * 2, ARENA_CHUNK_MAX) : ARENA_CHUNK_MIN;
    struct arena_chunk *chunk = chunk_create(MAX(cap, bytes));
    chunk->next = head;
    a->chunks = chunk;
    return chunk;
}

void *arena_alloc(struct arena *a, size_t n, size_t size) {
    size_t bytes;
    // An absurd product goes on as one that no allocator grants, so that mem_alloc aborts with size and place.
    if (!size_mul(n, size, &bytes) || bytes > PTRDIFF_MAX) bytes = PTRDIFF_MAX;
    bytes = (MAX(bytes, 1) + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN;
    struct arena_chunk *chunk = arena_chunk_for(a, bytes);
    void *p = chunk->data + chunk->used;
    chunk->used += bytes;
    a->used += bytes;
    return p;
}

char *arena_strndup(struct arena *a, const char *s, size_t len) {
    char *copy = arena_alloc(a, len < SIZE_MAX ? len + 1 : len, 1);
    if (len) memcpy(copy, s, len);
    return copy;
}

char *arena_printf(struct arena *a, const char *format, ...) {
    char *text = NULL;
    va_list args;
    va_start(args, format);
    int n = vasprintf(&text, format, args);
    va_end(args);
    assert(n >= 0); // no wide characters are printed, so only a small allocation can have failed
    char *copy = arena_strndup(a, text, (size_t)n);
    free(text);
    return copy;
}
