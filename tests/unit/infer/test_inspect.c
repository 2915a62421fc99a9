// SPDX-License-Identifier: MIT
// A look inside a model: the numbers that serving computes, and the properties that make them worth seeing. Run once per instruction set.
#include "base/rng.h"
#include "engine/infer/adapter_rows.h"
#include "engine/infer/engine.h"
#include "engine/infer/inspect.h"
#include "engine/infer/logit_row.h"
#include "engine/infer/transformer.h"
#include "engine/model/adapter.h"
#include "engine/model/tensor.h"
#include "tests/unit/infer/odd_model.h"
#include "tests/unit/test.h"

#include <pthread.h>

enum { ALL = 0xff, T = 41, MIB = 1 << 20 }; // more than a block of the cache

static const struct shape GPT2 = {
    .n_layer = 3, .n_head = 3, .n_kv_head = 3, .head_size = 10, .n_embd = 30, .n_inner = 50, .n_vocab = 301, .n_ctx = 64};
static const struct shape LLAMA = {
    .llama = true, .n_layer = 3, .n_head = 6, .n_kv_head = 2, .head_size = 12, .n_embd = 33, .n_inner = 47, .n_vocab = 299, .n_ctx = 64};

static uint32_t ids[T];

// A request for everything, of all layers and heads.
static struct inspect_request request_of(struct model *m) {
    for (size_t i = 0; i < T; i++) ids[i] = (uint32_t)((i * 37 + 5) % model_config(m)->n_vocab);
    return (struct inspect_request){
        .model = m, .ids = ids, .n_ids = T, .what = ALL, .layer = -1, .head = -1, .n_best = 5, .max_bytes = 64 * MIB, .n_threads = 2};
}

static struct inspection look_at(const struct inspect_request *r) {
    struct err err = {0};
    struct inspection i = {0};
    if (!inspect_model(r, &i, &err)) TEST_FAIL("%s", err.message);
    return i;
}

static size_t array_size(const struct inspect_array *a) {
    size_t n = a->n_dims > 0;
    for (int i = 0; i < a->n_dims; i++) n *= a->shape[i];
    return n;
}

static double difference(const float *a, const float *b, size_t n) {
    double most = 0;
    for (size_t i = 0; i < n; i++)
        if (a[i] != b[i]) most = fmax(most, fabs((double)a[i] - (double)b[i]));
    return most;
}

static bool same(const float *a, const float *b, size_t n) { return memcmp(a, b, n * sizeof *a) == 0; }
static bool zero(const float *a, size_t n) {
    while (n > 0 && a[n - 1] == 0) n--;
    return n == 0;
}

static void with_models(void (*check)(struct model *m)) {
    const struct shape *shapes[] = {&GPT2, &LLAMA};
    for (size_t i = 0; i < ARRAY_LEN(shapes); i++) {
        struct err err = {0};
        struct odd_model m;
        if (odd_model_make(&m, shapes[i], 0.3f, NULL, &err)) check(m.model);
        else TEST_FAIL("%s", err.message);
        odd_model_finish(&m);
    }
}

// ---- what is served -----------------------------------------------------------------------------------------------------

// Logits of every row of the served forward: [T][V], to be freed.
static float *logits_of(struct model *m) {
    const struct model_config *c = model_config(m);
    struct transformer *t = transformer_create(model_weights(m), T, NULL, NULL);
    struct kv_cache *kv = kv_cache_create(c, 4 * MIB, NULL);
    uint32_t wanted[T], blocks[2];
    for (uint32_t i = 0; i < T; i++) wanted[i] = i;
    if (!t || !kv || !kv_cache_take(kv, &blocks[0]) || !kv_cache_take(kv, &blocks[1])) abort();
    struct step_sequence s = {.n_rows = T, .blocks = blocks, .adapter = model_adapter(m)};
    transformer_forward(t, kv, &(struct step){.n_rows = T, .ids = ids, .sequences = &s, .n_sequences = 1, .wanted = wanted, .n_wanted = T});
    float *out = mem_alloc(T * c->n_vocab, sizeof *out);
    for (size_t i = 0, stride; i < T; i += LOGIT_ROWS) {
        const size_t n = MIN((size_t)LOGIT_ROWS, T - i);
        const float *logits = transformer_logits(t, i, n, &stride);
        for (size_t r = 0; r < n; r++) memcpy(out + (i + r) * c->n_vocab, logits + r * stride, c->n_vocab * sizeof *out);
    }
    transformer_destroy(t);
    kv_cache_destroy(kv);
    return out;
}

