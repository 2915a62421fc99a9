// SPDX-License-Identifier: MIT
// A model file: opening by what lies at the path, the sorted tensor list, lookup, identity.
//
// Invariants after open: (1) tensors are sorted by HF name, no name twice; (2) exactly the tensors that config asks for
// are there, with its shapes; (3) the tokenizer, if any, has no id past the embedding. Immutable from then on; any
// number of threads.
#include "engine/model/model_internal.h"

#include "base/mem.h"
#include "base/sha256.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool model_file_add(struct model_file *f, const struct tensor *t, const char *name, struct err *err) {
    if (f->n_tensors == MODEL_MAX_TENSORS)
        return err_set(err, ERR_TOO_LARGE, "the model has more than %d tensors", MODEL_MAX_TENSORS);
    mem_grow(&f->tensors, &f->tensors_cap, f->n_tensors + 1);
    f->tensors[f->n_tensors] = *t;
    f->tensors[f->n_tensors++].name = arena_strndup(&f->names, name, strlen(name));
    return true;
}

static int compare_tensors(const void *a, const void *b) {
    return strcmp(((const struct tensor *)a)->name, ((const struct tensor *)b)->name);
}

bool model_file_finish(struct model_file *f, struct err *err) {
    if (f->n_tensors) qsort(f->tensors, f->n_tensors, sizeof(*f->tensors), compare_tensors);
    for (size_t i = 1; i < f->n_tensors; i++)
        if (compare_tensors(&f->tensors[i - 1], &f->tensors[i]) == 0)
            return err_set(err, ERR_CORRUPT, "the file has tensor \"%s\" twice", f->tensors[i].name);
    if (!config_check(&f->config, err) || !names_check(f, err)) return false;
    const size_t size = f->tokenizer ? tokenizer_size(f->tokenizer) : 0;
    if (size > f->config.n_vocab)
        return err_set(err, ERR_CORRUPT, "the tokenizer has %zu entries, but the model's embedding only %zu rows", size,
                       f->config.n_vocab);
    for (size_t i = 0; i < f->n_tensors; i++)
        f->n_parameters += (uint64_t)f->tensors[i].shape[0] * f->tensors[i].shape[1];
    return true;
}

static bool load_path(struct model_file *f, const char *path, struct err *err) {
    if (tf_is_dir(path)) {
        f->format = "tensorflow";
        return tf_load_dir(f, path, err);
    }
    if (dir_exists(path)) {
        f->format = "safetensors";
        return hf_load_dir(f, path, err);
    }
    struct file_map m = {0};
    if (!file_map_open(&m, path, err)) return false;
    mem_grow(&f->maps, &f->maps_cap, 1);
    f->maps[f->n_maps++] = m;
    f->format = "gguf";
    if (m.len == 0) return err_set(err, ERR_CORRUPT, "the file is empty");
    if (pth_is_file(m.data, m.len)) {
        f->format = "pytorch";
        return pth_load(f, path, m.data, m.len, err);
    }
    if (m.len >= 4 && memcmp(m.data, "GGUF", 4) != 0)
        return err_set(err, ERR_UNSUPPORTED,
                       "this is neither a GGUF file, a PyTorch state dict nor a directory with config.json and model.safetensors");
    return gguf_load(f, m.data, m.len, err);
}

struct model_file *model_file_open(const char *path, struct err *err) {
    struct model_file *f = mem_new(struct model_file);
    if (load_path(f, path, err) && model_file_finish(f, err)) return f;
    model_file_close(f);
    return NULL;
}

struct model_file *model_file_open_gguf_memory(const void *data, size_t len, struct err *err) {
    struct model_file *f = mem_new(struct model_file);
    f->format = "gguf";
    if (gguf_load(f, data, len, err) && model_file_finish(f, err)) return f;
    model_file_close(f);
    return NULL;
}

struct model_file *model_file_open_hf_memory(const char *config, size_t config_len, const void *data, size_t len,
                                             struct err *err) {
    struct model_file *f = mem_new(struct model_file);
    f->format = "safetensors";
    if (config_hf_parse(config, config_len, &f->config, err) && safetensors_load(f, data, len, NULL, NULL, err) &&
        model_file_finish(f, err))
        return f;
    model_file_close(f);
    return NULL;
}

