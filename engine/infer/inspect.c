// SPDX-License-Identifier: MIT
// A look inside a model: which arrays are kept, and the one forward that fills them.
//
// Invariants: every array that will be kept is allocated, and their sum checked, before anything is computed; an array with data
// has been asked for and is filled completely by the forward's end.
#include "engine/infer/inspect_internal.h"

#include "base/mem.h"
#include "engine/model/tensor.h"

#include <assert.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

// ---- the arrays ---------------------------------------------------------------------------------------------------------

enum shape_kind {
    SHAPE_HEADS,  // [L][H][T][HS], shown by the forward as [T][H * HS]
    SHAPE_GROUPS, // the same of key/value heads
    SHAPE_MAPS,   // [L][H][T][T], shown a head at a time
    SHAPE_LAYERS, // [L][T][C]
    SHAPE_ROWS,   // [T][C], of one place
};

static const struct array_kind {
    const char *name; // as the forward shows it; "": filled otherwise
    size_t at;        // in struct inspection
    unsigned what;
    enum shape_kind shape;
    bool of_layer; // only with a layer
} ARRAYS[] = {
#define AT(field) offsetof(struct inspection, field)
    {"", AT(token), INSPECT_EMBEDDINGS, SHAPE_ROWS, false},
    {"", AT(position), INSPECT_EMBEDDINGS, SHAPE_ROWS, false},
    {"embedding", AT(embedding), INSPECT_EMBEDDINGS, SHAPE_ROWS, false},
    {"q", AT(q), INSPECT_QKV, SHAPE_HEADS, false},
    {"k", AT(k), INSPECT_QKV, SHAPE_GROUPS, false},
    {"v", AT(v), INSPECT_QKV, SHAPE_GROUPS, false},
    {"scores", AT(scores), INSPECT_SCORES, SHAPE_MAPS, false},
    {"weights", AT(weights), INSPECT_WEIGHTS, SHAPE_MAPS, false},
    {"context", AT(context), INSPECT_CONTEXT, SHAPE_HEADS, false},
    {"block", AT(block), INSPECT_BLOCK, SHAPE_LAYERS, false},
    {"", AT(input), INSPECT_BLOCK, SHAPE_ROWS, true},
    {"norm1", AT(norm1), INSPECT_BLOCK, SHAPE_ROWS, true},
    {"attention", AT(attention), INSPECT_BLOCK, SHAPE_ROWS, true},
    {"norm2", AT(norm2), INSPECT_BLOCK, SHAPE_ROWS, true},
    {"mlp", AT(mlp), INSPECT_BLOCK, SHAPE_ROWS, true},
    {"", AT(final_norm), INSPECT_BLOCK, SHAPE_ROWS, false},
#undef AT
};

static struct inspect_array *array_of(struct inspection *i, const struct array_kind *k) {
    return (struct inspect_array *)((char *)i + k->at);
}

static bool array_wanted(const struct look *l, const struct array_kind *k) {
    const struct inspect_request *r = l->r;
    if (!(r->what & k->what) || (k->of_layer && r->layer < 0)) return false;
    if (k->at == offsetof(struct inspection, position)) return l->w->positions && !r->no_positions;
    if (k->at == offsetof(struct inspection, final_norm)) return r->layer < 0 || (size_t)r->layer + 1 == l->c->n_layer;
    return true;
}

static void array_shape(const struct look *l, const struct array_kind *k, struct inspect_array *a) {
    const struct inspect_request *r = l->r;
    const size_t T = r->n_ids;
    const bool of_heads = k->shape < SHAPE_LAYERS;
    if (r->layer < 0 && k->shape != SHAPE_ROWS) a->shape[a->n_dims++] = l->c->n_layer;
    if (r->head < 0 && of_heads) a->shape[a->n_dims++] = k->shape == SHAPE_GROUPS ? l->c->n_kv_head : l->c->n_head;
    a->shape[a->n_dims++] = T;
    a->shape[a->n_dims++] = k->shape == SHAPE_MAPS ? T : of_heads ? l->c->head_size : l->c->n_embd;
}

void array_sum_add(struct array_sum *s, const size_t *shape, int n_dims, size_t element) {
    size_t bytes = element;
    for (int i = 0; i < n_dims; i++) s->overflow |= !size_mul(bytes, shape[i], &bytes);
    s->overflow |= !size_add(s->bytes, bytes, &s->bytes);
}

