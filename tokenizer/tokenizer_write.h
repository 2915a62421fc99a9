// SPDX-License-Identifier: MIT
// Writing a tokenizer's files: vocab.json, merges.txt, tokenizer.json, tokenizer_config.json. They load in HF tokenizers and transformers
// and here, with identical ids; vocab.json + merges.txt are what tiktoken's data_gym_to_mergeable_bpe_ranks reads, where GPT-2's order of
// ids was kept (bytes, merges, special tokens). Equal tokenizers give equal bytes.
#pragma once

#include "tokenizer/tokenizer.h"

// Each file appears whole or not at all, none before all are written. dir exists.
bool tokenizer_write(const struct tokenizer *t, const char *dir, struct err *err) MUST_CHECK;
// The parts, for GGUF's metadata: merges by rank as ids of their parts.
size_t tokenizer_merge_count(const struct tokenizer *t);
void tokenizer_merge(const struct tokenizer *t, size_t rank, uint32_t *left, uint32_t *right);
bool tokenizer_is_added(const struct tokenizer *t, uint32_t id); // matched before merging, decoded always
bool tokenizer_is_absent(const struct tokenizer *t, uint32_t id);
bool tokenizer_ignore_merges(const struct tokenizer *t); // a pre-token that is in the vocabulary is taken whole
