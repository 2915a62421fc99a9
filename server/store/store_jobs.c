// SPDX-License-Identifier: MIT
// Jobs as clients see them: create, get, list, and what may be asked of them. Invariants, threads: store_internal.h.
#include "server/store/store_jobs.h"

#include "base/buf.h"

#include <stdio.h>
#include <string.h>

const char *job_status_name(enum job_status s) {
    static const char *const names[] = {"validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"};
    _Static_assert(ARRAY_LEN(names) == JOB_STATUSES, "every status has a name");
    return names[s];
}

void job_read_row(sqlite3_stmt *q, struct arena *a, void *row) {
    struct stored_job *j = row;
    int c = 0;
    j->id = column_text(q, c++, a);
    j->owner = column_text(q, c++, a);
    j->status = (enum job_status)sqlite3_column_int(q, c++);
    j->wish = (enum job_wish)sqlite3_column_int(q, c++);
    j->kind = column_text(q, c++, a);
    j->model = column_text(q, c++, a);
    j->training_file = column_text(q, c++, a);
    j->validation_file = column_text(q, c++, a);
    j->suffix = column_text(q, c++, a);
    j->metadata = column_text(q, c++, a);
    j->spec = column_text(q, c++, a);
    j->fine_tuned_model = column_text(q, c++, a);
    j->result_files = column_text(q, c++, a);
    j->error_code = column_text(q, c++, a);
    j->error_message = column_text(q, c++, a);
    j->error_param = column_text(q, c++, a);
    j->seed = sqlite3_column_int64(q, c++);
    j->created_s = sqlite3_column_int64(q, c++);
    j->started_s = sqlite3_column_int64(q, c++);
    j->finished_s = sqlite3_column_int64(q, c++);
    j->attempt = sqlite3_column_int64(q, c++);
    j->step = (uint64_t)sqlite3_column_int64(q, c++);
    j->total_steps = (uint64_t)sqlite3_column_int64(q, c++);
    j->trained_tokens = (uint64_t)sqlite3_column_int64(q, c++);
    j->seconds_per_step = sqlite3_column_double(q, c++);
    j->shared = sqlite3_column_int(q, c++);
}

static bool job_fetch(struct store *s, const struct viewer *v, const char *id, struct arena *a, struct stored_job *out, struct err *err) {
    sqlite3_stmt *q = QUERY(s, err, "SELECT " JOB_COLUMNS " FROM jobs WHERE " VISIBLE " AND id = ?3", V(v->all), V(v->key), V(id));
    return store_one(s, q, job_read_row, a, out, "job", err);
}

// ---- create ----

static bool job_file_visible(struct store *s, const struct viewer *v, const char *file, const char *param, struct err *err) {
    int64_t found;
    if (!file) return true;
    if (!NUMBER(s, err, &found, "SELECT seq FROM files WHERE " VISIBLE " AND id = ?3", V(v->all), V(v->key), V(file))) return false;
    return found || err_set_param(err, ERR_NOT_FOUND, param, "%s names no file", param);
}

static bool job_allowed(struct store *s, const char *owner, size_t max_unfinished, struct err *err) {
    int64_t n;
    if (!max_unfinished) return true;
    if (!NUMBER(s, err, &n, "SELECT count(*) FROM jobs WHERE owner = ?1 AND status IN (0, 1, 2, 3)", V(owner))) return false;
    return (size_t)n < max_unfinished || err_set_param(err, ERR_BUSY, "jobs", "%zu jobs of this key have not ended", (size_t)n);
}

static bool job_insert(struct store *s, const char *id, const struct stored_job *j, struct err *err) {
    return RUN(s, err,
               "INSERT INTO jobs (id, owner, status, kind, model, training_file, validation_file, suffix, metadata, spec, seed, created_s, total_steps,"
               " shared) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
               V(id), V(j->owner), V(j->status), V(j->kind), V(j->model), V(j->training_file), V(j->validation_file), V(j->suffix),
               V(j->metadata ? j->metadata : "{}"), V(j->spec ? j->spec : "{}"), V(j->seed), V(j->created_s ? j->created_s : store_now()),
               V(j->total_steps), V(j->shared));
}

// *job: the id of the job that this key made before, NULL: none.
static bool idempotency_find(struct store *s, const char *owner, const char *key, const char *request_hash, struct arena *a, const char **job,
                             struct err *err) {
    *job = NULL;
    if (!key) return true;
    sqlite3_stmt *q = QUERY(s, err, "SELECT job, request_hash FROM idempotency WHERE owner = ?1 AND key = ?2", V(owner), V(key));
    int found = q ? store_step(s, q, err) : -1;
    if (found <= 0) return found == 0;
    if (strcmp((const char *)sqlite3_column_text(q, 1), request_hash) != 0)
        return err_set_param(err, ERR_INVALID, "idempotency_key", "this idempotency key came with another request before");
    *job = column_text(q, 0, a);
    return true;
}

