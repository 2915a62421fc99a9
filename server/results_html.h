// SPDX-License-Identifier: MIT
// results.html: a page of cards, one an example: instruction, input, correct answer, the base's and the tuned model's. One file
// that asks for nothing else; what models and data say is text, never markup. results.json is the same for programs.
#pragma once

#include "base/buf.h"
#include "engine/train/text_scores.h"

struct result_card {
    size_t row;                                  // of the data, from 0
    const char *instruction, *input, *reference; // input "" where there is none
    const char *prompt;                          // all that was read of the row, template and all
    const char *base;                            // NULL: no base to compare with
    const char *answer;
    double rouge_l, token_f1;
    bool exact;
    double judge; // 0..100, or NaN: not judged
};
struct results_page {
    const char *model, *base, *data;  // names to show; base NULL: none
    struct result_card *cards;        // in the order they are shown
    size_t n;
    double exact_match, token_f1, rouge_l; // means, 0..1
    struct text_scores before;             // the base's, where there is one
    double judge;                          // mean or NaN
};
void results_sort(struct results_page *p); // worst first: by the judge where there is one, then by ROUGE-L
void results_json(const struct results_page *p, struct buf *out);
void results_html(const struct results_page *p, struct buf *out);
