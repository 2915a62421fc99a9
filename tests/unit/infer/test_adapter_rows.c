// SPDX-License-Identifier: MIT
// Adapters beside a base: the same logits as the merged model, the same bits in any company, and a prefix cache that never crosses
// them. Run once per instruction set.
#include "base/mem.h"
#include "base/rng.h"
#include "engine/infer/adapter_rows.h"
#include "engine/infer/engine.h"
#include "engine/infer/transformer.h"
#include "engine/kernels/kernels.h"
#include "engine/model/adapter.h"
#include "tests/unit/infer/odd_model.h"
#include "tests/unit/test.h"

static struct pool *pool_of_two;
static uint64_t drawn; // so that no two adapters are alike

static float *factor(size_t n, double scale) {
    float *x = mem_alloc(n, sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = (float)(scale * (2 * rng_uniform(77, drawn++) - 1));
    return x;
}

// Factors of rank r for every `every`-th linear part of the model, the head too where the file has one of its own.
static struct adapter adapter_random(const struct model *m, size_t r, size_t every) {
    const struct weights *w = model_weights(m);
    struct adapter a = {.modules = mem_alloc(weights_linears(w) * 3, sizeof *a.modules), .rank = r, .alpha = 2 * (float)r};
    for (size_t i = 0; i < weights_linears(w); i++) {
        const struct linear *l = weights_linear(w, i);
        for (size_t k = 0; k < l->n_parts; k++) {
            const struct linear_part *p = &l->parts[k];
            if ((i + k) % every || (l == &w->head && w->config->tied_head)) continue;
            struct adapter_module *x = &a.modules[a.n++];
            *x = (struct adapter_module){.name = mem_strdup(p->name), .r = r, .n_in = p->w.n_in, .n_out = p->w.n_out, .scale = 0.5f};
            x->a = factor(r * x->n_in, 1 / sqrt((double)x->n_in));
            x->b = factor(r * x->n_out, 0.5 / sqrt((double)r));
        }
    }
    return a;
}

static struct model *adapted_random(struct model *base, size_t r, size_t every) {
    struct err err = {0};
    struct adapter a = adapter_random(base, r, every);
    struct model *m = model_create_adapted(base, &a, &err);
    adapter_finish(&a);
    if (!m) TEST_FAIL("%s", err.message);
    return m;
}

// ---- against the merged model -----------------------------------------------------------------------------------------

enum { ROWS = 21 };

static void logits_of(struct model *m, float *out) { // [ROWS][V]
    const struct model_config *c = model_config(m);
    struct transformer *t = transformer_create(model_weights(m), ROWS, pool_of_two, NULL);
    struct kv_cache *kv = kv_cache_create(c, 1 << 22, NULL);
    size_t n = MIN((size_t)ROWS, c->n_ctx), stride;
    uint32_t ids[ROWS], wanted[ROWS], block;
    for (size_t i = 0; i < n; i++) ids[i] = (uint32_t)(i * 13 + 1) % (uint32_t)c->n_vocab, wanted[i] = (uint32_t)i;
    if (!t || !kv || !kv_cache_take(kv, &block)) abort();
    struct step_sequence s = {.n_rows = n, .blocks = &block, .adapter = model_adapter(m)};
    transformer_forward(t, kv, &(struct step){.n_rows = n, .ids = ids, .sequences = &s, .n_sequences = 1, .wanted = wanted, .n_wanted = n});
    const float *logits = transformer_logits(t, 0, n, &stride);
    memset(out, 0, ROWS * c->n_vocab * sizeof *out);
    for (size_t i = 0; i < n; i++) memcpy(out + i * c->n_vocab, logits + i * stride, c->n_vocab * sizeof *out);
    transformer_destroy(t);
    kv_cache_destroy(kv);
}

static double distance(const float *a, const float *b, size_t n) {
    double most = 0;
    for (size_t i = 0; i < n; i++) most = fmax(most, fabs((double)a[i] - (double)b[i]));
    return most;
}

// `file` is taken and becomes the merged model.
static void check_merged(const char *what, struct model *base, struct model_file *file, size_t r, size_t every) {
    struct err err = {0};
    struct adapter a = adapter_random(base, r, every);
    struct model *adapted = model_create_adapted(base, &a, &err);
    bool ok = adapted && file && model_file_merge(file, &a, &err);
    struct model *merged = ok ? model_create(file, WEIGHTS_AUTO, pool_of_two, &err) : NULL;
    adapter_finish(&a);
    if (merged) {
        size_t n = ROWS * model_config(base)->n_vocab;
        float *x = mem_alloc(3 * n, sizeof *x);
        logits_of(adapted, x);
        logits_of(merged, x + n);
        logits_of(base, x + 2 * n);
        double far = distance(x, x + n, n), moved = distance(x, x + 2 * n, n);
        if (!(far <= 1e-4) || !(moved > 0.01))
            TEST_FAIL("%s, rank %zu: %g from the merged model, %g from the base", what, r, far, moved);
        free(x);
    } else {
        TEST_FAIL("%s: %s", what, err.message);
    }
    model_release(merged);
    model_release(adapted);
}

static struct model *golden(const char *path, struct model_file **again) {
    struct err err = {0};
    struct model_file *f = model_file_open(path, &err);
    struct model *m = f ? model_create(f, WEIGHTS_AUTO, pool_of_two, &err) : NULL;
    if (again) *again = model_file_open(path, &err);
    if (!m) TEST_FAIL("%s: %s", path, err.message);
    return m;
}

TEST(adapted_is_merged) {
    static const char *const paths[] = {
        GOLDEN_DIR "/parity/gpt2",        GOLDEN_DIR "/parity/llama",       GOLDEN_DIR "/parity/llama_bf16",   GOLDEN_DIR "/gguf/gpt2_q4_0.gguf",
        GOLDEN_DIR "/gguf/gpt2_q8_0.gguf", GOLDEN_DIR "/gguf/llama_f16.gguf", GOLDEN_DIR "/gguf/llama_q4_1.gguf",
    };
    static const struct { size_t r, every; } kinds[] = {{1, 1}, {8, 1}, {3, 2}, {70, 3}};
    for (size_t i = 0; i < ARRAY_LEN(paths); i++)
        for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
            struct model_file *again;
            struct model *base = golden(paths[i], &again);
            REQUIRE(base);
            check_merged(paths[i], base, again, kinds[k].r, kinds[k].every);
            model_release(base);
        }
}

