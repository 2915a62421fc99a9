// SPDX-License-Identifier: MIT
// The list of a model's parameters, which of them are trained, and their blocks. params_init.c fills the blocks.
//
// Invariants: (1) items never moves, so slots and callers may point into it; (2) items lie in HF's order, LoRA's factors behind the
// linear layer they belong to; (3) w and grad of a trained item lie at the same offset in `trained` and `grads`.
#include "engine/train/params_internal.h"

#include "base/arena.h"
#include "base/mem.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { ITEMS_TOP = 6, ITEMS_LAYER = 4 + 7 * 4 }; // most a model and a layer can have: 7 linear layers with bias, A and B

struct builder {
    struct params *p;
    const struct params_options *o;
    bool *trained;      // [items]
    bool *targets_seen; // [o->lora.n_targets]
    size_t layer;       // in which the next items lie; n_layer: behind the last
};

static char *name_of(struct builder *b, const char *module, const char *suffix) {
    return arena_printf(b->p->names, "%s%s", module, suffix);
}

static bool method_trains(const struct builder *b, bool embedding) {
    if (b->o->inference || b->o->method == TRAIN_LORA) return false;
    return b->o->method == TRAIN_FULL || (!embedding && b->layer + b->o->trained_layers >= b->p->config.n_layer);
}

// cols 0: a vector.
static struct param *item_add(struct builder *b, const char *name, size_t rows, size_t cols, bool trained) {
    struct params *p = b->p;
    b->trained[p->n_items] = trained;
    struct param *item = &p->items[p->n_items++];
    *item = (struct param){.name = name, .n_dims = cols ? 2 : 1, .shape = {rows, cols ? cols : 1}};
    item->n = rows * item->shape[1]; // of a checked configuration: does not overflow
    item->decay = cols || b->o->decay_all;
    return item;
}

// Whether LoRA is asked for on `module`: a target is its name or a whole suffix of it.
static bool lora_wanted(struct builder *b, const char *module) {
    if (b->o->inference || b->o->method != TRAIN_LORA) return false;
    bool wanted = b->o->lora.n_targets == 0;
    size_t len = strlen(module);
    for (size_t i = 0; i < b->o->lora.n_targets; i++) {
        size_t n = strlen(b->o->lora.targets[i]);
        if (n == 0 || n > len || strcmp(module + len - n, b->o->lora.targets[i]) != 0 || (n < len && module[len - n - 1] != '.')) continue;
        b->targets_seen[i] = wanted = true;
    }
    return wanted;
}

static void linear_add(struct builder *b, struct param_linear *l, const char *at, const char *name, size_t n_in, size_t n_out, bool bias) {
    bool conv1d = b->p->config.arch == ARCH_GPT2, trained = method_trains(b, false);
    const char *module = name_of(b, at, name);
    *l = (struct param_linear){.conv1d = conv1d, .n_in = n_in, .n_out = n_out};
    l->w = item_add(b, name_of(b, module, ".weight"), conv1d ? n_in : n_out, conv1d ? n_out : n_in, trained);
    if (bias) l->bias = item_add(b, name_of(b, module, ".bias"), n_out, 0, trained);
    if (!lora_wanted(b, module)) return;
    const char *peft = arena_printf(b->p->names, "base_model.model.%s", module);
    l->lora.a = item_add(b, name_of(b, peft, ".lora_A.weight"), b->o->lora.rank, n_in, true);
    l->lora.b = item_add(b, name_of(b, peft, ".lora_B.weight"), n_out, b->o->lora.rank, true);
    l->lora.scale = b->o->lora.alpha / (float)b->o->lora.rank;
}

static void norm_add(struct builder *b, struct param **w, struct param **bias, const char *at, const char *name) {
    size_t C = b->p->config.n_embd;
    const char *module = name_of(b, at, name);
    *w = item_add(b, name_of(b, module, ".weight"), C, 0, method_trains(b, false));
    if (b->p->config.norm == NORM_LAYERNORM) *bias = item_add(b, name_of(b, module, ".bias"), C, 0, method_trains(b, false));
}

static void gpt2_layer_add(struct builder *b, struct param_layer *y) {
    const struct model_config *c = &b->p->config;
    size_t C = c->n_embd, F = c->n_inner;
    const char *at = arena_printf(b->p->names, "transformer.h.%zu.", b->layer);
    norm_add(b, &y->norm1_w, &y->norm1_b, at, "ln_1");
    linear_add(b, &y->qkv[y->n_qkv++], at, "attn.c_attn", C, 3 * C, c->qkv_bias);
    linear_add(b, &y->out, at, "attn.c_proj", C, C, c->attn_bias);
    norm_add(b, &y->norm2_w, &y->norm2_b, at, "ln_2");
    linear_add(b, &y->up[y->n_up++], at, "mlp.c_fc", C, F, c->mlp_bias);
    linear_add(b, &y->down, at, "mlp.c_proj", F, C, c->mlp_bias);
}

static void llama_layer_add(struct builder *b, struct param_layer *y) {
    const struct model_config *c = &b->p->config;
    size_t C = c->n_embd, F = c->n_inner, Q = c->n_head * c->head_size, K = c->n_kv_head * c->head_size;
    const char *at = arena_printf(b->p->names, "model.layers.%zu.", b->layer);
    norm_add(b, &y->norm1_w, &y->norm1_b, at, "input_layernorm");
    linear_add(b, &y->qkv[y->n_qkv++], at, "self_attn.q_proj", C, Q, c->qkv_bias);
    linear_add(b, &y->qkv[y->n_qkv++], at, "self_attn.k_proj", C, K, c->qkv_bias);
    linear_add(b, &y->qkv[y->n_qkv++], at, "self_attn.v_proj", C, K, c->qkv_bias);
    linear_add(b, &y->out, at, "self_attn.o_proj", Q, C, c->attn_bias);
    norm_add(b, &y->norm2_w, &y->norm2_b, at, "post_attention_layernorm");
    linear_add(b, &y->up[y->n_up++], at, "mlp.gate_proj", C, F, c->mlp_bias);
    linear_add(b, &y->up[y->n_up++], at, "mlp.up_proj", C, F, c->mlp_bias);
    linear_add(b, &y->down, at, "mlp.down_proj", F, C, c->mlp_bias);
}

