// SPDX-License-Identifier: MIT
// Expected values: PyPI rouge-score 0.1.2 (RougeScorer(["rougeL"])) and SQuAD's evaluate-v2.0.py.
#include "engine/train/text_scores.h"
#include "tests/unit/test.h"

static struct text_scores score(const char *reference, const char *answer) {
    return text_scores(reference, strlen(reference), answer, strlen(answer));
}

TEST(rouge_l) {
    CHECK_NEAR(score("The car is as fast as lightning.", "The car is as fast as a bullet.").rouge_l, 0.8, 1e-12);
    CHECK_NEAR(score("The type of cloud typically associated with thunderstorms is cumulonimbus.",
                     "The type of cloud associated with thunderstorms is a cumulus cloud.").rouge_l, 0.7619047619047619, 1e-12);
    CHECK_NEAR(score("Jane Austen.", "The author of 'Pride and Prejudice' is Jane Austen.").rouge_l, 0.36363636363636365, 1e-12);
    CHECK_NEAR(score("a b c d", "d c b a").rouge_l, 0.25, 1e-12);
    CHECK_NEAR(score("\xE2\x84\xAA" "elvin", "kelvin").rouge_l, 1, 0);
    CHECK_NEAR(score("\xC3\x89t\xC3\xA9", "t").rouge_l, 1, 0);
    CHECK_NEAR(score("", "word").rouge_l, 0, 0);
}

TEST(token_f1) {
    CHECK_NEAR(score("Jane Austen.", "The author is Jane Austen").token_f1, 2.0 * (2.0 / 4) / (1 + 2.0 / 4), 1e-12);
    CHECK_NEAR(score("the a an", "...").token_f1, 1, 0);
    CHECK_NEAR(score("well-known", "wellknown").token_f1, 1, 0);
    CHECK_NEAR(score("x x y", "x y y").token_f1, 2.0 / 3, 1e-12);
    CHECK_NEAR(score("x", "y").token_f1, 0, 0);
}

TEST(exact_match) {
    CHECK_NEAR(score(" Bad\n", "Bad").exact_match, 1, 0);
    CHECK_NEAR(score("Bad", "bad").exact_match, 0, 0);
    CHECK_NEAR(score("", "").exact_match, 1, 0);
}

TEST_MAIN("text_scores")
