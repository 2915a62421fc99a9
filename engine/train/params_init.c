// SPDX-License-Identifier: MIT
// First values of parameters: from an opened model file, or drawn. Both by fixed stretches over the pool; a drawn number is a function of (seed,
// parameter, element) alone, so neither the thread count nor the method of training changes it.
#include "engine/train/params_internal.h"

#include "base/mem.h"
#include "base/rng.h"
#include "engine/model/tensor.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

// ---- from a file --------------------------------------------------------------------------------------------------------

enum { ROWS_A_PART = 32 };

struct expand_job {
    const struct tensor *t;
    float *out; // [shape[0]][shape[1]]
    size_t rows_each;
    atomic_bool not_finite;
};

static bool all_finite(const float *x, size_t n) {
    uint32_t bad = 0;
    for (size_t i = 0; i < n; i++) bad |= (bits_of_float(x[i]) & 0x7f800000u) == 0x7f800000u;
    return !bad;
}

static void expand_part(void *ctx, size_t part) {
    struct expand_job *j = ctx;
    size_t first = part * j->rows_each, n = MIN(j->rows_each, j->t->shape[0] - first), width = j->t->shape[1];
    float *out = j->out + first * width;
    // Seen as a layer of shape[0] outputs whatever it is: HF's rows, also where the file has them as columns.
    struct linear_view v = {.t = j->t, .n_out = j->t->shape[0], .n_in = width};
    linear_view_expand(&v, first, n, out);
    if (!all_finite(out, n * width)) atomic_store(&j->not_finite, true);
}

static bool item_read(struct param *item, const struct model_file *f, struct pool *pool, struct err *err) {
    const struct tensor *t = model_file_require(f, item->name, item->shape[0], item->n_dims == 2 ? item->shape[1] : 0, err);
    if (!t) return false;
    bool finite;
    if (item->n_dims == 1) {
        tensor_vector(t, item->w);
        finite = all_finite(item->w, item->n);
    } else {
        struct expand_job job = {t, item->w, t->transposed ? MAX((size_t)ROWS_A_PART, dtype_block(t->type)) : ROWS_A_PART, false};
        pool_run(pool, expand_part, &job, (item->shape[0] + job.rows_each - 1) / job.rows_each);
        finite = !atomic_load(&job.not_finite);
    }
    return finite || err_set(err, ERR_CORRUPT, "the weights of \"%s\" contain NaN or infinity", item->name);
}

// ---- drawn --------------------------------------------------------------------------------------------------------------

enum { DRAWS_A_PART = 1 << 16 };
enum stream { STREAM_WEIGHTS, STREAM_LORA };

struct draw_job {
    float *out;
    size_t n;
    double scale; // standard deviation | half width
    bool normal;
    uint64_t seed;
    uint32_t item, stream;
};

// Box-Muller on two words each: four numbers a counter.
static void draw_four(const struct draw_job *j, const uint32_t word[4], float out[4]) {
    for (int i = 0; i < 4; i += 2) {
        double a = (word[i] + 0.5) * 0x1p-32, b = (word[i + 1] + 0.5) * 0x1p-32; // in (0, 1)
        if (j->normal) {
            double radius = sqrt(-2 * log(a)) * j->scale, angle = 2 * M_PI * b;
            out[i] = (float)(radius * cos(angle));
            out[i + 1] = (float)(radius * sin(angle));
        } else {
            out[i] = (float)((2 * a - 1) * j->scale);
            out[i + 1] = (float)((2 * b - 1) * j->scale);
        }
    }
}

static void draw_part(void *ctx, size_t part) {
    const struct draw_job *j = ctx;
    for (size_t i = part * DRAWS_A_PART, end = MIN(i + DRAWS_A_PART, j->n); i < end; i += 4) {
        uint32_t counter[4] = {(uint32_t)(i / 4), (uint32_t)(i / 4 >> 32), j->item, j->stream}, word[4];
        float four[4];
        philox4x32(j->seed, counter, word);
        draw_four(j, word, four);
        memcpy(j->out + i, four, MIN((size_t)4, end - i) * sizeof *four);
    }
}

