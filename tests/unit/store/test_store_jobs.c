// SPDX-License-Identifier: MIT
// Jobs: creation once a key, who sees them, filters, every action in every state, claims in fair order, leases and attempts, events, checkpoints.
#include "tests/unit/store/fixture.h"

static char *folder;
static struct store *s;

static void begin(void) {
    folder = folder_make();
    s = store_open(folder, &err);
    if (!s) TEST_FAIL("%s", err.message), exit(1);
    OK(file_add(s, "file-a", "alice", false));
    OK(file_add(s, "file-b", "bob", false));
    OK(file_add(s, "file-s", "carol", true));
}

static void end(void) {
    store_close(s);
    folder_remove(folder);
}

static const char *claim_id(void) {
    struct stored_job j;
    err = (struct err){0};
    if (!store_job_claim(s, "here", 1000, &arena, &j, &err)) return err.code == ERR_NOT_FOUND ? "none" : err.message;
    return j.id;
}

static struct stored_job job_of(const char *id) {
    struct stored_job j = {.id = ""};
    OK(store_job_get(s, &admin, id, &arena, &j, &err));
    return j;
}

static size_t rows(const char *table) {
    char *sql;
    if (asprintf(&sql, "SELECT count(*) FROM %s", table) < 0) abort();
    sqlite3_stmt *q;
    int64_t n = -1;
    if (sqlite3_prepare_v2(s->db, sql, -1, &q, NULL) == SQLITE_OK && sqlite3_step(q) == SQLITE_ROW) n = sqlite3_column_int64(q, 0);
    sqlite3_finalize(q);
    free(sql);
    return (size_t)n;
}

// ---- creation ----

TEST(a_job_comes_back_as_it_was) {
    begin();
    struct stored_job j = {.owner = "alice", .status = JOB_QUEUED, .kind = "tokenizer", .model = "gpt2", .training_file = "file-a", .validation_file = "file-s",
                           .suffix = "mine", .metadata = "{\"a\":\"b\"}", .spec = "{\"x\":[1,2]}", .seed = -5, .created_s = 1234, .total_steps = 77, .shared = true}, got;
    bool again = true;
    OK(store_job_create(s, &alice, &j, NULL, NULL, 0, &arena, &got, &again, &err));
    CHECK(!again && strncmp(got.id, "ftjob-", 6) == 0 && strlen(got.id) == 30);
    got = job_of(got.id);
    CHECK_STR(got.owner, "alice");
    CHECK(got.status == JOB_QUEUED && got.wish == WISH_NONE);
    CHECK_STR(got.kind, "tokenizer");
    CHECK_STR(got.model, "gpt2");
    CHECK_STR(got.training_file, "file-a");
    CHECK_STR(got.validation_file, "file-s");
    CHECK_STR(got.suffix, "mine");
    CHECK_STR(got.metadata, "{\"a\":\"b\"}");
    CHECK_STR(got.spec, "{\"x\":[1,2]}");
    CHECK_STR(got.result_files, "[]");
    CHECK(!got.fine_tuned_model && !got.error_code && !got.error_message && !got.error_param);
    CHECK(got.seed == -5 && got.created_s == 1234 && !got.started_s && !got.finished_s && !got.attempt);
    CHECK(!got.step && got.total_steps == 77 && !got.trained_tokens && got.seconds_per_step == 0 && got.shared);
    struct stored_event *e;
    size_t n;
    bool more;
    OK(store_event_list(s, &bob, got.id, &(struct page){NULL, 10, false}, &arena, &e, &n, &more, &err)); // shared
    REQUIRE(n == 1 && !more);
    CHECK(strstr(e->message, got.id) && strncmp(e->id, "ftevent-", 8) == 0);
    CHECK_STR(e->level, "info");
    CHECK_STR(e->type, "message");
    CHECK(!e->data && !e->once && e->created_s > 1700000000);
    end();
}

