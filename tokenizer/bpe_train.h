// SPDX-License-Identifier: MIT
// Training a byte-level BPE: which pairs to merge, from texts. The merges are those of HF tokenizers' BpeTrainer with ByteLevel pre-tokenizer and
// the full byte alphabet: most frequent pair first, ties to the smaller (left id, right id).
#pragma once

#include "base/pool.h"
#include "tokenizer/tokenizer.h"

struct bpe_train_options {
    size_t vocab_size; // bytes, merges and special tokens together; >= 256 + n_special
    enum pre_tokenizer pre;
    const char *const *special; // get the first ids, as in HF
    size_t n_special;
    size_t min_frequency; // pairs rarer than this are not merged (0 as HF's default)
    void (*progress)(void *ctx, const char *phase, double fraction); // "count", then "merge"; may be NULL
    void *progress_ctx;
};
struct bpe_trainer;

struct bpe_trainer *bpe_trainer_create(const struct bpe_train_options *o, struct pool *pool, struct err *err) MUST_CHECK;
void bpe_trainer_destroy(struct bpe_trainer *t); // accepts NULL
// Counts the pre-tokens of one document (any bytes; invalid UTF-8 is ERR_INVALID with the offset). Large documents are cut at safe places
// (before a line's first letter or digit) so that the cores share them; nothing of the text is kept but distinct pre-tokens.
bool bpe_trainer_add(struct bpe_trainer *t, const char *text, size_t len, struct err *err) MUST_CHECK;
// Merges until vocab_size or until no pair is left. The tokenizer: `<|endoftext|>` among the special tokens becomes bos and eos.
struct tokenizer *bpe_trainer_finish(struct bpe_trainer *t, struct err *err) MUST_CHECK;
