// SPDX-License-Identifier: MIT
// Training's attention against the definition in double, written down without blocks: forward, log-sum-exp and all three gradients, for grouped heads,
// ragged segments, dropout with the same mask; the same bits from 1, 2 and 3 threads. Then the worked causal examples that first taught it.
#include "base/mem.h"
#include "base/rng.h"
#include "engine/train/attention.h"
#include "engine/train/gemm.h"
#include "tests/unit/test.h"

static uint64_t draws;
static float *random_floats(size_t n, double scale) {
    float *x = mem_alloc(n, sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = (float)(scale * (2 * rng_uniform(9, draws++) - 1));
    return x;
}

// Everything in double; queries, keys and values as the f32 arrays hold them.
struct exact {
    double *out, *lse, *dq, *dk, *dv; // out, dq [R][NH][HS]; lse [NH][R]; dk, dv [R][NKV][HS]
};

static void exact_row(const struct attention_shape *s, const struct attention_arrays *a, const struct batch *b, const struct attention_dropout *d,
                      const float *dout, struct exact *e, size_t start, size_t row, size_t head) {
    size_t n = row - start + 1, hs = s->head_size, kv = head / (s->n_head / s->n_kv_head), at = (row * s->n_head + head) * hs;
    double *p = mem_alloc(n, sizeof *p), *dp = mem_alloc(n, sizeof *dp), sum = 0, delta = 0;
    float *mask = mem_alloc(n, sizeof *mask);
    for (size_t j = 0; j < n; j++) mask[j] = 1;
    struct dropout_row counter = {.seed = d->seed, .row = d->first_row + (uint32_t)row, .site = d->site + (uint32_t)head, .step = d->step, .p = d->p};
    train_kernels_c.dropout(mask, mask, n, &counter);
    const float *q = a->q + row * a->qkv_stride + head * hs;
    for (size_t j = 0; j < n; j++) {
        const float *k = a->k + (start + j) * a->qkv_stride + kv * hs;
        for (size_t i = 0; i < hs; i++) p[j] += (double)q[i] * k[i];
        sum += p[j] = exp(s->scale * p[j]);
    }
    e->lse[head * b->n_rows + row] = log(sum);
    for (size_t j = 0; j < n; j++) {
        const float *v = a->v + (start + j) * a->qkv_stride + kv * hs;
        p[j] /= sum;
        for (size_t i = 0; i < hs; i++) {
            e->out[at + i] += p[j] * mask[j] * v[i];
            dp[j] += (double)dout[at + i] * v[i] * mask[j];
            e->dv[((start + j) * s->n_kv_head + kv) * hs + i] += p[j] * mask[j] * dout[at + i];
        }
        delta += p[j] * dp[j];
    }
    for (size_t j = 0; j < n; j++) {
        double ds = s->scale * p[j] * (dp[j] - delta);
        const float *k = a->k + (start + j) * a->qkv_stride + kv * hs;
        for (size_t i = 0; i < hs; i++) {
            e->dq[at + i] += ds * k[i];
            e->dk[((start + j) * s->n_kv_head + kv) * hs + i] += ds * q[i];
        }
    }
    free(p), free(dp), free(mask);
}

static void compare(const char *what, const float *got, size_t stride, const double *expected, size_t rows, size_t width, double tolerance) {
    double size = 0.1, worst = 0; // of a segment of one row all that should be 0 is rounding of terms near 1
    for (size_t i = 0; i < rows * width; i++) size = fmax(size, fabs(expected[i]));
    for (size_t r = 0; r < rows; r++)
        for (size_t i = 0; i < width; i++) {
            double off = fabs(got[r * stride + i] - expected[r * width + i]);
            if (!(off <= worst)) worst = off;
        }
    if (!(worst <= tolerance * size)) TEST_FAIL("%s is %g off, its largest value being %g", what, worst, size);
}

static void check_attention(const char *isa, size_t n_head, size_t n_kv_head, size_t head_size, const size_t *segments, size_t n_segments, float p) {
    const struct train_kernels *k = train_kernels_by_name(isa, NULL);
    if (!k) return; // this processor lacks it
    struct attention_shape s = {.n_head = n_head, .n_kv_head = n_kv_head, .head_size = head_size, .scale = 1 / sqrtf((float)head_size)};
    uint32_t starts[16] = {0};
    size_t longest = 0, q_width = n_head * head_size, kv_width = n_kv_head * head_size, stride = q_width + 2 * kv_width + 3;
    for (size_t i = 0; i < n_segments; i++) {
        starts[i + 1] = starts[i] + (uint32_t)segments[i];
        longest = MAX(longest, segments[i]);
    }
    size_t n = starts[n_segments];
    struct batch b = {.n_rows = n, .n_segments = n_segments, .starts = starts};
    struct attention_dropout d = {.p = p, .seed = 77, .site = 40, .step = 3, .first_row = 1000};
    float *qkv = random_floats(n * stride, 2), *dout = random_floats(n * q_width, 1), *out[3], *lse[3], *grads[3];
    struct exact e = {.out = mem_alloc(n * q_width, sizeof(double)), .lse = mem_alloc(n * n_head, sizeof(double)),
                      .dq = mem_alloc(n * q_width, sizeof(double)), .dk = mem_alloc(n * kv_width, sizeof(double)),
                      .dv = mem_alloc(n * kv_width, sizeof(double))};
    struct attention_arrays a = {.q = qkv, .k = qkv + q_width, .v = qkv + q_width + kv_width, .qkv_stride = stride};
    for (size_t t = 0; t < 3; t++) {
        struct pool *pool = pool_create(t + 1, NULL);
        size_t scratch_floats = (t + 1) * attention_scratch(&s, longest);
        float *scratch = mem_alloc(scratch_floats, sizeof *scratch);
        for (size_t i = 0; i < scratch_floats; i++) scratch[i] = NAN;
        out[t] = mem_alloc(n * q_width, sizeof(float)), lse[t] = mem_alloc(n * n_head, sizeof(float));
        grads[t] = mem_alloc(n * stride, sizeof(float));
        for (size_t i = 0; i < n * stride; i++) grads[t][i] = NAN; // written, not added to
        for (size_t i = 0; i < n; i++)
            for (size_t j = stride - 3; j < stride; j++) grads[t][i * stride + j] = -777;
        a.out = out[t], a.lse = lse[t];
        attention_forward(&s, &a, &b, &d, k, scratch, pool);
        struct attention_gradients g = {.dout = dout, .dq = grads[t], .dk = grads[t] + q_width, .dv = grads[t] + q_width + kv_width};
        attention_backward(&s, &a, &g, &b, &d, k, scratch, pool);
        if (memcmp(out[t], out[0], n * q_width * sizeof(float)) || memcmp(lse[t], lse[0], n * n_head * sizeof(float)) ||
            memcmp(grads[t], grads[0], n * stride * sizeof(float)))
            TEST_FAIL("%zu threads give other bits", t + 1);
        for (size_t i = 0; i < n; i++)
            for (size_t j = stride - 3; j < stride; j++) CHECK(grads[t][i * stride + j] == -777);
        free(scratch);
        pool_destroy(pool);
    }
    for (size_t i = 0; i < n_segments; i++)
        for (size_t row = starts[i]; row < starts[i + 1]; row++)
            for (size_t h = 0; h < n_head; h++) exact_row(&s, &a, &b, &d, dout, &e, starts[i], row, h);
    // f32 scores of head_size terms are some 1e-6 off, which is what their exponentials then are.
    compare("out", out[0], q_width, e.out, n, q_width, 3e-6);
    compare("lse", lse[0], n, e.lse, n_head, n, 5e-6);
    compare("dq", grads[0], stride, e.dq, n, q_width, 5e-6);
    compare("dk", grads[0] + q_width, stride, e.dk, n, kv_width, 5e-6);
    compare("dv", grads[0] + q_width + kv_width, stride, e.dv, n, kv_width, 5e-6);
    for (size_t t = 0; t < 3; t++) free(out[t]), free(lse[t]), free(grads[t]);
    free(qkv), free(dout), free(e.out), free(e.lse), free(e.dq), free(e.dk), free(e.dv);
}

TEST(forward_and_backward_are_the_definition) {
    gemm_start();
    size_t ragged[] = {5, 1, 64, 65, 1, 130, 63, 17}, one[] = {1}, long_one[] = {300};
    const char *isas[] = {"c", "avx2", "avx512"};
    for (size_t i = 0; i < 3; i++) {
        check_attention(isas[i], 1, 1, 64, one, 1, 0);
        check_attention(isas[i], 3, 3, 64, ragged, ARRAY_LEN(ragged), 0);
        check_attention(isas[i], 6, 2, 16, ragged, ARRAY_LEN(ragged), 0);
        check_attention(isas[i], 3, 1, 24, ragged, ARRAY_LEN(ragged), 0.25f);
        check_attention(isas[i], 2, 2, 64, long_one, 1, 0.1f);
        check_attention(isas[i], 3, 1, 33, long_one, 1, 0);
    }
}

TEST_MAIN("attention")
