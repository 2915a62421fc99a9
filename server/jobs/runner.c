// SPDX-License-Identifier: MIT
// See runner.h. The thread and the queue: what an earlier server left is swept, a job is claimed, and when it has ended the next one is.
#include "server/jobs/runner_internal.h"

#include "base/file.h"
#include "base/log.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define INSTANCE "local" // one server a data directory, by its lock
typedef unsigned long long llu;
enum { RETRY_MS = 1000 };

int64_t runner_lease_end(const struct runner *r) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000 + (int64_t)r->server->config.lease_seconds * 1000;
}

void runner_complain(const struct runner *r, const char *what, const struct err *e) {
    log_line(LOG_WARN, what, "job", r->run ? r->run->job.id : "-", "message", e->message, NULL);
}

void runner_count(struct runner *r) {
    size_t counts[JOB_STATUSES];
    struct err err = {0};
    if (!store_job_counts(r->server->store, counts, &err)) return;
    uv_mutex_lock(&r->lock);
    memcpy(r->figures.jobs, counts, sizeof counts);
    uv_mutex_unlock(&r->lock);
}

static void close_handle(uv_handle_t *h, void *ctx) {
    if (!uv_is_closing(h)) uv_close(h, NULL);
}

static bool sweep(struct runner *r);

static void claim_next(struct runner *r) {
    struct err err = {0};
    if (r->run) return;
    runner_count(r);
    if (r->stopping) {
        uv_walk(&r->loop, close_handle, NULL);
        return;
    }
    if (!r->swept && !(r->swept = sweep(r))) {
        runner_retry(r);
        return;
    }
    if (!publish_sweep_ended(r->server->store, r->server->config.data_dir, &err)) runner_complain(r, "leftovers not removed", &err);
    struct run *run = mem_new(struct run);
    if (store_job_claim(r->server->store, INSTANCE, runner_lease_end(r), &run->arena, &run->job, &err)) {
        r->run = run;
        run_begin(r);
        return;
    }
    if (err.code != ERR_NOT_FOUND) {
        runner_complain(r, "no job claimed", &err);
        r->swept = false; // who knows whether the disk has the claim
        runner_retry(r);
    }
    arena_finish(&run->arena);
    free(run);
}

static void on_retry(uv_timer_t *t) {
    struct runner *r = t->data;
    if (r->run && r->run->ending) run_end_try(r);
    else if (!r->run) claim_next(r);
}

void runner_retry(struct runner *r) { uv_timer_start(&r->retry, on_retry, RETRY_MS, 0); }

static void on_wake(uv_async_t *async) {
    struct runner *r = async->data;
    if (!r->run) claim_next(r);
    else if (!r->stopping) run_read_wish(r);
    else if (r->run->process) watch_tell(r);
    else if (r->run->ending) run_end_try(r);
    runner_count(r);
}

// ---- start and stop ----

// A process group that an earlier server left: its leader is known by pid, start time and the job's id on its command line.
static void orphan_end(const struct job_place *p) {
    struct process_facts facts;
    struct err err = {0};
    size_t len = 0;
    int pid = 0;
    llu started = 0;
    char *path = path_join(p->dir, "pid"), *text = file_read(path, 64, &len, &err), proc[64];
    const bool read = text && sscanf(text, "%d %llu", &pid, &started) == 2 && pid > 1;
    free(text);
    unlink(path);
    free(path);
    if (!read || !process_look(pid, &facts) || facts.started_ticks != started) return;
    snprintf(proc, sizeof proc, "/proc/%d/cmdline", pid);
    char *line = file_read(proc, 1 << 20, &len, &err);
    const bool ours = line && memmem(line, len, p->id, strlen(p->id));
    free(line);
    if (!ours) return;
    log_line(LOG_WARN, "process of an earlier server ended", "job", p->id, NULL);
    kill(-pid, SIGKILL);
    for (int i = 0; i < 500 && process_look(pid, &facts) && facts.started_ticks == started; i++) uv_sleep(10);
}

// False: jobs that nobody runs are still on record as running.
static bool sweep(struct runner *r) {
    struct arena a = {0};
    struct err err = {0};
    const char *const *ids;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    const bool ok = store_job_requeue(r->server->store, INSTANCE, (int64_t)now.tv_sec * 1000, &a, &ids, &err);
    if (!ok) runner_complain(r, "jobs not queued again", &err);
    for (; ok && *ids; ids++) {
        struct job_place p;
        job_place_init(&p, r->server->config.data_dir, *ids, &a);
        orphan_end(&p);
        log_line(LOG_INFO, "job queued again", "job", *ids, NULL);
    }
    if (ok && !publish_sweep(r->server->store, r->server->config.data_dir, &err)) runner_complain(r, "leftovers not removed", &err);
    arena_finish(&a);
    return ok;
}

static void runner_main(void *ctx) {
    struct runner *r = ctx;
    claim_next(r);
    uv_run(&r->loop, UV_RUN_DEFAULT);
    r->ended = true;
}

struct runner *runner_create(struct server *s, struct err *err) {
    struct runner *r = mem_new(struct runner);
    r->server = s;
    r->figures.train_loss = NAN;
    r->limits = runner_limits(&s->config);
    uv_mutex_init(&r->lock);
    uv_loop_init(&r->loop);
    uv_async_init(&r->loop, &r->wake, on_wake);
    uv_timer_t *const timers[] = {&r->tick, &r->flush, &r->beat, &r->retry};
    for (size_t i = 0; i < ARRAY_LEN(timers); i++) {
        uv_timer_init(&r->loop, timers[i]);
        timers[i]->data = r;
    }
    r->wake.data = r;
    if (uv_thread_create(&r->thread, runner_main, r) == 0) return r;
    uv_walk(&r->loop, close_handle, NULL);
    uv_run(&r->loop, UV_RUN_DEFAULT);
    uv_loop_close(&r->loop);
    uv_mutex_destroy(&r->lock);
    free(r);
    err_set(err, ERR_NO_MEMORY, "no thread to run jobs on");
    return NULL;
}

void runner_stop(struct runner *r) {
    if (!r || atomic_exchange(&r->stopping, true)) return;
    uv_async_send(&r->wake);
}

bool runner_ended(const struct runner *r) { return !r || r->ended; }

void runner_destroy(struct runner *r) {
    if (!r) return;
    runner_stop(r);
    uv_thread_join(&r->thread);
    uv_loop_close(&r->loop);
    uv_mutex_destroy(&r->lock);
    free(r);
}

void runner_wake(struct runner *r) {
    if (r) uv_async_send(&r->wake);
}

void runner_figures(struct runner *r, struct runner_figures *out) {
    uv_mutex_lock(&r->lock);
    *out = r->figures;
    uv_mutex_unlock(&r->lock);
}