static void item_draw(struct param *item, bool normal, double scale, uint64_t seed, enum stream stream, size_t number, struct pool *pool) {
    struct draw_job job = {item->w, item->n, scale, normal, seed, (uint32_t)number, stream};
    pool_run(pool, draw_part, &job, (item->n + DRAWS_A_PART - 1) / DRAWS_A_PART);
}

static void ones(struct param *item) {
    for (size_t i = 0; i < item->n; i++) item->w[i] = 1;
}

struct random_init {
    enum init_kind kind;
    uint64_t seed;
    double residual; // gpt2's factor on what writes into the residual stream
    size_t number;   // of the base parameter that is drawn next
    struct pool *pool;
};

static void linear_draw(struct random_init *r, struct param_linear *l, double gpt2_factor) {
    bool torch = r->kind == INIT_TORCH;
    double width = 1 / sqrt((double)l->n_in);
    item_draw(l->w, !torch, torch ? width : 0.02 * gpt2_factor, r->seed, STREAM_WEIGHTS, r->number++, r->pool);
    if (l->bias && torch) item_draw(l->bias, false, width, r->seed, STREAM_WEIGHTS, r->number, r->pool);
    r->number++;
}

static void all_draw(struct params *p, struct random_init *r) {
    double embedding = r->kind == INIT_TORCH ? 1 : 0.02;
    item_draw(p->embedding, true, embedding, r->seed, STREAM_WEIGHTS, r->number++, r->pool);
    if (p->positions) item_draw(p->positions, true, embedding, r->seed, STREAM_WEIGHTS, r->number++, r->pool);
    for (size_t l = 0; l < p->config.n_layer; l++) {
        struct param_layer *y = &p->layers[l];
        ones(y->norm1_w);
        for (size_t i = 0; i < y->n_qkv; i++) linear_draw(r, &y->qkv[i], 1);
        linear_draw(r, &y->out, r->residual);
        ones(y->norm2_w);
        for (size_t i = 0; i < y->n_up; i++) linear_draw(r, &y->up[i], 1);
        linear_draw(r, &y->down, r->residual);
    }
    ones(p->norm_w);
    if (p->head != p->embedding) {
        struct param_linear head = {.w = p->head, .n_in = p->config.n_embd};
        linear_draw(r, &head, 1);
    }
}

// ---- LoRA ---------------------------------------------------------------------------------------------------------------

static bool is_lora(const struct param *item) { return strncmp(item->name, "base_model.", 11) == 0; }

// PEFT's kaiming_uniform(a = sqrt 5) is U(+-1/sqrt(n_in)); B stays zero.
static void lora_draw(struct params *p, struct pool *pool) {
    for (size_t i = 0, number = 0; i < p->n_items; i++) {
        if (!is_lora(&p->items[i])) continue;
        if (strstr(p->items[i].name, ".lora_A.")) {
            double width = 1 / sqrt((double)p->items[i].shape[1]);
            item_draw(&p->items[i], false, width, p->options.seed, STREAM_LORA, number++, pool);
        }
    }
}

// ---- life ---------------------------------------------------------------------------------------------------------------

struct params *params_from_file(const struct model_file *f, const struct params_options *o, struct pool *pool, struct err *err) {
    struct params *p = params_build(model_file_config(f), o, err);
    for (size_t i = 0; p && i < p->n_items; i++) {
        if (is_lora(&p->items[i]) || item_read(&p->items[i], f, pool, err)) continue;
        params_destroy(p);
        p = NULL;
    }
    if (p) lora_draw(p, pool);
    return p;
}

struct params *params_random(const struct model_config *c, enum init_kind init, uint64_t init_seed, const struct params_options *o, struct pool *pool,
                             struct err *err) {
    struct params *p = params_build(c, o, err);
    if (!p) return NULL;
    struct random_init r = {.kind = init, .seed = init_seed, .residual = 1 / sqrt(2.0 * (double)c->n_layer), .pool = pool};
    all_draw(p, &r);
    lora_draw(p, pool);
    return p;
}
