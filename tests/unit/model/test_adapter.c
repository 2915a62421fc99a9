// SPDX-License-Identifier: MIT
// LoRA adapters: what is written loads again; merging is W + scale * B A in every format of the base; what PEFT can do beyond that, and
// what is damaged, is refused by name.
#include "tests/unit/model/same_model.h"

#include "engine/model/adapter.h"
#include "engine/model/model_write.h"

#include <unistd.h>

#define GOLDEN "tests/golden/"
#define GPT2_MODULE "transformer.h.1.attn.c_attn"
#define LLAMA_MODULE "model.layers.0.self_attn.q_proj"

static char work[64];

static const char *in_work(const char *name) {
    static char paths[4][128];
    static size_t next;
    char *path = paths[next++ % ARRAY_LEN(paths)];
    snprintf(path, sizeof(paths[0]), "%s/%s", work, name);
    return path;
}

static float number(size_t i, size_t salt) { return (float)((i * 7919 + salt * 104729) % 2003) / 1001 - 1; }

static void fill(void *ctx, const struct tensor_out *t, size_t row, size_t n_rows, float *out) {
    for (size_t i = 0; i < n_rows * t->shape[1]; i++) out[i] = number(row * t->shape[1] + i, t->name[strlen(t->name) - 8] == 'A');
}

// An adapter of one module, rank 3, alpha 6.
static bool adapter_make(const char *dir, const char *module, size_t n_in, size_t n_out, const char *base, struct err *err) {
    char a[128], b[128];
    snprintf(a, sizeof(a), "base_model.model.%s.lora_A.weight", module);
    snprintf(b, sizeof(b), "base_model.model.%s.lora_B.weight", module);
    const struct tensor_out tensors[] = {{.name = b, .n_dims = 2, .shape = {n_out, 3}, .fill = fill},
                                         {.name = a, .n_dims = 2, .shape = {3, n_in}, .fill = fill}};
    const char *const targets[] = {strrchr(module, '.') + 1};
    const struct adapter_meta meta = {.rank = 3, .alpha = 6, .dropout = 0.1f, .targets = targets, .n_targets = 1, .base = base, .conv1d = true};
    return adapter_write(dir, &meta, tensors, 2, err);
}

// Element of B A, in double.
static double delta(size_t o, size_t i, size_t n_in) {
    double sum = 0;
    for (size_t k = 0; k < 3; k++) sum += (double)number(o * 3 + k, 0) * (double)number(k * n_in + i, 1);
    return sum;
}

static void check_merge(const char *base, const char *module, size_t n_in, size_t n_out, bool conv1d, double scale) {
    struct err err = {0};
    char name[128];
    snprintf(name, sizeof(name), "%s.weight", module);
    struct model_file *plain = open_format(base), *merged = model_file_open_adapted(base, in_work("adapter"), &err);
    if (!merged) TEST_FAIL("%s: %s", base, err.message);
    REQUIRE(plain && merged);
    unsigned char x[32], y[32];
    model_file_hash(plain, x);
    model_file_hash(merged, y);
    CHECK(memcmp(x, y, sizeof(x)) != 0);
    for (size_t i = 0; i < plain->n_tensors; i++)
        if (strcmp(plain->tensors[i].name, name) != 0) check_same_tensor(&plain->tensors[i], model_file_tensor(merged, plain->tensors[i].name));
    const struct tensor *before = model_file_tensor(plain, name), *after = model_file_tensor(merged, name);
    REQUIRE(before && after && after->type == DTYPE_F32);
    float *w = mem_alloc(n_in * n_out, sizeof(*w)), *v = mem_alloc(n_in * n_out, sizeof(*v));
    tensor_values(before, w);
    tensor_values(after, v);
    double worst = 0;
    for (size_t o = 0; o < n_out; o++)
        for (size_t i = 0; i < n_in; i++) {
            const size_t at = conv1d ? i * n_out + o : o * n_in + i;
            worst = fmax(worst, fabs((double)w[at] + scale * delta(o, i, n_in) - (double)v[at]));
        }
    CHECK_NEAR(worst, 0, 2e-6);
    free(w), free(v);
    model_file_close(plain);
    model_file_close(merged);
}