bool array_sum_check(const struct array_sum *s, size_t max_bytes, struct err *err) {
    if (!s->overflow && s->bytes <= max_bytes) return true;
    return err_set(err, ERR_TOO_LARGE, "the arrays take more than %zu MiB: name one layer, one head, fewer arrays or less text", max_bytes >> 20);
}

bool inspect_array_alloc(struct inspect_array *a, struct err *err) {
    size_t n = a->n_dims > 0;
    for (int i = 0; i < a->n_dims; i++) n *= a->shape[i]; // array_sum_check has been passed
    if (n > 0) a->data = mem_try_alloc(n, sizeof *a->data, "the arrays of an inspection", err);
    return n == 0 || a->data;
}

static bool best_alloc(struct inspect_best *b, struct err *err) {
    size_t n = b->n_dims > 0;
    for (int i = 0; i < b->n_dims; i++) n *= b->shape[i];
    if (n == 0) return true;
    b->ids = mem_try_alloc(n, sizeof *b->ids, "the lists of an inspection", err);
    b->values = b->ids ? mem_try_alloc(n, sizeof *b->values, "the lists of an inspection", err) : NULL;
    return b->values;
}

static size_t lens_rows(const struct inspect_request *r) { return r->lens_rows && r->lens_rows < r->n_ids ? r->lens_rows : r->n_ids; }
static size_t lens_entries(const struct look *l) { return l->r->layer < 0 ? l->c->n_layer + 1 : 1; }

static void best_shapes(const struct look *l, struct inspection *out) {
    const struct inspect_request *r = l->r;
    if (r->what & INSPECT_LENS) {
        struct inspect_best *b = &out->lens;
        if (r->layer < 0) b->shape[b->n_dims++] = lens_entries(l);
        b->shape[b->n_dims++] = lens_rows(r);
        b->shape[b->n_dims++] = MIN(r->n_best, l->c->n_vocab);
        out->lens_first = r->n_ids - lens_rows(r);
    }
    if (r->what & INSPECT_NEIGHBOURS)
        out->neighbours = (struct inspect_best){.shape = {r->n_ids, MIN(r->n_best, l->c->n_vocab - 1)}, .n_dims = 2};
}

// Shapes, their sum, then memory. What the work itself takes has the same bound: the forward's maps of a key/value head, the lens's rows.
static bool arrays_make(struct look *l, struct err *err) {
    struct inspection *out = l->out;
    struct array_sum sum = {0}, work = {0};
    const size_t T = l->r->n_ids, group = l->c->n_head / l->c->n_kv_head;
    for (size_t i = 0; i < ARRAY_LEN(ARRAYS); i++) {
        struct inspect_array *a = array_of(out, &ARRAYS[i]);
        if (!array_wanted(l, &ARRAYS[i])) continue;
        array_shape(l, &ARRAYS[i], a);
        array_sum_add(&sum, a->shape, a->n_dims, sizeof(float));
    }
    best_shapes(l, out);
    if (out->lens.n_dims) array_sum_add(&sum, out->lens.shape, out->lens.n_dims, sizeof(float) + sizeof(uint32_t));
    if (out->neighbours.n_dims) array_sum_add(&sum, out->neighbours.shape, out->neighbours.n_dims, sizeof(float) + sizeof(uint32_t));
    if (l->n_layers > 0) array_sum_add(&work, (size_t[]){2, group, T, T}, 4, sizeof(float));
    if (l->r->what & INSPECT_LENS) array_sum_add(&work, (size_t[]){lens_entries(l), lens_rows(l->r), l->c->n_embd}, 3, sizeof(float));
    if (!array_sum_check(&sum, l->r->max_bytes, err) || !array_sum_check(&work, l->r->max_bytes, err)) return false;
    for (size_t i = 0; i < ARRAY_LEN(ARRAYS); i++)
        if (!inspect_array_alloc(array_of(out, &ARRAYS[i]), err)) return false;
    if (!best_alloc(&out->lens, err) || !best_alloc(&out->neighbours, err)) return false;
    if (l->n_layers > 0 && !(l->maps = mem_try_alloc(2 * group, T * T * sizeof(float), "the maps of an inspection", err))) return false;
    if (!(l->r->what & INSPECT_LENS)) return true;
    l->residual = mem_try_alloc(lens_entries(l) * lens_rows(l->r), l->c->n_embd * sizeof(float), "the rows of a lens", err);
    return l->residual;
}

