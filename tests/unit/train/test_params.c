// SPDX-License-Identifier: MIT
// Parameters: what is trained under each method, values out of files, numbers drawn, refusals.
#include "tests/unit/test.h"

#include "base/file.h"
#include "engine/model/model_internal.h"
#include "engine/model/tensor.h"
#include "tests/unit/train/tiny.h"

static size_t trained_count(const struct params *p, const char *part) {
    size_t n = 0;
    for (size_t i = 0; i < p->n_items; i++) n += p->items[i].grad && strstr(p->items[i].name, part);
    return n;
}

TEST(methods) {
    struct params *p = tiny_params(TINY_GPT2, &(struct params_options){0});
    CHECK_INT(p->n_items, 2 + 3 * 12 + 2);
    CHECK_INT(trained_count(p, ""), p->n_items);
    CHECK_INT(p->n_trainable, p->n_parameters);
    CHECK(p->head == p->embedding && p->n_frozen == 0);
    CHECK_STR(p->items[0].name, "transformer.wte.weight");
    CHECK_STR(p->layers[2].down.w->name, "transformer.h.2.mlp.c_proj.weight");
    CHECK_INT(p->layers[2].qkv[0].w->shape[1], 72);
    CHECK(p->items[0].decay && !p->norm_w->decay && !p->layers[0].down.bias->decay);
    for (size_t i = 0; i < p->n_items; i++) {
        CHECK_INT((p->items[i].w - p->trained) % 16, 0);
        CHECK(p->items[i].w - p->trained == p->items[i].grad - p->grads);
    }
    params_destroy(p);
    p = tiny_params(TINY_GPT2_SEED, &(struct params_options){.method = TRAIN_FREEZE, .trained_layers = 1, .decay_all = true});
    CHECK(p->layers[0].qkv[0].bias == NULL && p->head != p->embedding);
    CHECK_INT(trained_count(p, ""), 11 + 2 + 1);
    CHECK_INT(trained_count(p, "transformer.h.2."), 11);
    CHECK(p->head->grad && !p->embedding->grad && p->norm_w->decay);
    params_destroy(p);
    p = tiny_params(TINY_LLAMA, &(struct params_options){.inference = true, .method = TRAIN_LORA, .lora = {.rank = 2}});
    CHECK(p->n_trained == 0 && p->grads == NULL && trained_count(p, "") == 0);
    CHECK_INT(p->n_items, 1 + 3 * 9 + 1 + 1);
    params_destroy(p);
}

static struct params *lora_params(enum tiny_kind kind, const char *const *targets, size_t n, struct err *err) {
    struct model_config c = tiny_config(kind);
    struct params_options o = {.method = TRAIN_LORA, .seed = 3, .lora = {.rank = 2, .alpha = 8, .targets = targets, .n_targets = n}};
    return params_random(&c, INIT_GPT2, 1, &o, NULL, err);
}

TEST(lora_targets) {
    struct err err = {0};
    struct params *p = lora_params(TINY_GPT2, (const char *[]){"c_attn"}, 1, &err);
    REQUIRE(p);
    CHECK_INT(trained_count(p, ""), 6);
    struct param *a = params_find(p, "base_model.model.transformer.h.1.attn.c_attn.lora_A.weight");
    REQUIRE(a);
    CHECK(a == p->layers[1].qkv[0].lora.a && a->shape[0] == 2 && a->shape[1] == 24 && a->decay);
    CHECK_NEAR(p->layers[1].qkv[0].lora.scale, 4, 0);
    double bound = 1 / sqrt(24), largest = 0;
    for (size_t i = 0; i < a->n; i++) largest = fmax(largest, fabs((double)a->w[i]));
    CHECK(largest <= bound && largest > 0.8 * bound);
    for (size_t i = 0; i < p->layers[1].qkv[0].lora.b->n; i++) CHECK(p->layers[1].qkv[0].lora.b->w[i] == 0);
    params_destroy(p);
    p = lora_params(TINY_GPT2, (const char *[]){"attn.c_proj"}, 1, &err);
    CHECK_INT(p ? trained_count(p, "") : 0, 6);
    params_destroy(p);
    p = lora_params(TINY_GPT2, (const char *[]){"c_proj"}, 1, &err); // both of them
    CHECK_INT(p ? trained_count(p, "") : 0, 12);
    params_destroy(p);
    p = lora_params(TINY_LLAMA, NULL, 0, &err);
    CHECK_INT(p ? trained_count(p, "") : 0, 3 * 7 * 2);
    params_destroy(p);
    CHECK(!lora_params(TINY_LLAMA, (const char *[]){"q_proj", "proj"}, 2, &err)); // whole names only
    CHECK_STR(err.param, "--lora-targets");
    CHECK(strstr(err.message, "\"proj\"") && strstr(err.message, "gate_proj"));
    struct model_config c = tiny_config(TINY_GPT2);
    CHECK(!params_random(&c, INIT_GPT2, 1, &(struct params_options){.method = TRAIN_LORA}, NULL, &err));
    CHECK_STR(err.param, "--lora-rank");
}

static void moments(const struct param *p, double *mean, double *deviation) {
    double sum = 0, squares = 0;
    for (size_t i = 0; i < p->n; i++) sum += p->w[i], squares += (double)p->w[i] * p->w[i];
    *mean = sum / (double)p->n;
    *deviation = sqrt(squares / (double)p->n - *mean * *mean);
}

