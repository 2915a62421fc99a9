// SPDX-License-Identifier: MIT
// What a run will take, from its exact token counts and a few updates of it that are really made: `couplet train --estimate`. Thread: the command's.
#pragma once

#include "server/train_job.h"

struct train_estimate {
    uint64_t train_tokens, supervised_tokens, valid_tokens; // inputs of one epoch; of them supervised; of one evaluation
    size_t train_rows, valid_rows, longest;                 // examples; longest in tokens
    uint64_t steps, evaluations, checkpoints;
    double tokens_per_second, seconds; // training alone; the run from start to end, evaluations and checkpoints included
    uint64_t peak_memory_bytes, checkpoint_bytes; // of the process; of one checkpoint
};
// Trains the job's parameters a little: the job is good for nothing else afterwards. began_ns: clock_ns() when the command began.
bool train_estimate_measure(struct train_job *j, uint64_t began_ns, struct train_estimate *out, struct err *err) MUST_CHECK;
void train_estimate_write(const struct train_estimate *e, const struct train_job *j, struct buf *out); // a JSON object
