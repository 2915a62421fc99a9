// SPDX-License-Identifier: MIT
// What runner.c (thread, queue), run.c (one claim of a job, from its beginning to its end), runner_watch.c (the running process: time, memory,
// giving way) and runner_tool.c share.
// Thread: the runner's, but where runner.h says otherwise.
#pragma once

#include "base/mem.h" // before uv.h, whose sys/param.h defines MIN and MAX too

#include "server/jobs/job_lines.h"
#include "server/jobs/job_process.h"
#include "server/jobs/job_publish.h"
#include "server/jobs/job_spec.h"
#include "server/jobs/runner.h"
#include "server/jobs/yield.h"
#include "server/server.h"

#include <stdatomic.h>

enum stage { STAGE_TOKENIZER, STAGE_TRAIN, STAGE_EVAL, STAGE_PUBLISH };

struct watch { // of one process; zeroed when it starts
    struct yield yield;
    bool stopped;    // by us, to give way
    bool told;       // asked to end
    bool stalled;    // killed because it did nothing
    bool no_space;   // killed because the disk is nearly full
    bool near_limit; // of its memory
    uint64_t looked_ns, told_ns, idle_ns, facts_ns, cpu_ticks;
    uint64_t oom_kills; // the kernel's count when it began
};

struct run { // one claim of a job
    struct arena arena;
    struct stored_job job;
    struct job_spec spec;
    struct job_place place;
    const char *name; // of the model to be
    enum stage stage;
    struct job_process *process; // NULL: none
    const char *const *argv;     // its arguments
    struct watch watch;
    struct line_splitter splitter;
    struct job_lines lines;
    struct buf errors; // the end of what it wrote on stderr
    int errors_fd;
    struct stored_checkpoint *checkpoints; // not yet in the store; texts in lines.arena
    struct stored_model *models;           // theirs, one each
    size_t n_checkpoints, cap_checkpoints, cap_models;
    uint64_t checkpoint_step; // the newest one published in this claim
    enum job_wish wish;
    bool lost, live;           // another attempt has the job; NAME:live is registered
    unsigned attempts, stalls; // of the trainer, in this claim
    bool ending;               // outcome is what has to reach the store
    struct job_outcome outcome;
    struct stored_model model;
    struct stored_file files[4];
    size_t n_files; // of them made
};

struct runner {
    struct server *server;
    uv_thread_t thread;
    uv_loop_t loop;
    uv_async_t wake;
    uv_timer_t tick, flush, beat, retry; // watch; lines to the store; lease and wish; what the store refused
    _Atomic bool stopping, ended;
    uv_mutex_t lock;
    struct runner_figures figures; // under lock
    struct supervised_limits limits;
    struct run *run; // NULL: idle
    bool swept;      // no job is on record as running but this one
};

int64_t runner_lease_end(const struct runner *r); // from now
void runner_complain(const struct runner *r, const char *what, const struct err *e);
void runner_count(struct runner *r); // jobs by status, for the figures
void runner_retry(struct runner *r); // run_end_try, or another claim, after a while

void run_begin(struct runner *r);     // r->run has its job
void run_read_wish(struct runner *r); // renews the lease and heeds what the client asked for meanwhile
void run_end_try(struct runner *r);   // r->run->outcome into the store; when it is there r->run is no more

void watch_begin(struct runner *r);
void watch_tick(struct runner *r); // every YIELD_TICK_MS while a process runs
void watch_tell(struct runner *r); // SIGTERM; SIGKILL after the grace
bool watch_short_of_memory(const struct run *run);
struct supervised_limits runner_limits(const struct config *c);
// Cuts the directories that stand in the arguments out of a message.
void paths_cut(struct buf *text, const char *const *argv);
