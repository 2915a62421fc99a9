// SPDX-License-Identifier: MIT
// Rules S1-S5 of the header.
#include "engine/infer/scheduler.h"

#include "base/mem.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { BUSY_ROWS = 48 }; // prefill beside decoding: about 50 ms of a 135M model on two cores

void scheduler_init(struct scheduler *s, struct kv_cache *kv, size_t max_running, size_t step_rows) {
    assert(max_running > 0 && step_rows >= max_running);
    *s = (struct scheduler){.kv = kv, .max_running = max_running, .step_rows = step_rows};
    s->busy_rows = MIN(step_rows, max_running + BUSY_ROWS);
    s->running = mem_alloc(max_running, sizeof(struct sequence *));
}

void scheduler_finish(struct scheduler *s) {
    free(s->running);
    *s = (struct scheduler){0};
}

static size_t blocks_for(size_t n_tokens) { return (n_tokens + KV_BLOCK - 1) / KV_BLOCK; }

bool scheduler_fits(const struct scheduler *s, size_t n_tokens) { return blocks_for(n_tokens) <= kv_cache_blocks(s->kv); }

// ---- waiting queue ----

void scheduler_add(struct scheduler *s, struct sequence *q) {
    q->state = SEQUENCE_WAITING;
    q->next = NULL;
    if (s->last_waiting) s->last_waiting->next = q;
    else s->first_waiting = q;
    s->last_waiting = q;
    s->n_waiting++;
}

static void waiting_push_front(struct scheduler *s, struct sequence *q) {
    q->state = SEQUENCE_WAITING;
    q->next = s->first_waiting;
    s->first_waiting = q;
    if (!s->last_waiting) s->last_waiting = q;
    s->n_waiting++;
}

// Unlinks the sequence after `previous` (NULL: the first).
static void waiting_unlink(struct scheduler *s, struct sequence *previous, struct sequence *q) {
    if (previous) previous->next = q->next;
    else s->first_waiting = q->next;
    if (s->last_waiting == q) s->last_waiting = previous;
    q->next = NULL;
    s->n_waiting--;
}

// ---- blocks of a sequence ----

// From the last block to the first, so that the beginnings of texts, which others may share, stay cached longest.
static void blocks_release(struct scheduler *s, struct sequence *q) {
    while (q->n_blocks > 0) kv_cache_release(s->kv, q->blocks[--q->n_blocks]);
    q->n_sealed = 0;
    q->n_computed = 0;
}

static bool blocks_extend(struct scheduler *s, struct sequence *q, size_t n_tokens) {
    while (q->n_blocks < blocks_for(n_tokens)) {
        if (!kv_cache_take(s->kv, &q->blocks[q->n_blocks])) return false;
        q->n_blocks++;
    }
    return true;
}

static void running_remove(struct scheduler *s, size_t i) {
    memmove(s->running + i, s->running + i + 1, (s->n_running - i - 1) * sizeof(struct sequence *));
    s->n_running--;
}

void scheduler_remove(struct scheduler *s, struct sequence *q) {
    blocks_release(s, q);
    if (q->state == SEQUENCE_RUNNING) {
        size_t i = 0;
        while (s->running[i] != q) i++;
        running_remove(s, i);
    } else {
        struct sequence *previous = NULL;
        for (struct sequence *w = s->first_waiting; w != q; w = w->next) previous = w;
        waiting_unlink(s, previous, q);
    }
}

// ---- admission ----

// S3: an equal prompt of the same group is being read.
static bool held_back(const struct scheduler *s, const struct sequence *q) {
    if (q->score_prompt) return false;
    for (size_t i = 0; i < s->n_running; i++) {
        const struct sequence *r = s->running[i];
        if (r->group == q->group && r->adapter == q->adapter && r->n_prompt == q->n_prompt && r->n_computed < r->n_prompt && r->n_prompt > KV_BLOCK &&
            memcmp(r->tokens, q->tokens, q->n_prompt * sizeof *q->tokens) == 0)
            return true;
    }
    return false;
}

