// SPDX-License-Identifier: MIT
// Training a byte-level BPE: which pairs to merge, from texts. The merges are those of HF tokenizers' BpeTrainer with ByteLevel pre-tokenizer
// and the full byte alphabet: most frequent pair first, ties to the smaller (left id, right id).
// One thread calls; counting is shared out over the pool. Memory grows with the distinct pre-tokens, not with the texts.
#pragma once

#include "base/pool.h"
#include "tokenizer/tokenizer.h"

struct bpe_train_options {
    size_t vocab_size; // bytes, merges and special tokens together; >= 256 + n_special
    enum pre_tokenizer pre;
    const char *const *special; // UTF-8, not empty; one given twice counts once
    size_t n_special;
    bool special_first;   // ids from 0, as HF's trainer gives them; else the last ids, as in GPT-2: then tiktoken reads the files
    size_t min_frequency; // pairs rarer than this are not merged (0 and 1: every pair is)
    void (*progress)(void *ctx, size_t n_merges, size_t n_wanted); // after each merge; may be NULL
    void *progress_ctx;
};
struct bpe_trainer;

// Copies what o points to; borrows pool (may be NULL).
struct bpe_trainer *bpe_trainer_create(const struct bpe_train_options *o, struct pool *pool, struct err *err) MUST_CHECK;
void bpe_trainer_destroy(struct bpe_trainer *t); // accepts NULL
// Counts the pre-tokens of a text: a document, or a part cut at bpe_trainer_cut. Invalid UTF-8 is ERR_INVALID with its place, `offset` being
// that of the text in its document. After a failure the trainer can only be destroyed. Special tokens in texts are ordinary text, as in HF.
bool bpe_trainer_add(struct bpe_trainer *t, const char *text, size_t len, uint64_t offset, struct err *err) MUST_CHECK;
// The last place where the text can be cut without changing the merges; 0: nowhere.
size_t bpe_trainer_cut(const struct bpe_trainer *t, const char *text, size_t len);
// Merges until vocab_size or until no pair is left; the last call before destroy. ERR_INVALID: no text was added.
// <|endoftext|> among the special tokens becomes bos and eos.
struct tokenizer *bpe_trainer_finish(struct bpe_trainer *t, struct err *err) MUST_CHECK;
