// SPDX-License-Identifier: MIT
// Memory: aborting and reporting allocation, and large page-mapped arrays. Any thread; no state.
#include "base/mem.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define HUGE_PAGE_BYTES ((size_t)2 << 20)

static _Noreturn void mem_abort(size_t n, size_t size, const char *file, int line) {
    fprintf(stderr, "out of memory: %zu objects of %zu bytes at %s:%d\n", n, size, file, line);
    abort();
}

void *mem_alloc_at(size_t n, size_t size, const char *file, int line) {
    if (n == 0 || size == 0) n = size = 1;
    void *p = calloc(n, size); // checks n * size itself
    if (!p) mem_abort(n, size, file, line);
    return p;
}

void *mem_resize_at(void *p, size_t n, size_t size, const char *file, int line) {
    size_t bytes;
    if (!size_mul(n, size, &bytes)) mem_abort(n, size, file, line);
    void *q = realloc(p, bytes ? bytes : 1); // realloc(p, 0) would free p
    if (!q) mem_abort(n, size, file, line);
    return q;
}

char *mem_strndup(const char *s, size_t n) {
    size_t bytes;
    if (!size_add(n, 1, &bytes)) mem_abort(n, 1, __FILE__, __LINE__);
    char *copy = mem_resize(NULL, bytes, 1);
    if (n) memcpy(copy, s, n);
    copy[n] = 0;
    return copy;
}

char *mem_strdup(const char *s) {
    return mem_strndup(s, strlen(s));
}

void *mem_try_alloc(size_t n, size_t size, const char *what, struct err *err) {
    size_t bytes;
    if (!size_mul(n, size, &bytes) || bytes > PTRDIFF_MAX) {
        err_set(err, ERR_NO_MEMORY, "%s: %zu x %zu bytes is more than the machine can address", what, n, size);
        return NULL;
    }
    void *p = calloc(1, bytes ? bytes : 1);
    if (!p) err_set(err, ERR_NO_MEMORY, "%s: not enough memory for %zu bytes", what, bytes);
    return p;
}

static size_t page_round_up(size_t size) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return (size + page - 1) / page * page;
}

void *mem_map_array(size_t size, const char *what, struct err *err) {
    assert(size > 0);
    if (size > PTRDIFF_MAX - 2 * HUGE_PAGE_BYTES) {
        err_set(err, ERR_NO_MEMORY, "%s: %zu bytes is more than the machine can address", what, size);
        return NULL;
    }
    // The kernel uses a huge page only where a whole aligned one fits: map one more, then give back what sticks out.
    size_t bytes = page_round_up(size), slack = bytes >= HUGE_PAGE_BYTES ? HUGE_PAGE_BYTES : 0;
    char *p = mmap(NULL, bytes + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        err_set(err, ERR_NO_MEMORY, "%s: not enough memory for %zu bytes", what, size);
        return NULL;
    }
    if (!slack) return p;
    size_t head = (HUGE_PAGE_BYTES - (uintptr_t)p % HUGE_PAGE_BYTES) % HUGE_PAGE_BYTES;
    if (head) munmap(p, head);
    if (slack > head) munmap(p + head + bytes, slack - head);
    madvise(p + head, bytes, MADV_HUGEPAGE); // advice: refusal costs speed only
    return p + head;
}

void mem_unmap_array(void *p, size_t size) {
    if (p) munmap(p, page_round_up(size));
}

void mem_grow_at(void **items, size_t *cap, size_t need, size_t size, const char *file, int line) {
    if (need <= *cap) return;
    size_t grown = MAX(*cap < SIZE_MAX / 2 ? *cap * 2 : need, 8);
    grown = MAX(grown, need);
    *items = mem_resize_at(*items, grown, size, file, line);
    *cap = grown;
}
