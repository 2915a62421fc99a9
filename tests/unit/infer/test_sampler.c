// SPDX-License-Identifier: MIT
// The sampler against an obvious O(V log V) copy of its contract, against the distributions it promises, and against
// itself.
#include "tests/unit/test.h"

#include "base/mem.h"
#include "base/rng.h"
#include "engine/infer/logit_row.h"
#include "engine/infer/sampler.h"

#include <float.h>

enum { BIG = 50257 };

static uint64_t random_state = 1;
static uint64_t random_u64(void) { // splitmix64
    uint64_t z = random_state += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return z ^ z >> 31;
}
static size_t random_below(size_t n) { return (size_t)(random_u64() % n); }
static double random_unit(void) { return (double)(random_u64() >> 11) * 0x1p-53; }
static double random_normal(void) {
    double sum = -6;
    for (int i = 0; i < 12; i++) sum += random_unit();
    return sum;
}

static struct sampling_params plain_params(void) {
    return (struct sampling_params){
        .max_tokens = 1, .temperature = 1, .top_p = 1, .typical_p = 1, .repetition_penalty = 1, .n_logprobs = -1};
}

static bool draw(struct sampler *s, const float *x, size_t n, const struct sampling_params *p, uint64_t position,
                 uint32_t *id) {
    struct top_logprob top[ENGINE_MAX_LOGPROBS];
    struct token_record r = {.top = top};
    struct sampler_input in = {.logits = x, .n_vocab = n, .params = p, .position = position};
    if (!sampler_draw(s, &in, &r)) return false;
    *id = r.id;
    return true;
}

// ---- the reference ----

struct ref {
    uint32_t id;
    float x;
    double w, key;
};
static int by_logit(const void *a, const void *b) {
    const struct ref *p = a, *q = b;
    if (p->x != q->x) return p->x > q->x ? -1 : 1;
    return p->id < q->id ? -1 : 1;
}
static int by_key(const void *a, const void *b) {
    const struct ref *p = a, *q = b;
    if ((float)p->key != (float)q->key) return (float)p->key < (float)q->key ? -1 : 1;
    return p->id < q->id ? -1 : 1;
}
static int by_id(const void *a, const void *b) {
    const struct ref *p = a, *q = b;
    return p->id < q->id ? -1 : 1;
}
static size_t ref_share(const struct ref *r, size_t n, double share) {
    double total = 0, sum = 0;
    for (size_t i = 0; i < n; i++) total += r[i].w;
    for (size_t i = 0; i < n; i++)
        if ((sum += r[i].w) >= total * share) return i + 1;
    return n;
}

static uint32_t ref_draw(const float *logits, size_t n, const struct sampling_params *p,
                         const struct token_counts *counts, const uint32_t *banned, size_t n_banned,
                         uint64_t position) {
    struct ref *r = mem_alloc(n, sizeof *r);
    for (size_t i = 0; i < n; i++) r[i] = (struct ref){.id = (uint32_t)i, .x = logits[i]};
    for (size_t i = 0; i < p->n_logit_bias; i++) r[p->logit_bias[i].id].x += p->logit_bias[i].bias;
    for (size_t i = 0; counts && i < counts->n; i++) {
        float *x = &r[counts->items[i].id].x, g = (float)counts->items[i].generated;
        *x = *x > 0 ? *x / p->repetition_penalty : *x * p->repetition_penalty;
        *x -= g * p->frequency_penalty;
        if (g > 0) *x -= p->presence_penalty;
    }
    for (size_t i = 0; i < n_banned; i++) r[banned[i]].x = -FLT_MAX;
    qsort(r, n, sizeof *r, by_logit);
    uint32_t id = r[0].id;
    if (p->temperature > 0) {
        float max = r[0].x, scale = 1 / p->temperature;
        for (size_t i = 0; i < n; i++) r[i].w = exp_nonpositive((r[i].x - max) * scale);
        if (p->top_k && p->top_k < n) n = p->top_k;
        n = ref_share(r, n, p->top_p);
        while (n > 1 && r[n - 1].w < p->min_p) n--;
        if (p->typical_p < 1) {
            double z = 0, mean = 0;
            qsort(r, n, sizeof *r, by_id);
            for (size_t i = 0; i < n; i++)
                if (r[i].w > 0) z += r[i].w, mean += r[i].w * ((r[i].x - max) * scale);
            for (size_t i = 0; i < n; i++) r[i].key = fabs((r[i].x - max) * scale - mean / z);
            qsort(r, n, sizeof *r, by_key);
            n = ref_share(r, n, p->typical_p);
        }
        qsort(r, n, sizeof *r, by_id);
        double z = 0, sum = 0, u = rng_uniform(p->seed, position);
        for (size_t i = 0; i < n; i++) z += r[i].w;
        for (size_t i = 0; i < n; i++)
            if (r[i].w > 0) {
                id = r[i].id;
                if ((sum += r[i].w) > u * z) break;
            }
    }
    free(r);
    return id;
}