TEST(merge) {
    struct err err = {0};
    REQUIRE(adapter_make(in_work("adapter"), GPT2_MODULE, 32, 96, NULL, &err));
    check_merge(GOLDEN "parity/gpt2", GPT2_MODULE, 32, 96, true, 2);
    check_merge(GOLDEN "gguf/gpt2_q8_0.gguf", GPT2_MODULE, 32, 96, true, 2); // quantised and transposed
    REQUIRE(adapter_make(in_work("adapter"), LLAMA_MODULE, 32, 32, NULL, &err));
    check_merge(GOLDEN "parity/llama", LLAMA_MODULE, 32, 32, false, 2);
    check_merge(GOLDEN "gguf/llama_q4_1.gguf", LLAMA_MODULE, 32, 32, false, 2); // rows in llama.cpp's order
}

TEST(written_and_read) {
    struct err err = {0};
    struct adapter a = {0};
    REQUIRE(adapter_make(in_work("adapter"), GPT2_MODULE, 32, 96, "some/base", &err));
    CHECK(adapter_is_dir(in_work("adapter")) && !adapter_is_dir(GOLDEN "parity/gpt2") && !adapter_is_dir(in_work("nothing")));
    REQUIRE(adapter_load(&a, in_work("adapter"), &err));
    CHECK_INT(a.n, 1);
    CHECK_INT(a.rank, 3);
    CHECK_NEAR(a.alpha, 6, 0);
    CHECK_STR(a.base, "some/base");
    CHECK_STR(a.modules[0].name, GPT2_MODULE);
    CHECK(a.modules[0].r == 3 && a.modules[0].n_in == 32 && a.modules[0].n_out == 96);
    CHECK_NEAR(a.modules[0].scale, 2, 0);
    CHECK(a.modules[0].a[5] == number(5, 1) && a.modules[0].b[7] == number(7, 0));
    adapter_finish(&a);
}

// Relative to the adapter's directory first, then to the working one.
TEST(base_is_found) {
    struct err err = {0};
    struct model_file *f = open_format(GOLDEN "parity/gpt2");
    REQUIRE(f);
    size_t n;
    struct tensor_out *t = model_file_tensors_out(f, &n);
    CHECK(hf_dir_write(in_work("base"), model_file_config(f), t, n, WRITE_F32, NULL, &err));
    free(t);
    model_file_close(f);
    static const char *const bases[] = {"../base", GOLDEN "parity/gpt2"};
    for (size_t i = 0; i < ARRAY_LEN(bases); i++) {
        REQUIRE(adapter_make(in_work("adapter"), GPT2_MODULE, 32, 96, bases[i], &err));
        f = model_file_open_adapted(in_work("adapter"), NULL, &err);
        if (!f) TEST_FAIL("%s", err.message);
        model_file_close(f);
    }
    REQUIRE(adapter_make(in_work("adapter"), GPT2_MODULE, 32, 96, "openai-community/gpt2", &err));
    CHECK(!model_file_open_adapted(in_work("adapter"), NULL, &err));
    CHECK_INT(err.code, ERR_NOT_FOUND);
    CHECK_STR(err.message, "the adapter's base model \"openai-community/gpt2\" is no path here: give --model BASE --adapter DIR");
}

static void check_load(const char *what, const char *part) {
    struct err err = {0};
    struct adapter a = {0};
    const bool ok = adapter_load(&a, in_work("adapter"), &err);
    if (ok == (part != NULL) || (part && !strstr(err.message, part))) TEST_FAIL("%s: %s", what, ok ? "loaded" : err.message);
    adapter_finish(&a);
}

