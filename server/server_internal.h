// SPDX-License-Identifier: MIT
// What server.c, sequences.c and job_watch.c share.
#pragma once

#include "base/mem.h" // before uv.h, whose sys/param.h defines MIN and MAX too
#include "server/server.h"
#include "server/store/store.h"

#include <uv.h>

enum { SEQUENCE_BUCKETS = 1024 };

struct sequence_watch {
    struct sequence_watch *next;
    uint64_t id;
    sequence_fn *fn; // NULL: cancelled; only EVENT_FINISH is still waited for
    void *ctx;
    uint64_t cancelled_ns; // 0: not
};

struct server_private {
    uv_loop_t loop;
    uv_async_t engine_wake, loaded;
    uv_signal_t sigterm, sigint, sighup;
    uv_timer_t keys_timer, files_timer, drain_timer;
    uv_thread_t loader;
    bool loading, load_ok; // load_ok: written by the loader, read after it was joined
    struct err load_err;
    struct pool *pool;
    uint64_t drain_deadline_ns;
    int drain_stage, exit_status;
    _Atomic uint64_t next_sequence_id;
    struct engine_event *events; // taken from the engine, not yet dispatched
    struct sequence_watch *sequences[SEQUENCE_BUCKETS];
    struct job_watches *job_watches;
    int data_lock; // data_dir.h
};

void server_dispatch(struct server *s); // takes the engine's events to their watchers; for 2 ms at most, then wakes the loop again
void server_forget_sequences(struct server *s);
void job_watches_open(struct server *s);
void job_watches_drain(struct server *s); // tells them NULL
void job_watches_close(struct server *s); // after the loop's handles are closed
