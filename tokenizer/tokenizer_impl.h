// SPDX-License-Identifier: MIT
// What a struct tokenizer is made of: for the files of this room only. Everything here is immutable after
// tokenizer_create.
#pragma once

#include "base/map.h"
#include "tokenizer/bpe.h"
#include "tokenizer/special_match.h"
#include "tokenizer/tokenizer.h"

#define TOKENIZER_MAX_IDS ((size_t)1 << 20) // far above any vocabulary: bounds what a hostile file can make us allocate

struct token {
    uint32_t at, len; // in tokenizer.bytes
    bool special, added, absent;
};

struct tokenizer {
    struct token *tokens; // [n_vocab]
    size_t n_vocab;
    char *bytes; // all tokens' bytes, one after the other
    struct bpe bpe;
    struct merge_entry *merges; // [n_merges], by rank: what bpe was filled from
    size_t n_merges;
    struct map plain, special;         // bytes -> id; `special` holds the added ones too
    struct special_matcher added, any; // any: special and added
    enum pre_tokenizer pre;
    bool ignore_merges, add_bos;
    int64_t bos, eos, pad;
    char *chat_template;
    uint32_t stop_ids[4];
    size_t n_stop_ids;
};
