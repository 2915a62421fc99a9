// SPDX-License-Identifier: MIT
// What must outlive the process: files, jobs with their events and checkpoints, models, aliases, idempotency keys. The seam for a second back
// end: nothing outside server/store knows SQL.
//
// Invariants. (1) A function that changes something is one transaction, on the disk when it returns true (WAL, synchronous FULL). (2) A
// job's row is changed by its runner only under (id, attempt): a runner that lost its lease changes nothing and is told so (ERR_NOT_FOUND, param
// "attempt"). (3) A failed change leaves everything as it was. (4) What a viewer may not see does not exist for them.
// Threads: any but the loop; one connection under one mutex. Strings that come out lie in the caller's arena.
#pragma once

#include "base/arena.h"
#include "base/err.h"

#include <stdint.h>

enum { STORE_ID_SIZE = 40 }; // "file-" + 24 letters and digits, NUL included

struct store;

// DATA_DIR/couplet.db, made where it is missing. A database newer than the program: ERR_UNSUPPORTED; an older one is copied to
// couplet.db.vN.bak, then migrated.
struct store *store_open(const char *data_dir, struct err *err) MUST_CHECK;
void store_close(struct store *s); // accepts NULL

// A fresh id of the server's making: PREFIX + 24 random letters and digits ("file-", "ftjob-", "ftevent-", "ftckpt_", "model-").
void store_make_id(char out[STORE_ID_SIZE], const char *prefix);

struct viewer {      // who asks
    const char *key; // id of the API key, "" where none is in force
    bool all;        // an admin's key, or no keys at all: sees everything
};
struct page { // lists: after an id (NULL: from the beginning), at most `limit`, newest first unless ascending
    const char *after;
    size_t limit;
    bool ascending;
};

// ---- files ----

struct stored_file {
    const char *id, *owner; // owner: key id
    const char *filename;   // the client's, metadata only
    const char *purpose, *sha256; // "fine-tune", "fine-tune-results", ...
    int64_t bytes, created_s, expires_s; // expires_s 0: never
    bool shared; // everybody may read it
};
struct file_usage {
    uint64_t own_bytes, all_bytes; // of the viewer's key; of everybody
    size_t own_files;
};
bool store_file_add(struct store *s, const struct stored_file *f, struct err *err) MUST_CHECK;
// ERR_NOT_FOUND
bool store_file_get(struct store *s, const struct viewer *v, const char *id, struct arena *a, struct stored_file *out, struct err *err) MUST_CHECK;
// purpose NULL: any. *n rows in *out; *more: there are others behind them.
bool store_file_list(struct store *s, const struct viewer *v, const struct page *p, const char *purpose, struct arena *a, struct stored_file **out, size_t *n,
                     bool *more, struct err *err) MUST_CHECK;
// ERR_BUSY: a job that has not ended uses it. ERR_NOT_FOUND: also of another's shared file. *models: ids of models made from it that the viewer may
// see, NULL-terminated. The bytes on disk are the caller's.
bool store_file_remove(struct store *s, const struct viewer *v, const char *id, struct arena *a, const char *const **models, struct err *err) MUST_CHECK;
bool store_file_usage(struct store *s, const struct viewer *v, struct file_usage *out, struct err *err) MUST_CHECK;
// Ids of files past their time and not in use: rows removed.
bool store_file_expire(struct store *s, int64_t now_s, struct arena *a, const char *const **ids, struct err *err) MUST_CHECK;
bool store_file_known(struct store *s, const char *id); // by anybody: the start-up sweep of files/

// ---- jobs ----

enum job_status { JOB_VALIDATING, JOB_QUEUED, JOB_RUNNING, JOB_PAUSED, JOB_SUCCEEDED, JOB_FAILED, JOB_CANCELLED, JOB_STATUSES };
const char *job_status_name(enum job_status s); // "validating_files", "queued", ...
static inline bool job_status_final(enum job_status s) { return s == JOB_SUCCEEDED || s == JOB_FAILED || s == JOB_CANCELLED; }
enum job_wish { WISH_NONE, WISH_PAUSE, WISH_CANCEL }; // what a client asked of a running job

