// SPDX-License-Identifier: MIT
// One model's part of the engine: its cache, scheduler and workspace, and the step that turns planned rows into events.
// Thread: the engine's alone.
#pragma once

#include "base/clock.h"
#include "engine/infer/output.h"
#include "engine/infer/sampler.h"
#include "engine/infer/scheduler.h"
#include "engine/infer/transformer.h"

// A sequence with all that the engine keeps for it. Made by the submitting thread, then the engine thread's.
struct live {
    struct sequence q; // first: scheduler's view, q.owner is the live itself
    struct lane *lane;
    struct model *model; // the lane's, or that with an adapter; one reference
    struct live *next, *previous; // all of the engine's
    struct sampling_params params; // arrays copied into `memory`
    void *memory;
    uint32_t *banned; // ids that min_tokens forbids
    size_t n_banned, n_generated, n_scored; // n_scored: prompt records already sent
    struct output *output;
    struct token_counts counts;
    bool counted;
    uint64_t submitted_ns, admitted_ns, first_token_ns;
};

struct live *live_create(struct lane *lane, const struct sequence_request *r, uint64_t now_ns, struct err *err) MUST_CHECK;
void live_destroy(struct live *l);

struct event_list {
    struct engine_event *first, **last; // last == NULL: not initialised
};
void event_list_add(struct event_list *l, struct engine_event *e);

struct lane {
    struct model *model;
    size_t n_live; // sequences submitted and not yet ended: keeps the lane; under the engine's mailbox lock
    bool removed;  // takes no new sequences; under the same lock
    size_t n_ended; // in the step in progress
    struct kv_cache *kv;
    struct scheduler scheduler;
    struct transformer *transformer;
    struct sampler **samplers; // [threads]
    struct pool *pool;
    size_t max_running, step_rows;
    // arrays of a step
    struct sequence **plan;          // [max_running]
    struct step_sequence *sequences; // [max_running]
    uint32_t *ids, *wanted;          // [step_rows]
    struct wanted_row *rows;         // [step_rows]
    struct wanted_result *results;   // [LOGIT_ROWS]
    const float *logits;             // of the chunk in progress
    size_t n_wanted, logit_stride, first_row;
    uint64_t steps, rows_done, prompt_tokens, generated_tokens, busy_ns;
};

bool lane_init(struct lane *lane, struct model *model, size_t kv_bytes, size_t max_running, size_t step_rows, struct pool *pool,
               struct err *err) MUST_CHECK; // takes a reference to the model
void lane_finish(struct lane *lane); // accepts a zeroed one

bool lane_has_work(const struct lane *lane);
// One forward. Finished sequences are removed from the scheduler, reported through `finished` and destroyed by the caller.
// false: nothing could be done.
bool lane_step(struct lane *lane, struct event_list *events, void (*finished)(void *ctx, struct live *l), void *ctx);
// Ends a sequence now: its slot and blocks are free when this returns.
void lane_end(struct live *l, enum finish_reason reason, struct event_list *events);