TEST(files_are_looked_up_as_the_viewer) {
    begin();
    struct stored_job j = {.owner = "alice", .status = JOB_QUEUED, .kind = "fine_tune", .model = "m", .training_file = "file-b"}, got;
    bool again;
    FAILS(store_job_create(s, &alice, &j, "key", "hash", 0, &arena, &got, &again, &err), ERR_NOT_FOUND);
    CHECK_STR(err.param, "training_file");
    CHECK(!strstr(err.message, "file-b"));
    j.training_file = "file-a", j.validation_file = "../file-a";
    FAILS(store_job_create(s, &alice, &j, "key", "hash", 0, &arena, &got, &again, &err), ERR_NOT_FOUND);
    CHECK_STR(err.param, "validation_file");
    CHECK(rows("jobs") == 0 && rows("events") == 0 && rows("idempotency") == 0);
    j.validation_file = "file-s";
    OK(store_job_create(s, &alice, &j, "key", "hash", 0, &arena, &got, &again, &err)); // the key was not used up by the failures
    j.metadata = "no json";
    FAILS(store_job_create(s, &alice, &j, NULL, NULL, 0, &arena, &got, &again, &err), ERR_INVALID);
    CHECK_INT(rows("jobs"), 1);
    end();
}

TEST(one_key_one_job) {
    begin();
    struct stored_job j = {.owner = "alice", .status = JOB_QUEUED, .kind = "fine_tune", .model = "m", .training_file = "file-a"}, first, got;
    bool again;
    const char *const *models;
    OK(store_job_create(s, &alice, &j, "key", "hash", 0, &arena, &first, &again, &err));
    CHECK(!again);
    for (int i = 0; i < 3; i++) {
        OK(store_job_create(s, &alice, &j, "key", "hash", 0, &arena, &got, &again, &err));
        CHECK(again);
        CHECK_STR(got.id, first.id);
    }
    FAILS(store_job_create(s, &alice, &j, "key", "other", 0, &arena, &got, &again, &err), ERR_INVALID);
    CHECK_STR(err.param, "idempotency_key");
    // The answer is the job as it is now, even when its file is gone.
    OK(store_job_act(s, &alice, first.id, ACTION_CANCEL, &arena, &got, &err));
    OK(store_file_remove(s, &alice, "file-a", &arena, &models, &err));
    OK(store_job_create(s, &alice, &j, "key", "hash", 0, &arena, &got, &again, &err));
    CHECK(again && got.status == JOB_CANCELLED);
    // Another owner's same key is another key.
    j.owner = "bob", j.training_file = "file-b";
    OK(store_job_create(s, &bob, &j, "key", "other", 0, &arena, &got, &again, &err));
    CHECK(!again && strcmp(got.id, first.id) != 0);
    CHECK(rows("jobs") == 2 && rows("idempotency") == 2);
    end();
}

TEST(an_owner_has_so_many_unfinished_jobs) {
    begin();
    struct stored_job j = {.owner = "alice", .status = JOB_QUEUED, .kind = "fine_tune", .model = "m", .training_file = "file-a"}, first, got;
    bool again;
    OK(store_job_create(s, &alice, &j, "key", "hash", 1, &arena, &first, &again, &err));
    FAILS(store_job_create(s, &alice, &j, NULL, NULL, 1, &arena, &got, &again, &err), ERR_BUSY);
    CHECK_STR(err.param, "jobs");
    OK(store_job_create(s, &alice, &j, "key", "hash", 1, &arena, &got, &again, &err)); // a repeated key asks for nothing new
    CHECK(again);
    OK(store_job_act(s, &alice, first.id, ACTION_PAUSE, &arena, &got, &err)); // a job that rests has not ended
    FAILS(store_job_create(s, &alice, &j, NULL, NULL, 1, &arena, &got, &again, &err), ERR_BUSY);
    OK(store_job_act(s, &alice, first.id, ACTION_CANCEL, &arena, &got, &err));
    OK(store_job_create(s, &alice, &j, NULL, NULL, 1, &arena, &got, &again, &err));
    CHECK(!again);
    j.owner = "bob", j.training_file = "file-b";
    OK(store_job_create(s, &bob, &j, NULL, NULL, 1, &arena, &got, &again, &err)); // each for itself
    end();
}

// ---- reading ----