static void model_add(struct builder *b) {
    struct params *p = b->p;
    const struct model_config *c = &p->config;
    bool gpt2 = c->arch == ARCH_GPT2;
    p->embedding = item_add(b, gpt2 ? "transformer.wte.weight" : "model.embed_tokens.weight", c->n_vocab, c->n_embd, method_trains(b, true));
    if (c->position == POSITION_LEARNED) p->positions = item_add(b, "transformer.wpe.weight", c->n_ctx, c->n_embd, method_trains(b, true));
    for (b->layer = 0; b->layer < c->n_layer; b->layer++) {
        if (gpt2) gpt2_layer_add(b, &p->layers[b->layer]);
        else llama_layer_add(b, &p->layers[b->layer]);
    }
    norm_add(b, &p->norm_w, &p->norm_b, "", gpt2 ? "transformer.ln_f" : "model.norm");
    p->head = c->tied_head ? p->embedding : item_add(b, "lm_head.weight", c->n_vocab, c->n_embd, method_trains(b, false));
}

static size_t item_room(const struct param *item) { return (item->n + 15) / 16 * 16; }

static bool blocks_map(struct builder *b, struct err *err) {
    struct params *p = b->p;
    for (size_t i = 0; i < p->n_items; i++) {
        *(b->trained[i] ? &p->n_trained : &p->n_frozen) += item_room(&p->items[i]);
        p->n_parameters += p->items[i].n;
        p->n_trainable += b->trained[i] ? p->items[i].n : 0;
    }
    if (p->n_frozen && !(p->frozen = mem_map_array(p->n_frozen * sizeof(float), "frozen weights", err))) return false;
    if (p->n_trained && !(p->trained = mem_map_array(p->n_trained * sizeof(float), "trained weights", err))) return false;
    if (p->n_trained && !(p->grads = mem_map_array(p->n_trained * sizeof(float), "gradients", err))) return false;
    size_t frozen = 0, trained = 0;
    for (size_t i = 0; i < p->n_items; i++) {
        struct param *item = &p->items[i];
        size_t *at = b->trained[i] ? &trained : &frozen;
        item->w = (b->trained[i] ? p->trained : p->frozen) + *at;
        if (b->trained[i]) item->grad = p->grads + *at;
        *at += item_room(item);
    }
    return true;
}

static bool options_check(const struct builder *b, struct err *err) {
    const struct params_options *o = b->o;
    if (o->method == TRAIN_LORA && (o->lora.rank < 1 || o->lora.rank > 1 << 16))
        return err_set_param(err, ERR_INVALID, "--lora-rank", "a LoRA rank of %zu: it must be 1 or more", o->lora.rank);
    return true;
}

struct params *params_build(const struct model_config *c, const struct params_options *o, struct err *err) {
    struct params *p = mem_new(struct params);
    struct builder b = {.p = p, .o = o};
    *p = (struct params){.config = *c, .options = *o, .names = mem_new(struct arena)};
    p->options.lora.targets = NULL;
    p->options.lora.n_targets = 0;
    if (c->rope_divisors) { // the model file's own: a copy outlives it
        float *divisors = arena_alloc(p->names, c->head_size / 2, sizeof *divisors);
        memcpy(divisors, c->rope_divisors, c->head_size / 2 * sizeof *divisors);
        p->config.rope_divisors = divisors;
    }
    size_t n_max = ITEMS_TOP + c->n_layer * ITEMS_LAYER;
    p->items = mem_try_alloc(n_max, sizeof *p->items, "the parameters' table", err);
    p->layers = p->items ? mem_try_alloc(c->n_layer, sizeof *p->layers, "the layers' table", err) : NULL;
    bool ok = p->layers && options_check(&b, err);
    b.trained = mem_alloc(n_max, sizeof *b.trained);
    b.targets_seen = mem_alloc(MAX(o->lora.n_targets, (size_t)1), sizeof *b.targets_seen);
    if (ok) {
        model_add(&b);
        assert(p->n_items <= n_max);
        for (size_t i = 0; ok && o->method == TRAIN_LORA && !o->inference && i < o->lora.n_targets; i++)
            if (!b.targets_seen[i])
                ok = err_set_param(err, ERR_INVALID, "--lora-targets", "no linear layer of this model is called \"%s\"; it has %s", o->lora.targets[i],
                                   c->arch == ARCH_GPT2 ? "c_attn, attn.c_proj, c_fc, mlp.c_proj"
                                                        : "q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj");
    }
    ok = ok && blocks_map(&b, err);
    free(b.trained);
    free(b.targets_seen);
    if (ok) return p;
    params_destroy(p);
    return NULL;
}

void params_destroy(struct params *p) {
    if (!p) return;
    mem_unmap_array(p->frozen, p->n_frozen * sizeof(float));
    mem_unmap_array(p->trained, p->n_trained * sizeof(float));
    mem_unmap_array(p->grads, p->n_trained * sizeof(float));
    arena_finish(p->names);
    free(p->names);
    free(p->items);
    free(p->layers);
    free(p);
}

struct param *params_find(const struct params *p, const char *name) {
    for (size_t i = 0; i < p->n_items; i++)
        if (strcmp(p->items[i].name, name) == 0) return &p->items[i];
    return NULL;
}
