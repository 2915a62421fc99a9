// SPDX-License-Identifier: MIT
// A GGUF container as a model: configuration from metadata, tensors under their HF names, the tokenizer.
//
// Where GGUF differs from HF: (1) GPT-2's Conv1D weights are stored transposed (tensor.transposed); (2) rows of Llama's
// q and k are permuted for ggml's interleaved rotation (tensor.rope_heads undoes it); (3) llama3 rope scaling is a
// tensor of divisors, rope_freqs.weight; (4) a missing output.weight means a tied head. Key names: llama.cpp,
// gguf-py/gguf/constants.py. Any thread.
#include "engine/model/gguf.h"
#include "engine/model/model_internal.h"

#include "base/mem.h"
#include "engine/model/tensor.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEY_BYTES = 96 };

struct reader { // reads "ARCH.key" metadata; the first bad value sticks
    const struct gguf *g;
    const char *arch;
    struct err *err;
    bool failed;
};

static void arch_key(const struct reader *r, const char *key, char out[KEY_BYTES]) {
    snprintf(out, KEY_BYTES, "%s.%s", r->arch, key);
}

static size_t size_of(struct reader *r, const char *key, size_t absent) {
    char name[KEY_BYTES];
    size_t v = absent;
    arch_key(r, key, name);
    if (!r->failed && gguf_get_size(r->g, name, &v, r->err) == GGUF_BAD) r->failed = true;
    return v;
}

static double real_of(struct reader *r, const char *key, double absent) {
    char name[KEY_BYTES];
    double v = absent;
    arch_key(r, key, name);
    if (!r->failed && gguf_get_real(r->g, name, &v, r->err) == GGUF_BAD) r->failed = true;
    return v;
}

static bool text_is(const struct gguf_bytes *b, const char *s) {
    return b->len == strlen(s) && memcmp(b->s, s, b->len) == 0;
}

static const struct gguf_tensor *tensor_find(const struct gguf *g, const char *name) {
    for (size_t i = 0; i < g->n_tensors; i++)
        if (text_is(&g->tensors[i].name, name)) return &g->tensors[i];
    return NULL;
}

static bool unsupported(const struct reader *r, const char *key, const char *what) {
    char name[KEY_BYTES];
    arch_key(r, key, name);
    return err_set_param(r->err, ERR_UNSUPPORTED, name, "GGUF metadata \"%s\" asks for %s, which is not supported",
                         name, what);
}

// Settings of llama.cpp's graph that this program does not have, with the value that means "off".
static bool neutral_check(struct reader *r, const struct model_config *c) {
    static const struct {
        const char *key;
        double off;
    } reals[] = {
        {"attention.scale", 0},          {"logit_scale", 1},
        {"residual_scale", 1},           {"embedding_scale", 1},
        {"attention.max_alibi_bias", 0}, {"attention.clamp_kqv", 0},
        {"rope.scaling.attn_factor", 1}, {"final_logit_softcapping", 0},
        {"attn_logit_softcapping", 0},
    };
    for (size_t i = 0; i < ARRAY_LEN(reals); i++) {
        const double v = real_of(r, reals[i].key, reals[i].off);
        if (!r->failed && v != reals[i].off && v != 0) return unsupported(r, reals[i].key, "a value of its own");
    }
    if (size_of(r, "expert_count", 0) > 0 && !r->failed) return unsupported(r, "expert_count", "a mixture of experts");
    const size_t window = size_of(r, "attention.sliding_window", 0);
    if (window > 0 && window < c->n_ctx && !r->failed)
        return unsupported(r, "attention.sliding_window", "a sliding window");
    const size_t rotated = size_of(r, "rope.dimension_count", c->head_size);
    if (c->arch == ARCH_LLAMA && rotated != c->head_size && !r->failed)
        return unsupported(r, "rope.dimension_count", "a partial rotation");
    const size_t value_size = size_of(r, "attention.value_length", c->head_size);
    if (value_size != c->head_size && !r->failed)
        return unsupported(r, "attention.value_length", "values of another size than keys");
    return !r->failed;
}

