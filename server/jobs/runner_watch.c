// SPDX-License-Identifier: MIT
// The running process under the eyes of a timer: it gives way to serving, is asked to end and made to, is killed when it does nothing or fills the disk.
// See runner_internal.h.
#include "server/jobs/runner_internal.h"

#include "base/clock.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { FACTS_MS = 1000, LOOKED_MS = 1000 }; // LOOKED_MS: what a look stands for at most; a server that stood still itself saw nothing of the rest

static uint64_t oom_kills_read(void) {
    char line[128];
    unsigned long long n = 0;
    FILE *f = fopen("/proc/vmstat", "re");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "oom_kill %llu", &n) == 1) break;
    if (f) fclose(f);
    return n;
}

struct supervised_limits runner_limits(const struct config *c) {
    uint64_t memory = (uint64_t)c->train_memory_mb << 20;
    const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    if (!memory && pages > 0 && page > 0) memory = (uint64_t)pages * (uint64_t)page / 4 * 3;
    return (struct supervised_limits){.nice = (int)c->train_nice, .memory_bytes = memory, .open_files = 256};
}

void watch_begin(struct runner *r) {
    struct watch *w = &r->run->watch;
    const struct config *c = &r->server->config;
    *w = (struct watch){.looked_ns = clock_ns(), .oom_kills = oom_kills_read()};
    yield_init(&w->yield, &(struct yield_policy){.share_percent = (unsigned)c->train_share_percent, .target_ms = (double)c->serve_latency_ms});
}

static void process_go(struct run *run, bool go) {
    if (go != run->watch.stopped) return;
    job_process_kill(run->process, go ? SIGCONT : SIGSTOP);
    run->watch.stopped = !go;
}

void watch_tell(struct runner *r) {
    struct run *run = r->run;
    if (!run->process || run->watch.told) return;
    run->watch.told = true;
    run->watch.told_ns = clock_ns();
    job_process_kill(run->process, SIGTERM);
    job_process_kill(run->process, SIGCONT); // whoever stopped it
    run->watch.stopped = false;
}

static void process_end(struct run *run) {
    job_process_kill(run->process, SIGKILL);
    run->watch.stopped = false;
}

// A process that neither speaks nor computes does nothing; the time it stood still for us does not count.
static void facts_look(struct runner *r, uint64_t now) {
    struct run *run = r->run;
    struct watch *w = &run->watch;
    const struct config *c = &r->server->config;
    struct process_facts facts;
    struct statvfs disk;
    w->facts_ns = now;
    if (!process_look(job_process_pid(run->process), &facts)) return;
    if (facts.cpu_ticks != w->cpu_ticks) w->idle_ns = 0;
    w->cpu_ticks = facts.cpu_ticks;
    if (r->limits.memory_bytes && facts.rss_bytes > r->limits.memory_bytes / 10 * 9) w->near_limit = true;
    // Uploads and jobs are refused below the mark; what runs may go on into half of it.
    if (statvfs(r->server->config.data_dir, &disk) == 0 && (uint64_t)disk.f_bavail * disk.f_frsize < ((uint64_t)c->disk_low_mb << 20) / 2) {
        w->no_space = true;
        process_end(run);
    } else if (!w->told && w->idle_ns / 1000000000 >= c->train_stall_seconds) {
        w->stalled = true;
        process_end(run);
    }
}

void watch_tick(struct runner *r) {
    struct run *run = r->run;
    struct watch *w = &run->watch;
    const uint64_t now = clock_ns(), passed = now - w->looked_ns;
    w->looked_ns = now;
    if (w->stopped) {
        uv_mutex_lock(&r->lock);
        r->figures.yield_seconds += (double)passed / 1e9;
        uv_mutex_unlock(&r->lock);
    } else {
        w->idle_ns += MIN(passed, LOOKED_MS * UINT64_C(1000000));
    }
    if (w->told) {
        if (now - w->told_ns > (uint64_t)r->server->config.train_grace_seconds * 1000000000) process_end(run);
        return;
    }
    struct engine_stats stats = {0};
    if (r->server->engine) engine_stats(r->server->engine, &stats);
    const struct yield_figures figures = {.now_ns = now, .running = stats.running, .waiting = stats.waiting, .tokens = stats.generated_tokens};
    process_go(run, yield_look(&w->yield, &figures));
    if (now - w->facts_ns >= FACTS_MS * UINT64_C(1000000)) facts_look(r, now);
}

bool watch_short_of_memory(const struct run *run) {
    return run->watch.near_limit || strstr(buf_str(&run->errors), "out of memory") || oom_kills_read() > run->watch.oom_kills;
}

void paths_cut(struct buf *text, const char *const *argv) {
    for (; *argv; argv++) {
        const char *value = strchr(*argv, '=');
        const char *path = value ? value + 1 : *argv, *slash = strrchr(path, '/');
        if (!slash) continue;
        char *directory = mem_strndup(path, (size_t)(slash - path) + 1);
        const size_t n = strlen(directory);
        for (char *at = text->data; at && (at = strstr(at, directory));) {
            memmove(at, at + n, strlen(at + n) + 1);
            text->len = strlen(text->data);
        }
        free(directory);
    }
}
