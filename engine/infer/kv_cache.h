// SPDX-License-Identifier: MIT
// Keys and values of past positions, in blocks of KV_BLOCK positions that sequences share where their beginnings are equal.
//
// Invariants (kv_cache_check asserts them all):
//   C1. Every block is in exactly one state: fresh (never used since the start or since it lost its content), held
//       (references > 0), or cached (references 0, content known, in the LRU list).
//   C2. A block is in the index exactly when its content is known (sealed): all KV_BLOCK positions written, and with them the whole chain
//       of tokens before it and the salt (what else the values are a function of: an adapter's version). At most one block of a given salt
//       and chain is in the index; blocks of one salt are never found under another.
//   C3. Sealed blocks are never written again while they are sealed.
//   C4. fresh + held + cached = n_blocks.
// Memory is reserved at creation and committed by first touch; fresh blocks are handed out lowest address first and recently freed
// before never used, so a quiet server stays small. Thread: the engine's alone.
#pragma once

#include "engine/kernels/kernels.h"
#include "engine/model/model_file.h"

struct kv_cache;

size_t kv_cache_block_bytes(const struct model_config *c); // of one block
// As many blocks as fit in max_bytes (at least one).
struct kv_cache *kv_cache_create(const struct model_config *c, size_t max_bytes, struct err *err) MUST_CHECK;
void kv_cache_destroy(struct kv_cache *kv); // accepts NULL

// Layout of a block, in floats from its start: kernels' struct attention_task reads it.
struct kv_layout {
    float *base;
    size_t block_stride, v_stride; // floats
    size_t layer_stride, head_stride, value_at; // keys of (layer, kv head) at layer * layer_stride + head * head_stride, values value_at further
};
const struct kv_layout *kv_cache_layout(const struct kv_cache *kv);

// Longest chain of sealed blocks that holds tokens[0 .. k * KV_BLOCK), k * KV_BLOCK <= n. Takes a reference to each, writes their
// numbers to blocks[] and returns k.
size_t kv_cache_match(struct kv_cache *kv, uint64_t salt, const uint32_t *tokens, size_t n, uint32_t *blocks);
// One block with one reference: a fresh one, else the least recently used cached one. false: all are held.
bool kv_cache_take(struct kv_cache *kv, uint32_t *block);
// The caller has written block `i` of its chain blocks[0..i], whose tokens are tokens[0 .. (i + 1) * KV_BLOCK): make it findable.
void kv_cache_seal(struct kv_cache *kv, uint64_t salt, const uint32_t *blocks, size_t i, const uint32_t *tokens);
void kv_cache_release(struct kv_cache *kv, uint32_t block);

size_t kv_cache_blocks(const struct kv_cache *kv);    // in all
size_t kv_cache_available(const struct kv_cache *kv); // fresh + cached: what kv_cache_take can still give
size_t kv_cache_committed_bytes(const struct kv_cache *kv); // high-water mark of touched blocks
void kv_cache_check(const struct kv_cache *kv); // asserts C1-C4
