// SPDX-License-Identifier: MIT
// The forward pass. Shapes: T rows of the step, C = n_embd, Q = n_head * HS, K = n_kv_head * HS, F = n_inner, V = n_vocab.
//
// A layer is:  x += out(attention(rope(qkv(norm1(x)))));  x += down(act(up(norm2(x))))
// Row strides carry ROW_PAD extra floats: rows a multiple of 4 KB apart would fight for the same cache sets.
#include "engine/infer/transformer.h"

#include "base/mem.h"
#include "engine/infer/linear.h"
#include "engine/model/tensor.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROW_PAD = 16 };
enum { QUERY_ROWS = 16 }; // rows of one attention task

struct array { // [max_rows][width], rows `stride` floats apart
    float *data;
    size_t stride;
    size_t at; // offset in the one block of memory, in floats
};

struct attention_unit { // one task of the pool: some rows of a sequence, one key/value head
    const struct step_sequence *sequence;
    size_t first, n_rows, kv_head;
};

struct transformer {
    const struct weights *w;
    const struct model_config *c;
    const struct kernels *kernels;
    struct pool *pool;
    size_t max_rows;
    float *memory; // one block for all arrays
    size_t memory_bytes;
    struct array x, h, qkv, att, up, act, proj, hidden, logits;
    struct array rope; // [max_rows][HS]: cosines, then sines of the row's position
    float *scores; // [threads][QUERY_ROWS * group][score_stride]
    size_t score_stride, score_size;
    struct attention_unit *units;
    uint32_t *row_position, *row_sequence; // [max_rows]
    const struct adapter_rows **row_adapter, **wanted_adapter; // [max_rows]
    struct row_group *groups;                                  // [max_rows]: of the linear layer in progress
    struct array low;                                          // their lower products, row after row without gaps; committed as it is used
    bool adapted;                                              // the step has a row with an adapter
    // the step in progress
    struct kv_cache *kv;
    const struct step *step;
    size_t layer;
};

static float *row_of(const struct array *a, size_t row) { return a->data + row * a->stride; }

static bool array_place(struct array *a, size_t *total, size_t rows, size_t width) {
    size_t bytes;
    a->stride = (width + 15) / 16 * 16 + ROW_PAD;
    if (!size_mul(rows, a->stride * sizeof(float), &bytes)) return false;
    a->at = *total / sizeof(float);
    return size_add(*total, (bytes + 63) & ~(size_t)63, total);
}

struct transformer *transformer_create(const struct weights *w, size_t max_rows, struct pool *pool, struct err *err) {
    const struct model_config *c = w->config;
    const struct kernels *kernels = kernels_get(err);
    if (!kernels) return NULL;
    size_t group = c->n_head / c->n_kv_head, threads = pool_threads(pool), total = 0;
    struct transformer *t = mem_new(struct transformer);
    *t = (struct transformer){.w = w, .c = c, .kernels = kernels, .pool = pool, .max_rows = max_rows};
    t->score_stride = (c->n_ctx + KV_BLOCK - 1) / KV_BLOCK * KV_BLOCK;
    t->score_size = QUERY_ROWS * group * t->score_stride;
    struct array scores, *all[] = {&t->x, &t->h, &t->qkv, &t->att, &t->up, &t->act, &t->proj, &t->hidden, &t->logits, &t->rope, &scores, &t->low};
    bool fits = array_place(&t->x, &total, max_rows, c->n_embd) && array_place(&t->h, &total, max_rows, c->n_embd) &&
                array_place(&t->qkv, &total, max_rows, w->layers[0].qkv.n_out) &&
                array_place(&t->att, &total, max_rows, c->n_head * c->head_size) &&
                array_place(&t->up, &total, max_rows, w->layers[0].up.n_out) && array_place(&t->act, &total, max_rows, c->n_inner) &&
                array_place(&t->proj, &total, max_rows, c->n_embd) && array_place(&t->hidden, &total, max_rows, c->n_embd) &&
                array_place(&t->logits, &total, LOGIT_ROWS, c->n_vocab) && array_place(&t->rope, &total, max_rows, c->head_size) &&
                array_place(&scores, &total, threads, t->score_size) && array_place(&t->low, &total, max_rows, ADAPTER_MAX_LOW);
    t->memory = fits ? mem_map_array(total, "activations", err) : NULL;
    if (!t->memory) {
        if (!fits) err_set(err, ERR_NO_MEMORY, "the activations of a step do not fit in memory");
        free(t);
        return NULL;
    }
    t->memory_bytes = total;
    for (size_t i = 0; i < ARRAY_LEN(all); i++) all[i]->data = t->memory + all[i]->at;
    t->scores = scores.data;
    t->score_size = scores.stride;
    t->units = mem_try_alloc(max_rows * c->n_kv_head, sizeof *t->units, "attention tasks", err);
    if (!t->units) {
        transformer_destroy(t);
        return NULL;
    }
    t->row_position = mem_alloc(max_rows, sizeof *t->row_position);
    t->row_sequence = mem_alloc(max_rows, sizeof *t->row_sequence);
    t->row_adapter = mem_alloc(max_rows, sizeof(struct adapter_rows *));
    t->wanted_adapter = mem_alloc(max_rows, sizeof(struct adapter_rows *));
    t->groups = mem_alloc(max_rows, sizeof *t->groups);
    return t;
}

