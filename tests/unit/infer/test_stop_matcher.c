// SPDX-License-Identifier: MIT
// The stop matcher against a naive search, under every way to cut the text.
#include "tests/unit/test.h"

#include "base/mem.h"
#include "engine/infer/stop_matcher.h"

static unsigned random_state = 12345;
static size_t random_below(size_t n) {
    random_state = random_state * 1664525u + 1013904223u;
    return (random_state >> 8) % n;
}

struct found {
    bool any;
    size_t end, index;
};

// First end; of these the longest; of these the lowest index.
static struct found naive_find(const struct stop_string *stops, size_t n, const char *text, size_t len) {
    for (size_t end = 1; end <= len; end++) {
        struct found f = {.end = end};
        for (size_t k = 0; k < n; k++) {
            if (stops[k].len > end || memcmp(text + end - stops[k].len, stops[k].bytes, stops[k].len) != 0) continue;
            if (!f.any || stops[k].len > stops[f.index].len) f.index = k;
            f.any = true;
        }
        if (f.any) return f;
    }
    return (struct found){0};
}

// The longest end of text[0..len) that a stop string begins with.
static size_t naive_held(const struct stop_string *stops, size_t n, const char *text, size_t len) {
    for (size_t held = len; held > 0; held--)
        for (size_t k = 0; k < n; k++)
            if (held < stops[k].len && memcmp(text + len - held, stops[k].bytes, held) == 0) return held;
    return 0;
}

static void check_text(const struct stop_string *stops, size_t n, const char *text, size_t len) {
    struct found expected = naive_find(stops, n, text, len), got = {0};
    struct stop_matcher m;
    stop_matcher_init(&m, stops, n);
    for (size_t at = 0; at < len && !got.any;) {
        size_t piece = 1 + random_below(len - at), used = 0;
        if (stop_matcher_feed(&m, text + at, piece, &used, &got.index)) {
            got.any = true;
            got.end = at + used;
            CHECK_INT(stop_matcher_length(&m, got.index), stops[got.index].len);
        } else {
            CHECK_INT(stop_matcher_held(&m), naive_held(stops, n, text, at + piece));
        }
        at += piece;
    }
    if (got.any != expected.any || got.end != expected.end || got.index != expected.index)
        TEST_FAIL("\"%.*s\": found %d end %zu index %zu, expected %d %zu %zu", (int)len, text, got.any, got.end,
                  got.index, expected.any, expected.end, expected.index);
    stop_matcher_finish(&m);
}

TEST(random_texts_and_cuts) {
    for (int round = 0; round < 20000; round++) {
        char patterns[ENGINE_MAX_STOPS][12], text[60];
        struct stop_string stops[ENGINE_MAX_STOPS];
        size_t n = random_below(ENGINE_MAX_STOPS + 1), letters = 1 + random_below(3), len = random_below(sizeof text);
        for (size_t k = 0; k < n; k++) {
            stops[k] = (struct stop_string){.bytes = patterns[k], .len = 1 + random_below(sizeof patterns[k])};
            for (size_t i = 0; i < stops[k].len; i++) patterns[k][i] = (char)('a' + random_below(letters));
        }
        for (size_t i = 0; i < len; i++) text[i] = (char)('a' + random_below(letters + 1));
        check_text(stops, n, text, len);
    }
}

TEST(longest_patterns) {
    char pattern[ENGINE_MAX_STOP_BYTES], text[3 * ENGINE_MAX_STOP_BYTES];
    memset(pattern, 'a', sizeof pattern);
    memset(text, 'a', sizeof text);
    pattern[sizeof pattern - 1] = 'b';
    text[sizeof text - 1] = 'b';
    struct stop_string stops[2] = {{pattern, sizeof pattern}, {pattern, sizeof pattern}};
    for (int i = 0; i < 50; i++) check_text(stops, 2, text, sizeof text);
}

TEST(bytes_are_bytes) { // NUL and high bytes are like any other
    struct stop_string stops[2] = {{"\0\xff", 2}, {"\xff\0\xff", 3}};
    for (int i = 0; i < 50; i++) {
        check_text(stops, 2, "a\0a\xff\0\xff", 6);
        check_text(stops, 1, "\0\0\0\xff", 4);
    }
}

TEST(no_patterns) {
    struct stop_matcher m, zero = {0};
    size_t used, index;
    stop_matcher_init(&m, NULL, 0);
    CHECK(!stop_matcher_feed(&m, "abc", 3, &used, &index));
    CHECK_INT(stop_matcher_held(&m), 0);
    stop_matcher_finish(&m);
    stop_matcher_finish(&zero);
}

TEST_MAIN("stop_matcher")
