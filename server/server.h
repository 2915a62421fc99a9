// SPDX-License-Identifier: MIT
// The running server as the api_*.c files see it: configuration, models, engine, metrics, and who hears which sequence.
//
// Thread: created, changed and destroyed on the loop thread. Pool workers (route->work) may read `config` and, once
// `server_state` was SERVER_READY, ask the registry.
#pragma once

#include "base/err.h"
#include "engine/infer/engine.h"
#include "server/config.h"
#include "server/keys.h"
#include "server/metrics.h"
#include "server/registry.h"

#include <stdatomic.h>
#include <stdint.h>

enum server_state {
    SERVER_LOADING, // listening; models are being read
    SERVER_READY,
    SERVER_DRAINING, // SIGTERM: what runs may finish, nothing new
};

struct server {
    struct config config;
    struct registry *registry; // of use once the state has left SERVER_LOADING
    struct engine *engine;    // NULL while loading
    struct store *store;      // server/store/store.h; open from the start on
    struct runner *_Atomic runner; // server/jobs/runner.h; NULL while loading. The pool's threads look
    struct metrics metrics;
    struct keys keys;
    struct http *http; // http_internal.h
    _Atomic int state; // enum server_state
    int64_t started_s; // Unix time
    struct server_private *priv;
};

static inline enum server_state server_state(const struct server *s) { return (enum server_state)atomic_load(&s->state); }

// Runs `couplet serve` until it is told to stop. Returns the exit status.
int server_run(struct config *config);

// -- Sequences ---------------------------------------------------------------------------------------------------------------
// A handler draws ids, watches them, then submits to s->engine; events come back on the loop thread, in order. The
// event belongs to the dispatcher: do not free it, do not keep it. After EVENT_FINISH the watch is gone by itself.
typedef void sequence_fn(void *ctx, const struct engine_event *e);

uint64_t server_next_sequence_id(struct server *s); // any thread
void server_watch_sequence(struct server *s, uint64_t id, sequence_fn *fn, void *ctx);
void server_unwatch_sequence(struct server *s, uint64_t id); // no further call; unknown ids are ignored

// Cancels in the engine and forgets the watcher: no further call. The time until the engine let go is measured
// (couplet:cancel_seconds). For ids whose EVENT_FINISH was already delivered: nothing.
void server_cancel_sequence(struct server *s, uint64_t id);

// -- Jobs --------------------------------------------------------------------------------------------------------------------
// Says that a job's row, events or models have changed; any thread. Watchers hear of it on the loop, several changes of one job perhaps once.
// A watcher may end itself, or another, while it is told. job_id NULL: the server drains, nothing more will come.
void server_job_changed(struct server *s, const char *job_id);
void server_watch_jobs(struct server *s, void (*fn)(void *ctx, const char *job_id), void *ctx);
void server_unwatch_jobs(struct server *s, void (*fn)(void *ctx, const char *job_id), void *ctx);