TEST(configurations) {
    static const struct {
        const char *json, *part; // part NULL: loads
    } cases[] = {
        {"{\"peft_type\":\"LORA\",\"r\":3,\"lora_alpha\":6}", NULL},
        {"{\"peft_type\":\"LORA\",\"r\":3,\"lora_alpha\":6,\"use_dora\": false ,\"modules_to_save\" : [ ] ,\"layer_replication\":null}", NULL},
        {"{\"peft_type\":\"LORA\",\"r\":8,\"lora_alpha\":6,\"rank_pattern\":{\"c_attn\":3}}", NULL},
        {"{\"peft_type\":\"LORA\",\"r\":3,\"lora_alpha\":6,\"init_lora_weights\":\"gaussian\"}", NULL},
        {"{\"peft_type\":\"LORA\",\"r\":3,\"lora_alpha\":6,\"init_lora_weights\":\"pissa\"}", "pissa"},
        {"{\"peft_type\":\"LORA\",\"r\":8,\"lora_alpha\":6}", "has rank 3, but adapter_config.json says 8"},
        {"{\"peft_type\":\"LORA\",\"r\":0,\"lora_alpha\":6}", "rank is 0"},
        {"{\"peft_type\":\"LORA\",\"r\":3}", "no lora_alpha"},
        {"{\"peft_type\":\"LORA\",\"r\":3,\"lora_alpha\":1e300}", "scale of module"},
        {"{\"peft_type\":\"IA3\",\"r\":3,\"lora_alpha\":6}", "type IA3"},
        {"{\"r\":3,\"lora_alpha\":6}", "no peft_type"},
        {"{\"peft_type\":\"LORA\",\"r\":3,\"lora_alpha\":6,\"bias\":\"all\"}", "bias \"all\""},
        {"{\"peft_type\":\"LORA\",\"r\":3,\"lora_alpha\":6,\"use_dora\":true}", "use_dora"},
        {"{\"peft_type\":\"LORA\",\"r\":3,\"lora_alpha\":6,\"lora_bias\":true}", "lora_bias"},
        {"{\"peft_type\":\"LORA\",\"r\":3,\"lora_alpha\":6,\"modules_to_save\":[\"lm_head\"]}", "modules_to_save"},
        {"{\"peft_type\":\"LORA\",\"r\":3,\"lora_alpha\":6,\"alpha_pattern\":{\".*attn\":1}}", "regular expression"},
        {"{\"peft_type\":\"LORA\",\"r\":\"3\",\"lora_alpha\":6}", "line 1"},
        {"[]", "line 1"},
        {"", "line 1"},
    };
    struct err err = {0};
    REQUIRE(adapter_make(in_work("adapter"), GPT2_MODULE, 32, 96, NULL, &err));
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        REQUIRE(file_write_atomic(in_work("adapter/adapter_config.json"), cases[i].json, strlen(cases[i].json), 0644, &err));
        check_load(cases[i].json, cases[i].part);
    }
}

TEST(scales) {
    static const struct {
        const char *extra;
        double scale;
    } cases[] = {{"", 2}, {",\"use_rslora\":true", 3.4641016}, {",\"alpha_pattern\":{\"attn.c_attn\":9}", 3}, {",\"alpha_pattern\":{\"_attn\":9}", 2}};
    struct err err = {0};
    REQUIRE(adapter_make(in_work("adapter"), GPT2_MODULE, 32, 96, NULL, &err));
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char text[200];
        struct adapter a = {0};
        const int n = snprintf(text, sizeof(text), "{\"peft_type\":\"LORA\",\"r\":3,\"lora_alpha\":6%s}", cases[i].extra);
        REQUIRE(file_write_atomic(in_work("adapter/adapter_config.json"), text, (size_t)n, 0644, &err));
        REQUIRE(adapter_load(&a, in_work("adapter"), &err));
        CHECK_NEAR(a.modules[0].scale, cases[i].scale, 1e-6);
        adapter_finish(&a);
    }
}

