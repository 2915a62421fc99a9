// SPDX-License-Identifier: MIT
// Opening, migrations, damage, files, models, aliases.
#include "tests/unit/store/fixture.h"

#include <sys/stat.h>

// ---- opening ----

static char *folder;
static struct store *s;

static void begin(void) {
    folder = folder_make();
    s = store_open(folder, &err);
    if (!s) TEST_FAIL("%s", err.message), exit(1);
}

static void end(void) {
    store_close(s);
    folder_remove(folder);
}

static void reopen(void) {
    store_close(s);
    s = store_open(folder, &err);
    if (!s) TEST_FAIL("%s", err.message), exit(1);
}

static int64_t pragma(const char *sql) {
    sqlite3_stmt *q;
    if (sqlite3_prepare_v2(s->db, sql, -1, &q, NULL) != SQLITE_OK || sqlite3_step(q) != SQLITE_ROW) return -1;
    int64_t n = sqlite3_column_int64(q, 0);
    sqlite3_finalize(q);
    return n;
}

static char *inside(const char *name) { return path_join(folder, name); }

static bool inside_exists(const char *name) {
    char *path = inside(name);
    bool there = file_exists(path);
    free(path);
    return there;
}

TEST(opens_as_promised) {
    begin();
    CHECK_INT(pragma("PRAGMA user_version"), store_newest_version);
    CHECK_INT(pragma("PRAGMA synchronous"), 2);
    CHECK_INT(pragma("PRAGMA foreign_keys"), 1);
    CHECK(!inside_exists("couplet.db.v0.bak"));
    end();
    FAILS(store_open("/nonexistent/folder", &err), ERR_IO);
    store_close(NULL);
}

TEST(ids_are_random_and_well_formed) {
    char a[STORE_ID_SIZE], b[STORE_ID_SIZE];
    int seen[256] = {0};
    for (int i = 0; i < 2000; i++) {
        store_make_id(a, "ftevent-");
        CHECK_INT(strlen(a), 32);
        for (size_t c = 8; a[c]; c++) seen[(unsigned char)a[c]]++;
    }
    int kinds = 0;
    for (int c = 0; c < 256; c++) {
        kinds += seen[c] > 0;
        CHECK(!seen[c] || (seen[c] > 500 && seen[c] < 1100)); // 48,000 characters of 62 kinds: 774 each
    }
    CHECK_INT(kinds, 62);
    store_make_id(a, "file-");
    store_make_id(b, "file-");
    CHECK(strcmp(a, b) != 0 && strncmp(a, "file-", 5) == 0);
}

TEST(every_earlier_version_is_copied_and_migrated) {
    for (int version = 1; version < store_newest_version; version++) {
        folder = folder_make();
        s = store_open_version(folder, version, &err);
        REQUIRE(s);
        CHECK_INT(pragma("PRAGMA user_version"), version);
        OK(file_add(s, "file-1", "alice", false));
        OK(job_add(s, "ftjob-1", "alice", "file-1", NULL));
        reopen();
        CHECK_INT(pragma("PRAGMA user_version"), store_newest_version);
        CHECK_INT(job_status_of(s, "ftjob-1"), JOB_QUEUED);
        // The copy is the old database, whole.
        char name[64];
        snprintf(name, sizeof name, "couplet.db.v%d.bak", version);
        char *copy = inside(name), *database = inside("couplet.db");
        store_close(s);
        CHECK(rename(copy, database) == 0);
        s = store_open_version(folder, version, &err);
        REQUIRE(s);
        CHECK_INT(pragma("PRAGMA user_version"), version);
        CHECK_INT(job_status_of(s, "ftjob-1"), JOB_QUEUED);
        free(copy);
        free(database);
        reopen(); // and once more forward, over no copy
        CHECK(inside_exists(name));
        end();
    }
}

