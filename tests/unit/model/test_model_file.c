// SPDX-License-Identifier: MIT
// Opening whole models: the goldens under tests/golden, GGUF against HF tensor by tensor, configurations that must be
// refused by field and value.
#include "tests/unit/test.h"

#include "base/buf.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "engine/model/model_internal.h"
#include "engine/model/tensor.h"

#define GOLDEN "tests/golden/"

static struct model_file *open_golden(const char *path) {
    struct err err = {0};
    struct model_file *f = model_file_open(path, &err);
    if (!f) TEST_FAIL("%s: %s", path, err.message);
    return f;
}

TEST(gpt2_directory) {
    struct model_file *f = open_golden(GOLDEN "parity/gpt2");
    REQUIRE(f);
    const struct model_config *c = model_file_config(f);
    CHECK_INT(c->arch, ARCH_GPT2);
    CHECK(c->norm == NORM_LAYERNORM && c->position == POSITION_LEARNED && c->mlp == MLP_GELU_TANH);
    CHECK(c->attn_bias && c->mlp_bias && c->tied_head);
    CHECK_INT(c->n_layer, 2);
    CHECK_INT(c->head_size, 8);
    CHECK_INT(c->n_inner, 128);
    CHECK_INT(c->n_ctx, 48);
    CHECK_STR(model_file_format(f), "safetensors");
    CHECK_INT(model_file_tensor_count(f), 28);
    CHECK_INT(model_file_parameters(f), 36640);
    CHECK(!model_file_tokenizer(f));
    CHECK(!model_file_tensor(f, "lm_head.weight"));
    const struct tensor *t = model_file_tensor(f, "transformer.h.1.attn.c_attn.weight");
    REQUIRE(t);
    CHECK(t->n_dims == 2 && t->shape[0] == 32 && t->shape[1] == 96 && !t->transposed);
    struct err err = {0};
    CHECK(!model_file_require(f, "transformer.h.1.attn.c_attn.weight", 96, 32, &err));
    CHECK_STR(err.message,
              "the tensor transformer.h.1.attn.c_attn.weight is 32 x 96, but the configuration asks for 96 x 32");
    CHECK(!model_file_require(f, "nothing", 96, 0, &err));
    CHECK_INT(err.code, ERR_CORRUPT);
    model_file_close(f);
}

TEST(llama_shards) {
    struct model_file *f = open_golden(GOLDEN "parity/llama_bf16");
    REQUIRE(f);
    const struct model_config *c = model_file_config(f);
    CHECK(c->arch == ARCH_LLAMA && c->norm == NORM_RMSNORM && c->position == POSITION_ROTARY && c->mlp == MLP_SWIGLU);
    CHECK(!c->attn_bias && c->mlp_bias && c->tied_head && c->rope_linear);
    CHECK_NEAR(c->rope_scaling.factor, 2, 0);
    CHECK_INT(c->head_size, 12);
    CHECK_INT(c->n_kv_head, 1);
    CHECK_INT(model_file_tensor_count(f), 26);
    CHECK_INT(model_file_tensor_at(f, 0)->type, DTYPE_BF16);
    for (size_t i = 1; i < model_file_tensor_count(f); i++)
        CHECK(strcmp(model_file_tensor_at(f, i - 1)->name, model_file_tensor_at(f, i)->name) < 0);
    CHECK(!model_file_tensor_at(f, 26));
    model_file_close(f);
}

TEST(hash_is_identity) {
    unsigned char a[32], b[32], c[32];
    struct model_file *one = open_golden(GOLDEN "parity/llama"), *two = open_golden(GOLDEN "parity/llama");
    struct model_file *other = open_golden(GOLDEN "gguf/llama_q4_1.gguf");
    REQUIRE(one && two && other);
    model_file_hash(one, a);
    model_file_hash(two, b);
    model_file_hash(other, c);
    CHECK(memcmp(a, b, 32) == 0);
    CHECK(memcmp(a, c, 32) != 0);
    model_file_close(one);
    model_file_close(two);
    model_file_close(other);
}

// PyTorch's own frequencies of the golden Llama, from expected.json.
static bool expected_frequencies(float *out, size_t n) {
    size_t len, got = 0;
    struct err err = {0};
    struct json j;
    struct buf key = {0};
    char *text = file_read(GOLDEN "parity/expected.json", 1 << 20, &len, &err);
    if (!text) return false;
    json_init(&j, text, len);
    bool ok = json_open(&j, '{', &err), inside = false;
    while (ok && json_next_key(&j, &key, &err)) {
        if (!inside && buf_is(&key, "llama"))
            inside = ok = json_open(&j, '{', &err);
        else if (inside && buf_is(&key, "rope_inv_freq")) {
            ok = json_open(&j, '[', &err);
            for (double v; ok && got < n && json_next_item(&j, &err); got++)
                ok = json_read_double(&j, &v, &err), out[got] = (float)v;
            break;
        } else
            ok = json_skip(&j, &err);
    }
    buf_finish(&key);
    free(text);
    return got == n;
}