void transformer_destroy(struct transformer *t) {
    if (!t) return;
    mem_unmap_array(t->memory, t->memory_bytes);
    free(t->units);
    free(t->row_position);
    free(t->row_sequence);
    free((void *)t->row_adapter);
    free((void *)t->wanted_adapter);
    free(t->groups);
    free(t);
}

// ---- rows: small work, on the caller when there are few ---------------------------------------------------------------

typedef void row_fn(struct transformer *t, size_t row);
struct rows_job {
    struct transformer *t;
    row_fn *fn;
    size_t n, each;
};

static void rows_task(void *ctx, size_t part) {
    const struct rows_job *j = ctx;
    for (size_t r = part * j->each, end = MIN(r + j->each, j->n); r < end; r++) j->fn(j->t, r);
}

static void for_rows(struct transformer *t, row_fn *fn, size_t n) {
    struct rows_job job = {t, fn, n, n < 16 ? n : 8};
    if (n > 0) pool_run(n < 16 ? NULL : t->pool, rows_task, &job, (n + job.each - 1) / job.each);
}

static const struct layer_weights *layer_of(const struct transformer *t) { return &t->w->layers[t->layer]; }

static void norm(const struct transformer *t, float *y, const float *x, const float *w, const float *b) {
    if (t->c->norm == NORM_LAYERNORM) t->kernels->layernorm(y, x, w, b, t->c->n_embd, t->c->norm_eps);
    else t->kernels->rmsnorm(y, x, w, t->c->n_embd, t->c->norm_eps);
}

// Angles and their sines in f32, as transformers computes them: once a row, used in every layer.
static void rope_row(struct transformer *t, size_t row) {
    size_t half = t->c->head_size / 2;
    float *cos = row_of(&t->rope, row), *sin = cos + half;
    for (size_t i = 0; i < half; i++) {
        float angle = (float)t->row_position[row] * t->w->rope_frequency[i];
        cos[i] = cosf(angle);
        sin[i] = sinf(angle);
    }
}

static bool has_position(const struct transformer *t, size_t row) {
    const struct tap *tap = t->step->sequences[t->row_sequence[row]].tap;
    return !tap || !tap->no_positions;
}

static void embed_row(struct transformer *t, size_t row) {
    float *x = row_of(&t->x, row);
    tensor_row(t->w->embedding, t->step->ids[row], x);
    if (t->w->positions && has_position(t, row)) t->kernels->add(x, t->w->positions + t->row_position[row] * t->c->n_embd, t->c->n_embd);
    if (t->w->rope_frequency) rope_row(t, row);
}

