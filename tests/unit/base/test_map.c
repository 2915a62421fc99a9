// SPDX-License-Identifier: MIT
// Map: against a plain table, with keys that hold anything; the hash's spread.
#include "tests/unit/test.h"

#include "base/map.h"
#include "base/mem.h"

TEST(put_get_overwrite) {
    struct map m = {0};
    uint32_t v = 9;
    CHECK(!map_get(&m, "a", 1, &v) && v == 9);
    CHECK(map_put(&m, "a", 1, 1));
    CHECK(!map_put(&m, "a", 1, 2));
    CHECK(map_get(&m, "a", 1, &v) && v == 2);
    CHECK(map_put(&m, "", 0, 3));
    CHECK(map_get(&m, NULL, 0, &v) && v == 3);
    CHECK(map_put(&m, "a\0b", 3, 4) && map_put(&m, "a\0c", 3, 5));
    CHECK(map_get(&m, "a\0b", 3, &v) && v == 4);
    CHECK(!map_get(&m, "a\0", 2, &v));
    CHECK_INT(m.count, 4);
    map_finish(&m);
    map_finish(&m);
    CHECK(m.count == 0);
}

TEST(many_keys_of_every_length) {
    enum { N = 60000 };
    struct map m = {0};
    char key[64];
    int bad = 0;
    map_reserve(&m, N / 3);
    for (uint32_t i = 0; i < N; i++) {
        int n = snprintf(key, sizeof key, "%.*s%u", (int)(i % 40), "0123456789012345678901234567890123456789", i);
        bad += !map_put(&m, key, (size_t)n, i);
    }
    for (uint32_t i = 0; i < N; i++) {
        uint32_t v = N;
        int n = snprintf(key, sizeof key, "%.*s%u", (int)(i % 40), "0123456789012345678901234567890123456789", i);
        bad += !map_get(&m, key, (size_t)n, &v) || v != i;
        key[n - 1] = '!';
        bad += map_get(&m, key, (size_t)n, &v);
    }
    CHECK_INT(bad, 0);
    CHECK_INT(m.count, N);
    map_finish(&m);
}

TEST(hash_depends_on_seed_length_and_every_bit) {
    unsigned char key[80] = {0};
    uint64_t seen = 0;
    for (size_t len = 0; len < sizeof key; len++) {
        uint64_t h = hash_bytes(key, len, 1);
        CHECK(h != hash_bytes(key, len, 2));
        CHECK(h != seen); // zeros of another length
        seen = h;
        for (size_t bit = 0; bit < 8 * len; bit++) {
            key[bit / 8] ^= (unsigned char)(1u << bit % 8);
            uint64_t g = hash_bytes(key, len, 1);
            int flipped = __builtin_popcountll(g ^ h);
            if (flipped < 8 || flipped > 56) TEST_FAIL("length %zu, bit %zu: %d bits change", len, bit, flipped);
            key[bit / 8] ^= (unsigned char)(1u << bit % 8);
        }
    }
}

TEST(two_maps_have_two_seeds) {
    struct map a = {0}, b = {0};
    map_put(&a, "x", 1, 1);
    map_put(&b, "x", 1, 1);
    CHECK(a.seed != b.seed);
    map_finish(&a);
    map_finish(&b);
}

TEST_MAIN("map")
