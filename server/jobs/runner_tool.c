// SPDX-License-Identifier: MIT
// A tool of ours, run to its end on the calling thread with a loop of its own. See runner.h.
#include "server/http.h"
#include "server/jobs/runner_internal.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

enum { OUTPUT_BYTES = 1 << 20, ERRORS_BYTES = 8192, LOOK_MS = 100 };

struct tool {
    const struct http_request *request;
    struct job_process *process;
    uint64_t end_ms; // of the loop's clock; 0: none
    struct buf *out;
    struct buf errors;
    bool too_much, timed_out, left, ended;
    int64_t status;
    int signal;
};

static void on_output(void *ctx, int fd, const char *bytes, size_t n) {
    struct tool *t = ctx;
    struct buf *b = fd == 1 ? t->out : &t->errors;
    const size_t limit = fd == 1 ? OUTPUT_BYTES : ERRORS_BYTES, room = limit - MIN(b->len, limit);
    buf_add(b, bytes, MIN(n, room));
    t->too_much |= fd == 1 && n > room;
}

static void on_ended(void *ctx, int64_t status, int signal) {
    struct tool *t = ctx;
    t->ended = true;
    t->status = status;
    t->signal = signal;
}

static void on_look(uv_timer_t *timer) {
    struct tool *t = timer->data;
    if (t->ended) return; // in the same turn of the loop: the process is freed
    t->left = http_cancelled(t->request);
    t->timed_out = t->end_ms && uv_now(timer->loop) >= t->end_ms;
    if (t->left || t->timed_out) job_process_kill(t->process, SIGKILL);
}

static bool tool_judge(struct tool *t, const char *const *argv, struct err *err) {
    if (t->left) return err_set(err, ERR_BUSY, "nobody waits for this any more");
    if (t->timed_out) return err_set(err, ERR_BUSY, "this took longer than it may");
    if (t->signal == SIGKILL || t->signal == SIGABRT) return err_set(err, ERR_NO_MEMORY, "this needs more memory than it may take");
    if (t->signal) return err_set(err, ERR_IO, "a process of the server crashed");
    if (t->too_much) return err_set(err, ERR_TOO_LARGE, "the answer is too long");
    if (t->status == 0) return true;
    while (t->errors.len && t->errors.data[t->errors.len - 1] == '\n') t->errors.data[--t->errors.len] = 0;
    paths_cut(&t->errors, argv);
    const char *line = strrchr(buf_str(&t->errors), '\n');
    line = line ? line + 1 : buf_str(&t->errors);
    const char *colon = strncmp(line, "couplet ", 8) == 0 ? strstr(line, ": ") : NULL; // "couplet NAME: what was wrong"
    return err_set(err, ERR_INVALID, "%s", colon ? colon + 2 : *line ? line : "it failed without saying why");
}

bool runner_tool(const struct http_request *r, const char *const *argv, unsigned timeout_s, struct buf *out, struct err *err) {
    uv_loop_t loop;
    uv_timer_t timer;
    struct tool t = {.request = r, .out = out};
    const struct server *s = r->server;
    const struct supervised_limits limits = runner_limits(&s->config);
    if (uv_loop_init(&loop) != 0) return err_set(err, ERR_NO_MEMORY, "no process can be started");
    const struct job_process_config config = {.loop = &loop, .argv = argv, .launcher = &s->config.train_launcher, .limits = &limits, .output = on_output,
                                              .ended = on_ended, .ctx = &t};
    uv_timer_init(&loop, &timer);
    timer.data = &t;
    t.process = job_process_start(&config, err);
    const bool started = t.process != NULL;
    if (timeout_s) t.end_ms = uv_now(&loop) + (uint64_t)timeout_s * 1000;
    if (started) uv_timer_start(&timer, on_look, LOOK_MS, LOOK_MS);
    while (started && !t.ended) uv_run(&loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&timer, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    uv_loop_close(&loop);
    const bool ok = started && tool_judge(&t, argv, err);
    buf_finish(&t.errors);
    return ok;
}
