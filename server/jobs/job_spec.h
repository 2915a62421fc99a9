// SPDX-License-Identifier: MIT
// A job's settings, every `auto` resolved: from the request, to the JSON that the store keeps (stored_job.spec), to the trainer's arguments.
// Thread: any; pure but for job_spec_read's arena.
#pragma once

#include "base/buf.h"
#include "server/store/store.h"

struct job_spec {
    // what is trained
    const char *base_path;    // model file or directory; NULL: from random weights
    const char *base_model;   // id of the served base whose packed weights the adapter shares; NULL: from random weights
    const char *lora_init;    // adapter's directory to go on from (the model was an adapter, or from_checkpoint); NULL
    const char *architecture; // preset name, or a JSON object of n_layer, n_head, n_embd, n_ctx (written to JOB_DIR/config.json); NULL
    const char *tokenizer;    // PATH for a new model; "train": made from the training file first; NULL
    size_t vocab_size;        // with tokenizer "train"
    bool lora;                // else every weight
    const char *training_name, *validation_name; // the uploads' filenames: .txt decides how they are read
    // numbers
    size_t n_epochs, batch_size, lora_r, context_length, stride, n_evals, n_checkpoints, early_stopping; // n_...: spread over the run
    uint64_t max_steps; // 0: epochs decide
    double learning_rate, learning_rate_multiplier, warmup_ratio, weight_decay, max_grad_norm, lora_alpha, lora_dropout, dropout, validation_split;
    const char *lr_scheduler, *lora_modules, *excess_length; // lora_modules: "a,b", NULL: all linear layers
    bool packing, train_on_inputs;
    const char *const *sample_prompts;
    size_t n_sample_prompts;
    uint64_t seed;
    const char *from_checkpoint, *tokenizer_model; // as asked for, for the job's object; NULL
};

void job_spec_write(const struct job_spec *s, struct buf *out); // JSON object
bool job_spec_read(const char *json, struct arena *a, struct job_spec *out, struct err *err) MUST_CHECK;

// By an upload's name; neither: its content decides.
bool job_data_is_text(const char *name);
bool job_data_is_rows(const char *name);

// The argument lists of the processes a job is made of, without the program's name: texts in the arena, ended by NULL. job_dir: DATA_DIR/jobs/ID, with
// out/ below it; files_dir: DATA_DIR/files.
const char *const *job_train_arguments(const struct stored_job *j, const struct job_spec *s, const char *job_dir, const char *files_dir, size_t threads,
                                       struct arena *a);
// The same run, only measured. job_dir: where config.json and tokenizer/ lie, if the model is new.
const char *const *job_estimate_arguments(const struct stored_job *j, const struct job_spec *s, const char *job_dir, const char *files_dir,
                                          size_t threads, struct arena *a);
// Before it, NULL where there is nothing to do: `tokenizer train` into JOB_DIR/tokenizer.
const char *const *job_tokenizer_arguments(const struct stored_job *j, const struct job_spec *s, const char *job_dir, const char *files_dir, struct arena *a);
// After it: `eval` for results.html and results.json, where the result is called `model`; NULL for texts.
enum { RESULTS_ANSWERS = 8, RESULTS_ANSWER_TOKENS = 64 }; // more would take longer than a small job's training
const char *const *job_eval_arguments(const struct stored_job *j, const struct job_spec *s, const char *model, const char *job_dir, const char *files_dir,
                                      struct arena *a);
