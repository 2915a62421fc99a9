// SPDX-License-Identifier: MIT
// See job_end.h.
#include "server/jobs/job_end.h"

#include <signal.h>
#include <string.h>

static const struct reason {
    const char *code, *message;
} memory = {"out_of_memory", "Training needed more memory than it may take. A smaller batch_size or context_length, or lora instead of full, needs less."},
  killed = {"trainer_killed", "The training process was killed from outside."},
  crashed = {"trainer_crashed", "The training process crashed. This is a fault of the server, not of the request."},
  failed = {"trainer_failed", "The training process ended without saying why."},
  stalled = {"trainer_stalled", "The training process stopped making progress."};

static struct reason reason_of(const struct job_exit *e) {
    if (e->stalled) return stalled;
    if (e->short_of_memory && (e->signal == SIGKILL || e->signal == SIGABRT)) return memory;
    if (e->signal == SIGKILL || e->signal == SIGTERM || e->signal == SIGINT) return killed;
    if (e->signal) return crashed;
    return failed;
}

// What would go the same way the next time is not tried again: the data's, the request's and the machine's limits.
static bool is_final(const char *code) { return *code && strcmp(code, "io_error") != 0 && strcmp(code, "internal_error") != 0 && strcmp(code, "stopped") != 0; }

struct job_verdict job_judge(const struct job_exit *e) {
    if (e->wish == WISH_CANCEL) return (struct job_verdict){NEXT_END, JOB_CANCELLED, NULL, NULL};
    if (!e->signal && e->status == 0) return (struct job_verdict){.next = NEXT_PUBLISH};
    if (e->told && !is_final(e->code)) return (struct job_verdict){NEXT_END, e->wish == WISH_PAUSE ? JOB_PAUSED : JOB_QUEUED, NULL, NULL};
    if (e->draining && !is_final(e->code)) return (struct job_verdict){NEXT_END, JOB_QUEUED, NULL, NULL};
    struct reason r = reason_of(e);
    if (!e->signal && *e->code) r = (struct reason){e->code, e->message};
    // A process that ran out of its own limit would do so again; one that the kernel chose may fare better.
    bool again = e->stalled ? e->stalls <= JOB_MAX_STALLS : e->attempts < e->max_attempts;
    if (!e->signal && is_final(e->code)) again = false;
    if (e->signal == SIGABRT && e->short_of_memory) again = false;
    return (struct job_verdict){again ? NEXT_AGAIN : NEXT_END, JOB_FAILED, r.code, r.message};
}
