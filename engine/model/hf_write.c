// SPDX-License-Identifier: MIT
// A Hugging Face model directory: config.json for transformers 4 and 5 alike, model.safetensors, the tokenizer's files. Any thread.
#include "engine/model/write_internal.h"

#include "base/mem.h"
#include "tokenizer/tokenizer_write.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct object { // an object's members, one a line
    struct buf *out;
    int indent;
    bool any;
};

static void key(struct object *o, const char *name) {
    buf_printf(o->out, "%s\n%*s\"%s\": ", o->any ? "," : "", o->indent, "", name);
    o->any = true;
}

static void put_size(struct object *o, const char *name, size_t v) {
    key(o, name);
    buf_printf(o->out, "%zu", v);
}

static void put_real(struct object *o, const char *name, double v) {
    key(o, name);
    const size_t from = o->out->len;
    buf_add_json_number(o->out, v);
    if (!strpbrk(o->out->data + from, ".e")) buf_add_str(o->out, ".0"); // transformers 5 tells 10000 from 10000.0
}

static void put_float(struct object *o, const char *name, float v) {
    key(o, name);
    buf_add_json_float(o->out, v);
}

static void put_flag(struct object *o, const char *name, bool v) {
    key(o, name);
    buf_add_str(o->out, v ? "true" : "false");
}

static void put_text(struct object *o, const char *name, const char *v) {
    key(o, name);
    buf_add_json_string(o->out, v, strlen(v));
}

static void put_id(struct object *o, const char *name, int64_t id) {
    key(o, name);
    if (id >= 0) buf_printf(o->out, "%lld", (long long)id);
    else buf_add_str(o->out, "null");
}

// What both families have, under the names of each.
static void put_shape(struct object *o, const struct model_config *c) {
    const bool gpt2 = c->arch == ARCH_GPT2;
    put_text(o, gpt2 ? "activation_function" : "hidden_act", gpt2 ? "gelu_new" : "silu");
    put_size(o, gpt2 ? "n_layer" : "num_hidden_layers", c->n_layer);
    put_size(o, gpt2 ? "n_head" : "num_attention_heads", c->n_head);
    put_size(o, gpt2 ? "n_embd" : "hidden_size", c->n_embd);
    put_size(o, gpt2 ? "n_inner" : "intermediate_size", c->n_inner);
    put_size(o, gpt2 ? "n_positions" : "max_position_embeddings", c->n_ctx);
    put_float(o, gpt2 ? "layer_norm_epsilon" : "rms_norm_eps", c->norm_eps);
}

static void put_gpt2(struct object *o, const struct model_config *c) {
    if (!c->qkv_bias) put_flag(o, "qkv_bias", false); // ours: transformers has no such model and reads zeros for the missing biases
}

static void put_scaling(struct object *o, const char *name, const struct model_config *c, bool theta) {
    const bool scaled = c->rope_scaling.factor > 0;
    key(o, name);
    if (!scaled && !theta) {
        buf_add_str(o->out, "null");
        return;
    }
    struct object r = {o->out, o->indent + 2, false};
    buf_add_byte(o->out, '{');
    put_text(&r, "rope_type", !scaled ? "default" : c->rope_linear ? "linear" : "llama3");
    if (theta) put_real(&r, "rope_theta", c->rope_theta);
    if (scaled) put_real(&r, "factor", c->rope_scaling.factor);
    if (scaled && !c->rope_linear) {
        put_real(&r, "low_freq_factor", c->rope_scaling.low_freq_factor);
        put_real(&r, "high_freq_factor", c->rope_scaling.high_freq_factor);
        put_size(&r, "original_max_position_embeddings", (size_t)c->rope_scaling.original_ctx);
    }
    buf_printf(o->out, "\n%*s}", o->indent, "");
}

