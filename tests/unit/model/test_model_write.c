// SPDX-License-Identifier: MIT
// Writing models: what is written opens as the same model, whatever the format; precisions are those of PyPI `gguf` and numpy (the golden
// GGUFs were written by it); equal models are equal bytes; tokenizers survive GGUF; what fails leaves nothing.
#include "tests/unit/model/same_model.h"

#include "engine/model/model_write.h"
#include "tokenizer/tokenizer_write.h"

#include <dirent.h>
#include <unistd.h>

#define GOLDEN "tests/golden/"

static char work[64]; // a directory of this run's own

static const char *in_work(const char *name) {
    static char paths[4][128];
    static size_t next;
    char *path = paths[next++ % ARRAY_LEN(paths)];
    snprintf(path, sizeof(paths[0]), "%s/%s", work, name);
    return path;
}

static bool is_gguf(const char *path) { return strstr(path, ".gguf") != NULL; }

static bool write_as(const struct model_file *f, const char *to, enum write_type type, struct err *err) {
    size_t n;
    struct tensor_out *tensors = model_file_tensors_out(f, &n);
    const struct model_config *c = model_file_config(f);
    const struct tokenizer *t = model_file_tokenizer(f);
    const bool ok = is_gguf(to) ? gguf_write(to, c, tensors, n, type, t, "test", err) : hf_dir_write(to, c, tensors, n, type, t, err);
    free(tensors);
    return ok;
}

static void convert(const char *from, const char *to, enum write_type type) {
    struct err err = {0};
    struct model_file *f = open_format(from);
    if (f && !write_as(f, to, type, &err)) TEST_FAIL("%s to %s: %s", from, to, err.message);
    model_file_close(f);
}

static void check_same_bytes(const char *a, const char *b) {
    size_t n, m;
    char *x = file_read(a, 64 << 20, &n, NULL), *y = file_read(b, 64 << 20, &m, NULL);
    if (!x || !y || n != m || memcmp(x, y, n) != 0) TEST_FAIL("%s and %s differ", a, b);
    free(x), free(y);
}

TEST(round_trips) {
    static const char *const models[] = {GOLDEN "parity/gpt2",         GOLDEN "parity/llama",       GOLDEN "parity/llama_bf16",
                                         GOLDEN "gguf/gpt2_q8_0.gguf", GOLDEN "gguf/gpt2_q4_0.gguf", GOLDEN "gguf/llama_q4_1.gguf"};
    for (size_t i = 0; i < ARRAY_LEN(models); i++) {
        convert(models[i], in_work("hf"), WRITE_F32);
        check_same_model(models[i], in_work("hf"));
        convert(in_work("hf"), in_work("one.gguf"), WRITE_F32);
        check_same_model(models[i], in_work("one.gguf"));
        convert(in_work("one.gguf"), in_work("back"), WRITE_F32);
        check_same_bytes(in_work("hf/model.safetensors"), in_work("back/model.safetensors"));
        check_same_bytes(in_work("hf/config.json"), in_work("back/config.json"));
        convert(in_work("back"), in_work("two.gguf"), WRITE_F32);
        check_same_bytes(in_work("one.gguf"), in_work("two.gguf"));
    }
}

// A file's own precision is kept bit for bit when it is asked for.
TEST(sixteen_bits) {
    convert(GOLDEN "parity/llama_bf16", in_work("bf16"), WRITE_BF16);
    check_same_model(GOLDEN "parity/llama_bf16", in_work("bf16"));
    convert(GOLDEN "parity/llama", in_work("f16.gguf"), WRITE_F16); // the golden has numpy's rounding
    check_same_model(GOLDEN "gguf/llama_f16.gguf", in_work("f16.gguf"));
    struct model_file *f = open_format(in_work("bf16"));
    REQUIRE(f);
    CHECK_INT(model_file_tensor_at(f, 0)->type, DTYPE_BF16);
    model_file_close(f);
    // To nearest, ties to even; NaN stays one; what is too large becomes infinite.
    static const uint32_t f32[] = {0x3f808000, 0x3f818000, 0x3f808001, 0x7f800001, 0x7f7fffff, 0x80000001, 0xff800000};
    static const uint16_t bf16[] = {0x3f80, 0x3f82, 0x3f81, 0x7fc0, 0x7f80, 0x8000, 0xff80};
    for (size_t i = 0; i < ARRAY_LEN(f32); i++) CHECK_INT(f32_to_bf16(float_of_bits(f32[i])), bf16[i]);
}