static void check_served(struct model *m) {
    const size_t V = model_config(m)->n_vocab, L = model_config(m)->n_layer;
    const struct inspect_request r = request_of(m);
    struct inspection i = look_at(&r);
    float *logits = logits_of(m), max, block_max[8];
    REQUIRE(i.lens.n_dims == 3 && i.lens.shape[0] == L + 1 && i.lens.shape[1] == T && i.lens.shape[2] == 5 && i.lens_first == 0);
    for (size_t t = 0; t < T; t++) { // the last entry, to the bit
        const float *x = logits + t * V, *p = i.lens.values + (L * T + t) * 5;
        const uint32_t *id = i.lens.ids + (L * T + t) * 5;
        size_t arg_max;
        CHECK(row_max(x, V, block_max, &max, &arg_max));
        CHECK_INT(id[0], arg_max);
        const float sum = (float)row_logsumexp(x, V, max);
        for (size_t k = 0; k < 5; k++) CHECK(p[k] == expf(x[id[k]] - sum) && (k == 0 || x[id[k - 1]] > x[id[k]] || id[k - 1] < id[k]));
        size_t above = 0;
        for (size_t v = 0; v < V; v++) above += x[v] > x[id[4]];
        CHECK(above <= 4);
    }
    free(logits);
    inspection_finish(&i);
}

TEST(the_last_lens_entry_is_the_served_distribution) { with_models(check_served); }

static void check_engine(struct model *m) {
    struct engine_config config = {.max_running = 1, .max_waiting = 1, .step_rows = 16};
    struct engine *engine = engine_create(&config, NULL);
    REQUIRE(engine && engine_add_model(engine, m, 4 * MIB, NULL));
    struct inspect_request r = request_of(m);
    r.what = INSPECT_LENS, r.lens_rows = 3;
    struct inspection i = look_at(&r);
    CHECK_INT(i.lens_first, T - 3);
    struct sequence_request q = {
        .id = 1,
        .model = m,
        .prompt = ids,
        .n_prompt = T,
        .params = {.max_tokens = 1, .top_p = 1, .typical_p = 1, .repetition_penalty = 1, .ignore_eos = true, .n_logprobs = 5}};
    REQUIRE(engine_submit(engine, &q, 1, NULL));
    while (engine_step(engine)) continue;
    size_t seen = 0;
    for (struct engine_event *next, *e = engine_take_events(engine); e; e = next) {
        for (size_t k = 0; e->kind != EVENT_PROMPT && k < e->n_tokens; k++, seen++)
            for (size_t b = 0; b < 5; b++) {
                const size_t at = (i.lens.shape[0] * 3 - 1) * 5 + b;
                CHECK_INT(i.lens.ids[at], e->tokens[k].top[b].id);
                CHECK_NEAR(i.lens.values[at], exp(e->tokens[k].top[b].logprob), 1e-6);
            }
        next = e->next;
        engine_event_free(e);
    }
    CHECK_INT(seen, 1);
    inspection_finish(&i);
    engine_destroy(engine);
}

TEST(the_last_lens_entry_is_the_engines_next_token) { with_models(check_engine); }

static void check_threads(struct model *m) {
    struct inspect_request r = request_of(m);
    r.dropout = (struct inspect_dropout){0.2, 3};
    struct inspection a = look_at(&r);
    for (r.n_threads = 1; r.n_threads < 4; r.n_threads += 2) {
        struct inspection b = look_at(&r);
        CHECK(same(a.weights.data, b.weights.data, array_size(&a.weights)) && same(a.block.data, b.block.data, array_size(&a.block)));
        CHECK(same(a.lens.values, b.lens.values, T * 5) &&
              memcmp(a.neighbours.ids, b.neighbours.ids, T * 5 * sizeof *a.neighbours.ids) == 0);
        inspection_finish(&b);
    }
    inspection_finish(&a);
}

TEST(threads_change_no_bit) { with_models(check_threads); }

// ---- choosing -----------------------------------------------------------------------------------------------------------

