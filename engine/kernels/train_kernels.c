// SPDX-License-Identifier: MIT
// Training's tables by the names of the forward's: kernels.c alone decides what this processor runs.
#include "engine/kernels/train_kernels.h"

#include "engine/kernels/kernels.h"

#include <string.h>

static const struct train_kernels *const tables[] = {&train_kernels_c};

static const struct train_kernels *match(const struct kernels *k) {
    for (size_t i = 0; k && i < sizeof tables / sizeof tables[0]; i++)
        if (strcmp(tables[i]->name, k->name) == 0) return tables[i];
    return k ? &train_kernels_c : NULL;
}

const struct train_kernels *train_kernels_get(struct err *err) { return match(kernels_get(err)); }

const struct train_kernels *train_kernels_by_name(const char *name, struct err *err) { return match(kernels_by_name(name, err)); }
