// SPDX-License-Identifier: MIT
// The tables of tensors that each architecture has: Hugging Face name, llama.cpp's GGUF name, shape, condition.
//
// One table serves the name mapping, the shape check and the refusal of strange tensors: a weight that this program
// would not use could change what the model computes elsewhere, so it is refused rather than ignored. Pure functions;
// any thread.
#include "engine/model/model_internal.h"

#include "base/mem.h"

#include <stdio.h>
#include <string.h>

static const struct slot gpt2_slots[] = {
    {"transformer.wte.weight", "token_embd.weight", DIM_V, DIM_C},
    {"transformer.wpe.weight", "position_embd.weight", DIM_T, DIM_C},
    {"transformer.ln_f.weight", "output_norm.weight", DIM_C},
    {"transformer.ln_f.bias", "output_norm.bias", DIM_C},
    {"lm_head.weight", "output.weight", DIM_V, DIM_C, SLOT_UNTIED},
    {"ln_1.weight", "attn_norm.weight", DIM_C, .layer = true},
    {"ln_1.bias", "attn_norm.bias", DIM_C, .layer = true},
    {"attn.c_attn.weight", "attn_qkv.weight", DIM_C, DIM_3C, .layer = true, .conv1d = true},
    {"attn.c_attn.bias", "attn_qkv.bias", DIM_3C, DIM_NONE, SLOT_QKV_BIAS, .layer = true},
    {"attn.c_proj.weight", "attn_output.weight", DIM_C, DIM_C, .layer = true, .conv1d = true},
    {"attn.c_proj.bias", "attn_output.bias", DIM_C, .layer = true},
    {"ln_2.weight", "ffn_norm.weight", DIM_C, .layer = true},
    {"ln_2.bias", "ffn_norm.bias", DIM_C, .layer = true},
    {"mlp.c_fc.weight", "ffn_up.weight", DIM_C, DIM_F, .layer = true, .conv1d = true},
    {"mlp.c_fc.bias", "ffn_up.bias", DIM_F, .layer = true},
    {"mlp.c_proj.weight", "ffn_down.weight", DIM_F, DIM_C, .layer = true, .conv1d = true},
    {"mlp.c_proj.bias", "ffn_down.bias", DIM_C, .layer = true},
};

static const struct slot llama_slots[] = {
    {"model.embed_tokens.weight", "token_embd.weight", DIM_V, DIM_C},
    {"model.norm.weight", "output_norm.weight", DIM_C},
    {"lm_head.weight", "output.weight", DIM_V, DIM_C, SLOT_UNTIED},
    {"input_layernorm.weight", "attn_norm.weight", DIM_C, .layer = true},
    {"self_attn.q_proj.weight", "attn_q.weight", DIM_Q, DIM_C, .layer = true, .rope = SLOT_ROPE_Q},
    {"self_attn.k_proj.weight", "attn_k.weight", DIM_KV, DIM_C, .layer = true, .rope = SLOT_ROPE_K},
    {"self_attn.v_proj.weight", "attn_v.weight", DIM_KV, DIM_C, .layer = true},
    {"self_attn.o_proj.weight", "attn_output.weight", DIM_C, DIM_Q, .layer = true},
    {"self_attn.q_proj.bias", "attn_q.bias", DIM_Q, DIM_NONE, SLOT_ATTN_BIAS, .layer = true, .rope = SLOT_ROPE_Q},
    {"self_attn.k_proj.bias", "attn_k.bias", DIM_KV, DIM_NONE, SLOT_ATTN_BIAS, .layer = true, .rope = SLOT_ROPE_K},
    {"self_attn.v_proj.bias", "attn_v.bias", DIM_KV, DIM_NONE, SLOT_ATTN_BIAS, .layer = true},
    {"self_attn.o_proj.bias", "attn_output.bias", DIM_C, DIM_NONE, SLOT_ATTN_BIAS, .layer = true},
    {"post_attention_layernorm.weight", "ffn_norm.weight", DIM_C, .layer = true},
    {"mlp.gate_proj.weight", "ffn_gate.weight", DIM_F, DIM_C, .layer = true},
    {"mlp.up_proj.weight", "ffn_up.weight", DIM_F, DIM_C, .layer = true},
    {"mlp.down_proj.weight", "ffn_down.weight", DIM_C, DIM_F, .layer = true},
    {"mlp.gate_proj.bias", "ffn_gate.bias", DIM_F, DIM_NONE, SLOT_MLP_BIAS, .layer = true},
    {"mlp.up_proj.bias", "ffn_up.bias", DIM_F, DIM_NONE, SLOT_MLP_BIAS, .layer = true},
    {"mlp.down_proj.bias", "ffn_down.bias", DIM_C, DIM_NONE, SLOT_MLP_BIAS, .layer = true},
};

static const struct {
    const char *base, *layer; // HF prefixes
    const struct slot *slots;
    size_t n_slots;
} arches[] = {
    [ARCH_GPT2] = {"transformer.", "transformer.h.", gpt2_slots, ARRAY_LEN(gpt2_slots)},
    [ARCH_LLAMA] = {"model.", "model.layers.", llama_slots, ARRAY_LEN(llama_slots)},
};

