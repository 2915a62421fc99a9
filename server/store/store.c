// SPDX-License-Identifier: MIT
// The connection: opening and migrating, transactions, statements, rows, ids. The only file that talks to SQLite about anything but rows.
// Invariants: see store_internal.h. Thread: any but the loop.
#include "server/store/store_internal.h"

#include "base/file.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

// Version N of the tables is migrations[0] to migrations[N - 1], each in one transaction. What has been released is never edited: add one.
// Enumerators are stored as their numbers. seq is the order of making and never used twice; clients see ids only.
static const char *const migrations[] = {
    "CREATE TABLE files (seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, filename TEXT NOT NULL,"
    " purpose TEXT NOT NULL, sha256 TEXT NOT NULL, bytes INTEGER NOT NULL, created_s INTEGER NOT NULL, expires_s INTEGER NOT NULL,"
    " shared INTEGER NOT NULL) STRICT;"
    "CREATE TABLE jobs (seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL,"
    " status INTEGER NOT NULL CHECK (status BETWEEN 0 AND 6), wish INTEGER NOT NULL DEFAULT 0 CHECK (wish BETWEEN 0 AND 2),"
    " kind TEXT NOT NULL, model TEXT NOT NULL, training_file TEXT NOT NULL, validation_file TEXT, suffix TEXT,"
    " metadata TEXT NOT NULL CHECK (json_valid(metadata)), spec TEXT NOT NULL, fine_tuned_model TEXT, result_files TEXT NOT NULL DEFAULT '[]',"
    " error_code TEXT, error_message TEXT, error_param TEXT, seed INTEGER NOT NULL, created_s INTEGER NOT NULL,"
    " started_s INTEGER NOT NULL DEFAULT 0, finished_s INTEGER NOT NULL DEFAULT 0, attempt INTEGER NOT NULL DEFAULT 0,"
    " step INTEGER NOT NULL DEFAULT 0, total_steps INTEGER NOT NULL, trained_tokens INTEGER NOT NULL DEFAULT 0,"
    " seconds_per_step REAL NOT NULL DEFAULT 0, shared INTEGER NOT NULL, instance TEXT, lease_until_ms INTEGER NOT NULL DEFAULT 0) STRICT;"
    "CREATE INDEX jobs_status ON jobs (status, owner);" // claims, places, counts and quotas read nothing but this
    // When an owner's job was claimed last, in claims: the order among keys.
    "CREATE TABLE turns (owner TEXT PRIMARY KEY, last INTEGER NOT NULL) STRICT, WITHOUT ROWID;"
    "CREATE TABLE idempotency (owner TEXT NOT NULL, key TEXT NOT NULL, request_hash TEXT NOT NULL, job TEXT NOT NULL REFERENCES jobs (id),"
    " PRIMARY KEY (owner, key)) STRICT, WITHOUT ROWID;"
    "CREATE TABLE events (seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, job TEXT NOT NULL REFERENCES jobs (id), once TEXT,"
    " level TEXT NOT NULL, message TEXT NOT NULL, type TEXT NOT NULL, data TEXT, created_s INTEGER NOT NULL, UNIQUE (job, once)) STRICT;"
    "CREATE INDEX events_job ON events (job);"
    "CREATE TABLE checkpoints (seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, job TEXT NOT NULL REFERENCES jobs (id),"
    " step INTEGER NOT NULL, model TEXT NOT NULL, metrics TEXT NOT NULL, created_s INTEGER NOT NULL, UNIQUE (job, step)) STRICT;"
    "CREATE TABLE models (seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, job TEXT REFERENCES jobs (id),"
    " dir TEXT NOT NULL, base TEXT NOT NULL, kind INTEGER NOT NULL, step INTEGER NOT NULL, bytes INTEGER NOT NULL, checkpoint INTEGER NOT NULL,"
    " shared INTEGER NOT NULL, created_s INTEGER NOT NULL) STRICT;"
    // What an alias points at may be a model from the command line, which has no row.
    "CREATE TABLE aliases (alias TEXT PRIMARY KEY, model TEXT NOT NULL, owner TEXT NOT NULL, shared INTEGER NOT NULL,"
    " created_s INTEGER NOT NULL) STRICT, WITHOUT ROWID;",
    // Deleting a file looks for the jobs that use it and the models made from it.
    "CREATE INDEX jobs_training ON jobs (training_file);"
    "CREATE INDEX jobs_validation ON jobs (validation_file);"
    "CREATE INDEX models_job ON models (job);",
};
const int store_newest_version = ARRAY_LEN(migrations);