TEST(migrated_tables_equal_new_ones) {
    struct buf schema[2] = {{0}};
    for (int i = 0; i < 2; i++) {
        folder = folder_make();
        s = store_open_version(folder, i ? 1 : store_newest_version, &err);
        REQUIRE(s);
        if (i) reopen();
        sqlite3_stmt *q;
        REQUIRE(sqlite3_prepare_v2(s->db, "SELECT name || coalesce(sql, '') FROM sqlite_schema ORDER BY name", -1, &q, NULL) == SQLITE_OK);
        while (sqlite3_step(q) == SQLITE_ROW) buf_add_str(&schema[i], (const char *)sqlite3_column_text(q, 0));
        sqlite3_finalize(q);
        end();
    }
    CHECK_STR(buf_str(&schema[0]), buf_str(&schema[1]));
    CHECK(schema[0].len > 1000);
    buf_finish(&schema[0]);
    buf_finish(&schema[1]);
}

TEST(a_newer_database_is_refused_and_left_alone) {
    begin();
    OK(file_add(s, "file-1", "alice", false));
    sqlite3_exec(s->db, "PRAGMA user_version = 1000", NULL, NULL, NULL);
    store_close(s);
    FAILS((s = store_open(folder, &err)), ERR_UNSUPPORTED);
    CHECK(strstr(err.message, "newer") && strstr(err.message, "1000"));
    s = store_open_version(folder, 1000, &err);
    REQUIRE(s);
    CHECK(store_file_known(s, "file-1"));
    CHECK(!inside_exists("couplet.db.v1000.bak"));
    end();
}

TEST(damage_is_named) {
    begin();
    for (int i = 0; i < 300; i++) {
        char id[32];
        snprintf(id, sizeof id, "file-%d", i);
        OK(file_add(s, id, "alice", false));
    }
    store_close(s);
    char *path = inside("couplet.db");
    size_t len;
    char *bytes = file_read(path, 1 << 24, &len, &err);
    REQUIRE(bytes);
    // No database at all; the header gone; a page in the middle overwritten; cut in half.
    OK(file_write_atomic(path, "this is a text file, and a rather long one at that, so that it is no empty database.............................", 110, 0600, &err));
    FAILS((s = store_open(folder, &err)), ERR_CORRUPT);
    CHECK(strstr(err.message, "couplet.db"));
    char *hurt = mem_alloc(len, 1);
    memcpy(hurt, bytes, len);
    memset(hurt, 0xff, 100);
    OK(file_write_atomic(path, hurt, len, 0600, &err));
    FAILS((s = store_open(folder, &err)), ERR_CORRUPT);
    memcpy(hurt, bytes, len);
    memset(hurt + 4096, 0xa5, len - 2 * 4096); // every page but the first and the last
    OK(file_write_atomic(path, hurt, len, 0600, &err));
    FAILS((s = store_open(folder, &err)), ERR_CORRUPT);
    OK(file_write_atomic(path, bytes, len / 2, 0600, &err));
    FAILS((s = store_open(folder, &err)), ERR_CORRUPT);
    OK(file_write_atomic(path, bytes, len, 0600, &err));
    s = store_open(folder, &err);
    REQUIRE(s);
    CHECK(store_file_known(s, "file-299"));
    free(path), free(bytes), free(hurt);
    end();
}

TEST(an_empty_file_is_a_new_database) {
    folder = folder_make();
    char *path = inside("couplet.db");
    OK(file_write_atomic(path, "", 0, 0600, &err));
    s = store_open(folder, &err);
    REQUIRE(s);
    OK(file_add(s, "file-1", "alice", false));
    free(path);
    end();
}

// ---- files ----

static size_t listed(const struct viewer *v, const char *after, size_t limit, bool ascending, const char *purpose, struct stored_file **files, bool *more) {
    size_t n = 0;
    OK(store_file_list(s, v, &(struct page){after, limit, ascending}, purpose, &arena, files, &n, more, &err));
    return n;
}

