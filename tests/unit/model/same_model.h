// SPDX-License-Identifier: MIT
// Two opened models hold the same numbers: configuration, names, shapes, and every element bit for bit.
#pragma once

#include "tests/unit/test.h"

#include "base/file.h"
#include "base/mem.h"
#include "engine/model/model_internal.h"
#include "engine/model/tensor.h"

#define FORMATS "tests/golden/formats/"

static inline struct model_file *open_format(const char *path) {
    struct err err = {0};
    struct model_file *f = model_file_open(path, &err);
    if (!f) TEST_FAIL("%s: %s", path, err.message);
    return f;
}

static inline void tensor_values(const struct tensor *t, float *out) {
    if (t->n_dims == 1) tensor_vector(t, out);
    for (size_t r = 0; t->n_dims == 2 && r < t->shape[0]; r++) tensor_row(t, r, out + r * t->shape[1]);
}

static inline void check_same_tensor(const struct tensor *a, const struct tensor *b) {
    if (!b) {
        TEST_FAIL("%s is missing", a->name);
        return;
    }
    CHECK_INT(a->n_dims, b->n_dims);
    CHECK(a->shape[0] == b->shape[0] && a->shape[1] == b->shape[1]);
    const size_t n = a->shape[0] * a->shape[1];
    float *x = mem_alloc(n, sizeof *x), *y = mem_alloc(n, sizeof *y);
    tensor_values(a, x), tensor_values(b, y);
    if (memcmp(x, y, n * sizeof *x) != 0) TEST_FAIL("%s differs", a->name);
    free(x), free(y);
}

static inline void check_same_model(const char *path_a, const char *path_b) {
    struct model_file *a = open_format(path_a), *b = open_format(path_b);
    if (a && b) {
        const struct model_config *c = &a->config, *d = &b->config;
        CHECK_INT(a->n_tensors, b->n_tensors);
        CHECK(c->n_layer == d->n_layer && c->n_head == d->n_head && c->n_embd == d->n_embd && c->n_inner == d->n_inner);
        CHECK(c->n_vocab == d->n_vocab && c->n_ctx == d->n_ctx && c->tied_head == d->tied_head && c->qkv_bias == d->qkv_bias);
        CHECK(c->head_size == d->head_size && c->n_kv_head == d->n_kv_head && c->norm_eps == d->norm_eps && c->arch == d->arch);
        for (size_t i = 0; i < a->n_tensors; i++) check_same_tensor(&a->tensors[i], model_file_tensor(b, a->tensors[i].name));
    }
    model_file_close(a);
    model_file_close(b);
}

static inline void check_refused(const char *path, enum err_code code, const char *part) {
    struct err err = {0};
    struct model_file *f = model_file_open(path, &err);
    if (f) TEST_FAIL("%s was opened", path);
    else if (err.code != code || !strstr(err.message, part)) TEST_FAIL("%s: code %d \"%s\", expected %d \"%s\"", path, err.code, err.message, code, part);
    model_file_close(f);
}
