// SPDX-License-Identifier: MIT
// What commands do with a model's path: a model and an engine without a thread, for those that step it themselves (generate, bench), a tokenizer
// alone, a prompt. One thread.
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

// The tokenizer of a path; a .gguf file's belongs to *model, a directory's is *owned: it needs none of the model's weights.
struct local_tokenizer {
    struct model_file *model;
    struct tokenizer *owned;
    const struct tokenizer *tokenizer;
};
bool local_tokenizer_open(struct local_tokenizer *s, const char *path, struct err *err) MUST_CHECK;
void local_tokenizer_close(struct local_tokenizer *s); // accepts a zeroed one

// A text as /v1/completions reads it: BOS where the tokenizer wants one; an empty one is the beginning of a document.
bool local_prompt_encode(const struct tokenizer *t, const char *text, size_t len, struct ids *out, struct err *err) MUST_CHECK;
