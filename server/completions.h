// SPDX-License-Identifier: MIT
// /v1/completions: its fields, its prompts, its replies. Pool thread for the request's half, loop thread for the reply's.
#pragma once

#include "server/generation.h"

struct completion_fields {
    struct sampling_fields sampling; // first: what sampling_table fills
    const json_t *prompt;
    int64_t max_tokens, best_of, logprobs;
    bool echo, parse_special, add_special_tokens;
};

extern const struct field_table completion_table;
extern const struct reply_format completion_format;

// The prompts of `f` as g->prompts, g->n_prompts; lengths checked against the context.
bool completion_prompts_read(struct generation *g, const struct completion_fields *f) MUST_CHECK;

// A prompt that is token ids: at least one, all below n_vocab.
bool prompt_ids_read(struct http_request *r, const char *param, const json_t *array, size_t n_vocab, struct id_list *out) MUST_CHECK;

// The beginning of a document, what an empty prompt becomes: <|endoftext|>, BOS or EOS, the first that the vocabulary has. false: none.
bool prompt_add_stand_in(const struct tokenizer *t, struct ids *ids);

// A text as the model reads it: BOS where the tokenizer asks for one, special tokens where `special`. 400 when there is no tokenizer.
// Fills ids, text, n_chars and, when `offsets`, char_offset.
bool prompt_from_text(struct http_request *r, const struct tokenizer *t, const char *param, struct text text,
                      bool add_bos, bool special, bool offsets, struct prompt *out) MUST_CHECK;
