// SPDX-License-Identifier: MIT
// The forward pass against PyTorch: tests/golden/parity (made by make_parity.py there) holds tiny random models and what
// transformers computes with them. COUPLET_PARITY_DIR names another set of the same layout.
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "engine/infer/engine.h"
#include "engine/infer/transformer.h"
#include "tests/unit/test.h"

#ifndef GOLDEN_DIR
#define GOLDEN_DIR "tests/golden"
#endif

struct numbers {
    double *v;
    size_t n, cap;
};
struct inference { // one entry of expected.json
    struct numbers input_ids, last_logits, next_token_logprobs, greedy_20;
};

static const char *parity_dir(void) {
    const char *d = getenv("COUPLET_PARITY_DIR");
    return d ? d : GOLDEN_DIR "/parity";
}

static bool read_numbers(struct json *j, struct numbers *out, struct err *err) {
    if (!json_open(j, '[', err)) return false;
    while (json_next_item(j, err)) {
        mem_grow(&out->v, &out->cap, out->n + 1);
        if (!json_read_double(j, &out->v[out->n++], err)) return false;
    }
    return !j->failed;
}

static bool read_inference(struct json *j, struct inference *e, struct err *err) {
    struct buf key = {0};
    bool ok = json_open(j, '{', err);
    while (ok && json_next_key(j, &key, err))
        ok = buf_is(&key, "input_ids")             ? read_numbers(j, &e->input_ids, err)
             : buf_is(&key, "last_logits")         ? read_numbers(j, &e->last_logits, err)
             : buf_is(&key, "next_token_logprobs") ? read_numbers(j, &e->next_token_logprobs, err)
             : buf_is(&key, "greedy_20")           ? read_numbers(j, &e->greedy_20, err)
                                                   : json_skip(j, err);
    buf_finish(&key);
    return ok && !j->failed;
}

static uint32_t *ids_of(const struct numbers *n) {
    uint32_t *ids = mem_alloc(n->n, sizeof *ids);
    for (size_t i = 0; i < n->n; i++) ids[i] = (uint32_t)n->v[i];
    return ids;
}

// Logits of the last position, straight from the transformer, the prompt cut into two steps. `tap` may be NULL.
static void check_logits(struct model *m, const struct inference *e, struct pool *pool, const struct tap *tap) {
    size_t n = e->input_ids.n, half = n / 2, stride;
    struct kv_cache *kv = kv_cache_create(model_config(m), 1 << 22, NULL);
    struct transformer *t = transformer_create(model_weights(m), n, pool, NULL);
    uint32_t *ids = ids_of(&e->input_ids), blocks[64];
    for (size_t b = 0; b < n / KV_BLOCK + 1; b++) CHECK(kv_cache_take(kv, &blocks[b]));
    struct step_sequence s = {.n_rows = half, .blocks = blocks, .tap = tap};
    struct step step = {.n_rows = half, .ids = ids, .sequences = &s, .n_sequences = 1};
    transformer_forward(t, kv, &step);
    uint32_t last = (uint32_t)(n - half - 1);
    s = (struct step_sequence){.n_rows = n - half, .position = half, .blocks = blocks, .tap = tap};
    step = (struct step){.n_rows = n - half, .ids = ids + half, .sequences = &s, .n_sequences = 1, .wanted = &last, .n_wanted = 1};
    transformer_forward(t, kv, &step);
    const float *logits = transformer_logits(t, 0, 1, &stride);
    double worst = 0;
    for (size_t i = 0; i < e->last_logits.n; i++) worst = fmax(worst, fabs(logits[i] - e->last_logits.v[i]));
    CHECK_INT(e->last_logits.n, model_config(m)->n_vocab);
    CHECK_NEAR(worst, 0, 1e-4);
    transformer_destroy(t);
    kv_cache_destroy(kv);
    free(ids);
}

