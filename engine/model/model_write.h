// SPDX-License-Identifier: MIT
// Writing models: safetensors, a Hugging Face directory, GGUF.
//
// Invariants: (1) a file appears whole or not at all (tmp, fsync, rename); (2) it holds nothing that depends on time, machine, thread count
// or the order in which the tensors are given: equal models are equal bytes. Tensors carry HF's names and shapes, rows in HF's order. Any
// thread. Formats: github.com/huggingface/safetensors; ggml's docs/gguf.md; llama.cpp's convert_hf_to_gguf.py.
#pragma once

#include "base/buf.h"
#include "engine/model/model_file.h"

struct tensor_out {
    const char *name;
    int n_dims;        // 1 or 2
    size_t shape[2];   // shape[1] is 1 for vectors
    const float *data; // [shape]; NULL: `fill` is asked, a few rows at a time
    // Writes rows [row, row + n_rows), of shape[1] each, to out; a vector is one row of shape[0].
    void (*fill)(void *ctx, const struct tensor_out *t, size_t row, size_t n_rows, float *out);
    void *ctx;
};
enum write_type { WRITE_F32, WRITE_F16, WRITE_BF16, WRITE_Q8_0 }; // Q8_0: GGUF only

// Every tensor has the one type. metadata: "__metadata__" as a JSON object's text, or NULL.
bool safetensors_write(const char *path, const struct tensor_out *tensors, size_t n, enum write_type type, const char *metadata,
                       struct err *err) MUST_CHECK;
// config.json's text, for transformers 4 and 5 and for config_hf_parse. t (may be NULL) gives the special ids. c has no rope_divisors.
void config_hf_write(const struct model_config *c, const struct tokenizer *t, struct buf *out);
// config.json, model.safetensors and the tokenizer's files (tokenizer may be NULL). The directory is made; a model that is there is replaced
// file by file, config.json last.
bool hf_dir_write(const char *dir, const struct model_config *c, const struct tensor_out *tensors, size_t n, enum write_type type,
                  const struct tokenizer *tokenizer, struct err *err) MUST_CHECK;
// What llama.cpp loads: its names, its order of rotary rows, the tokenizer in the metadata. Vectors and learned positions are f32 whatever
// the type, a matrix whose rows are no multiple of 32 is f16 instead of Q8_0; a GPT-2 without query, key and value biases gets zeros.
// tokenizer and name (general.name) may be NULL.
bool gguf_write(const char *path, const struct model_config *c, const struct tensor_out *tensors, size_t n, enum write_type type,
                const struct tokenizer *tokenizer, const char *name, struct err *err) MUST_CHECK;

// Every tensor of an opened model, dequantised to f32 as it is asked for. [*n], freed with free(); borrows f.
struct tensor_out *model_file_tensors_out(const struct model_file *f, size_t *n);