// b is a with [layer][head] chosen (-1: kept) of `heads` heads.
static void check_slice(const char *name, const struct inspect_array *a, const struct inspect_array *b, int layer, int head, size_t heads) {
    const size_t part = a->shape[2] * a->shape[3];
    if (a->n_dims != 4 || b->n_dims != 4 - (layer >= 0) - (head >= 0)) TEST_FAIL("%s has %d dimensions", name, b->n_dims);
    for (size_t l = 0; l < (layer < 0 ? a->shape[0] : 1); l++)
        for (size_t h = 0; h < (head < 0 ? heads : 1); h++) {
            const float *from = a->data + ((layer < 0 ? l : (size_t)layer) * heads + (head < 0 ? h : (size_t)head)) * part;
            if (!same(from, b->data + (l * (head < 0 ? heads : 1) + h) * part, part))
                TEST_FAIL("%s of layer %d, head %d is another", name, layer, head);
        }
}

static void check_choices(struct model *m) {
    const struct model_config *c = model_config(m);
    struct inspect_request r = request_of(m);
    r.dropout = (struct inspect_dropout){0.1, 9}; // its numbers do not depend on what is shown
    struct inspection all = look_at(&r);
    for (r.layer = -1; r.layer < (int)c->n_layer; r.layer++)
        for (r.head = -1; r.head < (int)c->n_head; r.head += 2) {
            struct inspection one = look_at(&r);
            const int group = r.head < 0 ? -1 : r.head / (int)(c->n_head / c->n_kv_head);
            check_slice("q", &all.q, &one.q, r.layer, r.head, c->n_head);
            check_slice("k", &all.k, &one.k, r.layer, group, c->n_kv_head);
            check_slice("v", &all.v, &one.v, r.layer, group, c->n_kv_head);
            check_slice("scores", &all.scores, &one.scores, r.layer, r.head, c->n_head);
            check_slice("weights", &all.weights, &one.weights, r.layer, r.head, c->n_head);
            check_slice("context", &all.context, &one.context, r.layer, r.head, c->n_head);
            CHECK(!one.final_norm.data == (r.layer >= 0 && r.layer + 1 < (int)c->n_layer) && !one.mlp.data == (r.layer < 0));
            if (r.layer >= 0) {
                const size_t n = T * c->n_embd, at = (size_t)r.layer * n, lens = (size_t)(r.layer + 1) * T * 5;
                CHECK(same(one.block.data, all.block.data + at, n) && one.block.n_dims == 2);
                CHECK(same(one.input.data, r.layer ? all.block.data + at - n : all.embedding.data, n));
                CHECK(same(one.lens.values, all.lens.values + lens, T * 5) && one.lens.n_dims == 2);
                for (size_t k = 0; k < n; k++)
                    CHECK_NEAR(one.input.data[k] + one.attention.data[k] + one.mlp.data[k], one.block.data[k], 1e-4);
            }
            inspection_finish(&one);
        }
    inspection_finish(&all);
}

TEST(a_layer_and_a_head_are_parts_of_all) { with_models(check_choices); }

static void check_nothing_more(struct model *m) {
    struct inspect_request r = request_of(m);
    for (r.what = 0; r.what <= ALL; r.what = r.what ? r.what * 2 : 1) {
        struct inspection i = look_at(&r);
        CHECK(!i.token.data == !(r.what & INSPECT_EMBEDDINGS) && !i.q.data == !(r.what & INSPECT_QKV) &&
              !i.scores.data == !(r.what & INSPECT_SCORES));
        CHECK(!i.weights.data == !(r.what & INSPECT_WEIGHTS) && !i.context.data == !(r.what & INSPECT_CONTEXT));
        CHECK(!i.block.data == !(r.what & INSPECT_BLOCK) && !i.lens.ids == !(r.what & INSPECT_LENS) &&
              !i.neighbours.ids == !(r.what & INSPECT_NEIGHBOURS));
        CHECK(!i.position.data == !(i.token.data && model_weights(m)->positions));
        for (size_t k = 0; i.token.data && k < array_size(&i.token); k++)
            CHECK(i.embedding.data[k] == i.token.data[k] + (i.position.data ? i.position.data[k] : 0));
        inspection_finish(&i);
    }
}

TEST(only_what_was_asked_for_is_there) { with_models(check_nothing_more); }

// ---- properties -----------------------------------------------------------------------------------------------------------