struct stored_job {
    const char *id, *owner;
    enum job_status status;
    enum job_wish wish;
    const char *kind;   // "fine_tune" | "tokenizer"
    const char *model;  // the base's id as the client wrote it
    const char *training_file, *validation_file; // file ids; validation_file NULL: none
    const char *suffix; // NULL: none
    const char *metadata; // JSON object, never NULL
    const char *spec;     // JSON: every setting resolved (server/jobs/job_spec.h); opaque here
    const char *fine_tuned_model, *result_files; // NULL; JSON array of file ids, never NULL
    const char *error_code, *error_message, *error_param; // NULL
    int64_t seed, created_s, started_s, finished_s; // 0: not yet
    int64_t attempt;       // counts claims
    uint64_t step, total_steps, trained_tokens;
    double seconds_per_step; // 0: not known
    bool shared;
};
// One transaction: the job and its first event. idempotency_key (may be NULL) belongs to the owner: the second time with the same request_hash *out
// is the first job and *again true; with another hash ERR_INVALID, param "idempotency_key". The files are looked up under v (ERR_NOT_FOUND,
// param "training_file" | "validation_file"). An owner with max_unfinished jobs that have not ended (0: any number) gets no other: ERR_BUSY, param "jobs".
bool store_job_create(struct store *s, const struct viewer *v, const struct stored_job *j, const char *idempotency_key, const char *request_hash,
                      size_t max_unfinished, struct arena *a, struct stored_job *out, bool *again, struct err *err) MUST_CHECK;
// The job that this owner's key made (*found), without making one; another hash is the same mistake as above.
bool store_job_by_key(struct store *s, const char *owner, const char *idempotency_key, const char *request_hash, struct arena *a, struct stored_job *out,
                      bool *found, struct err *err) MUST_CHECK;
bool store_job_get(struct store *s, const struct viewer *v, const char *id, struct arena *a, struct stored_job *out, struct err *err) MUST_CHECK;
struct job_filter {
    const char *const *metadata; // key, value, key, value, ..., NULL; NULL: any
    bool without_metadata;       // only jobs whose metadata is empty
    int status;                  // enum job_status, -1: any
};
bool store_job_list(struct store *s, const struct viewer *v, const struct page *p, const struct job_filter *f, struct arena *a, struct stored_job **out,
                    size_t *n, bool *more, struct err *err) MUST_CHECK;
bool store_job_counts(struct store *s, size_t counts[JOB_STATUSES], struct err *err) MUST_CHECK;
// 1: the next to run. 0: not queued. In the order store_job_claim would take them.
size_t store_job_place(struct store *s, const char *id);

// Clients' wishes. Cancel: queued and paused jobs end at once, a running one gets the wish. Pause: a queued job is paused at once. Resume: a paused
// job is queued again; a running one whose pause has not happened yet goes on. Not possible in its state: ERR_INVALID, param "status"; asked for
// what already is so: fine. *out: the job after it. Only the owner's and admins'; a job changed at once gets its event here.
enum job_action { ACTION_CANCEL, ACTION_PAUSE, ACTION_RESUME };
bool store_job_act(struct store *s, const struct viewer *v, const char *id, enum job_action action, struct arena *a, struct stored_job *out,
                   struct err *err) MUST_CHECK;

// The runner's side. Fair among keys: of the owners with queued jobs the one whose last claim lies furthest back, of theirs the oldest job. ERR_NOT_FOUND:
// nothing is queued. Claiming sets running, attempt + 1, the lease, started_s where 0.
bool store_job_claim(struct store *s, const char *instance, int64_t lease_until_ms, struct arena *a, struct stored_job *out, struct err *err) MUST_CHECK;
bool store_job_heartbeat(struct store *s, const char *id, int64_t attempt, int64_t lease_until_ms, enum job_wish *wish, struct err *err) MUST_CHECK;
// Running jobs whose lease is over, or whose instance is `instance` (this server, before; NULL: none): queued again, or paused or cancelled where that
// was wished. Their ids.
bool store_job_requeue(struct store *s, const char *instance, int64_t now_ms, struct arena *a, const char *const **ids, struct err *err) MUST_CHECK;

