// SPDX-License-Identifier: MIT
// LoRA adapters as PEFT stores them: adapter_config.json + adapter_model.safetensors.
//
// Names: "base_model.model.<module>.lora_A.weight" [r][in], "...lora_B.weight" [out][r]; the delta of the module's weight (out x in) is
// alpha / r * B A (use_rslora: alpha / sqrt(r)). What PEFT can do beyond that (DoRA, biases, saved modules, ...) is refused by its name.
// Source: github.com/huggingface/peft, tuners/lora and utils/save_and_load.py. Thread: any, one an adapter.
#pragma once

#include "engine/model/model_file.h"

struct adapter_module {
    char *name;   // checkpoint name without .weight: "transformer.h.0.attn.c_attn"
    float *a, *b; // [r][n_in], [n_out][r]
    size_t r, n_in, n_out;
    float scale; // of B A
};
struct adapter {
    struct adapter_module *modules; // by name
    size_t n;
    size_t rank; // adapter_config.json's r and lora_alpha; a module's own rank and scale are what counts
    float alpha;
    char *base; // base_model_name_or_path or NULL
};
// Hostile files get a clear error, and so does a factor that is not finite.
bool adapter_load(struct adapter *a, const char *dir, struct err *err) MUST_CHECK;
// The factors of a lone .safetensors file: every scale is 1 / rank, rank, alpha and base are not set.
bool adapter_load_file(struct adapter *a, const char *path, struct err *err) MUST_CHECK;
void adapter_finish(struct adapter *a); // accepts a zeroed one
// Is this a directory that adapter_load would read: does adapter_config.json lie there?
bool adapter_is_dir(const char *path);
// Where the base of the adapter in `dir` lies, by base_model_name_or_path, relative to `dir` or to the working directory; malloc'ed. NULL:
// it is not there.
char *adapter_base_path(const char *dir, struct err *err) MUST_CHECK;

struct adapter_meta { // what adapter_config.json says beside the tensors
    size_t rank;
    float alpha, dropout;
    const char *const *targets; // module suffixes: "c_attn"
    size_t n_targets;
    const char *base; // base_model_name_or_path; may be NULL
    bool conv1d;      // fan_in_fan_out: the modules are GPT-2's Conv1D
};
struct tensor_out;
// PEFT loads it (0.10 and later). The tensors carry PEFT's names. The directory is made; adapter_config.json comes last.
bool adapter_write(const char *dir, const struct adapter_meta *m, const struct tensor_out *tensors, size_t n,
                   struct err *err) MUST_CHECK;

// The weight that a module changes; *conv1d: it lies as (in, out). NULL + ERR_INVALID: the model has no such linear layer, or one of
// another shape.
const struct tensor *adapter_target(const struct model_file *f, const struct adapter_module *m, bool *conv1d, struct err *err) MUST_CHECK;

// Replaces the weights that the adapter touches by f32 copies with the delta added: W + scale * B A. A module that the model lacks or
// whose shape differs: ERR_INVALID, and the model is as before. To be called before the file is shared between threads.
bool model_file_merge(struct model_file *f, const struct adapter *a, struct err *err) MUST_CHECK;
// model_file_open of `path`; of an adapter's directory: of its base (adapter_base_path) with the adapter merged. adapter_dir (may be
// NULL): merged in as well.
struct model_file *model_file_open_adapted(const char *path, const char *adapter_dir, struct err *err) MUST_CHECK;
