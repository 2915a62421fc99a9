// SPDX-License-Identifier: MIT
// Special tokens are few and start with a rare byte ('<'): jump to the next possible first byte, then narrow a range of
// the sorted entries byte by byte. No automaton to build, and the memory is the list itself.
#include "tokenizer/special_match.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

static int entry_order(const void *a, const void *b) {
    const struct special_entry *x = a, *y = b;
    int order = memcmp(x->bytes, y->bytes, MIN(x->len, y->len));
    if (order) return order;
    if (x->len != y->len) return x->len < y->len ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

void special_matcher_init(struct special_matcher *m, const struct special_entry *entries, size_t n) {
    *m = (struct special_matcher){.entries = mem_alloc(n, sizeof *entries), .only_first = -1};
    for (size_t i = 0; i < n; i++)
        if (entries[i].len) m->entries[m->n++] = entries[i];
    if (!m->n) return;
    qsort(m->entries, m->n, sizeof *m->entries, entry_order);
    size_t kept = 1;
    for (size_t i = 1; i < m->n; i++) {
        const struct special_entry *last = &m->entries[kept - 1];
        if (last->len == m->entries[i].len && !memcmp(last->bytes, m->entries[i].bytes, last->len)) continue;
        m->entries[kept++] = m->entries[i];
    }
    m->n = kept;
    for (size_t i = 0, c = 0; c <= 256; c++) {
        while (i < m->n && (unsigned char)m->entries[i].bytes[0] < c) i++;
        m->first[c] = (uint32_t)i;
    }
    unsigned char c = (unsigned char)m->entries[0].bytes[0];
    if (m->first[c + 1] == m->n) m->only_first = c;
}

void special_matcher_finish(struct special_matcher *m) {
    free(m->entries);
    *m = (struct special_matcher){0};
}

// The first of entries[low..high) whose byte `at` is >= c; all of them are longer than `at` and agree before it.
static size_t lower_bound(const struct special_matcher *m, size_t low, size_t high, size_t at, unsigned c) {
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if ((unsigned char)m->entries[middle].bytes[at] < c) low = middle + 1;
        else high = middle;
    }
    return low;
}

// The longest entry that text[0..len) starts with, or NULL.
static const struct special_entry *longest_at(const struct special_matcher *m, const char *text, size_t len) {
    unsigned char c = (unsigned char)text[0];
    size_t low = m->first[c], high = m->first[c + 1];
    const struct special_entry *best = NULL;
    for (size_t at = 1; low < high; at++) {
        if (m->entries[low].len == at) best = &m->entries[low++]; // the shortest of a range comes first
        if (at == len) break;
        c = (unsigned char)text[at];
        low = lower_bound(m, low, high, at, c);
        high = lower_bound(m, low, high, at, c + 1u);
    }
    return best;
}

size_t special_matcher_find(const struct special_matcher *m, const char *text, size_t from, size_t len,
                            const struct special_entry **found) {
    if (!m->n) return len;
    for (size_t i = from; i < len; i++) {
        if (m->only_first >= 0) {
            const char *p = memchr(text + i, m->only_first, len - i);
            if (!p) return len;
            i = (size_t)(p - text);
        }
        unsigned char c = (unsigned char)text[i];
        if (m->first[c] == m->first[c + 1]) continue;
        const struct special_entry *e = longest_at(m, text + i, len - i);
        if (!e) continue;
        *found = e;
        return i;
    }
    return len;
}
