// SPDX-License-Identifier: MIT
// Jobs as the runner sees them: claim, lease, progress, end. Invariants, threads: store_internal.h.
//
// A job that runs is changed under (id, attempt) only, checked inside the transaction that changes it: whoever lost the job finds no row. A wish that
// came while the runner was already ending the attempt is carried out here, so none is lost between the two.
#include "server/store/store_jobs.h"

#include "base/buf.h"

#include <string.h>

bool store_job_claim(struct store *s, const char *instance, int64_t lease_until_ms, struct arena *a, struct stored_job *out, struct err *err) {
    struct stored_job j;
    bool ok = store_begin(s, err);
    if (ok) {
        sqlite3_stmt *q = QUERY(s, err,
                                "UPDATE jobs SET status = ?1, wish = 0, attempt = attempt + 1, instance = ?2, lease_until_ms = ?3,"
                                " started_s = iif(started_s, started_s, ?4) WHERE seq = (SELECT seq FROM jobs LEFT JOIN turns USING (owner)"
                                " WHERE status = ?5 ORDER BY coalesce(turns.last, 0), seq LIMIT 1) RETURNING " JOB_COLUMNS,
                                V(JOB_RUNNING), V(instance), V(lease_until_ms), V(store_now()), V(JOB_QUEUED));
        ok = store_one(s, q, job_read_row, a, &j, "job in the queue", err) && store_step(s, q, err) == 0;
    }
    ok = ok && RUN(s, err,
                   "INSERT INTO turns (owner, last) VALUES (?1, (SELECT coalesce(max(last), 0) + 1 FROM turns))"
                   " ON CONFLICT (owner) DO UPDATE SET last = excluded.last",
                   V(j.owner));
    if (!store_end(s, ok, err)) return false;
    *out = j;
    return true;
}

struct run { // the running job of an attempt
    const char *owner;
    enum job_wish wish;
    bool shared;
};

static bool run_find(struct store *s, const char *id, int64_t attempt, struct arena *a, struct run *out, struct err *err) {
    sqlite3_stmt *q = QUERY(s, err, "SELECT owner, wish, shared FROM jobs WHERE id = ?1 AND attempt = ?2 AND status = ?3", V(id), V(attempt),
                            V(JOB_RUNNING));
    int found = q ? store_step(s, q, err) : -1;
    if (found < 0) return false;
    if (!found) return err_set_param(err, ERR_NOT_FOUND, "attempt", "this attempt at the job is over");
    *out = (struct run){column_text(q, 0, a), (enum job_wish)sqlite3_column_int(q, 1), sqlite3_column_int(q, 2)};
    return true;
}

bool store_job_heartbeat(struct store *s, const char *id, int64_t attempt, int64_t lease_until_ms, enum job_wish *wish, struct err *err) {
    struct arena a = {0};
    struct run run;
    bool ok = store_begin(s, err) && run_find(s, id, attempt, &a, &run, err) &&
              RUN(s, err, "UPDATE jobs SET lease_until_ms = ?2 WHERE id = ?1", V(id), V(lease_until_ms));
    ok = store_end(s, ok, err);
    if (ok) *wish = run.wish;
    arena_finish(&a);
    return ok;
}

// What becomes of a job whose attempt ended as `outcome`, in the light of the newest wish.
static enum job_status run_settled(enum job_status outcome, enum job_wish wish) {
    if (outcome != JOB_PAUSED && outcome != JOB_QUEUED) return outcome;
    if (wish == WISH_CANCEL) return JOB_CANCELLED;
    return wish == WISH_PAUSE ? JOB_PAUSED : JOB_QUEUED;
}

static bool run_settled_say(struct store *s, const char *id, enum job_status outcome, enum job_status settled, struct err *err) {
    if (settled == outcome) return true;
    return store_event_say(s, id,
                           settled == JOB_CANCELLED ? "The job has been cancelled."
                           : settled == JOB_PAUSED  ? "The job has been paused."
                                                    : "The job is queued again.",
                           err);
}

struct lost { // a running job that nobody runs any more
    const char *id;
    enum job_wish wish;
};

static void lost_read_row(sqlite3_stmt *q, struct arena *a, void *row) {
    struct lost *l = row;
    l->id = column_text(q, 0, a);
    l->wish = (enum job_wish)sqlite3_column_int(q, 1);
}

