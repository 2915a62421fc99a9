// SPDX-License-Identifier: MIT
// See presets.h. The public sizes are OpenAI's (Radford et al. 2019, table 2, with the parameter counts that its authors corrected later);
// nano and mini are this project's.
#include "engine/train/presets.h"

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_CONFIG_BYTES ((size_t)1 << 20)

static const struct preset {
    const char *name;
    size_t n_layer, n_head, n_embd, n_ctx, n_vocab;
} presets[] = {
    {"gpt2-nano", 4, 4, 128, 256, 1024},
    {"gpt2-mini", 6, 6, 384, 512, 1024},
    {"gpt2-124m", 12, 12, 768, 1024, 50257},
    {"gpt2-355m", 24, 16, 1024, 1024, 50257},
    {"gpt2-774m", 36, 20, 1280, 1024, 50257},
    {"gpt2-1558m", 48, 25, 1600, 1024, 50257},
};
const char model_init_presets[] = "gpt2-nano, gpt2-mini, gpt2-124m, gpt2-355m, gpt2-774m, gpt2-1558m";

bool model_init_preset(const char *name, struct model_init *out) {
    for (size_t i = 0; i < ARRAY_LEN(presets); i++) {
        const struct preset *p = &presets[i];
        if (strcmp(name, p->name) != 0) continue;
        *out = (struct model_init){
            .config =
                {
                    .arch = ARCH_GPT2,
                    .norm = NORM_LAYERNORM,
                    .position = POSITION_LEARNED,
                    .mlp = MLP_GELU_TANH,
                    .n_layer = p->n_layer,
                    .n_head = p->n_head,
                    .n_kv_head = p->n_head,
                    .head_size = p->n_embd / p->n_head,
                    .n_embd = p->n_embd,
                    .n_inner = p->n_embd * 4,
                    .n_vocab = p->n_vocab,
                    .n_ctx = p->n_ctx,
                    .norm_eps = 1e-5f,
                    .attn_bias = true,
                    .qkv_bias = true,
                    .mlp_bias = true,
                    .tied_head = true,
                },
            .own_vocabulary = true,
        };
        return true;
    }
    return false;
}

// ---- CONFIG.json ----

// One of two words; *second: it was the latter.
static bool word_read(struct json *j, const char *key, const char *a, const char *b, bool *second, struct err *err) {
    struct buf word = {0};
    bool ok = json_read_string(j, &word, err);
    *second = ok && buf_is(&word, b);
    if (ok && !*second && !buf_is(&word, a)) ok = json_fail(j, err, "\"%s\" is neither \"%s\" nor \"%s\"", key, a, b);
    buf_finish(&word);
    return ok;
}

// The trainer has one rate for its three sites; a file that wants several is refused, not rounded.
static bool dropout_read(struct json *j, double *rate, struct err *err) {
    double v;
    if (!json_read_double(j, &v, err)) return false;
    if (!(v >= 0 && v < 1)) return json_fail(j, err, "a dropout rate of %g is not at least 0 and below 1", v);
    if (!isnan(*rate) && *rate != v) return json_fail(j, err, "dropout rates that differ (%g and %g) are not supported", *rate, v);
    *rate = v;
    return true;
}

static bool is_dropout(const struct buf *key) {
    return buf_is(key, "embd_pdrop") || buf_is(key, "attn_pdrop") || buf_is(key, "resid_pdrop") || buf_is(key, "drop_rate");
}

static bool own_keys_read(const char *text, size_t len, struct model_init *out, struct err *err) {
    struct json j;
    struct buf key = {0};
    double dropout = NAN;
    json_init(&j, text, len);
    bool ok = json_open(&j, '{', err), torch = false;
    while (ok && json_next_key(&j, &key, err)) {
        if (is_dropout(&key)) ok = dropout_read(&j, &dropout, err);
        else if (buf_is(&key, "init")) ok = word_read(&j, "init", "gpt2", "torch", &torch, err);
        else if (buf_is(&key, "decay")) ok = word_read(&j, "decay", "matrices", "all", &out->decay_all, err);
        else ok = json_skip(&j, err);
    }
    buf_finish(&key);
    out->init = torch ? INIT_TORCH : INIT_GPT2;
    out->dropout = isnan(dropout) ? 0 : dropout;
    return ok && !j.failed;
}

bool model_init_parse(const char *text, size_t len, struct model_init *out, struct err *err) {
    struct model_init m = {0};
    if (!config_hf_parse(text, len, &m.config, err) || !own_keys_read(text, len, &m, err)) return false;
    *out = m;
    return true;
}

bool model_init_open(const char *name_or_path, struct model_init *out, struct err *err) {
    if (model_init_preset(name_or_path, out)) return true;
    if (!file_exists(name_or_path))
        return err_set_param(err, ERR_INVALID, "--init", "--init %s is neither a file nor a preset (%s)", name_or_path, model_init_presets);
    size_t len;
    char *text = file_read(name_or_path, MAX_CONFIG_BYTES, &len, err);
    if (!text) return false;
    bool ok = model_init_parse(text, len, out, err) || err_prefix(err, "%s", name_or_path);
    free(text);
    return ok;
}

// ---- counting ----

uint64_t model_config_parameters(const struct model_config *c) {
    const uint64_t C = c->n_embd, F = c->n_inner, Q = c->n_head * c->head_size, K = c->n_kv_head * c->head_size;
    const uint64_t norm = c->norm == NORM_LAYERNORM ? 2 * C : C, n_up = c->mlp == MLP_SWIGLU ? 2 : 1;
    uint64_t layer = 2 * norm + C * (Q + 2 * K) + Q * C + n_up * C * F + F * C;
    if (c->qkv_bias) layer += Q + 2 * K;
    if (c->attn_bias) layer += C;
    if (c->mlp_bias) layer += n_up * F + C;
    uint64_t n = c->n_layer * layer + norm + c->n_vocab * C;
    if (c->position == POSITION_LEARNED) n += c->n_ctx * C;
    return c->tied_head ? n : n + c->n_vocab * C;
}