TEST(a_file_comes_back_as_it_was) {
    begin();
    struct stored_file f = {"file-a", "alice", "naïve \"name\" \x01.jsonl", "fine-tune", "abcd", INT64_MAX / 2, 1700000000, 1800000000, false}, got;
    OK(store_file_add(s, &f, &err));
    FAILS(store_file_add(s, &f, &err), ERR_INVALID); // the id is taken
    reopen();
    OK(store_file_get(s, &alice, "file-a", &arena, &got, &err));
    CHECK_STR(got.id, "file-a");
    CHECK_STR(got.owner, "alice");
    CHECK_STR(got.filename, f.filename);
    CHECK_STR(got.purpose, "fine-tune");
    CHECK_STR(got.sha256, "abcd");
    CHECK_INT(got.bytes, f.bytes);
    CHECK_INT(got.created_s, 1700000000);
    CHECK_INT(got.expires_s, 1800000000);
    CHECK(!got.shared);
    end();
}

TEST(who_sees_which_file) {
    begin();
    OK(file_add(s, "file-a", "alice", false));
    OK(file_add(s, "file-b", "bob", false));
    OK(file_add(s, "file-s", "bob", true));
    struct stored_file got = {.id = "untouched"}, *files;
    bool more;
    const char *const *models;
    FAILS(store_file_get(s, &alice, "file-b", &arena, &got, &err), ERR_NOT_FOUND);
    CHECK_STR(got.id, "untouched");
    FAILS(store_file_get(s, &alice, "file-x", &arena, &got, &err), ERR_NOT_FOUND);
    FAILS(store_file_get(s, &alice, "' OR 1=1 --", &arena, &got, &err), ERR_NOT_FOUND);
    OK(store_file_get(s, &alice, "file-s", &arena, &got, &err));
    OK(store_file_get(s, &admin, "file-b", &arena, &got, &err));
    CHECK_INT(listed(&alice, NULL, 10, true, NULL, &files, &more), 2);
    CHECK_STR(files[0].id, "file-a");
    CHECK_STR(files[1].id, "file-s");
    CHECK_INT(listed(&admin, NULL, 10, true, NULL, &files, &more), 3);
    CHECK_INT(listed(&(struct viewer){"", false}, NULL, 10, true, NULL, &files, &more), 1);
    // Another's file is no place to go on from, and cannot be removed, shared or not.
    size_t n;
    FAILS(store_file_list(s, &alice, &(struct page){"file-b", 10, true}, NULL, &arena, &files, &n, &more, &err), ERR_INVALID);
    CHECK_STR(err.param, "after");
    FAILS(store_file_remove(s, &alice, "file-b", &arena, &models, &err), ERR_NOT_FOUND);
    FAILS(store_file_remove(s, &alice, "file-s", &arena, &models, &err), ERR_NOT_FOUND);
    CHECK(store_file_known(s, "file-b") && store_file_known(s, "file-s") && !store_file_known(s, "file-x"));
    OK(store_file_remove(s, &admin, "file-b", &arena, &models, &err));
    CHECK(!models[0] && !store_file_known(s, "file-b"));
    end();
}

TEST(pages_hold_still_while_files_come) {
    begin();
    char id[32];
    for (int i = 0; i < 25; i++) {
        snprintf(id, sizeof id, "file-%02d", i);
        OK(file_add(s, id, i % 5 ? "alice" : "bob", false)); // bob's lie between
    }
    for (int ascending = 0; ascending < 2; ascending++) {
        const char *after = NULL;
        int seen = 0, last = ascending ? -1 : 999;
        for (bool more = true; more;) {
            struct stored_file *files;
            size_t n = listed(&alice, after, 3, ascending, NULL, &files, &more);
            for (size_t i = 0; i < n; i++, seen++) {
                int number = atoi(files[i].id + 5);
                CHECK(ascending ? number > last : number < last);
                CHECK(number % 5 != 0);
                last = number;
                after = files[i].id;
            }
            if (ascending) continue; // what is new belongs to the end of that list
            snprintf(id, sizeof id, "file-%d", 101 + 5 * seen);
            OK(file_add(s, id, "alice", false));
        }
        CHECK_INT(seen, ascending ? 20 + 7 : 20);
    }
    struct stored_file *files;
    bool more;
    CHECK_INT(listed(&alice, NULL, 0, false, NULL, &files, &more), 0);
    CHECK(more);
    CHECK_INT(listed(&alice, NULL, SIZE_MAX, false, NULL, &files, &more), 27);
    CHECK(!more);
    CHECK_INT(listed(&alice, NULL, 27, false, "fine-tune", &files, &more), 27);
    CHECK(!more);
    CHECK_INT(listed(&alice, NULL, 27, false, "batch", &files, &more), 0);
    end();
}

