// SPDX-License-Identifier: MIT
// Cuts text into the pieces that byte pairs are merged inside. No allocation; any thread.
//
// The regular expressions of enum pre_tokenizer are written out as code: each alternative is tried in its order, and
// every run of white space is looked at a fixed number of times, so cutting is linear whatever the text.
#pragma once

#include "tokenizer/tokenizer.h"

struct pretokenizer {
    enum pre_tokenizer kind;
    const char *at, *end;
    const char *segment_end; // PRE_SMOLLM: gpt2's rules see the text only up to here (the next number, or the end)
};

void pretokenizer_init(struct pretokenizer *p, enum pre_tokenizer kind, const char *text, size_t len);
// The next piece, never empty; pieces lie side by side and cover the whole text. false at the end.
bool pretokenizer_next(struct pretokenizer *p, const char **piece, size_t *len);