static void random_row(float *x, size_t n) {
    double spread = exp(random_unit() * 5 - 2);
    int shape = (int)random_below(4);
    for (size_t i = 0; i < n; i++) {
        double v = random_normal() * spread;
        if (shape == 1) v = round(v);                      // many ties
        if (shape == 2) v = random_below(50) ? v - 20 : v; // a few likely ones
        if (shape == 3) v = 1;
        x[i] = (float)v;
    }
}

static void random_filters(struct sampling_params *p, size_t n) {
    static const float temperatures[] = {0, 0.01f, 0.3f, 0.7f, 1, 1.5f, 2},
                       shares[] = {0, 0.05f, 0.5f, 0.9f, 0.95f, 0.999f, 1};
    *p = plain_params();
    p->temperature = temperatures[random_below(ARRAY_LEN(temperatures))];
    if (random_below(2)) p->top_k = random_below(3) ? 1 + random_below(60) : random_below(2 * n);
    if (random_below(2)) p->top_p = shares[random_below(ARRAY_LEN(shares))];
    if (random_below(3) == 0) p->min_p = (float)random_unit();
    if (random_below(3) == 0) p->typical_p = shares[1 + random_below(ARRAY_LEN(shares) - 1)];
    p->seed = random_u64();
}

TEST(fast_paths_equal_the_reference) {
    static const size_t sizes[] = {1, 2, 5, 127, 128, 129, 300, 1000, 5003};
    struct sampler *s = sampler_create(5003, NULL);
    REQUIRE(s);
    float *x = mem_alloc(5003, sizeof *x);
    for (int round = 0; round < 3000; round++) {
        size_t n = sizes[random_below(ARRAY_LEN(sizes))];
        random_row(x, n);
        struct sampling_params p;
        random_filters(&p, n);
        struct logit_bias bias[3];
        for (size_t i = 0; i < 3; i++)
            bias[i] = (struct logit_bias){.id = (uint32_t)random_below(n), .bias = (float)(random_normal() * 5)};
        p.logit_bias = bias;
        p.n_logit_bias = random_below(4);
        struct token_counts counts = {0};
        if (random_below(2)) {
            p.repetition_penalty = 1.3f, p.presence_penalty = 0.5f, p.frequency_penalty = 0.25f;
            CHECK(token_counts_init(&counts, n, NULL));
            for (size_t i = 0; i < 40; i++) {
                uint32_t id = (uint32_t)random_below(n);
                if (i < 20) token_counts_add_prompt(&counts, &id, 1);
                else token_counts_add_generated(&counts, id);
            }
        }
        uint32_t banned[2] = {(uint32_t)random_below(n), (uint32_t)random_below(n)};
        size_t n_banned = n > 2 ? random_below(3) : 0;
        uint64_t position = random_below(1000);
        struct sampler_input in = {.logits = x,
                                   .n_vocab = n,
                                   .params = &p,
                                   .counts = &counts,
                                   .banned = banned,
                                   .n_banned = n_banned,
                                   .position = position};
        struct token_record r = {0};
        REQUIRE(sampler_draw(s, &in, &r));
        uint32_t expected = ref_draw(x, n, &p, counts.n ? &counts : NULL, banned, n_banned, position);
        if (r.id != expected)
            TEST_FAIL("round %d: V %zu T %g k %zu p %g min %g typ %g: %u, expected %u", round, n, p.temperature,
                      p.top_k, p.top_p, p.min_p, p.typical_p, r.id, expected);
        token_counts_finish(&counts);
    }
    free(x);
    sampler_destroy(s);
}

// ---- small parts ----

TEST(philox_known_answers) { // Random123's kat_vectors
    uint32_t out[4], zero[4] = {0}, ones[4] = {~0u, ~0u, ~0u, ~0u},
                     pi[4] = {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344};
    philox4x32(0, zero, out);
    CHECK(out[0] == 0x6627e8d5 && out[1] == 0xe169c58d && out[2] == 0xbc57ac4c && out[3] == 0x9b00dbd8);
    philox4x32(UINT64_MAX, ones, out);
    CHECK(out[0] == 0x408f276d && out[1] == 0x41c83b0e && out[2] == 0xa20bc7c6 && out[3] == 0x6d5451fd);
    philox4x32(UINT64_C(0x299f31d0a4093822), pi, out);
    CHECK(out[0] == 0xd16cfe09 && out[1] == 0x94fdcceb && out[2] == 0x5001e420 && out[3] == 0x24126ea1);
}

