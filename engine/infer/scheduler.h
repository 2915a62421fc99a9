// SPDX-License-Identifier: MIT
// Which tokens of which sequences go into the next forward. No threads, no clock, no maths: a function of what it was told.
//
// Rules:
//   S1. Decode rows first: every running sequence that lacks one token gets its row in every step.
//   S2. Then prefill: running sequences in order of admission share the rows that are left, in chunks; while anything decodes
//       a step carries at most `busy_rows` rows, so that streams keep their pace.
//   S3. Admission in order of submission, up to max_running, while the cache can hold the prompt. A sequence whose equal prompt a member of its
//       own group is computing right now is held back: it will find the prompt in the cache.
//   S4. When the cache is full, the sequence admitted last gives its blocks back and waits at the head of the queue. Its tokens
//       stay; recomputing them gives the same bits. The oldest running sequence always advances.
//   S5. In a step the rows of one adapter are neighbours: its factors are read once.
// Thread: the engine's alone.
#pragma once

#include "engine/infer/kv_cache.h"
#include "engine/infer/sequence.h"

struct scheduler {
    struct kv_cache *kv;
    size_t max_running, step_rows, busy_rows;
    struct sequence *first_waiting, *last_waiting;
    size_t n_waiting;
    struct sequence **running; // in order of admission
    size_t n_running;
    uint64_t admissions, preemptions, prefix_queries, prefix_hits;
};

void scheduler_init(struct scheduler *s, struct kv_cache *kv, size_t max_running, size_t step_rows);
void scheduler_finish(struct scheduler *s); // sequences are the caller's

// The sequence can ever run: all its tokens fit in the cache.
bool scheduler_fits(const struct scheduler *s, size_t n_tokens);
void scheduler_add(struct scheduler *s, struct sequence *q);    // to the waiting queue
void scheduler_remove(struct scheduler *s, struct sequence *q); // wherever it is; its blocks are released at once

// Plans a step: fills plan[0..n) with the running sequences that have rows in it (step_row, step_rows are set, rows consecutive) and
// returns n; *n_rows gets the rows in all. 0: nothing to do. plan has room for max_running.
size_t scheduler_plan(struct scheduler *s, struct sequence **plan, size_t *n_rows);
// The planned rows were computed: n_computed advances, full blocks are offered to the prefix cache.
void scheduler_done(struct scheduler *s, struct sequence **plan, size_t n);