TEST(who_sees_which_job) {
    begin();
    OK(job_add(s, "ftjob-a", "alice", "file-a", NULL));
    OK(job_add(s, "ftjob-b", "bob", "file-b", NULL));
    struct stored_job j, *jobs;
    struct stored_event *e;
    struct stored_checkpoint *c;
    size_t n;
    bool more;
    struct page all = {NULL, 10, true};
    FAILS(store_job_get(s, &alice, "ftjob-b", &arena, &j, &err), ERR_NOT_FOUND);
    FAILS(store_job_act(s, &alice, "ftjob-b", ACTION_CANCEL, &arena, &j, &err), ERR_NOT_FOUND);
    FAILS(store_event_list(s, &alice, "ftjob-b", &all, &arena, &e, &n, &more, &err), ERR_NOT_FOUND);
    FAILS(store_checkpoint_list(s, &alice, "ftjob-b", &all, &arena, &c, &n, &more, &err), ERR_NOT_FOUND);
    FAILS(store_event_list(s, &alice, "ftjob-x", &all, &arena, &e, &n, &more, &err), ERR_NOT_FOUND);
    OK(store_job_list(s, &alice, &all, NULL, &arena, &jobs, &n, &more, &err));
    CHECK(n == 1 && strcmp(jobs[0].id, "ftjob-a") == 0);
    OK(store_job_list(s, &admin, &all, NULL, &arena, &jobs, &n, &more, &err));
    CHECK_INT(n, 2);
    FAILS(store_job_list(s, &alice, &(struct page){"ftjob-b", 10, true}, NULL, &arena, &jobs, &n, &more, &err), ERR_INVALID);
    OK(store_job_act(s, &admin, "ftjob-b", ACTION_CANCEL, &arena, &j, &err));
    size_t counts[JOB_STATUSES];
    OK(store_job_counts(s, counts, &err));
    CHECK(counts[JOB_QUEUED] == 1 && counts[JOB_CANCELLED] == 1 && !counts[JOB_RUNNING]);
    end();
}

static size_t matching(const char *const *metadata, bool without, int status) {
    struct stored_job *jobs;
    size_t n = 99;
    bool more;
    struct job_filter f = {metadata, without, status};
    OK(store_job_list(s, &alice, &(struct page){NULL, 10, false}, &f, &arena, &jobs, &n, &more, &err));
    return n;
}

TEST(metadata_filters) {
    begin();
    OK(job_add(s, "ftjob-1", "alice", "file-a", "{\"team\":\"blue\",\"run\":\"1\"}"));
    OK(job_add(s, "ftjob-2", "alice", "file-a", "{\"team\":\"blue\",\"it's \\\"odd\\\" $.x\":\"ä\"}"));
    OK(job_add(s, "ftjob-3", "alice", "file-a", "{}"));
    OK(job_add(s, "ftjob-4", "alice", "file-a", NULL));
    struct stored_job j;
    OK(store_job_act(s, &alice, "ftjob-1", ACTION_PAUSE, &arena, &j, &err));
    CHECK_INT(matching(NULL, false, -1), 4);
    CHECK_INT(matching((const char *[]){NULL}, false, -1), 4);
    CHECK_INT(matching((const char *[]){"team", "blue", NULL}, false, -1), 2);
    CHECK_INT(matching((const char *[]){"team", "blue", "run", "1", NULL}, false, -1), 1);
    CHECK_INT(matching((const char *[]){"team", "blue", "team", "red", NULL}, false, -1), 0);
    CHECK_INT(matching((const char *[]){"it's \"odd\" $.x", "ä", NULL}, false, -1), 1);
    CHECK_INT(matching((const char *[]){"run", "2", NULL}, false, -1), 0);
    CHECK_INT(matching((const char *[]){"absent", "", NULL}, false, -1), 0);
    CHECK_INT(matching(NULL, true, -1), 2);
    CHECK_INT(matching(NULL, false, JOB_PAUSED), 1);
    CHECK_INT(matching((const char *[]){"team", "blue", NULL}, false, JOB_QUEUED), 1);
    end();
}

// ---- actions ----