void model_file_close(struct model_file *f) {
    if (!f) return;
    tokenizer_destroy(f->tokenizer);
    for (size_t i = 0; i < f->n_maps; i++) file_map_close(&f->maps[i]);
    for (size_t i = 0; i < f->n_blocks; i++) free(f->blocks[i]);
    free(f->blocks);
    free(f->maps);
    free(f->tensors);
    free(f->rope_divisors);
    arena_finish(&f->names);
    free(f);
}

const struct model_config *model_file_config(const struct model_file *f) { return &f->config; }
const struct tokenizer *model_file_tokenizer(const struct model_file *f) { return f->tokenizer; }
const char *model_file_format(const struct model_file *f) { return f->format; }
size_t model_file_tensor_count(const struct model_file *f) { return f->n_tensors; }
uint64_t model_file_parameters(const struct model_file *f) { return f->n_parameters; }

const struct tensor *model_file_tensor_at(const struct model_file *f, size_t i) {
    return i < f->n_tensors ? &f->tensors[i] : NULL;
}

const struct tensor *model_file_tensor(const struct model_file *f, const char *name) {
    const struct tensor wanted = {.name = name};
    return f->n_tensors ? bsearch(&wanted, f->tensors, f->n_tensors, sizeof(*f->tensors), compare_tensors) : NULL;
}

const struct tensor *model_file_require(const struct model_file *f, const char *name, size_t rows, size_t cols,
                                        struct err *err) {
    const struct tensor *t = model_file_tensor(f, name);
    if (!t) {
        (void)err_set(err, ERR_CORRUPT, "the tensor %s is missing", name);
        return NULL;
    }
    if (t->n_dims == (cols ? 2 : 1) && t->shape[0] == rows && t->shape[1] == (cols ? cols : 1)) return t;
    char have[48] = "", want[48] = "";
    snprintf(have, sizeof(have), t->n_dims == 2 ? "%zu x %zu" : "%zu", t->shape[0], t->shape[1]);
    snprintf(want, sizeof(want), cols ? "%zu x %zu" : "%zu", rows, cols);
    (void)err_set(err, ERR_CORRUPT, "the tensor %s is %s, but the configuration asks for %s", name, have, want);
    return NULL;
}

// As text, field by field: struct padding must not reach the hash.
static void hash_config(struct sha256 *s, const struct model_config *c) {
    char text[1024];
    const int n = snprintf(text, sizeof(text),
                           "arch %d norm %d position %d mlp %d layers %zu heads %zu kv %zu head %zu embd %zu inner %zu "
                           "vocab %zu ctx %zu eps %a bias %d %d %d tied %d "
                           "theta %a scaling %a %a %a %a linear %d divisors %d\n",
                           c->arch, c->norm, c->position, c->mlp, c->n_layer, c->n_head, c->n_kv_head, c->head_size,
                           c->n_embd, c->n_inner, c->n_vocab, c->n_ctx, (double)c->norm_eps, c->attn_bias, c->qkv_bias, c->mlp_bias,
                           c->tied_head, c->rope_theta, c->rope_scaling.factor, c->rope_scaling.low_freq_factor,
                           c->rope_scaling.high_freq_factor, c->rope_scaling.original_ctx, c->rope_linear,
                           c->rope_divisors != NULL);
    sha256_update(s, text, (size_t)n);
    if (c->rope_divisors) sha256_update(s, c->rope_divisors, c->head_size / 2 * sizeof(float));
}

void model_file_hash(const struct model_file *f, unsigned char out[32]) {
    struct sha256 s;
    sha256_init(&s);
    hash_config(&s, &f->config);
    for (size_t i = 0; i < f->n_tensors; i++) {
        const struct tensor *t = &f->tensors[i];
        char text[128];
        const int n = snprintf(text, sizeof(text), " %s %d %zu %zu %d %zu\n", dtype_name(t->type), t->n_dims,
                               t->shape[0], t->shape[1], t->transposed, t->rope_heads);
        sha256_update(&s, t->name, strlen(t->name));
        sha256_update(&s, text, (size_t)n);
        sha256_update(&s, t->data, t->n_bytes);
    }
    sha256_digest(&s, out);
}
