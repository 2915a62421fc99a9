// SPDX-License-Identifier: MIT
// Threads, mailbox and event list around the lanes. The engine thread takes messages, lets each model with work do a step in
// turn, and hands out events once a step. Locks: `mail` and `out`, never both at once, no callback under either.
//
// Lanes come and go while the engine runs. Invariants: (1) `lanes` changes under `mail` only, and only the engine thread takes one out;
// (2) a lane with n_live > 0 stays: who submits holds it by that count before the lock is let go; (3) the engine thread steps `active`,
// its copy of the list.
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

    pthread_mutex_t mail; // guards the next eight
    pthread_cond_t mailed;
    struct lane *lanes[MAX_LANES];
    size_t n_lanes;
    bool lanes_changed; // one came, or one may go
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
    struct lane *active[MAX_LANES];
    size_t n_active, turn;
    struct engine_stats gone; // counters of the lanes that went
    struct live *all; // every sequence that is waiting or running
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

// ---- lanes ------------------------------------------------------------------------------------------------------------

// Under `mail`. NULL: the model, or what it is an adapter over, takes no sequences here.
static struct lane *lane_of(const struct engine *e, struct model *m) {
    for (size_t i = 0; i < e->n_lanes; i++)
        if (e->lanes[i]->model == model_base(m) && !e->lanes[i]->removed) return e->lanes[i];
    return NULL;
}

// Under `mail`. Wakes the engine thread when that made the lane ready to go.
static void lane_let_go(struct engine *e, struct lane *lane, size_t n) {
    lane->n_live -= n;
    if (!lane->removed || lane->n_live > 0) return;
    e->lanes_changed = true;
    pthread_cond_signal(&e->mailed);
}

static bool lane_join(struct engine *e, struct lane *lane, struct err *err) {
    if (lane_of(e, lane->model)) return err_set(err, ERR_INVALID, "the engine has this model already");
    if (e->n_lanes == MAX_LANES) return err_set(err, ERR_TOO_LARGE, "more than %d models", MAX_LANES);
    e->lanes[e->n_lanes++] = lane;
    e->lanes_changed = true;
    pthread_cond_signal(&e->mailed);
    return true;
}

bool engine_add_model(struct engine *e, struct model *m, size_t kv_bytes, struct err *err) {
    assert(!model_adapter(m));
    struct lane *lane = mem_new(struct lane);
    bool ok = lane_init(lane, m, kv_bytes, e->config.max_running, e->config.step_rows, e->config.pool, err);
    if (ok) {
        pthread_mutex_lock(&e->mail);
        ok = lane_join(e, lane, err);
        pthread_mutex_unlock(&e->mail);
    }
    if (ok) return true;
    lane_finish(lane);
    free(lane);
    return false;
}

void engine_remove_model(struct engine *e, struct model *m) {
    if (model_adapter(m)) return;
    pthread_mutex_lock(&e->mail);
    struct lane *lane = lane_of(e, m);
    if (lane) {
        lane->removed = true;
        lane_let_go(e, lane, 0);
    }
    pthread_mutex_unlock(&e->mail);
}

// Under `mail`, engine thread: takes out the lanes that may go (returned in gone[]) and copies the rest to `active`.
static size_t lanes_take(struct engine *e, struct lane **gone) {
    size_t n_gone = 0;
    e->n_active = 0;
    for (size_t i = 0; i < e->n_lanes; i++) {
        struct lane *lane = e->lanes[i];
        if (lane->removed && lane->n_live == 0) gone[n_gone++] = lane;
        else e->active[e->n_active++] = lane;
    }
    memcpy(e->lanes, e->active, e->n_active * sizeof(struct lane *));
    e->n_lanes = e->n_active;
    e->lanes_changed = false;
    return n_gone;
}