static bool rope_config(struct reader *r, struct model_config *c) {
    char name[KEY_BYTES];
    struct gguf_bytes type = {"none", 4};
    c->rope_theta = real_of(r, "rope.freq_base", 10000);
    const double factor = real_of(r, "rope.scaling.factor", real_of(r, "rope.scale_linear", 0));
    arch_key(r, "rope.scaling.type", name);
    if (r->failed) return false;
    const enum gguf_got got = gguf_get_string(r->g, name, &type, r->err);
    if (got == GGUF_BAD) return false;
    const bool linear = got == GGUF_GOT ? text_is(&type, "linear") : factor != 0;
    if (!linear && !text_is(&type, "none"))
        return unsupported(r, "rope.scaling.type", "another scaling than none or linear");
    if (!linear || factor == 0) return true;
    c->rope_linear = true;
    c->rope_scaling.factor = factor;
    return true;
}

static bool config_read(const struct gguf *g, enum arch arch, struct model_config *c, struct err *err) {
    const bool gpt2 = arch == ARCH_GPT2;
    struct reader r = {.g = g, .arch = gpt2 ? "gpt2" : "llama", .err = err};
    const struct gguf_tensor *embedding = tensor_find(g, "token_embd.weight");
    if (!embedding) return err_set(err, ERR_CORRUPT, "the tensor token_embd.weight is missing");
    *c = (struct model_config){
        .arch = arch,
        .norm = gpt2 ? NORM_LAYERNORM : NORM_RMSNORM,
        .position = gpt2 ? POSITION_LEARNED : POSITION_ROTARY,
        .mlp = gpt2 ? MLP_GELU_TANH : MLP_SWIGLU,
        .n_layer = size_of(&r, "block_count", 0),
        .n_head = size_of(&r, "attention.head_count", 0),
        .n_embd = size_of(&r, "embedding_length", 0),
        .n_inner = size_of(&r, "feed_forward_length", 0),
        .n_vocab = embedding->ne[1],
        .n_ctx = size_of(&r, "context_length", 0),
        .tied_head = !tensor_find(g, "output.weight"),
        .attn_bias = gpt2 || tensor_find(g, "blk.0.attn_q.bias"),
        .qkv_bias = tensor_find(g, gpt2 ? "blk.0.attn_qkv.bias" : "blk.0.attn_q.bias"),
        .mlp_bias = gpt2 || tensor_find(g, "blk.0.ffn_up.bias"),
        .norm_eps = (float)real_of(&r, gpt2 ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon",
                                   gpt2 ? 1e-5 : NAN),
    };
    c->n_kv_head = size_of(&r, "attention.head_count_kv", c->n_head);
    c->head_size = size_of(&r, "attention.key_length", c->n_head ? c->n_embd / c->n_head : 0);
    const size_t n_vocab = size_of(&r, "vocab_size", c->n_vocab);
    if (r.failed) return false;
    if (n_vocab != c->n_vocab)
        return err_set(err, ERR_CORRUPT, "the metadata say %zu vocabulary entries, but the embedding has %zu rows",
                       n_vocab, c->n_vocab);
    if (gpt2 && c->n_kv_head != c->n_head)
        return unsupported(&r, "attention.head_count_kv", "shared key/value heads in GPT-2");
    if (!gpt2 && !rope_config(&r, c)) return false;
    return config_check(c, err) && neutral_check(&r, c);
}

// llama.cpp divides each rotary frequency by its entry here: how its converter stores "llama3" scaling.
static bool divisors_load(struct model_file *f, const struct gguf_tensor *t, struct err *err) {
    const size_t n = f->config.head_size / 2;
    if (f->config.arch != ARCH_LLAMA || t->type != DTYPE_F32 || t->n_dims != 1 || t->ne[0] != n || f->rope_divisors)
        return err_set(err, ERR_CORRUPT, "the tensor rope_freqs.weight is not one vector of %zu F32 numbers", n);
    f->rope_divisors = mem_try_alloc(n, sizeof(float), "rotary frequencies", err);
    if (!f->rope_divisors) return false;
    dequantize(t->type, t->data, f->rope_divisors, n);
    for (size_t i = 0; i < n; i++)
        if (!isfinite(f->rope_divisors[i]) || f->rope_divisors[i] <= 0)
            return err_set(err, ERR_CORRUPT,
                           "the tensor rope_freqs.weight holds a value that is not a positive number");
    f->config.rope_divisors = f->rope_divisors;
    return true;
}

