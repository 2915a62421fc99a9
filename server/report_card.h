// SPDX-License-Identifier: MIT
// The report card of a training run: held-out rows before and after, a verdict, report.md and report.json. Thread: the command's.
#pragma once

#include "engine/train/dataset.h"
#include "engine/train/network.h"
#include "engine/train/trainer.h"

struct held_out { // loss of every row of a view, in its order
    size_t n;
    struct example_losses rows; // [n]
};
bool held_out_init(struct held_out *h, const struct data_view *v, struct err *err) MUST_CHECK; // for an evaluation to fill
// Forward passes over the view with a network of its own, released again.
bool held_out_measure(struct held_out *h, struct params *p, const struct data_view *v, struct pool *pool, struct err *err) MUST_CHECK;
void held_out_finish(struct held_out *h); // accepts a zeroed one

enum verdict { VERDICT_NONE, VERDICT_BETTER, VERDICT_WORSE, VERDICT_SAME }; // NONE: nothing was held out
struct comparison {
    enum verdict verdict;
    size_t n_rows, n_gained;  // rows with supervised tokens; those whose loss fell
    double before, after;     // mean loss over supervised tokens
    double t, t_needed;       // paired t of the rows' mean losses (below 0: better), and what it takes; t 0 for fewer than two rows
};
// Better or worse only where chance is an unlikely cause (two-sided t test of the rows' differences, 5 %).
void held_out_compare(const struct held_out *before, const struct held_out *after, struct comparison *out);

struct report_card {
    struct comparison comparison;
    const char *base;   // "the base", "the random weights it began with"
    const char *facts;  // members of the log's start line, for report.json
    const char *data, *method;
    size_t n_train, n_validation; // rows
    uint64_t n_parameters, n_trainable;
    const struct train_result *result;
    bool best_weights; // of the lowest validation loss, not the last
};
void report_card_headline(const struct report_card *r, struct buf *out); // one line, without a newline
bool report_card_write(const struct report_card *r, const char *dir, struct err *err) MUST_CHECK;
