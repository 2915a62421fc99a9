// SPDX-License-Identifier: MIT
// The parameters of a model in training, f32, under their checkpoint names and in HF's shapes; which of them are trained; LoRA's factors.
//
// Three blocks, mapped once: `frozen` (weights that stay), `trained` (weights that move) and `grads` (same layout as `trained`). Full
// training has everything in `trained`, LoRA has the base in `frozen` and the factors in `trained`. Each array starts at a multiple of 16 floats;
// the gaps are zero and stay zero. Thread: the trainer's.
#pragma once

#include "base/pool.h"
#include "engine/model/model_file.h"

enum train_method { TRAIN_FULL, TRAIN_LORA, TRAIN_FREEZE };

struct lora_options {
    size_t rank;                // >= 1
    float alpha;                // the delta is alpha / rank * B A
    const char *const *targets; // checkpoint's own module names: "c_attn", "q_proj", ...; full suffixes ("attn.c_proj") too
    size_t n_targets;           // 0: every linear layer of the blocks
};
struct params_options {
    enum train_method method;
    size_t trained_layers; // TRAIN_FREEZE: the last n blocks, the final norm and an untied head are trained
    struct lora_options lora;
    bool decay_all; // weight decay on every parameter; otherwise on those with two dimensions
    uint64_t seed;  // of LoRA's A (kaiming uniform as PEFT: U(+-1/sqrt(n_in))); B is zero
    bool inference; // nothing is trained: no gradients (evaluation)
};

struct param {
    const char *name; // "transformer.h.0.attn.c_attn.weight"; LoRA: PEFT's, "base_model.model.transformer.h.0.attn.c_attn.lora_A.weight"
    int n_dims;
    size_t shape[2], n; // n floats
    float *w;
    float *grad; // NULL: frozen
    bool decay;
};

struct lora { // of one linear layer; A [rank][n_in], B [n_out][rank]
    struct param *a, *b;
    float scale; // alpha / rank
};
struct param_linear { // y[R][n_out] = x W (+ bias) (+ scale * (x A^T) B^T)
    struct param *w, *bias; // bias NULL: none
    bool conv1d;            // w is [n_in][n_out] (GPT-2), else [n_out][n_in]
    size_t n_in, n_out;
    struct lora lora; // a NULL: none
};
struct param_layer {
    struct param *norm1_w, *norm1_b, *norm2_w, *norm2_b; // b NULL for rmsnorm
    struct param_linear qkv[3];                          // GPT-2: one, C -> 3C; Llama: q, k, v
    size_t n_qkv;
    struct param_linear out;   // NH HS -> C
    struct param_linear up[2]; // GPT-2: one, C -> F; Llama: gate, up
    size_t n_up;
    struct param_linear down; // F -> C
};
struct params {
    struct model_config config;
    struct params_options options; // targets are not kept
    struct param *items;           // every one, trained ones in block order
    size_t n_items;
    struct param *embedding, *positions; // wte / embed_tokens; wpe or NULL
    struct param_layer *layers;          // [L]
    struct param *norm_w, *norm_b;
    struct param *head; // the embedding where tied
    float *frozen, *trained, *grads;
    size_t n_frozen, n_trained; // floats with the gaps
    size_t n_parameters, n_trainable; // counts without
    struct arena *names;
};

// How random weights are drawn. gpt2: N(0, 0.02), output projections of attention and mlp scaled by 1 / sqrt(2 L), biases 0, norms 1 (Llama alike);
// torch: what nn.Embedding and nn.Linear do (N(0, 1), U(+-1/sqrt(n_in)), biases U(+-1/sqrt(n_in))).
enum init_kind { INIT_GPT2, INIT_TORCH };

// Weights from an opened file, expanded to f32 (on the pool). ERR_INVALID with param "--lora-targets" for a target that matches nothing.
// A weight that is NaN or infinite: ERR_CORRUPT with its name.
struct params *params_from_file(const struct model_file *f, const struct params_options *o, struct pool *pool, struct err *err) MUST_CHECK;
struct params *params_random(const struct model_config *c, enum init_kind init, uint64_t init_seed, const struct params_options *o, struct pool *pool,
                             struct err *err) MUST_CHECK;
void params_destroy(struct params *p); // accepts NULL
struct param *params_find(const struct params *p, const char *name); // NULL: none
