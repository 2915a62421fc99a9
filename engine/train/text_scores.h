// SPDX-License-Identifier: MIT
// How near an answer is to its reference, by the field's usual measures. Pure functions over UTF-8; any thread.
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct text_scores { // each in [0, 1]
    double exact_match; // 1 where both are equal but for white space at their ends
    double token_f1;    // SQuAD (Rajpurkar et al. 2016): words lower-cased, without ASCII punctuation and articles, as bags
    double rouge_l;     // F-measure of the longest common subsequence (Lin 2004), as PyPI's rouge-score without stemmer
};
// Texts need not end with NUL. Time and memory grow with the product of their word counts: callers bound them.
struct text_scores text_scores(const char *reference, size_t reference_len, const char *answer, size_t answer_len);
