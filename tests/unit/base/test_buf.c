// SPDX-License-Identifier: MIT
// Byte string, arena, error value, checked memory: their invariants under many sizes, and the JSON spelling of floats.
#include "tests/unit/test.h"

#include "base/arena.h"
#include "base/buf.h"
#include "base/mem.h"
#include "base/utf8.h"

#include <float.h>

static const char *json_string(struct buf *b, const char *s, size_t len) {
    buf_clear(b);
    buf_add_json_string(b, s, len);
    return b->data;
}

static const char *json_float(struct buf *b, float v) {
    buf_clear(b);
    buf_add_json_float(b, v);
    return b->data;
}

static const char *json_number(struct buf *b, double v) {
    buf_clear(b);
    buf_add_json_number(b, v);
    return b->data;
}

TEST(growth_keeps_the_nul) {
    struct buf b = {0};
    CHECK_STR(buf_str(&b), "");
    for (size_t i = 0; i < 5000; i++) {
        if (i % 3 == 0) buf_add_byte(&b, 'x');
        else if (i % 3 == 1) buf_add(&b, "yz", 2);
        else buf_printf(&b, "%zu", i);
        if (b.len >= b.cap || b.data[b.len] != 0) TEST_FAIL("no NUL behind %zu bytes", b.len);
    }
    buf_add(&b, NULL, 0);
    size_t cap = b.cap;
    buf_clear(&b);
    CHECK(b.len == 0 && b.cap == cap && b.data[0] == 0);
    buf_printf(&b, "%500s|", "");
    CHECK_INT(b.len, 501);
    char *text = buf_detach(&b);
    CHECK_INT(strlen(text), 501);
    CHECK(b.data == NULL && b.cap == 0);
    free(text);
    text = buf_detach(&b);
    CHECK_STR(text, "");
    free(text);
    buf_reserve(&b, 0);
    CHECK(b.data && b.data[0] == 0);
    buf_finish(&b);
    buf_finish(&b);
}

