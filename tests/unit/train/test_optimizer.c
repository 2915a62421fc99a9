// SPDX-License-Identifier: MIT
// Optimizers against the formulas written out in double, over a block with gaps, borders of decay and several chunks; schedules by value.
#include "tests/unit/test.h"

#include "base/mem.h"
#include "engine/train/optimizer.h"

enum { N_PARAMS = 5 };
static const size_t param_sizes[N_PARAMS] = {70000, 7, 33, 131072, 5}; // decay: matrices, that is 0, 3 and 4
static const bool param_decay[N_PARAMS] = {true, false, false, true, true};

struct rig {
    struct params p;
    struct param items[N_PARAMS];
    double *weight, *m, *v; // what the formulas say
};

static float noise(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (float)(int32_t)(*state >> 32) / 2147483648.0f;
}

static void rig_init(struct rig *r) {
    *r = (struct rig){0};
    for (size_t i = 0; i < N_PARAMS; i++) r->p.n_trained += (param_sizes[i] + 15) / 16 * 16;
    const size_t n = r->p.n_trained;
    r->p.trained = mem_alloc(n, sizeof(float)), r->p.grads = mem_alloc(n, sizeof(float));
    r->weight = mem_alloc(n, sizeof(double)), r->m = mem_alloc(n, sizeof(double)), r->v = mem_alloc(n, sizeof(double));
    uint64_t state = 1;
    size_t at = 0;
    for (size_t i = 0; i < N_PARAMS; i++) {
        r->items[i] = (struct param){.n = param_sizes[i], .w = r->p.trained + at, .grad = r->p.grads + at, .decay = param_decay[i]};
        for (size_t j = 0; j < param_sizes[i]; j++) r->p.trained[at + j] = noise(&state);
        at += (param_sizes[i] + 15) / 16 * 16;
    }
    for (size_t i = 0; i < n; i++) r->weight[i] = r->p.trained[i];
    r->p.items = r->items, r->p.n_items = N_PARAMS;
}

static void rig_finish(struct rig *r) {
    free(r->p.trained), free(r->p.grads), free(r->weight), free(r->m), free(r->v);
}

static void rig_gradients(struct rig *r, uint64_t seed) {
    for (size_t i = 0; i < N_PARAMS; i++)
        for (size_t j = 0; j < param_sizes[i]; j++) r->items[i].grad[j] = noise(&seed) * 0.01f;
}

static double rig_step(struct rig *r, const struct optimizer_config *c, double lr, int t) {
    double norm = 0;
    for (size_t i = 0; i < r->p.n_trained; i++) norm += (double)r->p.grads[i] * r->p.grads[i];
    norm = sqrt(norm);
    const double factor = c->clip > 0 && norm > c->clip ? c->clip / (norm + 1e-6) : 1;
    const double b1 = c->beta1, b2 = c->beta2;
    for (size_t k = 0; k < N_PARAMS; k++) {
        for (size_t j = 0; j < param_sizes[k]; j++) {
            const size_t i = (size_t)(r->items[k].w - r->p.trained) + j;
            const double g = r->p.grads[i] * factor;
            if (param_decay[k]) r->weight[i] *= 1 - lr * c->weight_decay;
            if (c->kind == OPTIMIZER_SGD) {
                r->m[i] = b1 * r->m[i] + g;
                r->weight[i] -= lr * r->m[i];
                continue;
            }
            r->m[i] = b1 * r->m[i] + (1 - b1) * g;
            r->v[i] = b2 * r->v[i] + (1 - b2) * g * g;
            r->weight[i] -= lr / (1 - pow(b1, t)) * r->m[i] / (sqrt(r->v[i]) / sqrt(1 - pow(b2, t)) + c->eps);
        }
    }
    return norm;
}

