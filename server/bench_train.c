// SPDX-License-Identifier: MIT
// See bench_train.h.
//
// GFLOP counts useful work as the comparison script does: 6 (LoRA: 4) operations per weight of a product and token, and the causal half
// of attention's two products, three times.
#include "server/bench_train.h"

#include "base/clock.h"
#include "base/mem.h"
#include "engine/kernels/train_kernels.h"
#include "engine/train/gemm.h"
#include "engine/train/network.h"
#include "engine/train/optimizer.h"
#include "engine/train/presets.h"

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum { WARMUP = 2, MAX_STEPS = 99, CUBE = 2048, CUBE_REPEAT = 3, LORA_RANK = 8, MAX_TARGETS = 8 };

struct bench_run {
    const struct bench_train_options *options;
    struct pool *pool;
    struct params *params;
    struct network *network;
    struct optimizer optimizer;
    struct batch batch;
    uint32_t *ids, *starts;
    int32_t *targets;
};

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *x, size_t n) {
    qsort(x, n, sizeof *x, by_value);
    return x[n / 2];
}

// GFLOP a second of OpenBLAS under our partition.
static bool cube_rate(struct pool *pool, double *rate, struct err *err) {
    const size_t bytes = sizeof(float) * CUBE * CUBE;
    float *block = mem_map_array(3 * bytes, "the sgemm measurement", err);
    if (!block) return false;
    for (size_t i = 0; i < 2 * CUBE * CUBE; i++) block[i] = (float)(i % 17) - 8;
    const struct gemm g = {.m = CUBE, .n = CUBE, .k = CUBE, .alpha = 1, .a = block, .lda = CUBE, .b = block + CUBE * CUBE, .ldb = CUBE,
                           .c = block + 2 * CUBE * CUBE, .ldc = CUBE};
    double rates[CUBE_REPEAT];
    for (int i = -1; i < CUBE_REPEAT; i++) {
        uint64_t begin = clock_ns();
        gemm_run(&g, pool);
        if (i >= 0) rates[i] = 2.0 * CUBE * CUBE * CUBE / (double)(clock_ns() - begin);
    }
    *rate = median(rates, CUBE_REPEAT);
    mem_unmap_array(block, 3 * bytes);
    return true;
}

static void batch_fill(struct bench_run *r, size_t step) {
    const struct bench_train_options *o = r->options;
    size_t rows = o->batch * o->context, V = r->params->config.n_vocab;
    uint64_t x = step * 0x9E3779B97F4A7C15 + 1;
    for (size_t i = 0; i < rows; i++) {
        x = x * 6364136223846793005 + 1442695040888963407;
        r->ids[i] = (uint32_t)((x >> 33) % V);
        r->targets[i] = (int32_t)((x >> 11) % V);
    }
    for (size_t i = 0; i <= o->batch; i++) r->starts[i] = (uint32_t)(i * o->context);
    r->batch = (struct batch){.n_rows = rows, .ids = r->ids, .targets = r->targets, .n_segments = o->batch, .starts = r->starts, .n_supervised = rows};
}

static double work_gflop(const struct bench_run *r) {
    const struct model_config *c = &r->params->config;
    double attention = (double)(c->n_head * c->head_size) * (double)c->n_embd * 2 + (double)(c->n_kv_head * c->head_size) * (double)c->n_embd * 2;
    double mlp = (double)c->n_embd * (double)c->n_inner * (c->mlp == MLP_SWIGLU ? 3 : 2), tokens = (double)r->batch.n_rows;
    double weights = (double)c->n_layer * (attention + mlp) + (double)c->n_vocab * (double)c->n_embd;
    double scores = 3.0 * (double)c->n_layer * 2 * (double)r->options->context * (double)(c->n_head * c->head_size);
    return ((r->options->lora ? 4 : 6) * weights + scores) * tokens * 1e-9;
}

static bool params_open(struct bench_run *r, struct err *err) {
    char targets[256] = "", *list[MAX_TARGETS];
    size_t n = 0;
    if (r->options->lora_targets) strncpy(targets, r->options->lora_targets, sizeof targets - 1);
    for (char *rest = targets, *name; n < MAX_TARGETS && (name = strsep(&rest, ",")) && *name;) list[n++] = name;
    const struct params_options o = {.method = r->options->lora ? TRAIN_LORA : TRAIN_FULL,
                                     .lora = {.rank = LORA_RANK, .alpha = 2 * LORA_RANK, .targets = (const char *const *)list, .n_targets = n}};
    struct model_init init;
    if (model_init_preset(r->options->model, &init)) {
        r->params = params_random(&init.config, init.init, 1, &o, r->pool, err);
    } else {
        struct model_file *f = model_file_open(r->options->model, err);
        r->params = f ? params_from_file(f, &o, r->pool, err) : NULL;
        model_file_close(f);
    }
    return r->params != NULL;
}

