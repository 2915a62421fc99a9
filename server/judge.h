// SPDX-License-Identifier: MIT
// A score for an answer from another model, over any OpenAI-compatible server: the question of the seed's book (Raschka, "Build a Large
// Language Model", 7.8): an integer from 0 to 100. The only outgoing connection of `eval`, and only with --judge. One thread.
#pragma once

#include "base/err.h"

struct judge;
// url: with or without /v1. model NULL: the first one the server lists. key NULL: none.
struct judge *judge_create(const char *url, const char *model, const char *key, struct err *err) MUST_CHECK;
void judge_destroy(struct judge *j); // accepts NULL
const char *judge_model(const struct judge *j);
// prompt: the example as the model saw it. *score is NaN where the server's answer holds no number from 0 to 100.
bool judge_score(struct judge *j, const char *prompt, const char *reference, const char *answer, double *score, struct err *err) MUST_CHECK;