TEST(a_removed_file_is_not_numbered_again) {
    // `after` compares numbers: a second file with the first one's number would be skipped or shown twice.
    begin();
    const char *const *models;
    OK(file_add(s, "file-1", "alice", false));
    OK(file_add(s, "file-2", "alice", false));
    int64_t before = pragma("SELECT max(seq) FROM files");
    OK(store_file_remove(s, &alice, "file-2", &arena, &models, &err));
    OK(file_add(s, "file-3", "alice", false));
    CHECK_INT(pragma("SELECT max(seq) FROM files"), before + 1);
    end();
}

TEST(usage_counts_own_and_all) {
    begin();
    struct file_usage u;
    OK(store_file_usage(s, &alice, &u, &err));
    CHECK(!u.own_bytes && !u.all_bytes && !u.own_files);
    OK(file_add(s, "file-1", "alice", false));
    OK(file_add(s, "file-2", "alice", false));
    OK(file_add(s, "file-3", "bob", true));
    OK(store_file_usage(s, &alice, &u, &err));
    CHECK(u.own_bytes == 20 && u.all_bytes == 30 && u.own_files == 2);
    OK(store_file_usage(s, &admin, &u, &err));
    CHECK(u.own_bytes == 0 && u.all_bytes == 30);
    end();
}

TEST(files_in_use_stay) {
    begin();
    const char *const *models, *const *ids;
    struct stored_job j;
    OK(file_add(s, "file-t", "alice", true));
    OK(file_add(s, "file-free", "alice", false));
    OK(store_file_add(s, &(struct stored_file){.id = "file-v", .owner = "alice", .filename = "v", .purpose = "fine-tune", .sha256 = "", .expires_s = 100}, &err));
    OK(store_file_add(s, &(struct stored_file){.id = "file-old", .owner = "alice", .filename = "o", .purpose = "fine-tune", .sha256 = "", .expires_s = 100}, &err));
    struct stored_job new = {.id = "ftjob-1", .owner = "alice", .status = JOB_QUEUED, .kind = "fine_tune", .model = "m", .training_file = "file-t", .validation_file = "file-v"};
    bool again;
    OK(store_job_create(s, &alice, &new, NULL, NULL, 0, &arena, &j, &again, &err));
    OK(job_add(s, "ftjob-bob", "bob", "file-t", NULL));
    FAILS(store_file_remove(s, &alice, "file-t", &arena, &models, &err), ERR_BUSY);
    FAILS(store_file_remove(s, &alice, "file-v", &arena, &models, &err), ERR_BUSY);
    OK(store_file_remove(s, &alice, "file-free", &arena, &models, &err));
    OK(store_file_expire(s, 99, &arena, &ids, &err));
    CHECK(!ids[0]);
    OK(store_file_expire(s, 100, &arena, &ids, &err));
    REQUIRE(ids[0]);
    CHECK_STR(ids[0], "file-old");
    CHECK(!ids[1] && !store_file_known(s, "file-old") && store_file_known(s, "file-v"));

    // Both jobs end with a model each.
    for (int i = 0; i < 2; i++) {
        OK(store_job_claim(s, "here", INT64_MAX, &arena, &j, &err));
        struct stored_model m = {.id = i ? "ft:bob" : "ft:alice", .dir = "models/x", .base = "m"};
        FAILS(store_file_remove(s, &alice, "file-t", &arena, &models, &err), ERR_BUSY);
        OK(store_job_finish(s, j.id, j.attempt, &(struct job_outcome){.status = JOB_SUCCEEDED, .model = &m}, &err));
    }
    OK(store_file_remove(s, &alice, "file-t", &arena, &models, &err));
    REQUIRE(models[0]);
    CHECK_STR(models[0], "ft:alice");
    CHECK(!models[1]); // bob's is nobody's business
    OK(store_file_expire(s, 100, &arena, &ids, &err));
    REQUIRE(ids[0]);
    CHECK_STR(ids[0], "file-v");
    end();
}

