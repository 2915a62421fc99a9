// SPDX-License-Identifier: MIT
// `couplet serve` from start to end: listens at once, loads the models on a thread of their own, drains on SIGTERM.
//
// Order of the end: no new connection -> running requests finish (or are told, at the deadline) -> engine -> daemon and loop -> models.
// Thread: loop, but for load_models.
#include "server/http_internal.h"
#include "server/server_internal.h"

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "server/data_dir.h"
#include "server/files.h"
#include "server/jobs/runner.h"
#include "server/store/store.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { DRAIN_TICK_MS = 20, FILES_TICK_MS = 60000 };
enum drain_stage { DRAIN_RUNNING, DRAIN_TOLD, DRAIN_CUT };

// ---- models ----

static void on_engine_wake(void *ctx) { uv_async_send(ctx); } // engine thread

static bool engine_open(struct server *s, struct err *err) {
    struct server_private *p = s->priv;
    const struct engine_config config = {.pool = p->pool, .max_running = s->config.max_running, .max_waiting = s->config.max_waiting,
                                         .step_rows = s->config.step_rows, .wake = on_engine_wake, .wake_ctx = &p->engine_wake};
    s->engine = engine_create(&config, err);
    return s->engine && engine_start(s->engine, err);
}

static bool models_open(struct server *s, struct err *err) {
    size_t threads = s->config.threads ? s->config.threads : pool_cpu_count();
    s->priv->pool = pool_create(threads, err);
    if (!s->priv->pool || !engine_open(s, err)) return false;
    const struct registry_config config = {.mode = s->config.weights, .pool = s->priv->pool, .engine = s->engine, .kv_bytes = s->config.kv_cache_mb << 20,
                                           .max_loaded = s->config.max_loaded, .stay_ms = 1000, .data_dir = s->config.data_dir};
    return registry_load(s->registry, &config, s->store, err);
}

static void load_models(void *arg) { // loader thread
    struct server *s = arg;
    s->priv->load_ok = models_open(s, &s->priv->load_err);
    uv_async_send(&s->priv->loaded);
}

static void drain_begin(struct server *s, int exit_status);

static void on_loaded(uv_async_t *async) {
    struct server *s = async->data;
    uv_thread_join(&s->priv->loader);
    s->priv->loading = false;
    if (!s->priv->load_ok) {
        log_line(LOG_ERROR, "no model", "message", s->priv->load_err.message, NULL);
        drain_begin(s, 1);
        return;
    }
    struct err err = {0};
    int expected = SERVER_LOADING;
    if (server_state(s) == SERVER_LOADING) s->runner = runner_create(s, &err);
    if (err.code) log_line(LOG_ERROR, "no jobs", "message", err.message, NULL);
    if (atomic_compare_exchange_strong(&s->state, &expected, SERVER_READY)) log_line(LOG_INFO, "ready", NULL);
}

// ---- the end ----

static void on_drain_tick(uv_timer_t *t) {
    struct server *s = t->data;
    struct server_private *p = s->priv;
    uint64_t now = uv_hrtime();
    if (http_idle(s->http)) {
        if (!runner_ended(s->runner)) return; // a second signal still ends at once
        uv_stop(&p->loop);
        return;
    }
    if (now < p->drain_deadline_ns) return;
    if (p->drain_stage == DRAIN_RUNNING) {
        log_line(LOG_WARN, "drain deadline", "requests", log_value("%zu", s->http->n_requests), NULL);
        http_abort_requests(s->http);
    } else if (p->drain_stage == DRAIN_TOLD) {
        http_cut_connections(s->http);
    } else if (slow_lane_busy(s->http->slow_lane)) { // by its contract this may be cut off like that
        log_line(LOG_WARN, "long work is cut off", NULL);
        _exit(p->exit_status);
    } else {
        log_line(LOG_ERROR, "requests do not end", NULL);
        _exit(1);
    }
    p->drain_stage++;
    p->drain_deadline_ns = now + 1000000000u;
}

