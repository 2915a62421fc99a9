// SPDX-License-Identifier: MIT
// One sequence as scheduler and engine share it: its tokens so far, how far the cache covers them, and where it stands.
// Thread: the engine's alone.
#pragma once

#include "engine/infer/engine.h"

enum sequence_state { SEQUENCE_WAITING, SEQUENCE_RUNNING };

struct sequence {
    uint64_t id, group;
    uint64_t adapter; // version of its adapter, 0: none. Part of what a cached block is
    enum sequence_state state;
    struct sequence *next; // waiting queue

    uint32_t *tokens; // prompt, then generated; [n_prompt + max_tokens]
    size_t n_tokens, n_prompt, max_tokens;
    size_t n_computed; // tokens whose keys and values are in the cache
    bool score_prompt; // every prompt row's logits are wanted: cached prefixes are of no use

    uint32_t *blocks; // block table; [ceil((n_prompt + max_tokens) / KV_BLOCK)]
    size_t n_blocks;
    size_t n_sealed; // blocks already offered to the prefix cache

    size_t n_cached; // prompt tokens that the first admission found in the cache
    uint64_t admitted; // order of admission; the latest is preempted first

    size_t step_row, step_rows; // rows of the step in progress
    void *owner;                // the engine's part
};