// Brings ftjob-1 into a state; running ones carry a wish.
static void bring(enum job_status status, enum job_wish wish) {
    begin();
    struct stored_job j;
    OK(job_add(s, "ftjob-1", "alice", "file-a", NULL));
    if (status == JOB_QUEUED) return;
    if (status == JOB_PAUSED || status == JOB_CANCELLED) {
        OK(store_job_act(s, &alice, "ftjob-1", status == JOB_PAUSED ? ACTION_PAUSE : ACTION_CANCEL, &arena, &j, &err));
        return;
    }
    CHECK_STR(claim_id(), "ftjob-1");
    if (wish) OK(store_job_act(s, &alice, "ftjob-1", wish == WISH_PAUSE ? ACTION_PAUSE : ACTION_CANCEL, &arena, &j, &err));
    if (status != JOB_RUNNING) OK(store_job_finish(s, "ftjob-1", 1, &(struct job_outcome){.status = status}, &err));
}

TEST(every_action_in_every_state) {
    static const struct {
        enum job_status status;
        enum job_wish wish;
        enum job_action action;
        int to; // -1: refused
        enum job_wish to_wish;
    } table[] = {
        {JOB_QUEUED, 0, ACTION_CANCEL, JOB_CANCELLED, 0},         {JOB_QUEUED, 0, ACTION_PAUSE, JOB_PAUSED, 0},
        {JOB_QUEUED, 0, ACTION_RESUME, JOB_QUEUED, 0},            {JOB_PAUSED, 0, ACTION_CANCEL, JOB_CANCELLED, 0},
        {JOB_PAUSED, 0, ACTION_PAUSE, JOB_PAUSED, 0},             {JOB_PAUSED, 0, ACTION_RESUME, JOB_QUEUED, 0},
        {JOB_RUNNING, 0, ACTION_CANCEL, JOB_RUNNING, WISH_CANCEL},{JOB_RUNNING, 0, ACTION_PAUSE, JOB_RUNNING, WISH_PAUSE},
        {JOB_RUNNING, 0, ACTION_RESUME, JOB_RUNNING, 0},          {JOB_RUNNING, WISH_PAUSE, ACTION_CANCEL, JOB_RUNNING, WISH_CANCEL},
        {JOB_RUNNING, WISH_PAUSE, ACTION_PAUSE, JOB_RUNNING, WISH_PAUSE}, {JOB_RUNNING, WISH_PAUSE, ACTION_RESUME, JOB_RUNNING, 0},
        {JOB_RUNNING, WISH_CANCEL, ACTION_CANCEL, JOB_RUNNING, WISH_CANCEL}, {JOB_RUNNING, WISH_CANCEL, ACTION_PAUSE, -1, 0},
        {JOB_RUNNING, WISH_CANCEL, ACTION_RESUME, -1, 0},         {JOB_SUCCEEDED, 0, ACTION_CANCEL, -1, 0},
        {JOB_SUCCEEDED, 0, ACTION_PAUSE, -1, 0},                  {JOB_SUCCEEDED, 0, ACTION_RESUME, -1, 0},
        {JOB_FAILED, 0, ACTION_CANCEL, -1, 0},                    {JOB_FAILED, 0, ACTION_PAUSE, -1, 0},
        {JOB_FAILED, 0, ACTION_RESUME, -1, 0},                    {JOB_CANCELLED, 0, ACTION_CANCEL, JOB_CANCELLED, 0},
        {JOB_CANCELLED, 0, ACTION_PAUSE, -1, 0},                  {JOB_CANCELLED, 0, ACTION_RESUME, -1, 0},
    };
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        bring(table[i].status, table[i].wish);
        struct stored_job before = job_of("ftjob-1"), j = {.id = "untouched"};
        int failures = test_failures;
        if (table[i].to < 0) {
            FAILS(store_job_act(s, &alice, "ftjob-1", table[i].action, &arena, &j, &err), ERR_INVALID);
            CHECK_STR(err.param, "status");
            CHECK_STR(j.id, "untouched");
            j = job_of("ftjob-1");
            CHECK(j.status == before.status && j.wish == before.wish);
        } else {
            OK(store_job_act(s, &alice, "ftjob-1", table[i].action, &arena, &j, &err));
            struct stored_job now = job_of("ftjob-1");
            CHECK_INT(j.status, table[i].to);
            CHECK_INT(j.wish, table[i].to_wish);
            CHECK(now.status == j.status && now.wish == j.wish && now.finished_s == j.finished_s);
            CHECK(!now.finished_s == !job_status_final(now.status));
        }
        if (test_failures > failures) fprintf(stderr, "  (row %zu of the table)\n", i);
        end();
    }
}

