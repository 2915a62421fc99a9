// SPDX-License-Identifier: MIT
// The members of a fine-tuning job's request, as the table reads them. Constants.
#pragma once

#include "server/fields.h"

struct job_fields {
    struct text model, training_file, validation_file, suffix, method_type;
    int64_t seed, n_epochs, batch_size;
    double learning_rate_multiplier;
    const json_t *metadata, *integrations;
    // couplet
    struct text type, lr_scheduler, excess_length, from_checkpoint, preset, tokenizer;
    struct texts lora_trainable_modules, sample_prompts;
    int64_t lora_r, max_steps, n_evals, n_checkpoints, context_length, stride, early_stopping, n_layer, n_head, n_embd, n_ctx, vocab_size;
    double lora_alpha, lora_dropout, learning_rate, warmup_ratio, weight_decay, max_grad_norm, dropout, validation_split;
    bool packing, train_on_inputs, shared;
};

extern const struct field_table job_table;     // "FineTuningJobRequest": create and estimate
extern const struct field_table couplet_table; // its member "couplet"