// ---- errors, time, ids ----

// system: the errno behind it, where it was one of the operating system's.
static bool store_fail_with(struct store *s, int system, struct err *err) {
    switch (sqlite3_errcode(s->db)) {
    case SQLITE_FULL: return err_set(err, ERR_NO_SPACE, "there is no space left for the database");
    case SQLITE_IOERR:
    case SQLITE_CANTOPEN:
        if (err_code_of(system) != ERR_NO_SPACE) break;
        return err_set(err, ERR_NO_SPACE, "there is no space left for the database");
    case SQLITE_NOMEM: return err_set(err, ERR_NO_MEMORY, "there is no memory left for the database");
    case SQLITE_CONSTRAINT: return err_set(err, ERR_INVALID, "the database refused a value, or its id is taken (%s)", sqlite3_errmsg(s->db));
    case SQLITE_BUSY: return err_set(err, ERR_BUSY, "another process holds the database");
    }
    return err_set(err, ERR_IO, "the database failed: %s (%d, errno %d)", sqlite3_errmsg(s->db), sqlite3_extended_errcode(s->db), system);
}

bool store_fail(struct store *s, struct err *err) { return store_fail_with(s, sqlite3_system_errno(s->db), err); }

int64_t store_now(void) { return time(NULL); }

void store_make_id(char out[STORE_ID_SIZE], const char *prefix) {
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    size_t n = strlen(prefix), end = n + 24;
    assert(end < STORE_ID_SIZE);
    memcpy(out, prefix, n);
    while (n < end) {
        unsigned char byte;
        if (getrandom(&byte, 1, 0) != 1) abort(); // cannot happen: the pool is ready once the system is up
        if (byte < 248) out[n++] = alphabet[byte % 62]; // 248 = 4 x 62: every character is as likely
    }
    out[n] = 0;
}

// ---- transactions ----

static bool store_exec(struct store *s, const char *sql, struct err *err) {
    return sqlite3_exec(s->db, sql, NULL, NULL, NULL) == SQLITE_OK || store_fail(s, err);
}

void store_lock(struct store *s) { pthread_mutex_lock(&s->lock); }

bool store_begin(struct store *s, struct err *err) {
    store_lock(s);
    return store_exec(s, "BEGIN IMMEDIATE", err);
}

bool store_end(struct store *s, bool ok, struct err *err) {
    for (size_t i = 0; i < s->n_cached; i++) sqlite3_reset(s->cache[i].statement);
    bool open = !sqlite3_get_autocommit(s->db);
    // A COMMIT that fails does not set SQLite's own note of errno (3.40), which may be an older failure's; what the call left is still there.
    errno = 0;
    if (ok && open) ok = sqlite3_exec(s->db, "COMMIT", NULL, NULL, NULL) == SQLITE_OK || store_fail_with(s, errno, err);
    // Where SQLite has rolled back already there is nothing left to do; where it cannot, the next BEGIN says so.
    if (!ok && !sqlite3_get_autocommit(s->db)) sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
    pthread_mutex_unlock(&s->lock);
    return ok;
}

// ---- statements ----

static sqlite3_stmt *store_statement(struct store *s, const char *sql, struct err *err) {
    for (size_t i = 0; i < s->n_cached; i++)
        if (s->cache[i].sql == sql) return s->cache[i].statement;
    assert(s->n_cached < STORE_STATEMENTS);
    sqlite3_stmt *q = NULL;
    if (sqlite3_prepare_v3(s->db, sql, -1, SQLITE_PREPARE_PERSISTENT, &q, NULL) != SQLITE_OK) {
        store_fail(s, err);
        return NULL;
    }
    s->cache[s->n_cached].sql = sql;
    s->cache[s->n_cached++].statement = q;
    return q;
}