void inspection_finish(struct inspection *i) {
    for (size_t k = 0; k < ARRAY_LEN(ARRAYS); k++) free(array_of(i, &ARRAYS[k])->data);
    free(i->lens.ids), free(i->lens.values);
    free(i->neighbours.ids), free(i->neighbours.values);
    *i = (struct inspection){0};
}

// ---- the tap --------------------------------------------------------------------------------------------------------------

// [T][heads * HS] into [heads][T][HS], or the chosen head's [T][HS].
static void heads_put(const struct look *l, float *to, const float *data, size_t n_heads, bool groups) {
    const size_t T = l->r->n_ids, HS = l->c->head_size;
    size_t first = 0, n = n_heads;
    if (l->r->head >= 0) {
        first = (size_t)l->r->head / (groups ? l->c->n_head / l->c->n_kv_head : 1);
        n = 1;
    }
    for (size_t h = 0; h < n; h++)
        for (size_t t = 0; t < T; t++) memcpy(to + (h * T + t) * HS, data + (t * n_heads + first + h) * HS, HS * sizeof *to);
}

static void array_put(struct look *l, const struct array_kind *k, int layer, int head, const float *data) {
    struct inspect_array *a = array_of(l->out, k);
    const size_t T = l->r->n_ids, slot = l->r->layer < 0 && layer > 0 ? (size_t)layer : 0; // layers are kept from 0
    size_t width = 1;                                                                       // of one layer
    for (int i = l->r->layer < 0 && k->shape != SHAPE_ROWS; i < a->n_dims; i++) width *= a->shape[i];
    float *to = a->data + slot * width;
    switch (k->shape) {
    case SHAPE_HEADS: heads_put(l, to, data, l->c->n_head, false); break;
    case SHAPE_GROUPS: heads_put(l, to, data, l->c->n_kv_head, true); break;
    case SHAPE_MAPS:
        if (l->r->head < 0) memcpy(to + (size_t)head * T * T, data, T * T * sizeof *to);
        else if (l->r->head == head) memcpy(to, data, T * T * sizeof *to);
        break;
    case SHAPE_LAYERS:
    case SHAPE_ROWS: memcpy(to, data, T * l->c->n_embd * sizeof *to);
    }
}

// The residual stream after `blocks` blocks: what the next one reads, what the lens reads, what the last norm reads.
static void residual_put(struct look *l, size_t blocks, const float *x) {
    const size_t T = l->r->n_ids, C = l->c->n_embd, n = lens_rows(l->r);
    struct inspection *out = l->out;
    if (out->input.data && (size_t)l->r->layer == blocks) memcpy(out->input.data, x, T * C * sizeof *x);
    if (l->residual && l->r->layer < 0) memcpy(l->residual + blocks * n * C, x + (T - n) * C, n * C * sizeof *x);
    else if (l->residual && (size_t)l->r->layer + 1 == blocks) memcpy(l->residual, x + (T - n) * C, n * C * sizeof *x);
    for (size_t t = 0; out->final_norm.data && blocks == l->c->n_layer && t < T; t++)
        transformer_last_norm(l->transformer, x + t * C, out->final_norm.data + t * C);
}

static void look_see(void *ctx, const char *name, int layer, int head, const float *data, const size_t *shape, int n_dims) {
    struct look *l = ctx;
    if (strcmp(name, "embedding") == 0 || strcmp(name, "block") == 0) residual_put(l, (size_t)(layer + 1), data);
    if (layer >= 0 && l->r->layer >= 0 && layer != l->r->layer) return;
    for (size_t i = 0; i < ARRAY_LEN(ARRAYS); i++)
        if (strcmp(ARRAYS[i].name, name) == 0 && array_of(l->out, &ARRAYS[i])->data) array_put(l, &ARRAYS[i], layer, head, data);
}

static bool look_change(void *ctx, int layer, int head, float *weights, size_t n_rows, size_t n_positions) {
    struct look *l = ctx;
    bool changed = l->r->dropout.p > 0;
    if (changed) dropout_stream_apply(&l->dropout, weights, n_rows * n_positions);
    for (size_t i = 0; i < l->r->n_ablate; i++) {
        if (l->r->ablate[i].layer != (uint32_t)layer || l->r->ablate[i].head != (uint32_t)head) continue;
        memset(weights, 0, n_rows * n_positions * sizeof *weights);
        changed = true;
    }
    return changed;
}