static void drain_begin(struct server *s, int exit_status) {
    struct server_private *p = s->priv;
    p->exit_status = exit_status;
    uv_timer_stop(&p->files_timer);
    p->drain_deadline_ns = uv_hrtime() + (uint64_t)s->config.drain_seconds * 1000000000u;
    atomic_store(&s->state, SERVER_DRAINING);
    http_quiesce(s->http);
    runner_stop(s->runner);
    job_watches_drain(s);
    uv_timer_start(&p->drain_timer, on_drain_tick, 0, DRAIN_TICK_MS);
}

static void on_stop_signal(uv_signal_t *handle, int signum) {
    struct server *s = handle->data;
    if (server_state(s) == SERVER_DRAINING) {
        log_line(LOG_WARN, "stopping at once", NULL);
        _exit(128 + signum);
    }
    log_line(LOG_INFO, "draining", "requests", log_value("%zu", s->http->n_requests), "seconds", log_value("%zu", s->config.drain_seconds), NULL);
    drain_begin(s, 0);
}

// ---- keys ----

static void keys_reread(struct server *s) {
    struct err err = {0};
    bool changed = false;
    if (!keys_refresh(&s->keys, &changed, &err)) log_line(LOG_ERROR, "keys not read", "message", err.message, NULL);
    else if (changed) log_line(LOG_INFO, "keys read", "keys", log_value("%zu", s->keys.n), NULL);
}
static void expire_files(void *ctx) { files_expire(ctx); }
static void on_files_timer(uv_timer_t *t) { http_pool_post(t->data, expire_files, t->data); }

static void on_keys_timer(uv_timer_t *t) { keys_reread(t->data); }
static void on_sighup(uv_signal_t *handle, int signum) { keys_reread(handle->data); }

// Whoever can reach the port could use the server: with another address than loopback a key comes first.
static bool reach_ok(const struct server *s, struct err *err) {
    const struct config *c = &s->config;
    if (config_host_is_loopback(c->bound_host) || s->keys.n > 0) return true;
    return err_set(err, ERR_INVALID, "refusing to listen on %s without a key: anyone who reaches it could use this server", c->host);
}

static void print_reach_help(const struct config *c) {
    fprintf(stderr, "Make a key, then start again:\n  couplet keys add NAME --data-dir %s\n  couplet serve --host %s --data-dir %s --public-host %s ...\n",
            c->data_dir, c->host, c->data_dir, c->public_host.n ? c->public_host.items[0] : "HOST.EXAMPLE");
}

// ---- start ----

static void on_engine_events(uv_async_t *async) { server_dispatch(async->data); }

static void handles_open(struct server *s) {
    struct server_private *p = s->priv;
    uv_loop_init(&p->loop);
    uv_async_init(&p->loop, &p->engine_wake, on_engine_events);
    uv_async_init(&p->loop, &p->loaded, on_loaded);
    job_watches_open(s);
    uv_timer_init(&p->loop, &p->keys_timer);
    uv_timer_init(&p->loop, &p->files_timer);
    uv_timer_init(&p->loop, &p->drain_timer);
    uv_signal_init(&p->loop, &p->sigterm);
    uv_signal_init(&p->loop, &p->sigint);
    uv_signal_init(&p->loop, &p->sighup);
    p->engine_wake.data = p->loaded.data = p->keys_timer.data = p->files_timer.data = p->drain_timer.data = s;
    p->sigterm.data = p->sigint.data = p->sighup.data = s;
    uv_timer_start(&p->keys_timer, on_keys_timer, 1000, 1000);
    uv_signal_start(&p->sigterm, on_stop_signal, SIGTERM);
    uv_signal_start(&p->sigint, on_stop_signal, SIGINT);
    uv_signal_start(&p->sighup, on_sighup, SIGHUP);
}

static void close_handle(uv_handle_t *handle, void *arg) {
    if (!uv_is_closing(handle)) uv_close(handle, NULL);
}

static void handles_close(struct server *s) {
    uv_loop_t *loop = &s->priv->loop;
    while (s->http && s->http->n_lingering) uv_run(loop, UV_RUN_ONCE); // their close callbacks free them
    http_destroy(s->http);
    s->http = NULL;
    uv_walk(loop, close_handle, NULL);
    while (uv_run(loop, UV_RUN_DEFAULT)) {}
    uv_loop_close(loop);
}

