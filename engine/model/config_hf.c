// SPDX-License-Identifier: MIT
// config.json of Hugging Face transformers: GPT2LMHeadModel, LlamaForCausalLM and Mistral without a sliding window, as
// version 4 writes it (rope_theta, rope_scaling at top level) and as version 5 does (rope_parameters).
//
// Two steps: the table below reads every key that could change what the model computes, then one function per family
// turns them into a model_config. Invariant: a value that asks for something the engine does not do is refused by field
// and value, never ignored. A missing key means transformers' default; null means missing. Pure functions; any thread.
#include "engine/model/model_internal.h"

#include "base/json.h"
#include "base/mem.h"

#include <math.h>
#include <string.h>

enum { TEXT_MAX = 64 };

// Absent: 0 for sizes, NaN for reals, -1 for flags, "" for texts.
struct hf_rope {
    char type[TEXT_MAX];
    double theta, factor, low_freq_factor, high_freq_factor, original_ctx, partial;
};
struct hf_config {
    char architecture[TEXT_MAX], model_type[TEXT_MAX], activation[TEXT_MAX];
    size_t n_layer, n_head, n_kv_head, head_dim, n_embd, n_inner, n_vocab, n_ctx, sliding_window;
    double eps, rope_theta, partial_rotary;
    int tied, attention_bias, mlp_bias, qkv_bias, scale_attn, scale_by_layer, cross_attention;
    bool has_sliding_window; // the key is there, null or not
    bool quantized;
    struct hf_rope rope;
};

enum kind { KIND_SIZE, KIND_REAL, KIND_FLAG, KIND_TEXT };
struct field {
    const char *key;
    enum kind kind;
    size_t offset;
};

#define HF(member) offsetof(struct hf_config, member)
static const struct field fields[] = {
    {"model_type", KIND_TEXT, HF(model_type)},
    {"activation_function", KIND_TEXT, HF(activation)},
    {"hidden_act", KIND_TEXT, HF(activation)},
    {"n_layer", KIND_SIZE, HF(n_layer)},
    {"num_hidden_layers", KIND_SIZE, HF(n_layer)},
    {"n_head", KIND_SIZE, HF(n_head)},
    {"num_attention_heads", KIND_SIZE, HF(n_head)},
    {"num_key_value_heads", KIND_SIZE, HF(n_kv_head)},
    {"head_dim", KIND_SIZE, HF(head_dim)},
    {"n_embd", KIND_SIZE, HF(n_embd)},
    {"hidden_size", KIND_SIZE, HF(n_embd)},
    {"n_inner", KIND_SIZE, HF(n_inner)},
    {"intermediate_size", KIND_SIZE, HF(n_inner)},
    {"vocab_size", KIND_SIZE, HF(n_vocab)},
    {"n_positions", KIND_SIZE, HF(n_ctx)},
    {"max_position_embeddings", KIND_SIZE, HF(n_ctx)},
    {"sliding_window", KIND_SIZE, HF(sliding_window)},
    {"layer_norm_epsilon", KIND_REAL, HF(eps)},
    {"rms_norm_eps", KIND_REAL, HF(eps)},
    {"rope_theta", KIND_REAL, HF(rope_theta)},
    {"partial_rotary_factor", KIND_REAL, HF(partial_rotary)},
    {"tie_word_embeddings", KIND_FLAG, HF(tied)},
    {"attention_bias", KIND_FLAG, HF(attention_bias)},
    {"mlp_bias", KIND_FLAG, HF(mlp_bias)},
    {"qkv_bias", KIND_FLAG, HF(qkv_bias)},
    {"scale_attn_weights", KIND_FLAG, HF(scale_attn)},
    {"scale_attn_by_inverse_layer_idx", KIND_FLAG, HF(scale_by_layer)},
    {"add_cross_attention", KIND_FLAG, HF(cross_attention)},
};
#undef HF

#define ROPE(member) offsetof(struct hf_rope, member)
static const struct field rope_fields[] = {
    {"rope_type", KIND_TEXT, ROPE(type)},
    {"type", KIND_TEXT, ROPE(type)},
    {"rope_theta", KIND_REAL, ROPE(theta)},
    {"factor", KIND_REAL, ROPE(factor)},
    {"low_freq_factor", KIND_REAL, ROPE(low_freq_factor)},
    {"high_freq_factor", KIND_REAL, ROPE(high_freq_factor)},
    {"original_max_position_embeddings", KIND_REAL, ROPE(original_ctx)},
    {"partial_rotary_factor", KIND_REAL, ROPE(partial)},
};
#undef ROPE

