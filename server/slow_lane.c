// SPDX-License-Identifier: MIT
// What takes over 50 ms, so that it never fills libuv's pool of four: items in, first come first served, and back to the loop. One thread for models
// that somebody waits for, one for what may take minutes: data sets, and tools that are waited for; one for looks inside models.
//
// Invariants: (1) every item's `after` is called once, on the loop, for each thread in the order they were added but for dropped ones. (2) http->n_working
// counts what was added and whose `after` has not been called. (3) One mutex, never held during run or after.
// Thread: loop, but for lane_main.
#include "server/http_internal.h"

#include <assert.h>
#include <stdlib.h>

struct queue {
    struct slow_item *first, **last;
};

struct worker {
    struct slow_lane *lane;
    uv_thread_t thread;
    bool started;
    struct queue waiting; // under the lane's lock
};

struct slow_lane {
    struct http *http;
    struct worker workers[SLOW_THREADS];
    uv_async_t done_wake;
    uv_mutex_t lock;
    uv_cond_t wake;
    struct queue done; // under lock, as is stop
    bool stop;
    size_t n_items; // added, `after` not yet called; loop's
};

static void queue_init(struct queue *q) { *q = (struct queue){NULL, &q->first}; }

static void queue_add(struct queue *q, struct slow_item *item) {
    item->next = NULL;
    *q->last = item;
    q->last = &item->next;
}

static struct slow_item *queue_take(struct queue *q) {
    struct slow_item *item = q->first;
    if (item && !(q->first = item->next)) q->last = &q->first;
    return item;
}

static void lane_main(void *arg) {
    struct worker *w = arg;
    struct slow_lane *l = w->lane;
    uv_mutex_lock(&l->lock);
    for (;;) {
        struct slow_item *item = queue_take(&w->waiting);
        if (!item && l->stop) break;
        if (!item) {
            uv_cond_wait(&l->wake, &l->lock);
            continue;
        }
        uv_mutex_unlock(&l->lock);
        item->run(item->ctx);
        item->ran = true;
        uv_mutex_lock(&l->lock);
        queue_add(&l->done, item);
        uv_async_send(&l->done_wake);
    }
    uv_mutex_unlock(&l->lock);
}

static void on_done(uv_async_t *async) {
    struct slow_lane *l = async->data;
    for (;;) {
        uv_mutex_lock(&l->lock);
        struct slow_item *item = queue_take(&l->done);
        uv_mutex_unlock(&l->lock);
        if (!item) return;
        l->n_items--;
        item->after(item->ctx, item->ran);
    }
}

static void workers_stop(struct slow_lane *l) {
    uv_mutex_lock(&l->lock);
    l->stop = true;
    uv_cond_broadcast(&l->wake);
    uv_mutex_unlock(&l->lock);
    for (size_t i = 0; i < ARRAY_LEN(l->workers); i++)
        if (l->workers[i].started) uv_thread_join(&l->workers[i].thread);
    uv_cond_destroy(&l->wake);
    uv_mutex_destroy(&l->lock);
}

struct slow_lane *slow_lane_create(struct http *h, struct err *err) {
    struct slow_lane *l = mem_new(struct slow_lane);
    bool ok = true;
    l->http = h;
    queue_init(&l->done);
    uv_mutex_init(&l->lock);
    uv_cond_init(&l->wake);
    for (size_t i = 0; i < ARRAY_LEN(l->workers); i++) {
        struct worker *w = &l->workers[i];
        w->lane = l;
        queue_init(&w->waiting);
        w->started = ok = ok && uv_thread_create(&w->thread, lane_main, w) == 0;
    }
    if (!ok) {
        workers_stop(l);
        free(l);
        err_set(err, ERR_NO_MEMORY, "no thread for long work");
        return NULL;
    }
    uv_async_init(h->loop, &l->done_wake, on_done); // before the first item, so before the thread's first use
    l->done_wake.data = l;
    return l;
}

void slow_lane_add(struct slow_lane *l, struct slow_item *item) {
    item->ran = false;
    l->n_items++;
    uv_mutex_lock(&l->lock);
    queue_add(&l->workers[item->thread].waiting, item);
    uv_cond_broadcast(&l->wake);
    uv_mutex_unlock(&l->lock);
}

void slow_lane_drop(struct slow_lane *l, struct slow_item *item) {
    struct queue *waiting = &l->workers[item->thread].waiting, rest;
    queue_init(&rest);
    uv_mutex_lock(&l->lock);
    for (struct slow_item *one; (one = queue_take(waiting));) queue_add(one == item ? &l->done : &rest, one);
    for (struct slow_item *one; (one = queue_take(&rest));) queue_add(waiting, one);
    uv_mutex_unlock(&l->lock);
    uv_async_send(&l->done_wake);
}

size_t slow_lane_waiting(struct slow_lane *l, enum slow_thread thread) {
    size_t n = 0;
    uv_mutex_lock(&l->lock);
    for (struct slow_item *item = l->workers[thread].waiting.first; item; item = item->next) n++;
    uv_mutex_unlock(&l->lock);
    return n;
}

void slow_lane_abort(struct slow_lane *l) {
    uv_mutex_lock(&l->lock);
    for (size_t i = 0; i < ARRAY_LEN(l->workers); i++)
        for (struct slow_item *item; (item = queue_take(&l->workers[i].waiting));) queue_add(&l->done, item);
    uv_mutex_unlock(&l->lock);
    uv_async_send(&l->done_wake);
}

bool slow_lane_busy(const struct slow_lane *l) { return l->n_items > 0; }

static void on_closed(uv_handle_t *handle) { free(handle->data); }

void slow_lane_destroy(struct slow_lane *l) {
    if (!l) return;
    assert(l->n_items == 0);
    workers_stop(l);
    uv_close((uv_handle_t *)&l->done_wake, on_closed);
}

// ---- work without a request ----

struct post {
    uv_work_t work;
    struct http *http;
    void (*fn)(void *ctx);
    void *ctx;
};

static void post_run(uv_work_t *w) {
    struct post *p = w->data;
    p->fn(p->ctx);
}
static void post_after(uv_work_t *w, int status) {
    struct post *p = w->data;
    p->http->n_working--;
    free(p);
}

void http_pool_post(struct server *s, void (*fn)(void *ctx), void *ctx) {
    struct post *p = mem_new(struct post);
    *p = (struct post){.http = s->http, .fn = fn, .ctx = ctx, .work.data = p};
    s->http->n_working++;
    int rc = uv_queue_work(s->http->loop, &p->work, post_run, post_after);
    assert(rc == 0); // fails only for a NULL work function
}