TEST(a_wish_at_the_last_moment_is_kept) {
    static const struct {
        enum job_status outcome;
        enum job_wish wish;
        enum job_status then;
    } table[] = {
        {JOB_PAUSED, WISH_PAUSE, JOB_PAUSED},        {JOB_PAUSED, WISH_NONE, JOB_QUEUED},  {JOB_PAUSED, WISH_CANCEL, JOB_CANCELLED},
        {JOB_QUEUED, WISH_NONE, JOB_QUEUED},         {JOB_QUEUED, WISH_PAUSE, JOB_PAUSED}, {JOB_QUEUED, WISH_CANCEL, JOB_CANCELLED},
        {JOB_SUCCEEDED, WISH_CANCEL, JOB_SUCCEEDED}, {JOB_FAILED, WISH_PAUSE, JOB_FAILED}, {JOB_CANCELLED, WISH_CANCEL, JOB_CANCELLED},
    };
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        bring(JOB_RUNNING, table[i].wish);
        OK(store_job_finish(s, "ftjob-1", 1, &(struct job_outcome){.status = table[i].outcome}, &err));
        struct stored_job j = job_of("ftjob-1");
        CHECK_INT(j.status, table[i].then);
        CHECK(!j.wish && !j.finished_s == !job_status_final(j.status));
        CHECK_INT(rows("events"), table[i].then == table[i].outcome ? 1 : 2);
        end();
    }
}

// ---- the runner ----

TEST(claims_are_fair) {
    begin();
    // Thirty owners submit in bursts, the greedy one first: everybody's first job comes before anybody's second.
    char owner[16], id[32];
    for (int o = 0; o < 30; o++) {
        snprintf(owner, sizeof owner, "owner-%02d", o);
        for (int k = 0; k < (o == 0 ? 10 : 3); k++) {
            snprintf(id, sizeof id, "ftjob-%02d-%d", o, k);
            OK(job_add(s, id, owner, "file-s", NULL));
        }
    }
    char order[97][32];
    for (int k = 0, at = 0; k < 10; k++)
        for (int o = 0; o < (k < 3 ? 30 : 1); o++, at++) {
            snprintf(order[at], sizeof order[at], "ftjob-%02d-%d", o, k);
            CHECK_INT(store_job_place(s, order[at]), at + 1);
        }
    for (int at = 0; at < 97; at++) {
        // Somebody new in the middle is next; who was served just now waits.
        if (at == 45) {
            OK(job_add(s, "ftjob-new", "newcomer", "file-s", NULL));
            CHECK_INT(store_job_place(s, "ftjob-new"), 1);
            CHECK_STR(claim_id(), "ftjob-new");
            CHECK_INT(store_job_place(s, "ftjob-new"), 0);
            for (int rest = at; rest < 97; rest++) CHECK_INT(store_job_place(s, order[rest]), rest - at + 1);
        }
        CHECK_INT(store_job_place(s, order[at]), 1);
        CHECK_STR(claim_id(), order[at]);
    }
    CHECK_STR(claim_id(), "none");
    CHECK_INT(store_job_place(s, "ftjob-absent"), 0);
    end();
}

TEST(a_claim_starts_an_attempt) {
    begin();
    OK(job_add(s, "ftjob-1", "alice", "file-a", NULL));
    struct stored_job j;
    enum job_wish wish;
    OK(store_job_claim(s, "here", 5000, &arena, &j, &err));
    CHECK(j.status == JOB_RUNNING && j.attempt == 1 && j.started_s > 0 && j.step == 0);
    int64_t started = j.started_s;
    OK(store_job_heartbeat(s, "ftjob-1", 1, 6000, &wish, &err));
    CHECK_INT(wish, WISH_NONE);
    OK(store_job_act(s, &alice, "ftjob-1", ACTION_PAUSE, &arena, &j, &err));
    OK(store_job_heartbeat(s, "ftjob-1", 1, 7000, &wish, &err));
    CHECK_INT(wish, WISH_PAUSE);
    OK(store_job_finish(s, "ftjob-1", 1, &(struct job_outcome){.status = JOB_PAUSED}, &err));
    CHECK_STR(claim_id(), "none");
    OK(store_job_act(s, &alice, "ftjob-1", ACTION_RESUME, &arena, &j, &err));
    OK(store_job_claim(s, "here", 9000, &arena, &j, &err));
    CHECK(j.attempt == 2 && j.started_s == started && !j.wish);
    end();
}

