// SPDX-License-Identifier: MIT
// The store's inside: one SQLite connection under one mutex, statements prepared once and kept by the address of their text, values bound by type.
//
// Invariants. (1) Between store_begin or store_lock and store_end the mutex is held; store_end resets every statement, so that no reader keeps the
// write-ahead log from being emptied. (2) After a failure nothing more is run before store_end: SQLite may have rolled back by itself, and what
// followed would be committed alone. (3) Outputs are set after store_end has said that the change stands.
#pragma once

#include "base/arena.h"
#include "base/err.h"
#include "base/mem.h"
#include "server/store/store.h"

#include <pthread.h>
#include <sqlite3.h>

enum { STORE_STATEMENTS = 96 };

struct store {
    sqlite3 *db;
    pthread_mutex_t lock;
    struct {
        const char *sql; // a literal
        sqlite3_stmt *statement;
    } cache[STORE_STATEMENTS];
    size_t n_cached;
};

// The tables of an earlier version: what tests migrate from.
extern const int store_newest_version;
struct store *store_open_version(const char *data_dir, int version, struct err *err) MUST_CHECK;

// ---- transactions: bool ok = store_begin(s, err) && ... && ...; return store_end(s, ok, err); ----

void store_lock(struct store *s);                                        // for reading
bool store_begin(struct store *s, struct err *err) MUST_CHECK;           // for writing; locks even where it fails
bool store_end(struct store *s, bool ok, struct err *err) MUST_CHECK;    // commits or rolls back, unlocks; true: ok, and on the disk
bool store_fail(struct store *s, struct err *err);                       // what SQLite has just said, as an err; returns false
int64_t store_now(void);                                                 // seconds since 1970

// ---- values and statements ----

struct value {
    enum { VALUE_TEXT, VALUE_INTEGER, VALUE_REAL } type;
    const char *text; // NULL: NULL
    int64_t integer;
    double real;
};
static inline struct value value_text(const char *text) { return (struct value){VALUE_TEXT, .text = text}; }
static inline struct value value_integer(int64_t integer) { return (struct value){VALUE_INTEGER, .integer = integer}; }
static inline struct value value_real(double real) { return (struct value){VALUE_REAL, .real = real}; }
#define V(x) _Generic((x), char *: value_text, const char *: value_text, double: value_real, default: value_integer)(x)
#define VALUES(...) (const struct value[]){__VA_ARGS__}, sizeof((const struct value[]){__VA_ARGS__}) / sizeof(struct value)

// sql: a string literal, its parameters ?1, ?2, ... in the order of the values. The texts must live until store_end.
sqlite3_stmt *store_query(struct store *s, struct err *err, const char *sql, const struct value *values, size_t n) MUST_CHECK;
bool store_run(struct store *s, struct err *err, const char *sql, const struct value *values, size_t n) MUST_CHECK;
// First column of the first row; 0 where there is no row.
bool store_number(struct store *s, struct err *err, int64_t *out, const char *sql, const struct value *values, size_t n) MUST_CHECK;
#define QUERY(s, err, sql, ...) store_query(s, err, sql, VALUES(__VA_ARGS__))
#define RUN(s, err, sql, ...) store_run(s, err, sql, VALUES(__VA_ARGS__))
#define NUMBER(s, err, out, sql, ...) store_number(s, err, out, sql, VALUES(__VA_ARGS__))

// ---- rows ----

int store_step(struct store *s, sqlite3_stmt *q, struct err *err);          // 1: a row, 0: the end, -1: failed
const char *column_text(sqlite3_stmt *q, int column, struct arena *a);      // NULL where NULL
typedef void row_read(sqlite3_stmt *q, struct arena *a, void *row);
void row_read_id(sqlite3_stmt *q, struct arena *a, void *row);              // const char *: the first column
// q may be NULL (store_query failed). No row: ERR_NOT_FOUND "there is no such WHAT".
bool store_one(struct store *s, sqlite3_stmt *q, row_read *read, struct arena *a, void *row, const char *what, struct err *err) MUST_CHECK;
struct row_list {
    void *rows; // n of them, and a zeroed one behind
    size_t n;
    bool more; // the query had more than `limit`
};
bool store_rows(struct store *s, sqlite3_stmt *q, size_t limit, row_read *read, size_t row_size, struct arena *a, struct row_list *out,
                struct err *err) MUST_CHECK;

// Who may read a row and who may change it: ?1 is viewer.all, ?2 viewer.key.
#define VISIBLE "(?1 OR owner = ?2 OR shared)"
#define OWN "(?1 OR owner = ?2)"
// One page: ?3 where it begins (store_page_from), ?4 how many rows (store_page_rows).
#define PAGE_DOWN " AND seq < ?3 ORDER BY seq DESC LIMIT ?4"
#define PAGE_UP " AND seq > ?3 ORDER BY seq LIMIT ?4"
// sql: the seq of the row that page.after names. ERR_INVALID, param "after": there is none.
bool store_page_from(struct store *s, const struct page *p, int64_t *from, const char *sql, const struct value *values, size_t n, struct err *err) MUST_CHECK;
#define PAGE_FROM(s, p, from, err, sql, ...) store_page_from(s, p, from, sql, VALUES(__VA_ARGS__), err)
int64_t store_page_rows(const struct page *p); // one more than asked for, to see whether there are more

// ---- parts of others' transactions ----

bool store_file_insert(struct store *s, const struct stored_file *f, struct err *err) MUST_CHECK;
bool store_model_insert(struct store *s, const struct stored_model *m, struct err *err) MUST_CHECK;
// One whose id is there, or that a checkpoint of the job named before and a client has removed since, is left out.
bool store_model_insert_checkpoint(struct store *s, const struct stored_model *m, struct err *err) MUST_CHECK;
bool store_event_insert(struct store *s, const char *job, const struct stored_event *e, struct err *err) MUST_CHECK;
bool store_event_say(struct store *s, const char *job, const char *message, struct err *err) MUST_CHECK;
bool store_checkpoint_insert(struct store *s, const char *job, const struct stored_checkpoint *c, struct err *err) MUST_CHECK;
