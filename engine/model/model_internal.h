// SPDX-License-Identifier: MIT
// What the loaders share inside engine/model/. No other room includes this, but for the hostile-file tests, which open
// from memory.
//
// Life of a model_file: a loader maps files, adds every tensor with model_file_add (bytes already bounded), fills
// config and tokenizer; model_file_finish then sorts, refuses duplicates, validates the configuration and holds every
// tensor against the architecture's table (names.c). Until then nothing may trust a name or a shape.
#pragma once

#include "base/arena.h"
#include "base/file.h"
#include "engine/model/model_file.h"

// Bounds on what a file may make us allocate. The largest supported models have a few hundred tensors. A tokenizer
// takes about 200 bytes a token whatever the token's length: with the largest vocabulary in use, 2^18, that stays
// inside 64 MiB + 4 x the file.
enum { MODEL_MAX_TENSORS = 65536, MODEL_MAX_SHARDS = 1024, MODEL_MAX_VOCAB = 1 << 18, MODEL_MAX_NAME = 255 };

struct model_file {
    struct model_config config;
    struct tokenizer *tokenizer; // NULL: none
    const char *format;
    struct file_map *maps; // every file the tensors point into
    size_t n_maps, maps_cap;
    struct tensor *tensors; // by name after model_file_finish
    size_t n_tensors, tensors_cap;
    struct arena names;
    float *rope_divisors; // config.rope_divisors
    void **blocks;        // malloc'ed memory that tensors point into: merged weights
    size_t n_blocks, blocks_cap;
    bool raw_names; // safetensors_load keeps every tensor and its name: an adapter, not a model
    uint64_t n_parameters;
};

// Copies *t and its name. ERR_TOO_LARGE past MODEL_MAX_TENSORS.
bool model_file_add(struct model_file *f, const struct tensor *t, const char *name, struct err *err) MUST_CHECK;
bool model_file_finish(struct model_file *f, struct err *err) MUST_CHECK;

// Loaders: fill an empty model_file; on failure the caller closes it.
bool hf_load_dir(struct model_file *f, const char *dir, struct err *err) MUST_CHECK;
bool gguf_load(struct model_file *f, const unsigned char *data, size_t len, struct err *err) MUST_CHECK;

// The JSON reader calls bad syntax the caller's fault (ERR_INVALID); in a model's files it is damage. Returns false.
static inline bool json_corrupt(struct err *err) {
    if (err && err->code == ERR_INVALID) err->code = ERR_CORRUPT;
    return false;
}

// OpenAI's layout (hparams.json, *.index) and PyTorch's state dicts; `path` for the config.json and tokenizer beside the file.
bool tf_is_dir(const char *dir);
bool tf_load_dir(struct model_file *f, const char *dir, struct err *err) MUST_CHECK;
bool pth_is_file(const unsigned char *data, size_t len);
bool pth_load(struct model_file *f, const char *path, const unsigned char *data, size_t len, struct err *err) MUST_CHECK;
// The tokenizer's files of a directory; none there is no failure.
bool tokenizer_load_beside(struct model_file *f, const char *dir, struct err *err) MUST_CHECK;

// GPT-2 with its biases and a tied head; config_check says whether the sizes fit together.
struct model_config config_gpt2(size_t n_layer, size_t n_head, size_t n_embd, size_t n_inner, size_t n_vocab, size_t n_ctx);
// Dimensions positive, bounded, divisible; eps and theta finite; scaling sane. `in` names the source in messages.
bool config_check(const struct model_config *c, struct err *err) MUST_CHECK;

// One .safetensors file in memory. `expect` (may be NULL) says whether the file may hold a tensor of this name.
typedef bool safetensors_expect_fn(void *ctx, const char *name, struct err *err);
bool safetensors_load(struct model_file *f, const unsigned char *data, size_t len, safetensors_expect_fn *expect,
                      void *ctx, struct err *err) MUST_CHECK;

// Models from memory, for tests: the bytes must outlive the model.
struct model_file *model_file_open_gguf_memory(const void *data, size_t len, struct err *err) MUST_CHECK;
struct model_file *model_file_open_hf_memory(const char *config, size_t config_len, const void *data, size_t len,
                                             struct err *err) MUST_CHECK;

// ---- names.c: which tensors an architecture has ----
enum dim { DIM_NONE, DIM_C, DIM_3C, DIM_F, DIM_V, DIM_T, DIM_Q, DIM_KV }; // sizes as functions of the configuration
enum slot_when { SLOT_ALWAYS, SLOT_ATTN_BIAS, SLOT_QKV_BIAS, SLOT_MLP_BIAS, SLOT_UNTIED };
enum slot_rope { SLOT_PLAIN, SLOT_ROPE_Q, SLOT_ROPE_K };

struct slot {
    const char *hf, *gguf; // names; those of a layer without "transformer.h.N." | "model.layers.N." and "blk.N."
    enum dim rows, cols;   // HF's shape
    enum slot_when when;
    bool layer, conv1d;  // conv1d: HF's shape is (in, out), GGUF's data are (out, in)
    enum slot_rope rope; // rows that llama.cpp's converter permutes
};

// "PREFIX12.rest" -> "rest" and 12; NULL when the name is not of that form.
const char *name_layer(const char *name, const char *prefix, size_t *layer);
const struct slot *slot_find_gguf(enum arch arch, const char *name, size_t *layer); // NULL: unknown
const struct slot *slot_find_hf(enum arch arch, const char *name, size_t *layer);
void slot_hf_name(enum arch arch, const struct slot *s, size_t layer, char out[MODEL_MAX_NAME + 1]);
bool name_is_buffer(const char *name); // a causal mask or frequencies that old checkpoints saved as if they were weights
// HF name as this program knows it: a missing "transformer." or "model." is added. False: a buffer that is no weight,
// or a tied head's copy.
bool hf_name_normalize(const struct model_config *c, const char *name, char out[MODEL_MAX_NAME + 1]);
// Every tensor the configuration asks for is there with its shape, and nothing else is.
bool names_check(const struct model_file *f, struct err *err) MUST_CHECK;