static bool tensor_add(struct model_file *f, const struct gguf_tensor *g, struct err *err) {
    const struct model_config *c = &f->config;
    char name[MODEL_MAX_NAME + 1], hf[MODEL_MAX_NAME + 1];
    size_t layer;
    snprintf(name, sizeof(name), "%.*s", (int)g->name.len, g->name.s);
    if (strcmp(name, "rope_freqs.weight") == 0) return divisors_load(f, g, err);
    const struct slot *s = slot_find_gguf(c->arch, name, &layer);
    if (!s)
        return err_set(err, ERR_UNSUPPORTED, "the file has a tensor \"%s\" that this architecture does not account for",
                       name);
    const size_t n_dims = s->cols == DIM_NONE ? 1 : 2;
    if (g->ne[2] != 1 || g->ne[3] != 1 || (n_dims == 1 && g->ne[1] != 1))
        return err_set(err, ERR_CORRUPT, "tensor \"%s\" has too many dimensions", name);
    slot_hf_name(c->arch, s, layer, hf);
    struct tensor t = {
        .type = g->type, .n_dims = (int)n_dims, .data = g->data, .n_bytes = g->n_bytes, .transposed = s->conv1d};
    t.shape[0] = n_dims == 2 && !s->conv1d ? g->ne[1] : g->ne[0];
    t.shape[1] = n_dims == 1 ? 1 : s->conv1d ? g->ne[1] : g->ne[0];
    // A row count that is no multiple of 2 heads never matches the configuration; names_check reports it before any row
    // is read.
    if (s->rope != SLOT_PLAIN) t.rope_heads = s->rope == SLOT_ROPE_Q ? c->n_head : c->n_kv_head;
    return model_file_add(f, &t, hf, err);
}

// Texts of an array of strings, in an array of their own. *out is NULL when the key is absent. ERR_TOO_LARGE past
// `max`.
static bool strings_read(const struct gguf *g, const char *key, size_t max, struct str **out, size_t *n,
                         struct err *err) {
    const struct gguf_value *v = gguf_find(g, key);
    *out = NULL, *n = 0;
    if (!v) return true;
    if (v->type != GGUF_ARRAY || v->item != GGUF_STRING)
        return err_set_param(err, ERR_CORRUPT, key, "GGUF metadata \"%s\" is not an array of strings", key);
    if (v->count > max)
        return err_set_param(err, ERR_TOO_LARGE, key, "GGUF metadata \"%s\" has %zu entries, more than %zu", key,
                             v->count, max);
    struct str *list = mem_try_alloc(v->count, sizeof(*list), "vocabulary", err);
    if (!list) return false;
    const unsigned char *p = v->data;
    for (size_t i = 0; i < v->count; i++) {
        uint64_t len = 0;
        for (int b = 7; b >= 0; b--) len = len << 8 | p[b];
        list[i] = (struct str){(const char *)p + 8, (size_t)len};
        p += 8 + len;
    }
    *out = list, *n = v->count;
    return true;
}

static bool types_read(const struct gguf *g, size_t n, int32_t **out, struct err *err) {
    const struct gguf_value *v = gguf_find(g, "tokenizer.ggml.token_type");
    *out = NULL;
    if (!v) return true;
    if (v->type != GGUF_ARRAY || (v->item != GGUF_I32 && v->item != GGUF_U32) || v->count != n)
        return err_set(err, ERR_CORRUPT,
                       "GGUF metadata \"tokenizer.ggml.token_type\" is not one integer for each token");
    *out = mem_try_alloc(n, sizeof(**out), "vocabulary", err);
    if (*out && n) memcpy(*out, v->data, n * sizeof(**out));
    return *out != NULL;
}

