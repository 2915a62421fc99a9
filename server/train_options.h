// SPDX-License-Identifier: MIT
// What `couplet train` was asked to do: the option table and every check that needs no model and no data. Main thread.
#pragma once

#include "engine/train/dataset.h"
#include "engine/train/params.h"
#include "engine/train/trainer.h"
#include "server/options.h"

struct train_options {
    const char *model, *init, *tokenizer; // model or init
    const char *data, *validation, *out;
    const char *method_name, *optimizer_name, *schedule_name, *excess_name, *shuffle, *train_on_inputs, *packing; // as typed
    const char *lora_targets, *lora_init, *plot, *log;
    uint64_t epochs, steps, warmup, seed, eval_every, checkpoint_every;
    size_t batch_size, accumulate, context, stride, freeze_layers, lora_rank, early_stopping, keep, sample_tokens, threads;
    double validation_split, lr, min_lr, dropout; // lr, dropout: NaN when not given
    float weight_decay, momentum, beta1, beta2, eps, clip, lora_alpha, lora_dropout;
    struct option_list prompts;
    bool resume, recompute, check_gradients, json;
    // From the names, by train_options_start:
    enum train_method method;
    enum optimizer_kind optimizer;
    enum schedule_kind schedule;
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