bool store_job_create(struct store *s, const struct viewer *v, const struct stored_job *j, const char *idempotency_key, const char *request_hash,
                      size_t max_unfinished, struct arena *a, struct stored_job *out, bool *again, struct err *err) {
    static const struct viewer everybody = {"", true};
    char made[STORE_ID_SIZE], message[128];
    const char *id = j->id, *before = NULL;
    struct stored_job row = {0};
    if (!id) store_make_id(made, "ftjob-"), id = made;
    snprintf(message, sizeof message, "Created fine-tuning job: %s", id);
    bool ok = store_begin(s, err) && idempotency_find(s, j->owner, idempotency_key, request_hash, a, &before, err);
    if (ok && !before) {
        ok = job_allowed(s, j->owner, max_unfinished, err) && job_file_visible(s, v, j->training_file, "training_file", err) &&
             job_file_visible(s, v, j->validation_file, "validation_file", err) && job_insert(s, id, j, err) && store_event_say(s, id, message, err);
        if (ok && idempotency_key)
            ok = RUN(s, err, "INSERT INTO idempotency (owner, key, request_hash, job) VALUES (?1, ?2, ?3, ?4)", V(j->owner), V(idempotency_key),
                     V(request_hash), V(id));
    }
    ok = ok && job_fetch(s, &everybody, before ? before : id, a, &row, err);
    if (!store_end(s, ok, err)) return false;
    *out = row;
    *again = before != NULL;
    return true;
}

// ---- reading ----

bool store_job_by_key(struct store *s, const char *owner, const char *idempotency_key, const char *request_hash, struct arena *a, struct stored_job *out,
                      bool *found, struct err *err) {
    static const struct viewer everybody = {"", true};
    const char *job = NULL;
    store_lock(s);
    const bool ok = idempotency_find(s, owner, idempotency_key, request_hash, a, &job, err) && (!job || job_fetch(s, &everybody, job, a, out, err));
    *found = ok && job;
    return store_end(s, ok, err);
}

bool store_job_get(struct store *s, const struct viewer *v, const char *id, struct arena *a, struct stored_job *out, struct err *err) {
    store_lock(s);
    return store_end(s, job_fetch(s, v, id, a, out, err), err);
}

// The pairs as a JSON object; a key that stands twice stays twice, and both must hold.
static void filter_write(struct buf *out, const char *const *pairs) {
    buf_add_byte(out, '{');
    for (size_t i = 0; pairs && pairs[i]; i++) {
        if (i) buf_add_byte(out, i % 2 ? ':' : ',');
        buf_add_json_string(out, pairs[i], strlen(pairs[i]));
    }
    buf_add_byte(out, '}');
}

bool store_job_list(struct store *s, const struct viewer *v, const struct page *p, const struct job_filter *f, struct arena *a, struct stored_job **out,
                    size_t *n, bool *more, struct err *err) {
#define JOB_LIST                                                                                                                \
    "SELECT " JOB_COLUMNS " FROM jobs WHERE " VISIBLE " AND (?5 < 0 OR status = ?5)"                                            \
    " AND NOT EXISTS (SELECT 1 FROM json_each(?6) AS wanted WHERE wanted.value IS NOT"                                          \
    " (SELECT value FROM json_each(jobs.metadata) AS has WHERE has.key = wanted.key))"                                          \
    " AND (NOT ?7 OR NOT EXISTS (SELECT 1 FROM json_each(jobs.metadata)))"
    static const struct job_filter any = {.status = -1};
    if (!f) f = &any;
    int64_t from;
    struct row_list list;
    struct buf wanted = {0};
    filter_write(&wanted, f->metadata);
    store_lock(s);
    bool ok = PAGE_FROM(s, p, &from, err, "SELECT seq FROM jobs WHERE " VISIBLE " AND id = ?3", V(v->all), V(v->key), V(p->after));
    if (ok) {
        sqlite3_stmt *q = QUERY(s, err, p->ascending ? JOB_LIST PAGE_UP : JOB_LIST PAGE_DOWN, V(v->all), V(v->key), V(from), V(store_page_rows(p)),
                                V(f->status), V(wanted.data), V(f->without_metadata));
        ok = store_rows(s, q, p->limit, job_read_row, sizeof **out, a, &list, err);
    }
    ok = store_end(s, ok, err);
    buf_finish(&wanted);
    if (!ok) return false;
    *out = list.rows;
    *n = list.n;
    *more = list.more;
    return true;
}