TEST(exp_and_log_are_close) {
    double worst = 0;
    for (float y = -86; y <= 0; y += 0.001f) worst = fmax(worst, fabs(exp_nonpositive(y) / exp((double)y) - 1));
    CHECK_NEAR(worst, 0, 0x1p-23);
    CHECK(exp_nonpositive(0) == 1);
    CHECK(exp_nonpositive(-86.01f) == 0 && exp_nonpositive(-FLT_MAX) == 0 && exp_nonpositive(-INFINITY) == 0);
    for (double v = 1e-12; v < 1e12; v *= 1.0007) CHECK_NEAR(log_positive(v), log(v), 1e-14);
    CHECK(log_positive(1) == 0);
}

TEST(row_max_at_every_place_and_size) {
    float x[300], block_max[3], max;
    size_t at;
    for (size_t n = 1; n <= 300; n++) {
        for (size_t i = 0; i < n; i++) x[i] = -1;
        for (size_t i = 0; i < n; i++) {
            x[i] = 2;
            if (i + 1 < n) x[n - 1] = 2; // a tie behind it
            CHECK(row_max(x, n, block_max, &max, &at) && max == 2 && at == i);
            x[i] = x[n - 1] = -1;
            for (int bad = 0; bad < 3; bad++) {
                x[i] = bad == 0 ? NAN : bad == 1 ? INFINITY : -INFINITY;
                CHECK(!row_max(x, n, block_max, &max, &at));
            }
            x[i] = -1;
        }
    }
}

TEST(ranks_of_ties_rise_with_the_ids) {
    float x[300];
    for (size_t n = 1; n <= 300; n++) {
        for (size_t i = 0; i < n; i++) x[i] = 0.5f;
        for (size_t i = 0; i < n; i++) CHECK_INT(row_rank(x, n, i), i + 1);
        x[n / 2] = 1, x[0] = n > 1 ? -1 : 1;
        CHECK_INT(row_rank(x, n, n / 2), 1);
        CHECK_INT(row_rank(x, n, 0), n);
    }
}

TEST(score_is_log_softmax) {
    struct sampler *s = sampler_create(BIG, NULL);
    float *x = mem_alloc(BIG, sizeof *x);
    struct top_logprob top[ENGINE_MAX_LOGPROBS];
    for (int round = 0; round < 12; round++) {
        size_t n = round < 6 ? 1 + random_below(400) : BIG, n_top = random_below(ENGINE_MAX_LOGPROBS + 1);
        random_row(x, n);
        double max = x[0], sum = 0;
        for (size_t i = 0; i < n; i++) max = fmax(max, x[i]);
        for (size_t i = 0; i < n; i++) sum += exp(x[i] - max);
        struct token_record r = {.top = top};
        uint32_t id = (uint32_t)random_below(n);
        REQUIRE(sampler_score(s, x, n, id, n_top, true, &r));
        CHECK(r.id == id && r.has_logprob);
        CHECK_NEAR(r.logprob, x[id] - max - log(sum), 2e-6 * (1 + fabs(x[id] - max)));
        CHECK_INT(r.n_top, MIN(n_top, n));
        struct ref *sorted = mem_alloc(n, sizeof *sorted);
        for (size_t i = 0; i < n; i++) sorted[i] = (struct ref){.id = (uint32_t)i, .x = x[i]};
        qsort(sorted, n, sizeof *sorted, by_logit);
        CHECK(r.rank >= 1 && r.rank <= n && sorted[r.rank - 1].id == id);
        for (size_t i = 0; i < r.n_top; i++) {
            CHECK_INT(top[i].id, sorted[i].id);
            if (top[i].id == id) CHECK(top[i].logprob == r.logprob);
            CHECK(i == 0 || top[i].logprob <= top[i - 1].logprob);
        }
        free(sorted);
    }
    free(x);
    sampler_destroy(s);
}

