// SPDX-License-Identifier: MIT
// Writing a GGUF file, version 3, as llama.cpp's converter does: its tensor names, Conv1D weights transposed, rows of rotary q and k
// interleaved, "llama3" scaling as rope_freqs.weight. Tensors by HF's name. Vectors and learned positions are f32 whatever the type asked
// for; a matrix whose rows Q8_0's blocks do not divide is f16. Sources: ggml's docs/gguf.md, llama.cpp's convert_hf_to_gguf.py. Any thread.
#include "engine/model/gguf.h"
#include "engine/model/model_internal.h"
#include "engine/model/tensor.h"
#include "engine/model/write_internal.h"

#include "base/mem.h"
#include "tokenizer/byte_alphabet.h"
#include "tokenizer/tokenizer_write.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 32, GGUF_VERSION = 3, QUANTIZATION_VERSION = 2 };

// ---- metadata ----

struct metadata {
    struct buf out;
    uint64_t n;
    const char *arch;
};

static void put_le(struct buf *out, uint64_t v, size_t n) {
    for (size_t i = 0; i < n; i++) buf_add_byte(out, (unsigned char)(v >> (8 * i)));
}

static void put_string(struct buf *out, const char *s, size_t len) {
    put_le(out, len, 8);
    buf_add(out, s, len);
}

// A key that begins with a dot is the architecture's own.
static void put_key(struct metadata *m, const char *key, enum gguf_type type) {
    char name[96];
    snprintf(name, sizeof(name), "%s%s", key[0] == '.' ? m->arch : "", key);
    put_string(&m->out, name, strlen(name));
    put_le(&m->out, type, 4);
    m->n++;
}

static void put_u32(struct metadata *m, const char *key, size_t v) {
    put_key(m, key, GGUF_U32);
    put_le(&m->out, v, 4);
}

static void put_f32(struct metadata *m, const char *key, float v) {
    put_key(m, key, GGUF_F32);
    put_le(&m->out, bits_of_float(v), 4);
}

static void put_text(struct metadata *m, const char *key, const char *s) {
    put_key(m, key, GGUF_STRING);
    put_string(&m->out, s, strlen(s));
}

static void put_array(struct metadata *m, const char *key, enum gguf_type item, size_t count) {
    put_key(m, key, GGUF_ARRAY);
    put_le(&m->out, item, 4);
    put_le(&m->out, count, 8);
}

static void put_config(struct metadata *m, const struct model_config *c, enum write_type type, const char *name) {
    static const unsigned char file_types[] = {[WRITE_F32] = 0, [WRITE_F16] = 1, [WRITE_Q8_0] = 7, [WRITE_BF16] = 32};
    const bool gpt2 = c->arch == ARCH_GPT2;
    m->arch = gpt2 ? "gpt2" : "llama";
    put_text(m, "general.architecture", m->arch);
    put_text(m, "general.type", "model");
    if (name) put_text(m, "general.name", name);
    put_u32(m, "general.file_type", file_types[type]);
    put_u32(m, "general.quantization_version", QUANTIZATION_VERSION);
    put_u32(m, ".block_count", c->n_layer);
    put_u32(m, ".context_length", c->n_ctx);
    put_u32(m, ".embedding_length", c->n_embd);
    put_u32(m, ".feed_forward_length", c->n_inner);
    put_u32(m, ".vocab_size", c->n_vocab);
    put_u32(m, ".attention.head_count", c->n_head);
    put_u32(m, ".attention.head_count_kv", c->n_kv_head);
    put_f32(m, gpt2 ? ".attention.layer_norm_epsilon" : ".attention.layer_norm_rms_epsilon", c->norm_eps);
    if (gpt2) return;
    put_u32(m, ".attention.key_length", c->head_size);
    put_u32(m, ".attention.value_length", c->head_size);
    put_u32(m, ".rope.dimension_count", c->head_size);
    put_f32(m, ".rope.freq_base", (float)c->rope_theta);
    if (!c->rope_linear) return;
    put_text(m, ".rope.scaling.type", "linear");
    put_f32(m, ".rope.scaling.factor", (float)c->rope_scaling.factor);
}