// ---- the engine ---------------------------------------------------------------------------------------------------------

enum { MODELS = 5, N = 15, LONGEST = 100 }; // models: the base, three adapters, the first of them once more

struct answer {
    size_t n, n_cached;
    uint32_t ids[LONGEST];
    float logprobs[LONGEST];
    int finishes;
    enum finish_reason finish;
};

static bool same(const struct answer *a, const struct answer *b) {
    return a->n == b->n && a->finishes == 1 && b->finishes == 1 && a->finish == FINISH_LENGTH && b->finish == FINISH_LENGTH &&
           memcmp(a->ids, b->ids, sizeof a->ids) == 0 && memcmp(a->logprobs, b->logprobs, sizeof a->logprobs) == 0;
}

static struct sequence_request request(struct model *m, size_t i, uint32_t prompt[LONGEST]) {
    const struct model_config *c = model_config(m);
    size_t all = MIN(c->n_ctx, (size_t)LONGEST), n = 1 + (all - 1) * (i / MODELS + 1) / 4;
    for (size_t k = 0; k < n; k++) prompt[k] = (uint32_t)(k * 11 % c->n_vocab); // equal beginnings under every model
    struct sampling_params p = {.max_tokens = MIN(all - n, (size_t)12), .top_p = 1, .typical_p = 1, .repetition_penalty = 1, .seed = i,
                                .ignore_eos = true, .temperature = i % 2 ? 0.9f : 0, .n_logprobs = 0, .prompt_logprobs = i % 7 == 6};
    return (struct sequence_request){.id = i, .group = i, .model = m, .prompt = prompt, .n_prompt = n, .params = p};
}

static void collect(struct engine *e, struct answer *answers) {
    for (struct engine_event *v = engine_take_events(e), *next; v; v = next) {
        struct answer *a = &answers[v->id];
        for (size_t i = 0; i < v->n_tokens; i++, a->n++) {
            a->ids[a->n] = v->tokens[i].id;
            a->logprobs[a->n] = v->tokens[i].has_logprob ? v->tokens[i].logprob : 1;
        }
        if (v->kind == EVENT_FINISH) a->finishes++, a->finish = v->finish, a->n_cached = v->n_cached;
        next = v->next;
        engine_event_free(v);
    }
}

static struct engine *engine_with(struct model *m, struct pool *pool, size_t max_running, size_t step_rows) {
    struct engine_config c = {.pool = pool, .max_running = max_running, .max_waiting = 64, .step_rows = step_rows};
    struct engine *e = engine_create(&c, NULL);
    if (!e || !engine_add_model(e, m, 1 << 22, NULL)) abort();
    return e;
}

static void run(struct engine *e, struct model **models, size_t first, size_t n, struct answer *answers) {
    for (size_t i = first; i < first + n; i++) {
        uint32_t prompt[LONGEST];
        struct sequence_request r = request(models[i % MODELS], i, prompt);
        CHECK(engine_submit(e, &r, 1, NULL));
        if (i % 4 == 3) engine_step(e); // arrivals while others run
    }
    while (engine_step(e)) continue;
    collect(e, answers);
}