static bool special_id(const struct gguf *g, const char *key, size_t n_tokens, int64_t *out, struct err *err) {
    size_t id;
    *out = -1;
    const enum gguf_got got = gguf_get_size(g, key, &id, err);
    if (got == GGUF_GOT && id >= n_tokens && id != UINT32_MAX) // 2^32 - 1 is llama.cpp's "none"
        return err_set_param(err, ERR_CORRUPT, key, "GGUF metadata \"%s\" is %zu, but there are %zu tokens", key, id,
                             n_tokens);
    if (got == GGUF_GOT && id < n_tokens) *out = (int64_t)id;
    return got != GGUF_BAD;
}

static bool vocab_read(const struct gguf *g, struct gguf_vocab *v, struct arena *a, struct err *err) {
    struct gguf_bytes pre = {"", 0}, template = {NULL, 0};
    if (!special_id(g, "tokenizer.ggml.bos_token_id", v->n_tokens, &v->bos, err) ||
        !special_id(g, "tokenizer.ggml.eos_token_id", v->n_tokens, &v->eos, err) ||
        !special_id(g, "tokenizer.ggml.padding_token_id", v->n_tokens, &v->pad, err) ||
        gguf_get_bool(g, "tokenizer.ggml.add_bos_token", &v->add_bos, err) == GGUF_BAD ||
        gguf_get_string(g, "tokenizer.ggml.pre", &pre, err) == GGUF_BAD ||
        gguf_get_string(g, "tokenizer.chat_template", &template, err) == GGUF_BAD)
        return false;
    v->pre = (struct str){pre.s, pre.len};
    if (template.s) v->chat_template = arena_strndup(a, template.s, template.len);
    return true;
}

static bool tokenizer_read(struct model_file *f, const struct gguf *g, struct err *err) {
    struct gguf_bytes model = {NULL, 0};
    if (gguf_get_string(g, "tokenizer.ggml.model", &model, err) == GGUF_BAD) return false;
    if (!model.s || text_is(&model, "none") || text_is(&model, "no_vocab")) return true;
    struct str *tokens = NULL, *merges = NULL;
    int32_t *types = NULL;
    struct arena arena = {0};
    struct gguf_vocab v = {.model = {model.s, model.len}};
    bool ok = strings_read(g, "tokenizer.ggml.tokens", MIN(f->config.n_vocab, (size_t)MODEL_MAX_VOCAB), &tokens,
                           &v.n_tokens, err) &&
              strings_read(g, "tokenizer.ggml.merges", 2 * (size_t)MODEL_MAX_VOCAB, &merges, &v.n_merges, err) &&
              types_read(g, v.n_tokens, &types, err) && vocab_read(g, &v, &arena, err);
    if (ok) {
        v.tokens = tokens, v.merges = merges, v.types = types;
        f->tokenizer = tokenizer_create_gguf(&v, err);
        ok = f->tokenizer != NULL;
    }
    free(tokens);
    free(merges);
    free(types);
    arena_finish(&arena);
    return ok;
}

static bool model_read(struct model_file *f, const struct gguf *g, struct err *err) {
    struct gguf_bytes name;
    const enum gguf_got got = gguf_get_string(g, "general.architecture", &name, err);
    if (got == GGUF_ABSENT) return err_set(err, ERR_CORRUPT, "the GGUF metadata \"general.architecture\" is missing");
    if (got == GGUF_BAD) return false;
    if (!text_is(&name, "gpt2") && !text_is(&name, "llama"))
        return err_set_param(err, ERR_UNSUPPORTED, "general.architecture",
                             "the architecture %.*s is not supported, only gpt2 and llama", (int)MIN(name.len, 64),
                             name.s);
    if (!config_read(g, text_is(&name, "gpt2") ? ARCH_GPT2 : ARCH_LLAMA, &f->config, err)) return false;
    for (size_t i = 0; i < g->n_tensors; i++)
        if (!tensor_add(f, &g->tensors[i], err)) return false;
    return tokenizer_read(f, g, err);
}

bool gguf_load(struct model_file *f, const unsigned char *data, size_t len, struct err *err) {
    struct gguf g;
    if (!gguf_parse(&g, data, len, err)) return false;
    const bool ok = model_read(f, &g, err);
    gguf_finish(&g);
    return ok;
}