TEST(llama3_frequencies) { // HF computes them from four numbers, GGUF carries a tensor of divisors: both as PyTorch
    float want[4], have[4];
    REQUIRE(expected_frequencies(want, 4));
    static const char *const paths[] = {GOLDEN "parity/llama", GOLDEN "gguf/llama_f16.gguf",
                                        GOLDEN "gguf/llama_q4_1.gguf"};
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        struct model_file *f = open_golden(paths[i]);
        REQUIRE(f);
        model_config_rope_frequencies(model_file_config(f), have);
        for (size_t k = 0; k < 4; k++) CHECK_NEAR(have[k], want[k], 1e-6f * want[k]);
        model_file_close(f);
    }
}

// Every tensor of a GGUF equals HF's of the same name within `steps` of the block's scale; exact where the type is a
// rounding of f32.
static void compare_files(const char *gguf_path, const char *hf_path, float tolerance) {
    struct model_file *g = open_golden(gguf_path), *h = open_golden(hf_path);
    REQUIRE(g && h);
    CHECK_INT(model_file_tensor_count(g), model_file_tensor_count(h));
    CHECK_INT(model_file_parameters(g), model_file_parameters(h));
    const struct model_config *a = model_file_config(g), *b = model_file_config(h);
    CHECK(a->n_embd == b->n_embd && a->n_head == b->n_head && a->n_kv_head == b->n_kv_head &&
          a->head_size == b->head_size);
    CHECK(a->n_inner == b->n_inner && a->n_vocab == b->n_vocab && a->n_ctx == b->n_ctx && a->tied_head == b->tied_head);
    CHECK(a->attn_bias == b->attn_bias && a->mlp_bias == b->mlp_bias && a->norm_eps == b->norm_eps &&
          a->rope_theta == b->rope_theta);
    for (size_t i = 0; i < model_file_tensor_count(g); i++) {
        const struct tensor *t = model_file_tensor_at(g, i), *u = model_file_tensor(h, t->name);
        REQUIRE(u && t->n_dims == u->n_dims && t->shape[0] == u->shape[0] && t->shape[1] == u->shape[1]);
        const size_t width = t->n_dims == 2 ? t->shape[1] : t->shape[0], rows = t->n_dims == 2 ? t->shape[0] : 1;
        float *x = mem_alloc(width, sizeof(float)), *y = mem_alloc(width, sizeof(float));
        for (size_t r = 0; r < rows; r++) {
            if (t->n_dims == 2)
                tensor_row(t, r, x), tensor_row(u, r, y);
            else
                tensor_vector(t, x), tensor_vector(u, y);
            for (size_t k = 0; k < width; k++) {
                const bool same = t->type == DTYPE_F16 ? x[k] == f16_to_f32(f32_to_f16(y[k]))
                                                       : fabsf(x[k] - y[k]) <= (t->type == DTYPE_F32 ? 0 : tolerance);
                if (!same)
                    TEST_FAIL("%s row %zu column %zu: %g in GGUF, %g in HF", t->name, r, k, (double)x[k], (double)y[k]);
            }
        }
        free(x);
        free(y);
    }
    model_file_close(g);
    model_file_close(h);
}

// Weights have a deviation of 0.1, so blocks reach about 0.4: half a step is 0.4 / 254 in 8 bits, 0.4 / 15 in 4.
TEST(gguf_gpt2_equals_hf) {
    compare_files(GOLDEN "gguf/gpt2_q8_0.gguf", GOLDEN "parity/gpt2", 0.0025f);
    compare_files(GOLDEN "gguf/gpt2_q4_0.gguf", GOLDEN "parity/gpt2", 0.05f);
}
TEST(gguf_llama_equals_hf) {
    compare_files(GOLDEN "gguf/llama_f16.gguf", GOLDEN "parity/llama", 0);
    compare_files(GOLDEN "gguf/llama_q4_1.gguf", GOLDEN "parity/llama", 0.03f);
}