static bool text_read(struct json *j, char out[TEXT_MAX], struct err *err) {
    struct buf b = {0};
    bool ok = json_read_string(j, &b, err);
    if (ok && (b.len >= TEXT_MAX || memchr(buf_str(&b), 0, b.len)))
        ok = json_fail(j, err, "a name here is longer than any known one");
    if (ok) memcpy(out, buf_str(&b), b.len + 1);
    buf_finish(&b);
    return ok;
}

static bool field_read(struct json *j, const struct field *f, void *base, struct err *err) {
    void *at = (char *)base + f->offset;
    if (json_peek(j) == JSON_NULL) return json_read_null(j, err);
    bool flag;
    switch (f->kind) {
    case KIND_SIZE: return json_read_size(j, at, err);
    case KIND_REAL: return json_read_double(j, at, err);
    case KIND_TEXT: return text_read(j, at, err);
    case KIND_FLAG:
        if (!json_read_bool(j, &flag, err)) return false;
        *(int *)at = flag;
        return true;
    }
    return false;
}

static const struct field *field_find(const struct field *list, size_t n, const struct buf *key) {
    for (size_t i = 0; i < n; i++)
        if (buf_is(key, list[i].key)) return &list[i];
    return NULL;
}

static bool rope_read(struct json *j, struct hf_rope *r, struct err *err) {
    if (json_peek(j) == JSON_NULL) return json_read_null(j, err);
    struct buf key = {0};
    bool ok = json_open(j, '{', err);
    while (ok && json_next_key(j, &key, err)) {
        const struct field *f = field_find(rope_fields, ARRAY_LEN(rope_fields), &key);
        ok = f ? field_read(j, f, r, err) : json_skip(j, err);
    }
    buf_finish(&key);
    return ok && !j->failed;
}

// The first entry names the class that wrote the file.
static bool architectures_read(struct json *j, char out[TEXT_MAX], struct err *err) {
    if (json_peek(j) == JSON_NULL) return json_read_null(j, err);
    if (!json_open(j, '[', err)) return false;
    for (bool first = true; json_next_item(j, err); first = false)
        if (!(first ? text_read(j, out, err) : json_skip(j, err))) return false;
    return !j->failed;
}

static bool top_level_read(struct json *j, const struct buf *key, struct hf_config *c, struct err *err) {
    if (buf_is(key, "architectures")) return architectures_read(j, c->architecture, err);
    if (buf_is(key, "rope_scaling") || buf_is(key, "rope_parameters")) return rope_read(j, &c->rope, err);
    if (buf_is(key, "quantization_config")) c->quantized = json_peek(j) != JSON_NULL;
    if (buf_is(key, "sliding_window")) c->has_sliding_window = true;
    const struct field *f = field_find(fields, ARRAY_LEN(fields), key);
    return f ? field_read(j, f, c, err) : json_skip(j, err);
}

static bool hf_read(const char *text, size_t len, struct hf_config *c, struct err *err) {
    struct json j;
    struct buf key = {0};
    json_init(&j, text, len);
    bool ok = json_open(&j, '{', err);
    while (ok && json_next_key(&j, &key, err)) ok = top_level_read(&j, &key, c, err);
    ok = ok && !j.failed && json_finish(&j, err);
    buf_finish(&key);
    return ok;
}

static bool unsupported(struct err *err, const char *field, const char *value, const char *supported) {
    return err_set_param(err, ERR_UNSUPPORTED, field, "%s %s is not supported, only %s", field, value, supported);
}

static bool is_one_of(const char *s, const char *a, const char *b) { return strcmp(s, a) == 0 || strcmp(s, b) == 0; }

static bool gpt2_config(const struct hf_config *h, struct model_config *c, struct err *err) {
    if (h->activation[0] && !is_one_of(h->activation, "gelu_new", "gelu_pytorch_tanh"))
        return unsupported(err, "activation_function", h->activation, "gelu_new and gelu_pytorch_tanh");
    if (h->scale_attn == 0) return unsupported(err, "scale_attn_weights", "false", "true");
    if (h->scale_by_layer == 1) return unsupported(err, "scale_attn_by_inverse_layer_idx", "true", "false");
    if (h->cross_attention == 1) return unsupported(err, "add_cross_attention", "true", "false");
    if (h->n_head == 0) return err_set_param(err, ERR_CORRUPT, "n_head", "config.json gives no positive n_head");
    const size_t n_inner = h->n_inner ? h->n_inner : h->n_embd * 4;
    *c = config_gpt2(h->n_layer, h->n_head, h->n_embd, n_inner, h->n_vocab, h->n_ctx);
    if (!isnan(h->eps)) c->norm_eps = (float)h->eps;
    c->qkv_bias = h->qkv_bias != 0;
    c->tied_head = h->tied != 0;
    return true;
}