static void check_together(const char *what, struct model **models) {
    const struct { struct pool *pool; size_t running, rows; } ways[] = {
        {NULL, N, 200}, {pool_of_two, N, N}, {pool_of_two, 4, 7}, {pool_of_two, N, 200}, {NULL, 2, 33}};
    static struct answer alone[N];
    memset(alone, 0, sizeof alone);
    for (size_t i = 0; i < N; i++) {
        struct engine *e = engine_with(models[0], NULL, 1, 128);
        run(e, models, i, 1, alone);
        engine_destroy(e);
    }
    for (size_t w = 0; w < ARRAY_LEN(ways); w++) {
        struct engine *e = engine_with(models[0], ways[w].pool, ways[w].running, ways[w].rows);
        for (int warm = 0; warm < 2; warm++) {
            static struct answer together[N];
            memset(together, 0, sizeof together);
            run(e, models, 0, N, together);
            for (size_t i = 0; i < N; i++)
                if (!same(&alone[i], &together[i])) TEST_FAIL("%s, way %zu, warm %d: sequence %zu differs from its run alone", what, w, warm, i);
        }
        engine_destroy(e);
    }
}

static void adapters_make(struct model **models) {
    models[1] = adapted_random(models[0], 8, 1);
    models[2] = adapted_random(models[0], 3, 2);
    models[3] = adapted_random(models[0], 33, 1);
    models[4] = model_acquire(models[1]);
}

static void models_release(struct model **models) {
    for (size_t i = MODELS; i-- > 0;) model_release(models[i]);
}

TEST(any_mix_gives_each_row_its_own_bits) {
    static const char *const paths[] = {GOLDEN_DIR "/parity/llama", GOLDEN_DIR "/gguf/gpt2_q8_0.gguf", GOLDEN_DIR "/gguf/llama_q4_1.gguf"};
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        struct model *models[MODELS] = {golden(paths[i], NULL)};
        REQUIRE(models[0]);
        adapters_make(models);
        check_together(paths[i], models);
        models_release(models);
    }
}

// Widths off the panels, one-float heads, an untied head with factors of its own.
TEST(odd_shapes_mix_and_merge) {
    static const struct shape shapes[] = {
        {false, 1, 1, 1, 1, 1, 1, 1, 1},          {false, 2, 7, 7, 1, 7, 29, 31, 32}, {false, 2, 3, 3, 11, 33, 65, 129, 41, true},
        {true, 1, 3, 1, 2, 5, 7, 17, 65}, {true, 2, 6, 2, 18, 7, 9, 33, 71},  {true, 1, 5, 5, 10, 31, 300, 129, 100},
    };
    for (size_t k = 0; k < ARRAY_LEN(shapes); k++) {
        struct odd_model m;
        struct err err = {0};
        if (!odd_model_make(&m, &shapes[k], 0.3f, pool_of_two, &err)) TEST_FAIL("shape %zu: %s", k, err.message);
        REQUIRE(m.model);
        struct model *models[MODELS] = {m.model};
        adapters_make(models);
        check_together("odd shape", models);
        struct model_file *again = model_file_open_hf_memory(m.config.data, m.config.len, m.file.data, m.file.len, &err);
        if (k > 0) check_merged("odd shape", m.model, again, k == 3 ? ADAPTER_MAX_RANK : 5, 1); // of one token the logits say nothing
        else model_file_close(again);
        m.model = NULL;
        models_release(models);
        odd_model_finish(&m);
    }
}

static size_t cached_of(struct engine *e, struct model *m, uint64_t group) {
    uint32_t prompt[LONGEST];
    static struct answer a[N];
    memset(a, 0, sizeof a);
    struct sequence_request r = request(m, 2 * MODELS, prompt);
    r.id = 0, r.group = group;
    CHECK(engine_submit(e, &r, 1, NULL));
    while (engine_step(e)) continue;
    collect(e, a);
    CHECK_INT(a[0].finishes, 1);
    return a[0].n_cached;
}

