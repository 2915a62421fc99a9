// SPDX-License-Identifier: MIT
// See job_process.h.
#include "base/mem.h" // before uv.h, whose sys/param.h defines MIN and MAX too

#include "server/jobs/job_process.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern char **environ;

enum { READ_BYTES = 65536, LINGER_MS = 1000 }; // linger: how long output is waited for after the end, where somebody else holds the pipe

struct job_process {
    struct job_process_config config;
    uv_process_t process;
    uv_pipe_t out, err;
    uv_timer_t linger;
    bool exited, closing;
    int open_pipes, open_handles;
    int64_t status;
    int signal;
    char bytes[READ_BYTES];
};

// ---- the end ----

static void on_closed(uv_handle_t *h) {
    struct job_process *p = h->data;
    if (--p->open_handles) return;
    p->config.ended(p->config.ctx, p->status, p->signal);
    free(p);
}

static void process_close(struct job_process *p) {
    if (p->closing) return;
    p->closing = true;
    uv_handle_t *const handles[] = {(uv_handle_t *)&p->process, (uv_handle_t *)&p->out, (uv_handle_t *)&p->err, (uv_handle_t *)&p->linger};
    for (size_t i = 0; i < ARRAY_LEN(handles); i++) uv_close(handles[i], on_closed);
}

static void on_linger(uv_timer_t *t) { process_close(t->data); }

static void on_process_exit(uv_process_t *process, int64_t status, int signal) {
    struct job_process *p = process->data;
    kill(-process->pid, SIGKILL);
    p->exited = true;
    p->status = status;
    p->signal = signal;
    if (!p->open_pipes) process_close(p);
    else uv_timer_start(&p->linger, on_linger, LINGER_MS, 0);
}

// ---- output ----

static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *out) {
    struct job_process *p = h->data;
    *out = uv_buf_init(p->bytes, sizeof p->bytes);
}

static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *b) {
    struct job_process *p = s->data;
    if (n > 0) p->config.output(p->config.ctx, (void *)s == (void *)&p->out ? 1 : 2, b->base, (size_t)n);
    if (n >= 0) return;
    uv_read_stop(s);
    if (--p->open_pipes == 0 && p->exited) process_close(p);
}

// ---- the beginning ----

// The server's environment without what is the server's alone.
static char **environment_make(const struct supervised_limits *limits, struct arena *a) {
    size_t n = 0;
    struct buf own = {0};
    while (environ[n]) n++;
    char **out = arena_alloc(a, n + 2, sizeof(*out));
    n = 0;
    for (char **e = environ; *e; e++)
        if (strncmp(*e, "COUPLET_", 8) != 0 || strncmp(*e, "COUPLET_FAILPOINT", 17) == 0) out[n++] = *e;
    supervised_write(limits, &own);
    out[n] = arena_strndup(a, own.data, own.len);
    buf_finish(&own);
    return out;
}

// The launcher finds the program by its path; without one the kernel does, even after its file was replaced.
static char **argv_make(const struct job_process_config *c, struct arena *a) {
    char self[4096] = "couplet";
    size_t n = 0, at = 0;
    while (c->argv[n]) n++;
    char **out = arena_alloc(a, c->launcher->n + n + 2, sizeof(*out));
    for (size_t i = 0; i < c->launcher->n; i++) out[at++] = c->launcher->items[i];
    if (c->launcher->n) {
        ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
        if (len > 0) self[len] = 0;
    }
    out[at++] = arena_strndup(a, self, strlen(self));
    for (size_t i = 0; i < n; i++) out[at++] = arena_strndup(a, c->argv[i], strlen(c->argv[i]));
    return out;
}

static struct job_process *process_make(const struct job_process_config *c) {
    struct job_process *p = mem_new(struct job_process);
    p->config = *c;
    p->open_handles = 4;
    p->open_pipes = 2;
    uv_pipe_init(c->loop, &p->out, 0);
    uv_pipe_init(c->loop, &p->err, 0);
    uv_timer_init(c->loop, &p->linger);
    p->process.data = p->out.data = p->err.data = p->linger.data = p;
    return p;
}

static void on_failed_closed(uv_handle_t *h) {
    struct job_process *p = h->data;
    if (--p->open_handles == 0) free(p);
}

struct job_process *job_process_start(const struct job_process_config *c, struct err *err) {
    struct arena a = {0};
    struct supervised_limits limits = *c->limits;
    struct job_process *p = process_make(c);
    limits.parent = c->launcher->n ? 0 : getpid();
    char **argv = argv_make(c, &a);
    uv_stdio_container_t stdio[3] = {{.flags = UV_IGNORE},
                                     {.flags = UV_CREATE_PIPE | UV_WRITABLE_PIPE, .data.stream = (uv_stream_t *)&p->out},
                                     {.flags = UV_CREATE_PIPE | UV_WRITABLE_PIPE, .data.stream = (uv_stream_t *)&p->err}};
    const uv_process_options_t options = {
        .exit_cb = on_process_exit,
        .file = c->launcher->n ? argv[0] : "/proc/self/exe",
        .args = argv,
        .env = environment_make(&limits, &a),
        .flags = UV_PROCESS_DETACHED,
        .stdio_count = 3,
        .stdio = stdio,
    };
    int failed = uv_spawn(c->loop, &p->process, &options);
    arena_finish(&a);
    if (!failed) failed = uv_read_start((uv_stream_t *)&p->out, on_alloc, on_read);
    if (!failed) failed = uv_read_start((uv_stream_t *)&p->err, on_alloc, on_read);
    if (!failed) return p;
    if (uv_is_active((uv_handle_t *)&p->process)) kill(-p->process.pid, SIGKILL);
    uv_handle_t *const handles[] = {(uv_handle_t *)&p->process, (uv_handle_t *)&p->out, (uv_handle_t *)&p->err, (uv_handle_t *)&p->linger};
    for (size_t i = 0; i < ARRAY_LEN(handles); i++) uv_close(handles[i], on_failed_closed);
    err_set(err, failed == UV_ENOMEM ? ERR_NO_MEMORY : ERR_IO, "the process could not be started");
    return NULL;
}

void job_process_kill(struct job_process *p, int signal) {
    if (!p->exited) kill(-p->process.pid, signal);
}

int job_process_pid(const struct job_process *p) { return p->process.pid; }

// ---- /proc ----

bool process_look(int pid, struct process_facts *out) {
    char path[64], line[1024];
    unsigned long long user = 0, system = 0, started = 0;
    long pages = 0;
    char state = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *f = fopen(path, "re");
    if (!f) return false;
    const char *after = fgets(line, sizeof line, f) ? strrchr(line, ')') : NULL; // the name in parentheses may hold anything
    fclose(f);
    if (!after || sscanf(after + 1, " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu %*d %*d %*d %*d %*d %*d %llu %*u %ld", &state, &user, &system,
                         &started, &pages) != 5)
        return false;
    *out = (struct process_facts){started, user + system, (uint64_t)MAX(pages, 0) * (uint64_t)sysconf(_SC_PAGESIZE)};
    return state != 'Z' && state != 'X';
}
