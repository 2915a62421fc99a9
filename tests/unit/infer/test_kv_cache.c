// SPDX-License-Identifier: MIT
// Blocks: states, sharing, eviction; random use under the checker against a model that remembers everything.
#include "base/mem.h"
#include "engine/infer/kv_cache.h"
#include "tests/unit/test.h"

static const struct model_config small = {.n_layer = 1, .n_head = 1, .n_kv_head = 1, .head_size = 16, .n_embd = 16};
enum { BLOCK_BYTES = KV_BLOCK * 32 * 4 };

static struct kv_cache *cache(size_t n_blocks) { return kv_cache_create(&small, n_blocks * BLOCK_BYTES, NULL); }

static void tokens_fill(uint32_t *t, size_t n, uint32_t seed) {
    for (size_t i = 0; i < n; i++) t[i] = seed * 1000 + (uint32_t)i % 7;
}

TEST(takes_until_full_and_again_after_release) {
    struct kv_cache *kv = cache(3);
    uint32_t b[4];
    CHECK_INT(kv_cache_blocks(kv), 3);
    for (int i = 0; i < 3; i++) CHECK(kv_cache_take(kv, &b[i]));
    CHECK(!kv_cache_take(kv, &b[3]));
    CHECK_INT(kv_cache_available(kv), 0);
    kv_cache_release(kv, b[1]);
    CHECK(kv_cache_take(kv, &b[3]));
    CHECK_INT(b[3], b[1]);
    kv_cache_check(kv);
    kv_cache_destroy(kv);
}

TEST(equal_beginnings_are_found_and_only_those) {
    struct kv_cache *kv = cache(8);
    uint32_t t[4 * KV_BLOCK], b[4], found[4];
    tokens_fill(t, 4 * KV_BLOCK, 1);
    for (size_t i = 0; i < 3; i++) {
        CHECK(kv_cache_take(kv, &b[i]));
        kv_cache_seal(kv, 0, b, i, t);
    }
    CHECK_INT(kv_cache_match(kv, 0, t, 4 * KV_BLOCK, found), 3);
    CHECK(memcmp(found, b, 3 * sizeof *b) == 0);
    CHECK_INT(kv_cache_match(kv, 0, t, 3 * KV_BLOCK - 1, found), 2); // never past n
    t[KV_BLOCK]++;                                              // a different second block
    CHECK_INT(kv_cache_match(kv, 0, t, 4 * KV_BLOCK, found), 1);
    t[0]++;
    CHECK_INT(kv_cache_match(kv, 0, t, 4 * KV_BLOCK, found), 0);
    kv_cache_check(kv);
    kv_cache_destroy(kv);
}

// The same block content after another beginning is another block.
TEST(a_block_means_its_whole_chain) {
    struct kv_cache *kv = cache(8);
    uint32_t x[2 * KV_BLOCK], y[2 * KV_BLOCK], b[2], found[2];
    tokens_fill(x, 2 * KV_BLOCK, 1);
    memcpy(y, x, sizeof y);
    y[3] = 99;
    for (size_t i = 0; i < 2; i++) {
        CHECK(kv_cache_take(kv, &b[i]));
        kv_cache_seal(kv, 0, b, i, x);
    }
    CHECK_INT(kv_cache_match(kv, 0, y, 2 * KV_BLOCK, found), 0);
    kv_cache_destroy(kv);
}

// What was computed under one adapter is not found under another, nor under none, at any depth.
TEST(a_chain_belongs_to_its_salt) {
    struct kv_cache *kv = cache(8);
    uint32_t t[2 * KV_BLOCK], b[4], found[2];
    tokens_fill(t, 2 * KV_BLOCK, 1);
    for (size_t i = 0; i < 2; i++) {
        REQUIRE(kv_cache_take(kv, &b[i]));
        kv_cache_seal(kv, 7, b, i, t);
    }
    CHECK_INT(kv_cache_match(kv, 0, t, 2 * KV_BLOCK, found), 0);
    CHECK_INT(kv_cache_match(kv, 8, t, 2 * KV_BLOCK, found), 0);
    CHECK_INT(kv_cache_match(kv, 7, t, 2 * KV_BLOCK, found), 2);
    for (size_t i = 0; i < 2; i++) { // equal tokens under another salt are a chain of their own
        REQUIRE(kv_cache_take(kv, &b[2 + i]));
        kv_cache_seal(kv, 8, b + 2, i, t);
    }
    CHECK_INT(kv_cache_match(kv, 8, t, 2 * KV_BLOCK, found), 2);
    CHECK(memcmp(found, b + 2, sizeof found) == 0);
    kv_cache_check(kv);
    kv_cache_destroy(kv);
}