static bool has_prefix(const char *s, const char *prefix) { return strncmp(s, prefix, strlen(prefix)) == 0; }

static bool has_suffix(const char *s, const char *suffix) {
    const size_t n = strlen(s), m = strlen(suffix);
    return n >= m && strcmp(s + n - m, suffix) == 0;
}

bool name_is_buffer(const char *name) {
    return has_suffix(name, ".attn.bias") || has_suffix(name, ".attn.masked_bias") || has_suffix(name, ".att.mask") || has_suffix(name, "rotary_emb.inv_freq");
}

// Only the canonical decimal counts, so that
// no two names mean the same layer.
const char *name_layer(const char *name, const char *prefix, size_t *layer) {
    if (!has_prefix(name, prefix)) return NULL;
    const char *p = name + strlen(prefix), *digits = p;
    size_t n = 0;
    while (*p >= '0' && *p <= '9' && p - digits < 6) n = n * 10 + (size_t)(*p++ - '0');
    if (p == digits || *p != '.' || (*digits == '0' && p - digits > 1)) return NULL;
    *layer = n;
    return p + 1;
}

static const struct slot *slot_find(enum arch arch, const char *name, const char *layer_prefix, bool gguf,
                                    size_t *layer) {
    *layer = 0;
    const char *rest = name_layer(name, layer_prefix, layer);
    for (size_t i = 0; i < arches[arch].n_slots; i++) {
        const struct slot *s = &arches[arch].slots[i];
        if (s->layer == (rest != NULL) && strcmp(rest ? rest : name, gguf ? s->gguf : s->hf) == 0) return s;
    }
    return NULL;
}

const struct slot *slot_find_gguf(enum arch arch, const char *name, size_t *layer) {
    return slot_find(arch, name, "blk.", true, layer);
}

const struct slot *slot_find_hf(enum arch arch, const char *name, size_t *layer) {
    return slot_find(arch, name, arches[arch].layer, false, layer);
}

void slot_hf_name(enum arch arch, const struct slot *s, size_t layer, char out[MODEL_MAX_NAME + 1]) {
    if (s->layer)
        snprintf(out, MODEL_MAX_NAME + 1, "%s%zu.%s", arches[arch].layer, layer, s->hf);
    else
        snprintf(out, MODEL_MAX_NAME + 1, "%s", s->hf);
}

bool hf_name_normalize(const struct model_config *c, const char *name, char out[MODEL_MAX_NAME + 1]) {
    if (name_is_buffer(name)) return false;
    if (strcmp(name, "lm_head.weight") == 0 && c->tied_head) return false; // HF ties whatever the file says
    const char *base = arches[c->arch].base;
    const bool bare = !has_prefix(name, base) && !has_prefix(name, "lm_head.");
    snprintf(out, MODEL_MAX_NAME + 1, "%s%s", bare ? base : "", name);
    return true;
}

static size_t dim_size(const struct model_config *c, enum dim d) {
    switch (d) {
    case DIM_NONE: return 0;
    case DIM_C: return c->n_embd;
    case DIM_3C: return 3 * c->n_embd;
    case DIM_F: return c->n_inner;
    case DIM_V: return c->n_vocab;
    case DIM_T: return c->n_ctx;
    case DIM_Q: return c->n_head * c->head_size;
    case DIM_KV: return c->n_kv_head * c->head_size;
    }
    return 0;
}

static bool slot_wanted(const struct slot *s, const struct model_config *c) {
    switch (s->when) {
    case SLOT_ALWAYS: return true;
    case SLOT_ATTN_BIAS: return c->attn_bias;
    case SLOT_QKV_BIAS: return c->qkv_bias;
    case SLOT_MLP_BIAS: return c->mlp_bias;
    case SLOT_UNTIED: return !c->tied_head;
    }
    return true;
}

bool names_check(const struct model_file *f, struct err *err) {
    const struct model_config *c = &f->config;
    char name[MODEL_MAX_NAME + 1];
    for (size_t i = 0; i < arches[c->arch].n_slots; i++) {
        const struct slot *s = &arches[c->arch].slots[i];
        if (!slot_wanted(s, c)) continue;
        for (size_t layer = 0; layer < (s->layer ? c->n_layer : 1); layer++) {
            slot_hf_name(c->arch, s, layer, name);
            if (!model_file_require(f, name, dim_size(c, s->rows), dim_size(c, s->cols), err)) return false;
        }
    }
    for (size_t i = 0; i < f->n_tensors; i++) {
        size_t layer;
        const struct slot *s = slot_find_hf(c->arch, f->tensors[i].name, &layer);
        if (!s || !slot_wanted(s, c) || layer >= MAX(c->n_layer, (size_t)1))
            return err_set(err, ERR_UNSUPPORTED,
                           "the model has a tensor \"%s\" that its configuration does not account for",
                           f->tensors[i].name);
    }
    return true;
}