TEST(records_are_of_the_raw_distribution) {
    struct sampler *s = sampler_create(5, NULL);
    float x[5] = {1, 2, 3, 4, 5};
    struct logit_bias bias = {.id = 0, .bias = 100};
    struct sampling_params p = plain_params();
    struct top_logprob top[2];
    struct token_record r = {.top = top}, scored = {0};
    p.temperature = 0, p.n_logprobs = 2, p.ranks = true, p.logit_bias = &bias, p.n_logit_bias = 1;
    struct sampler_input in = {.logits = x, .n_vocab = 5, .params = &p};
    REQUIRE(sampler_draw(s, &in, &r));
    CHECK_INT(r.id, 0);
    CHECK_INT(r.n_top, 2);
    CHECK(top[0].id == 4 && top[1].id == 3);
    CHECK(sampler_score(s, x, 5, 0, 0, true, &scored) && scored.logprob == r.logprob);
    CHECK(r.rank == 5 && scored.rank == 5);
    p.ranks = false;
    CHECK(sampler_draw(s, &in, &r) && r.rank == 0);
    CHECK_NEAR(r.logprob, -4.4519, 1e-4);
    sampler_destroy(s);
}

TEST(not_finite_or_nothing_left) {
    struct sampler *s = sampler_create(200, NULL);
    float x[200] = {0};
    struct sampling_params p = plain_params();
    uint32_t id = 0, all[200];
    for (uint32_t i = 0; i < 200; i++) all[i] = i;
    CHECK(draw(s, x, 200, &p, 0, &id));
    struct sampler_input in = {.logits = x, .n_vocab = 200, .params = &p, .banned = all, .n_banned = 200};
    struct token_record r = {0};
    CHECK(!sampler_draw(s, &in, &r));
    in.n_banned = 199;
    CHECK(sampler_draw(s, &in, &r) && r.id == 199);
    x[150] = NAN;
    CHECK(!draw(s, x, 200, &p, 0, &id));
    p.temperature = 0;
    CHECK(!draw(s, x, 200, &p, 0, &id));
    CHECK(!sampler_score(s, x, 200, 3, 0, true, &r));
    sampler_destroy(s);
}

// ---- distributions ----

// Pearson's statistic of draws against expected probabilities (0: must never come).
static double chi_square(struct sampler *s, const float *x, size_t n, const struct sampling_params *p,
                         const double *expected, int draws) {
    int seen[16] = {0};
    double chi = 0;
    for (int i = 0; i < draws; i++) {
        uint32_t id = 0;
        CHECK(draw(s, x, n, p, (uint64_t)i, &id));
        seen[id]++;
    }
    for (size_t i = 0; i < n; i++) {
        if (expected[i] == 0) CHECK_INT(seen[i], 0);
        else chi += pow(seen[i] - draws * expected[i], 2) / (draws * expected[i]);
    }
    return chi;
}

TEST(draws_follow_the_distribution) {
    struct sampler *s = sampler_create(8, NULL);
    static const double prob[8] = {0.3, 0.25, 0.2, 0.1, 0.08, 0.04, 0.02, 0.01};
    float x[8];
    for (size_t i = 0; i < 8; i++) x[i] = (float)log(prob[i]) + 3;
    struct {
        size_t top_k;
        float top_p, min_p, temperature;
        size_t kept;
        double limit;
    } cases[] = {
        {0, 1, 0, 1, 8, 24.3},     {3, 1, 0, 1, 3, 13.8},        {0, 0.7f, 0, 1, 3, 13.8},
        {0, 0.84f, 0, 1, 4, 16.3}, {0, 1, 0.1f, 1, 6, 20.5},     {4, 0.6f, 0, 1, 2, 10.8},
        {0, 1, 0, 0.5f, 8, 24.3},  {5, 0.99f, 0.3f, 1, 4, 16.3}, // limits: 0.1 % points of chi-square
    };
    for (size_t c = 0; c < ARRAY_LEN(cases); c++)
        for (uint64_t seed = 0; seed < 5; seed++) {
            struct sampling_params p = plain_params();
            p.top_k = cases[c].top_k, p.top_p = cases[c].top_p, p.min_p = cases[c].min_p,
            p.temperature = cases[c].temperature, p.seed = seed * 7919;
            double expected[8] = {0}, z = 0;
            for (size_t i = 0; i < cases[c].kept; i++) z += expected[i] = pow(prob[i], 1 / cases[c].temperature);
            for (size_t i = 0; i < 8; i++) expected[i] /= z;
            double chi = chi_square(s, x, 8, &p, expected, 20000);
            if (!(chi < cases[c].limit)) TEST_FAIL("case %zu seed %d: chi-square %g", c, (int)seed, chi);
        }
    sampler_destroy(s);
}

