// SPDX-License-Identifier: MIT
// Threads, mailbox and event list around the lanes. The engine thread takes messages, lets each model with work do a step in
// turn, and hands out events once a step. Locks: `mail` and `out`, never both at once, no callback under either.
#include "engine/infer/engine.h"

#include "base/mem.h"
#include "engine/infer/lane.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LANES = 64 };

struct cancel {
    struct cancel *next;
    uint64_t id;
};

struct engine {
    struct engine_config config;
    struct lane *lanes[MAX_LANES];
    size_t n_lanes, turn;

    pthread_mutex_t mail; // guards the next five
    pthread_cond_t mailed;
    struct live *new_first, **new_last; // submitted, linked by `next`
    struct cancel *cancels;
    size_t n_live; // submitted and not yet ended
    bool stop;

    pthread_mutex_t out; // guards the next two
    struct event_list events;
    struct engine_stats stats;

    pthread_t thread;
    bool started;

    // the engine thread's own
    struct live *all; // every sequence that is waiting or running
    size_t n_ended;   // in the step in progress
};

struct engine *engine_create(const struct engine_config *config, struct err *err) {
    struct engine *e = mem_new(struct engine);
    e->config = *config;
    if (!config->max_running || config->step_rows < config->max_running) {
        free(e);
        err_set(err, ERR_INVALID, "step_rows must be at least max_running, and both at least 1");
        return NULL;
    }
    pthread_mutex_init(&e->mail, NULL);
    pthread_mutex_init(&e->out, NULL);
    pthread_cond_init(&e->mailed, NULL);
    e->new_last = &e->new_first;
    return e;
}

bool engine_add_model(struct engine *e, struct model *m, size_t kv_bytes, struct err *err) {
    assert(!e->started);
    if (e->n_lanes == MAX_LANES) return err_set(err, ERR_TOO_LARGE, "more than %d models", MAX_LANES);
    struct lane *lane = mem_new(struct lane);
    if (!lane_init(lane, m, kv_bytes, e->config.max_running, e->config.step_rows, e->config.pool, err)) {
        free(lane);
        return false;
    }
    e->lanes[e->n_lanes++] = lane;
    return true;
}

// ---- mailbox --------------------------------------------------------------------------------------------------------

static struct lane *lane_of(const struct engine *e, const struct model *m) {
    for (size_t i = 0; i < e->n_lanes; i++)
        if (e->lanes[i]->model == m) return e->lanes[i];
    return NULL;
}

bool engine_submit(struct engine *e, const struct sequence_request *requests, size_t n, struct err *err) {
    for (size_t i = 0; i < n; i++) {
        struct lane *lane = lane_of(e, requests[i].model);
        assert(lane);
        if (!scheduler_fits(&lane->scheduler, requests[i].n_prompt + requests[i].params.max_tokens))
            return err_set(err, ERR_TOO_LARGE, "the prompt and max_tokens need more key/value memory than this server gives a model");
    }
    struct live *first = NULL, **last = &first;
    uint64_t now = clock_ns();
    bool ok = true;
    for (size_t i = 0; ok && i < n; i++) {
        *last = live_create(lane_of(e, requests[i].model), &requests[i], now, err);
        ok = *last != NULL;
        if (ok) last = &(*last)->next;
    }
    if (ok) {
        pthread_mutex_lock(&e->mail);
        ok = !e->stop && e->n_live + n <= e->config.max_running + e->config.max_waiting;
        if (ok && n > 0) {
            e->n_live += n;
            *e->new_last = first;
            e->new_last = last;
            pthread_cond_signal(&e->mailed);
        }
        pthread_mutex_unlock(&e->mail);
        if (ok) return true;
        err_set(err, ERR_BUSY, "the server is busy: its queue is full");
    }
    while (first) {
        struct live *l = first;
        first = l->next;
        live_destroy(l);
    }
    return false;
}

void engine_cancel(struct engine *e, uint64_t id) {
    struct cancel *c = mem_new(struct cancel);
    c->id = id;
    pthread_mutex_lock(&e->mail);
    c->next = e->cancels;
    e->cancels = c;
    pthread_cond_signal(&e->mailed);
    pthread_mutex_unlock(&e->mail);
}

static void all_add(struct engine *e, struct live *l) {
    l->previous = NULL;
    l->next = e->all;
    if (e->all) e->all->previous = l;
    e->all = l;
}

// Called when a sequence has been reported and has left its scheduler.
static void ended(void *ctx, struct live *l) {
    struct engine *e = ctx;
    if (l->previous) l->previous->next = l->next;
    else e->all = l->next;
    if (l->next) l->next->previous = l->previous;
    live_destroy(l);
    e->n_ended++;
}

static void cancel_one(struct engine *e, uint64_t id, struct event_list *events) {
    for (struct live *l = e->all; l; l = l->next) {
        if (l->q.id != id) continue;
        (void)output_finish(l->output);
        lane_end(l, FINISH_CANCELLED, events);
        ended(e, l);
        return;
    }
}

