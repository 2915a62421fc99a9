// SPDX-License-Identifier: MIT
// A served model: an open file, its packed weights, a reference count; or a base and an adapter's factors.
#include "engine/infer/model.h"

#include "base/mem.h"
#include "base/sha256.h"
#include "engine/infer/adapter_rows.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct model {
    atomic_size_t references;
    struct model *base;           // one reference; NULL: file and weights are its own
    struct adapter_rows *adapter; // with a base
    struct model_file *file;
    struct weights weights;
    char fingerprint[17];
};

bool weights_mode_parse(const char *name, enum weights_mode *out) {
    static const char *const names[] = {[WEIGHTS_AUTO] = "auto", [WEIGHTS_F32] = "f32", [WEIGHTS_Q8] = "q8"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (strcmp(name, names[i]) == 0) {
            *out = (enum weights_mode)i;
            return true;
        }
    return false;
}

static void fingerprint_make(struct model *m, enum weights_mode mode, const struct kernels *kernels) {
    unsigned char hash[32];
    struct sha256 s;
    sha256_init(&s);
    model_file_hash(m->file, hash);
    sha256_update(&s, hash, sizeof hash);
    sha256_update(&s, &(unsigned char){(unsigned char)mode}, 1);
    // AVX2 and AVX-512 give equal bits (kernels.h K4): one name for both.
    const char *set = strcmp(kernels->name, "c") == 0 ? "c" : "v16";
    sha256_update(&s, set, strlen(set));
    sha256_digest(&s, hash);
    hex_write(hash, 8, m->fingerprint);
}

struct model *model_create(struct model_file *file, enum weights_mode mode, struct pool *pool, struct err *err) {
    const struct kernels *kernels = kernels_get(err);
    struct model *m = mem_new(struct model);
    m->file = file;
    atomic_init(&m->references, 1);
    if (!kernels || !weights_load(&m->weights, file, mode, pool, err)) {
        model_file_close(file);
        free(m);
        return NULL;
    }
    fingerprint_make(m, mode, kernels);
    return m;
}

struct model *model_create_adapted(struct model *base, const struct adapter *a, struct err *err) {
    assert(!base->base);
    struct adapter_rows *rows = adapter_rows_create(&base->weights, base->file, a, err);
    if (!rows) return NULL;
    struct model *m = mem_new(struct model);
    atomic_init(&m->references, 1);
    m->base = model_acquire(base);
    m->adapter = rows;
    struct sha256 s;
    unsigned char hash[32];
    sha256_init(&s);
    sha256_update(&s, base->fingerprint, sizeof base->fingerprint);
    sha256_update(&s, rows->hash, sizeof rows->hash);
    sha256_digest(&s, hash);
    hex_write(hash, 8, m->fingerprint);
    return m;
}

struct model *model_acquire(struct model *m) {
    atomic_fetch_add_explicit(&m->references, 1, memory_order_relaxed);
    return m;
}

void model_release(struct model *m) {
    if (!m || atomic_fetch_sub_explicit(&m->references, 1, memory_order_acq_rel) > 1) return;
    if (m->base) {
        adapter_rows_destroy(m->adapter);
        model_release(m->base);
    } else {
        weights_finish(&m->weights);
        model_file_close(m->file);
    }
    free(m);
}

// Where the weights and the file are.
static const struct model *root(const struct model *m) { return m->base ? m->base : m; }

struct model *model_base(struct model *m) { return m->base ? m->base : m; }
const struct adapter_rows *model_adapter(const struct model *m) { return m->adapter; }
const struct model_config *model_config(const struct model *m) { return model_file_config(root(m)->file); }
const struct tokenizer *model_tokenizer(const struct model *m) { return model_file_tokenizer(root(m)->file); }
const char *model_format(const struct model *m) { return model_file_format(root(m)->file); }
uint64_t model_parameters(const struct model *m) { return model_file_parameters(root(m)->file); }
size_t model_bytes(const struct model *m) { return root(m)->weights.bytes; }
size_t model_own_bytes(const struct model *m) { return m->adapter ? adapter_rows_bytes(m->adapter, &m->base->weights) : m->weights.bytes; }
const char *model_fingerprint(const struct model *m) { return m->fingerprint; }
const struct weights *model_weights(const struct model *m) { return &root(m)->weights; }

const char *model_weights_name(const struct model *m) {
    const struct weights *w = model_weights(m);
    return w->mixed ? "mixed" : pack_type_name(w->main_type);
}
