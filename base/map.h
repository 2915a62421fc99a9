// SPDX-License-Identifier: MIT
// Hash map from byte strings to 32-bit values: open addressing, keys copied into one block, seeded hash (a hostile
// vocabulary cannot force collisions). `{0}` is an empty one. Not thread-safe for writing; any number of readers.
#pragma once

#include "base/err.h"

#include <stdint.h>

struct map {
    struct map_slot *slots;
    size_t n_slots, count;
    char *keys; // all key bytes, one after the other
    size_t keys_len, keys_cap;
    uint64_t seed;
};

void map_finish(struct map *m);
void map_reserve(struct map *m, size_t count);
// Inserts or overwrites. Returns true when the key was new. len < 2^32.
bool map_put(struct map *m, const void *key, size_t len, uint32_t value);
bool map_get(const struct map *m, const void *key, size_t len, uint32_t *out); // false: absent, *out untouched

uint64_t hash_bytes(const void *data, size_t len, uint64_t seed);