// ---- models and aliases ----

TEST(a_model_that_a_job_begins_with_stays) {
    begin();
    OK(file_add(s, "file-1", "alice", false));
    OK(job_add(s, "ftjob-1", "alice", "file-1", NULL));
    struct stored_job j, next = {.id = "ftjob-2", .owner = "alice", .status = JOB_QUEUED, .kind = "fine_tune", .model = "an-alias", .training_file = "file-1",
                                 .spec = "{\"base_path\":\"/data/models/model-1-step-5\",\"lora_init\":\"/data/models/model-1\"}"};
    bool again;
    OK(store_job_claim(s, "here", INT64_MAX, &arena, &j, &err));
    const struct stored_model made = {.id = "ft:m", .dir = "models/model-1", .base = "base"};
    OK(store_job_finish(s, j.id, 1, &(struct job_outcome){.status = JOB_SUCCEEDED, .model = &made}, &err));
    OK(store_job_create(s, &alice, &next, NULL, NULL, 0, &arena, &j, &again, &err));
    FAILS(store_model_remove(s, "ft:m", &err), ERR_BUSY);
    OK(store_job_act(s, &alice, "ftjob-2", ACTION_PAUSE, &arena, &j, &err));
    FAILS(store_model_remove(s, "ft:m", &err), ERR_BUSY);
    OK(store_job_act(s, &alice, "ftjob-2", ACTION_CANCEL, &arena, &j, &err));
    OK(store_model_remove(s, "ft:m", &err));
    end();
}

TEST(models_and_aliases) {
    begin();
    struct stored_model *m;
    struct stored_alias *aliases;
    size_t n;
    OK(file_add(s, "file-1", "alice", false));
    OK(job_add(s, "ftjob-1", "alice", "file-1", NULL));
    struct stored_job j;
    OK(store_job_claim(s, "here", INT64_MAX, &arena, &j, &err));
    struct stored_model made = {.id = "ft:m", .dir = "models/model-1", .base = "base", .kind = MODEL_ADAPTER, .step = 9, .bytes = 1234, .shared = true, .created_s = 5};
    OK(store_job_finish(s, j.id, 1, &(struct job_outcome){.status = JOB_SUCCEEDED, .model = &made}, &err));
    OK(store_model_list(s, &arena, &m, &n, &err));
    REQUIRE(n == 1);
    CHECK_STR(m->id, "ft:m");
    CHECK_STR(m->owner, "alice");
    CHECK_STR(m->job, "ftjob-1");
    CHECK_STR(m->dir, "models/model-1");
    CHECK_STR(m->base, "base");
    CHECK(m->kind == MODEL_ADAPTER && m->step == 9 && m->bytes == 1234 && !m->checkpoint && m->shared && m->created_s == 5);

    OK(store_alias_put(s, &(struct stored_alias){"best", "ft:m", "alice", false, 1}, &err));
    OK(store_alias_put(s, &(struct stored_alias){"base-alias", "base", "", true, 2}, &err));
    OK(store_alias_put(s, &(struct stored_alias){"best", "ft:m", "alice", true, 3}, &err));
    OK(store_alias_list(s, &arena, &aliases, &n, &err));
    REQUIRE(n == 2);
    CHECK_STR(aliases[1].alias, "best");
    CHECK(aliases[1].shared && aliases[1].created_s == 1);
    FAILS(store_model_remove(s, "ft:none", &err), ERR_NOT_FOUND);
    OK(store_model_remove(s, "ft:m", &err));
    OK(store_alias_list(s, &arena, &aliases, &n, &err));
    REQUIRE(n == 1);
    CHECK_STR(aliases[0].alias, "base-alias");
    CHECK_STR(aliases[0].model, "base");
    OK(store_alias_remove(s, "base-alias", &err));
    FAILS(store_alias_remove(s, "base-alias", &err), ERR_NOT_FOUND);
    OK(store_model_list(s, &arena, &m, &n, &err));
    CHECK_INT(n, 0);
    end();
}

TEST_MAIN("store")