TEST(what_is_cached_belongs_to_a_version) {
    struct model *base = golden(GOLDEN_DIR "/parity/llama", NULL);
    REQUIRE(base);
    struct err err = {0};
    struct adapter one = adapter_random(base, 4, 1), two = adapter_random(base, 4, 1);
    struct model *a = model_create_adapted(base, &one, &err), *equal = model_create_adapted(base, &one, &err);
    struct model *b = model_create_adapted(base, &two, &err);
    REQUIRE(a && b && equal);
    CHECK_STR(model_fingerprint(a), model_fingerprint(equal));
    CHECK(strcmp(model_fingerprint(a), model_fingerprint(b)) != 0 && strcmp(model_fingerprint(a), model_fingerprint(base)) != 0);
    CHECK(model_adapter(a)->version == model_adapter(equal)->version && model_adapter(a)->version != model_adapter(b)->version);
    struct engine *e = engine_with(base, pool_of_two, 4, 64);
    CHECK_INT(cached_of(e, base, 1), 0);
    CHECK_INT(cached_of(e, a, 1), 0);
    CHECK_INT(cached_of(e, b, 1), 0);
    CHECK(cached_of(e, base, 2) > 0);
    CHECK(cached_of(e, a, 2) > 0);
    CHECK(cached_of(e, b, 2) > 0);
    CHECK(cached_of(e, equal, 3) > 0); // equal factors, equal values
    engine_destroy(e);

    // Equal prompts of one request are read once, under an adapter too.
    e = engine_with(base, pool_of_two, 4, 64);
    uint32_t prompt[LONGEST];
    struct sequence_request r[4];
    for (size_t i = 0; i < 4; i++) r[i] = request(a, 2 * MODELS, prompt), r[i].id = i, r[i].group = 9;
    static struct answer answers[N];
    memset(answers, 0, sizeof answers);
    CHECK(engine_submit(e, r, 4, NULL));
    while (engine_step(e)) continue;
    collect(e, answers);
    for (size_t i = 1; i < 4; i++) CHECK(answers[i].n_cached > 0);
    engine_destroy(e);
    adapter_finish(&one);
    adapter_finish(&two);
    model_release(a), model_release(b), model_release(equal), model_release(base);
}

// ---- making them --------------------------------------------------------------------------------------------------------

static void check_refused(struct model *base, struct adapter *a, enum err_code code) {
    struct err err = {0};
    CHECK(!model_create_adapted(base, a, &err));
    CHECK_INT(err.code, code);
}

TEST(what_does_not_fit_is_refused) {
    struct model *base = golden(GOLDEN_DIR "/parity/llama", NULL);
    REQUIRE(base);
    struct adapter a = adapter_random(base, 2, 1);
    struct adapter_module *m = &a.modules[1], whole = *m;
    m->n_out++;
    check_refused(base, &a, ERR_INVALID);
    *m = whole, m->n_in--;
    check_refused(base, &a, ERR_INVALID);
    *m = whole, m->r = ADAPTER_MAX_RANK + 1;
    check_refused(base, &a, ERR_UNSUPPORTED);
    *m = whole;
    static char names[][40] = {"model.embed_tokens", "lm_head", "model.norm", "model.layers.99.self_attn.q_proj", "nothing", ""};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        m->name = names[i];
        check_refused(base, &a, ERR_INVALID);
    }
    m->name = a.modules[0].name; // twice
    m->n_in = a.modules[0].n_in, m->n_out = a.modules[0].n_out;
    check_refused(base, &a, ERR_INVALID);
    *m = whole;
    adapter_finish(&a);
    model_release(base);
}

TEST(its_memory_is_its_factors) {
    struct odd_model m;
    REQUIRE(odd_model_make(&m, &(struct shape){true, 2, 4, 2, 64, 256, 512, 300, 64}, 0.3f, pool_of_two, NULL));
    static const size_t ranks[] = {1, 8, 64};
    for (size_t k = 0; k < ARRAY_LEN(ranks); k++) {
        struct adapter a = adapter_random(m.model, ranks[k], 1);
        size_t factors = 0;
        for (size_t i = 0; i < a.n; i++) factors += a.modules[i].r * (a.modules[i].n_in + a.modules[i].n_out) * sizeof(float);
        struct model *adapted = model_create_adapted(m.model, &a, NULL);
        REQUIRE(adapted);
        CHECK(model_own_bytes(adapted) >= factors && (ranks[k] == 1 || model_own_bytes(adapted) <= factors + factors / 20));
        CHECK(model_base(adapted) == m.model && model_base(m.model) == m.model && !model_adapter(m.model));
        CHECK(model_config(adapted) == model_config(m.model) && model_own_bytes(m.model) == model_bytes(adapted));
        model_release(adapted);
        adapter_finish(&a);
    }
    odd_model_finish(&m);
}

int main(int argc, char **argv) {
    struct err err = {0};
    if (!kernels_get(&err)) {
        printf("adapter_rows: skipped, %s\n", err.message);
        return 77;
    }
    pool_of_two = pool_create(2, &err);
    if (!pool_of_two) return 1;
    int failed = test_main("adapter_rows", argc, argv);
    pool_destroy(pool_of_two);
    return failed;
}