static void norm1_row(struct transformer *t, size_t row) {
    norm(t, row_of(&t->h, row), row_of(&t->x, row), layer_of(t)->norm1_w, layer_of(t)->norm1_b);
}

// x += attention's projection; h = norm2(x)
static void norm2_row(struct transformer *t, size_t row) {
    t->kernels->add(row_of(&t->x, row), row_of(&t->proj, row), t->c->n_embd);
    norm(t, row_of(&t->h, row), row_of(&t->x, row), layer_of(t)->norm2_w, layer_of(t)->norm2_b);
}

static void act_row(struct transformer *t, size_t row) {
    const float *up = row_of(&t->up, row);
    if (t->c->mlp == MLP_SWIGLU) t->kernels->swiglu(row_of(&t->act, row), up, up + t->c->n_inner, t->c->n_inner);
    else t->kernels->gelu_tanh(row_of(&t->act, row), up, t->c->n_inner);
}

static void residual_row(struct transformer *t, size_t row) { t->kernels->add(row_of(&t->x, row), row_of(&t->proj, row), t->c->n_embd); }

static void final_row(struct transformer *t, size_t i) {
    norm(t, row_of(&t->hidden, i), row_of(&t->x, t->step->wanted[i]), t->w->norm_w, t->w->norm_b);
}

// Rotates q and k, then files k (transposed: positions side by side) and v in the cache.
static void cache_row(struct transformer *t, size_t row) {
    const struct model_config *c = t->c;
    const struct kv_layout *l = kv_cache_layout(t->kv);
    size_t HS = c->head_size, position = t->row_position[row], slot = position % KV_BLOCK;
    float *q = row_of(&t->qkv, row), *k = q + c->n_head * HS, *v = k + c->n_kv_head * HS;
    if (t->w->rope_frequency && has_position(t, row)) {
        const float *cos = row_of(&t->rope, row), *sin = cos + HS / 2;
        t->kernels->rope(q, cos, sin, c->n_head, HS);
        t->kernels->rope(k, cos, sin, c->n_kv_head, HS);
    }
    const struct step_sequence *s = &t->step->sequences[t->row_sequence[row]];
    float *block = l->base + s->blocks[position / KV_BLOCK] * l->block_stride + t->layer * l->layer_stride;
    for (size_t h = 0; h < c->n_kv_head; h++) {
        float *keys = block + h * l->head_stride, *values = keys + l->value_at + slot * l->v_stride;
        for (size_t d = 0; d < HS; d++) keys[d * KV_BLOCK + slot] = k[h * HS + d];
        memcpy(values, v + h * HS, HS * sizeof *values);
    }
}

// ---- attention ----------------------------------------------------------------------------------------------------------

static struct attention_task attention_task_of(const struct transformer *t, const struct attention_unit *u, float *scores) {
    const struct model_config *c = t->c;
    const struct kv_layout *l = kv_cache_layout(t->kv);
    size_t group = c->n_head / c->n_kv_head, row = u->sequence->row + u->first, head = u->kv_head * group;
    size_t keys = t->layer * l->layer_stride + u->kv_head * l->head_stride;
    return (struct attention_task){
        .n_rows = u->n_rows, .n_group = group, .position = u->sequence->position + u->first, .head_size = c->head_size,
        .v_stride = l->v_stride, .scale = 1.0f / sqrtf((float)c->head_size),
        .q = row_of(&t->qkv, row) + head * c->head_size, .q_stride = t->qkv.stride,
        .out = row_of(&t->att, row) + head * c->head_size, .out_stride = t->att.stride,
        .kv = l->base, .table = u->sequence->blocks, .kv_stride = l->block_stride, .key_at = keys, .value_at = keys + l->value_at,
        .scores = scores, .score_stride = t->score_stride,
    };
}