static void check_positions(struct model *m) { // man chased the dog / dog chased the man
    const struct model_config *c = model_config(m);
    static const uint32_t man[] = {11, 22, 33, 44}, dog[] = {44, 22, 33, 11};
    const size_t HS = c->head_size;
    for (int with = 0; with < 2; with++) {
        struct inspect_request r = request_of(m);
        r.ids = man, r.n_ids = 4, r.what = INSPECT_CONTEXT | INSPECT_WEIGHTS, r.no_mask = r.no_positions = !with;
        struct inspection a = look_at(&r);
        r.ids = dog;
        struct inspection b = look_at(&r);
        for (size_t h = 0; h < c->n_head; h++)
            for (size_t t = 0; t < 4; t++) { // layer 0: word t of one stands at u in the other
                const size_t u = t == 0 ? 3 : t == 3 ? 0 : t;
                const double d = difference(a.context.data + (h * 4 + t) * HS, b.context.data + (h * 4 + u) * HS, HS);
                if (with) CHECK(d > 1e-3);
                else CHECK_NEAR(d, 0, 1e-6); // the sums are taken in another order
            }
        inspection_finish(&a);
        inspection_finish(&b);
    }
}

TEST(without_mask_and_positions_a_word_means_the_same_anywhere) { with_models(check_positions); }

static void check_maps(struct model *m) {
    struct inspect_request r = request_of(m);
    for (int k = 0; k < 2; k++) {
        r.no_mask = k;
        struct inspection i = look_at(&r);
        for (size_t row = 0; row < array_size(&i.weights) / T; row++) {
            const float *w = i.weights.data + row * T, *s = i.scores.data + row * T;
            const size_t n = k ? T : row % T + 1;
            double sum = 0, total = 0;
            for (size_t p = 0; p < n; p++) total += exp(s[p] * i.scale);
            for (size_t p = 0; p < n; p++) {
                sum += w[p];
                CHECK_NEAR(w[p], exp(s[p] * i.scale) / total, 1e-5);
            }
            CHECK_NEAR(sum, 1, 1e-5);
            for (size_t p = n; p < T; p++) CHECK(w[p] == 0 && s[p] == -INFINITY);
        }
        inspection_finish(&i);
    }
}

TEST(weights_are_the_softmax_of_scaled_scores) { with_models(check_maps); }

static void check_ablation(struct model *m) {
    const struct model_config *c = model_config(m);
    const float *bias = model_weights(m)->layers[1].out.parts[0].w.bias;
    struct head_place heads[8];
    for (uint32_t h = 0; h < c->n_head; h++) heads[h] = (struct head_place){1, h};
    struct inspect_request r = request_of(m);
    r.layer = 1;
    struct inspection whole = look_at(&r);
    r.ablate = heads, r.n_ablate = c->n_head;
    struct inspection none = look_at(&r);
    CHECK(zero(none.weights.data, array_size(&none.weights)) && zero(none.context.data, array_size(&none.context)));
    CHECK(same(none.scores.data, whole.scores.data, array_size(&whole.scores)));
    for (size_t t = 0; t < T; t++)
        for (size_t k = 0; k < c->n_embd; k++) CHECK(none.attention.data[t * c->n_embd + k] == (bias ? bias[k] : 0));
    r.ablate = &heads[1], r.n_ablate = 1;
    struct inspection one = look_at(&r);
    for (size_t h = 0; h < c->n_head; h++) {
        const struct inspection *i = h == 1 ? &none : &whole;
        const size_t n = T * c->head_size;
        CHECK(same(one.weights.data + h * T * T, i->weights.data + h * T * T, T * T) &&
              same(one.context.data + h * n, i->context.data + h * n, n));
    }
    CHECK(difference(one.block.data, whole.block.data, array_size(&whole.block)) > 1e-3);
    inspection_finish(&whole), inspection_finish(&none), inspection_finish(&one);
}

TEST(an_ablated_head_gives_nothing) { with_models(check_ablation); }