TEST(gguf_layout) {
    struct model_file *f = open_golden(GOLDEN "gguf/gpt2_q4_0.gguf"), *l = open_golden(GOLDEN "gguf/llama_f16.gguf");
    REQUIRE(f && l);
    const struct tensor *t = model_file_tensor(f, "transformer.h.0.mlp.c_fc.weight");
    REQUIRE(t);
    CHECK(t->transposed && t->type == DTYPE_Q4_0 && t->shape[0] == 32 && t->shape[1] == 128);
    const struct linear_view v = {t, true, 128, 32};
    CHECK(linear_view_contiguous(&v));
    CHECK_INT(model_file_tensor(l, "model.layers.1.self_attn.q_proj.bias")->rope_heads, 4);
    CHECK_INT(model_file_tensor(l, "model.layers.1.self_attn.k_proj.weight")->rope_heads, 2);
    CHECK_INT(model_file_tensor(l, "model.layers.1.self_attn.v_proj.weight")->rope_heads, 0);
    const struct tokenizer *tok = model_file_tokenizer(l);
    REQUIRE(tok);
    CHECK_INT(tokenizer_size(tok), 257);
    CHECK_INT(tokenizer_eos(tok), 256);
    model_file_close(f);
    model_file_close(l);
}

// ---- configurations ----
#define GPT2(more)                                                                                                     \
    "{\"architectures\":[\"GPT2LMHeadModel\"],\"n_layer\":12,\"n_head\":12,\"n_embd\":768,\"n_positions\":1024,"       \
    "\"vocab_size\":50257" more "}"
#define LLAMA_AS(class, more)                                                                                          \
    "{\"architectures\":[\"" class "\"],\"num_hidden_layers\":2,\"num_attention_heads\":4,\"hidden_size\":64,"         \
                                   "\"intermediate_size\":128,\"max_position_embeddings\":256,\"vocab_size\":100" more \
                                   "}"
#define LLAMA(more) LLAMA_AS("LlamaForCausalLM", more)

static void config_refused(const char *text, enum err_code code, const char *param, const char *part) {
    struct model_config c;
    struct err err = {0};
    if (config_hf_parse(text, strlen(text), &c, &err)) {
        TEST_FAIL("accepted: %s", text);
        return;
    }
    CHECK_INT(err.code, code);
    if (param) CHECK_STR(err.param, param);
    if (!strstr(err.message, part)) TEST_FAIL("\"%s\" lacks \"%s\"", err.message, part);
}

static struct model_config config_accepted(const char *text) {
    struct model_config c = {0};
    struct err err = {0};
    if (!config_hf_parse(text, strlen(text), &c, &err)) TEST_FAIL("%s: %s", err.message, text);
    return c;
}

TEST(configs_refused) {
    config_refused(GPT2(",\"activation_function\":\"relu\""), ERR_UNSUPPORTED, "activation_function", "relu");
    config_refused(GPT2(",\"activation_function\":\"gelu\""), ERR_UNSUPPORTED, "activation_function", "gelu");
    config_refused(GPT2(",\"scale_attn_by_inverse_layer_idx\":true"), ERR_UNSUPPORTED,
                   "scale_attn_by_inverse_layer_idx", "true");
    config_refused(GPT2(",\"scale_attn_weights\":false"), ERR_UNSUPPORTED, "scale_attn_weights", "false");
    config_refused(GPT2(",\"add_cross_attention\":true"), ERR_UNSUPPORTED, "add_cross_attention", "true");
    config_refused(GPT2(",\"quantization_config\":{\"bits\":4}"), ERR_UNSUPPORTED, "quantization_config",
                   "quantization_config");
    config_refused(GPT2(",\"n_head\":7"), ERR_CORRUPT, NULL, "7 heads");
    config_refused(GPT2(",\"n_head\":0"), ERR_CORRUPT, "n_head", "n_head");
    config_refused(GPT2(",\"n_layer\":-1"), ERR_CORRUPT, NULL, "");
    config_refused(GPT2(",\"n_layer\":1e9"), ERR_CORRUPT, NULL, "layer count");
    config_refused(GPT2(",\"layer_norm_epsilon\":0"), ERR_CORRUPT, NULL, "epsilon");
    config_refused(GPT2(",\"layer_norm_epsilon\":-1e-5"), ERR_CORRUPT, NULL, "epsilon");
    config_refused("{\"architectures\":[\"BertModel\"]}", ERR_UNSUPPORTED, "architectures", "BertModel");
    config_refused("{\"model_type\":\"qwen2\"}", ERR_UNSUPPORTED, "model_type", "qwen2");
    config_refused("{}", ERR_CORRUPT, "architectures", "names neither");
    config_refused("[]", ERR_CORRUPT, NULL, "");
    config_refused(LLAMA(",\"hidden_act\":\"gelu\""), ERR_UNSUPPORTED, "hidden_act", "gelu");
    config_refused(LLAMA(",\"num_key_value_heads\":3"), ERR_CORRUPT, NULL, "3 key/value heads");
    config_refused(LLAMA(",\"head_dim\":15"), ERR_CORRUPT, NULL, "odd");
    config_refused(LLAMA(",\"rope_theta\":0"), ERR_CORRUPT, "rope_theta", "rope_theta");
    config_refused(LLAMA(",\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":2}"), ERR_UNSUPPORTED,
                   "rope_scaling.rope_type", "dynamic");
    config_refused(LLAMA(",\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":2}"), ERR_UNSUPPORTED,
                   "rope_scaling.rope_type", "yarn");
    config_refused(LLAMA(",\"rope_scaling\":{\"type\":\"linear\"}"), ERR_CORRUPT, "rope_scaling.factor", "factor");
    config_refused(LLAMA(",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8}"), ERR_CORRUPT, "rope_scaling",
                   "low_freq_factor");
    config_refused(LLAMA(",\"partial_rotary_factor\":0.5"), ERR_UNSUPPORTED, "partial_rotary_factor",
                   "partial_rotary_factor");
    config_refused(LLAMA_AS("MistralForCausalLM", ",\"sliding_window\":128"), ERR_UNSUPPORTED, "sliding_window", "128");
}

