// SPDX-License-Identifier: MIT
// How a text becomes tokens, merge by merge, for people to look at. The same rules as tokenizer_encode, written plainly: O(len^2) for a word, so callers
// bound the text.
#pragma once

#include "tokenizer/tokenizer.h"

struct bpe_watcher {
    void *ctx;
    // The next word's symbols: its bytes (those the vocabulary has), then after every merge; the last call has its tokens. Where a vocabulary takes
    // whole words as they are (ignore_merges) the last step may be more than one merge.
    void (*step)(void *ctx, const uint32_t *ids, size_t n);
    // After its steps: where that word lay (a piece of the pre-tokenizer, or a special token written in the text: one step), and its tokens.
    void (*word)(void *ctx, size_t start, size_t len, const uint32_t *ids, size_t n);
};

// Words in the text's order; together they cover it, and their tokens are tokenizer_encode's.
void tokenizer_watch(const struct tokenizer *t, const char *text, size_t len, bool special, const struct bpe_watcher *w);