static bool admit(struct scheduler *s, struct sequence *q) {
    if (!q->score_prompt) { // the last token is always computed: its logits are wanted
        q->n_blocks = kv_cache_match(s->kv, q->adapter, q->tokens, q->n_tokens - 1, q->blocks);
        q->n_sealed = q->n_blocks;
        q->n_computed = q->n_blocks * KV_BLOCK;
    }
    // Asked before anything is taken: taking and giving back would empty the prefix cache at every step of the wait.
    if (blocks_for(q->n_tokens) - q->n_blocks > kv_cache_available(s->kv)) {
        blocks_release(s, q);
        return false;
    }
    bool taken = blocks_extend(s, q, q->n_tokens); // at once: two admissions of one plan must not count on the same blocks
    assert(taken);
    if (!q->admitted) {
        q->n_cached = q->n_computed;
        s->prefix_queries += q->n_prompt;
        s->prefix_hits += q->n_cached;
    }
    q->admitted = ++s->admissions;
    q->state = SEQUENCE_RUNNING;
    s->running[s->n_running++] = q;
    return true;
}

static void admit_waiting(struct scheduler *s) {
    struct sequence *previous = NULL, *q = s->first_waiting;
    while (q && s->n_running < s->max_running) {
        struct sequence *next = q->next;
        if (held_back(s, q)) {
            previous = q;
        } else {
            waiting_unlink(s, previous, q);
            if (!admit(s, q)) {
                // Back to its place; nobody overtakes it.
                q->next = next;
                if (previous) previous->next = q;
                else s->first_waiting = q;
                if (!next) s->last_waiting = q;
                s->n_waiting++;
                return;
            }
        }
        q = next;
    }
}

// ---- the step ----

static void preempt_last(struct scheduler *s) {
    struct sequence *q = s->running[s->n_running - 1];
    s->n_running--;
    blocks_release(s, q);
    waiting_push_front(s, q);
    s->preemptions++;
}

// Gives running[i] the blocks for its next `rows` tokens, taking them from the sequences admitted after it if need be (S4).
// false: it was itself the one to give way.
static bool make_room(struct scheduler *s, size_t i, size_t rows) {
    struct sequence *q = s->running[i];
    while (!blocks_extend(s, q, q->n_computed + rows)) {
        bool itself = s->n_running - 1 == i;
        assert(!itself || i > 0); // alone it fits: scheduler_fits
        preempt_last(s);
        if (itself) return false;
    }
    return true;
}

size_t scheduler_plan(struct scheduler *s, struct sequence **plan, size_t *n_rows) {
    admit_waiting(s);
    size_t n = 0, rows = 0, budget = s->step_rows;
    for (size_t i = 0; i < s->n_running; i++) { // S1
        struct sequence *q = s->running[i];
        q->step_rows = 0;
        if (q->n_tokens - q->n_computed != 1 || !make_room(s, i, 1)) continue;
        q->step_rows = 1;
        rows++;
    }
    if (rows > 0) budget = s->busy_rows;
    for (size_t i = 0; i < s->n_running && rows < budget; i++) { // S2
        struct sequence *q = s->running[i];
        size_t chunk = MIN(q->n_tokens - q->n_computed, budget - rows);
        if (q->step_rows || !make_room(s, i, chunk)) continue;
        q->step_rows = chunk;
        rows += chunk;
    }
    // Whoever was preempted after it got its rows has left `running`; rows are numbered over those that stayed.
    for (size_t i = 0; i < s->n_running; i++) {
        struct sequence *q = s->running[i];
        if (!q->step_rows) continue;
        size_t at = n++; // S5; otherwise in order of admission
        for (; at > 0 && plan[at - 1]->adapter > q->adapter; at--) plan[at] = plan[at - 1];
        plan[at] = q;
    }
    *n_rows = 0;
    for (size_t i = 0; i < n; i++) {
        plan[i]->step_row = *n_rows;
        *n_rows += plan[i]->step_rows;
    }
    return n;
}

void scheduler_done(struct scheduler *s, struct sequence **plan, size_t n) {
    for (size_t i = 0; i < n; i++) {
        struct sequence *q = plan[i];
        q->n_computed += q->step_rows;
        for (; (q->n_sealed + 1) * KV_BLOCK <= q->n_computed; q->n_sealed++)
            kv_cache_seal(s->kv, q->adapter, q->blocks, q->n_sealed, q->tokens);
    }
}