static void attention_unit_run(void *ctx, size_t part) {
    struct transformer *t = ctx;
    struct attention_task task = attention_task_of(t, &t->units[part], t->scores + pool_self() * t->score_size);
    t->kernels->attention(&task);
}

// One key/value head of a tapped sequence. Each row goes through the kernel alone, which gives it the bits that it has in any
// company; without a mask it is told to stand at the last position.
struct tapped {
    struct transformer *t;
    const struct step_sequence *sequence;
    size_t n_positions, kv_head;
    size_t changed;          // head of the group
    float *scores, *weights; // [group][rows][positions]
};

static struct attention_task tapped_task(const struct tapped *a, size_t row) {
    struct attention_unit u = {a->sequence, row, 1, a->kv_head};
    struct attention_task task = attention_task_of(a->t, &u, a->t->scores + pool_self() * a->t->score_size);
    if (a->sequence->tap->no_mask) task.position = a->n_positions - 1;
    return task;
}

static size_t tapped_at(const struct tapped *a, size_t group, size_t row) { return (group * a->sequence->n_rows + row) * a->n_positions; }

// A block of keys lies as a panel of packed weights does.
_Static_assert((int)KV_BLOCK == (int)PANEL, "keys are panels");
static void tapped_scores(const struct tapped *a, const struct attention_task *task, size_t row) {
    for (size_t g = 0; g < task->n_group; g++) {
        float *s = a->scores + tapped_at(a, g, row);
        for (size_t p = 0; p < a->n_positions; p += KV_BLOCK) {
            const struct packed keys = {.type = PACK_F32, .n_out = MIN((size_t)KV_BLOCK, a->n_positions - p), .n_in = task->head_size,
                                        .n_panels = 1, .panel_bytes = task->head_size * PANEL * sizeof(float),
                                        .data = (unsigned char *)(uintptr_t)attention_keys(task, p / KV_BLOCK)};
            a->t->kernels->matmul(&keys, 0, 1, task->q + g * task->head_size, task->q_stride, 1, s + p, a->n_positions);
        }
        for (size_t p = task->position + 1; p < a->n_positions; p++) s[p] = -INFINITY;
    }
}

static void tapped_weights(void *ctx, size_t row) {
    const struct tapped *a = ctx;
    struct attention_task task = tapped_task(a, row);
    a->t->kernels->attention(&task); // leaves e^(score - max)
    tapped_scores(a, &task, row);
    for (size_t g = 0; g < task.n_group; g++) {
        const float *e = task.scores + g * task.score_stride;
        float *w = a->weights + tapped_at(a, g, row);
        size_t n = task.position + 1;
        double sum = 0;
        for (size_t p = 0; p < n; p++) sum += e[p];
        for (size_t p = 0; p < n; p++) w[p] = e[p] / (float)sum;
        memset(w + n, 0, (a->n_positions - n) * sizeof *w);
    }
}

// The context of a head whose weights were changed.
static void tapped_context(void *ctx, size_t row) {
    const struct tapped *a = ctx;
    const struct attention_task task = tapped_task(a, row);
    const float *w = a->weights + tapped_at(a, a->changed, row);
    float *out = task.out + a->changed * task.head_size;
    memset(out, 0, task.head_size * sizeof *out);
    for (size_t p = 0; p <= task.position; p++) {
        const float *v = attention_values(&task, p / KV_BLOCK) + p % KV_BLOCK * task.v_stride;
        for (size_t d = 0; d < task.head_size; d++) out[d] += w[p] * v[d];
    }
}

