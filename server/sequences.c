// SPDX-License-Identifier: MIT
// Who hears which sequence: ids to watchers, and the dispatch of the engine's events.
//
// Invariant: an id is in the table from server_watch_sequence until its EVENT_FINISH was taken or it was unwatched. Watchers may watch,
// unwatch and cancel any sequence, their own too, from inside a call. Thread: loop (ids: any).
#include "server/server_internal.h"

#include "base/mem.h"

#include <assert.h>
#include <stdlib.h>

enum { DISPATCH_NS = 2000000 };

static struct sequence_watch **slot_of(struct server *s, uint64_t id) {
    struct sequence_watch **at = &s->priv->sequences[id % SEQUENCE_BUCKETS];
    while (*at && (*at)->id != id) at = &(*at)->next;
    return at;
}

uint64_t server_next_sequence_id(struct server *s) { return atomic_fetch_add(&s->priv->next_sequence_id, 1) + 1; }

void server_watch_sequence(struct server *s, uint64_t id, sequence_fn *fn, void *ctx) {
    struct sequence_watch **at = slot_of(s, id), *w = mem_new(struct sequence_watch);
    assert(!*at && fn);
    *w = (struct sequence_watch){.id = id, .fn = fn, .ctx = ctx};
    *at = w;
}

void server_unwatch_sequence(struct server *s, uint64_t id) {
    struct sequence_watch **at = slot_of(s, id), *w = *at;
    if (!w) return;
    *at = w->next;
    free(w);
}

void server_cancel_sequence(struct server *s, uint64_t id) {
    struct sequence_watch *w = *slot_of(s, id);
    if (!w || w->cancelled_ns) return;
    w->fn = NULL;
    w->cancelled_ns = uv_hrtime();
    engine_cancel(s->engine, id);
}

static void dispatch_one(struct server *s, const struct engine_event *e) {
    struct sequence_watch *w = *slot_of(s, e->id);
    if (!w) return;
    sequence_fn *fn = w->fn;
    void *ctx = w->ctx;
    if (e->kind == EVENT_FINISH) {
        if (w->cancelled_ns) metrics_observe(&s->metrics, METRIC_CANCEL, (double)(uv_hrtime() - w->cancelled_ns) / 1e9);
        server_unwatch_sequence(s, e->id);
    }
    if (fn) fn(ctx, e);
}

// A step's events with all their log-probabilities take tens of milliseconds to write: connections get their turn in between.
void server_dispatch(struct server *s) {
    struct server_private *p = s->priv;
    uint64_t end = uv_hrtime() + DISPATCH_NS;
    while (p->events || (s->engine && (p->events = engine_take_events(s->engine)))) {
        if (uv_hrtime() > end) {
            uv_async_send(&p->engine_wake);
            return;
        }
        struct engine_event *e = p->events;
        p->events = e->next;
        dispatch_one(s, e);
        engine_event_free(e);
    }
}

void server_forget_sequences(struct server *s) {
    for (struct engine_event *e; (e = s->priv->events);) {
        s->priv->events = e->next;
        engine_event_free(e);
    }
    for (size_t i = 0; i < SEQUENCE_BUCKETS; i++)
        while (s->priv->sequences[i]) server_unwatch_sequence(s, s->priv->sequences[i]->id);
}
