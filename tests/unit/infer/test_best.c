// SPDX-License-Identifier: MIT
// The n best of many against a sort of them all.
#include "tests/unit/test.h"

#include "base/mem.h"
#include "base/rng.h"
#include "engine/infer/best.h"
#include "engine/infer/logit_row.h"

#include <float.h>

enum { MOST = 20 };

static int in_order(const void *a, const void *b) {
    const struct top_logprob *p = a, *q = b;
    if (p->logprob != q->logprob) return p->logprob > q->logprob ? -1 : 1;
    return p->id < q->id ? -1 : p->id > q->id;
}

static uint64_t drawn;
static size_t random_below(size_t n) { return (size_t)(rng_uniform(7, drawn++) * (double)n); }

// Few values, so that most are tied.
static void values_fill(struct top_logprob *all, size_t n, size_t n_values) {
    for (size_t i = 0; i < n; i++) all[i] = (struct top_logprob){.id = (uint32_t)i, .logprob = (float)random_below(n_values) - 3};
}

static void check_equal(const struct top_logprob *top, size_t n, const struct top_logprob *expected) {
    for (size_t i = 0; i < n; i++) {
        CHECK_INT(top[i].id, expected[i].id);
        CHECK(top[i].logprob == expected[i].logprob);
    }
}

TEST(offers_in_any_order_give_the_same_list) {
    struct top_logprob all[200], top[MOST];
    for (int round = 0; round < 500; round++) {
        const size_t n = 1 + random_below(200), cap = random_below(MOST + 1);
        values_fill(all, n, 1 + random_below(40));
        for (size_t i = n - 1; i > 0; i--) {
            const size_t other = random_below(i + 1);
            const struct top_logprob swap = all[i];
            all[i] = all[other], all[other] = swap;
        }
        struct best b = {.cap = cap, .top = top};
        for (size_t i = 0; i < n; i++) best_offer(&b, all[i].id, all[i].logprob);
        qsort(all, n, sizeof *all, in_order);
        CHECK_INT(b.n, MIN(cap, n));
        check_equal(top, b.n, all);
    }
}

TEST(a_rows_best_are_those_of_a_sort) {
    static const size_t sizes[] = {1, 2, 19, 127, 128, 129, 400, 3000};
    struct top_logprob all[3000], top[MOST];
    float x[3000], block_max[24], max;
    size_t arg_max;
    for (int round = 0; round < 400; round++) {
        const size_t n = sizes[random_below(ARRAY_LEN(sizes))], n_top = random_below(MOST + 1);
        values_fill(all, n, 1 + random_below(round % 2 ? 5 : 5000));
        for (size_t i = 0; i < n; i++) x[i] = all[i].logprob;
        REQUIRE(row_max(x, n, block_max, &max, &arg_max));
        qsort(all, n, sizeof *all, in_order);
        CHECK_INT(row_best(x, n, block_max, n_top, top), MIN(n_top, n));
        check_equal(top, MIN(n_top, n), all);
    }
}

TEST(both_zeros_are_one_value) {
    struct top_logprob top[2];
    struct best b = {.cap = 2, .top = top};
    best_offer(&b, 5, 0.0f), best_offer(&b, 9, 0.0f), best_offer(&b, 2, -0.0f);
    CHECK(b.n == 2 && top[0].id == 2 && top[1].id == 5);
}

TEST(infinities_have_their_places_and_nan_beats_nothing) {
    struct top_logprob top[3];
    struct best b = {.cap = 3, .top = top};
    best_offer(&b, 4, -FLT_MAX), best_offer(&b, 3, -INFINITY), best_offer(&b, 2, NAN);
    CHECK(b.n == 3 && top[0].id == 4 && top[1].id == 3 && top[2].id == 2); // there was room
    best_offer(&b, 1, NAN);
    CHECK(top[2].id == 2);
    b.n = 2;
    best_offer(&b, 1, INFINITY);
    best_offer(&b, 0, NAN);
    CHECK(b.n == 3 && top[0].id == 1 && top[1].id == 4 && top[2].id == 3);
}

TEST_MAIN("best")