TEST(the_least_recently_used_is_evicted) {
    struct kv_cache *kv = cache(2);
    uint32_t x[KV_BLOCK], y[KV_BLOCK], a, b, c;
    tokens_fill(x, KV_BLOCK, 1);
    tokens_fill(y, KV_BLOCK, 2);
    REQUIRE(kv_cache_take(kv, &a) && kv_cache_take(kv, &b));
    kv_cache_seal(kv, 0, &a, 0, x);
    kv_cache_seal(kv, 0, &b, 0, y);
    kv_cache_release(kv, a);
    kv_cache_release(kv, b);
    CHECK_INT(kv_cache_match(kv, 0, x, KV_BLOCK, &c), 1); // a is now the youngest
    kv_cache_release(kv, c);
    CHECK(kv_cache_take(kv, &c));
    CHECK_INT(c, b);
    CHECK_INT(kv_cache_match(kv, 0, y, KV_BLOCK, &b), 0);
    CHECK_INT(kv_cache_match(kv, 0, x, KV_BLOCK, &b), 1);
    kv_cache_check(kv);
    kv_cache_destroy(kv);
}

static uint64_t state = 12345;
static size_t below(size_t n) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (state >> 33) % n;
}

// Each "sequence" writes its tokens' hash into its blocks; whoever matches a block must find the content of its own chain there.
TEST(random_use_keeps_invariants_and_contents) {
    enum { N_BLOCKS = 24, N_SEQ = 6, LEN = 5 * KV_BLOCK };
    struct kv_cache *kv = cache(N_BLOCKS);
    const struct kv_layout *l = kv_cache_layout(kv);
    struct { uint32_t t[LEN], b[LEN / KV_BLOCK]; size_t n; bool live; } s[N_SEQ] = {0};
    size_t hits = 0;
    for (int step = 0; step < 20000; step++) {
        size_t i = below(N_SEQ);
        if (!s[i].live) {
            for (size_t k = 0; k < LEN; k++) s[i].t[k] = (uint32_t)(k / KV_BLOCK * 10); // few distinct texts, so that they meet
            for (size_t k = 0; k < LEN / KV_BLOCK; k++) s[i].t[k * KV_BLOCK] += (uint32_t)below(2);
            s[i].n = kv_cache_match(kv, 0, s[i].t, LEN - 1, s[i].b);
            s[i].live = true;
            hits += s[i].n;
            float chain = 0;
            for (size_t k = 0; k < s[i].n; k++) {
                chain = chain * 2 + (float)s[i].t[k * KV_BLOCK] + 1;
                CHECK(l->base[s[i].b[k] * l->block_stride] == chain);
            }
        } else if (s[i].n < LEN / KV_BLOCK && below(4) && kv_cache_take(kv, &s[i].b[s[i].n])) {
            float chain = 0;
            for (size_t k = 0; k <= s[i].n; k++) chain = chain * 2 + (float)s[i].t[k * KV_BLOCK] + 1;
            l->base[s[i].b[s[i].n] * l->block_stride] = chain;
            kv_cache_seal(kv, 0, s[i].b, s[i].n, s[i].t);
            s[i].n++;
        } else {
            while (s[i].n > 0) kv_cache_release(kv, s[i].b[--s[i].n]);
            s[i].live = false;
        }
        if (step % 64 == 0) kv_cache_check(kv);
    }
    CHECK(hits > 1000);
    kv_cache_destroy(kv);
}

TEST_MAIN("kv_cache")
