// SPDX-License-Identifier: MIT
// A job's events for people: on a terminal messages that stay and below them a bar, the losses so far as a curve and the newest sample, drawn over and
// over; elsewhere plain lines, progress every ten seconds; or the server's own JSON lines. One thread.
#pragma once

#include "base/buf.h"
#include "server/train_log.h"

struct job_view {
    bool json, terminal;
    struct train_progress progress;
    double tokens; // after the step
    double *losses;
    size_t n_losses, cap_losses;
    double valid_loss;  // NaN: none yet
    struct buf sample;  // "prompt" -> "text"
    size_t frame_lines; // on the screen, above the cursor
    bool changed;       // since the last frame or progress line
    uint64_t last_ns, last_step; // of a progress line
};

void job_view_init(struct job_view *v, bool json);
void job_view_finish(struct job_view *v);
void job_view_event(void *view, const char *json); // client_event_fn
void job_view_say(struct job_view *v, const char *line); // a line that stays
// The curve of n losses in at most `width` characters of eight heights: means of equal shares of the run.
void loss_curve_write(const double *losses, size_t n, size_t width, struct buf *out);
