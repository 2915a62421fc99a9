// SPDX-License-Identifier: MIT
// Block states, the index of sealed blocks and the LRU list. Invariants C1-C4 are stated in the header.
#include "engine/infer/kv_cache.h"

#include "base/map.h"
#include "base/mem.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { NONE = UINT32_MAX };

struct block {
    uint32_t references;
    bool sealed;
    uint64_t chain;            // hash of every token up to this block's end (sealed)
    uint64_t parent;           // chain of the block before, of the first block the salt (sealed)
    uint64_t salt;             // compared on a hit, like the tokens
    uint32_t next, previous;   // LRU list (cached), or next in the stack (fresh)
    uint32_t next_in_bucket;   // index (sealed)
    uint32_t tokens[KV_BLOCK]; // sealed: compared on a hit, so a hash collision inside a block cannot mislead
};

struct kv_cache {
    struct kv_layout layout;
    size_t n_blocks, bytes;
    struct block *blocks;
    uint32_t *buckets; // index: chain hash -> list of blocks
    size_t n_buckets;  // power of two
    uint32_t fresh;    // stack of blocks that were used before
    size_t untouched;  // blocks [untouched, n_blocks) were never used
    uint32_t oldest, newest;
    size_t n_fresh, n_held, n_cached;
    uint64_t seed;
};

static struct kv_layout layout_of(const struct model_config *c) {
    struct kv_layout l = {.v_stride = (c->head_size + 15) / 16 * 16, .value_at = c->head_size * KV_BLOCK};
    l.head_stride = l.value_at + l.v_stride * KV_BLOCK;
    l.layer_stride = c->n_kv_head * l.head_stride; // the configuration bounds these products
    l.block_stride = c->n_layer * l.layer_stride;
    return l;
}

size_t kv_cache_block_bytes(const struct model_config *c) { return layout_of(c).block_stride * sizeof(float); }

static bool layout_make(struct kv_cache *kv, const struct model_config *c, size_t max_bytes, struct err *err) {
    struct kv_layout *l = &kv->layout;
    size_t block_bytes;
    *l = layout_of(c);
    if (!size_mul(l->block_stride, sizeof(float), &block_bytes)) return err_set(err, ERR_NO_MEMORY, "the key/value cache is too large");
    kv->n_blocks = MIN(MAX(max_bytes / block_bytes, (size_t)1), (size_t)1 << 24);
    kv->bytes = kv->n_blocks * block_bytes;
    l->base = mem_map_array(kv->bytes, "the key/value cache", err);
    return l->base != NULL;
}

struct kv_cache *kv_cache_create(const struct model_config *c, size_t max_bytes, struct err *err) {
    struct kv_cache *kv = mem_new(struct kv_cache);
    if (!layout_make(kv, c, max_bytes, err)) {
        free(kv);
        return NULL;
    }
    kv->n_buckets = 16;
    while (kv->n_buckets < 2 * kv->n_blocks) kv->n_buckets *= 2;
    kv->blocks = mem_try_alloc(kv->n_blocks, sizeof *kv->blocks, "the key/value cache's blocks", err);
    kv->buckets = kv->blocks ? mem_try_alloc(kv->n_buckets, sizeof *kv->buckets, "the key/value cache's index", err) : NULL;
    if (!kv->buckets) {
        kv_cache_destroy(kv);
        return NULL;
    }
    memset(kv->buckets, 0xff, kv->n_buckets * sizeof *kv->buckets);
    kv->fresh = kv->oldest = kv->newest = NONE;
    kv->n_fresh = kv->n_blocks;
    if (getrandom(&kv->seed, sizeof kv->seed, GRND_NONBLOCK) < 0) kv->seed = (uintptr_t)kv;
    return kv;
}

void kv_cache_destroy(struct kv_cache *kv) {
    if (!kv) return;
    mem_unmap_array(kv->layout.base, kv->bytes);
    free(kv->blocks);
    free(kv->buckets);
    free(kv);
}

const struct kv_layout *kv_cache_layout(const struct kv_cache *kv) { return &kv->layout; }
size_t kv_cache_blocks(const struct kv_cache *kv) { return kv->n_blocks; }
size_t kv_cache_available(const struct kv_cache *kv) { return kv->n_fresh + kv->n_cached; }
size_t kv_cache_committed_bytes(const struct kv_cache *kv) { return kv->untouched * kv->layout.block_stride * sizeof(float); }

// ---- LRU list of cached blocks ----

static void lru_remove(struct kv_cache *kv, uint32_t i) {
    struct block *b = &kv->blocks[i];
    if (b->previous == NONE) kv->oldest = b->next;
    else kv->blocks[b->previous].next = b->next;
    if (b->next == NONE) kv->newest = b->previous;
    else kv->blocks[b->next].previous = b->previous;
    kv->n_cached--;
}

static void lru_add_newest(struct kv_cache *kv, uint32_t i) {
    struct block *b = &kv->blocks[i];
    b->previous = kv->newest;
    b->next = NONE;
    if (kv->newest == NONE) kv->oldest = i;
    else kv->blocks[kv->newest].next = i;
    kv->newest = i;
    kv->n_cached++;
}

// ---- index of sealed blocks ----

static uint64_t chain_hash(const struct kv_cache *kv, uint64_t parent, const uint32_t tokens[KV_BLOCK]) {
    return hash_bytes(tokens, KV_BLOCK * sizeof *tokens, parent ^ kv->seed);
}