TEST(configs_accepted) {
    struct model_config c = config_accepted(GPT2(",\"n_inner\":null,\"n_ctx\":1024"));
    CHECK(c.n_inner == 3072 && c.head_size == 64 && c.tied_head && c.n_kv_head == 12);
    CHECK_NEAR(c.norm_eps, 1e-5, 1e-12);
    c = config_accepted(GPT2(",\"tie_word_embeddings\":false,\"activation_function\":\"gelu_pytorch_tanh\""));
    CHECK(!c.tied_head);
    c = config_accepted(LLAMA(",\"rope_theta\":500000,\"num_key_value_heads\":2,\"tie_word_embeddings\":true"));
    CHECK(c.rope_theta == 500000 && c.n_kv_head == 2 && c.tied_head && c.rope_scaling.factor == 0);
    c = config_accepted(
        LLAMA(",\"rope_parameters\":{\"rope_type\":\"llama3\",\"rope_theta\":5e5,\"factor\":32,\"low_freq_factor\":1,"
              "\"high_freq_factor\":4,\"original_max_position_embeddings\":8192}"));
    CHECK(c.rope_theta == 500000 && c.rope_scaling.factor == 32 && c.rope_scaling.original_ctx == 8192 &&
          !c.rope_linear && !c.tied_head);
    c = config_accepted(LLAMA_AS("MistralForCausalLM", ",\"sliding_window\":null,\"num_key_value_heads\":4"));
    CHECK(c.arch == ARCH_LLAMA && c.n_kv_head == 4);
}

// ---- names as other programs write them ----
TEST(names_without_prefix) { // OpenAI's upload of GPT-2 has no "transformer." and carries the causal masks as attn.bias
    size_t len, config_len;
    struct err err = {0};
    char *config = file_read(GOLDEN "parity/gpt2/config.json", 1 << 20, &config_len, &err);
    char *data = file_read(GOLDEN "parity/gpt2/model.safetensors", 1 << 20, &len, &err);
    REQUIRE(config && data);
    uint64_t header_len;
    memcpy(&header_len, data, 8);
    struct buf file = {0};
    buf_reserve(&file, len);
    buf_add(&file, data, 8);
    for (size_t i = 8; i < 8 + header_len; i++) {
        if (strncmp(data + i, "\"transformer.", 13) == 0)
            buf_add_byte(&file, '"'), i += 12;
        else if (i == 8 + header_len - 1 || data[i] != ' ')
            buf_add_byte(&file, (unsigned char)data[i]);
    }
    while (file.data[file.len - 1] != '}') file.len--;
    char mask[160];
    snprintf(mask, sizeof(mask),
             ",\"h.0.attn.bias\":{\"dtype\":\"U8\",\"shape\":[1,1,4,4],\"data_offsets\":[%zu,%zu]}}",
             len - 8 - (size_t)header_len, len - 8 - (size_t)header_len + 16);
    file.len--;
    buf_add_str(&file, mask);
    const uint64_t new_len = file.len - 8;
    memcpy(file.data, &new_len, 8);
    buf_add(&file, data + 8 + header_len, len - 8 - header_len);
    buf_add(&file, "0123456789abcdef", 16);
    struct model_file *f = model_file_open_hf_memory(config, config_len, file.data, file.len, &err);
    if (!f) TEST_FAIL("%s", err.message);
    if (f) {
        CHECK_INT(model_file_tensor_count(f), 28);
        CHECK(model_file_tensor(f, "transformer.h.0.ln_1.weight") != NULL);
    }
    model_file_close(f);
    buf_finish(&file);
    free(config);
    free(data);
}

TEST_MAIN("model_file")
