// SPDX-License-Identifier: MIT
// Byte-pair merging inside one piece of text. struct bpe is immutable once filled; a struct bpe_scratch belongs to one
// call.
//
// The rule (Sennrich et al. 2016 as in GPT-2's encoder.py, ties as in HF tokenizers): start from single bytes; while
// some pair of neighbours is in the merge list, replace the one of lowest rank, the leftmost of equals. Bytes without a
// token vanish first.
#pragma once

#include "tokenizer/tokenizer.h"

#define BPE_NONE UINT32_MAX

struct bpe {
    struct bpe_slot *slots; // hash table of merges; n_slots is a power of two, at most half full
    size_t n_slots;
    uint64_t seed, multiplier; // random: a hostile vocabulary cannot choose collisions; multiplier is odd
    uint32_t byte_id[256];     // BPE_NONE: the vocabulary has no token for this byte
};

struct bpe_scratch {
    struct bpe_symbol *symbols;
    size_t symbols_cap;
    uint64_t *heap;
    size_t heap_cap;
};

// Room for n merges, byte_id all BPE_NONE.
bool bpe_init(struct bpe *b, size_t n_merges, struct err *err) MUST_CHECK;
void bpe_finish(struct bpe *b);
// A pair given twice keeps its last rank, as in HF tokenizers. At most the n_merges of bpe_init.
void bpe_add(struct bpe *b, uint32_t left, uint32_t right, uint32_t rank, uint32_t result);

// The pair's rank, and what it becomes; BPE_NONE: it is not in the merge list.
uint32_t bpe_rank(const struct bpe *b, uint32_t left, uint32_t right, uint32_t *result);

void bpe_scratch_finish(struct bpe_scratch *s);
// Appends the ids of one piece; to *offsets (may be NULL) where each starts, `at` being the place of the piece itself.
// O(len log len) for any piece.
void bpe_encode(const struct bpe *b, struct bpe_scratch *s, const char *piece, size_t len, uint32_t at, struct ids *out,
                struct ids *offsets);
