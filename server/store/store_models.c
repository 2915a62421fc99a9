// SPDX-License-Identifier: MIT
// Models made by jobs, and aliases of any model. Who may use which is the registry's matter: lists are whole. Invariants, threads: store_internal.h.
#include "server/store/store_internal.h"

#define MODEL_COLUMNS "id, owner, job, dir, base, kind, step, bytes, checkpoint, shared, created_s"
#define MODEL_VALUES(m)                                                                                                            \
    V((m)->id), V((m)->owner), V((m)->job), V((m)->dir), V((m)->base ? (m)->base : ""), V((m)->kind), V((m)->step), V((m)->bytes), \
        V((m)->checkpoint), V((m)->shared), V((m)->created_s ? (m)->created_s : store_now())

static void model_read_row(sqlite3_stmt *q, struct arena *a, void *row) {
    struct stored_model *m = row;
    m->id = column_text(q, 0, a);
    m->owner = column_text(q, 1, a);
    m->job = column_text(q, 2, a);
    m->dir = column_text(q, 3, a);
    m->base = column_text(q, 4, a);
    m->kind = (enum model_kind)sqlite3_column_int(q, 5);
    m->step = (uint64_t)sqlite3_column_int64(q, 6);
    m->bytes = (uint64_t)sqlite3_column_int64(q, 7);
    m->checkpoint = sqlite3_column_int(q, 8);
    m->shared = sqlite3_column_int(q, 9);
    m->created_s = sqlite3_column_int64(q, 10);
}

bool store_model_insert(struct store *s, const struct stored_model *m, struct err *err) {
    return RUN(s, err, "INSERT INTO models (" MODEL_COLUMNS ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)", MODEL_VALUES(m));
}

bool store_model_insert_checkpoint(struct store *s, const struct stored_model *m, struct err *err) {
    return RUN(s, err,
               "INSERT INTO models (" MODEL_COLUMNS ") SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11"
               " WHERE NOT EXISTS (SELECT 1 FROM checkpoints WHERE job = ?3 AND model = ?1) ON CONFLICT (id) DO NOTHING",
               MODEL_VALUES(m));
}

bool store_model_list(struct store *s, struct arena *a, struct stored_model **out, size_t *n, struct err *err) {
    struct row_list list;
    store_lock(s);
    sqlite3_stmt *q = QUERY(s, err, "SELECT " MODEL_COLUMNS " FROM models ORDER BY seq");
    if (!store_end(s, store_rows(s, q, SIZE_MAX, model_read_row, sizeof **out, a, &list, err), err)) return false;
    *out = list.rows;
    *n = list.n;
    return true;
}

bool store_model_remove(struct store *s, const char *id, struct err *err) {
    // A job names what it begins with by its directory, whatever alias was asked for: the last part of a path in its settings.
    int64_t used = 0;
    bool ok = store_begin(s, err) && NUMBER(s, err, &used,
                                            "SELECT EXISTS (SELECT 1 FROM jobs, models AS m WHERE m.id = ?1 AND jobs.status IN (0, 1, 2, 3)"
                                            " AND instr(jobs.spec, '/' || m.dir || '\"'))",
                                            V(id));
    if (ok && used) ok = err_set(err, ERR_BUSY, "a job that has not ended begins with this model; cancel it or wait for its end");
    ok = ok && RUN(s, err, "DELETE FROM models WHERE id = ?1", V(id));
    if (ok && !sqlite3_changes(s->db)) ok = err_set(err, ERR_NOT_FOUND, "there is no such model");
    ok = ok && RUN(s, err, "DELETE FROM aliases WHERE model = ?1", V(id));
    return store_end(s, ok, err);
}

// ---- aliases ----

static void alias_read_row(sqlite3_stmt *q, struct arena *a, void *row) {
    struct stored_alias *alias = row;
    alias->alias = column_text(q, 0, a);
    alias->model = column_text(q, 1, a);
    alias->owner = column_text(q, 2, a);
    alias->shared = sqlite3_column_int(q, 3);
    alias->created_s = sqlite3_column_int64(q, 4);
}

bool store_alias_put(struct store *s, const struct stored_alias *alias, struct err *err) {
    bool ok = store_begin(s, err) &&
              RUN(s, err,
                  "INSERT INTO aliases (alias, model, owner, shared, created_s) VALUES (?1, ?2, ?3, ?4, ?5)"
                  " ON CONFLICT (alias) DO UPDATE SET model = excluded.model, owner = excluded.owner, shared = excluded.shared",
                  V(alias->alias), V(alias->model), V(alias->owner), V(alias->shared), V(alias->created_s ? alias->created_s : store_now()));
    return store_end(s, ok, err);
}

bool store_alias_remove(struct store *s, const char *alias, struct err *err) {
    bool ok = store_begin(s, err) && RUN(s, err, "DELETE FROM aliases WHERE alias = ?1", V(alias));
    if (ok && !sqlite3_changes(s->db)) ok = err_set(err, ERR_NOT_FOUND, "there is no such alias");
    return store_end(s, ok, err);
}

bool store_alias_list(struct store *s, struct arena *a, struct stored_alias **out, size_t *n, struct err *err) {
    struct row_list list;
    store_lock(s);
    sqlite3_stmt *q = QUERY(s, err, "SELECT alias, model, owner, shared, created_s FROM aliases ORDER BY alias");
    if (!store_end(s, store_rows(s, q, SIZE_MAX, alias_read_row, sizeof **out, a, &list, err), err)) return false;
    *out = list.rows;
    *n = list.n;
    return true;
}