TEST(a_lost_attempt_changes_nothing) {
    begin();
    OK(job_add(s, "ftjob-1", "alice", "file-a", NULL));
    struct stored_job j;
    const char *const *ids;
    enum job_wish wish = 77;
    CHECK_STR(claim_id(), "ftjob-1");
    OK(store_job_requeue(s, NULL, 999, &arena, &ids, &err)); // the lease holds until 1000
    CHECK(!ids[0]);
    OK(store_job_requeue(s, "elsewhere", 999, &arena, &ids, &err));
    CHECK(!ids[0]);
    OK(store_job_requeue(s, "elsewhere", 1000, &arena, &ids, &err));
    REQUIRE(ids[0] && !ids[1]);
    CHECK_STR(ids[0], "ftjob-1");
    size_t events = rows("events"), models = rows("models");
    struct stored_event e = {.once = "step-1", .message = "late"};
    struct stored_checkpoint c = {.step = 1, .model = "m:ckpt"};
    struct stored_model m = {.id = "m:ckpt", .dir = "models/m"};
    struct job_progress p = {.step = 50, .events = &e, .n_events = 1, .checkpoints = &c, .n_checkpoints = 1, .models = &m, .n_models = 1};
    struct stored_file f = {.id = "file-r", .filename = "r", .purpose = "fine-tune-results", .sha256 = ""};
    struct job_outcome o = {.status = JOB_SUCCEEDED, .model = &m, .files = &f, .n_files = 1, .events = &e, .n_events = 1};
    for (int round = 0; round < 3; round++) {
        // Queued; claimed by another; ended.
        if (round == 1) CHECK_STR(claim_id(), "ftjob-1");
        if (round == 2) OK(store_job_finish(s, "ftjob-1", 2, &(struct job_outcome){.status = JOB_FAILED, .error_code = "io_error"}, &err));
        struct stored_job before = job_of("ftjob-1");
        FAILS(store_job_progress(s, "ftjob-1", 1, &p, &err), ERR_NOT_FOUND);
        CHECK_STR(err.param, "attempt");
        FAILS(store_job_heartbeat(s, "ftjob-1", 1, INT64_MAX, &wish, &err), ERR_NOT_FOUND);
        CHECK_STR(err.param, "attempt");
        CHECK_INT(wish, 77);
        FAILS(store_job_finish(s, "ftjob-1", 1, &o, &err), ERR_NOT_FOUND);
        CHECK_STR(err.param, "attempt");
        j = job_of("ftjob-1");
        CHECK(j.status == before.status && j.step == 0 && !j.fine_tuned_model && j.attempt == before.attempt);
        CHECK(rows("events") == events && rows("models") == models && rows("checkpoints") == 0 && !store_file_known(s, "file-r"));
    }
    FAILS(store_job_finish(s, "ftjob-1", 2, &o, &err), ERR_NOT_FOUND); // twice by the right one
    FAILS(store_job_progress(s, "ftjob-none", 1, &p, &err), ERR_NOT_FOUND);
    end();
}

TEST(a_restart_takes_back_its_own) {
    begin();
    const char *const *ids;
    struct stored_job j;
    for (int i = 0; i < 4; i++) {
        char id[16];
        snprintf(id, sizeof id, "ftjob-%d", i);
        OK(job_add(s, id, "alice", "file-a", NULL));
    }
    for (int i = 0; i < 3; i++) OK(store_job_claim(s, i == 1 ? "elsewhere" : "here", INT64_MAX, &arena, &j, &err));
    OK(store_job_act(s, &alice, "ftjob-2", ACTION_CANCEL, &arena, &j, &err));
    OK(store_job_requeue(s, "here", 0, &arena, &ids, &err));
    REQUIRE(ids[0] && ids[1] && !ids[2]);
    CHECK_STR(ids[0], "ftjob-0");
    CHECK_STR(ids[1], "ftjob-2");
    CHECK_INT(job_status_of(s, "ftjob-0"), JOB_QUEUED);
    CHECK_INT(job_status_of(s, "ftjob-1"), JOB_RUNNING);
    CHECK_INT(job_status_of(s, "ftjob-2"), JOB_CANCELLED); // what was acknowledged happens
    CHECK(job_of("ftjob-2").finished_s > 0);
    CHECK_STR(claim_id(), "ftjob-0"); // the oldest goes on first
    CHECK_INT(job_of("ftjob-0").attempt, 2);
    end();
}

