// SPDX-License-Identifier: MIT
// The answers of a model on a set of examples with references: read, generated, scored, written. For `couplet eval`. One thread.
#pragma once

#include "engine/train/text_scores.h"
#include "server/judge.h"
#include "server/local_engine.h"
#include "tokenizer/chat_template.h"

struct eval_item {
    size_t number;                // of its row: which of the file's, from 0
    size_t line;                  // of its row
    char *instruction, *input;    // for people; input "" where there is none
    char *reference;              // the correct answer
    char *prompt;                 // all that the model is given, as text
    char *read;                   // the same with its template, as /v1/completions takes it
    struct ids prompt_ids;
    char *row;                    // the row's JSON as it stood in the file
    char *answer, *base;          // NULL before they were generated
    struct text_scores scores;    // of answer
    double judge;                 // NaN: not judged
};
struct eval_items {
    struct eval_item *items;
    size_t n, cap;
    size_t n_rows; // read, those without an answer too
};
struct eval_means {
    double exact_match, token_f1, rouge_l;
    double judge; // over the judged; NaN: none
    size_t n_judged;
};

// Rows with a question and an answer: instruction, prompt + completion, messages that end with the assistant. limit 0: all.
bool eval_items_load(struct eval_items *e, const char *path, const struct tokenizer *t, size_t limit, struct err *err) MUST_CHECK;
// Only those of the given rows (ascending) stay, of them at most `limit` (0: all).
void eval_items_keep(struct eval_items *e, const size_t *rows, size_t n, size_t limit);
void eval_items_finish(struct eval_items *e);

// Greedy answers, up to max_tokens each, several sequences at a time, into item.answer. White space at both ends is cut off.
// progress(ctx, done): may be NULL.
bool eval_items_answer(struct eval_items *e, struct local_engine *l, size_t max_tokens, void (*progress)(void *ctx, size_t done), void *ctx,
                       struct err *err) MUST_CHECK;
void eval_items_score(struct eval_items *e);
bool eval_items_judge(struct eval_items *e, struct judge *j, void (*progress)(void *ctx, size_t done), void *ctx, struct err *err) MUST_CHECK;
struct eval_means eval_items_means(const struct eval_items *e);
// A JSON array of the rows as they were, each with "model_response" added, as the seed writes it (4 spaces; "base_response" beside it where there is one).
void eval_items_json(const struct eval_items *e, struct buf *out);