static void compare_with_formula(const struct optimizer_config *c, double lr) {
    float *first = NULL;
    for (size_t threads = 1; threads <= 2; threads++) {
        struct rig r;
        rig_init(&r);
        struct err err = {0};
        struct pool *pool = pool_create(threads, &err);
        struct optimizer o = {0};
        REQUIRE(pool && optimizer_init(&o, c, &r.p, pool, &err));
        for (int t = 1; t <= 5; t++) {
            rig_gradients(&r, (uint64_t)t);
            const double norm = optimizer_grad_norm(&o);
            CHECK_NEAR(norm / rig_step(&r, c, lr, t), 1.0, 1e-7);
            optimizer_step(&o, lr, norm);
        }
        double worst = 0;
        for (size_t i = 0; i < r.p.n_trained; i++) worst = fmax(worst, fabs(r.p.trained[i] - r.weight[i]));
        CHECK_NEAR(worst, 0, 5e-7);
        CHECK_INT(o.steps, 5);
        CHECK(optimizer_weights_finite(&o));
        const size_t bytes = r.p.n_trained * sizeof(float);
        if (first) CHECK(memcmp(first, r.p.trained, bytes) == 0);
        else first = memcpy(mem_alloc(bytes, 1), r.p.trained, bytes);
        for (size_t k = 0; k < N_PARAMS; k++) // the gaps behind the arrays stay zero
            for (size_t i = (size_t)(r.items[k].w - r.p.trained) + param_sizes[k]; i % 16 != 0; i++) CHECK(r.p.trained[i] == 0);
        optimizer_finish(&o);
        pool_destroy(pool);
        rig_finish(&r);
    }
    free(first);
}

TEST(adamw_follows_its_formula) {
    compare_with_formula(&(struct optimizer_config){OPTIMIZER_ADAMW, 0.9f, 0.999f, 1e-8f, 0.1f, 1.0f}, 1e-3);
    compare_with_formula(&(struct optimizer_config){OPTIMIZER_ADAMW, 0.9f, 0.95f, 1e-8f, 0.0f, 0.0f}, 1e-2);
}

TEST(sgd_follows_its_formula) {
    compare_with_formula(&(struct optimizer_config){OPTIMIZER_SGD, 0.9f, 0, 0, 0.1f, 1.0f}, 0.1);
    compare_with_formula(&(struct optimizer_config){OPTIMIZER_SGD, 0.0f, 0, 0, 0.0f, 0.0f}, 0.1);
}

TEST(not_finite_is_seen) {
    struct rig r;
    rig_init(&r);
    struct optimizer o = {0};
    const struct optimizer_config c = {.beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f};
    REQUIRE(optimizer_init(&o, &c, &r.p, NULL, NULL));
    CHECK(optimizer_grad_norm(&o) == 0);
    r.p.grads[100000] = NAN;
    CHECK(!isfinite(optimizer_grad_norm(&o)));
    r.p.grads[100000] = INFINITY;
    CHECK(!isfinite(optimizer_grad_norm(&o)));
    r.p.grads[100000] = 1e30f; // its square is no float
    CHECK_NEAR(optimizer_grad_norm(&o), 1e30, 1e24);
    CHECK(optimizer_weights_finite(&o));
    r.p.trained[3] = INFINITY;
    CHECK(!optimizer_weights_finite(&o));
    optimizer_finish(&o);
    rig_finish(&r);
}

TEST(schedules) {
    struct schedule s = {SCHEDULE_CONSTANT, 0.5, 0.1, 4, 14};
    CHECK_NEAR(schedule_rate(&s, 1), 0.125, 1e-15);
    CHECK_NEAR(schedule_rate(&s, 4), 0.5, 0);
    CHECK_NEAR(schedule_rate(&s, 14), 0.5, 0);
    s.kind = SCHEDULE_LINEAR;
    CHECK_NEAR(schedule_rate(&s, 2), 0.25, 1e-15);
    CHECK_NEAR(schedule_rate(&s, 5), 0.5, 0);
    CHECK_NEAR(schedule_rate(&s, 10), 0.3, 1e-15);
    CHECK_NEAR(schedule_rate(&s, 14), 0.14, 1e-15);
    CHECK_NEAR(schedule_rate(&s, 99), 0.1, 1e-15); // past the end: the floor
    s.kind = SCHEDULE_COSINE;
    CHECK_NEAR(schedule_rate(&s, 5), 0.5, 0);
    CHECK_NEAR(schedule_rate(&s, 10), 0.3, 1e-15);
    CHECK_NEAR(schedule_rate(&s, 14), 0.1 + 0.4 * 0.5 * (1 + cos(0.9 * acos(-1.0))), 1e-15);
    s.warmup = 0;
    CHECK_NEAR(schedule_rate(&s, 1), 0.5, 0);
    s.warmup = s.total = 3; // all of it warm-up
    CHECK_NEAR(schedule_rate(&s, 3), 0.5, 0);
}

TEST_MAIN("optimizer")