static void check_dropout(struct model *m) {
    const struct model_config *c = model_config(m);
    struct inspect_request r = request_of(m);
    r.layer = 0;
    struct inspection plain = look_at(&r);
    r.dropout = (struct inspect_dropout){0.25, 123};
    struct inspection a = look_at(&r);
    r.dropout.seed = 124;
    struct inspection b = look_at(&r);
    size_t dropped = 0, visible = c->n_head * T * (T + 1) / 2;
    for (size_t k = 0; k < array_size(&a.weights); k++) {
        const float w = plain.weights.data[k], d = a.weights.data[k];
        CHECK(d == 0 || d == w * (1 / 0.75f));
        dropped += w != 0 && d == 0;
    }
    CHECK_NEAR((double)dropped / (double)visible, 0.25, 0.04);
    CHECK(difference(a.weights.data, b.weights.data, array_size(&a.weights)) > 0.01);
    CHECK(difference(a.context.data, b.context.data, array_size(&a.context)) > 0.01);
    inspection_finish(&plain), inspection_finish(&a), inspection_finish(&b);
}

TEST(dropout_drops_and_scales) { with_models(check_dropout); }

static void check_neighbours(struct model *m) {
    const struct model_config *c = model_config(m);
    const size_t C = c->n_embd, V = c->n_vocab;
    struct inspect_request r = request_of(m);
    r.what = INSPECT_NEIGHBOURS, r.n_best = 7;
    struct inspection i = look_at(&r);
    float *table = mem_alloc(V * C, sizeof *table);
    for (size_t v = 0; v < V; v++) tensor_row(model_weights(m)->embedding, v, table + v * C);
    REQUIRE(i.neighbours.n_dims == 2 && i.neighbours.shape[0] == T && i.neighbours.shape[1] == 7);
    for (size_t t = 0; t < T; t++) {
        const float *x = table + ids[t] * C;
        size_t above = 0;
        for (size_t v = 0; v < V; v++) {
            double dot = 0, xx = 0, yy = 0;
            for (size_t k = 0; k < C; k++)
                dot += (double)x[k] * table[v * C + k], xx += (double)x[k] * x[k], yy += (double)table[v * C + k] * table[v * C + k];
            const double cosine = dot / sqrt(xx * yy);
            for (size_t k = 0; k < 7; k++)
                if (i.neighbours.ids[t * 7 + k] == v) CHECK_NEAR(i.neighbours.values[t * 7 + k], cosine, 1e-5);
            above += v != ids[t] && cosine > (double)i.neighbours.values[t * 7 + 6] + 1e-6;
            CHECK(i.neighbours.ids[t * 7] != ids[t]);
        }
        CHECK(above <= 6);
        for (size_t k = 1; k < 7; k++) CHECK(i.neighbours.values[t * 7 + k - 1] >= i.neighbours.values[t * 7 + k]);
    }
    free(table);
    inspection_finish(&i);
}

TEST(neighbours_are_the_nearest_rows) { with_models(check_neighbours); }

TEST(a_small_vocabulary_has_fewer_best) {
    struct err err = {0};
    struct odd_model m;
    const struct shape tiny = {
        .n_layer = 1, .n_head = 1, .n_kv_head = 1, .head_size = 4, .n_embd = 4, .n_inner = 8, .n_vocab = 3, .n_ctx = 8};
    REQUIRE(odd_model_make(&m, &tiny, 0.3f, NULL, &err));
    struct inspect_request r = request_of(m.model);
    r.n_ids = 1, r.n_best = INSPECT_MAX_BEST;
    struct inspection i = look_at(&r);
    CHECK(i.lens.shape[2] == 3 && i.neighbours.shape[1] == 2);
    CHECK_NEAR(i.lens.values[0] + i.lens.values[1] + i.lens.values[2], 1, 1e-6);
    CHECK(i.weights.data[0] == 1);
    inspection_finish(&i);
    odd_model_finish(&m);
}

