// SPDX-License-Identifier: MIT
// What every configuration must satisfy, wherever it came from, and the rotary frequencies that follow from it. Pure
// functions; any thread.
#include "engine/model/model_internal.h"

#include "base/mem.h"

#include <math.h>

// Far above any model this program can serve, far below where products of two dimensions could overflow.
static const size_t dimension_max = (size_t)1 << 24;

static bool dimension_check(const char *name, size_t v, struct err *err) {
    if (v > 0 && v <= dimension_max) return true;
    return err_set_param(err, ERR_CORRUPT, name, "the model's %s is %zu, outside 1 to %zu", name, v, dimension_max);
}

struct model_config config_gpt2(size_t n_layer, size_t n_head, size_t n_embd, size_t n_inner, size_t n_vocab, size_t n_ctx) {
    return (struct model_config){
        .arch = ARCH_GPT2,
        .norm = NORM_LAYERNORM,
        .position = POSITION_LEARNED,
        .mlp = MLP_GELU_TANH,
        .n_layer = n_layer,
        .n_head = n_head,
        .n_kv_head = n_head,
        .head_size = n_head ? n_embd / n_head : 0,
        .n_embd = n_embd,
        .n_inner = n_inner,
        .n_vocab = n_vocab,
        .n_ctx = n_ctx,
        .norm_eps = 1e-5f,
        .attn_bias = true,
        .qkv_bias = true,
        .mlp_bias = true,
        .tied_head = true,
    };
}

static bool scaling_check(const struct model_config *c, struct err *err) {
    const double factor = c->rope_scaling.factor, low = c->rope_scaling.low_freq_factor,
                 high = c->rope_scaling.high_freq_factor;
    const double original = c->rope_scaling.original_ctx;
    if (factor == 0) return true;
    if (!isfinite(factor) || factor < 1)
        return err_set_param(err, ERR_CORRUPT, "rope_scaling.factor",
                             "the model's rope scaling factor %g is not a number of 1 or more", factor);
    if (c->rope_linear) return true;
    if (!isfinite(low) || !isfinite(high) || !isfinite(original) || low <= 0 || high <= low || original <= 0)
        return err_set_param(
            err, ERR_CORRUPT, "rope_scaling",
            "the model's rope scaling is not 0 < low_freq_factor < high_freq_factor with a positive original context");
    return true;
}

bool config_check(const struct model_config *c, struct err *err) {
    if (!dimension_check("layer count", c->n_layer, err) || !dimension_check("head count", c->n_head, err) ||
        !dimension_check("key/value head count", c->n_kv_head, err) ||
        !dimension_check("head size", c->head_size, err) || !dimension_check("embedding width", c->n_embd, err) ||
        !dimension_check("inner width", c->n_inner, err) || !dimension_check("vocabulary size", c->n_vocab, err) ||
        !dimension_check("context length", c->n_ctx, err))
        return false;
    if (c->n_head % c->n_kv_head != 0)
        return err_set(err, ERR_CORRUPT, "the model's %zu heads cannot share %zu key/value heads", c->n_head,
                       c->n_kv_head);
    if (c->arch == ARCH_GPT2 && c->n_head * c->head_size != c->n_embd)
        return err_set(err, ERR_CORRUPT, "the model's embedding width %zu is not %zu heads of equal size", c->n_embd,
                       c->n_head);
    if (!isfinite(c->norm_eps) || c->norm_eps <= 0)
        return err_set(err, ERR_CORRUPT, "the model's norm epsilon %g is not a positive number", (double)c->norm_eps);
    if (c->position != POSITION_ROTARY) return true;
    if (c->head_size % 2 != 0)
        return err_set(err, ERR_CORRUPT, "the model's head size %zu is odd, but rotary positions turn pairs",
                       c->head_size);
    if (!isfinite(c->rope_theta) || c->rope_theta <= 0)
        return err_set_param(err, ERR_CORRUPT, "rope_theta", "the model's rope_theta %g is not a positive number",
                             c->rope_theta);
    return scaling_check(c, err);
}

// "llama3" scaling: wavelengths that the original context covers many times stay, those it never completes are
// stretched by `factor`, those between are blended. transformers, modeling_rope_utils.py, _compute_llama3_parameters.
static double llama3_frequency(const struct model_config *c, double frequency) {
    const double wavelength = 2 * M_PI / frequency, original = c->rope_scaling.original_ctx,
                 factor = c->rope_scaling.factor;
    const double low = c->rope_scaling.low_freq_factor, high = c->rope_scaling.high_freq_factor;
    if (wavelength < original / high) return frequency;
    if (wavelength > original / low) return frequency / factor;
    const double smooth = (original / wavelength - low) / (high - low);
    return (1 - smooth) * frequency / factor + smooth * frequency;
}

void model_config_rope_frequencies(const struct model_config *c, float *inv_freq) {
    for (size_t i = 0; i < c->head_size / 2; i++) {
        double f = 1 / pow(c->rope_theta, (double)(2 * i) / (double)c->head_size);
        if (c->rope_divisors) f /= (double)c->rope_divisors[i];
        if (c->rope_scaling.factor > 0) f = c->rope_linear ? f / c->rope_scaling.factor : llama3_frequency(c, f);
        inv_freq[i] = (float)f;
    }
}
