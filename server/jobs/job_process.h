// SPDX-License-Identifier: MIT
// One process of a job: this program (or a launcher in front of it), in a session and process group of its own, its input /dev/null, its output piped
// here. A signal goes to the whole group; what of the group outlives its leader is killed.
// Thread: the loop's.
#pragma once

#include "base/arena.h"
#include "server/config.h"
#include "server/jobs/supervised.h"

#include <uv.h>

struct job_process;

struct job_process_config {
    uv_loop_t *loop;
    const char *const *argv;            // without the program's name, ended by NULL
    const struct string_list *launcher; // words before the program's path; none: the program itself
    const struct supervised_limits *limits; // parent is filled in
    void (*output)(void *ctx, int fd, const char *bytes, size_t n); // fd 1 or 2
    void (*ended)(void *ctx, int64_t status, int signal); // the last call: all output was delivered; the process is no more
    void *ctx;
};

struct job_process *job_process_start(const struct job_process_config *c, struct err *err) MUST_CHECK;
void job_process_kill(struct job_process *p, int signal); // accepts one that is ending
int job_process_pid(const struct job_process *p);

// What /proc says of a process; false: there is none.
struct process_facts {
    uint64_t started_ticks; // since boot: with the pid, a name that is not used twice
    uint64_t cpu_ticks;     // of all its threads
    uint64_t rss_bytes;
};
bool process_look(int pid, struct process_facts *out) MUST_CHECK;
