// SPDX-License-Identifier: MIT
// UTF-8: every code point there and back, every two-byte start, prefixes against a slow definition.
#include "tests/unit/test.h"

#include "base/mem.h"
#include "base/utf8.h"

TEST(every_scalar_value_round_trips) {
    int bad = 0;
    for (uint32_t c = 0; c < 0x110000; c++) {
        if (c == 0xd800) c = 0xe000;
        char text[4];
        uint32_t back;
        size_t n = utf8_encode(c, text);
        bad += utf8_decode(text, n, &back) != n || back != c || !utf8_valid(text, n) || utf8_count(text, n) != 1;
        for (size_t cut = 1; cut < n; cut++) bad += utf8_decode(text, cut, &back) != 1 || back != UTF8_INVALID;
        for (size_t cut = 0; cut <= n; cut++) bad += utf8_complete_prefix(text, cut) != (cut == n ? n : 0);
    }
    CHECK_INT(bad, 0);
}

TEST(ill_formed_is_invalid_byte_by_byte) {
    static const char *const cases[] = {
        "\x80", "\xc0\x80", "\xc1\xbf", "\xe0\x80\x80", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xed\xbf\xbf",
        "\xf0\x80\x80\x80", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", "\xe2\x28\xa1",
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        uint32_t c;
        CHECK_INT(utf8_decode(cases[i], strlen(cases[i]), &c), 1);
        CHECK(c == UTF8_INVALID);
        CHECK(!utf8_valid(cases[i], strlen(cases[i])));
    }
    CHECK_INT(utf8_count("a\xe2\x82z\xe2\x82\xac", 7), 5);
    CHECK(utf8_valid("", 0));
    CHECK(!utf8_valid("abcdefghijklmnop\xff", 17));
    CHECK(utf8_valid("abcdefghijklmnop\0\xc3\xa9", 19));
    CHECK_INT(utf8_valid_prefix("abcdefghijklmnop\xc3\xa9\xff\xc3", 20), 18);
    CHECK_INT(utf8_valid_prefix("abcdefgh\xc3\xa9\xc3", 11), 10);
    CHECK_INT(utf8_valid_prefix("abcdefgh\xc3\xa9", 10), 10);
}

// By definition: could some bytes behind s complete its last `tail` bytes to one valid character?
static bool completes(const char *s, size_t tail) {
    static const char ends[] = {(char)0x80, (char)0x8f, (char)0x90, (char)0x9f, (char)0xa0, (char)0xbf};
    char text[4];
    uint32_t c;
    memcpy(text, s, tail);
    for (size_t i = 0; i < sizeof ends; i++) {
        for (size_t k = tail; k < 4; k++) text[k] = k == tail ? ends[i] : (char)0x80;
        if (utf8_decode(text, 4, &c) > tail && c != UTF8_INVALID) return true;
    }
    return false;
}

TEST(complete_prefix_by_definition) {
    static const unsigned char alphabet[] = {'a', 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc1, 0xc3, 0xe0, 0xe2, 0xed, 0xf0, 0xf1, 0xf4, 0xf5};
    enum { N = sizeof alphabet };
    int bad = 0;
    for (size_t code = 0; code < (size_t)N * N * N * N; code++) {
        char s[4];
        for (size_t k = 0, rest = code; k < 4; k++, rest /= N) s[k] = (char)alphabet[rest % N];
        for (size_t len = 0; len <= 4; len++) {
            // Walk as a decoder does: the first place from which the rest could be one unfinished character.
            size_t i = 0;
            uint32_t c;
            while (i < len && !(len - i < 4 && completes(s + i, len - i) && (utf8_decode(s + i, len - i, &c), c == UTF8_INVALID))) {
                i += utf8_decode(s + i, len - i, &c);
            }
            bad += utf8_complete_prefix(s, len) != i;
        }
    }
    CHECK_INT(bad, 0);
}

TEST_MAIN("utf8")
