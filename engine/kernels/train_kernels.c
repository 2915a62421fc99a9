// SPDX-License-Identifier: MIT
// Training's tables by the names of the forward's: kernels.c alone decides what this processor runs.
#include "engine/kernels/train_kernels.h"

#include "engine/kernels/kernels.h"

#include <string.h>

#if defined(__x86_64__)
extern const struct train_kernels train_kernels_avx2, train_kernels_avx512;
#endif

static const struct train_kernels *const tables[] = {
#if defined(__x86_64__)
    &train_kernels_avx512, &train_kernels_avx2,
#endif
    &train_kernels_c,
};

static const struct train_kernels *match(const struct kernels *k) {
    if (!k) return NULL;
    size_t i = 0;
    while (strcmp(tables[i]->name, k->name) != 0) i++; // every one of kernels.c's has its companion
    return tables[i];
}

const struct train_kernels *train_kernels_get(struct err *err) { return match(kernels_get(err)); }

const struct train_kernels *train_kernels_by_name(const char *name, struct err *err) { return match(kernels_by_name(name, err)); }