bool store_job_counts(struct store *s, size_t counts[JOB_STATUSES], struct err *err) {
    size_t fresh[JOB_STATUSES] = {0};
    int found;
    store_lock(s);
    sqlite3_stmt *q = QUERY(s, err, "SELECT status, count(*) FROM jobs GROUP BY status");
    for (found = q ? 1 : -1; found > 0 && (found = store_step(s, q, err)) > 0;)
        fresh[sqlite3_column_int(q, 0)] = (size_t)sqlite3_column_int64(q, 1); // the table's CHECK keeps it below JOB_STATUSES
    if (!store_end(s, found == 0, err)) return false;
    memcpy(counts, fresh, sizeof fresh);
    return true;
}

size_t store_job_place(struct store *s, const char *id) {
    // Claims go round: everybody's first job in the order of turns, then everybody's second. So of those before me as many as my own up to this one
    // (round), of those after me one fewer; owners never served stand by their oldest job.
    int64_t place = 0;
    store_lock(s);
    bool ok = NUMBER(s, NULL, &place,
                     "WITH owners AS (SELECT owner, count(*) AS n, (coalesce((SELECT last FROM turns WHERE turns.owner = jobs.owner), 0)) AS turn,"
                     " min(seq) AS first FROM jobs WHERE status = ?2 GROUP BY owner), mine AS (SELECT turn, first, (SELECT count(*) FROM jobs AS own"
                     " WHERE own.status = ?2 AND own.owner = jobs.owner AND own.seq <= jobs.seq) AS round FROM jobs JOIN owners USING (owner)"
                     " WHERE jobs.id = ?1 AND jobs.status = ?2)"
                     " SELECT sum(min(o.n, m.round - ((o.turn, o.first) > (m.turn, m.first)))) FROM owners AS o, mine AS m",
                     V(id), V(JOB_QUEUED));
    return store_end(s, ok, NULL) ? (size_t)place : 0;
}

// ---- wishes ----

struct step { // what an action makes of a job
    enum job_status status;
    enum job_wish wish;
    const char *says;   // event; NULL: none
    const char *refuse; // why not; NULL: it can be done
};

static struct step step_of(enum job_action action, enum job_status status, enum job_wish wish) {
    struct step as_it_is = {status, wish, NULL, NULL}, no = as_it_is;
    bool waits = status == JOB_VALIDATING || status == JOB_QUEUED;
    no.refuse = wish == WISH_CANCEL ? "the job is being cancelled" : "the job has ended";
    switch (action) {
    case ACTION_CANCEL:
        if (status == JOB_RUNNING) return (struct step){status, WISH_CANCEL, NULL, NULL};
        if (waits || status == JOB_PAUSED) return (struct step){JOB_CANCELLED, WISH_NONE, "The job has been cancelled.", NULL};
        return status == JOB_CANCELLED ? as_it_is : no;
    case ACTION_PAUSE:
        if (status == JOB_RUNNING && wish != WISH_CANCEL) return (struct step){status, WISH_PAUSE, NULL, NULL};
        if (waits) return (struct step){JOB_PAUSED, WISH_NONE, "The job has been paused.", NULL};
        return status == JOB_PAUSED ? as_it_is : no;
    case ACTION_RESUME:
        if (status == JOB_RUNNING && wish != WISH_CANCEL) return (struct step){status, WISH_NONE, NULL, NULL};
        if (status == JOB_PAUSED) return (struct step){JOB_QUEUED, WISH_NONE, "The job is queued again.", NULL};
        return waits ? as_it_is : no;
    }
    return no;
}

bool store_job_act(struct store *s, const struct viewer *v, const char *id, enum job_action action, struct arena *a, struct stored_job *out,
                   struct err *err) {
    struct stored_job j;
    bool ok = store_begin(s, err);
    if (ok) {
        sqlite3_stmt *q = QUERY(s, err, "SELECT " JOB_COLUMNS " FROM jobs WHERE " OWN " AND id = ?3", V(v->all), V(v->key), V(id));
        ok = store_one(s, q, job_read_row, a, &j, "job of this key", err);
    }
    if (ok) {
        struct step step = step_of(action, j.status, j.wish);
        bool same = step.status == j.status && step.wish == j.wish;
        if (step.refuse) ok = err_set_param(err, ERR_INVALID, "status", "%s", step.refuse);
        if (job_status_final(step.status) && !same) j.finished_s = store_now();
        if (ok && !same)
            ok = RUN(s, err, "UPDATE jobs SET status = ?2, wish = ?3, finished_s = ?4 WHERE id = ?1", V(id), V(step.status), V(step.wish),
                     V(j.finished_s)) &&
                 (!step.says || store_event_say(s, id, step.says, err));
        j.status = step.status;
        j.wish = step.wish;
    }
    if (!store_end(s, ok, err)) return false;
    *out = j;
    return true;
}
