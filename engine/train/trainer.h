// SPDX-License-Identifier: MIT
// The training loop: updates, evaluation, samples, checkpoints, early stopping, the care for numbers that are not finite. Everything that happens is
// reported as an event; the trainer itself prints and logs nothing. Thread: one, which calls `emit`.
//
// Bit-equal resume: a run that was killed and resumed from its last checkpoint makes the same weights, moments and events (but for times) as
// one that was not, whatever the thread count. So everything that decides a number is in the checkpoint or derived from (config, seed).
#pragma once

#include "engine/train/dataset.h"
#include "engine/train/network.h"
#include "engine/train/optimizer.h"

struct train_prompt { // a fixed sample prompt
    const char *text;
};
struct train_config {
    uint64_t epochs, steps; // steps > 0: that many updates; otherwise epochs
    struct batcher_config batching;
    struct optimizer_config optimizer;
    enum schedule_kind schedule;
    double lr, min_lr;
    uint64_t warmup;
    float dropout, dropout_lora; // GPT-2's three sites
    bool recompute;
    uint64_t seed;
    uint64_t eval_every, checkpoint_every; // updates; 0: at the end of every epoch (eval) | with every evaluation, and at least every 10 minutes of... see trainer.c
    size_t keep;             // checkpoints kept, the best one beside them
    size_t early_stopping;   // evaluations without improvement; 0: off
    const char *const *prompts;
    size_t n_prompts, sample_tokens; // greedy continuations at every evaluation
    const char *checkpoint_dir;      // OUT/checkpoints; NULL: none are written
    bool resume;
    unsigned char run_hash[32]; // over everything that decides numbers (data, options, base): a checkpoint of another run is refused
    const bool volatile *stop;  // set by a signal: checkpoint and return. May be NULL
};

enum train_event_kind { TRAIN_START, TRAIN_STEP, TRAIN_EVAL, TRAIN_SAMPLE, TRAIN_CHECKPOINT, TRAIN_WARNING, TRAIN_DONE };
enum train_end { TRAIN_END_FINISHED, TRAIN_END_EARLY, TRAIN_END_STOPPED };
struct train_event { // fields by kind; strings valid during the call
    enum train_event_kind kind;
    uint64_t step, total_steps; // updates done; 0 before the first
    double epoch;               // in fractions: epochs of data seen
    double train_loss, train_accuracy, learning_rate, grad_norm; // STEP
    uint64_t tokens, supervised;                                 // cumulative
    double seconds, tokens_per_second;                           // of this update
    double valid_loss, perplexity, token_accuracy, bits_per_byte; // EVAL; bits_per_byte NaN without tokenizer
    double eval_train_loss;       // EVAL: mean train loss of the updates since the last evaluation (NaN before the first)
    bool best;                    // EVAL: the lowest valid_loss so far
    size_t n_valid_targets;
    const char *prompt, *text;    // SAMPLE
    const char *path;             // CHECKPOINT: its directory
    const char *message;          // WARNING
    enum train_end end;           // DONE
};
struct train_hooks {
    void (*emit)(void *ctx, const struct train_event *e);
    uint64_t (*log_position)(void *ctx);                              // bytes of log so far, flushed; NULL: no log
    bool (*log_rewind)(void *ctx, uint64_t position, struct err *err); // cut back to a checkpoint
    void *ctx;
};
struct train_result {
    uint64_t steps;
    double first_valid_loss, last_valid_loss, best_valid_loss; // NaN without validation
    uint64_t best_step;
    double last_train_loss;
    enum train_end end;
};

// Trains params in place. validation may be NULL (n 0). tokenizer may be NULL: no samples, no bits per byte.
// Fails with ERR_CORRUPT and param "non_finite_loss" after three skipped updates in a row.
bool trainer_run(struct params *p, const struct train_config *c, const struct data_view *train, const struct data_view *validation,
                 const struct tokenizer *tokenizer, const struct train_hooks *hooks, struct pool *pool, struct train_result *out, struct err *err) MUST_CHECK;

// Mean loss over a view, batch by batch; order of summation fixed. bytes: of the supervised tokens (0 without tokenizer).
struct view_scores {
    struct loss_sums sums;
    uint64_t bytes;
};
bool view_evaluate(struct network *n, const struct data_view *v, const struct tokenizer *tokenizer, size_t max_rows, struct view_scores *out, struct err *err) MUST_CHECK;