TEST(tensors_refused) {
#define PEFT "base_model.model." GPT2_MODULE
    static const float ones[96] = {1, 1, 1}, nan[9] = {1, 2, NAN};
    const struct {
        struct tensor_out t[2];
        const char *part;
    } cases[] = {
        {{{.name = PEFT ".lora_A.weight", .n_dims = 2, .shape = {3, 3}, .data = ones}, {.name = PEFT ".lora_B.weight", .n_dims = 2, .shape = {3, 3}, .data = nan}},
         "not a finite number"},
        {{{.name = PEFT ".lora_A.weight", .n_dims = 2, .shape = {3, 3}, .data = ones}, {.name = "base_model.model.x.lora_B.weight", .n_dims = 2, .shape = {3, 3}, .data = ones}},
         "only one of lora_A and lora_B"},
        {{{.name = PEFT ".lora_A.weight", .n_dims = 2, .shape = {3, 3}, .data = ones}, {.name = PEFT ".lora_B.weight", .n_dims = 2, .shape = {4, 2}, .data = ones}},
         "rank 2"},
        {{{.name = PEFT ".lora_A.weight", .n_dims = 2, .shape = {3, 3}, .data = ones}, {.name = PEFT ".lora_magnitude_vector", .n_dims = 1, .shape = {3, 1}, .data = ones}},
         "is not a linear layer's lora_A or lora_B"},
        {{{.name = PEFT ".lora_A.weight", .n_dims = 1, .shape = {3, 1}, .data = ones}, {.name = PEFT ".lora_B.weight", .n_dims = 2, .shape = {3, 3}, .data = ones}},
         "is not a linear layer's"},
        {{{.name = "lora_A.weight", .n_dims = 2, .shape = {3, 3}, .data = ones}, {.name = "x.lora_B.weight", .n_dims = 2, .shape = {3, 3}, .data = ones}},
         "is not a linear layer's"},
    };
    const struct adapter_meta meta = {.rank = 3, .alpha = 6};
    struct err err = {0};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        REQUIRE(adapter_write(in_work("adapter"), &meta, cases[i].t, 2, &err));
        check_load(cases[i].part, cases[i].part);
    }
    REQUIRE(file_write_atomic(in_work("adapter/adapter_model.safetensors"), "\x10\0\0\0\0\0\0\0{", 9, 0644, &err));
    check_load("torn", "adapter_model.safetensors");
}

// A model that does not fit is as it was.
TEST(modules_refused) {
    static const struct {
        const char *module;
        size_t n_in, n_out;
        const char *part;
    } cases[] = {
        {"transformer.h.7.attn.c_attn", 32, 96, "has no such linear layer"},
        {"transformer.h.0.attn.q_proj", 32, 96, "has no such linear layer"},
        {"transformer.h.0.ln_1", 32, 96, "has no such linear layer"},
        {"model.transformer.wte", 32, 301, "has no such linear layer"},
        {"transformer.wte", 32, 301, "has no such linear layer"}, // an embedding is not a product
        {"x.lm_head", 32, 301, "has no such linear layer"},
        {GPT2_MODULE, 96, 32, "has 96 inputs and 32 outputs, the model's 32 and 96"},
    };
    struct model_file *f = open_format(GOLDEN "parity/gpt2");
    REQUIRE(f);
    unsigned char before[32], after[32];
    model_file_hash(f, before);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct err err = {0};
        struct adapter a = {0};
        REQUIRE(adapter_make(in_work("adapter"), cases[i].module, cases[i].n_in, cases[i].n_out, NULL, &err));
        REQUIRE(adapter_load(&a, in_work("adapter"), &err));
        CHECK(!model_file_merge(f, &a, &err));
        if (err.code != ERR_INVALID || !strstr(err.message, cases[i].part)) TEST_FAIL("%s: %s", cases[i].module, err.message);
        adapter_finish(&a);
    }
    model_file_hash(f, after);
    CHECK(memcmp(before, after, sizeof(before)) == 0);
    model_file_close(f);
}

int main(int argc, char **argv) {
    snprintf(work, sizeof(work), "/tmp/couplet-adapter-XXXXXX");
    if (!mkdtemp(work)) return 1;
    const int status = test_main("adapter", argc, argv);
    return dir_remove(work, NULL) ? status : 1;
}
