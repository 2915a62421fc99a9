// SPDX-License-Identifier: MIT
// How often each pre-token occurs: what BPE training keeps of a text. `{0}` is an empty table. One thread writes a table.
#pragma once

#include "tokenizer/tokenizer.h"

struct word_counts {
    struct word_slot *slots; // open addressing; n_slots is 0 or a power of two
    size_t n_slots, n_words;
    uint64_t n_bytes; // of the distinct words together
    char *longs;      // the bytes of words too long for their slot
    size_t longs_len, longs_cap;
    uint64_t seed[2]; // random: a hostile text cannot choose collisions
};

void word_counts_finish(struct word_counts *w);
// Counts the pre-tokens of a text.
bool word_counts_add_text(struct word_counts *w, enum pre_tokenizer pre, const char *text, size_t len, struct err *err) MUST_CHECK;
bool word_counts_add_all(struct word_counts *w, const struct word_counts *other, struct err *err) MUST_CHECK;
// The words in no order. *at starts at 0; false at the end. *bytes is valid until the next change.
bool word_counts_next(const struct word_counts *w, size_t *at, const char **bytes, size_t *len, uint64_t *count);

// May a text be cut before text[at], 0 < at < len, without changing its pre-tokens? At white space behind something else: there a pre-token
// begins, and no rule looks back.
bool text_can_cut(enum pre_tokenizer pre, const char *text, size_t at);
