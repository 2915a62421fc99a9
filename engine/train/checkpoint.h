// SPDX-License-Identifier: MIT
// Checkpoints of a run: DIR/step-00000120/{weights.safetensors, optimizer.safetensors, state.json}. weights: the trained arrays under their
// own names and shapes (full training: every parameter, so that a model directory can be made of it; LoRA: the factors, under PEFT's names);
// optimizer: the flat moments "m" and "v" (absent where the optimizer has none); state.json carries the SHA-256 of the other two and of itself.
//
// Written to DIR/.tmp-*, every file and directory fsynced, then renamed: a checkpoint is there whole or not at all, and writing one touches
// no other. Loading takes the newest whole one; a torn or flipped one is passed over with a warning. One writer a directory: checkpoint_lock.
#pragma once

#include "engine/train/optimizer.h"

struct checkpoint_state { // all that a run needs beside weights and moments
    unsigned char run_hash[32];
    uint64_t step, epoch, index; // updates done; data cursor of the next update
    uint64_t tokens, supervised, log_position;
    double best_valid_loss, first_valid_loss, last_valid_loss, last_train_loss; // NaN: none yet
    uint64_t best_step, evals_without_gain, skipped; // skipped: updates in a row that were not finite
    double window_loss;                              // sums since the last evaluation
    uint64_t window_targets;
    uint64_t regular_step; // the newest checkpoint whose place the run's numbers decide (not the clock, not a signal); 0: none
    bool evaluated;        // this step's evaluation is done, or none was due
};
// message: a warning for each checkpoint that was passed over.
typedef void checkpoint_warn_fn(void *ctx, const char *message);

// Replaces a checkpoint of the same step. Hashing is spread over the optimizer's pool.
bool checkpoint_save(const char *dir, const struct checkpoint_state *s, const struct optimizer *o, struct err *err) MUST_CHECK;
// *found false: none is there (or none is whole). A whole one of another run (run_hash differs): ERR_INVALID that says what to do.
bool checkpoint_load_newest(const char *dir, const unsigned char run_hash[32], struct checkpoint_state *s, struct optimizer *o, bool *found,
                            checkpoint_warn_fn *warn, void *warn_ctx, struct err *err) MUST_CHECK;
// The checkpoint of one step, verified: weights and moments.
bool checkpoint_load(const char *dir, uint64_t step, const unsigned char run_hash[32], struct checkpoint_state *s, struct optimizer *o,
                     struct err *err) MUST_CHECK;
// Into params' trained block only (the best weights at the end).
bool checkpoint_load_weights(const char *dir, uint64_t step, struct params *p, struct err *err) MUST_CHECK;
void checkpoint_remove(const char *dir, uint64_t step);
// Removes all but the newest `keep` (at least one) and `best_step`, and what .tmp-* killed runs left behind.
void checkpoint_prune(const char *dir, size_t keep, uint64_t best_step);
char *checkpoint_path(const char *dir, uint64_t step); // malloc'ed
// One run a directory: flock on DIR/lock; a dead run's lock is free by itself. Makes DIR. Returns the descriptor (close() frees the lock) or
// -1: ERR_BUSY where another run holds it.
int checkpoint_lock(const char *dir, struct err *err) MUST_CHECK;
