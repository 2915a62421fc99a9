// SPDX-License-Identifier: MIT
// What a trainer says, one JSON object a line, becomes what the store keeps: events, a checkpoint's figures, how far the run is.
//
// Invariants. (1) The same line read again gives an event under the same `once` key: re-reading a whole log is harmless. (2) A line that is none of
// ours (no JSON, too long, unknown) is counted and otherwise ignored: nothing that a trainer prints can break the runner.
// Thread: the runner's; no files, no clock.
#pragma once

#include "base/buf.h"
#include "server/store/store.h"

enum { JOB_LINE_BYTES = 262144 }; // a longer one is none of ours

// Bytes in, whole lines out.
struct line_splitter {
    struct buf line;
    bool skipping; // the rest of a line that was too long
};
typedef void line_fn(void *ctx, const char *line, size_t n);
void line_splitter_feed(struct line_splitter *s, const char *bytes, size_t n, line_fn *fn, void *ctx);

enum job_line_kind { LINE_OTHER, LINE_CHECKPOINT, LINE_LIVE };
struct job_line { // what the runner itself acts upon
    enum job_line_kind kind;
    uint64_t step;
};

struct job_lines {
    const char *name; // of the model to be; checkpoints are called after it; borrowed
    // The run so far.
    uint64_t step, total_steps, tokens, epochs, ignored;
    double seconds_per_step, train_loss, train_accuracy, valid_loss, valid_accuracy; // NaN: none
    uint64_t sample_step;
    size_t n_samples; // of that step
    bool done;        // the run came to its end
    char error_code[64], error_message[400];
    // Since job_lines_clear.
    struct arena arena;
    struct stored_event *events;
    size_t n_events, cap_events;
};

void job_lines_init(struct job_lines *l, const char *name);
void job_lines_finish(struct job_lines *l);
void job_lines_clear(struct job_lines *l);   // the events are in the store
void job_lines_restart(struct job_lines *l); // another process speaks
struct job_line job_lines_read(struct job_lines *l, const char *line, size_t n);
// A line of the runner's own. data: a JSON object, or NULL. Everything is copied.
void job_lines_say(struct job_lines *l, const char *once, const char *level, const char *kind, const char *message, ...) PRINTF_LIKE(5, 6);
void job_lines_checkpoint(struct job_lines *l, uint64_t step); // the event of a checkpoint that was published
// Its figures, just after its line was read: OpenAI's names.
const char *job_lines_metrics(struct job_lines *l, uint64_t step, struct arena *a);