TEST(json_strings) {
    struct buf b = {0};
    CHECK_STR(json_string(&b, "", 0), "\"\"");
    CHECK_STR(json_string(&b, "a\"b\\c/\n\r\t\b\f", 11), "\"a\\\"b\\\\c/\\n\\r\\t\\b\\f\"");
    CHECK_STR(json_string(&b, "\0\x1f\x7f", 3), "\"\\u0000\\u001f\\u007f\"");
    CHECK_STR(json_string(&b, "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", 9), "\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"");
    CHECK_STR(json_string(&b, "\xffz\xe2\x82", 4), "\"\xef\xbf\xbdz\xef\xbf\xbd\xef\xbf\xbd\"");
    CHECK_STR(json_string(&b, "\xc2\x9b[31m\xe2\x80\xa8", 9), "\"\\u009b[31m\\u2028\"");
    buf_finish(&b);
}

TEST(json_numbers) {
    struct buf b = {0};
    CHECK_STR(json_number(&b, 0.1), "0.1");
    CHECK_STR(json_number(&b, 1.0 / 3), "0.3333333333333333");
    CHECK_STR(json_number(&b, 1234567890123456), "1234567890123456");
    CHECK_STR(json_number(&b, -0.0), "-0.0");
    CHECK_STR(json_number(&b, 5e-324), "5e-324");
    CHECK_STR(json_number(&b, DBL_MAX), "1.7976931348623157e+308");
    CHECK_STR(json_number(&b, NAN), "null");
    CHECK_STR(json_number(&b, -INFINITY), "null");
    CHECK_STR(json_float(&b, 0.1f), "0.1");
    CHECK_STR(json_float(&b, -1.5f), "-1.5");
    CHECK_STR(json_float(&b, 0), "0");
    CHECK_STR(json_float(&b, -0.0f), "-0.0");
    CHECK_STR(json_float(&b, 16777216), "16777216");
    CHECK_STR(json_float(&b, -9999), "-9999");
    CHECK_STR(json_float(&b, -9999.001f), "-9999.0");
    CHECK_STR(json_float(&b, -INFINITY), "-9999.0");
    CHECK_STR(json_float(&b, INFINITY), "null");
    CHECK_STR(json_float(&b, NAN), "null");
    CHECK_STR(json_float(&b, FLT_TRUE_MIN), "1e-45");
    CHECK_STR(json_float(&b, 3.4028235e38f), "3.4028235e+38");
    buf_finish(&b);
}

TEST(base64) {
    static const char *const coded[] = {"", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"}; // RFC 4648, section 10
    struct buf b = {0};
    for (size_t n = 0; n < ARRAY_LEN(coded); n++) {
        buf_clear(&b);
        buf_add_base64(&b, "foobar", n);
        CHECK_STR(buf_str(&b), coded[n]);
    }
    buf_clear(&b);
    buf_add_base64(&b, "\xfb\xff\xfe", 3);
    CHECK_STR(buf_str(&b), "+//+");
    buf_finish(&b);
}

// Walks the floats' bit patterns with a prime step: each must read back, and no shorter precision may.
TEST(floats_read_back_and_are_shortest) {
    struct buf b = {0};
    char shorter[32];
    int bad = 0;
    for (uint64_t bits = 0; bits < 0x7f800000; bits += 29989) {
        uint32_t word = (uint32_t)bits;
        float v;
        memcpy(&v, &word, 4);
        buf_clear(&b);
        buf_add_float(&b, v);
        const char *text = b.data;
        bad += strtof(text, NULL) != v;
        int digits = 0;
        for (const char *p = text; *p && *p != 'e'; p++) digits += *p >= '0' && *p <= '9';
        for (int d = 1; d < digits && d < 9; d++) {
            snprintf(shorter, sizeof shorter, "%.*g", d, (double)v);
            bad += strlen(shorter) < strlen(text) && strtof(shorter, NULL) == v;
        }
        for (int d = isnormal(v) ? FLT_DIG : 1; v != 0 && d <= FLT_DECIMAL_DIG; d++) { // and as printf writes it
            snprintf(shorter, sizeof shorter, "%.*g", d, (double)v);
            if (strtof(shorter, NULL) != v) continue;
            bad += strcmp(shorter, text) != 0;
            break;
        }
    }
    CHECK_INT(bad, 0);
    buf_finish(&b);
}

TEST(arena_objects_are_zeroed_aligned_and_apart) {
    struct arena a = {0};
    unsigned char *objects[400];
    size_t sizes[400];
    for (size_t i = 0; i < ARRAY_LEN(objects); i++) {
        sizes[i] = i % 50 == 49 ? 300000 + i : i % 20 == 19 ? 5000 : i % 37;
        objects[i] = arena_alloc(&a, sizes[i], 1);
        CHECK_INT((uintptr_t)objects[i] % 16, 0);
        for (size_t k = 0; k < sizes[i]; k++) {
            if (objects[i][k]) TEST_FAIL("object %zu is not zeroed", i);
        }
        memset(objects[i], (int)(i | 1), sizes[i]);
    }
    for (size_t i = 0; i < ARRAY_LEN(objects); i++) {
        for (size_t k = 0; k < sizes[i]; k++) {
            if (objects[i][k] != (unsigned char)(i | 1)) TEST_FAIL("object %zu was overwritten", i);
        }
    }
    CHECK_STR(arena_strndup(&a, "hello", 4), "hell");
    CHECK_STR(arena_strndup(&a, NULL, 0), "");
    CHECK_STR(arena_printf(&a, "%s-%d", "x", 7), "x-7");
    CHECK(a.used > 0);
    arena_finish(&a);
    CHECK(a.chunks == NULL && a.used == 0);
    arena_finish(&a);
}

TEST(errors_escape_what_they_quote) {
    struct err err = {0};
    CHECK(!err_set(&err, ERR_INVALID, "bad name '%s'", "a\nb\x1b[0m\xff\xc3\xa9\xc2\x85"));
    CHECK_STR(err.message, "bad name 'a\\x0Ab\\x1B[0m\\xFF\xc3\xa9\\xC2\\x85'");
    CHECK(!err_set_param(&err, ERR_TOO_LARGE, "n\t1", "too large"));
    CHECK_STR(err.param, "n\\x091");
    CHECK(!err_prefix(&err, "line %d", 3));
    CHECK_STR(err.message, "line 3: too large");
    CHECK_STR(err.param, "n\\x091");
    CHECK_INT(err.code, ERR_TOO_LARGE);
    CHECK(!err_set(&err, ERR_IO, "again: %s", err.message)); // its own text as argument
    CHECK_STR(err.message, "again: line 3: too large");
    CHECK(!err_set(NULL, ERR_IO, "x"));
    CHECK(!err_prefix(NULL, "x"));
}

TEST(long_errors_are_cut_between_characters) {
    static const char *const pieces[] = {"x", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "\x01"};
    for (size_t p = 0; p < ARRAY_LEN(pieces); p++) {
        for (size_t shift = 0; shift < 5; shift++) {
            struct buf text = {0};
            for (size_t i = 0; i < shift; i++) buf_add_byte(&text, 'a');
            while (text.len < 2000) buf_add_str(&text, pieces[p]);
            struct err err = {0};
            err_set_param(&err, ERR_INVALID, text.data, "%s", text.data);
            size_t len = strlen(err.message);
            CHECK(len > 380 && len < sizeof err.message && utf8_valid(err.message, len));
            CHECK_STR(err.message + len - 3, "...");
            CHECK(strlen(err.param) > 50 && utf8_valid(err.param, strlen(err.param)));
            err_prefix(&err, "%s", text.data);
            CHECK(utf8_valid(err.message, strlen(err.message)));
            buf_finish(&text);
        }
    }
}

TEST(memory_is_checked) {
    struct err err = {0};
    size_t n = 5;
    CHECK(!size_mul(SIZE_MAX, 2, &n) && !size_add(SIZE_MAX, 1, &n) && n == 5);
    CHECK(size_mul(3, 4, &n) && n == 12);
    volatile size_t huge = SIZE_MAX / 2; // volatile: or the compiler warns of what is tested here
    CHECK(mem_try_alloc(huge, 4, "tensor", &err) == NULL);
    CHECK_INT(err.code, ERR_NO_MEMORY);
    CHECK(mem_map_array(huge, "cache", &err) == NULL);
    void *empty = mem_try_alloc(0, 8, "nothing", &err);
    CHECK(empty != NULL);
    free(empty);
    static const size_t sizes[] = {1, 4096, 100000, (2 << 20) - 1, 2 << 20, (5 << 20) + 7};
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        unsigned char *p = mem_map_array(sizes[i], "array", &err);
        REQUIRE(p != NULL);
        CHECK_INT((uintptr_t)p % 64, 0);
        CHECK(p[0] == 0 && p[sizes[i] - 1] == 0);
        p[0] = p[sizes[i] - 1] = 1;
        mem_unmap_array(p, sizes[i]);
    }
    mem_unmap_array(NULL, 10);
    int *items = NULL;
    size_t cap = 0;
    for (size_t i = 0; i < 1000; i++) {
        mem_grow(&items, &cap, i + 1);
        items[i] = (int)i;
    }
    CHECK(cap >= 1000 && items[999] == 999 && items[0] == 0);
    free(items);
}

TEST_MAIN("buf")
