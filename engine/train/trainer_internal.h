// SPDX-License-Identifier: MIT
// The state of a run, shared by trainer.c (the loop), trainer_eval.c (evaluation) and sample.c (sample prompts). No other file includes this.
#pragma once

#include "engine/train/checkpoint.h"
#include "engine/train/trainer.h"

struct trainer {
    const struct train_config *config;
    const struct data_view *train, *validation; // validation NULL: none
    const struct tokenizer *tokenizer;          // may be NULL
    const struct train_hooks *hooks;
    struct pool *pool;
    struct batcher *batcher;
    struct network *network;
    struct optimizer optimizer;
    struct schedule schedule;
    size_t max_rows, max_segment; // the network's
    struct ids *prompts;          // [config.n_prompts], tokenized; NULL without tokenizer
    struct checkpoint_state state;
    uint64_t total, updates_of_epoch; // updates in all; in the cursor's epoch
    uint64_t irregular_step;          // the newest checkpoint where clock or signal made it, gone with the next; 0: none
    uint64_t saved_ns;                // when the newest was made
    size_t rollbacks;                 // since the newest regular checkpoint
    int lock;                         // descriptor, -1: none
};

// Fills in where the run stands and passes the event on.
void trainer_emit(struct trainer *t, struct train_event e);
static inline bool trainer_stopped(const struct trainer *t) { return t->config->stop && *t->config->stop; }

// The evaluation of this step: EVAL and SAMPLE events, best and early stopping's count. Cut short by the stop flag it leaves state.evaluated
// false and no event: a resumed run does it again.
bool trainer_evaluate(struct trainer *t, struct err *err) MUST_CHECK;
// Tokenizes the prompts and widens max_rows and max_segment to the longest. ERR_INVALID for one that does not fit the context.
bool samples_init(struct trainer *t, const struct model_config *c, struct err *err) MUST_CHECK;
void samples_finish(struct trainer *t);
bool samples_emit(struct trainer *t, struct err *err) MUST_CHECK;