TEST(q8_0_is_ggufs) {
    convert(GOLDEN "parity/gpt2", in_work("q8.gguf"), WRITE_Q8_0);
    struct model_file *ours = open_format(in_work("q8.gguf")), *golden = open_format(GOLDEN "gguf/gpt2_q8_0.gguf");
    REQUIRE(ours && golden);
    size_t same = 0;
    for (size_t i = 0; i < golden->n_tensors; i++) {
        const struct tensor *g = &golden->tensors[i], *t = model_file_tensor(ours, g->name);
        REQUIRE(t);
        if (g->type != t->type) continue; // positions are f32 in ours, as in llama.cpp
        CHECK(t->n_bytes == g->n_bytes && memcmp(t->data, g->data, g->n_bytes) == 0);
        same += g->type == DTYPE_Q8_0;
    }
    CHECK_INT(same, 9);
    CHECK_INT(model_file_tensor(ours, "transformer.wpe.weight")->type, DTYPE_F32);
    CHECK_INT(model_file_tensor(ours, "transformer.h.0.ln_1.weight")->type, DTYPE_F32);
    model_file_close(ours);
    model_file_close(golden);
}

// ---- made models ----

static void fill_numbers(void *ctx, const struct tensor_out *t, size_t row, size_t n_rows, float *out) {
    const size_t n = t->n_dims == 2 ? t->shape[1] : t->shape[0];
    for (size_t i = 0; i < n_rows * n; i++) out[i] = (float)((row * n + i) * 37 % 1001) / 500 - 1;
}

static const struct model_config tiny = {.arch = ARCH_GPT2, .norm = NORM_LAYERNORM, .position = POSITION_LEARNED, .mlp = MLP_GELU_TANH,
                                         .n_layer = 1, .n_head = 1, .n_kv_head = 1, .head_size = 4, .n_embd = 4, .n_inner = 12,
                                         .n_vocab = 300, .n_ctx = 8, .norm_eps = 1e-5f, .attn_bias = true, .mlp_bias = true};

// All of tiny's tensors, untied, without query, key and value biases.
static size_t tiny_tensors(const struct model_config *c, struct tensor_out out[20]) {
    const struct {
        const char *name;
        size_t rows, cols;
    } list[] = {
        {"transformer.wte.weight", c->n_vocab, 4}, {"transformer.wpe.weight", 8, 4},          {"transformer.ln_f.weight", 4, 0},
        {"transformer.ln_f.bias", 4, 0},           {"transformer.h.0.ln_1.weight", 4, 0},     {"transformer.h.0.ln_1.bias", 4, 0},
        {"transformer.h.0.ln_2.weight", 4, 0},     {"transformer.h.0.ln_2.bias", 4, 0},       {"transformer.h.0.attn.c_attn.weight", 4, 12},
        {"transformer.h.0.mlp.c_fc.bias", 12, 0},  {"transformer.h.0.attn.c_proj.bias", 4, 0}, {"transformer.h.0.attn.c_proj.weight", 4, 4},
        {"transformer.h.0.mlp.c_fc.weight", 4, 12}, {"transformer.h.0.mlp.c_proj.bias", 4, 0}, {"transformer.h.0.mlp.c_proj.weight", 12, 4},
        {"lm_head.weight", c->n_vocab, 4},
    };
    for (size_t i = 0; i < ARRAY_LEN(list); i++)
        out[i] = (struct tensor_out){.name = list[i].name, .n_dims = list[i].cols ? 2 : 1,
                                     .shape = {list[i].rows, list[i].cols ? list[i].cols : 1}, .fill = fill_numbers};
    return ARRAY_LEN(list);
}

TEST(order_and_biases) {
    struct err err = {0};
    struct tensor_out t[20], reversed[20];
    const size_t n = tiny_tensors(&tiny, t);
    for (size_t i = 0; i < n; i++) reversed[i] = t[n - 1 - i];
    CHECK(hf_dir_write(in_work("a"), &tiny, t, n, WRITE_F16, NULL, &err));
    CHECK(hf_dir_write(in_work("b"), &tiny, reversed, n, WRITE_F16, NULL, &err));
    check_same_bytes(in_work("a/model.safetensors"), in_work("b/model.safetensors"));
    CHECK(gguf_write(in_work("a.gguf"), &tiny, t, n, WRITE_F32, NULL, NULL, &err));
    CHECK(gguf_write(in_work("b.gguf"), &tiny, reversed, n, WRITE_F32, NULL, NULL, &err));
    check_same_bytes(in_work("a.gguf"), in_work("b.gguf"));
    CHECK(gguf_write(in_work("q8.gguf"), &tiny, t, n, WRITE_Q8_0, NULL, NULL, &err)); // rows of 4: f16
    struct model_file *hf = open_format(in_work("a")), *gguf = open_format(in_work("a.gguf")), *q8 = open_format(in_work("q8.gguf"));
    REQUIRE(hf && gguf && q8);
    CHECK(!hf->config.qkv_bias && !hf->config.tied_head);
    CHECK(gguf->config.qkv_bias && !gguf->config.tied_head); // llama.cpp wants them: zeros
    const struct tensor *bias = model_file_tensor(gguf, "transformer.h.0.attn.c_attn.bias");
    float zeros[12];
    REQUIRE(bias);
    tensor_vector(bias, zeros);
    for (size_t i = 0; i < 12; i++) CHECK(zeros[i] == 0);
    CHECK_INT(model_file_tensor(q8, "transformer.h.0.attn.c_attn.weight")->type, DTYPE_F16);
    model_file_close(hf), model_file_close(gguf), model_file_close(q8);
}