// ---- progress and results ----

TEST(progress_is_told_once) {
    begin();
    OK(job_add(s, "ftjob-1", "alice", "file-a", NULL));
    struct stored_job j;
    CHECK_STR(claim_id(), "ftjob-1");
    struct stored_event e[3] = {{.once = "step-1", .level = "warn", .message = "one", .type = "metrics", .data = "{\"step\":1}", .created_s = 9},
                                {.message = "always"}, {.once = "step-2", .message = "two", .id = "ftevent-own"}};
    struct stored_model m = {.id = "ft:x:ckpt-step-1", .dir = "models/m1", .base = "b", .kind = MODEL_FULL, .step = 1, .checkpoint = true};
    struct stored_checkpoint c = {.step = 1, .model = m.id, .metrics = "{\"train_loss\":2}"};
    struct job_progress p = {.step = 2, .total_steps = 50, .trained_tokens = 640, .seconds_per_step = 0.25, .events = e, .n_events = 3, .checkpoints = &c,
                             .n_checkpoints = 1, .models = &m, .n_models = 1};
    OK(store_job_progress(s, "ftjob-1", 1, &p, &err));
    // The log is read again as a whole after a restart, by another attempt.
    OK(store_job_finish(s, "ftjob-1", 1, &(struct job_outcome){.status = JOB_QUEUED}, &err));
    CHECK_STR(claim_id(), "ftjob-1");
    m.dir = "models/other";
    OK(store_job_progress(s, "ftjob-1", 2, &p, &err));
    OK(store_job_progress(s, "ftjob-1", 2, &(struct job_progress){0}, &err)); // nothing known: nothing changed
    j = job_of("ftjob-1");
    CHECK(j.step == 2 && j.total_steps == 50 && j.trained_tokens == 640 && j.seconds_per_step == 0.25);
    struct stored_event *events;
    struct stored_checkpoint *checkpoints;
    struct stored_model *models;
    size_t n;
    bool more;
    OK(store_event_list(s, &alice, "ftjob-1", &(struct page){NULL, 100, true}, &arena, &events, &n, &more, &err));
    REQUIRE(n == 5); // created, three, "always" again
    CHECK_STR(events[1].level, "warn");
    CHECK_STR(events[1].type, "metrics");
    CHECK_STR(events[1].data, "{\"step\":1}");
    CHECK_INT(events[1].created_s, 9);
    CHECK_STR(events[3].id, "ftevent-own");
    CHECK_STR(events[4].message, "always");
    OK(store_checkpoint_list(s, &alice, "ftjob-1", &(struct page){NULL, 100, true}, &arena, &checkpoints, &n, &more, &err));
    REQUIRE(n == 1);
    CHECK(checkpoints->step == 1 && strncmp(checkpoints->id, "ftckpt_", 7) == 0);
    CHECK_STR(checkpoints->model, m.id);
    CHECK_STR(checkpoints->metrics, "{\"train_loss\":2}");
    OK(store_model_list(s, &arena, &models, &n, &err));
    REQUIRE(n == 1);
    CHECK_STR(models->dir, "models/m1");
    CHECK_STR(models->owner, "alice");
    CHECK(models->checkpoint);
    // A checkpoint's model that somebody deleted does not come back with the next reading of the log.
    OK(store_model_remove(s, m.id, &err));
    OK(store_job_progress(s, "ftjob-1", 2, &p, &err));
    CHECK_INT(rows("models"), 0);
    end();
}