static void put_llama(struct object *o, const struct model_config *c) {
    put_size(o, "num_key_value_heads", c->n_kv_head);
    put_size(o, "head_dim", c->head_size);
    put_flag(o, "attention_bias", c->attn_bias);
    put_flag(o, "mlp_bias", c->mlp_bias);
    put_real(o, "rope_theta", c->rope_theta); // transformers 4 reads this and rope_scaling, 5 reads rope_parameters
    put_scaling(o, "rope_scaling", c, false);
    put_scaling(o, "rope_parameters", c, true);
}

void config_hf_write(const struct model_config *c, const struct tokenizer *t, struct buf *out) {
    struct object o = {out, 2, false};
    const bool gpt2 = c->arch == ARCH_GPT2;
    buf_add_byte(out, '{');
    key(&o, "architectures");
    buf_printf(out, "[\"%s\"]", gpt2 ? "GPT2LMHeadModel" : "LlamaForCausalLM");
    put_text(&o, "model_type", gpt2 ? "gpt2" : "llama");
    put_shape(&o, c);
    if (gpt2) put_gpt2(&o, c);
    else put_llama(&o, c);
    put_size(&o, "vocab_size", c->n_vocab);
    put_flag(&o, "tie_word_embeddings", c->tied_head);
    // null rather than absent: transformers' defaults are other models' ids.
    put_id(&o, "bos_token_id", t ? tokenizer_bos(t) : -1);
    put_id(&o, "eos_token_id", t ? tokenizer_eos(t) : -1);
    put_id(&o, "pad_token_id", t ? tokenizer_pad(t) : -1);
    buf_add_str(out, "\n}\n");
}

// Rotary scaling of GGUF (divisors) as HF's "llama3". Meta's factors 1 and 4 and a context of some power of two are what every model
// of this kind was published with.
static bool rope_divisors_to_llama3(const struct model_config *c, struct model_config *out, struct err *err) {
    const size_t n = c->head_size / 2;
    struct model_config try = *c;
    float *have = mem_alloc(2 * n, sizeof(float)), *made = have + n;
    try.rope_divisors = NULL;
    try.rope_scaling.low_freq_factor = 1;
    try.rope_scaling.high_freq_factor = 4;
    for (size_t i = 0; i < n; i++) try.rope_scaling.factor = fmax(try.rope_scaling.factor, (double)c->rope_divisors[i]);
    model_config_rope_frequencies(c, have);
    bool same = false;
    for (double context = 16; !same && context <= 1 << 24; context *= 2) {
        try.rope_scaling.original_ctx = context;
        model_config_rope_frequencies(&try, made);
        same = true;
        for (size_t i = 0; i < n; i++) same = same && fabsf(have[i] - made[i]) <= 1e-6f * have[i];
    }
    free(have);
    if (!same) return err_set(err, ERR_UNSUPPORTED, "the model's rotary divisors are no \"llama3\" scaling that config.json could name");
    *out = try;
    return true;
}

static bool config_file_write(const char *dir, const struct model_config *c, const struct tokenizer *tokenizer, struct err *err) {
    struct model_config plain = *c;
    if (c->rope_divisors && !rope_divisors_to_llama3(c, &plain, err)) return false;
    struct buf text = {0};
    config_hf_write(&plain, tokenizer, &text);
    char *path = path_join(dir, "config.json");
    const bool ok = file_write_atomic(path, text.data, text.len, 0644, err);
    free(path);
    buf_finish(&text);
    return ok;
}

bool hf_dir_write(const char *dir, const struct model_config *c, const struct tensor_out *tensors, size_t n, enum write_type type,
                  const struct tokenizer *tokenizer, struct err *err) {
    if (!dir_make(dir, err) || (tokenizer && !tokenizer_write(tokenizer, dir, err))) return false;
    char *path = path_join(dir, "model.safetensors");
    // Without the metadata transformers refuses the file.
    const bool ok = safetensors_write(path, tensors, n, type, "{\"format\":\"pt\"}", err);
    free(path);
    return ok && config_file_write(dir, c, tokenizer, err);
}
