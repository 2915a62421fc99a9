// SPDX-License-Identifier: MIT
// Runs queued jobs one after the other, each as a process of this program (`couplet train --supervised`), and brings what it says into the store.
//
// Invariants. (1) A job's process lives in its own process group and dies with the server (PDEATHSIG); what an earlier server left is swept at the
// start, and its job is queued again. (2) A result is published once: its directory is renamed into models/ first, then one transaction under (id,
// attempt) makes job, model and files visible. (3) The log file of the run is the truth: at the start and the end of an attempt it is read as a
// whole, every line becomes an event at most once. (4) Serving comes first: while requests run, the trainer gives way (yield.h).
// Threads: the runner has one of its own, with its own libuv loop; the functions below may be called from any.
#pragma once

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct runner;
struct server;

struct runner_figures { // for /metrics
    size_t jobs[7];     // by enum job_status, as of the last change
    double train_loss;  // of the running job's newest step; NaN: none
    uint64_t trained_tokens;
    double yield_seconds;
};

// Sweeps, then waits for work. The store is open, models are loaded.
struct runner *runner_create(struct server *s, struct err *err) MUST_CHECK;
// SIGTERM to the trainer, which writes a checkpoint; after the grace SIGKILL. Its job is queued again and goes on at the next start. stop begins it,
// destroy waits for it. Both accept NULL.
void runner_stop(struct runner *r);
bool runner_ended(const struct runner *r); // destroy would not wait; true for NULL
void runner_destroy(struct runner *r);
void runner_wake(struct runner *r); // a job was made, or has a wish
void runner_figures(struct runner *r, struct runner_figures *out);

// A tool of ours (convert, train --estimate, eval), nice and bounded as trainers are: waits for it on the calling thread (the slow lane's), but not
// longer than r's client does. argv without the program's name. *out: its stdout, at most 1 MiB; on failure the message is its last line on stderr.
// timeout_s 0: none.
struct buf;
struct http_request;
bool runner_tool(const struct http_request *r, const char *const *argv, unsigned timeout_s, struct buf *out, struct err *err) MUST_CHECK;
