// SPDX-License-Identifier: MIT
// A model and an engine without a thread, for commands that step it themselves (generate, bench). One thread.
#pragma once

#include "engine/infer/engine.h"

struct local_engine {
    struct pool *pool;
    struct model *model;
    struct engine *engine;
};

// Of a --weights or --threads option: weights is "auto", "f32" or "q8"; threads 0: one a processor. The KV cache holds
// `sequences` sequences of n tokens (n 0: the model's context). On failure everything is closed.
// adapter: a LoRA adapter's directory, merged into the model; NULL: none.
bool local_engine_open(struct local_engine *l, const char *path, const char *adapter, const char *weights, size_t threads,
                       size_t sequences, size_t n, struct err *err) MUST_CHECK;
void local_engine_close(struct local_engine *l); // accepts a zeroed one
