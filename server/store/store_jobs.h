// SPDX-License-Identifier: MIT
// What the two halves of the job table share: store_jobs.c (clients) and store_runs.c (the runner).
#pragma once

#include "server/store/store_internal.h"

#define JOB_COLUMNS                                                                                                                   \
    "id, owner, status, wish, kind, model, training_file, validation_file, suffix, metadata, spec, fine_tuned_model, result_files,"   \
    " error_code, error_message, error_param, seed, created_s, started_s, finished_s, attempt, step, total_steps, trained_tokens,"    \
    " seconds_per_step, shared"
void job_read_row(sqlite3_stmt *q, struct arena *a, void *row); // struct stored_job, of JOB_COLUMNS
