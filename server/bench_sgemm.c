// SPDX-License-Identifier: MIT
// See bench_sgemm.h.
#include "server/bench_sgemm.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "engine/infer/linear.h"

#include <cblas.h>
#include <math.h>
#include <stdlib.h>

struct product {
    size_t rows, outputs, inputs;
    float *x, *w;         // [rows][inputs], [outputs][inputs]
    float *y, *reference; // [rows][outputs]: ours, OpenBLAS's
    struct linear linear;
};

static void fill(float *x, size_t n, uint64_t seed) {
    for (size_t i = 0; i < n; i++) x[i] = (float)(rng_uniform(seed, i) - 0.5);
}

static bool product_init(struct product *p, struct err *err) {
    struct packed *packed = &p->linear.parts[0].w;
    bool ok = (p->x = mem_try_alloc(p->rows * p->inputs, sizeof(float), "the sgemm benchmark", err)) &&
              (p->w = mem_try_alloc(p->outputs * p->inputs, sizeof(float), "the sgemm benchmark", err)) &&
              (p->y = mem_try_alloc(p->rows * p->outputs, sizeof(float), "the sgemm benchmark", err)) &&
              (p->reference = mem_try_alloc(p->rows * p->outputs, sizeof(float), "the sgemm benchmark", err)) &&
              packed_init(packed, PACK_F32, p->outputs, p->inputs, false, err);
    if (!ok) return false;
    fill(p->x, p->rows * p->inputs, 1);
    fill(p->w, p->outputs * p->inputs, 2);
    for (size_t i = 0; i < packed->n_panels; i++)
        pack_panel_f32(packed, i, p->w + i * PANEL * p->inputs, MIN((size_t)PANEL, p->outputs - i * PANEL));
    p->linear.n_parts = 1;
    p->linear.n_in = p->inputs;
    p->linear.n_out = p->outputs;
    return true;
}

static void product_finish(struct product *p) {
    free(p->x);
    free(p->w);
    free(p->y);
    free(p->reference);
    packed_finish(&p->linear.parts[0].w);
}

static void ours(struct product *p, const struct kernels *k, struct pool *pool) {
    struct linear_rows rows = {.n = p->rows, .x = p->x, .x_stride = p->inputs, .y = p->y, .y_stride = p->outputs};
    linear_forward(&p->linear, &rows, k, pool);
}

static void openblas(struct product *p) {
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (blasint)p->rows, (blasint)p->outputs, (blasint)p->inputs, 1,
                p->x, (blasint)p->inputs, p->w, (blasint)p->inputs, 0, p->reference, (blasint)p->outputs);
}

bool bench_sgemm(struct pool *pool, size_t rows, size_t outputs, size_t inputs, size_t repeat, struct sgemm_result *out,
                 struct err *err) {
    struct product p = {.rows = rows, .outputs = outputs, .inputs = inputs};
    struct sgemm_result best = {0};
    const struct kernels *k = kernels_get(err);
    bool ok = k && product_init(&p, err);
    int threads_before = openblas_get_num_threads();
    double work = 2e-9 * (double)rows * (double)outputs * (double)inputs;
    for (size_t all = 0; ok && all < 2; all++) {
        openblas_set_num_threads(all ? (int)pool_threads(pool) : 1);
        for (size_t i = 0; i < repeat + 1; i++) { // the first run warms up
            double t0 = (double)clock_ns() * 1e-9;
            ours(&p, k, all ? pool : NULL);
            double t1 = (double)clock_ns() * 1e-9;
            openblas(&p);
            double t2 = (double)clock_ns() * 1e-9;
            if (i == 0) continue;
            best.ours[all] = MAX(best.ours[all], work / (t1 - t0));
            best.openblas[all] = MAX(best.openblas[all], work / (t2 - t1));
        }
    }
    openblas_set_num_threads(threads_before);
    for (size_t i = 0; ok && i < rows * outputs; i++)
        if (!(fabsf(p.y[i] - p.reference[i]) <= 1e-3f))
            ok = err_set(err, ERR_CORRUPT, "the panel kernel and OpenBLAS disagree");
    product_finish(&p);
    if (ok) *out = best;
    return ok;
}
