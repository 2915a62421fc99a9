// SPDX-License-Identifier: MIT
// The losses in a training log (train_log.h), line by line: what a plot and a table are made of. Pure; any thread.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct loss_line { // NaN: not in the line, or null
    bool eval;     // an evaluation; otherwise an update
    uint64_t step;
    double epoch, tokens; // tokens 0 where the line has none
    double train_loss, train_accuracy;  // of an evaluation: the mean since the one before
    double valid_loss, valid_accuracy;
};
// Every whole line of an update or an evaluation, in order; other lines, torn and broken ones are passed over.
void loss_lines_each(const char *log, size_t len, void (*see)(void *ctx, const struct loss_line *line), void *ctx);
