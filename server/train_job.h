// SPDX-License-Identifier: MIT
// Everything a training run stands on: the base or its random weights, tokenizer, data, parameters, and the hash that tells runs apart. Thread: the
// command's.
#pragma once

#include "base/buf.h"
#include "engine/train/presets.h"
#include "server/train_options.h"

struct train_job {
    const struct train_options *options;
    struct pool *pool;
    struct model_file *file;            // NULL: from random weights
    struct tokenizer *own_tokenizer;    // --tokenizer's
    const struct tokenizer *tokenizer;  // NULL: token rows only
    struct model_init init;             // config and, for random weights, how they are drawn
    size_t context;
    struct dataset *data, *validation_data;
    struct data_view train, validation; // validation.n 0: none
    struct params *params;
    struct train_config config;         // the options', filled in; but for stop, checkpoint_dir and run_hash
    struct buf facts;                   // members of the log's start line
    struct option_list warnings;        // owned texts
    const char *opening;                // what train_job_open was at when it failed: "model", "training_file", "validation_file"; NULL: done
};

// On failure a message; the job is finished either way by train_job_finish. Writes nothing.
bool train_job_open(struct train_job *j, const struct train_options *o, struct err *err) MUST_CHECK;
void train_job_finish(struct train_job *j);
void train_job_hash(const struct train_job *j, unsigned char out[32]); // over all that decides the run's numbers