static void put_token(struct buf *out, const struct tokenizer *t, size_t id) {
    struct buf text = {0};
    size_t len = 0;
    const bool absent = id >= tokenizer_size(t) || tokenizer_is_absent(t, (uint32_t)id);
    const char *bytes = absent ? NULL : tokenizer_bytes(t, (uint32_t)id, &len);
    if (absent) buf_printf(&text, "[PAD%zu]", id); // llama.cpp's name for an unused row of the embedding
    else if (tokenizer_is_special(t, (uint32_t)id) || tokenizer_is_added(t, (uint32_t)id)) buf_add(&text, bytes, len);
    else byte_alphabet_encode(bytes, len, &text);
    put_string(out, buf_str(&text), text.len);
    buf_finish(&text);
}

static size_t token_type(const struct tokenizer *t, size_t id) { // llama.cpp's llama_token_type
    enum { NORMAL = 1, CONTROL = 3, USER_DEFINED = 4, UNUSED = 5 };
    if (id >= tokenizer_size(t) || tokenizer_is_absent(t, (uint32_t)id)) return UNUSED;
    if (tokenizer_is_special(t, (uint32_t)id)) return CONTROL;
    return tokenizer_is_added(t, (uint32_t)id) ? USER_DEFINED : NORMAL;
}

static void put_merge(struct buf *out, const struct tokenizer *t, size_t rank) {
    struct buf text = {0};
    uint32_t part[2];
    tokenizer_merge(t, rank, &part[0], &part[1]);
    for (size_t i = 0; i < 2; i++) {
        size_t len;
        const char *bytes = tokenizer_bytes(t, part[i], &len);
        if (i) buf_add_byte(&text, ' ');
        byte_alphabet_encode(bytes, len, &text);
    }
    put_string(out, text.data, text.len);
    buf_finish(&text);
}

static void put_id(struct metadata *m, const char *key, int64_t id) {
    if (id >= 0) put_u32(m, key, (size_t)id);
}

static void put_tokenizer(struct metadata *m, const struct tokenizer *t, size_t n_vocab) {
    static const char *const pre[] = {[PRE_GPT2] = "gpt-2", [PRE_SMOLLM] = "smollm", [PRE_LLAMA3] = "llama-bpe"};
    put_text(m, "tokenizer.ggml.model", t ? "gpt2" : "no_vocab");
    if (!t) return;
    // The same pattern without ignore_merges goes by another model's name.
    const bool smaug = tokenizer_pre(t) == PRE_LLAMA3 && !tokenizer_ignore_merges(t);
    put_text(m, "tokenizer.ggml.pre", smaug ? "smaug-bpe" : pre[tokenizer_pre(t)]);
    put_array(m, "tokenizer.ggml.tokens", GGUF_STRING, n_vocab);
    for (size_t id = 0; id < n_vocab; id++) put_token(&m->out, t, id);
    put_array(m, "tokenizer.ggml.token_type", GGUF_I32, n_vocab);
    for (size_t id = 0; id < n_vocab; id++) put_le(&m->out, token_type(t, id), 4);
    put_array(m, "tokenizer.ggml.merges", GGUF_STRING, tokenizer_merge_count(t));
    for (size_t rank = 0; rank < tokenizer_merge_count(t); rank++) put_merge(&m->out, t, rank);
    put_id(m, "tokenizer.ggml.bos_token_id", tokenizer_bos(t));
    put_id(m, "tokenizer.ggml.eos_token_id", tokenizer_eos(t));
    put_id(m, "tokenizer.ggml.padding_token_id", tokenizer_pad(t));
    put_key(m, "tokenizer.ggml.add_bos_token", GGUF_BOOL);
    buf_add_byte(&m->out, tokenizer_add_bos(t));
    if (tokenizer_chat_template(t)) put_text(m, "tokenizer.chat_template", tokenizer_chat_template(t));
}

// ---- tensors ----

struct part { // one tensor of the file
    const struct tensor_out *t;
    const struct slot *slot; // NULL: rope_freqs.weight
    char name[MODEL_MAX_NAME + 1];
    enum dtype type;
    size_t ne[2]; // ne[0] the fastest
};