static void check_same_tokenizer(const struct tokenizer *a, const struct tokenizer *b) {
    static const char text[] = "The  quick\n\nbrown fox's 12345 caf\xc3\xa9 \xf0\x9f\x98\x80 <|endoftext|><|im_start|>user<|eot_id|>\tif x:\r\n  y";
    CHECK_INT(tokenizer_size(a), tokenizer_size(b));
    CHECK(tokenizer_bos(a) == tokenizer_bos(b) && tokenizer_eos(a) == tokenizer_eos(b) && tokenizer_pad(a) == tokenizer_pad(b));
    CHECK(tokenizer_add_bos(a) == tokenizer_add_bos(b) && tokenizer_pre(a) == tokenizer_pre(b));
    CHECK_INT(tokenizer_ignore_merges(a), tokenizer_ignore_merges(b));
    for (uint32_t id = 0; id < tokenizer_size(a) && id < tokenizer_size(b); id++) {
        size_t n, m;
        const char *x = tokenizer_bytes(a, id, &n), *y = tokenizer_bytes(b, id, &m);
        if (n != m || memcmp(x, y, n) != 0 || tokenizer_is_special(a, id) != tokenizer_is_special(b, id)) TEST_FAIL("token %u differs", id);
    }
    for (int special = 0; special < 2; special++) {
        struct ids x = {0}, y = {0};
        tokenizer_encode(a, text, sizeof(text) - 1, special, &x);
        tokenizer_encode(b, text, sizeof(text) - 1, special, &y);
        CHECK(x.len > 0 && x.len == y.len && memcmp(x.data, y.data, x.len * sizeof(*x.data)) == 0);
        ids_finish(&x), ids_finish(&y);
    }
}

TEST(tokenizers) {
    static const char *const dirs[] = {GOLDEN "tokenizer/gpt2", GOLDEN "tokenizer/smollm", GOLDEN "tokenizer/llama3"};
    for (size_t i = 0; i < ARRAY_LEN(dirs); i++) {
        struct err err = {0};
        struct tokenizer *t = tokenizer_load_dir(dirs[i], &err);
        if (!t) TEST_FAIL("%s", err.message);
        REQUIRE(t);
        struct model_config c = tiny;
        c.n_vocab = tokenizer_size(t) + 5; // an embedding with rows to spare
        struct tensor_out tensors[20];
        const size_t n = tiny_tensors(&c, tensors);
        if (!gguf_write(in_work("t.gguf"), &c, tensors, n, WRITE_F16, t, "t", &err) ||
            !hf_dir_write(in_work("t"), &c, tensors, n, WRITE_F16, t, &err))
            TEST_FAIL("%s", err.message);
        struct model_file *gguf = open_format(in_work("t.gguf")), *hf = open_format(in_work("t"));
        REQUIRE(gguf && hf && gguf->tokenizer && hf->tokenizer);
        check_same_tokenizer(t, gguf->tokenizer);
        check_same_tokenizer(t, hf->tokenizer);
        model_file_close(gguf), model_file_close(hf);
        tokenizer_destroy(t);
    }
}

static size_t entries(const char *path) {
    size_t n = 0;
    DIR *d = opendir(path);
    while (d && readdir(d)) n++;
    if (d) closedir(d);
    return n;
}

TEST(failures_leave_nothing) {
    struct err err = {0};
    struct tensor_out t[20];
    const size_t n = tiny_tensors(&tiny, t);
    CHECK(!safetensors_write(in_work("no/such.safetensors"), t, n, WRITE_F32, NULL, &err));
    CHECK_INT(err.code, ERR_NOT_FOUND);
    CHECK(!safetensors_write(in_work("x.safetensors"), t, n, WRITE_Q8_0, NULL, &err));
    CHECK_INT(err.code, ERR_UNSUPPORTED);
    const size_t before = entries(work);
    t[3].name = "transformer.h.0.strange.weight";
    CHECK(!gguf_write(in_work("strange.gguf"), &tiny, t, n, WRITE_F32, NULL, NULL, &err));
    CHECK_STR(err.message, "llama.cpp has no name for the tensor \"transformer.h.0.strange.weight\"");
    CHECK_INT(entries(work), before);
}

int main(int argc, char **argv) {
    snprintf(work, sizeof(work), "/tmp/couplet-write-XXXXXX");
    if (!mkdtemp(work)) return 1;
    const int status = test_main("model_write", argc, argv);
    return dir_remove(work, NULL) ? status : 1;
}