static uint32_t index_find(const struct kv_cache *kv, uint64_t salt, uint64_t chain, uint64_t parent, const uint32_t tokens[KV_BLOCK]) {
    for (uint32_t i = kv->buckets[chain & (kv->n_buckets - 1)]; i != NONE; i = kv->blocks[i].next_in_bucket) {
        const struct block *b = &kv->blocks[i];
        if (b->chain == chain && b->parent == parent && b->salt == salt && memcmp(b->tokens, tokens, sizeof b->tokens) == 0) return i;
    }
    return NONE;
}

static void index_remove(struct kv_cache *kv, uint32_t i) {
    uint32_t *at = &kv->buckets[kv->blocks[i].chain & (kv->n_buckets - 1)];
    while (*at != i) at = &kv->blocks[*at].next_in_bucket;
    *at = kv->blocks[i].next_in_bucket;
    kv->blocks[i].sealed = false;
}

// ---- what sequences call ----

static void block_hold(struct kv_cache *kv, uint32_t i) {
    if (kv->blocks[i].references++ == 0) {
        lru_remove(kv, i);
        kv->n_held++;
    }
}

size_t kv_cache_match(struct kv_cache *kv, uint64_t salt, const uint32_t *tokens, size_t n, uint32_t *blocks) {
    size_t k = 0;
    uint64_t parent = salt;
    for (; (k + 1) * KV_BLOCK <= n; k++) {
        uint64_t chain = chain_hash(kv, parent, tokens + k * KV_BLOCK);
        uint32_t i = index_find(kv, salt, chain, parent, tokens + k * KV_BLOCK);
        if (i == NONE) break;
        block_hold(kv, i);
        blocks[k] = i;
        parent = chain;
    }
    return k;
}

bool kv_cache_take(struct kv_cache *kv, uint32_t *block) {
    uint32_t i;
    if (kv->fresh != NONE) {
        i = kv->fresh;
        kv->fresh = kv->blocks[i].next;
        kv->n_fresh--;
    } else if (kv->untouched < kv->n_blocks) {
        i = (uint32_t)kv->untouched++;
        kv->n_fresh--;
    } else if (kv->oldest != NONE) {
        i = kv->oldest;
        lru_remove(kv, i);
        index_remove(kv, i);
    } else {
        return false;
    }
    kv->blocks[i].references = 1;
    kv->n_held++;
    *block = i;
    return true;
}

void kv_cache_seal(struct kv_cache *kv, uint64_t salt, const uint32_t *blocks, size_t i, const uint32_t *tokens) {
    struct block *b = &kv->blocks[blocks[i]];
    if (b->sealed) return;
    uint64_t parent = salt; // of an unsealed neighbour (an equal block was sealed first) the chain is not stored: hash from the start
    for (size_t k = 0; k < i; k++) {
        const struct block *before = &kv->blocks[blocks[k]];
        parent = before->sealed ? before->chain : chain_hash(kv, parent, tokens + k * KV_BLOCK);
    }
    uint64_t chain = chain_hash(kv, parent, tokens + i * KV_BLOCK);
    if (index_find(kv, salt, chain, parent, tokens + i * KV_BLOCK) != NONE) return;
    b->sealed = true;
    b->chain = chain;
    b->parent = parent;
    b->salt = salt;
    memcpy(b->tokens, tokens + i * KV_BLOCK, sizeof b->tokens);
    uint32_t *bucket = &kv->buckets[chain & (kv->n_buckets - 1)];
    b->next_in_bucket = *bucket;
    *bucket = blocks[i];
}

void kv_cache_release(struct kv_cache *kv, uint32_t block) {
    struct block *b = &kv->blocks[block];
    assert(b->references > 0);
    if (--b->references > 0) return;
    kv->n_held--;
    if (b->sealed) {
        lru_add_newest(kv, block);
    } else {
        b->next = kv->fresh;
        kv->fresh = block;
        kv->n_fresh++;
    }
}

void kv_cache_check(const struct kv_cache *kv) {
    size_t held = 0, sealed = 0, cached = 0, fresh = kv->n_blocks - kv->untouched, indexed = 0;
    for (size_t i = 0; i < kv->untouched; i++) {
        const struct block *b = &kv->blocks[i];
        held += b->references > 0;
        sealed += b->sealed;
        if (b->sealed) assert(index_find(kv, b->salt, b->chain, b->parent, b->tokens) == i); // C2: once, and found
    }
    for (uint32_t i = kv->oldest; i != NONE; i = kv->blocks[i].next, cached++) assert(kv->blocks[i].references == 0 && kv->blocks[i].sealed);
    for (uint32_t i = kv->fresh; i != NONE; i = kv->blocks[i].next, fresh++) assert(kv->blocks[i].references == 0 && !kv->blocks[i].sealed);
    for (size_t k = 0; k < kv->n_buckets; k++)
        for (uint32_t i = kv->buckets[k]; i != NONE; i = kv->blocks[i].next_in_bucket, indexed++) assert(kv->blocks[i].sealed);
    assert(indexed == sealed);
    assert(held == kv->n_held && cached == kv->n_cached && fresh == kv->n_fresh);
    assert(fresh + held + cached == kv->n_blocks);
}