sqlite3_stmt *store_query(struct store *s, struct err *err, const char *sql, const struct value *values, size_t n) {
    sqlite3_stmt *q = store_statement(s, sql, err);
    if (!q) return NULL;
    sqlite3_reset(q);
    assert(sqlite3_bind_parameter_count(q) == (int)n);
    int rc = SQLITE_OK;
    for (size_t i = 0; i < n && rc == SQLITE_OK; i++) {
        const struct value *v = &values[i];
        int place = (int)i + 1;
        if (v->type == VALUE_INTEGER) rc = sqlite3_bind_int64(q, place, v->integer);
        else if (v->type == VALUE_REAL) rc = sqlite3_bind_double(q, place, v->real);
        else rc = sqlite3_bind_text(q, place, v->text, -1, SQLITE_STATIC);
    }
    if (rc == SQLITE_OK) return q;
    store_fail(s, err);
    return NULL;
}

int store_step(struct store *s, sqlite3_stmt *q, struct err *err) {
    int rc = sqlite3_step(q);
    if (rc == SQLITE_ROW) return 1;
    if (rc == SQLITE_DONE) return 0;
    store_fail(s, err);
    return -1;
}

bool store_run(struct store *s, struct err *err, const char *sql, const struct value *values, size_t n) {
    sqlite3_stmt *q = store_query(s, err, sql, values, n);
    return q && store_step(s, q, err) == 0;
}

bool store_number(struct store *s, struct err *err, int64_t *out, const char *sql, const struct value *values, size_t n) {
    sqlite3_stmt *q = store_query(s, err, sql, values, n);
    int row = q ? store_step(s, q, err) : -1;
    if (row < 0) return false;
    *out = row ? sqlite3_column_int64(q, 0) : 0;
    sqlite3_reset(q);
    return true;
}

// ---- rows ----

const char *column_text(sqlite3_stmt *q, int column, struct arena *a) {
    const char *text = (const char *)sqlite3_column_text(q, column);
    return text ? arena_strndup(a, text, (size_t)sqlite3_column_bytes(q, column)) : NULL;
}

void row_read_id(sqlite3_stmt *q, struct arena *a, void *row) { *(const char **)row = column_text(q, 0, a); }

bool store_one(struct store *s, sqlite3_stmt *q, row_read *read, struct arena *a, void *row, const char *what, struct err *err) {
    int found = q ? store_step(s, q, err) : -1;
    if (found < 0) return false;
    if (!found) return err_set(err, ERR_NOT_FOUND, "there is no such %s", what);
    read(q, a, row);
    return true;
}

bool store_rows(struct store *s, sqlite3_stmt *q, size_t limit, row_read *read, size_t row_size, struct arena *a, struct row_list *out,
                struct err *err) {
    char *rows = NULL;
    size_t n = 0, cap = 0;
    int found = q ? 1 : -1;
    while (found > 0 && (found = store_step(s, q, err)) > 0 && n < limit) {
        if (n == cap) rows = mem_resize(rows, cap = cap ? cap * 2 : 16, row_size);
        memset(rows + n * row_size, 0, row_size);
        read(q, a, rows + n++ * row_size);
    }
    if (found >= 0) {
        *out = (struct row_list){arena_alloc(a, n + 1, row_size), n, found > 0};
        if (n) memcpy(out->rows, rows, n * row_size);
    }
    free(rows);
    return found >= 0;
}

bool store_page_from(struct store *s, const struct page *p, int64_t *from, const char *sql, const struct value *values, size_t n, struct err *err) {
    *from = p->ascending ? 0 : INT64_MAX;
    if (!p->after) return true;
    if (!store_number(s, err, from, sql, values, n)) return false;
    return *from || err_set_param(err, ERR_INVALID, "after", "after names nothing in this list");
}

int64_t store_page_rows(const struct page *p) { return (int64_t)MIN(p->limit, (size_t)INT32_MAX) + 1; }

// ---- opening ----

