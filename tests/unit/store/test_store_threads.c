// SPDX-License-Identifier: MIT
// Four threads on one store; what a step's commit costs.
#include "base/clock.h"
#include "tests/unit/store/fixture.h"

#include <pthread.h>

enum { THREADS = 4, ROUNDS = 12 };

static struct store *s;
static int claimed; // by all threads; atomic

static bool work_round(int thread, int round, struct arena *a, struct err *e) {
    char owner[16], file[32], job[32];
    snprintf(owner, sizeof owner, "owner-%d", thread);
    snprintf(file, sizeof file, "file-%d-%d", thread, round);
    snprintf(job, sizeof job, "ftjob-%d-%d", thread, round);
    struct viewer v = {owner, false};
    struct stored_file f = {.id = file, .owner = owner, .filename = "f", .purpose = "fine-tune", .sha256 = "", .bytes = 1}, *files;
    struct stored_job j = {.id = job, .owner = owner, .status = JOB_QUEUED, .kind = "fine_tune", .model = "m", .training_file = file}, out;
    struct stored_event event = {.once = "step-1", .message = "one"}, *events;
    enum job_wish wish;
    bool again, more;
    size_t n;
    if (!store_file_add(s, &f, e) || !store_job_create(s, &v, &j, job, "hash", 0, a, &out, &again, e)) return false;
    if (!store_job_claim(s, "here", INT64_MAX, a, &out, e)) return false; // somebody's: every thread adds one before it takes one
    __atomic_add_fetch(&claimed, 1, __ATOMIC_RELAXED);
    struct viewer theirs = {out.owner, false};
    return store_job_progress(s, out.id, out.attempt, &(struct job_progress){.step = 1, .events = &event, .n_events = 1}, e) &&
           store_job_heartbeat(s, out.id, out.attempt, INT64_MAX, &wish, e) &&
           store_event_list(s, &theirs, out.id, &(struct page){NULL, 5, true}, a, &events, &n, &more, e) && n == 2 &&
           store_file_list(s, &v, &(struct page){NULL, 100, false}, NULL, a, &files, &n, &more, e) && n == (size_t)round + 1 &&
           store_job_finish(s, out.id, out.attempt, &(struct job_outcome){.status = JOB_SUCCEEDED}, e);
}

static void *work(void *arg) {
    struct arena a = {0};
    struct err e = {0};
    for (int round = 0; round < ROUNDS; round++)
        if (!work_round((int)(intptr_t)arg, round, &a, &e)) TEST_FAIL("thread %d, round %d: %s", (int)(intptr_t)arg, round, e.message);
    arena_finish(&a);
    return NULL;
}

TEST(four_threads) {
    char *folder = folder_make();
    s = store_open(folder, &err);
    REQUIRE(s);
    pthread_t threads[THREADS];
    for (intptr_t i = 0; i < THREADS; i++) REQUIRE(pthread_create(&threads[i], NULL, work, (void *)i) == 0);
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    size_t counts[JOB_STATUSES];
    OK(store_job_counts(s, counts, &err));
    CHECK_INT(counts[JOB_SUCCEEDED], THREADS * ROUNDS);
    CHECK_INT(claimed, THREADS * ROUNDS);
    store_close(s);
    folder_remove(folder);
}

static int by_size(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

TEST(what_a_step_costs) {
    enum { N = 100 };
    char *folder = folder_make();
    s = store_open(folder, &err);
    REQUIRE(s);
    OK(file_add(s, "file-1", "alice", false));
    OK(job_add(s, "ftjob-1", "alice", "file-1", NULL));
    struct stored_job j;
    OK(store_job_claim(s, "here", INT64_MAX, &arena, &j, &err));
    uint64_t ns[N], heart[N];
    for (int i = 0; i < N; i++) {
        char once[24];
        enum job_wish wish;
        snprintf(once, sizeof once, "step-%d", i);
        struct stored_event e = {.once = once, .message = "Step 12/100: training loss=2.31", .type = "metrics", .data = "{\"step\":12,\"train_loss\":2.31,\"train_mean_token_accuracy\":0.41}"};
        uint64_t began = clock_ns();
        OK(store_job_progress(s, "ftjob-1", 1, &(struct job_progress){.step = (uint64_t)i, .events = &e, .n_events = 1}, &err));
        ns[i] = clock_ns() - began;
        began = clock_ns();
        OK(store_job_heartbeat(s, "ftjob-1", 1, INT64_MAX - i, &wish, &err));
        heart[i] = clock_ns() - began;
    }
    qsort(ns, N, sizeof *ns, by_size);
    qsort(heart, N, sizeof *heart, by_size);
    printf("progress with one event: p50 %.2f ms, p99 %.2f ms; heartbeat p50 %.2f ms\n", ns[N / 2] / 1e6, ns[N * 99 / 100] / 1e6, heart[N / 2] / 1e6);
    store_close(s);
    folder_remove(folder);
}

TEST_MAIN("store_threads")