TEST(random_numbers) {
    struct model_config c = tiny_config(TINY_GPT2_SEED);
    c.n_embd = 96, c.head_size = 24, c.n_inner = 384, c.n_vocab = 1009;
    struct pool *pool = pool_create(3, NULL);
    struct params *p = params_random(&c, INIT_GPT2, 42, &(struct params_options){0}, pool, NULL);
    double mean, deviation;
    moments(p->embedding, &mean, &deviation); // 96864 draws: 4 standard errors are 1.3 % of the deviation
    CHECK_NEAR(mean, 0, 0.02 * 0.013);
    CHECK_NEAR(deviation, 0.02, 0.02 * 0.013);
    moments(p->layers[1].down.w, &mean, &deviation);
    CHECK_NEAR(deviation, 0.02 / sqrt(6), 0.02 / sqrt(6) * 0.02);
    size_t beyond = 0;
    for (size_t i = 0; i < p->embedding->n; i++) beyond += fabsf(p->embedding->w[i]) > 0.04f;
    CHECK_NEAR((double)beyond / (double)p->embedding->n, 0.0455, 0.003); // normal, not uniform
    CHECK(p->norm_w->w[5] == 1 && p->norm_b->w[5] == 0 && p->layers[0].down.bias->w[3] == 0);
    // The same numbers whatever the threads and the method.
    struct params_options lora = {.method = TRAIN_LORA, .lora = {.rank = 2, .alpha = 1}};
    struct params *other = params_random(&c, INIT_GPT2, 42, &lora, NULL, NULL);
    for (size_t i = 0; i < p->n_items; i++) {
        struct param *same = params_find(other, p->items[i].name);
        CHECK(same && memcmp(same->w, p->items[i].w, same->n * sizeof *same->w) == 0);
    }
    params_destroy(other);
    params_destroy(p);
    p = params_random(&c, INIT_TORCH, 42, &(struct params_options){0}, pool, NULL);
    moments(p->embedding, &mean, &deviation);
    CHECK_NEAR(deviation, 1, 0.013);
    moments(p->head, &mean, &deviation);
    CHECK_NEAR(deviation, 1 / sqrt(3 * 96.0), 0.001); // of U(+-1/sqrt(96))
    moments(p->layers[0].up[0].bias, &mean, &deviation);
    CHECK_NEAR(deviation, 1 / sqrt(3 * 96.0), 0.006);
    params_destroy(p);
    pool_destroy(pool);
}

static void check_file(const char *path) {
    struct err err = {0};
    struct model_file *f = model_file_open(path, &err);
    struct pool *pool = pool_create(2, NULL);
    struct params *p = f ? params_from_file(f, &(struct params_options){.inference = true}, pool, &err) : NULL;
    if (!p) TEST_FAIL("%s: %s", path, err.message), exit(1);
    CHECK_INT(p->n_items, model_file_tensor_count(f));
    CHECK_INT(p->n_parameters, model_file_parameters(f));
    for (size_t i = 0; i < p->n_items; i++) {
        const struct param *item = &p->items[i];
        const struct tensor *t = model_file_tensor(f, item->name);
        float *row = mem_alloc(item->n, sizeof *row);
        if (item->n_dims == 1) tensor_vector(t, row);
        for (size_t r = 0; item->n_dims == 2 && r < item->shape[0]; r++) tensor_row(t, r, row + r * item->shape[1]);
        CHECK(memcmp(row, item->w, item->n * sizeof *row) == 0);
        free(row);
    }
    params_destroy(p);
    pool_destroy(pool);
    model_file_close(f);
}

TEST(files) {
    check_file(GOLDEN_DIR "/parity/gpt2");
    check_file(GOLDEN_DIR "/parity/llama");
    check_file(GOLDEN_DIR "/parity/llama_bf16");
    check_file(GOLDEN_DIR "/gguf/gpt2_q4_0.gguf"); // Conv1D's columns as rows
    check_file(GOLDEN_DIR "/gguf/gpt2_q8_0.gguf");
    check_file(GOLDEN_DIR "/gguf/llama_q4_1.gguf"); // rotary rows in another order
    check_file(GOLDEN_DIR "/gguf/llama_f16.gguf");
}

TEST(not_finite) {
    struct err err = {0};
    size_t config_len, len;
    char *config = file_read(GOLDEN_DIR "/parity/gpt2/config.json", 1 << 20, &config_len, NULL);
    char *data = file_read(GOLDEN_DIR "/parity/gpt2/model.safetensors", 1 << 20, &len, NULL);
    REQUIRE(config && data);
    memcpy(data + len - 4, &(float){INFINITY}, 4); // the last tensor's last element
    struct model_file *f = model_file_open_hf_memory(config, config_len, data, len, &err);
    REQUIRE(f);
    CHECK(!params_from_file(f, &(struct params_options){0}, NULL, &err));
    CHECK_INT(err.code, ERR_CORRUPT);
    CHECK(strstr(err.message, "transformer.") && strstr(err.message, "NaN"));
    model_file_close(f);
    free(data);
    free(config);
}

TEST_MAIN("params")