// A copy as it was before the migration. SQLite does not sync what VACUUM INTO writes, and refuses to write over a file.
static bool store_keep_copy(struct store *s, const char *data_dir, int version, struct err *err) {
    char name[64];
    snprintf(name, sizeof name, "couplet.db.v%d.bak", version);
    char *path = path_join(data_dir, name), *temp = NULL;
    if (asprintf(&temp, "%s.tmp", path) < 0) abort();
    unlink(temp);
    bool ok = RUN(s, err, "VACUUM INTO ?1", V(temp));
    if (ok) {
        int fd = open(temp, O_RDWR | O_CLOEXEC);
        ok = fd >= 0 && fsync(fd) == 0 && rename(temp, path) == 0;
        if (!ok) err_set(err, err_code_of(errno), "%s cannot be written: %s", name, strerror(errno));
        if (fd >= 0) close(fd);
    }
    if (!ok) unlink(temp);
    free(temp);
    free(path);
    return ok && dir_sync(data_dir, err);
}

static bool store_migrate(struct store *s, const char *data_dir, int newest, struct err *err) {
    int64_t version;
    store_lock(s);
    if (!store_end(s, NUMBER(s, err, &version, "PRAGMA user_version"), err)) return false;
    if (version > newest)
        return err_set(err, ERR_UNSUPPORTED,
                       "couplet.db was written by a newer couplet: its tables have version %d, this program knows versions up to %d", (int)version,
                       newest);
    if (version > 0 && version < newest) {
        store_lock(s);
        if (!store_end(s, store_keep_copy(s, data_dir, (int)version, err), err)) return false;
    }
    for (; version < newest; version++) {
        char number[48];
        snprintf(number, sizeof number, "PRAGMA user_version = %d", (int)version + 1);
        bool ok = store_begin(s, err) && store_exec(s, migrations[version], err) && store_exec(s, number, err);
        if (!store_end(s, ok, err)) return err_prefix(err, "couplet.db cannot be migrated to version %d", (int)version + 1);
    }
    return true;
}

// A pragma answers with `wanted`, or the database cannot be used.
static bool store_says(struct store *s, const char *sql, const char *wanted, struct err *err) {
    sqlite3_stmt *q = NULL;
    bool ok = sqlite3_prepare_v2(s->db, sql, -1, &q, NULL) == SQLITE_OK, same = false;
    if (ok) ok = sqlite3_step(q) == SQLITE_ROW;
    if (ok) same = strcmp((const char *)sqlite3_column_text(q, 0), wanted) == 0;
    if (!ok) store_fail(s, err);
    else if (!same) err_set(err, ERR_CORRUPT, "couplet.db is damaged: %s", (const char *)sqlite3_column_text(q, 0));
    sqlite3_finalize(q);
    return ok && same;
}

static bool store_connect(struct store *s, const char *path, struct err *err) {
    // NOMUTEX: the mutex is ours.
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
    if (sqlite3_open_v2(path, &s->db, flags, NULL) != SQLITE_OK) return s->db ? store_fail(s, err) : err_set(err, ERR_NO_MEMORY, "no memory");
    sqlite3_busy_timeout(s->db, 5000);
    // quick_check reads the whole file once: a damaged one is found here and not in the middle of a user's request.
    bool ok = store_says(s, "PRAGMA quick_check(1)", "ok", err) && store_says(s, "PRAGMA journal_mode = WAL", "wal", err) &&
              store_exec(s, "PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA temp_store = MEMORY", err);
    int code = sqlite3_errcode(s->db);
    if (!ok && (code == SQLITE_NOTADB || code == SQLITE_CORRUPT)) err_set(err, ERR_CORRUPT, "couplet.db is damaged or no database of couplet's");
    return ok;
}

struct store *store_open_version(const char *data_dir, int version, struct err *err) {
    char *path = path_join(data_dir, "couplet.db");
    struct store *s = mem_new(struct store);
    pthread_mutex_init(&s->lock, NULL);
    bool ok = store_connect(s, path, err) && store_migrate(s, data_dir, version, err) && dir_sync(data_dir, err);
    free(path);
    if (ok) return s;
    store_close(s);
    return NULL;
}

struct store *store_open(const char *data_dir, struct err *err) { return store_open_version(data_dir, store_newest_version, err); }

void store_close(struct store *s) {
    if (!s) return;
    for (size_t i = 0; i < s->n_cached; i++) sqlite3_finalize(s->cache[i].statement);
    sqlite3_close(s->db);
    pthread_mutex_destroy(&s->lock);
    free(s);
}
