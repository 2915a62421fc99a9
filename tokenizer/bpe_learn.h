// SPDX-License-Identifier: MIT
// The merges that byte pair encoding learns from counted words. One thread; everything lives as long as one training.
//
// Words are sequences of ids. Each step takes the most frequent pair of neighbours (ties: the smaller left id, then the smaller right id),
// gives it the next id and replaces it everywhere, in a word from left to right.
#pragma once

#include "tokenizer/word_counts.h"

struct bpe_learner;

// ids: of the 256 bytes, below max_ids, which bounds the ids of merges as well.
struct bpe_learner *bpe_learner_create(const struct word_counts *words, const uint32_t ids[256], size_t max_ids, struct err *err) MUST_CHECK;
void bpe_learner_destroy(struct bpe_learner *l); // accepts NULL
// The pair to merge next and how often it occurs; false: none is left.
bool bpe_learner_best(struct bpe_learner *l, uint32_t *left, uint32_t *right, uint64_t *count);
// Merges the pair that bpe_learner_best has just named into id, which no word holds yet.
bool bpe_learner_merge(struct bpe_learner *l, uint32_t id, struct err *err) MUST_CHECK;