static void counters_add(struct engine_stats *s, const struct lane *l) {
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

static void lanes_free(struct engine *e, struct lane **lanes, size_t n) {
    for (size_t i = 0; i < n; i++) {
        counters_add(&e->gone, lanes[i]);
        lane_finish(lanes[i]);
        free(lanes[i]);
    }
}

// ---- mailbox --------------------------------------------------------------------------------------------------------

// Holds a lane for each request, all or none.
static bool lanes_hold(struct engine *e, const struct sequence_request *requests, size_t n, struct lane **lanes, struct err *err) {
    bool ok = true;
    pthread_mutex_lock(&e->mail);
    for (size_t i = 0; ok && i < n; i++) {
        lanes[i] = lane_of(e, requests[i].model);
        ok = lanes[i] != NULL;
        if (ok) lanes[i]->n_live++;
        for (size_t k = 0; !ok && k < i; k++) lane_let_go(e, lanes[k], 1);
    }
    pthread_mutex_unlock(&e->mail);
    return ok || err_set(err, ERR_NOT_FOUND, "the model is not served any more");
}

// The sequences of all requests, linked by `next`; *last: where the next one would go. What was made before a failure is in the list.
static bool lives_create(const struct sequence_request *requests, size_t n, struct lane **lanes, struct live **first, struct live ***last,
                         struct err *err) {
    uint64_t now = clock_ns();
    *last = first;
    for (size_t i = 0; i < n; i++) {
        if (!scheduler_fits(&lanes[i]->scheduler, requests[i].n_prompt + requests[i].params.max_tokens))
            return err_set(err, ERR_TOO_LARGE, "the prompt and max_tokens need more key/value memory than this server gives a model");
        **last = live_create(lanes[i], &requests[i], now, err);
        if (!**last) return false;
        *last = &(**last)->next;
    }
    return true;
}

static bool mail_put(struct engine *e, struct live *first, struct live **last, size_t n, struct err *err) {
    pthread_mutex_lock(&e->mail);
    bool ok = !e->stop && e->n_live + n <= e->config.max_running + e->config.max_waiting;
    if (ok && n > 0) {
        e->n_live += n;
        *e->new_last = first;
        e->new_last = last;
        pthread_cond_signal(&e->mailed);
    }
    pthread_mutex_unlock(&e->mail);
    return ok || err_set(err, ERR_BUSY, "the server is busy: its queue is full");
}

bool engine_submit(struct engine *e, const struct sequence_request *requests, size_t n, struct err *err) {
    struct lane **lanes = mem_alloc(n, sizeof(struct lane *));
    struct live *first = NULL, **last;
    bool held = lanes_hold(e, requests, n, lanes, err);
    bool ok = held && lives_create(requests, n, lanes, &first, &last, err) && mail_put(e, first, last, n, err);
    if (!ok) {
        for (struct live *next; first; first = next) {
            next = first->next;
            live_destroy(first);
        }
        pthread_mutex_lock(&e->mail);
        for (size_t i = 0; held && i < n; i++) lane_let_go(e, lanes[i], 1);
        pthread_mutex_unlock(&e->mail);
    }
    free(lanes);
    return ok;
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
    l->lane->n_ended++;
    live_destroy(l);
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
    struct lane *gone[MAX_LANES];
    pthread_mutex_lock(&e->mail);
    size_t n_gone = lanes_take(e, gone);
    struct live *l = e->new_first;
    struct cancel *c = e->cancels;
    e->new_first = NULL;
    e->new_last = &e->new_first;
    e->cancels = NULL;
    pthread_mutex_unlock(&e->mail);
    lanes_free(e, gone, n_gone);
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
    *s = e->gone;
    for (size_t i = 0; i < e->n_active; i++) {
        const struct lane *l = e->active[i];
        s->running += l->scheduler.n_running;
        s->waiting += l->scheduler.n_waiting;
        s->kv_blocks_total += kv_cache_blocks(l->kv);
        s->kv_blocks_used += kv_cache_blocks(l->kv) - kv_cache_available(l->kv);
        s->kv_bytes_committed += kv_cache_committed_bytes(l->kv);
        counters_add(s, l);
    }
}

// Before their last events can be seen: who takes one may submit again at once.
static void ended_let_go(struct engine *e) {
    pthread_mutex_lock(&e->mail);
    for (size_t i = 0; i < e->n_active; i++) {
        struct lane *lane = e->active[i];
        e->n_live -= lane->n_ended;
        if (lane->n_ended) lane_let_go(e, lane, lane->n_ended);
        lane->n_ended = 0;
    }
    pthread_mutex_unlock(&e->mail);
}

static void events_hand_out(struct engine *e, struct event_list *events) {
    struct engine_stats stats;
    stats_collect(e, &stats);
    ended_let_go(e);
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
    for (size_t i = 0; i < e->n_active && !worked; i++) { // models take turns
        size_t at = (e->turn + i) % e->n_active;
        if (!lane_has_work(e->active[at])) continue;
        worked = lane_step(e->active[at], &events, ended, e);
        e->turn = at + 1;
    }
    events_hand_out(e, &events);
    return worked;
}

static void *engine_main(void *ctx) {
    struct engine *e = ctx;
    bool worked = false;
    for (;;) {
        pthread_mutex_lock(&e->mail);
        while (!worked && !e->stop && !e->new_first && !e->cancels && !e->lanes_changed) pthread_cond_wait(&e->mailed, &e->mail);
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
    lanes_free(e, e->lanes, e->n_lanes);
    pthread_mutex_destroy(&e->mail);
    pthread_mutex_destroy(&e->out);
    pthread_cond_destroy(&e->mailed);
    free(e);
}
