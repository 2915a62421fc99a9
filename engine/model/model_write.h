// SPDX-License-Identifier: MIT
// Writing models: safetensors, a Hugging Face directory, GGUF. Files appear whole or not at all (tmp, fsync, rename) and hold nothing that
// depends on time, machine or thread count: equal models give equal bytes. Tensors are HF's names, shapes and row order.
#pragma once

#include "base/buf.h"
#include "engine/model/model_file.h"

struct tensor_out {
    const char *name;
    int n_dims;
    size_t shape[2];
    const float *data; // [shape]; NULL: `fill` is asked for rows
    void (*fill)(void *ctx, const struct tensor_out *t, size_t row, size_t n_rows, float *out); // rows of shape[1] (vectors: one row)
    void *ctx;
};
enum write_type { WRITE_F32, WRITE_F16, WRITE_BF16, WRITE_Q8_0 }; // Q8_0: GGUF only; vectors and norms stay f32

// metadata: JSON object text for "__metadata__" or NULL. Order of tensors in the file: by name.
bool safetensors_write(const char *path, const struct tensor_out *tensors, size_t n, enum write_type type, const char *metadata, struct err *err) MUST_CHECK;
void config_hf_write(const struct model_config *c, const struct tokenizer *t, struct buf *out); // config.json's text; t may be NULL
// config.json, model.safetensors, and the tokenizer's files; the directory is made. An existing model there is replaced file by file, config last.
bool hf_dir_write(const char *dir, const struct model_config *c, const struct tensor_out *tensors, size_t n, enum write_type type,
                  const struct tokenizer *tokenizer, struct err *err) MUST_CHECK;
// llama.cpp's names, rows of rotary Q and K in its order, tokenizer in its metadata. Loads in llama.cpp.
bool gguf_write(const char *path, const struct model_config *c, const struct tensor_out *tensors, size_t n, enum write_type type,
                const struct tokenizer *tokenizer, const char *name, struct err *err) MUST_CHECK;
// Every tensor of an opened model as f32 rows, for the writers. [*n], freed with free(); borrows f.
struct tensor_out *model_file_tensors_out(const struct model_file *f, size_t *n);
