// SPDX-License-Identifier: MIT
// The training loop: updates, evaluation, samples, checkpoints, early stopping, the care for numbers that are not finite. Everything that happens is
// reported as an event; the trainer itself prints and logs nothing. Thread: one, which calls `emit`.
//
// Bit-equal resume: a run that was killed and resumed from its last checkpoint makes the same weights, moments and events (but for times) as
// one that was not, whatever the thread count. So everything that decides a number is in the checkpoint or derived from (config, seed), and the
// log is cut back to the checkpoint before the resumed run adds to it: START comes once, the checkpoint's own event is made again.
//
// Evaluations come before the first update, every `eval_every` updates and after the last.
#pragma once

#include "engine/train/dataset.h"
#include "engine/train/network.h"
#include "engine/train/optimizer.h"

// What an evaluation says of each example of the validation view; arrays of its length, the caller's.
struct example_losses {
    double *loss;      // sums over the supervised targets
    size_t *n_targets; // how many those are
    bool whole;        // filled by an evaluation that came to its end
    uint64_t step;     // of that evaluation
};

struct train_config {
    uint64_t epochs, steps; // steps > 0: that many updates, round the data as often as needed; otherwise epochs (>= 1)
    struct batcher_config batching;
    struct optimizer_config optimizer;
    enum schedule_kind schedule;
    double lr, min_lr;
    uint64_t warmup;
    float dropout, dropout_lora; // GPT-2's three sites
    bool recompute;
    uint64_t seed;
    uint64_t eval_every;       // updates; 0: at the end of every epoch
    // Updates; 0: with every evaluation but the first. Always after the last update; with early stopping at every best evaluation too. Where these lie
    // more than 10 minutes apart one is made by the clock, replaced by the next and not an event: a log does not depend on time.
    uint64_t checkpoint_every;
    size_t keep;           // checkpoints kept, at least 1; the best evaluation's beside them where there is one
    size_t early_stopping; // evaluations in a row without a lower loss that end the run; 0: off
    const char *const *prompts;
    size_t n_prompts, sample_tokens; // greedy continuations at every evaluation (without validation data too)
    const char *checkpoint_dir;      // OUT/checkpoints, locked while the run lasts; without `resume` there are none in it. NULL: none are written
    bool resume;
    unsigned char run_hash[32]; // over everything that decides numbers (data, options, base): a checkpoint of another run is refused
    struct example_losses *first, *last; // of the evaluation before the first update, and of the newest; may be NULL
    const bool volatile *stop;  // set by a signal: the update or evaluation in progress is given up, checkpoint, return. May be NULL
};

enum train_event_kind { TRAIN_START, TRAIN_STEP, TRAIN_EVAL, TRAIN_SAMPLE, TRAIN_CHECKPOINT, TRAIN_WARNING, TRAIN_DONE };
enum train_end { TRAIN_END_FINISHED, TRAIN_END_EARLY, TRAIN_END_STOPPED };
struct train_event { // fields by kind, the others 0; strings valid during the call
    enum train_event_kind kind;
    uint64_t step, total_steps; // updates done, skipped ones included; 0 before the first
    double epoch;               // in fractions: epochs of data seen, 1.5 in the middle of the second
    double train_loss, train_accuracy, learning_rate, grad_norm; // STEP
    uint64_t tokens, supervised;                                 // cumulative, in every event
    double seconds, tokens_per_second;                           // of this update
    double valid_loss, perplexity, token_accuracy, bits_per_byte; // EVAL; bits_per_byte NaN without tokenizer
    double eval_train_loss;       // EVAL: mean train loss of the updates since the last evaluation (NaN before the first)
    bool best;                    // EVAL: the lowest valid_loss so far
    size_t n_valid_targets;
    const char *prompt, *text;    // SAMPLE
    const char *path;             // CHECKPOINT: its directory
    const char *message;          // WARNING
    enum train_end end;           // DONE, with the last train_loss and valid_loss; CHECKPOINT: stopped where it was only made for that
};
struct train_hooks {
    void (*emit)(void *ctx, const struct train_event *e);
    bool (*log_position)(void *ctx, uint64_t *bytes, struct err *err); // of log so far, flushed; false: it lacks lines, no checkpoint. NULL: no log
    bool (*log_rewind)(void *ctx, uint64_t position, struct err *err); // resume: cut back to a checkpoint; 0: there was none. May be NULL
    void *ctx;
};
struct train_result {
    uint64_t steps;
    double first_valid_loss, last_valid_loss, best_valid_loss; // NaN without validation
    uint64_t best_step;
    double last_train_loss;
    enum train_end end;
};

// Trains params in place and leaves the last update's weights in them; those of best_step: checkpoint_load_weights, where one was made there.
// validation may be NULL (n 0). tokenizer may be NULL: no samples, no bits per byte. Warnings (events): a damaged checkpoint passed over, a
// checkpoint that could not be written, an update skipped because its loss or gradient was not finite (weights untouched), weights that
// became so themselves (back to the last checkpoint, data goes on).
// Fails with ERR_CORRUPT and param "non_finite_loss" after three skipped updates in a row, or where there is nothing to go back to.
bool trainer_run(struct params *p, const struct train_config *c, const struct data_view *train, const struct data_view *validation,
                 const struct tokenizer *tokenizer, const struct train_hooks *hooks, struct pool *pool, struct train_result *out, struct err *err) MUST_CHECK;

// Mean loss over a view, batch by batch; order of summation fixed. bytes: of the supervised tokens (0 without tokenizer).
struct view_scores {
    struct loss_sums sums;
    uint64_t bytes;
};
// max_rows: the network's.
bool view_evaluate(struct network *n, const struct data_view *v, const struct tokenizer *tokenizer, size_t max_rows, struct view_scores *out,
                   struct err *err) MUST_CHECK;
// The same, example by example: loss[n] sums over the supervised targets, n_targets[n] their counts, in the view's order.
bool view_losses(struct network *n, const struct data_view *v, size_t max_rows, double *loss, size_t *n_targets, struct err *err) MUST_CHECK;
