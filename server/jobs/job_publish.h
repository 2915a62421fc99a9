// SPDX-License-Identifier: MIT
// A job's files: what becomes a model, what becomes a result file, what is thrown away. Each function may be repeated after a crash at any point of it.
//
// DATA_DIR/jobs/ID/ is the job's; models it makes lie in DATA_DIR/models/model-X and .../model-X-step-N, X being what follows "ftjob-" in its id, so
// that a directory without a row tells whose it is. Thread: the runner's.
#pragma once

#include "base/arena.h"
#include "server/store/store.h"

struct job_place { // paths, in an arena
    const char *data_dir, *dir, *out, *id;
    const char *model; // "models/model-X": relative to data_dir
};
void job_place_init(struct job_place *p, const char *data_dir, const char *job_id, struct arena *a);

// OUT/snapshots/step-N becomes a model's directory. *dir: relative to data_dir; NULL: there is no such snapshot, nor was there.
bool publish_checkpoint(const struct job_place *p, uint64_t step, struct arena *a, const char **dir, struct err *err) MUST_CHECK;
bool publish_is_done(const struct job_place *p); // the result has its place among the models
bool publish_result(const struct job_place *p, struct err *err) MUST_CHECK; // OUT's model files
// A copy in DATA_DIR/files under an id of its own; *out without owner. Absent: *there false.
bool publish_file(const struct job_place *p, const char *path, const char *filename, struct arena *a, struct stored_file *out, bool *there,
                  struct err *err) MUST_CHECK;
uint64_t directory_bytes(const char *path); // of the files in it

// A result that will not be: its directory among the models, its files.
void publish_undo(const struct job_place *p, const struct stored_file *files, size_t n);
// What training alone needs: once the result has its place, nothing does.
void job_place_trim(const struct job_place *p);
// The weights in the job's directory: checkpoints, snapshots, what was not published. Logs and reports stay.
void job_place_clean(const struct job_place *p);
// At the start of the server: directories of jobs that are over are cleaned, models that nobody knows removed.
bool publish_sweep(struct store *s, const char *data_dir, struct err *err) MUST_CHECK;
// While no job runs: the checkpoints of those that were cancelled while they waited, whose end nobody has seen to.
bool publish_sweep_ended(struct store *s, const char *data_dir, struct err *err) MUST_CHECK;
