// SPDX-License-Identifier: MIT
// Models of any shape with random f32 weights, made in memory: shapes that no checkpoint has find what round numbers hide.
#pragma once

#include "base/buf.h"
#include "base/mem.h"
#include "engine/infer/model.h"
#include "engine/model/model_internal.h"

#include <stdio.h>

struct shape {
    bool llama;
    size_t n_layer, n_head, n_kv_head, head_size, n_embd, n_inner, n_vocab, n_ctx; // gpt2: n_kv_head = n_head, n_embd = n_head * head_size
    bool seed; // gpt2 as the seed makes it: "qkv_bias": false and an untied head
};

struct odd_model { // zeroed: nothing
    struct buf header, data, file, config;
    struct model *model;
};

// One tensor of `rows` x `cols` (cols 0: a vector), mean + [-scale, scale).
static inline void odd_tensor(struct odd_model *m, const char *name, size_t rows, size_t cols, float mean, float scale) {
    static uint32_t state = 12345;
    size_t begin = m->data.len, n = rows * (cols ? cols : 1);
    for (size_t i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        float x = mean + scale * ((float)(state >> 8) * 0x1p-23f - 1);
        buf_add(&m->data, &x, sizeof x);
    }
    buf_printf(&m->header, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[%zu", m->header.len ? "," : "{", name, rows);
    if (cols) buf_printf(&m->header, ",%zu", cols);
    buf_printf(&m->header, "],\"data_offsets\":[%zu,%zu]}", begin, m->data.len);
}

static inline void odd_layer(struct odd_model *m, const struct shape *s, size_t i, float scale) {
    size_t C = s->n_embd, Q = s->n_head * s->head_size, K = s->n_kv_head * s->head_size, F = s->n_inner;
    static const char *const llama[] = {"input_layernorm", "post_attention_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                                        "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"};
    static const char *const gpt2[] = {"ln_1", "ln_2", "attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"};
    size_t llama_shapes[][2] = {{C, 0}, {C, 0}, {Q, C}, {K, C}, {K, C}, {C, Q}, {F, C}, {F, C}, {C, F}};
    size_t gpt2_shapes[][2] = {{C, 0}, {C, 0}, {C, 3 * C}, {C, C}, {C, F}, {F, C}};
    for (size_t k = 0; k < (s->llama ? ARRAY_LEN(llama) : ARRAY_LEN(gpt2)); k++) {
        const size_t *shape = s->llama ? llama_shapes[k] : gpt2_shapes[k];
        char name[128];
        snprintf(name, sizeof name, "%s.%zu.%s.weight", s->llama ? "model.layers" : "transformer.h", i, s->llama ? llama[k] : gpt2[k]);
        odd_tensor(m, name, shape[0], shape[1], k < 2, scale);
        if (s->llama || (s->seed && k == 2)) continue;
        snprintf(name, sizeof name, "transformer.h.%zu.%s.bias", i, gpt2[k]);
        odd_tensor(m, name, k < 2 ? C : shape[1], 0, 0, scale);
    }
}

static inline void odd_model_finish(struct odd_model *m) {
    model_release(m->model);
    buf_finish(&m->header), buf_finish(&m->data), buf_finish(&m->file), buf_finish(&m->config);
    *m = (struct odd_model){0};
}

static inline void odd_model_write(struct odd_model *m, const struct shape *s, float scale) {
    *m = (struct odd_model){0};
    odd_tensor(m, s->llama ? "model.embed_tokens.weight" : "transformer.wte.weight", s->n_vocab, s->n_embd, 0, 1);
    if (!s->llama) odd_tensor(m, "transformer.wpe.weight", s->n_ctx, s->n_embd, 0, 1);
    for (size_t i = 0; i < s->n_layer; i++) odd_layer(m, s, i, scale);
    odd_tensor(m, s->llama ? "model.norm.weight" : "transformer.ln_f.weight", s->n_embd, 0, 1, scale);
    if (!s->llama) odd_tensor(m, "transformer.ln_f.bias", s->n_embd, 0, 0, scale);
    if (s->seed) odd_tensor(m, "lm_head.weight", s->n_vocab, s->n_embd, 0, 1);
    buf_add_byte(&m->header, '}');
    while (m->header.len % 8) buf_add_byte(&m->header, ' ');
    uint64_t n = m->header.len;
    buf_add(&m->file, &n, sizeof n);
    buf_add(&m->file, m->header.data, m->header.len);
    buf_add(&m->file, m->data.data, m->data.len);
    if (s->llama)
        buf_printf(&m->config,
                   "{\"model_type\":\"llama\",\"architectures\":[\"LlamaForCausalLM\"],\"hidden_act\":\"silu\",\"rms_norm_eps\":1e-5,"
                   "\"rope_theta\":10000.0,\"tie_word_embeddings\":true,\"num_hidden_layers\":%zu,\"num_attention_heads\":%zu,"
                   "\"num_key_value_heads\":%zu,\"head_dim\":%zu,\"hidden_size\":%zu,\"intermediate_size\":%zu,\"vocab_size\":%zu,"
                   "\"max_position_embeddings\":%zu}",
                   s->n_layer, s->n_head, s->n_kv_head, s->head_size, s->n_embd, s->n_inner, s->n_vocab, s->n_ctx);
    else
        buf_printf(&m->config,
                   "{\"model_type\":\"gpt2\",\"n_layer\":%zu,\"n_head\":%zu,\"n_embd\":%zu,\"n_inner\":%zu,\"vocab_size\":%zu,\"n_positions\":%zu%s}",
                   s->n_layer, s->n_head, s->n_embd, s->n_inner, s->n_vocab, s->n_ctx,
                   s->seed ? ",\"qkv_bias\":false,\"tie_word_embeddings\":false" : "");
}

static inline bool odd_model_open(struct odd_model *m, struct pool *pool, struct err *err) {
    struct model_file *f = model_file_open_hf_memory(m->config.data, m->config.len, m->file.data, m->file.len, err);
    m->model = f ? model_create(f, WEIGHTS_AUTO, pool, err) : NULL;
    return m->model;
}

// False: refused, err says why; m is to be finished all the same.
static inline bool odd_model_make(struct odd_model *m, const struct shape *s, float scale, struct pool *pool, struct err *err) {
    odd_model_write(m, s, scale);
    return odd_model_open(m, pool, err);
}
