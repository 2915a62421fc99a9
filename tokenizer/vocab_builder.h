// SPDX-License-Identifier: MIT
// What all vocabulary files have in common: tokens and merges arrive as texts in GPT-2's printable alphabet, in any id
// order; a tokenizer comes out. Lives as long as one load, on one thread. Memory grows with what was added, never with
// an id.
#pragma once

#include "base/map.h"
#include "tokenizer/tokenizer.h"

struct vocab_builder {
    struct builder_token *tokens; // in order of arrival
    size_t n_tokens, tokens_cap;
    struct buf texts;   // the tokens' texts as the file spells them
    struct map by_text; // text -> index in tokens
    struct merge_entry *merges;
    size_t n_merges, merges_cap;
    struct buf pair; // scratch: the joined text of a merge
};

struct builder_token {
    size_t at; // in texts
    uint32_t len, id;
    bool special, added;
    bool literal; // the text is the token's bytes; otherwise it spells them in the printable alphabet
};

// Everything else a tokenizer has; tokenizer_spec without vocabulary and merges.
struct vocab_options {
    enum pre_tokenizer pre;
    bool ignore_merges, add_bos;
    int64_t bos, eos, pad;     // -1: none
    const char *chat_template; // or NULL
};

void vocab_builder_finish(struct vocab_builder *b); // accepts a zeroed one

// A token of the vocabulary proper. A text outside the printable alphabet is taken literally: it decodes but is never
// encoded.
bool vocab_builder_add(struct vocab_builder *b, const char *text, size_t len, size_t id, struct err *err) MUST_CHECK;
// A special token (special) or one matched in every text (!special). The text is literal; it may be in the vocabulary
// already, with the same id.
bool vocab_builder_add_special(struct vocab_builder *b, const char *text, size_t len, size_t id, bool special,
                               struct err *err) MUST_CHECK;
// The next merge by rank: both texts and their concatenation must have been added.
bool vocab_builder_merge(struct vocab_builder *b, const char *left, size_t left_len, const char *right,
                         size_t right_len, struct err *err) MUST_CHECK;
// The same from one text, "left right".
bool vocab_builder_merge_text(struct vocab_builder *b, const char *text, size_t len, struct err *err) MUST_CHECK;
// The id of a text; -1: none.
int64_t vocab_builder_find(const struct vocab_builder *b, const char *text, size_t len);
// Has every one of the 256 bytes a token of its own?
bool vocab_builder_has_all_bytes(const struct vocab_builder *b);
// The last call before vocab_builder_finish: afterwards no text is found any more.
struct tokenizer *vocab_builder_build(struct vocab_builder *b, const struct vocab_options *options,
                                      struct err *err) MUST_CHECK;