// New sequences join their queues before cancellations are looked at: a cancel never overtakes its submit.
static void mail_take(struct engine *e, struct event_list *events) {
    pthread_mutex_lock(&e->mail);
    struct live *l = e->new_first;
    struct cancel *c = e->cancels;
    e->new_first = NULL;
    e->new_last = &e->new_first;
    e->cancels = NULL;
    pthread_mutex_unlock(&e->mail);
    while (l) {
        struct live *next = l->next;
        all_add(e, l);
        // Not in engine_submit: a million tokens take milliseconds, which its caller may not have.
        if (l->counted) token_counts_add_prompt(&l->counts, l->q.tokens, l->q.n_prompt);
        scheduler_add(&l->lane->scheduler, &l->q);
        l = next;
    }
    while (c) {
        struct cancel *next = c->next;
        cancel_one(e, c->id, events);
        free(c);
        c = next;
    }
}

// ---- events and figures -----------------------------------------------------------------------------------------------

static void stats_collect(const struct engine *e, struct engine_stats *s) {
    *s = (struct engine_stats){0};
    for (size_t i = 0; i < e->n_lanes; i++) {
        const struct lane *l = e->lanes[i];
        s->running += l->scheduler.n_running;
        s->waiting += l->scheduler.n_waiting;
        s->kv_blocks_total += kv_cache_blocks(l->kv);
        s->kv_blocks_used += kv_cache_blocks(l->kv) - kv_cache_available(l->kv);
        s->kv_bytes_committed += kv_cache_committed_bytes(l->kv);
        s->steps += l->steps;
        s->rows += l->rows_done;
        s->prompt_tokens += l->prompt_tokens;
        s->cached_tokens += l->scheduler.prefix_hits;
        s->generated_tokens += l->generated_tokens;
        s->preemptions += l->scheduler.preemptions;
        s->prefix_queries += l->scheduler.prefix_queries;
        s->prefix_hits += l->scheduler.prefix_hits;
        s->busy_ns += l->busy_ns;
    }
}

static void events_hand_out(struct engine *e, struct event_list *events) {
    struct engine_stats stats;
    stats_collect(e, &stats);
    if (e->n_ended) { // before its last event can be seen: who takes that may submit again at once
        pthread_mutex_lock(&e->mail);
        e->n_live -= e->n_ended;
        pthread_mutex_unlock(&e->mail);
        e->n_ended = 0;
    }
    pthread_mutex_lock(&e->out);
    e->stats = stats;
    if (events->first) {
        if (!e->events.first) e->events.last = &e->events.first;
        *e->events.last = events->first;
        e->events.last = events->last;
    }
    pthread_mutex_unlock(&e->out);
    if (events->first && e->config.wake) e->config.wake(e->config.wake_ctx);
}

struct engine_event *engine_take_events(struct engine *e) {
    pthread_mutex_lock(&e->out);
    struct engine_event *first = e->events.first;
    e->events = (struct event_list){0};
    pthread_mutex_unlock(&e->out);
    return first;
}

void engine_stats(struct engine *e, struct engine_stats *out) {
    pthread_mutex_lock(&e->out);
    *out = e->stats;
    pthread_mutex_unlock(&e->out);
    pthread_mutex_lock(&e->mail);
    size_t live = e->n_live;
    pthread_mutex_unlock(&e->mail);
    out->waiting = live > out->running ? live - out->running : 0; // those still in the mailbox wait too
}

// ---- the thread ---------------------------------------------------------------------------------------------------------

bool engine_step(struct engine *e) {
    struct event_list events = {0};
    bool worked = false;
    mail_take(e, &events);
    for (size_t i = 0; i < e->n_lanes && !worked; i++) { // models take turns
        struct lane *lane = e->lanes[(e->turn + i) % e->n_lanes];
        if (!lane_has_work(lane)) continue;
        worked = lane_step(lane, &events, ended, e);
        e->turn = (e->turn + i + 1) % e->n_lanes;
    }
    events_hand_out(e, &events);
    return worked;
}

static void *engine_main(void *ctx) {
    struct engine *e = ctx;
    bool worked = false;
    for (;;) {
        pthread_mutex_lock(&e->mail);
        while (!worked && !e->stop && !e->new_first && !e->cancels) pthread_cond_wait(&e->mailed, &e->mail);
        bool stop = e->stop;
        pthread_mutex_unlock(&e->mail);
        if (stop) return NULL;
        worked = engine_step(e);
    }
}

bool engine_start(struct engine *e, struct err *err) {
    assert(!e->started);
    if (pthread_create(&e->thread, NULL, engine_main, e) != 0) return err_set(err, ERR_NO_MEMORY, "the system refused the engine thread");
    e->started = true;
    return true;
}

void engine_destroy(struct engine *e) {
    if (!e) return;
    pthread_mutex_lock(&e->mail);
    e->stop = true;
    pthread_cond_signal(&e->mailed);
    pthread_mutex_unlock(&e->mail);
    if (e->started) pthread_join(e->thread, NULL);
    struct event_list dropped = {0};
    e->config.wake = NULL; // nobody is there to be woken
    mail_take(e, &dropped);
    while (e->all) {
        lane_end(e->all, FINISH_CANCELLED, &dropped);
        ended(e, e->all);
    }
    events_hand_out(e, &dropped);
    for (struct engine_event *v = engine_take_events(e); v;) {
        struct engine_event *next = v->next;
        engine_event_free(v);
        v = next;
    }
    for (size_t i = 0; i < e->n_lanes; i++) {
        lane_finish(e->lanes[i]);
        free(e->lanes[i]);
    }
    pthread_mutex_destroy(&e->mail);
    pthread_mutex_destroy(&e->out);
    pthread_cond_destroy(&e->mailed);
    free(e);
}
