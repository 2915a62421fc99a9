// SPDX-License-Identifier: MIT
// What was acknowledged is there after kill -9 at any moment; a full disk is said, loses nothing, and passes.
#include "base/rng.h"
#include "tests/unit/store/fixture.h"

#include <errno.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

static bool database_whole(struct store *s) {
    sqlite3_stmt *q;
    bool whole = sqlite3_prepare_v2(s->db, "PRAGMA integrity_check", -1, &q, NULL) == SQLITE_OK && sqlite3_step(q) == SQLITE_ROW &&
                 strcmp((const char *)sqlite3_column_text(q, 0), "ok") == 0;
    sqlite3_finalize(q);
    return whole && sqlite3_exec(s->db, "PRAGMA foreign_key_check", NULL, NULL, NULL) == SQLITE_OK;
}

// ---- kill -9 ----

enum { KILLS = 20, COMMITS = 200 };

// Commit number n of the child: a kind drawn at random. What it makes can be told from n alone.
static bool commit(struct store *s, unsigned seed, int n) {
    char file[32], job[32];
    snprintf(file, sizeof file, "file-%u-%d", seed, n);
    snprintf(job, sizeof job, "ftjob-%u-%d", seed, n);
    if (rng_uniform(seed, (uint64_t)n) < 0.5) return file_add(s, file, "alice", false);
    return job_add(s, job, "alice", "file-0", NULL);
}

static bool commit_there(struct store *s, unsigned seed, int n) {
    char file[32], job[32];
    struct stored_job j;
    snprintf(file, sizeof file, "file-%u-%d", seed, n);
    snprintf(job, sizeof job, "ftjob-%u-%d", seed, n);
    if (rng_uniform(seed, (uint64_t)n) < 0.5) return store_file_known(s, file);
    struct stored_event *e;
    size_t n_events = 0;
    bool more;
    // A job without its first event would be half a transaction.
    return store_job_get(s, &admin, job, &arena, &j, NULL) &&
           store_event_list(s, &admin, job, &(struct page){NULL, 2, true}, &arena, &e, &n_events, &more, NULL) && n_events == 1;
}

static void child(const char *folder, unsigned seed, int fd) {
    struct store *s = store_open(folder, &err);
    for (int n = 0; s && n < COMMITS; n++)
        if (!commit(s, seed, n) || write(fd, "+", 1) != 1) break;
    _exit(0);
}

TEST(kill_9_loses_nothing_acknowledged) {
#ifdef __SANITIZE_THREAD__
    return; // no fork there
#endif
    char *folder = folder_make();
    struct store *s = store_open(folder, &err);
    REQUIRE(s);
    OK(file_add(s, "file-0", "alice", false));
    store_close(s);
    int acknowledged = 0, unheard = 0;
    for (unsigned seed = 1; seed <= KILLS; seed++) {
        int ends[2];
        REQUIRE(pipe(ends) == 0);
        pid_t pid = fork();
        if (pid == 0) child(folder, seed, ends[1]);
        close(ends[1]);
        // Death comes some microseconds after a certain acknowledgement.
        int wanted = (int)(rng_uniform(99, seed) * 25), heard = 0;
        char byte;
        while (heard < wanted && read(ends[0], &byte, 1) == 1) heard++;
        nanosleep(&(struct timespec){0, (long)(rng_uniform(98, seed) * 2e7)}, NULL);
        kill(pid, SIGKILL);
        while (read(ends[0], &byte, 1) == 1) heard++;
        close(ends[0]);
        waitpid(pid, NULL, 0);
        s = store_open(folder, &err);
        REQUIRE(s);
        for (int n = 0; n < heard; n++)
            if (!commit_there(s, seed, n)) TEST_FAIL("round %u: commit %d of %d acknowledged ones is gone", seed, n, heard);
        unheard += commit_there(s, seed, heard);
        CHECK(!commit_there(s, seed, heard + 1));
        CHECK(database_whole(s));
        acknowledged += heard;
        store_close(s);
    }
    printf("%d kills: %d acknowledged commits, 0 lost; %d more were there unheard\n", KILLS, acknowledged, unheard);
    CHECK(acknowledged > KILLS);
    folder_remove(folder);
}

// ---- a full disk ----

// Adds until it fails; how many stand. `numbered` from `first`.
static int add_until_full(struct store *s, int first) {
    char id[32];
    for (int i = first; i < first + 2000; i++) {
        snprintf(id, sizeof id, "file-%d", i);
        if (!file_add(s, id, "alice", false)) return i;
    }
    TEST_FAIL("the disk never was full");
    return first;
}

static void check_full(struct store *s, int stand) {
    char id[32];
    struct stored_file got;
    CHECK_INT(err.code, ERR_NO_SPACE);
    if (!strstr(err.message, "space")) TEST_FAIL("%s", err.message);
    CHECK(database_whole(s));
    for (int i = 0; i < stand; i++) {
        snprintf(id, sizeof id, "file-%d", i);
        if (!store_file_get(s, &alice, id, &arena, &got, &err)) TEST_FAIL("%s is gone: %s", id, err.message);
    }
    snprintf(id, sizeof id, "file-%d", stand);
    CHECK(!store_file_known(s, id));
}

TEST(a_full_database_passes) {
    char *folder = folder_make();
    struct store *s = store_open(folder, &err);
    REQUIRE(s);
    CHECK(sqlite3_exec(s->db, "PRAGMA max_page_count = 40", NULL, NULL, NULL) == SQLITE_OK);
    int stand = add_until_full(s, 0);
    check_full(s, stand);
    const char *const *models;
    OK(store_file_remove(s, &alice, "file-0", &arena, &models, &err)); // making room goes
    CHECK(sqlite3_exec(s->db, "PRAGMA max_page_count = 100000", NULL, NULL, NULL) == SQLITE_OK);
    OK(file_add(s, "file-0", "alice", false));
    CHECK(database_whole(s));
    store_close(s);
    folder_remove(folder);
}

TEST(a_full_disk_passes) {
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit before, limit;
    REQUIRE(getrlimit(RLIMIT_FSIZE, &before) == 0);
    char *folder = folder_make();
    struct store *s = store_open(folder, &err);
    REQUIRE(s);
    limit = before;
    int stand = 0;
    for (rlim_t bytes = 500 << 10; bytes <= 1500 << 10; bytes += 500 << 10) { // the write-ahead log fills up
        limit.rlim_cur = bytes;
        REQUIRE(setrlimit(RLIMIT_FSIZE, &limit) == 0);
        int more = add_until_full(s, stand);
        CHECK(more > stand);
        stand = more;
        check_full(s, stand);
    }
    REQUIRE(setrlimit(RLIMIT_FSIZE, &before) == 0);
    char id[32];
    snprintf(id, sizeof id, "file-%d", stand);
    OK(file_add(s, id, "alice", false));
    store_close(s);
    s = store_open(folder, &err);
    REQUIRE(s);
    CHECK(store_file_known(s, id) && database_whole(s));
    store_close(s);
    folder_remove(folder);
}

TEST_MAIN("store_crash")
