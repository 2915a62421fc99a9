// SPDX-License-Identifier: MIT
// The served models by id, in command-line order.
//
// Thread: built by the loader thread before the server is ready; read-only afterwards, from any thread.
#pragma once

#include "engine/infer/model.h"

#include <stdint.h>

struct registry_entry {
    char *id;            // what clients write in "model"
    char *path, *adapter; // never shown to clients; adapter: a LoRA adapter's directory or NULL
    struct model *model; // one reference, held by the registry
    int64_t created_s;   // Unix time: when it was loaded
};

struct registry {
    struct registry_entry *entries;
    size_t n, cap;
};

void registry_finish(struct registry *r); // releases the models; accepts a zeroed one

// `spec` is "[NAME=]PATH", NAME ending at the first '='; without it the id is the path's stem. Refuses an empty or
// doubled id. The entry's model stays NULL until registry_load.
bool registry_add(struct registry *r, const char *spec, const char *adapter, struct err *err) MUST_CHECK;

// Opens and packs the i-th model. On failure the entry is unchanged.
bool registry_load(struct registry *r, size_t i, enum weights_mode mode, struct pool *pool, struct err *err) MUST_CHECK;

// NULL: no such model. With id NULL or "": the only model where there is exactly one.
const struct registry_entry *registry_find(const struct registry *r, const char *id);
