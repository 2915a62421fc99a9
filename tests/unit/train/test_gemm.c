// SPDX-License-Identifier: MIT
// gemm_run against the definition in double: every transposition, odd sizes, strides, bias, beta; the same bits from 1, 2 and 3 threads.
#include "base/mem.h"
#include "base/rng.h"
#include "engine/train/gemm.h"
#include "tests/unit/test.h"

static uint64_t draws;
static float *random_floats(size_t n) {
    float *x = mem_alloc(n, sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = (float)(2 * rng_uniform(3, draws++) - 1);
    return x;
}

static struct pool *pools[3]; // of 1, 2 and 3 threads
static void open_pools(void) {
    gemm_start();
    for (size_t i = 0; i < 3; i++) {
        pools[i] = pool_create(i + 1, NULL);
        if (!pools[i]) abort();
    }
}
static void close_pools(void) {
    for (size_t i = 0; i < 3; i++) pool_destroy(pools[i]);
}

enum { BIAS = 1, BETA = 2 };

static void check_product(size_t m, size_t n, size_t k, bool trans_a, bool trans_b, int flags) {
    struct gemm g = {.trans_a = trans_a, .trans_b = trans_b, .beta_one = flags & BETA, .m = m, .n = n, .k = k, .alpha = 0.5f};
    g.lda = (trans_a ? m : k) + 3, g.ldb = (trans_b ? k : n) + 1, g.ldc = n + 5;
    float *a = random_floats((trans_a ? k : m) * g.lda), *b = random_floats((trans_b ? n : k) * g.ldb), *bias = random_floats(n);
    float *start = random_floats(m * g.ldc), *c[3];
    g.a = a, g.b = b, g.bias = flags & BIAS ? bias : NULL;
    for (size_t t = 0; t < 3; t++) {
        c[t] = mem_alloc(m * g.ldc, sizeof(float));
        memcpy(c[t], start, m * g.ldc * sizeof(float));
        if (!g.beta_one) // what was there must not matter
            for (size_t i = 0; i < m; i++)
                for (size_t j = 0; j < n; j++) c[t][i * g.ldc + j] = NAN;
        g.c = c[t];
        gemm_run(&g, pools[t]);
        if (memcmp(c[t], c[0], m * g.ldc * sizeof(float))) TEST_FAIL("%zu x %zu x %zu: %zu threads give other bits", m, n, k, t + 1);
    }
    size_t wrong = 0;
    for (size_t i = 0; i < m; i++) {
        for (size_t j = 0; j < n; j++) {
            double sum = 0, size = 1;
            for (size_t l = 0; l < k; l++) {
                double p = (double)(trans_a ? a[l * g.lda + i] : a[i * g.lda + l]) * (trans_b ? b[j * g.ldb + l] : b[l * g.ldb + j]);
                sum += p;
                size += fabs(p);
            }
            sum = 0.5 * sum + (g.bias ? bias[j] : g.beta_one ? start[i * g.ldc + j] : 0);
            wrong += !(fabs(c[0][i * g.ldc + j] - sum) <= 1e-6 * size); // f32 sums of k terms, in whatever order
        }
        for (size_t j = n; j < g.ldc; j++) wrong += c[0][i * g.ldc + j] != start[i * g.ldc + j]; // nothing past the row
    }
    if (wrong) TEST_FAIL("%zu x %zu x %zu, trans %d %d, flags %d: %zu wrong", m, n, k, trans_a, trans_b, flags, wrong);
    for (size_t t = 0; t < 3; t++) free(c[t]);
    free(a), free(b), free(bias), free(start);
}

TEST(every_transposition_and_odd_sizes) {
    static const size_t shapes[][3] = {{1, 1, 1},      {1, 7, 3},     {7, 1, 5},     {17, 33, 65},  {64, 64, 64},   {100, 8, 96},  {8, 100, 96},
                                       {64, 385, 200}, {385, 64, 200}, {130, 403, 77}, {400, 600, 50}, {520, 390, 33}, {1030, 200, 40}};
    open_pools();
    for (size_t i = 0; i < ARRAY_LEN(shapes); i++)
        for (int trans = 0; trans < 4; trans++)
            check_product(shapes[i][0], shapes[i][1], shapes[i][2], trans & 1, trans & 2, i % 3 == 0 ? BIAS : i % 3 == 1 ? BETA : 0);
    close_pools();
}

TEST(a_better_core_only_where_there_is_one) {
    CHECK_STR(gemm_core_for("Prescott", true, true), "SkylakeX");
    CHECK_STR(gemm_core_for("Haswell", true, true), "SkylakeX");
    CHECK_STR(gemm_core_for("Zen", true, true), "SkylakeX");
    CHECK_STR(gemm_core_for("Nehalem", true, false), "Haswell");
    CHECK_STR(gemm_core_for("Sandybridge", true, false), "Haswell");
    CHECK(!gemm_core_for("SkylakeX", true, true));
    CHECK(!gemm_core_for("Cooperlake", true, true));
    CHECK(!gemm_core_for("SAPPHIRERAPIDS", true, true));
    CHECK(!gemm_core_for("SkylakeX", true, false)); // someone forced it
    CHECK(!gemm_core_for("Haswell", true, false));
    CHECK(!gemm_core_for("Zen", true, false));
    CHECK(!gemm_core_for("Core2", false, false));
}

TEST_MAIN("gemm")