static void attention_tapped(struct transformer *t, const struct step_sequence *s) {
    const struct tap *tap = s->tap;
    const int layer = (int)t->layer;
    const size_t group = t->c->n_head / t->c->n_kv_head, shape[] = {s->n_rows, s->position + s->n_rows}, size = shape[0] * shape[1];
    struct tapped a = {.t = t, .sequence = s, .n_positions = shape[1], .scores = tap->maps, .weights = tap->maps + group * size};
    for (; a.kv_head < t->c->n_kv_head; a.kv_head++) {
        pool_run(t->pool, tapped_weights, &a, s->n_rows);
        for (a.changed = 0; a.changed < group; a.changed++) {
            const int head = (int)(a.kv_head * group + a.changed);
            float *weights = a.weights + a.changed * size;
            bool changed = tap->change && tap->change(tap->ctx, layer, head, weights, shape[0], shape[1]);
            if (changed) pool_run(t->pool, tapped_context, &a, s->n_rows);
            tap->see(tap->ctx, "scores", layer, head, a.scores + a.changed * size, shape, 2);
            tap->see(tap->ctx, "weights", layer, head, weights, shape, 2);
        }
    }
}

static void attention_run(struct transformer *t) {
    size_t n = 0;
    for (size_t i = 0; i < t->step->n_sequences; i++) {
        const struct step_sequence *s = &t->step->sequences[i];
        if (s->tap) {
            attention_tapped(t, s);
            continue;
        }
        for (size_t first = 0; first < s->n_rows; first += QUERY_ROWS)
            for (size_t h = 0; h < t->c->n_kv_head; h++)
                t->units[n++] = (struct attention_unit){s, first, MIN((size_t)QUERY_ROWS, s->n_rows - first), h};
    }
    if (n > 0) pool_run(t->pool, attention_unit_run, t, n);
}

// ---- taps ---------------------------------------------------------------------------------------------------------------

// Columns [column, column + width) of the tapped sequences' rows, made contiguous.
static void show(const struct transformer *t, const char *name, int layer, const struct array *a, size_t column, size_t width) {
    for (size_t i = 0; i < t->step->n_sequences; i++) {
        const struct step_sequence *s = &t->step->sequences[i];
        if (!s->tap) continue;
        float *copy = mem_alloc(s->n_rows * width, sizeof *copy);
        for (size_t r = 0; r < s->n_rows; r++) memcpy(copy + r * width, row_of(a, s->row + r) + column, width * sizeof *copy);
        s->tap->see(s->tap->ctx, name, layer, -1, copy, (size_t[]){s->n_rows, width}, 2);
        free(copy);
    }
}

static bool stopped(const struct transformer *t) {
    for (size_t i = 0; i < t->step->n_sequences; i++) {
        const struct tap *tap = t->step->sequences[i].tap;
        if (tap && tap->stop && tap->stop(tap->ctx, (int)t->layer)) return true;
    }
    return false;
}

// ---- the pass -----------------------------------------------------------------------------------------------------------

// Runs of rows whose adapter touches the layer; adapters[n].
static size_t groups_find(struct transformer *t, const struct linear *l, const struct adapter_rows *const *adapters, size_t n) {
    size_t n_groups = 0, end;
    float *low = t->low.data;
    for (size_t i = 0; t->adapted && i < n; i = end) {
        for (end = i + 1; end < n && adapters[end] == adapters[i];) end++;
        const struct adapter_linear *a = adapters[i] ? &adapters[i]->linears[l->index] : NULL;
        if (!a || !a->rank) continue;
        t->groups[n_groups++] = (struct row_group){i, end - i, a, low};
        low += (end - i) * a->rank;
    }
    return n_groups;
}

static void linear_apply(struct transformer *t, const struct linear *l, const struct array *x, const struct array *y) {
    struct linear_rows rows = {.n = t->step->n_rows, .x = x->data, .x_stride = x->stride, .y = y->data, .y_stride = y->stride,
                               .groups = t->groups, .n_groups = groups_find(t, l, t->row_adapter, t->step->n_rows)};
    linear_forward(l, &rows, t->kernels, t->pool);
}

