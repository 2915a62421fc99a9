// SPDX-License-Identifier: MIT
// What happened in a job: events and checkpoints. Both are only added, in transactions of the job's. Invariants, threads: store_internal.h.
#include "server/store/store_internal.h"

#define EVENT_COLUMNS "id, level, message, type, data, created_s"
#define CHECKPOINT_COLUMNS "id, step, model, metrics, created_s"

static void event_read_row(sqlite3_stmt *q, struct arena *a, void *row) {
    struct stored_event *e = row;
    e->id = column_text(q, 0, a);
    e->level = column_text(q, 1, a);
    e->message = column_text(q, 2, a);
    e->type = column_text(q, 3, a);
    e->data = column_text(q, 4, a);
    e->created_s = sqlite3_column_int64(q, 5);
}

static void checkpoint_read_row(sqlite3_stmt *q, struct arena *a, void *row) {
    struct stored_checkpoint *c = row;
    c->id = column_text(q, 0, a);
    c->step = (uint64_t)sqlite3_column_int64(q, 1);
    c->model = column_text(q, 2, a);
    c->metrics = column_text(q, 3, a);
    c->created_s = sqlite3_column_int64(q, 4);
}

bool store_event_insert(struct store *s, const char *job, const struct stored_event *e, struct err *err) {
    char made[STORE_ID_SIZE];
    store_make_id(made, "ftevent-");
    return RUN(s, err,
               "INSERT INTO events (id, job, once, level, message, type, data, created_s) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"
               " ON CONFLICT (job, once) DO NOTHING",
               V(e->id ? e->id : made), V(job), V(e->once), V(e->level ? e->level : "info"), V(e->message), V(e->type ? e->type : "message"), V(e->data),
               V(e->created_s ? e->created_s : store_now()));
}

bool store_event_say(struct store *s, const char *job, const char *message, struct err *err) {
    return store_event_insert(s, job, &(struct stored_event){.message = message}, err);
}

bool store_checkpoint_insert(struct store *s, const char *job, const struct stored_checkpoint *c, struct err *err) {
    char made[STORE_ID_SIZE];
    store_make_id(made, "ftckpt_");
    return RUN(s, err,
               "INSERT INTO checkpoints (id, job, step, model, metrics, created_s) VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (job, step) DO NOTHING",
               V(c->id ? c->id : made), V(job), V(c->step), V(c->model), V(c->metrics ? c->metrics : "{}"),
               V(c->created_s ? c->created_s : store_now()));
}

static bool job_visible(struct store *s, const struct viewer *v, const char *job, struct err *err) {
    int64_t found;
    if (!NUMBER(s, err, &found, "SELECT seq FROM jobs WHERE " VISIBLE " AND id = ?3", V(v->all), V(v->key), V(job))) return false;
    return found || err_set(err, ERR_NOT_FOUND, "there is no such job");
}

// from_sql: ?1 job, ?2 id. page_sql: ?1 job, ?2 from, ?3 rows; two of them, down and up.
static bool job_parts(struct store *s, const struct viewer *v, const char *job, const struct page *p, const char *from_sql, const char *page_sql,
                      row_read *read, size_t row_size, struct arena *a, struct row_list *out, struct err *err) {
    int64_t from;
    store_lock(s);
    bool ok = job_visible(s, v, job, err) && PAGE_FROM(s, p, &from, err, from_sql, V(job), V(p->after));
    if (ok) {
        sqlite3_stmt *q = QUERY(s, err, page_sql, V(job), V(from), V(store_page_rows(p)));
        ok = store_rows(s, q, p->limit, read, row_size, a, out, err);
    }
    return store_end(s, ok, err);
}

#define PART_DOWN " WHERE job = ?1 AND seq < ?2 ORDER BY seq DESC LIMIT ?3"
#define PART_UP " WHERE job = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3"

bool store_event_list(struct store *s, const struct viewer *v, const char *job, const struct page *p, struct arena *a, struct stored_event **out, size_t *n,
                      bool *more, struct err *err) {
#define EVENT_LIST "SELECT " EVENT_COLUMNS " FROM events INDEXED BY events_job"
    struct row_list list;
    if (!job_parts(s, v, job, p, "SELECT seq FROM events WHERE job = ?1 AND id = ?2", p->ascending ? EVENT_LIST PART_UP : EVENT_LIST PART_DOWN,
                   event_read_row, sizeof **out, a, &list, err))
        return false;
    *out = list.rows;
    *n = list.n;
    *more = list.more;
    return true;
}

bool store_checkpoint_list(struct store *s, const struct viewer *v, const char *job, const struct page *p, struct arena *a, struct stored_checkpoint **out,
                           size_t *n, bool *more, struct err *err) {
#define CHECKPOINT_LIST "SELECT " CHECKPOINT_COLUMNS " FROM checkpoints"
    struct row_list list;
    if (!job_parts(s, v, job, p, "SELECT seq FROM checkpoints WHERE job = ?1 AND id = ?2",
                   p->ascending ? CHECKPOINT_LIST PART_UP : CHECKPOINT_LIST PART_DOWN, checkpoint_read_row, sizeof **out, a, &list, err))
        return false;
    *out = list.rows;
    *n = list.n;
    *more = list.more;
    return true;
}
