// SPDX-License-Identifier: MIT
// What `couplet train` was asked to do: the option table and every check that needs no model and no data. Main thread.
#pragma once

#include "engine/train/dataset.h"
#include "engine/train/params.h"
#include "engine/train/trainer.h"
#include "server/options.h"

struct train_options {
    struct train_config config;           // the trainer's own options; lr is resolved, dropout NaN when not given; batching.context is not set
    const char *model, *init, *tokenizer; // model or init
    const char *data, *validation, *out;
    const char *data_name, *validation_name; // how they are read where the path does not say it; or NULL
    const char *method_name, *optimizer_name, *schedule_name, *excess_name, *shuffle, *train_on_inputs, *packing; // as typed
    const char *lora_targets, *lora_init, *plot, *log;
    size_t context, stride, freeze_layers, lora_rank, threads; // context, stride, threads: 0 when not given
    double validation_split, warmup_ratio;
    uint64_t evals, checkpoints; // 0: not given
    float momentum, lora_alpha;
    struct option_list prompts;
    bool check_gradients, json, estimate, snapshots, supervised;
    double live_every; // seconds; 0: not asked for
    // From the names, by train_options_start:
    enum train_method method;
    enum excess_length excess;
    struct option_list targets; // of LoRA, cut out of target_text
    char *target_text;
};

extern const struct option_command train_command;

// Parses and checks. False: return *status (0 after --help, 2 after a mistake, which is then on stderr). Either way train_options_finish.
bool train_options_start(struct train_options *o, int argc, char **argv, int *status) MUST_CHECK;
void train_options_finish(struct train_options *o);
// A text by its name: .txt, .md. A file by another name may be one too: the data set looks into it.
bool train_data_is_text(const char *path);
