// SPDX-License-Identifier: MIT
// Training's kernels: plain C against finite differences and libm in double, the vector tables against plain C, AVX2 against AVX-512 bit for bit;
// what decides or moves parameters (dropout, scale, adamw, sgd) bit for bit against plain C too. Every length around 16 and 64, nothing past the end.
#include "base/mem.h"
#include "base/rng.h"
#include "engine/kernels/train_kernels.h"
#include "tests/unit/test.h"

static uint64_t draws;
static double uniform(void) { return 2 * rng_uniform(7, draws++) - 1; } // [-1, 1)
static float *random_floats(size_t n, double scale) {
    float *x = mem_alloc(n, sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = (float)(scale * uniform());
    return x;
}

static const struct train_kernels *tables[3];
static size_t list_tables(void) {
    size_t n = 0;
    const char *names[] = {"c", "avx2", "avx512"};
    for (size_t i = 0; i < 3; i++) {
        tables[n] = train_kernels_by_name(names[i], NULL);
        n += tables[n] != NULL;
    }
    return n;
}

static const size_t lengths[] = {1, 2, 15, 16, 17, 31, 32, 63, 64, 65, 100, 577, 768};

// One kernel's arrays: three inputs and three that it writes or adds to, each with a guard behind.
enum { N_OUT = 3, GUARD = 16 };
struct row_case {
    size_t n;
    float *x, *w, *dy, *out[N_OUT];
    double result; // what it returns
};
typedef void row_kernel(const struct train_kernels *k, struct row_case *c);

static void run_layernorm(const struct train_kernels *k, struct row_case *c) {
    k->layernorm_backward(c->out[0], c->out[1], c->out[2], c->dy, c->x, c->w, c->n, 1e-5f);
}
static void run_layernorm_frozen(const struct train_kernels *k, struct row_case *c) {
    k->layernorm_backward(c->out[0], NULL, NULL, c->dy, c->x, c->w, c->n, 1e-5f);
}
static void run_rmsnorm(const struct train_kernels *k, struct row_case *c) {
    k->rmsnorm_backward(c->out[0], c->out[1], c->dy, c->x, c->w, c->n, 1e-6f);
}
static void run_gelu(const struct train_kernels *k, struct row_case *c) { k->gelu_tanh_backward(c->out[0], c->dy, c->x, c->n); }
static void run_swiglu(const struct train_kernels *k, struct row_case *c) {
    k->swiglu_backward(c->out[0], c->out[1], c->dy, c->x, c->w, c->n);
}
static void run_softmax(const struct train_kernels *k, struct row_case *c) {
    memcpy(c->out[0], c->x, c->n * sizeof(float));
    memcpy(c->out[1], c->x, c->n * sizeof(float));
    memcpy(c->out[2], c->dy, c->n * sizeof(float));
    float lse = k->softmax(c->out[0], c->n, 0.3f);
    k->softmax_from_lse(c->out[1], c->n, 0.3f, lse);
    k->softmax_backward(c->out[2], c->out[0], c->n, k->dot(c->dy, c->out[0], c->n), 0.3f);
    c->result = lse;
}
static void run_cross_entropy(const struct train_kernels *k, struct row_case *c) {
    size_t top, same;
    memcpy(c->out[0], c->x, c->n * sizeof(float));
    memcpy(c->out[1], c->x, c->n * sizeof(float));
    c->result = k->cross_entropy(c->out[0], c->n, c->n / 2, 0.25f, true, &top);
    CHECK(c->result == k->cross_entropy(c->out[1], c->n, c->n / 2, 0.25f, false, &same));
    CHECK(top == same && memcmp(c->out[1], c->x, c->n * sizeof(float)) == 0);
    for (size_t i = 0; i < c->n; i++) CHECK(i < top ? c->x[i] < c->x[top] : c->x[i] <= c->x[top]);
}
static void run_dot(const struct train_kernels *k, struct row_case *c) { c->result = k->dot(c->x, c->w, c->n); }
static void run_sum_squares(const struct train_kernels *k, struct row_case *c) { c->result = k->sum_squares(c->x, c->n); }
static void run_scale(const struct train_kernels *k, struct row_case *c) { k->scale(c->out[0], 1.7f, c->n); }
static void run_dropout(const struct train_kernels *k, struct row_case *c) {
    struct dropout_row d = {.seed = 0x123456789abcdef, .row = 3, .site = 5, .step = 11, .p = 0.1f};
    k->dropout(c->out[0], c->x, c->n, &d);
    d.p = 0;
    k->dropout(c->out[1], c->x, c->n, &d);
    CHECK(memcmp(c->out[1], c->x, c->n * sizeof(float)) == 0);
}
static void run_adamw(const struct train_kernels *k, struct row_case *c) {
    struct adamw_step s = {.beta1 = 0.9f, .beta2 = 0.95f, .eps = 1e-8f, .decay = 0.999f, .rate = 0.01f, .v_scale = 4.4f, .grad_scale = 0.7f};
    for (size_t i = 0; i < c->n; i++) c->out[2][i] = fabsf(c->out[2][i]);
    k->adamw(c->out[0], c->out[1], c->out[2], c->x, c->n, &s);
}
static void run_sgd(const struct train_kernels *k, struct row_case *c) {
    k->sgd(c->out[0], c->out[1], c->x, c->n, 0.01f, 0.9f, 0.99f, 0.5f);
    k->sgd(c->out[2], NULL, c->x, c->n, 0.01f, 0, 1, 0.5f);
}

// tolerance: relative to the largest value of the array, or to the result; 0: the same bits. f32 sums over up to 768 elements in another order
// are some 1e-7 apart, e^x is good for 2 ulp, and where terms cancel (softmax_backward, layernorm) the terms' size counts.
static const struct {
    const char *name;
    row_kernel *run;
    double tolerance;
} kernels[] = {
    {"layernorm_backward", run_layernorm, 2e-6}, {"layernorm_backward, frozen", run_layernorm_frozen, 2e-6},
    {"rmsnorm_backward", run_rmsnorm, 2e-6},     {"gelu_tanh_backward", run_gelu, 1e-6},
    {"swiglu_backward", run_swiglu, 1e-6},       {"softmax", run_softmax, 2e-6},
    {"cross_entropy", run_cross_entropy, 1e-6},  {"dot", run_dot, 1e-5},
    {"sum_squares", run_sum_squares, 1e-14},     {"scale", run_scale, 0},
    {"dropout", run_dropout, 0},                 {"adamw", run_adamw, 0},
    {"sgd", run_sgd, 0},
};

static void compare_case(const char *name, double tolerance, const char *table, const struct row_case *a, const struct row_case *c) {
    double worst = fabs(a->result - c->result) / MAX(fabs(c->result), 1.0);
    for (size_t j = 0; j < N_OUT; j++) {
        double size = 1e-30, off = 0;
        for (size_t i = 0; i < c->n; i++) {
            size = fmax(size, fabs(c->out[j][i]));
            off = fmax(off, fabs((double)a->out[j][i] - c->out[j][i]));
        }
        worst = fmax(worst, off / size);
        for (size_t i = c->n; i < c->n + GUARD; i++) CHECK(a->out[j][i] == -777);
    }
    if (!(worst <= tolerance)) TEST_FAIL("%s, %zu elements: %s is %g from plain C", name, c->n, table, worst);
}

TEST(vector_tables_agree_with_plain_c_and_with_each_other) {
    size_t n_tables = list_tables();
    for (size_t which = 0; which < ARRAY_LEN(kernels); which++)
        for (size_t l = 0; l < ARRAY_LEN(lengths); l++) {
            struct row_case c[3];
            size_t n = lengths[l];
            float *x = random_floats(n, 4), *w = random_floats(n, 1), *dy = random_floats(n, 1), *start = random_floats(n, 1);
            for (size_t t = 0; t < n_tables; t++) {
                c[t] = (struct row_case){.n = n, .x = x, .w = w, .dy = dy};
                for (size_t j = 0; j < N_OUT; j++) {
                    c[t].out[j] = mem_alloc(n + GUARD, sizeof(float));
                    memcpy(c[t].out[j], start, n * sizeof(float));
                    for (size_t i = n; i < n + GUARD; i++) c[t].out[j][i] = -777;
                }
                kernels[which].run(tables[t], &c[t]);
                compare_case(kernels[which].name, kernels[which].tolerance, tables[t]->name, &c[t], &c[0]);
                for (size_t j = 0; t == 2 && j < N_OUT; j++) // K4
                    if (memcmp(c[1].out[j], c[2].out[j], n * sizeof(float)) || c[1].result != c[2].result)
                        TEST_FAIL("%s, %zu elements: avx2 and avx512 differ", kernels[which].name, n);
            }
            for (size_t t = 0; t < n_tables; t++)
                for (size_t j = 0; j < N_OUT; j++) free(c[t].out[j]);
            free(x), free(w), free(dy), free(start);
        }
}

// ---- gradients against central differences in double --------------------------------------------------------------------

typedef void forward_fn(double *y, const double *x, const double *w, size_t n);
static void forward_layernorm(double *y, const double *x, const double *w, size_t n) {
    double mean = 0, variance = 0;
    for (size_t i = 0; i < n; i++) mean += x[i] / (double)n;
    for (size_t i = 0; i < n; i++) variance += (x[i] - mean) * (x[i] - mean) / (double)n;
    for (size_t i = 0; i < n; i++) y[i] = (x[i] - mean) / sqrt(variance + 1e-5) * w[i];
}
static void forward_rmsnorm(double *y, const double *x, const double *w, size_t n) {
    double squares = 0;
    for (size_t i = 0; i < n; i++) squares += x[i] * x[i] / (double)n;
    for (size_t i = 0; i < n; i++) y[i] = x[i] / sqrt(squares + 1e-6) * w[i];
}
static void forward_gelu(double *y, const double *x, const double *w, size_t n) {
    (void)w;
    for (size_t i = 0; i < n; i++) y[i] = 0.5 * x[i] * (1 + tanh(0.7978845608028654 * (x[i] + 0.044715 * x[i] * x[i] * x[i])));
}
static void forward_swiglu(double *y, const double *x, const double *w, size_t n) {
    for (size_t i = 0; i < n; i++) y[i] = x[i] / (1 + exp(-x[i])) * w[i];
}
static void forward_softmax(double *y, const double *x, const double *w, size_t n) {
    (void)w;
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += exp(0.3 * x[i]);
    for (size_t i = 0; i < n; i++) y[i] = exp(0.3 * x[i]) / sum;
}

// d(sum of dy y)/dv[i] for v = x or w.
static double difference(forward_fn *forward, double *x, double *w, double *v, size_t i, const float *dy, size_t n) {
    double y[64], sum[2] = {0}, kept = v[i], h = 1e-5;
    for (int side = 0; side < 2; side++) {
        v[i] = kept + (side ? h : -h);
        forward(y, x, w, n);
        for (size_t j = 0; j < n; j++) sum[side] += dy[j] * y[j];
    }
    v[i] = kept;
    return (sum[1] - sum[0]) / (2 * h);
}

// out_x, out_w: which outputs hold the gradient to x and w (-1: none); what was there before (`add`) counts.
static void check_gradient(const char *name, row_kernel *run, forward_fn *forward, int out_x, int out_w, bool add) {
    enum { N = 37 };
    struct row_case c = {.n = N, .x = random_floats(N, 3), .w = random_floats(N, 1), .dy = random_floats(N, 1)};
    double x[N], w[N];
    for (size_t i = 0; i < N; i++) x[i] = c.x[i], w[i] = c.w[i];
    for (size_t j = 0; j < N_OUT; j++) {
        c.out[j] = mem_alloc(N, sizeof(float));
        for (size_t i = 0; i < N; i++) c.out[j][i] = 0.5f;
    }
    run(&train_kernels_c, &c);
    double start = add ? 0.5 : 0;
    for (size_t i = 0; i < N; i++) {
        double dx = difference(forward, x, w, x, i, c.dy, N), dw = difference(forward, x, w, w, i, c.dy, N);
        if (!(fabs(c.out[out_x][i] - start - dx) <= 1e-6)) TEST_FAIL("%s: dx[%zu] = %g, expected %g", name, i, c.out[out_x][i] - start, dx);
        if (out_w >= 0 && !(fabs(c.out[out_w][i] - start - dw) <= 1e-6)) TEST_FAIL("%s: dw[%zu] = %g, expected %g", name, i, c.out[out_w][i] - start, dw);
    }
    for (size_t j = 0; j < N_OUT; j++) free(c.out[j]);
    free((void *)c.x), free((void *)c.w), free((void *)c.dy);
}

TEST(gradients_are_those_of_finite_differences) {
    check_gradient("layernorm", run_layernorm, forward_layernorm, 0, 1, true);
    check_gradient("rmsnorm", run_rmsnorm, forward_rmsnorm, 0, 1, true);
    check_gradient("gelu_tanh", run_gelu, forward_gelu, 0, -1, false);
    check_gradient("swiglu", run_swiglu, forward_swiglu, 0, 1, false);
    check_gradient("softmax", run_softmax, forward_softmax, 2, -1, false);
}

// ---- the rest -----------------------------------------------------------------------------------------------------------

TEST(cross_entropy_of_a_whole_vocabulary) {
    size_t n = 50257, n_tables = list_tables(), top;
    float *x = random_floats(n, 5), *g = mem_alloc(n, sizeof *g);
    double sum = 0, max = -1e30;
    for (size_t i = 0; i < n; i++) max = fmax(max, x[i]);
    for (size_t i = 0; i < n; i++) sum += exp(x[i] - max);
    for (size_t t = 0; t < n_tables; t++)
        for (size_t target = 0; target < n; target += 5021) {
            memcpy(g, x, n * sizeof *g);
            double loss = tables[t]->cross_entropy(g, n, target, 0.5f, true, &top), exact = max + log(sum) - x[target], worst = 0;
            CHECK_NEAR(loss, exact, 6e-7 * exact); // f32's own half step is 6e-8 of the value
            for (size_t i = 0; i < n; i++) worst = fmax(worst, fabs(g[i] - 0.5 * (exp(x[i] - max) / sum - (i == target))));
            CHECK(worst < 1e-7);
            CHECK(x[top] == (float)max);
        }
    free(x), free(g);
}

TEST(ties_take_the_first_and_extremes_stay_finite) {
    for (size_t t = 0, n_tables = list_tables(); t < n_tables; t++) {
        float x[40] = {0}, y[40];
        size_t top = 99;
        x[7] = x[23] = x[39] = 3;
        tables[t]->cross_entropy(x, 40, 0, 1, false, &top);
        CHECK_INT(top, 7);
        float wild[40] = {1e30f, -1e30f, 200, -200, 88, -88}, one[40];
        for (size_t i = 0; i < 40; i++) one[i] = 1;
        tables[t]->gelu_tanh_backward(y, one, wild, 40);
        CHECK(y[0] == 1 && fabsf(y[1]) < 1e-30f && y[2] == 1 && y[6] == 0.5f);
        tables[t]->swiglu_backward(y, x, one, wild, one, 40);
        CHECK(y[0] == 1 && fabsf(y[1]) < 1e-6f && y[2] == 1);
        float far[3] = {-3e4f, 0, 3e4f}; // the loss of a hopeless guess is the distance, not infinite
        CHECK_NEAR(tables[t]->cross_entropy(far, 3, 0, 1, true, &top), 6e4, 0);
        CHECK(far[0] == -1);
    }
}

TEST(not_a_number_stays_one) {
    for (size_t t = 0, n_tables = list_tables(); t < n_tables; t++)
        for (size_t at = 0; at < 40; at++)
            for (int infinite = 0; infinite < 2; infinite++) {
                float x[40], y[40], one[40];
                size_t top;
                for (size_t i = 0; i < 40; i++) x[i] = one[i] = 1;
                x[at] = infinite ? INFINITY : NAN;
                CHECK(!isfinite(tables[t]->sum_squares(x, 40)));
                CHECK(!isfinite(tables[t]->dot(x, one, 40)));
                memcpy(y, x, sizeof y);
                CHECK(!isfinite(tables[t]->cross_entropy(y, 40, 3, 1, true, &top)) && top < 40);
                tables[t]->swiglu_backward(y, one, x, x, one, 40);
                CHECK(infinite || isnan(y[at]));
                tables[t]->gelu_tanh_backward(y, one, x, 40);
                CHECK(infinite || isnan(y[at]));
                memcpy(y, x, sizeof y);
                tables[t]->softmax(y, 40, 1);
                CHECK(!isfinite(y[at]));
            }
}

TEST(dropout_keeps_what_it_should) {
    enum { N = 4096 };
    float *x = mem_alloc(N, sizeof *x), *y = mem_alloc(N, sizeof *y), *z = mem_alloc(N, sizeof *z);
    for (size_t i = 0; i < N; i++) x[i] = 1;
    for (size_t t = 0, n_tables = list_tables(); t < n_tables; t++) {
        size_t kept = 0, both = 0;
        struct dropout_row d = {.seed = 42, .p = 0.25f};
        for (d.row = 0; d.row < 100; d.row++) {
            tables[t]->dropout(y, x, N, &d);
            struct dropout_row other = d;
            other.site = 1;
            tables[t]->dropout(z, x, N, &other);
            for (size_t i = 0; i < N; i++) {
                CHECK(y[i] == 0 || y[i] == 1 / 0.75f);
                kept += y[i] != 0;
                both += y[i] != 0 && z[i] != 0;
            }
        }
        CHECK_NEAR((double)kept / (100 * N), 0.75, 0.003); // 4 sigma
        CHECK_NEAR((double)both / (100 * N), 0.75 * 0.75, 0.004);
        tables[t]->dropout(z, x, 70, &d); // a shorter row is the beginning of a longer one
        tables[t]->dropout(y, x, N, &d);
        CHECK(memcmp(y, z, 70 * sizeof *y) == 0);
        memcpy(z, x, N * sizeof *z);
        tables[t]->dropout(z, z, N, &d); // in place
        CHECK(memcmp(y, z, N * sizeof *y) == 0);
    }
    free(x), free(y), free(z);
    CHECK_INT(dropout_threshold(0), 0);
    CHECK_INT(dropout_threshold(0.5f), 0x80000000u);
    CHECK_INT(dropout_threshold(1e-12f), 1);
    CHECK_INT(dropout_threshold(0.99999994f), 0xffffff00u);
}

// torch.optim.AdamW, three steps on one parameter (lr 0.1, betas 0.9 and 0.95, eps 1e-8, weight decay 0.1), in double by its formula.
TEST(adamw_is_pytorchs) {
    for (size_t t = 0, n_tables = list_tables(); t < n_tables; t++) {
        double p = 0.5, m = 0, v = 0, grads[] = {0.3, -2, 1e-4};
        float fp = 0.5f, fm = 0, fv = 0;
        for (int step = 1; step <= 3; step++) {
            double g = grads[step - 1], c1 = 1 - pow(0.9, step), c2 = 1 - pow(0.95, step);
            p *= 1 - 0.1 * 0.1;
            m = 0.9 * m + 0.1 * g;
            v = 0.95 * v + 0.05 * g * g;
            p -= 0.1 / c1 * m / (sqrt(v) / sqrt(c2) + 1e-8);
            struct adamw_step s = {.beta1 = 0.9f, .beta2 = 0.95f, .eps = 1e-8f, .decay = (float)(1 - 0.1 * 0.1), .rate = (float)(0.1 / c1),
                                   .v_scale = (float)(1 / sqrt(c2)), .grad_scale = 1};
            float g32 = (float)g;
            tables[t]->adamw(&fp, &fm, &fv, &g32, 1, &s);
            CHECK_NEAR(fp, p, 2e-7);
        }
    }
}

TEST_MAIN("train_kernels")
