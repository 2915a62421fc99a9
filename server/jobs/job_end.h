// SPDX-License-Identifier: MIT
// What the end of a trainer's process means for its job: a pure function. Reasons are words that the job's owner understands.
#pragma once

#include "server/store/store.h"

struct job_exit {
    int64_t status;
    int signal;                // 0: it ended by itself
    enum job_wish wish;
    bool draining;             // the server stops
    bool told;                 // it was asked to stop
    bool stalled;              // killed because it did nothing
    bool short_of_memory;      // the kernel killed for memory meanwhile, or it was near its limit, or said so
    const char *code, *message; // of its error line; "" where it wrote none
    unsigned attempts, stalls; // in this claim: how often it was started, how often it stalled, this time included
    unsigned max_attempts;
};
enum job_next {
    NEXT_PUBLISH, // the run is complete
    NEXT_AGAIN,   // from the last checkpoint
    NEXT_END,     // with the status below
};
struct job_verdict {
    enum job_next next;
    enum job_status status;
    const char *code, *message; // failed, or why it is tried again; the message may be the exit's
};
enum { JOB_MAX_STALLS = 2 }; // that are forgiven

struct job_verdict job_judge(const struct job_exit *e);