struct stored_event {
    const char *id;      // "ftevent-..."; made by the store when NULL
    const char *once;    // in: unique in the job ("step-12"): the second one is left out without a word; NULL: always added
    const char *level, *message, *type, *data; // "info"|"warn"|"error"; type "message"|"metrics"; data: JSON object or NULL
    int64_t created_s;   // 0: now
};
struct stored_checkpoint {
    const char *id;    // made by the store when NULL
    uint64_t step;     // unique in the job
    const char *model; // id of the model made of it
    const char *metrics; // JSON object
    int64_t created_s;
};
enum model_kind { MODEL_FULL, MODEL_ADAPTER };
struct stored_model {
    const char *id, *owner;     // id: what clients write in "model"
    const char *job;            // NULL: none
    const char *dir;            // relative to DATA_DIR: "models/model-..."
    const char *base;           // the base's id; of a model made from nothing ""
    enum model_kind kind;
    uint64_t step, bytes;
    bool checkpoint, shared;    // checkpoint: of a step, not a job's result
    int64_t created_s;
};
// What a trainer's lines amount to, in one transaction. Numbers that are 0 stay as they were.
struct job_progress {
    uint64_t step, total_steps, trained_tokens;
    double seconds_per_step;
    const struct stored_event *events;
    size_t n_events;
    const struct stored_checkpoint *checkpoints;
    size_t n_checkpoints;
    const struct stored_model *models; // a checkpoint's; one that was there, or is, stays as it is. owner, job NULL: the job's
    size_t n_models;
};
bool store_job_progress(struct store *s, const char *id, int64_t attempt, const struct job_progress *p, struct err *err) MUST_CHECK;
// The end of an attempt: succeeded, failed, cancelled, paused, or queued again. With it the result: model, files, last events. A wish that changed
// meanwhile decides between the last three: paused without a wish to pause is queued again.
struct job_outcome {
    enum job_status status;
    const char *error_code, *error_message, *error_param;
    const struct stored_model *model; // succeeded
    const struct stored_file *files;  // result files; their bytes lie in files/ already
    size_t n_files;
    const struct stored_event *events;
    size_t n_events;
};
bool store_job_finish(struct store *s, const char *id, int64_t attempt, const struct job_outcome *o, struct err *err) MUST_CHECK;

// after: an event id or NULL; page.ascending for streams. ERR_NOT_FOUND: no such job for this viewer.
bool store_event_list(struct store *s, const struct viewer *v, const char *job, const struct page *p, struct arena *a, struct stored_event **out, size_t *n,
                      bool *more, struct err *err) MUST_CHECK;
bool store_checkpoint_list(struct store *s, const struct viewer *v, const char *job, const struct page *p, struct arena *a, struct stored_checkpoint **out,
                           size_t *n, bool *more, struct err *err) MUST_CHECK;

// ---- models and aliases ----

bool store_model_list(struct store *s, struct arena *a, struct stored_model **out, size_t *n, struct err *err) MUST_CHECK; // all, oldest first
// ERR_NOT_FOUND; ERR_BUSY: a job that has not ended begins with it. Its aliases go too.
bool store_model_remove(struct store *s, const char *id, struct err *err) MUST_CHECK;
struct stored_alias {
    const char *alias, *model, *owner;
    bool shared;
    int64_t created_s;
};
bool store_alias_put(struct store *s, const struct stored_alias *alias, struct err *err) MUST_CHECK; // new, or pointed elsewhere
bool store_alias_remove(struct store *s, const char *alias, struct err *err) MUST_CHECK;
bool store_alias_list(struct store *s, struct arena *a, struct stored_alias **out, size_t *n, struct err *err) MUST_CHECK;
