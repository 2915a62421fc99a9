// SPDX-License-Identifier: MIT
// Rows of uploaded and result files. The bytes lie in DATA_DIR/files under the row's id and are the caller's. Invariants, threads: store_internal.h.
#include "server/store/store_internal.h"

#define FILE_COLUMNS "id, owner, filename, purpose, sha256, bytes, created_s, expires_s, shared"
// A job that has not ended names the file.
#define FILE_IN_USE(id) \
    "EXISTS (SELECT 1 FROM jobs WHERE training_file = " id " AND status < 4) OR EXISTS (SELECT 1 FROM jobs WHERE validation_file = " id " AND status < 4)"
_Static_assert(JOB_SUCCEEDED == 4 && JOB_CANCELLED == 6, "status < 4 means: has not ended");

static void file_read_row(sqlite3_stmt *q, struct arena *a, void *row) {
    struct stored_file *f = row;
    f->id = column_text(q, 0, a);
    f->owner = column_text(q, 1, a);
    f->filename = column_text(q, 2, a);
    f->purpose = column_text(q, 3, a);
    f->sha256 = column_text(q, 4, a);
    f->bytes = sqlite3_column_int64(q, 5);
    f->created_s = sqlite3_column_int64(q, 6);
    f->expires_s = sqlite3_column_int64(q, 7);
    f->shared = sqlite3_column_int(q, 8);
}

bool store_file_insert(struct store *s, const struct stored_file *f, struct err *err) {
    return RUN(s, err, "INSERT INTO files (" FILE_COLUMNS ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)", V(f->id), V(f->owner), V(f->filename),
               V(f->purpose), V(f->sha256), V(f->bytes), V(f->created_s ? f->created_s : store_now()), V(f->expires_s), V(f->shared));
}

bool store_file_add(struct store *s, const struct stored_file *f, struct err *err) {
    bool ok = store_begin(s, err) && store_file_insert(s, f, err);
    return store_end(s, ok, err);
}

bool store_file_get(struct store *s, const struct viewer *v, const char *id, struct arena *a, struct stored_file *out, struct err *err) {
    store_lock(s);
    sqlite3_stmt *q = QUERY(s, err, "SELECT " FILE_COLUMNS " FROM files WHERE " VISIBLE " AND id = ?3", V(v->all), V(v->key), V(id));
    return store_end(s, store_one(s, q, file_read_row, a, out, "file", err), err);
}

bool store_file_list(struct store *s, const struct viewer *v, const struct page *p, const char *purpose, struct arena *a, struct stored_file **out,
                     size_t *n, bool *more, struct err *err) {
#define FILE_LIST "SELECT " FILE_COLUMNS " FROM files WHERE " VISIBLE " AND (?5 IS NULL OR purpose = ?5)"
    int64_t from;
    struct row_list list;
    store_lock(s);
    bool ok = PAGE_FROM(s, p, &from, err, "SELECT seq FROM files WHERE " VISIBLE " AND id = ?3", V(v->all), V(v->key), V(p->after));
    if (ok) {
        sqlite3_stmt *q = QUERY(s, err, p->ascending ? FILE_LIST PAGE_UP : FILE_LIST PAGE_DOWN, V(v->all), V(v->key), V(from), V(store_page_rows(p)),
                                V(purpose));
        ok = store_rows(s, q, p->limit, file_read_row, sizeof **out, a, &list, err);
    }
    if (!store_end(s, ok, err)) return false;
    *out = list.rows;
    *n = list.n;
    *more = list.more;
    return true;
}

bool store_file_remove(struct store *s, const struct viewer *v, const char *id, struct arena *a, const char *const **models, struct err *err) {
    int64_t own = 0, used = 0;
    struct row_list list = {0};
    bool ok = store_begin(s, err) && NUMBER(s, err, &own, "SELECT seq FROM files WHERE " OWN " AND id = ?3", V(v->all), V(v->key), V(id));
    if (ok && !own) ok = err_set(err, ERR_NOT_FOUND, "there is no such file of this key");
    ok = ok && NUMBER(s, err, &used, "SELECT " FILE_IN_USE("?1"), V(id));
    if (ok && used) ok = err_set(err, ERR_BUSY, "a job that has not ended uses this file; cancel it or wait for its end");
    if (ok) {
        // A shared file's other users keep the names of their models to themselves.
        sqlite3_stmt *q = QUERY(s, err,
                                "SELECT id FROM models WHERE " VISIBLE " AND job IN (SELECT id FROM jobs WHERE training_file = ?3 UNION ALL "
                                "SELECT id FROM jobs WHERE validation_file = ?3) ORDER BY seq",
                                V(v->all), V(v->key), V(id));
        ok = store_rows(s, q, SIZE_MAX, row_read_id, sizeof(char *), a, &list, err);
    }
    ok = ok && RUN(s, err, "DELETE FROM files WHERE seq = ?1", V(own));
    if (!store_end(s, ok, err)) return false;
    *models = list.rows;
    return true;
}

bool store_file_usage(struct store *s, const struct viewer *v, struct file_usage *out, struct err *err) {
    store_lock(s);
    sqlite3_stmt *q = QUERY(s, err,
                            "SELECT coalesce(sum(bytes) FILTER (WHERE owner = ?1), 0), coalesce(sum(bytes), 0), count(*) FILTER (WHERE owner = ?1)"
                            " FROM files",
                            V(v->key));
    bool ok = q && store_step(s, q, err) == 1;
    if (ok)
        *out = (struct file_usage){(uint64_t)sqlite3_column_int64(q, 0), (uint64_t)sqlite3_column_int64(q, 1), (size_t)sqlite3_column_int64(q, 2)};
    return store_end(s, ok, err);
}

bool store_file_expire(struct store *s, int64_t now_s, struct arena *a, const char *const **ids, struct err *err) {
    struct row_list list;
    bool ok = store_begin(s, err);
    if (ok) {
        sqlite3_stmt *q = QUERY(s, err,
                                "DELETE FROM files WHERE expires_s > 0 AND expires_s <= ?1 AND NOT (" FILE_IN_USE("files.id") ") RETURNING id",
                                V(now_s));
        ok = store_rows(s, q, SIZE_MAX, row_read_id, sizeof(char *), a, &list, err);
    }
    if (!store_end(s, ok, err)) return false;
    *ids = list.rows;
    return true;
}

bool store_file_known(struct store *s, const char *id) {
    int64_t found = 0;
    store_lock(s);
    bool ok = NUMBER(s, NULL, &found, "SELECT seq FROM files WHERE id = ?1", V(id));
    // What cannot be looked up counts as known: the sweep deletes the others.
    return !store_end(s, ok, NULL) || found;
}