TEST(events_page_both_ways) {
    begin();
    OK(job_add(s, "ftjob-1", "alice", "file-a", NULL));
    OK(job_add(s, "ftjob-2", "alice", "file-a", NULL));
    CHECK_STR(claim_id(), "ftjob-1");
    struct stored_event e[50], *got;
    char messages[50][8];
    for (int i = 0; i < 50; i++) snprintf(messages[i], 8, "%d", i), e[i] = (struct stored_event){.message = messages[i]};
    OK(store_job_progress(s, "ftjob-1", 1, &(struct job_progress){.events = e, .n_events = 50}, &err));
    for (int ascending = 0; ascending < 2; ascending++) {
        const char *after = NULL;
        int seen = 0;
        size_t n;
        for (bool more = true; more;) {
            OK(store_event_list(s, &alice, "ftjob-1", &(struct page){after, 7, ascending}, &arena, &got, &n, &more, &err));
            for (size_t i = 0; i < n; i++, seen++) {
                int number = ascending ? seen - 1 : 49 - seen;
                if (number >= 0) CHECK_INT(atoi(got[i].message), number);
                after = got[i].id;
            }
        }
        CHECK_INT(seen, 51);
    }
    size_t n;
    bool more;
    OK(store_event_list(s, &alice, "ftjob-2", &(struct page){NULL, 7, true}, &arena, &got, &n, &more, &err));
    const char *foreign = got[0].id;
    FAILS(store_event_list(s, &alice, "ftjob-1", &(struct page){foreign, 7, true}, &arena, &got, &n, &more, &err), ERR_INVALID);
    CHECK_STR(err.param, "after");
    end();
}

TEST(the_result_is_published_at_once) {
    begin();
    OK(job_add(s, "ftjob-1", "alice", "file-a", NULL));
    CHECK_STR(claim_id(), "ftjob-1");
    struct stored_model m = {.id = "ft:done", .dir = "models/m1", .base = "b"};
    struct stored_file f[2] = {{.id = "file-csv", .filename = "results.csv", .purpose = "fine-tune-results", .sha256 = "1", .bytes = 5},
                               {.id = "file-a", .filename = "taken", .purpose = "fine-tune-results", .sha256 = "2"}};
    struct stored_event e = {.message = "done"};
    struct job_outcome o = {.status = JOB_SUCCEEDED, .model = &m, .files = f, .n_files = 2, .events = &e, .n_events = 1};
    size_t events = rows("events");
    FAILS(store_job_finish(s, "ftjob-1", 1, &o, &err), ERR_INVALID); // the second file's id is taken: nothing of it stands
    CHECK_INT(job_status_of(s, "ftjob-1"), JOB_RUNNING);
    CHECK(rows("events") == events && rows("models") == 0 && !store_file_known(s, "file-csv"));
    f[1].id = "file-html";
    OK(store_job_finish(s, "ftjob-1", 1, &o, &err));
    struct stored_job j = job_of("ftjob-1");
    CHECK_INT(j.status, JOB_SUCCEEDED);
    CHECK_STR(j.fine_tuned_model, "ft:done");
    CHECK_STR(j.result_files, "[\"file-csv\",\"file-html\"]");
    CHECK(j.finished_s > 0 && rows("events") == events + 1);
    struct stored_file got;
    OK(store_file_get(s, &alice, "file-csv", &arena, &got, &err));
    CHECK_STR(got.owner, "alice");
    FAILS(store_file_get(s, &bob, "file-csv", &arena, &got, &err), ERR_NOT_FOUND);

    OK(job_add(s, "ftjob-2", "alice", "file-a", NULL));
    CHECK_STR(claim_id(), "ftjob-2");
    OK(store_job_finish(s, "ftjob-2", 1, &(struct job_outcome){.status = JOB_FAILED, .error_code = "invalid_training_file", .error_message = "line 3", .error_param = "training_file"}, &err));
    j = job_of("ftjob-2");
    CHECK_STR(j.error_code, "invalid_training_file");
    CHECK_STR(j.error_message, "line 3");
    CHECK_STR(j.error_param, "training_file");
    CHECK(!j.fine_tuned_model);
    CHECK_STR(j.result_files, "[]");
    end();
}

TEST(statuses_have_openai_names) {
    static const char *const names[] = {"validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"};
    for (int i = 0; i < JOB_STATUSES; i++) CHECK_STR(job_status_name((enum job_status)i), names[i]);
}

TEST_MAIN("store_jobs")