static bool rope_config(const struct hf_config *h, struct model_config *c, struct err *err) {
    const struct hf_rope *r = &h->rope;
    c->rope_theta = !isnan(r->theta) ? r->theta : !isnan(h->rope_theta) ? h->rope_theta : 10000;
    const double partial = !isnan(r->partial) ? r->partial : h->partial_rotary;
    if (!isnan(partial) && partial != 1) return unsupported(err, "partial_rotary_factor", "other than 1", "1");
    if (!r->type[0] || strcmp(r->type, "default") == 0) return true;
    c->rope_linear = strcmp(r->type, "linear") == 0;
    if (!c->rope_linear && strcmp(r->type, "llama3") != 0)
        return unsupported(err, "rope_scaling.rope_type", r->type, "default, linear and llama3");
    c->rope_scaling.factor = r->factor > 0 ? r->factor : NAN; // 0 would mean "none": config_check refuses NaN
    c->rope_scaling.low_freq_factor = r->low_freq_factor;
    c->rope_scaling.high_freq_factor = r->high_freq_factor;
    c->rope_scaling.original_ctx = r->original_ctx;
    return true;
}

static bool llama_config(const struct hf_config *h, bool mistral, struct model_config *c, struct err *err) {
    if (h->activation[0] && !is_one_of(h->activation, "silu", "swish"))
        return unsupported(err, "hidden_act", h->activation, "silu");
    // A window as long as the context is none. Mistral's default, when the key is missing, is 4096.
    const size_t window = h->sliding_window ? h->sliding_window : mistral && !h->has_sliding_window ? 4096 : 0;
    if (window && window < h->n_ctx)
        return err_set_param(err, ERR_UNSUPPORTED, "sliding_window", "sliding_window %zu is not supported, only null",
                             window);
    if (h->n_head == 0)
        return err_set_param(err, ERR_CORRUPT, "num_attention_heads",
                             "config.json gives no positive num_attention_heads");
    *c = (struct model_config){
        .arch = ARCH_LLAMA,
        .norm = NORM_RMSNORM,
        .position = POSITION_ROTARY,
        .mlp = MLP_SWIGLU,
        .n_layer = h->n_layer,
        .n_head = h->n_head,
        .n_kv_head = h->n_kv_head ? h->n_kv_head
                     : mistral    ? 8
                                  : h->n_head,
        .head_size = h->head_dim ? h->head_dim : h->n_embd / h->n_head,
        .n_embd = h->n_embd,
        .n_inner = h->n_inner,
        .n_vocab = h->n_vocab,
        .n_ctx = h->n_ctx,
        .norm_eps = (float)(isnan(h->eps) ? 1e-6 : h->eps),
        .attn_bias = h->attention_bias == 1,
        .qkv_bias = h->attention_bias == 1,
        .mlp_bias = h->mlp_bias == 1,
        .tied_head = h->tied == 1,
    };
    return rope_config(h, c, err);
}

static bool family_config(const struct hf_config *h, struct model_config *c, struct err *err) {
    const char *a = h->architecture, *t = h->model_type;
    if (h->quantized) return unsupported(err, "quantization_config", "of any kind", "plain f32, f16 and bf16 weights");
    if (strcmp(a, "GPT2LMHeadModel") == 0 || (!a[0] && strcmp(t, "gpt2") == 0)) return gpt2_config(h, c, err);
    if (strcmp(a, "LlamaForCausalLM") == 0 || (!a[0] && strcmp(t, "llama") == 0)) return llama_config(h, false, c, err);
    if (strcmp(a, "MistralForCausalLM") == 0 || (!a[0] && strcmp(t, "mistral") == 0))
        return llama_config(h, true, c, err);
    if (!a[0] && !t[0])
        return err_set_param(err, ERR_CORRUPT, "architectures",
                             "config.json names neither architectures nor model_type");
    return unsupported(err, a[0] ? "architectures" : "model_type", a[0] ? a : t,
                       "GPT2LMHeadModel, LlamaForCausalLM and MistralForCausalLM");
}

bool config_hf_parse(const char *text, size_t len, struct model_config *out, struct err *err) {
    struct hf_config h = {
        .eps = NAN,
        .rope_theta = NAN,
        .partial_rotary = NAN,
        .tied = -1,
        .attention_bias = -1,
        .mlp_bias = -1,
        .qkv_bias = -1,
        .scale_attn = -1,
        .scale_by_layer = -1,
        .cross_attention = -1,
        .rope = {.theta = NAN,
                 .factor = NAN,
                 .low_freq_factor = NAN,
                 .high_freq_factor = NAN,
                 .original_ctx = NAN,
                 .partial = NAN},
    };
    struct model_config c;
    if (!hf_read(text, len, &h, err)) return json_corrupt(err);
    if (!family_config(&h, &c, err) || !config_check(&c, err)) return false;
    *out = c;
    return true;
}