bool store_job_requeue(struct store *s, const char *instance, int64_t now_ms, struct arena *a, const char *const **ids, struct err *err) {
    struct row_list list = {0};
    bool ok = store_begin(s, err);
    if (ok) {
        sqlite3_stmt *q = QUERY(s, err, "SELECT id, wish FROM jobs WHERE status = ?1 AND (instance = ?2 OR lease_until_ms <= ?3) ORDER BY seq",
                                V(JOB_RUNNING), V(instance), V(now_ms));
        ok = store_rows(s, q, SIZE_MAX, lost_read_row, sizeof(struct lost), a, &list, err);
    }
    const struct lost *lost = list.rows;
    const char **names = arena_alloc(a, list.n + 1, sizeof *names);
    for (size_t i = 0; ok && i < list.n; i++) {
        enum job_status status = run_settled(JOB_QUEUED, lost[i].wish);
        ok = RUN(s, err, "UPDATE jobs SET status = ?2, wish = 0, instance = NULL, lease_until_ms = 0, finished_s = ?3 WHERE id = ?1", V(lost[i].id),
                 V(status), V(job_status_final(status) ? store_now() : 0)) &&
             run_settled_say(s, lost[i].id, JOB_QUEUED, status, err);
        names[i] = lost[i].id;
    }
    if (!store_end(s, ok, err)) return false;
    *ids = names;
    return true;
}

static bool events_insert(struct store *s, const char *job, const struct stored_event *events, size_t n, struct err *err) {
    bool ok = true;
    for (size_t i = 0; ok && i < n; i++) ok = store_event_insert(s, job, &events[i], err);
    return ok;
}

// A job's models and files are its owner's where nothing else is said.
static struct stored_model run_model(const struct stored_model *m, const char *job, const struct run *run) {
    struct stored_model full = *m;
    if (!full.owner) full.owner = run->owner, full.shared |= run->shared;
    if (!full.job) full.job = job;
    return full;
}

bool store_job_progress(struct store *s, const char *id, int64_t attempt, const struct job_progress *p, struct err *err) {
    struct arena a = {0};
    struct run run;
    bool ok = store_begin(s, err) && run_find(s, id, attempt, &a, &run, err) &&
              RUN(s, err,
                  "UPDATE jobs SET step = iif(?2, ?2, step), total_steps = iif(?3, ?3, total_steps), trained_tokens = iif(?4, ?4, trained_tokens),"
                  " seconds_per_step = iif(?5 > 0, ?5, seconds_per_step) WHERE id = ?1",
                  V(id), V(p->step), V(p->total_steps), V(p->trained_tokens), V(p->seconds_per_step)) &&
              events_insert(s, id, p->events, p->n_events, err);
    for (size_t i = 0; ok && i < p->n_models; i++) {
        struct stored_model m = run_model(&p->models[i], id, &run);
        ok = store_model_insert_checkpoint(s, &m, err);
    }
    for (size_t i = 0; ok && i < p->n_checkpoints; i++) ok = store_checkpoint_insert(s, id, &p->checkpoints[i], err);
    ok = store_end(s, ok, err);
    arena_finish(&a);
    return ok;
}

// *ids: a JSON array.
static bool run_files_insert(struct store *s, const struct job_outcome *o, const struct run *run, struct buf *ids, struct err *err) {
    bool ok = true;
    buf_add_byte(ids, '[');
    for (size_t i = 0; ok && i < o->n_files; i++) {
        struct stored_file f = o->files[i];
        if (!f.owner) f.owner = run->owner, f.shared |= run->shared;
        if (i) buf_add_byte(ids, ',');
        buf_add_json_string(ids, f.id, strlen(f.id));
        ok = store_file_insert(s, &f, err);
    }
    buf_add_byte(ids, ']');
    return ok;
}

bool store_job_finish(struct store *s, const char *id, int64_t attempt, const struct job_outcome *o, struct err *err) {
    struct arena a = {0};
    struct buf files = {0};
    struct run run;
    bool ok = store_begin(s, err) && run_find(s, id, attempt, &a, &run, err) && run_files_insert(s, o, &run, &files, err);
    if (ok && o->model) {
        struct stored_model m = run_model(o->model, id, &run);
        ok = store_model_insert(s, &m, err);
    }
    if (ok) {
        enum job_status status = run_settled(o->status, run.wish);
        ok = RUN(s, err,
                 "UPDATE jobs SET status = ?2, wish = 0, instance = NULL, lease_until_ms = 0, finished_s = ?3, error_code = ?4, error_message = ?5,"
                 " error_param = ?6, fine_tuned_model = ?7, result_files = ?8 WHERE id = ?1",
                 V(id), V(status), V(job_status_final(status) ? store_now() : 0), V(o->error_code), V(o->error_message), V(o->error_param),
                 value_text(o->model ? o->model->id : NULL), V(files.data)) &&
             events_insert(s, id, o->events, o->n_events, err) && run_settled_say(s, id, o->status, status, err);
    }
    ok = store_end(s, ok, err);
    buf_finish(&files);
    arena_finish(&a);
    return ok;
}
