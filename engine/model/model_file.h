// SPDX-License-Identifier: MIT
// A model file opened for reading: configuration, named tensors (still in the file's own precision, memory-mapped) and tokenizer.
//
// Whatever the format, tensor names are Hugging Face's ("transformer.h.0.attn.c_attn.weight", "model.layers.0.self_attn.q_proj.weight") and
// rows are in HF order (Q/K rows of Llama GGUF are un-permuted, see tensor.row_perm). Every offset was bounded and every
// size product checked at open: reading tensors afterwards cannot fail. Immutable after open; any number of threads.
#pragma once

#include "base/err.h"
#include "tokenizer/tokenizer.h"

#include <stdint.h>

enum dtype { DTYPE_F32, DTYPE_F16, DTYPE_BF16, DTYPE_Q8_0, DTYPE_Q4_0, DTYPE_Q4_1, DTYPE_Q6_K, DTYPE_COUNT };

size_t dtype_block(enum dtype t);       // elements per block: 1, 32 or 256
size_t dtype_block_bytes(enum dtype t); // bytes per block
const char *dtype_name(enum dtype t);   // "f32", "q4_1", ...

enum arch { ARCH_GPT2, ARCH_LLAMA };
enum norm_kind { NORM_LAYERNORM, NORM_RMSNORM };
enum position_kind { POSITION_LEARNED, POSITION_ROTARY };
enum mlp_kind { MLP_GELU_TANH, MLP_SWIGLU };

// Everything that distinguishes one decoder from another. Dimensions are those of the arrays: C = n_embd, V = n_vocab,
// NH = n_head, NKV = n_kv_head, HS = head_size, L = n_layer, F = n_inner.
struct model_config {
    enum arch arch;
    enum norm_kind norm;
    enum position_kind position;
    enum mlp_kind mlp;
    size_t n_layer, n_head, n_kv_head, head_size, n_embd, n_inner, n_vocab, n_ctx;
    float norm_eps;
    bool attn_bias, mlp_bias; // the projections have biases (GPT-2: both)
    bool qkv_bias;            // query, key and value have them: attn_bias, but for GPT-2s made with "qkv_bias": false
    bool tied_head;           // the output head is the token embedding
    double rope_theta;
    struct { // HF rope_scaling of type "llama3"; factor 0: none
        double factor, low_freq_factor, high_freq_factor, original_ctx;
    } rope_scaling;
    bool rope_linear; // rope_scaling type "linear": factor above divides positions
    // GGUF's rope_freqs.weight (how llama.cpp stores "llama3" scaling): [head_size / 2] divisors of the frequencies, or NULL.
    // Owned by the model_file; rope_scaling.factor is 0 then.
    const float *rope_divisors;
};

// The angle a position adds per unit in each rotary pair, inv_freq[head_size / 2], every kind of scaling included: the one place that knows
// them. Angle of position p in pair i = p * inv_freq[i]. ARCH_LLAMA only.
void model_config_rope_frequencies(const struct model_config *c, float *inv_freq);

// Rows: a tensor is shape[0] x shape[1] (x ...) in HF's order, row-major, blocks along the last dimension.
struct tensor {
    const char *name; // HF name
    enum dtype type;
    int n_dims;      // 1 or 2
    size_t shape[2]; // HF's shape; shape[1] is 1 for vectors
    const unsigned char *data;
    size_t n_bytes;
    bool transposed; // data lie as shape[1] x shape[0] (GPT-2's Conv1D weights from GGUF: HF says (in, out), the file has (out, in))
    size_t rope_heads; // > 0: rows lie in llama.cpp's order, interleaved per head; HF row r is the file's row tensor_file_row(t, r)
};

// config.json of Hugging Face transformers, 4 and 5 style, checked. Pure.
bool config_hf_parse(const char *text, size_t len, struct model_config *out, struct err *err) MUST_CHECK;

struct model_file;

// PATH: an HF directory (config.json + model.safetensors | model.safetensors.index.json + shards), OpenAI's TensorFlow directory
// (hparams.json + checkpoint), a .gguf file or a PyTorch state dict (.pth; config.json and tokenizer beside it).
// The tokenizer is loaded too where there is one. On failure NULL and one clear sentence.
struct model_file *model_file_open(const char *path, struct err *err) MUST_CHECK;
void model_file_close(struct model_file *f); // accepts NULL; unmaps

const struct model_config *model_file_config(const struct model_file *f);
const struct tokenizer *model_file_tokenizer(const struct model_file *f); // NULL: the directory has none
const char *model_file_format(const struct model_file *f);                // "safetensors" | "gguf" | "tensorflow" | "pytorch"
size_t model_file_tensor_count(const struct model_file *f);
const struct tensor *model_file_tensor_at(const struct model_file *f, size_t i);
const struct tensor *model_file_tensor(const struct model_file *f, const char *name); // NULL: absent
uint64_t model_file_parameters(const struct model_file *f); // parameters in all
// SHA-256 over config and every tensor's name, type, shape and bytes, in name order: the weights' identity. Reads the whole file once.
void model_file_hash(const struct model_file *f, unsigned char out[32]);

// Finds the tensor and checks its shape against the configuration's; NULL + ERR_CORRUPT with its name otherwise.
// cols 0: a vector of `rows` elements.
const struct tensor *model_file_require(const struct model_file *f, const char *name, size_t rows, size_t cols, struct err *err) MUST_CHECK;