static bool server_open(struct server *s, struct err *err) {
    const struct config *c = &s->config;
    enum log_level level;
    if (!log_level_parse(c->log_level, &level)) return err_set(err, ERR_INVALID, "unknown log level");
    log_configure(level, strcmp(c->log_format, "json") == 0);
    s->registry = registry_create();
    for (size_t i = 0; i < c->model.n; i++)
        if (!registry_add(s->registry, c->model.items[i], c->adapter.n ? c->adapter.items[0] : NULL, err)) return false;
    if (!keys_open(&s->keys, c->data_dir, err)) return false;
    if (!reach_ok(s, err)) {
        fprintf(stderr, "couplet serve: %s\n", err->message);
        print_reach_help(c);
        err->message[0] = 0;
        return false;
    }
    umask(077); // uploads, weights and jobs are this user's alone
    s->priv->data_lock = data_dir_open(c->data_dir, err);
    s->store = s->priv->data_lock >= 0 ? store_open(c->data_dir, err) : NULL;
    return s->store && files_sweep(s, err);
}

static bool server_listen(struct server *s, struct err *err) {
    struct server_private *p = s->priv;
    s->http = http_create(s, &p->loop, err);
    if (!s->http) return false;
    uv_timer_start(&p->files_timer, on_files_timer, 1000, FILES_TICK_MS);
    bool v6 = strchr(s->config.bound_host, ':') != NULL;
    log_line(LOG_INFO, "listening", "url", log_value("http://%s%s%s:%u", v6 ? "[" : "", s->config.bound_host, v6 ? "]" : "", s->http->port),
             "models", log_value("%zu", s->config.model.n), "keys", log_value("%zu", s->keys.n), NULL);
    if (s->config.model.n == 0) log_line(LOG_WARN, "no model to serve", "hint", "couplet serve --model PATH", NULL);
    p->loading = uv_thread_create(&p->loader, load_models, s) == 0;
    return p->loading || err_set(err, ERR_NO_MEMORY, "no thread to load models on");
}

// Asks for short turns of the processor (Linux 6.12 and later; elsewhere nothing happens): the loop runs for microseconds and
// should then not wait for the whole turn of a thread that computes.
static void loop_ask_short_turns(void) {
    struct {
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime_ns, deadline_ns, period_ns;
    } attributes = {.size = 48, .runtime_ns = 100000};
    attributes.nice = getpriority(PRIO_PROCESS, 0);
    syscall(SYS_sched_setattr, 0, &attributes, 0);
}

int server_run(struct config *config) {
#ifndef __SANITIZE_ADDRESS__ // the leak checker attaches to its own process
    prctl(PR_SET_DUMPABLE, 0); // no core file, no debugger: keys and prompts are in memory
#endif
    signal(SIGPIPE, SIG_IGN);
    struct server_private *p = mem_new(struct server_private);
    struct server *s = mem_new(struct server);
    s->priv = p;
    p->data_lock = -1;
    s->config = *config;
    s->started_s = (int64_t)time(NULL);
    struct err err = {0};
    bool ok = server_open(s, &err);
    if (ok) {
        handles_open(s);
        ok = server_listen(s, &err);
        loop_ask_short_turns(); // now: the loader, which was started above, must not inherit it
        if (ok) uv_run(&p->loop, UV_RUN_DEFAULT);
        if (p->loading) _exit(p->exit_status); // a model is still being read: nothing of it needs an orderly end
        runner_destroy(s->runner); // before what it reads: engine, registry, store
        s->runner = NULL;
        engine_destroy(s->engine); // before the loop goes: its thread wakes the loop
        s->engine = NULL;
        handles_close(s);
        job_watches_close(s);
    }
    store_close(s->store);
    if (p->data_lock >= 0) close(p->data_lock);
    if (!ok && err.message[0]) fprintf(stderr, "couplet serve: %s\n", err.message);
    server_forget_sequences(s);
    registry_destroy(s->registry);
    pool_destroy(p->pool);
    keys_close(&s->keys);
    metrics_finish(&s->metrics);
    int status = ok ? p->exit_status : err.code == ERR_INVALID ? 2 : 1;
    if (ok) log_line(LOG_INFO, "stopped", NULL);
    free(p);
    free(s);
    return status;
}
