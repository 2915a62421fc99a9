// SPDX-License-Identifier: MIT
// The pool: every part once, at any number of threads, from run to run without a pause; sleeping and waking; teardown.
#include "tests/unit/test.h"

#include "base/mem.h"
#include "base/pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

struct work {
    unsigned char *hits; // parts; plain bytes: TSan reports a part that ran twice
    atomic_size_t max_self;
    size_t round;
};

static void touch(void *ctx, size_t part) {
    struct work *w = ctx;
    w->hits[part]++;
    size_t self = pool_self();
    size_t seen = atomic_load(&w->max_self);
    while (self > seen && !atomic_compare_exchange_weak(&w->max_self, &seen, self)) {}
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void check_rounds(size_t n_threads, int rounds) {
    struct err err = {0};
    struct pool *p = pool_create(n_threads, &err);
    REQUIRE(p != NULL);
    CHECK_INT(pool_threads(p), n_threads);
    unsigned char hits[300] = {0};
    struct work w = {.hits = hits};
    for (int round = 0; round < rounds; round++) {
        size_t n_parts = (size_t)round * 7 % ARRAY_LEN(hits);
        pool_run(p, touch, &w, n_parts);
        for (size_t i = 0; i < ARRAY_LEN(hits); i++) {
            if (hits[i] != (i < n_parts)) TEST_FAIL("%zu threads, round %d: part %zu ran %d times", n_threads, round, i, (int)hits[i]);
        }
        memset(hits, 0, sizeof hits);
    }
    CHECK(atomic_load(&w.max_self) < n_threads);
    CHECK_INT(pool_self(), 0);
    pool_destroy(p);
}

TEST(every_part_once) {
    check_rounds(1, 500);
    check_rounds(2, 3000);
    check_rounds(3, 2000);
    check_rounds(8, 1000);
    check_rounds(64, 200);
}

TEST(no_pool_runs_on_the_caller) {
    unsigned char hits[10] = {0};
    struct work w = {.hits = hits};
    pool_run(NULL, touch, &w, 10);
    for (size_t i = 0; i < 10; i++) CHECK_INT(hits[i], 1);
    CHECK_INT(pool_threads(NULL), 1);
    pool_destroy(NULL);
    CHECK(pool_cpu_count() >= 1);
}

TEST(create_and_destroy_at_once) {
    for (int i = 0; i < 100; i++) {
        struct pool *p = pool_create(4, NULL);
        REQUIRE(p != NULL);
        if (i % 2) pool_run(p, (pool_fn *)touch, &(struct work){.hits = (unsigned char[4]){0}}, 4);
        pool_destroy(p);
    }
}

TEST(absurd_thread_counts_are_refused) {
    struct err err = {0};
    CHECK(pool_create(1000000, &err) == NULL);
    CHECK_INT(err.code, ERR_TOO_LARGE);
}

// Parts that wait for each other: only true when the workers really woke up. Between the rounds they fall asleep.
static void meet(void *ctx, size_t part) {
    atomic_size_t *arrived = ctx;
    atomic_fetch_add(arrived, 1);
    struct timespec short_while = {0, 50000};
    while (atomic_load(arrived) < 4) nanosleep(&short_while, NULL);
}

TEST(sleepers_wake) {
    struct pool *p = pool_create(4, NULL);
    REQUIRE(p != NULL);
    struct timespec gap = {0, 2000000};
    for (int round = 0; round < 20; round++) {
        atomic_size_t arrived = 0;
        pool_run(p, meet, &arrived, 4);
        CHECK_INT(atomic_load(&arrived), 4);
        if (round % 4) nanosleep(&gap, NULL);
    }
    pool_destroy(p);
}

static void inner(void *ctx, size_t part) {
    CHECK_INT(pool_self(), 0);
    (*(int *)ctx)++;
}

static void outer(void *ctx, size_t part) {
    size_t self = pool_self();
    int count = 0;
    pool_run(NULL, inner, &count, 3);
    if (count == 3 && pool_self() == self) atomic_fetch_add((atomic_int *)ctx, 1);
}

TEST(self_is_restored_after_a_run_inside_a_part) {
    struct pool *p = pool_create(3, NULL);
    REQUIRE(p != NULL);
    atomic_int good = 0;
    pool_run(p, outer, &good, 30);
    CHECK_INT(atomic_load(&good), 30);
    pool_destroy(p);
}

static void add_one(void *ctx, size_t part) {
    ((volatile unsigned char *)ctx)[part * 64]++;
}

// Figures, and a bound that only a collapse breaks (a run that waits for a scheduler's tick costs milliseconds).
TEST(empty_runs_are_cheap) {
    for (size_t n_threads = 2; n_threads <= 64; n_threads *= 2) {
        struct pool *p = pool_create(n_threads, NULL);
        REQUIRE(p != NULL);
        unsigned char cells[64 * 64] = {0};
        enum { RUNS = 2000 };
        double best = 1e9, start = now();
        for (int i = 0; i < RUNS; i++) {
            double t = now();
            pool_run(p, add_one, cells, n_threads);
            best = MIN(best, now() - t);
        }
        double mean = (now() - start) / RUNS;
        printf("%2zu threads: run of empty parts %.2f us mean, %.2f us best\n", n_threads, mean * 1e6, best * 1e6);
        CHECK(mean < 5e-3);
        pool_destroy(p);
    }
}

static void work_us(void *ctx, size_t part) {
    double end = now() + *(double *)ctx;
    while (now() < end) {}
}

// Eight parts of 5 us on two threads: 20 us where two processors are free, 40 us where one is. Prints only: the
// machine's other load decides.
TEST(short_parts_overlap) {
    struct pool *p = pool_create(2, NULL);
    REQUIRE(p != NULL);
    double part = 5e-6, best = 1e9;
    for (int i = 0; i < 500; i++) {
        double t = now();
        pool_run(p, work_us, &part, 8);
        best = MIN(best, now() - t);
    }
    printf("8 parts of 5 us on 2 threads: %.1f us best\n", best * 1e6);
    pool_destroy(p);
}

TEST_MAIN("pool")