static enum dtype type_of(const struct part *p, enum write_type type) {
    if (p->t->n_dims == 1 || p->slot->rows == DIM_T) return DTYPE_F32;
    switch (type) {
    case WRITE_F32: return DTYPE_F32;
    case WRITE_F16: return DTYPE_F16;
    case WRITE_BF16: return DTYPE_BF16;
    case WRITE_Q8_0: return p->ne[0] % dtype_block(DTYPE_Q8_0) ? DTYPE_F16 : DTYPE_Q8_0;
    }
    return DTYPE_F32;
}

static bool part_init(struct part *p, const struct tensor_out *t, const struct model_config *c, enum write_type type, struct err *err) {
    size_t layer;
    *p = (struct part){.t = t, .slot = slot_find_hf(c->arch, t->name, &layer)};
    if (!p->slot && strcmp(t->name, "rope_freqs.weight") != 0)
        return err_set(err, ERR_UNSUPPORTED, "llama.cpp has no name for the tensor \"%s\"", t->name);
    const char *name = p->slot ? p->slot->gguf : t->name;
    if (p->slot && p->slot->layer) snprintf(p->name, sizeof(p->name), "blk.%zu.%s", layer, name);
    else snprintf(p->name, sizeof(p->name), "%s", name);
    const bool across = t->n_dims == 2 && !p->slot->conv1d; // rows are GGUF's second dimension
    p->ne[0] = t->shape[across ? 1 : 0];
    p->ne[1] = t->n_dims == 1 ? 1 : t->shape[across ? 0 : 1];
    p->type = type_of(p, type);
    return true;
}

// The tensor in the file's order, all of it in memory: Conv1D transposed, rotary rows (or elements) interleaved. [ne[1]][ne[0]]
static float *part_arrange(const struct part *p, const struct model_config *c, struct err *err) {
    const struct tensor_out *t = p->t;
    const size_t rows = t->shape[0], cols = t->shape[1];
    float *out = mem_try_alloc(rows * cols, sizeof(float), t->name, err), *in = out ? mem_try_alloc(rows, sizeof(float) * cols, t->name, err) : NULL;
    if (!in) {
        free(out);
        return NULL;
    }
    tensor_out_rows(t, 0, t->n_dims == 2 ? rows : 1, in);
    // tensor_file_row knows llama.cpp's order.
    const struct tensor order = {.n_dims = t->n_dims, .shape = {rows, cols}, .rope_heads = p->slot->rope == SLOT_ROPE_Q ? c->n_head : c->n_kv_head};
    for (size_t r = 0; r < rows; r++) {
        if (!p->slot->conv1d) memcpy(out + tensor_file_row(&order, r) * cols, in + r * cols, cols * sizeof(float));
        else
            for (size_t i = 0; i < cols; i++) out[i * rows + r] = in[r * cols + i];
    }
    free(in);
    return out;
}

static void pad(struct file_writer *w) {
    static const char zeros[ALIGNMENT];
    file_writer_add(w, zeros, (ALIGNMENT - w->written % ALIGNMENT) % ALIGNMENT);
}

static bool part_write(struct file_writer *w, const struct part *p, const struct model_config *c, struct err *err) {
    struct tensor_out t = *p->t;
    float *arranged = NULL;
    if (p->slot && (p->slot->conv1d || p->slot->rope != SLOT_PLAIN)) {
        arranged = part_arrange(p, c, err);
        if (!arranged) return false;
        t.data = arranged;
        if (t.n_dims == 2) t.shape[0] = p->ne[1], t.shape[1] = p->ne[0];
    }
    const bool ok = tensor_out_write(w, &t, p->type, err);
    pad(w);
    free(arranged);
    return ok;
}