static void check_adapter(struct model *base) { // the adapter acts in the look as it does in serving
    struct adapter_module modules[2] = {0};
    const struct linear_part *parts[] = {&model_weights(base)->layers[0].qkv.parts[0], &model_weights(base)->layers[2].down.parts[0]};
    for (size_t i = 0; i < 2; i++) {
        struct adapter_module *x = &modules[i];
        *x = (struct adapter_module){
            .name = mem_strdup(parts[i]->name), .r = 2, .n_in = parts[i]->w.n_in, .n_out = parts[i]->w.n_out, .scale = 1};
        x->a = mem_alloc(2 * x->n_in, sizeof(float));
        x->b = mem_alloc(2 * x->n_out, sizeof(float));
        for (size_t k = 0; k < 2 * x->n_in; k++) x->a[k] = (float)rng_uniform(5, k) - 0.5f;
        for (size_t k = 0; k < 2 * x->n_out; k++) x->b[k] = (float)rng_uniform(6, k) - 0.5f;
    }
    struct model *m = model_create_adapted(base, &(struct adapter){.modules = modules, .n = 2, .rank = 2, .alpha = 2}, NULL);
    REQUIRE(m);
    check_served(m);
    struct inspect_request r = request_of(base);
    r.what = INSPECT_BLOCK;
    struct inspection a = look_at(&r);
    r.model = m;
    struct inspection b = look_at(&r);
    CHECK(difference(a.block.data, b.block.data, array_size(&a.block)) > 0.01);
    inspection_finish(&a), inspection_finish(&b);
    model_release(m);
    for (size_t i = 0; i < 2; i++) free((char *)(uintptr_t)modules[i].name), free(modules[i].a), free(modules[i].b);
}

TEST(an_adapter_is_looked_into_with_its_base) { with_models(check_adapter); }

// ---- limits -----------------------------------------------------------------------------------------------------------------

static bool give_up(void *ctx) {
    size_t *left = ctx;
    return *left == 0 || --*left == 0;
}

static void check_cancel(struct model *m) {
    struct inspect_request r = request_of(m);
    struct err err;
    for (size_t n = 1, left; left = n, true; n++) {
        struct inspection i = {.scale = 7};
        r.cancelled = give_up, r.ctx = &left, err = (struct err){0};
        const bool ok = inspect_model(&r, &i, &err);
        if (!ok) CHECK(err.code == ERR_BUSY && i.scale == 7 && !i.weights.data);
        if (ok) {
            CHECK(n > model_config(m)->n_layer);
            inspection_finish(&i);
            break;
        }
    }
}

TEST(a_look_ends_when_nobody_waits) { with_models(check_cancel); }

static void check_size(struct model *m) {
    const struct model_config *c = model_config(m);
    struct inspect_request r = request_of(m);
    struct inspection i = {0};
    struct err err = {0};
    r.what = INSPECT_WEIGHTS;
    r.max_bytes = c->n_layer * c->n_head * T * T * sizeof(float);
    CHECK(inspect_model(&r, &i, &err));
    inspection_finish(&i);
    r.max_bytes--;
    CHECK(!inspect_model(&r, &i, &err) && err.code == ERR_TOO_LARGE);
    r.layer = 0;
    CHECK(inspect_model(&r, &i, &err));
    inspection_finish(&i);
    r.what = INSPECT_BLOCK | INSPECT_LENS, r.max_bytes = 2 * T * T * sizeof(float) - 1; // the maps of the forward alone
    CHECK(!inspect_model(&r, &i, &err) && err.code == ERR_TOO_LARGE);
}

TEST(too_large_is_said_at_once) { with_models(check_size); }

TEST(numbers_that_are_none_are_said) {
    struct err err = {0};
    struct odd_model m;
    struct inspection i = {0};
    REQUIRE(odd_model_make(&m, &GPT2, NAN, NULL, &err));
    struct inspect_request r = request_of(m.model);
    CHECK(!inspect_model(&r, &i, &err) && err.code == ERR_UNSUPPORTED && !i.weights.data);
    r.what = INSPECT_WEIGHTS | INSPECT_NEIGHBOURS; // shown as they are
    CHECK(inspect_model(&r, &i, &err) && isnan(i.weights.data[0]));
    inspection_finish(&i);
    odd_model_finish(&m);
}

static void *look_thread(void *request) {
    struct inspection *i = mem_new(struct inspection);
    *i = look_at(request);
    return i;
}

static void check_two(struct model *m) {
    const struct inspect_request r = request_of(m);
    pthread_t thread;
    void *other;
    REQUIRE(pthread_create(&thread, NULL, look_thread, (void *)(uintptr_t)&r) == 0);
    struct inspection i = look_at(&r), *j;
    REQUIRE(pthread_join(thread, &other) == 0);
    j = other;
    CHECK(same(i.context.data, j->context.data, array_size(&i.context)));
    inspection_finish(&i), inspection_finish(j);
    free(j);
}

TEST(two_looks_at_a_time) { with_models(check_two); }

TEST_MAIN("inspect")