static bool run_open(struct bench_run *r, struct err *err) {
    const struct bench_train_options *o = r->options;
    const struct optimizer_config adamw = {.kind = OPTIMIZER_ADAMW, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .weight_decay = 0.1f};
    size_t rows = o->batch * o->context;
    r->pool = pool_create(o->threads ? o->threads : pool_cpu_count(), err);
    if (!r->pool || !params_open(r, err)) return false;
    if (o->context > r->params->config.n_ctx)
        return err_set_param(err, ERR_INVALID, "--context", "--context %zu is over the model's %zu", o->context, r->params->config.n_ctx);
    const struct network_config c = {.max_rows = rows, .max_segment = o->context, .dropout_embedding = o->dropout, .dropout_attention = o->dropout,
                                     .dropout_residual = o->dropout, .recompute = o->recompute};
    r->ids = mem_alloc(rows, sizeof *r->ids);
    r->targets = mem_alloc(rows, sizeof *r->targets);
    r->starts = mem_alloc(o->batch + 1, sizeof *r->starts);
    r->network = network_create(r->params, &c, r->pool, err);
    return r->network && optimizer_init(&r->optimizer, &adamw, r->params, r->pool, err);
}

static void run_close(struct bench_run *r) {
    optimizer_finish(&r->optimizer);
    network_destroy(r->network);
    params_destroy(r->params);
    pool_destroy(r->pool);
    free(r->ids);
    free(r->targets);
    free(r->starts);
}

// Milliseconds of one step, and of the optimizer's part.
static double step(struct bench_run *r, size_t number, double *optimizer_ms) {
    struct loss_sums sums;
    batch_fill(r, number);
    uint64_t begin = clock_ns();
    network_train(r->network, &r->batch, 1.0f / (float)r->batch.n_supervised, true, (uint32_t)number, &sums);
    uint64_t trained = clock_ns();
    optimizer_step(&r->optimizer, 1e-4, optimizer_grad_norm(&r->optimizer));
    uint64_t end = clock_ns();
    *optimizer_ms = (double)(end - trained) * 1e-6;
    return (double)(end - begin) * 1e-6;
}

static void report(struct bench_run *r, double *ms, double *optimizer_ms, const struct network_times *before, double cube, struct buf *out) {
    size_t n = r->options->repeat;
    const struct network_times *t = network_times(r->network);
    double middle = median(ms, n), tokens = (double)r->batch.n_rows, steps = (double)n;
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    buf_printf(out, "{\"method\":\"%s\",\"parameters\":%zu,\"trainable\":%zu,\"batch\":%zu,\"context\":%zu,\"threads\":%zu,\"steps\":%zu,",
               r->options->lora ? "lora" : "full", r->params->n_parameters, r->params->n_trainable, r->options->batch, r->options->context,
               pool_threads(r->pool), n);
    buf_printf(out, "\"ms_per_step\":%.1f,\"ms_min\":%.1f,\"ms_max\":%.1f,\"tokens_per_second\":%.1f,\"gflop_per_step\":%.1f,\"gflops\":%.1f,",
               middle, ms[0], ms[n - 1], tokens / middle * 1e3, work_gflop(r), work_gflop(r) / middle * 1e3);
    buf_printf(out, "\"sgemm_gflops\":%.1f,\"share_of_sgemm\":%.3f,\"peak_mib\":%ld,\"phases_ms\":{", cube, work_gflop(r) / middle * 1e3 / cube,
               usage.ru_maxrss / 1024);
    buf_printf(out, "\"embed\":%.1f,\"linear_forward\":%.1f,\"attention_forward\":%.1f,\"rows_forward\":%.1f,\"head_loss\":%.1f,",
               (t->embed_ms - before->embed_ms) / steps, (t->linear_forward_ms - before->linear_forward_ms) / steps,
               (t->attention_forward_ms - before->attention_forward_ms) / steps, (t->rows_forward_ms - before->rows_forward_ms) / steps,
               (t->head_loss_ms - before->head_loss_ms) / steps);
    buf_printf(out, "\"linear_backward\":%.1f,\"attention_backward\":%.1f,\"rows_backward\":%.1f,\"optimizer\":%.1f}}",
               (t->linear_backward_ms - before->linear_backward_ms) / steps, (t->attention_backward_ms - before->attention_backward_ms) / steps,
               (t->rows_backward_ms - before->rows_backward_ms) / steps, median(optimizer_ms, n));
}

bool bench_train(const struct bench_train_options *o, struct buf *out, struct err *err) {
    struct bench_run r = {.options = o};
    double ms[MAX_STEPS], optimizer_ms[MAX_STEPS], cube[2] = {0};
    gemm_start();
    bool ok = run_open(&r, err) && cube_rate(r.pool, &cube[0], err);
    if (ok) {
        struct network_times before = {0};
        for (size_t i = 0; i < WARMUP + o->repeat; i++) {
            if (i == WARMUP) before = *network_times(r.network);
            double optimizer, total = step(&r, i, &optimizer);
            if (i >= WARMUP) ms[i - WARMUP] = total, optimizer_ms[i - WARMUP] = optimizer;
        }
        ok = cube_rate(r.pool, &cube[1], err);
        if (ok) report(&r, ms, optimizer_ms, &before, (cube[0] + cube[1]) / 2, out);
    }
    run_close(&r);
    return ok;
}
