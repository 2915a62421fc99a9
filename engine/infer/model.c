// SPDX-License-Identifier: MIT
// A served model: an open file, its packed weights, a reference count.
#include "engine/infer/model.h"

#include "base/mem.h"
#include "base/sha256.h"
#include "engine/infer/weights.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct model {
    atomic_size_t references;
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
    for (size_t i = 0; i < 8; i++) snprintf(m->fingerprint + 2 * i, 3, "%02x", hash[i]);
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

struct model *model_acquire(struct model *m) {
    atomic_fetch_add_explicit(&m->references, 1, memory_order_relaxed);
    return m;
}

void model_release(struct model *m) {
    if (!m || atomic_fetch_sub_explicit(&m->references, 1, memory_order_acq_rel) > 1) return;
    weights_finish(&m->weights);
    model_file_close(m->file);
    free(m);
}

const struct model_config *model_config(const struct model *m) { return model_file_config(m->file); }
const struct tokenizer *model_tokenizer(const struct model *m) { return model_file_tokenizer(m->file); }
const char *model_format(const struct model *m) { return model_file_format(m->file); }
uint64_t model_parameters(const struct model *m) { return model_file_parameters(m->file); }
size_t model_bytes(const struct model *m) { return m->weights.bytes; }
const char *model_fingerprint(const struct model *m) { return m->fingerprint; }
const struct weights *model_weights(const struct model *m) { return &m->weights; }

const char *model_weights_name(const struct model *m) {
    return m->weights.mixed ? "mixed" : pack_type_name(m->weights.main_type);
}
