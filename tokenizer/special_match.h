// SPDX-License-Identifier: MIT
// Finds special tokens in text: leftmost, longest first. Immutable after special_matcher_init; any thread.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct special_entry {
    const char *bytes; // borrowed
    uint32_t len, id;
};

struct special_matcher {
    struct special_entry *entries; // sorted bytewise; no empty ones, no duplicates
    size_t n;
    uint32_t first[257]; // entries that start with byte c: first[c]..first[c + 1]
    int only_first;      // the byte that all of them start with, or -1
};

// Copies the n entries, borrows their bytes. Empty ones are left out; of equal ones the lowest id stays. A zeroed
// matcher finds nothing.
void special_matcher_init(struct special_matcher *m, const struct special_entry *entries, size_t n);
void special_matcher_finish(struct special_matcher *m);
// The first match in text[from..len): its place, with *found set; len when there is none. At most (longest entry) steps
// a byte.
size_t special_matcher_find(const struct special_matcher *m, const char *text, size_t from, size_t len,
                            const struct special_entry **found);
