// SPDX-License-Identifier: MIT
// The configuration of a PyTorch state dict, which holds none: from config.json beside the file (Hugging Face's, or rasbt's with
// n_heads), and otherwise from the tensors' shapes.
//
// All that shapes do not tell is the number of heads: without a config.json heads of 64, as in every public GPT-2. Any thread.
#include "engine/model/pth.h"

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "engine/model/model_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct hints { // of a config.json
    bool hf;   // it is Hugging Face's
    size_t n_head;
};

static bool hints_read(const char *text, size_t len, struct hints *h, struct err *err) {
    struct json j;
    struct buf key = {0};
    json_init(&j, text, len);
    bool ok = json_open(&j, '{', err);
    while (ok && json_next_key(&j, &key, err)) {
        const bool heads = buf_is(&key, "n_heads") || buf_is(&key, "num_heads") || buf_is(&key, "n_head");
        h->hf |= buf_is(&key, "model_type") || buf_is(&key, "architectures");
        ok = heads ? json_read_size(&j, &h->n_head, err) : json_skip(&j, err);
    }
    ok = ok && !j.failed && json_finish(&j, err);
    buf_finish(&key);
    return ok || json_corrupt(err);
}

static size_t dim(const struct pth_tensor *t, size_t i) { return t && t->t.n_dims == 2 ? t->t.shape[i] : 0; }

// The output head is the embedding: it is missing or holds the same numbers.
static bool head_tied(const struct pth_state *s) {
    const struct pth_tensor *head = pth_find(s, s->linear ? "out_head.weight" : "lm_head.weight");
    const struct pth_tensor *embedding = pth_find(s, s->linear ? "tok_emb.weight" : "transformer.wte.weight");
    return !head || !embedding || pth_equal(head, embedding);
}

static bool config_from_shapes(struct model_config *c, const struct pth_state *s, size_t n_head, struct err *err) {
    const struct pth_tensor *embedding = pth_find(s, s->linear ? "tok_emb.weight" : "transformer.wte.weight");
    const struct pth_tensor *positions = pth_find(s, s->linear ? "pos_emb.weight" : "transformer.wpe.weight");
    const struct pth_tensor *inner = pth_find(s, s->linear ? "trf_blocks.0.ff.layers.0.weight" : "transformer.h.0.mlp.c_fc.weight");
    const size_t width = dim(embedding, 1);
    if (!width || !positions || !inner)
        return err_set(err, ERR_UNSUPPORTED, "the state dict is none of GPT-2's (no token embedding, position embedding or first layer by its names); "
                                             "for another model put its config.json beside the file");
    if (n_head == 0 && width % 64 != 0)
        return err_set(err, ERR_INVALID, "a state dict does not say how many heads attention has, and %zu is not divisible into heads of 64: put "
                                         "a config.json with n_head beside the file", width);
    size_t n_layer = 0;
    for (char name[64];; n_layer++) {
        snprintf(name, sizeof(name), s->linear ? "trf_blocks.%zu.norm1.scale" : "transformer.h.%zu.ln_1.weight", n_layer);
        if (!pth_find(s, name)) break;
    }
    *c = config_gpt2(n_layer, n_head ? n_head : width / 64, width, dim(inner, s->linear ? 0 : 1), dim(embedding, 0), dim(positions, 0));
    return true;
}

bool pth_config(struct model_config *c, const struct pth_state *s, const char *dir, struct err *err) {
    char *path = path_join(dir, "config.json"), *text = NULL;
    struct hints hints = {0};
    size_t len = 0;
    bool ok = !file_exists(path) || ((text = file_read(path, 1 << 20, &len, err)) && (hints_read(text, len, &hints, err) || err_prefix(err, "config.json")));
    if (ok && hints.hf) ok = config_hf_parse(text, len, c, err) || err_prefix(err, "config.json");
    else if (ok) ok = config_from_shapes(c, s, hints.n_head, err);
    free(path);
    free(text);
    if (!ok || (hints.hf && !s->linear)) return ok; // Hugging Face's names under its config: that says all
    c->tied_head = head_tied(s);
    c->qkv_bias = pth_find(s, s->linear ? "trf_blocks.0.att.W_query.bias" : "transformer.h.0.attn.c_attn.bias") != NULL;
    return true;
}
