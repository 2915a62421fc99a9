// SPDX-License-Identifier: MIT
// A served model: configuration, packed weights, tokenizer; or another one with an adapter. Immutable after creation but for its reference count; shared by
// threads. The last release frees it.
#pragma once

#include "base/pool.h"
#include "engine/model/model_file.h"

enum weights_mode {
    WEIGHTS_AUTO, // each tensor keeps the file's own precision
    WEIGHTS_F32,  // everything expanded to f32
    WEIGHTS_Q8,   // matrices in 8 bits: one scale per 32 weights along the inputs (what is already smaller stays)
};
bool weights_mode_parse(const char *name, enum weights_mode *out); // "auto" | "f32" | "q8"

struct model;

// Packs the weights for the kernels (in parallel on `pool`). Takes `file`: closed on failure too; kept open, since the
// tokenizer, the embedding rows and later the trainer read it.
struct model *model_create(struct model_file *file, enum weights_mode mode, struct pool *pool, struct err *err) MUST_CHECK;

struct adapter;      // engine/model/adapter.h
struct adapter_rows; // engine/infer/adapter_rows.h
// `base` with low-rank factors beside its linear layers: one more reference to base, whose packed weights, file and tokenizer it shares; its own
// memory is the factors. Its configuration, tokenizer etc. are base's, its fingerprint is its own (a hash over base's and the factors). base
// must not be an adapted model itself. A module that the model lacks or whose shape differs, or that is no linear layer of the forward
// (embeddings): ERR_INVALID; a rank above 4096: ERR_UNSUPPORTED. `a` is copied.
struct model *model_create_adapted(struct model *base, const struct adapter *a, struct err *err) MUST_CHECK;
struct model *model_base(struct model *m); // m itself where it is not adapted; no reference
const struct adapter_rows *model_adapter(const struct model *m); // NULL: none
size_t model_own_bytes(const struct model *m);                   // factors of an adapted model, packed weights of another

struct model *model_acquire(struct model *m); // returns m
void model_release(struct model *m);          // accepts NULL

const struct model_config *model_config(const struct model *m);
const struct tokenizer *model_tokenizer(const struct model *m); // NULL: prompts as ids only
const char *model_weights_name(const struct model *m);          // precision of the matrices in memory: "q4", "q8", "f32", "f16", "bf16", "mixed"
const char *model_format(const struct model *m);                // "safetensors" | "gguf"
uint64_t model_parameters(const struct model *m);
size_t model_bytes(const struct model *m); // packed weights in memory
// 16 hex digits over weights, precision and kernel set: equal fingerprints give equal bits.
const char *model_fingerprint(const struct model *m);
