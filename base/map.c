// SPDX-License-Identifier: MIT
// Hash map: linear probing over slots that carry the whole hash, so a probe touches the key's bytes only on a true
// match and growth never hashes again.
//
// Invariants: n_slots is 0 or a power of two; count <= 3/4 n_slots, so a probe always meets an empty slot; hash 0 marks
// an empty slot (a real 0 is stored as 1).
#include "base/map.h"
#include "base/mem.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

struct map_slot {
    uint64_t hash;
    size_t key; // offset into keys
    uint32_t len, value;
};

static inline uint64_t read_64(const unsigned char *p) {
    uint64_t v;
    memcpy(&v, p, 8);
    return v;
}

static inline uint64_t read_32(const unsigned char *p) {
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
}

static inline uint64_t fold(uint64_t a, uint64_t b) {
    __uint128_t product = (__uint128_t)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

// Folded multiplication as in wyhash (github.com/wangyi-fudan/wyhash), except that both factors are masked with bits of
// the seed: with wyhash's public constants a key can make one factor zero and so collide under every seed.
uint64_t hash_bytes(const void *data, size_t len, uint64_t seed) {
    const unsigned char *p = data;
    const uint64_t k1 = (seed ^ 0xa0761d6478bd642fu) * 0xe7037ed1a0b428dbu;
    const uint64_t k2 = ((seed >> 32 | seed << 32) ^ 0x8ebc6af09c88c6e3u) * 0x589965cc75374cc3u;
    uint64_t h = seed ^ len, a, b;
    size_t left = len;
    for (; left > 16; left -= 16, p += 16) h = fold(read_64(p) ^ k1, read_64(p + 8) ^ k2 ^ h);
    if (left >= 8) {
        a = read_64(p);
        b = read_64(p + left - 8);
    } else if (left >= 4) {
        a = read_32(p);
        b = read_32(p + left - 4);
    } else if (left > 0) {
        a = (uint64_t)p[0] << 16 | (uint64_t)p[left >> 1] << 8 | p[left - 1];
        b = 0;
    } else {
        a = b = 0;
    }
    h = fold(a ^ k1 ^ h, b ^ k2);
    return fold(h ^ k2, (uint64_t)len ^ k1);
}

// The start of the process is secret enough where the kernel refuses random bytes (an old sandbox).
static uint64_t seed_new(void) {
    uint64_t seed;
    if (getrandom(&seed, sizeof seed, GRND_NONBLOCK) == (ssize_t)sizeof seed) return seed;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return hash_bytes(&now, sizeof now, (uint64_t)(uintptr_t)&now);
}

static inline uint64_t map_hash(const struct map *m, const void *key, size_t len) {
    uint64_t h = hash_bytes(key, len, m->seed);
    return h ? h : 1;
}

void map_finish(struct map *m) {
    free(m->slots);
    free(m->keys);
    *m = (struct map){0};
}

// The slot that holds the key, or the empty one where it belongs. The map must have slots.
static struct map_slot *map_find(const struct map *m, uint64_t hash, const void *key, size_t len) {
    size_t mask = m->n_slots - 1;
    for (size_t i = hash & mask;; i = (i + 1) & mask) {
        struct map_slot *slot = &m->slots[i];
        if (slot->hash == 0) return slot;
        if (slot->hash == hash && slot->len == len && (len == 0 || memcmp(m->keys + slot->key, key, len) == 0)) return slot;
    }
}

static void map_rehash(struct map *m, size_t n_slots) {
    struct map_slot *old = m->slots;
    size_t n_old = m->n_slots, mask = n_slots - 1;
    m->slots = mem_alloc(n_slots, sizeof *m->slots);
    m->n_slots = n_slots;
    for (size_t k = 0; k < n_old; k++) {
        if (old[k].hash == 0) continue;
        size_t i = old[k].hash & mask;
        while (m->slots[i].hash != 0) i = (i + 1) & mask;
        m->slots[i] = old[k];
    }
    free(old);
}

void map_reserve(struct map *m, size_t count) {
    assert(count < SIZE_MAX / 8);
    if (m->n_slots == 0) m->seed = seed_new();
    size_t n_slots = MAX(m->n_slots, 16);
    while (n_slots / 4 * 3 < count) n_slots *= 2;
    if (n_slots > m->n_slots) map_rehash(m, n_slots);
}

bool map_put(struct map *m, const void *key, size_t len, uint32_t value) {
    assert(len <= UINT32_MAX);
    map_reserve(m, m->count + 1);
    uint64_t hash = map_hash(m, key, len);
    struct map_slot *slot = map_find(m, hash, key, len);
    if (slot->hash != 0) {
        slot->value = value;
        return false;
    }
    mem_grow(&m->keys, &m->keys_cap, m->keys_len + len);
    if (len) memcpy(m->keys + m->keys_len, key, len);
    *slot = (struct map_slot){.hash = hash, .key = m->keys_len, .len = (uint32_t)len, .value = value};
    m->keys_len += len;
    m->count++;
    return true;
}

bool map_get(const struct map *m, const void *key, size_t len, uint32_t *out) {
    if (m->count == 0) return false;
    const struct map_slot *slot = map_find(m, map_hash(m, key, len), key, len);
    if (slot->hash == 0) return false;
    *out = slot->value;
    return true;
}