static void parts_list(const struct part *parts, size_t n, struct buf *out) {
    static const unsigned char types[DTYPE_COUNT] = {[DTYPE_F32] = 0, [DTYPE_F16] = 1, [DTYPE_Q8_0] = 8, [DTYPE_BF16] = 30};
    uint64_t offset = 0;
    for (size_t i = 0; i < n; i++) {
        const struct part *p = &parts[i];
        put_string(out, p->name, strlen(p->name));
        put_le(out, (uint64_t)p->t->n_dims, 4);
        for (int d = 0; d < p->t->n_dims; d++) put_le(out, p->ne[d], 8);
        put_le(out, types[p->type], 4);
        put_le(out, offset, 8);
        const size_t bytes = p->ne[1] * (p->ne[0] / dtype_block(p->type) * dtype_block_bytes(p->type));
        offset += (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    }
}

static void zeros_fill(void *ctx, const struct tensor_out *t, size_t row, size_t n_rows, float *out) {
    memset(out, 0, t->shape[0] * sizeof(*out)); // a vector
}

// What llama.cpp's graph wants beside the model's own tensors, behind a copy of those.
static struct tensor_out *tensors_complete(const struct model_config *c, const struct tensor_out *tensors, size_t *n, struct arena *arena) {
    struct tensor_out *all = mem_alloc(*n + c->n_layer + 1, sizeof(*all));
    memcpy(all, tensors, *n * sizeof(*all));
    for (size_t i = 0; c->arch == ARCH_GPT2 && !c->qkv_bias && i < c->n_layer; i++)
        all[(*n)++] = (struct tensor_out){.name = arena_printf(arena, "transformer.h.%zu.attn.c_attn.bias", i),
                                          .n_dims = 1,
                                          .shape = {3 * c->n_embd, 1},
                                          .fill = zeros_fill};
    const bool llama3 = c->rope_scaling.factor > 0 && !c->rope_linear;
    if (c->arch != ARCH_LLAMA || (!llama3 && !c->rope_divisors)) return all;
    struct model_config plain = *c;
    plain.rope_scaling.factor = 0;
    plain.rope_divisors = NULL;
    const size_t pairs = c->head_size / 2;
    float *divisors = arena_alloc(arena, 2 * pairs, sizeof(float)), *scaled = divisors + pairs;
    model_config_rope_frequencies(&plain, divisors);
    model_config_rope_frequencies(c, scaled);
    for (size_t i = 0; i < pairs; i++) divisors[i] = c->rope_divisors ? c->rope_divisors[i] : divisors[i] / scaled[i];
    all[(*n)++] = (struct tensor_out){.name = "rope_freqs.weight", .n_dims = 1, .shape = {pairs, 1}, .data = divisors};
    return all;
}

static bool file_write(struct file_writer *w, const struct metadata *m, const struct part *parts, size_t n, const struct model_config *c,
                       struct err *err) {
    struct buf head = {0};
    buf_add(&head, "GGUF", 4);
    put_le(&head, GGUF_VERSION, 4);
    put_le(&head, n, 8);
    put_le(&head, m->n, 8);
    buf_add(&head, m->out.data, m->out.len);
    parts_list(parts, n, &head);
    file_writer_add(w, head.data, head.len);
    buf_finish(&head);
    pad(w);
    for (size_t i = 0; i < n; i++)
        if (!part_write(w, &parts[i], c, err)) return false;
    return true;
}

bool gguf_write(const char *path, const struct model_config *c, const struct tensor_out *tensors, size_t n, enum write_type type,
                const struct tokenizer *tokenizer, const char *name, struct err *err) {
    struct file_writer w = {0};
    if (!file_writer_open(&w, path, 0644, err)) return false;
    struct arena arena = {0};
    struct metadata m = {0};
    put_config(&m, c, type, name);
    put_tokenizer(&m, tokenizer, c->n_vocab);
    struct tensor_out *all = tensors_complete(c, tensors, &n, &arena);
    const struct tensor_out **list = tensors_by_name(all, n);
    struct part *parts = mem_alloc(n, sizeof(*parts));
    bool ok = true;
    for (size_t i = 0; ok && i < n; i++) ok = part_init(&parts[i], list[i], c, type, err);
    ok = ok && file_write(&w, &m, parts, n, c, err) && file_writer_finish(&w, err);
    if (!ok) file_writer_abort(&w);
    free(parts);
    free(list);
    free(all);
    buf_finish(&m.out);
    arena_finish(&arena);
    return ok;
}
