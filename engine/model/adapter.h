// SPDX-License-Identifier: MIT
// LoRA adapters as PEFT stores them: adapter_config.json + adapter_model.safetensors.
// Names: "base_model.model.<module>.lora_A.weight" [r][in], "...lora_B.weight" [out][r]; delta of the module's weight (out x in) = alpha / r * B A
// (use_rslora: alpha / sqrt(r)). Conv1D modules (GPT-2) carry fan_in_fan_out: true.
#pragma once

#include "engine/model/model_file.h"

struct adapter_module {
    char *name;        // "transformer.h.0.attn.c_attn" (checkpoint name without .weight)
    float *a, *b;      // [r][n_in], [n_out][r]
    size_t r, n_in, n_out;
    float scale;
};
struct adapter {
    struct adapter_module *modules;
    size_t n;
    size_t rank;
    float alpha;
    char *base; // base_model_name_or_path or NULL
};
bool adapter_load(struct adapter *a, const char *dir, struct err *err) MUST_CHECK; // hostile files get a clear error; NaN refused
void adapter_finish(struct adapter *a);
// A directory that adapter_load would read (adapter_config.json is there).
bool adapter_is_dir(const char *path);

struct adapter_meta { // what adapter_config.json says beside the tensors
    size_t rank;
    float alpha, dropout;
    const char *const *targets; // module suffixes: "c_attn"
    size_t n_targets;
    const char *base;           // base_model_name_or_path; may be NULL
    bool conv1d;                // fan_in_fan_out
};
struct tensor_out;
// PEFT loads it (peft 0.10 and later). tensors carry PEFT's names.
bool adapter_write(const char *dir, const struct adapter_meta *m, const struct tensor_out *tensors, size_t n, struct err *err) MUST_CHECK;

// Replaces the touched tensors of an opened model by f32 copies with the delta added: W + scale * B A. Modules the model lacks or whose
// shapes differ: ERR_INVALID. Before the file is shared between threads.
bool model_file_merge(struct model_file *f, const struct adapter *a, struct err *err) MUST_CHECK;
// model_file_open of `path`; of an adapter's directory: its base (base_model_name_or_path, relative to the adapter's directory or the working
// directory) with the adapter merged. adapter_dir (may be NULL): merged in as well.
struct model_file *model_file_open_adapted(const char *path, const char *adapter_dir, struct err *err) MUST_CHECK;