bool look_cancelled(struct look *l) {
    if (!l->cancelled && l->r->cancelled) l->cancelled = l->r->cancelled(l->r->ctx);
    return l->cancelled;
}

bool look_cancelled_error(struct err *err) { return err_set(err, ERR_BUSY, "the inspection was cancelled"); }

static bool look_stop(void *ctx, int layer) {
    struct look *l = ctx;
    return (size_t)layer >= l->n_layers || look_cancelled(l);
}

// ---- the forward ------------------------------------------------------------------------------------------------------------

static struct kv_cache *cache_make(const struct model_config *c, uint32_t *blocks, size_t n_blocks, struct err *err) {
    struct kv_cache *kv = kv_cache_create(c, n_blocks * kv_cache_block_bytes(c), err);
    for (size_t i = 0; kv && i < n_blocks; i++) {
        bool taken = kv_cache_take(kv, &blocks[i]);
        assert(taken);
        (void)taken;
    }
    return kv;
}

static bool forward(struct look *l, struct err *err) {
    const struct inspect_request *r = l->r;
    const size_t n_blocks = (r->n_ids + KV_BLOCK - 1) / KV_BLOCK;
    uint32_t *blocks = mem_alloc(n_blocks, sizeof *blocks);
    struct kv_cache *kv = cache_make(l->c, blocks, n_blocks, err);
    if (kv) l->transformer = transformer_create(l->w, r->n_ids, l->pool, err);
    if (l->transformer) {
        const struct tap tap = {.see = look_see, .change = look_change, .stop = look_stop, .ctx = l, .maps = l->maps,
                                .no_mask = r->no_mask, .no_positions = r->no_positions};
        const struct step_sequence sequence = {.n_rows = r->n_ids, .blocks = blocks, .adapter = model_adapter(r->model), .tap = &tap};
        const struct step step = {.n_rows = r->n_ids, .ids = r->ids, .sequences = &sequence, .n_sequences = 1};
        if (r->dropout.p > 0) dropout_stream_init(&l->dropout, &r->dropout);
        transformer_forward(l->transformer, kv, &step);
    }
    kv_cache_destroy(kv);
    free(blocks);
    if (!l->transformer) return false;
    return l->cancelled ? look_cancelled_error(err) : true;
}

static void embeddings_put(struct look *l) {
    const size_t C = l->c->n_embd;
    for (size_t t = 0; t < l->r->n_ids; t++) {
        if (l->out->token.data) tensor_row(l->w->embedding, l->r->ids[t], l->out->token.data + t * C);
        if (l->out->position.data) memcpy(l->out->position.data + t * C, l->w->positions + t * C, C * sizeof(float));
    }
}

static bool look(struct look *l, struct err *err) {
    const unsigned what = l->r->what;
    if (look_cancelled(l)) return look_cancelled_error(err);
    l->out->scale = 1.0f / sqrtf((float)l->c->head_size);
    if (!arrays_make(l, err)) return false;
    embeddings_put(l);
    if ((what & ~(unsigned)INSPECT_NEIGHBOURS) && !forward(l, err)) return false;
    if ((what & INSPECT_LENS) && !look_lens(l, err)) return false;
    return !(what & INSPECT_NEIGHBOURS) || look_neighbours(l, err);
}

bool inspect_model(const struct inspect_request *r, struct inspection *out, struct err *err) {
    struct inspection made = {0};
    struct look l = {.r = r, .c = model_config(r->model), .w = model_weights(r->model), .out = &made};
    assert(r->n_ids >= 1 && r->n_ids <= l.c->n_ctx && r->layer < (int)l.c->n_layer && r->head < (int)l.c->n_head);
    assert(r->dropout.p >= 0 && r->dropout.p < 1);
    if (r->what & ~(unsigned)(INSPECT_EMBEDDINGS | INSPECT_NEIGHBOURS)) l.n_layers = r->layer < 0 ? l.c->n_layer : (size_t)r->layer + 1;
    l.pool = pool_create(MAX(r->n_threads, (size_t)1), err);
    bool ok = l.pool && look(&l, err);
    transformer_destroy(l.transformer);
    pool_destroy(l.pool);
    free(l.maps);
    free(l.residual);
    if (ok) *out = made;
    else inspection_finish(&made);
    return ok;
}
