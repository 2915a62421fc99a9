// SPDX-License-Identifier: MIT
// `couplet bench --train`: one full training step (forward, loss, backward, AdamW) on random tokens: milliseconds, tokens and GFLOP a
// second, the phases, and OpenBLAS's rate on a 2048-cube in the same run, to divide by. Medians.
#pragma once

#include "base/buf.h"

struct bench_train_options {
    const char *model; // a model's path, or the name of a preset: random weights
    bool lora;         // rank 8 on every linear layer of the blocks
    const char *lora_targets; // "c_attn,c_proj" or NULL
    size_t batch, context; // sequences and tokens of each
    size_t threads, repeat; // 0: one a processor; steps that are measured
    float dropout;
    bool recompute;
};
// Appends one JSON object without a newline.
bool bench_train(const struct bench_train_options *o, struct buf *out, struct err *err) MUST_CHECK;