TEST(typical_leaves_out_the_obvious) { // the likeliest token is far from the entropy when it carries little information
    struct sampler *s = sampler_create(6, NULL);
    static const double prob[6] = {0.4, 0.12, 0.12, 0.12, 0.12, 0.12}; // entropy 1.639; -log p: 0.916, 2.120
    float x[6];
    for (size_t i = 0; i < 6; i++) x[i] = (float)log(prob[i]);
    struct sampling_params p = plain_params();
    p.typical_p = 0.5f;
    double expected[6] = {0, 0.2, 0.2, 0.2, 0.2, 0.2}; // five times 0.12 reach one half
    CHECK(chi_square(s, x, 6, &p, expected, 20000) < 18.5);
    sampler_destroy(s);
}

TEST(uniform_over_a_large_vocabulary) { // block search, all blocks
    struct sampler *s = sampler_create(BIG, NULL);
    float *x = mem_alloc(BIG, sizeof *x);
    struct sampling_params p = plain_params();
    int seen[10] = {0};
    for (uint64_t i = 0; i < 2000; i++) {
        uint32_t id = 0;
        CHECK(draw(s, x, BIG, &p, i, &id));
        REQUIRE(id < BIG);
        seen[id * 10 / BIG]++;
    }
    double chi = 0;
    for (size_t i = 0; i < 10; i++) chi += pow(seen[i] - 200.0, 2) / 200;
    CHECK(chi < 27.9);
    free(x);
    sampler_destroy(s);
}

// ---- invariances ----

TEST(a_draw_depends_on_its_arguments_alone) {
    struct sampler *small = sampler_create(1000, NULL), *large = sampler_create(BIG, NULL);
    float *x = mem_alloc(1000, sizeof *x), *other = mem_alloc(BIG, sizeof *other);
    random_row(other, BIG);
    int differs = 0;
    for (int round = 0; round < 300; round++) {
        random_row(x, 1000);
        struct sampling_params p, q;
        random_filters(&p, 1000);
        random_filters(&q, BIG);
        uint32_t a = 0, b = 0, c = 0, d = 0;
        CHECK(draw(small, x, 1000, &p, 7, &a));
        CHECK(draw(large, other, BIG, &q, 9, &b)); // leaves its traces in the workspace
        CHECK(draw(large, x, 1000, &p, 7, &b));
        p.n_logprobs = 5; // looking changes nothing
        CHECK(draw(large, x, 1000, &p, 7, &c));
        CHECK(a == b && a == c);
        CHECK(draw(large, x, 1000, &p, 8, &d));
        differs += a != d;
    }
    CHECK(differs > 20);
    free(x);
    free(other);
    sampler_destroy(small);
    sampler_destroy(large);
}

TEST(tiny_temperatures_are_greedy) {
    struct sampler *s = sampler_create(300, NULL);
    float x[300], y[300];
    for (size_t i = 0; i < 300; i++) x[i] = (float)i / 16, y[i] = -FLT_MAX;
    y[77] = FLT_MAX; // differences overflow to infinity
    struct sampling_params p = plain_params();
    for (float t = 1e-3f; t > 0; t /= 1000) {
        for (int filter = 0; filter < 4; filter++) {
            p.temperature = t, p.top_k = filter == 1 ? 10 : 0, p.top_p = filter == 2 ? 0.9f : 1,
            p.typical_p = filter == 3 ? 0.9f : 1;
            uint32_t id = 0;
            CHECK(draw(s, x, 300, &p, 1, &id) && id == 299);
            CHECK(draw(s, y, 300, &p, 1, &id) && id == 77);
        }
    }
    sampler_destroy(s);
}

TEST(token_counts_equal_an_array) {
    struct token_counts c = {0};
    uint32_t naive[500] = {0};
    bool present[500] = {false};
    REQUIRE(token_counts_init(&c, 500, NULL));
    for (int i = 0; i < 5000; i++) {
        uint32_t id = (uint32_t)random_below(500) * 8192; // ids that share their low bits
        if (random_below(4) == 0) token_counts_add_prompt(&c, &id, 1);
        else token_counts_add_generated(&c, id), naive[id / 8192]++;
        present[id / 8192] = true;
    }
    size_t distinct = 0;
    for (size_t i = 0; i < 500; i++) distinct += present[i];
    CHECK_INT(c.n, distinct);
    for (size_t i = 0; i < c.n; i++) CHECK_INT(c.items[i].generated, naive[c.items[i].id / 8192]);
    token_counts_finish(&c);
    token_counts_finish(&c);
}

TEST_MAIN("sampler")
