// SPDX-License-Identifier: MIT
// SHA-256: the standard's examples, every length round the block, every way to cut the stream.
#include "tests/unit/test.h"

#include "base/mem.h"
#include "base/sha256.h"

TEST(known_answers) { // FIPS 180-4 examples; the lengths 55, 56, 64 sit at the padding's edges
    char hex[65];
    sha256_hex("", 0, hex);
    CHECK_STR(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    sha256_hex("abc", 3, hex);
    CHECK_STR(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    sha256_hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56, hex);
    CHECK_STR(hex, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    char *million = mem_alloc(1000000, 1);
    memset(million, 'a', 1000000);
    sha256_hex(million, 1000000, hex);
    CHECK_STR(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    sha256_hex(million, 55, hex);
    CHECK_STR(hex, "9f4390f8d30c2dd92ec9f095b65e2b9ae9b0a925a5258e241c9f1e910f734318");
    sha256_hex(million, 64, hex);
    CHECK_STR(hex, "ffe054fe7ae0cb6dc65c3af9b61d5209f439851db43d0ba5997337df154668eb");
    free(million);
}

TEST(any_cut_gives_the_same) {
    unsigned char data[300], one[32], many[32];
    for (size_t i = 0; i < sizeof data; i++) data[i] = (unsigned char)(i * 7);
    for (size_t len = 0; len <= sizeof data; len++) {
        struct sha256 s;
        sha256_init(&s);
        sha256_update(&s, data, len);
        sha256_digest(&s, one);
        sha256_init(&s);
        for (size_t at = 0, step = 1; at < len; at += step, step = step * 5 % 67 + 1) {
            sha256_update(&s, data + at, MIN(step, len - at));
        }
        sha256_update(&s, NULL, 0);
        sha256_digest(&s, many);
        CHECK(memcmp(one, many, 32) == 0);
    }
}

TEST_MAIN("sha256")