// Through the engine: prompt logprobs and the greedy continuation.
static void check_engine(struct model *m, const struct inference *e, struct pool *pool) {
    struct engine_config config = {.pool = pool, .max_running = 4, .max_waiting = 4, .step_rows = 16};
    struct engine *engine = engine_create(&config, NULL);
    REQUIRE(engine && engine_add_model(engine, m, 1 << 22, NULL));
    uint32_t *ids = ids_of(&e->input_ids);
    struct sequence_request r = {.id = 7, .model = m, .prompt = ids, .n_prompt = e->input_ids.n,
                                 .params = {.max_tokens = e->greedy_20.n, .top_p = 1, .typical_p = 1, .repetition_penalty = 1,
                                            .ignore_eos = true, .n_logprobs = 1, .prompt_logprobs = true}};
    REQUIRE(engine_submit(engine, &r, 1, NULL));
    while (engine_step(engine)) continue;
    size_t scored = 0, generated = 0, finished = 0;
    for (struct engine_event *v = engine_take_events(engine); v;) {
        for (size_t i = 0; i < v->n_tokens; i++) {
            const struct token_record *t = &v->tokens[i];
            if (v->kind == EVENT_PROMPT) {
                if (scored && fabs(t->logprob - e->next_token_logprobs.v[scored - 1]) > 1e-4) TEST_FAIL("logprob of token %zu is %.8f, expected %.8f", scored, t->logprob, e->next_token_logprobs.v[scored - 1]);
                CHECK_INT(t->id, ids[scored]);
                CHECK(t->has_logprob == (scored > 0));
                scored++;
            } else {
                CHECK_INT(t->id, e->greedy_20.v[generated++]);
                CHECK(t->n_top == 1 && t->top[0].id == t->id && t->top[0].logprob == t->logprob);
            }
        }
        finished += v->kind == EVENT_FINISH && v->finish == FINISH_LENGTH;
        struct engine_event *next = v->next;
        engine_event_free(v);
        v = next;
    }
    CHECK_INT(scored, e->input_ids.n);
    CHECK_INT(generated, e->greedy_20.n);
    CHECK_INT(finished, 1);
    engine_destroy(engine);
    free(ids);
}

static void see_weights(void *ctx, const char *name, int layer, int head, const float *data, const size_t *shape, int n_dims) {
    size_t *seen = ctx;
    if (strcmp(name, "weights") != 0) return;
    CHECK(layer >= 0 && head >= 0 && n_dims == 2 && shape[1] >= shape[0]);
    for (size_t r = 0; r < shape[0]; r++) { // each row a distribution over what lies before it
        double sum = 0;
        for (size_t p = 0; p < shape[1]; p++) sum += data[r * shape[1] + p];
        CHECK_NEAR(sum, 1, 1e-5);
        for (size_t p = shape[1] - shape[0] + r + 1; p < shape[1]; p++) CHECK(data[r * shape[1] + p] == 0);
    }
    ++*seen;
}

static void check_model(const char *name, struct json *j, struct err *err, size_t *models) {
    struct buf key = {0};
    char *path = path_join(parity_dir(), name);
    struct pool *pool = pool_create(2, err);
    struct model_file *file = model_file_open(path, err);
    struct model *m = file ? model_create(file, WEIGHTS_AUTO, pool, err) : NULL;
    if (!m) TEST_FAIL("%s: %s", name, err->message);
    bool ok = m && json_open(j, '{', err);
    while (ok && json_next_key(j, &key, err)) {
        if (!buf_is(&key, "inference")) {
            ok = json_skip(j, err);
            continue;
        }
        ok = json_open(j, '[', err);
        while (ok && json_next_item(j, err)) {
            struct inference e = {0};
            ok = read_inference(j, &e, err);
            if (ok) {
                size_t seen = 0;
                check_logits(m, &e, pool, NULL);
                const struct model_config *c = model_config(m);
                float *maps = mem_alloc(2 * (c->n_head / c->n_kv_head) * e.input_ids.n * e.input_ids.n, sizeof *maps);
                check_logits(m, &e, NULL, &(struct tap){.see = see_weights, .ctx = &seen, .maps = maps});
                free(maps);
                CHECK_INT(seen, 2 * c->n_layer * c->n_head);
                check_engine(m, &e, pool);
                ++*models;
            }
            free(e.input_ids.v), free(e.last_logits.v), free(e.next_token_logprobs.v), free(e.greedy_20.v);
        }
    }
    model_release(m);
    pool_destroy(pool);
    buf_finish(&key);
    free(path);
}

TEST(logits_logprobs_and_greedy_text_equal_pytorch) {
    struct err err = {0};
    char *path = path_join(parity_dir(), "expected.json");
    size_t len, models = 0;
    char *text = file_read(path, 64 << 20, &len, &err);
    free(path);
    if (!text) TEST_FAIL("%s", err.message);
    REQUIRE(text);
    struct json j;
    struct buf key = {0};
    json_init(&j, text, len);
    REQUIRE(json_open(&j, '{', &err));
    while (json_next_key(&j, &key, &err)) {
        char *dir = path_join(parity_dir(), buf_str(&key));
        if (json_peek(&j) == JSON_OBJECT && dir_exists(dir)) check_model(buf_str(&key), &j, &err, &models);
        else if (!json_skip(&j, &err)) break;
        free(dir);
    }
    if (j.failed) TEST_FAIL("%s", err.message);
    CHECK(models >= 2);
    buf_finish(&key);
    free(text);
}

TEST_MAIN("parity")
