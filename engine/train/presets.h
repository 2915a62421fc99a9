// SPDX-License-Identifier: MIT
// Models to be trained from random weights: the named sizes, and `--init CONFIG.json`, a Hugging Face config.json with four keys of our own.
// Pure functions; any thread.
#pragma once

#include "engine/model/model_file.h"
#include "engine/train/params.h"

struct model_init {
    struct model_config config;
    enum init_kind init; // "init": "gpt2" | "torch"
    bool decay_all;      // "decay": "matrices" | "all"
    double dropout;      // embd_pdrop, attn_pdrop and resid_pdrop, which must agree, or "drop_rate"; 0 where absent
    bool own_vocabulary; // a preset without a tokenizer has its own size; with one, the tokenizer's
};

// "gpt2-nano", "gpt2-mini", "gpt2-124m", "gpt2-355m", "gpt2-774m", "gpt2-1558m". False: no such preset.
bool model_init_preset(const char *name, struct model_init *out);
extern const char model_init_presets[]; // their names, for messages
// config.json's text: "tie_word_embeddings" and "qkv_bias" go into config, the others above.
bool model_init_parse(const char *text, size_t len, struct model_init *out, struct err *err) MUST_CHECK;
// A preset's name or the path of a file.
bool model_init_open(const char *name_or_path, struct model_init *out, struct err *err) MUST_CHECK;

uint64_t model_config_parameters(const struct model_config *c); // from the shapes alone