static void layer_forward(struct transformer *t) {
    const struct model_config *c = t->c;
    const struct layer_weights *y = layer_of(t);
    size_t n = t->step->n_rows, C = c->n_embd, Q = c->n_head * c->head_size, K = c->n_kv_head * c->head_size;
    int layer = (int)t->layer;
    for_rows(t, norm1_row, n);                       // h   [T][C]
    linear_apply(t, &y->qkv, &t->h, &t->qkv);         // qkv [T][Q + 2K]
    for_rows(t, cache_row, n);                       // q, k rotated; k, v in the cache
    show(t, "norm1", layer, &t->h, 0, C);
    show(t, "q", layer, &t->qkv, 0, Q);
    show(t, "k", layer, &t->qkv, Q, K);
    show(t, "v", layer, &t->qkv, Q + K, K);
    attention_run(t);                                // att [T][Q]
    linear_apply(t, &y->out, &t->att, &t->proj);      // proj [T][C]
    for_rows(t, norm2_row, n);                       // x += proj; h [T][C]
    show(t, "context", layer, &t->att, 0, Q);
    show(t, "attention", layer, &t->proj, 0, C);
    show(t, "norm2", layer, &t->h, 0, C);
    linear_apply(t, &y->up, &t->h, &t->up);           // up  [T][F] or gate|up [T][2F]
    for_rows(t, act_row, n);                         // act [T][F]
    linear_apply(t, &y->down, &t->act, &t->proj);     // proj [T][C]
    for_rows(t, residual_row, n);                    // x += proj
    show(t, "mlp", layer, &t->proj, 0, C);
    show(t, "block", layer, &t->x, 0, C);
}

void transformer_forward(struct transformer *t, struct kv_cache *kv, const struct step *step) {
    assert(step->n_rows > 0 && step->n_rows <= t->max_rows);
    t->kv = kv;
    t->step = step;
    t->adapted = false;
    for (size_t i = 0; i < step->n_sequences; i++)
        for (size_t r = 0; r < step->sequences[i].n_rows; r++) {
            size_t row = step->sequences[i].row + r;
            t->row_sequence[row] = (uint32_t)i;
            t->row_position[row] = (uint32_t)(step->sequences[i].position + r);
            t->row_adapter[row] = step->sequences[i].adapter;
            t->adapted |= t->row_adapter[row] != NULL;
            assert(t->row_position[row] < t->c->n_ctx && step->ids[row] < t->c->n_vocab);
        }
    for_rows(t, embed_row, step->n_rows);            // x [T][C]
    show(t, "embedding", -1, &t->x, 0, t->c->n_embd);
    for (t->layer = 0; t->layer < t->c->n_layer && !stopped(t); t->layer++) layer_forward(t);
    if (t->layer == t->c->n_layer) for_rows(t, final_row, step->n_wanted); // hidden [wanted][C]
    for (size_t i = 0; i < step->n_wanted; i++) t->wanted_adapter[i] = t->row_adapter[step->wanted[i]];
    t->step = NULL;
}

const float *transformer_logits(struct transformer *t, size_t first, size_t n, size_t *logit_stride) {
    assert(n <= LOGIT_ROWS);
    struct linear_rows rows = {.n = n, .x = row_of(&t->hidden, first), .x_stride = t->hidden.stride, .y = t->logits.data,
                               .y_stride = t->logits.stride, .groups = t->groups,
                               .n_groups = groups_find(t, &t->w->head, t->wanted_adapter + first, n)};
    linear_forward(&t->w->head, &rows, t->kernels, t->pool);
    *logit_stride = t->logits.stride;
    return t->logits.data;
}

void transformer_last_norm(const struct transformer *t, const float *x, float *out) { norm(t, out, x, t->w->norm_w, t->w->norm_b); }

const float *transformer_read(struct transformer *t, const float *x, size_t n, const struct adapter_rows *adapter, size_t *logit_stride) {
    assert(n <= t->max_rows);
    for (size_t i = 0; i < n; i++) {
        transformer_last_norm(t, x + i * t->c->n_embd, row_of(&t->hidden, i));
        t->wanted_adapter[i] = adapter;
    }
    t->adapted = adapter != NULL;
    return transformer_logits(t, 0, n, logit_stride);
}
