// SPDX-License-Identifier: MIT
// What a training run says: events as JSON lines (the log file, and stdout with --json) and a progress line for people on stderr.
//
// Invariants. (1) A run that was killed and resumed leaves the same log as one that was not, but for times: it is cut back to the checkpoint it goes on
// from, and its first line is written once. (2) Losses are printed with %.9g, which tells any two floats apart; what is not finite is null.
// (3) A log that cannot be written does not stop the run, but no checkpoint is made any more, so that a resumed run writes what is missing;
// train_log_whole reports it at the end. Thread: the trainer's.
#pragma once

#include "base/buf.h"
#include "engine/train/trainer.h"

struct train_log {
    int fd;                // -1: no file
    uint64_t position;     // bytes in it
    int error, out_error;  // errno of the first write that failed: to the file, to stdout
    bool json;             // lines go to stdout too
    bool resumed;          // was cut back to a checkpoint: the start line is there
    const char *facts;     // members of the start line: "\"method\":\"full\",..."; borrowed
    const char *out;       // prefix cut off checkpoints' paths, so that equal runs leave equal logs; borrowed
    const char *hidden[5]; // directories whose names are left out of every line (of a run for somebody else: a server's paths); borrowed
    struct buf line;
    // Progress.
    bool terminal, open_line; // open_line: the cursor stands behind a progress line
    uint64_t last_ns;
    double seconds_per_step; // moving average
};

// How far a run is, as the progress line says it and as `couplet jobs watch` does.
struct train_progress {
    uint64_t step, total_steps;
    double epoch, loss, tokens_per_second, seconds_per_step; // the last: a moving average
};
double train_progress_pace(double average, double seconds); // with another step's seconds; average 0: the first
void train_progress_write(const struct train_progress *p, struct buf *out);

// Cuts the hidden directories out of a text, in place.
void train_log_hide(const struct train_log *l, char *text);

void train_log_init(struct train_log *l, bool json, const char *out); // without a file
// `keep`: what is there stays, until the trainer cuts it back (--resume); otherwise the file begins empty.
bool train_log_open(struct train_log *l, const char *path, bool keep, struct err *err) MUST_CHECK;
bool train_log_whole(const struct train_log *l, struct err *err) MUST_CHECK; // false: lines are missing
bool train_log_close(struct train_log *l, struct err *err) MUST_CHECK;

void train_log_event(struct train_log *l, const struct train_event *e);
void train_log_error(struct train_log *l, const char *code, const struct err *e); // the last line of a run that failed
// The newest weights lie in `path`. On stdout alone: a log does not depend on time.
void train_log_live(struct train_log *l, uint64_t step, const char *path);
bool train_log_position(struct train_log *l, uint64_t *bytes, struct err *err) MUST_CHECK; // on disk when it returns; false: lines are missing
bool train_log_rewind(struct train_log *l, uint64_t position, struct err *err) MUST_CHECK;
