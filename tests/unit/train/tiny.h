// SPDX-License-Identifier: MIT
// Tiny models with random weights everywhere (a zero bias would hide a lost one) and batches of random tokens, for the tests of training.
#pragma once

#include "base/mem.h"
#include "base/rng.h"
#include "engine/train/network.h"

enum tiny_kind { TINY_GPT2, TINY_GPT2_SEED, TINY_LLAMA, TINY_LLAMA_BIASED }; // SEED: untied head, no qkv bias

static inline struct model_config tiny_config(enum tiny_kind kind) {
    bool llama = kind >= TINY_LLAMA;
    return (struct model_config){
        .arch = llama ? ARCH_LLAMA : ARCH_GPT2, .norm = llama ? NORM_RMSNORM : NORM_LAYERNORM, .position = llama ? POSITION_ROTARY : POSITION_LEARNED,
        .mlp = llama ? MLP_SWIGLU : MLP_GELU_TANH, .n_layer = 3, .n_head = 4, .n_kv_head = llama ? 2 : 4, .head_size = 6, .n_embd = 24,
        .n_inner = llama ? 50 : 96, .n_vocab = 101, .n_ctx = 64, .norm_eps = 1e-5f, .attn_bias = !llama || kind == TINY_LLAMA_BIASED,
        .qkv_bias = kind == TINY_GPT2 || kind == TINY_LLAMA_BIASED, .mlp_bias = !llama || kind == TINY_LLAMA_BIASED,
        .tied_head = kind == TINY_GPT2 || kind == TINY_LLAMA_BIASED, .rope_theta = llama ? 10000 : 0,
    };
}

static inline struct params *tiny_params(enum tiny_kind kind, const struct params_options *o) {
    struct model_config c = tiny_config(kind);
    struct params *p = params_random(&c, INIT_GPT2, 1, o, NULL, NULL);
    for (size_t i = 0; p && i < p->n_items; i++) {
        struct param *item = &p->items[i];
        bool norm = strstr(item->name, "ln_") || strstr(item->name, "norm");
        for (size_t k = 0; k < item->n; k++)
            item->w[k] = (float)(rng_uniform(7 + i, k) - 0.5) * 0.3f + (norm && strstr(item->name, ".weight") ? 1 : 0);
    }
    return p;
}

enum { TINY_ROWS = 128 };
struct tiny_batch {
    struct batch b;
    uint32_t ids[TINY_ROWS], starts[TINY_ROWS + 1];
    int32_t targets[TINY_ROWS];
};

// Segments of the given lengths; a third of the targets ignored.
static inline void tiny_batch_init(struct tiny_batch *t, const size_t *lengths, size_t n, uint64_t seed) {
    size_t rows = 0, supervised = 0;
    for (size_t i = 0; i < n; i++) t->starts[i] = (uint32_t)rows, rows += lengths[i];
    t->starts[n] = (uint32_t)rows;
    for (size_t r = 0; r < rows; r++) {
        t->ids[r] = (uint32_t)(rng_uniform(seed, 2 * r) * 101);
        t->targets[r] = r % 3 == 1 ? TARGET_IGNORED : (int32_t)(rng_uniform(seed, 2 * r + 1) * 101);
        supervised += t->targets[r] >= 0;
    }
    t->b = (struct batch){.n_rows = rows, .ids = t->ids, .targets = t->targets, .n_segments = n, .starts = t->starts, .n_supervised = supervised};
}

// Segments [first, first + n) of t as a batch of their own.
static inline void tiny_batch_part(struct tiny_batch *out, const struct tiny_batch *t, size_t first, size_t n) {
    size_t at = t->starts[first], rows = t->starts[first + n] - at;
    memcpy(out->ids, t->ids + at, rows * sizeof *out->ids);
    memcpy(out->targets, t->targets + at, rows * sizeof *out->targets);
    for (size_t i = 0; i <= n; i++) out->starts[i] = t->starts[first + i] - (uint32_t)at;
    out->b = (struct batch){.n_rows = rows, .ids = out->ids, .targets = out->targets, .n_segments = n, .starts = out->starts, .first_row = at};
    for (size_t r = 0; r < rows; r++) out->b.n_supervised += out->targets[r] >= 0;
}
