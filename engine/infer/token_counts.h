// SPDX-License-Identifier: MIT
// Which tokens a sequence holds and how often each was generated: what penalties need, as a list of distinct tokens
// (walked once a draw) with a hash index (adding is O(1)). Room for everything is made at init. Owned by its sequence;
// not thread-safe.
#pragma once

#include "base/err.h"

#include <stdint.h>

struct token_count {
    uint32_t id;
    uint32_t generated; // 0: only in the prompt
};
struct token_counts {
    struct token_count *items; // distinct, in order of first appearance
    size_t n, cap;
    uint32_t *slots; // index into items + 1; 0: free
    size_t n_slots;  // a power of two >= 2 cap
};

// Room for cap distinct tokens: the smaller of the vocabulary and prompt + max_tokens is always enough.
bool token_counts_init(struct token_counts *c, size_t cap, struct err *err) MUST_CHECK;
void token_counts_finish(struct token_counts *c); // accepts a zeroed one
void token_counts_add_prompt(struct token_counts *c, const uint32_t *ids, size_t n);
void token_counts_add_generated(struct token_counts *c, uint32_t id);
