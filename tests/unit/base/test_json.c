// SPDX-License-Identifier: MIT
// The JSON reader: the grammar, sticky errors with their place, numbers to the bit, and 200,000 deterministic mutations
// that must neither crash nor disagree with themselves.
#include "tests/unit/test.h"

#include "base/json.h"
#include "base/mem.h"
#include "base/utf8.h"

#include <time.h>

// Reads text as one value by json_skip; the message ends up in *err.
static bool skip_all(const char *text, size_t len, struct err *err) {
    struct json j;
    json_init(&j, text, len);
    return json_skip(&j, err) && json_finish(&j, err);
}

// Rewrites the next value into out with every reading call, as compact JSON.
static bool rewrite(struct json *j, struct buf *out, struct err *err) {
    struct buf s = {0};
    bool ok = false, first = true, flag;
    double number;
    switch (json_peek(j)) {
    case JSON_NULL:
        ok = json_read_null(j, err);
        buf_add_str(out, "null");
        break;
    case JSON_BOOL:
        ok = json_read_bool(j, &flag, err);
        if (ok) buf_add_str(out, flag ? "true" : "false");
        break;
    case JSON_NUMBER:
        ok = json_read_double(j, &number, err);
        if (ok) buf_add_json_number(out, number);
        break;
    case JSON_STRING:
        ok = json_read_string(j, &s, err);
        buf_add_json_string(out, buf_str(&s), s.len);
        break;
    case JSON_ARRAY:
        ok = json_open(j, '[', err);
        buf_add_byte(out, '[');
        for (; ok && json_next_item(j, err); first = false) {
            if (!first) buf_add_byte(out, ',');
            ok = rewrite(j, out, err);
        }
        buf_add_byte(out, ']');
        break;
    case JSON_OBJECT:
        ok = json_open(j, '{', err);
        buf_add_byte(out, '{');
        for (; ok && json_next_key(j, &s, err); first = false) {
            if (!first) buf_add_byte(out, ',');
            buf_add_json_string(out, buf_str(&s), s.len);
            buf_add_byte(out, ':');
            ok = rewrite(j, out, err);
        }
        buf_add_byte(out, '}');
        break;
    case JSON_END: ok = json_fail(j, err, "no value"); break;
    }
    buf_finish(&s);
    return ok && !j->failed;
}

static bool rewrite_all(const char *text, size_t len, struct buf *out, struct err *err) {
    struct json j;
    json_init(&j, text, len);
    return rewrite(&j, out, err) && json_finish(&j, err);
}

static void check_rewrite(const char *text, const char *expected) {
    struct buf out = {0};
    struct err err = {0};
    if (!rewrite_all(text, strlen(text), &out, &err)) TEST_FAIL("%s: %s", text, err.message);
    CHECK_STR(buf_str(&out), expected);
    CHECK(skip_all(text, strlen(text), &err));
    buf_finish(&out);
}

static void check_refused(const char *text, const char *message) {
    struct buf out = {0};
    struct err err = {0}, skip_err = {0};
    CHECK(!rewrite_all(text, strlen(text), &out, &err));
    CHECK_INT(err.code, ERR_INVALID);
    if (message) CHECK_STR(err.message, message);
    if (skip_all(text, strlen(text), &skip_err)) TEST_FAIL("skipped: %s", text);
    buf_finish(&out);
}

TEST(accepts_the_grammar) {
    check_rewrite("null", "null");
    check_rewrite(" \t\r\n[ ] ", "[]");
    check_rewrite("{}", "{}");
    check_rewrite("\xef\xbb\xbf{\"a\":1}", "{\"a\":1}");
    check_rewrite("[1, -0.0, 0.5, 1e3, 1E+3, 1e-3, -12.25]", "[1,-0.0,0.5,1000,1000,0.001,-12.25]");
    check_rewrite("{\"a\" : [true,false,null] , \"b\":{\"c\":[[],{}]},\"a\":\"\"}",
                  "{\"a\":[true,false,null],\"b\":{\"c\":[[],{}]},\"a\":\"\"}");
    check_rewrite("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0000\\u001f\\u00e9\\u20ac\"",
                  "\"\\\"\\\\/\\b\\f\\n\\r\\t\\u0000\\u001f\xc3\xa9\xe2\x82\xac\"");
    check_rewrite("\"\\ud83d\\uDE00\"", "\"\xf0\x9f\x98\x80\"");
}

TEST(lone_surrogates_and_invalid_utf8_become_replacement_characters) {
    check_rewrite("\"\\ud83d\"", "\"\xef\xbf\xbd\"");
    check_rewrite("\"\\ude00x\"", "\"\xef\xbf\xbdx\"");
    check_rewrite("\"\\ud83d\\ud83d\\ude00\"", "\"\xef\xbf\xbd\xf0\x9f\x98\x80\"");
    check_rewrite("\"\\ud83d\\n\"", "\"\xef\xbf\xbd\\n\"");
    check_rewrite("\"a\xff\xc3z\"", "\"a\xef\xbf\xbd\xef\xbf\xbdz\"");
    check_rewrite("\"\xe2\x82\"", "\"\xef\xbf\xbd\xef\xbf\xbd\"");
}

TEST(refuses_with_the_place) {
    check_refused("", "line 1, column 1: no value");
    check_refused("[1,\n 2,\n x]", "line 3, column 2: expected a value, found 'x'");
    check_refused("[1,]", "line 1, column 4: expected a value, found ']'");
    check_refused("[1 2]", "line 1, column 4: expected ',' or ']', found a number");
    check_refused("[1", "line 1, column 3: expected ',' or ']', found the end of the text");
    check_refused("{\"\xc3\xa9\" 1}", "line 1, column 6: expected ':', found a number");
    check_refused("{a:1}", "line 1, column 2: expected a key in double quotes, found 'a'");
    check_refused("{\"a\":1,}", "line 1, column 8: expected a key in double quotes, found '}'");
    check_refused("{\"a\":}", NULL);
    check_refused("[\"abc", "line 1, column 2: the string that starts here has no closing quote");
    check_refused("\"ab\ncd\"", "line 1, column 4: control character 0x0A inside a string");
    check_refused("\"ab\\x\"", "line 1, column 4: unknown escape in a string");
    check_refused("\"\\u12g4\"", "line 1, column 2: \\u wants four hexadecimal digits");
    check_refused("\"\\u12", NULL);
    check_refused("\"\\", NULL);
    check_refused("1 1", "line 1, column 3: expected the end of the text, found a number");
    check_refused("nul", NULL);
    check_refused("[nullx]", NULL);
    check_refused("NaN", NULL);
    check_refused("[1}", "line 1, column 3: expected ',' or ']', found '}'");
    static const char *const numbers[] = {"-", "01", "-01", "1.", ".5", "1e", "1e+", "+1", "1.e5", "0x10", "1_0"};
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) check_refused(numbers[i], NULL);
}

TEST(depth_is_bounded) {
    char text[2 * JSON_MAX_DEPTH + 4];
    struct err err = {0};
    memset(text, '[', JSON_MAX_DEPTH);
    memset(text + JSON_MAX_DEPTH, ']', JSON_MAX_DEPTH);
    CHECK(skip_all(text, 2 * JSON_MAX_DEPTH, &err));
    memset(text, '[', JSON_MAX_DEPTH + 1);
    CHECK(!skip_all(text, JSON_MAX_DEPTH + 1, &err));
    CHECK_STR(err.message, "line 1, column 65: nested deeper than 64 levels");
}

TEST(errors_are_sticky_and_outputs_untouched) {
    static const char text[] = "{\"n\": \"x\", \"m\": 2}";
    struct json j;
    struct err err = {0}, later = {0};
    struct buf key = {0};
    size_t n = 77;
    json_init(&j, text, strlen(text));
    CHECK(json_open(&j, '{', &err));
    CHECK(json_next_key(&j, &key, &err));
    CHECK(buf_is(&key, "n"));
    CHECK(!json_read_size(&j, &n, &err));
    CHECK_STR(err.message, "line 1, column 7: expected an integer, found a string");
    CHECK_INT(n, 77);
    CHECK(!json_next_key(&j, &key, &later) && !json_skip(&j, &later) && !json_finish(&j, &later) && j.failed);
    CHECK_INT(json_peek(&j), JSON_END);
    CHECK_INT(later.code, ERR_NONE);
    buf_clear(&key);
    buf_add_str(&key, "kept");
    json_init(&j, "\"ab\\q\"", 6);
    CHECK(!json_read_string(&j, &key, NULL));
    CHECK_STR(buf_str(&key), "kept");
    buf_finish(&key);
}

TEST(strings_hold_nul) {
    struct json j;
    struct err err = {0};
    struct buf s = {0};
    json_init(&j, "\"a\\u0000b\"", 10);
    CHECK(json_read_string(&j, &s, &err));
    CHECK_INT(s.len, 3);
    CHECK(memcmp(s.data, "a\0b", 3) == 0);
    json_init(&j, "\"a\0b\"", 5);
    CHECK(!json_read_string(&j, &s, &err));
    CHECK_STR(err.message, "line 1, column 3: control character 0x00 inside a string");
    buf_finish(&s);
}

static bool read_size(const char *text, size_t *v) {
    struct json j;
    json_init(&j, text, strlen(text));
    return json_read_size(&j, v, NULL) && json_finish(&j, NULL);
}

static bool read_int(const char *text, int64_t *v) {
    struct json j;
    json_init(&j, text, strlen(text));
    return json_read_int(&j, v, NULL) && json_finish(&j, NULL);
}

TEST(integers) {
    size_t n = 0;
    int64_t i = 0;
    CHECK(read_size("18446744073709551615", &n) && n == SIZE_MAX);
    CHECK(read_size("1e3", &n) && n == 1000);
    CHECK(read_size("12.0", &n) && n == 12);
    CHECK(read_size("-0", &n) && n == 0);
    CHECK(read_size("0.5e1", &n) && n == 5);
    CHECK(!read_size("18446744073709551616", &n) && !read_size("-1", &n) && !read_size("1.5", &n) && !read_size("1e30", &n));
    CHECK(!read_size("1e999999999999999999999", &n) && !read_size("1e-5", &n));
    CHECK_INT(n, 5);
    CHECK(read_int("-9223372036854775808", &i) && i == INT64_MIN);
    CHECK(read_int("9223372036854775807", &i) && i == INT64_MAX);
    CHECK(read_int("-2e2", &i) && i == -200);
    CHECK(!read_int("9223372036854775808", &i) && !read_int("-9223372036854775809", &i));
}

TEST(doubles_equal_strtod) {
    static const char *const cases[] = {
        "0.1", "1e23", "8.5e22", "9007199254740993", "9007199254740993.0", "2.2250738585072011e-308", "4.9e-324", "1e-400",
        "0e999999999", "1.7976931348623157e308", "179769313486231570000e288", "123456789012345678901234567890",
        "0.000000000000000000000001234567890123456789",
        "3.14159265358979323846264338327950288419716939937510582097494459230781640628620899", "9223372036854775808", "1e22", "1e-22",
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct json j;
        double v = -1;
        json_init(&j, cases[i], strlen(cases[i]));
        CHECK(json_read_double(&j, &v, NULL));
        if (v != strtod(cases[i], NULL)) TEST_FAIL("%s read as %.17g", cases[i], v);
    }
    struct json j;
    double v = 5;
    struct err err = {0};
    json_init(&j, "1e400", 5);
    CHECK(!json_read_double(&j, &v, &err) && v == 5);
    CHECK_STR(err.message, "line 1, column 1: number out of range");
}

static uint64_t random_next(uint64_t *state) { // splitmix64
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

TEST(random_doubles_survive_writing_and_reading) {
    uint64_t state = 1;
    struct buf b = {0};
    for (int i = 0; i < 50000; i++) {
        uint64_t bits = random_next(&state);
        double v, back = 0;
        memcpy(&v, &bits, 8);
        if (!isfinite(v)) continue;
        buf_clear(&b);
        buf_add_json_number(&b, v);
        struct json j;
        json_init(&j, b.data, b.len);
        if (!json_read_double(&j, &back, NULL) || memcmp(&v, &back, 8) != 0) TEST_FAIL("%.17g -> %s -> %.17g", v, b.data, back);
    }
    buf_finish(&b);
}

// Strings of every length, alignment and special position: the eight-byte steps against a byte loop.
TEST(string_scan_by_words) {
    static const char specials[] = "\"\\\x01\x1f\x7f\x80\xff a";
    char text[48];
    for (size_t len = 1; len < 28; len++) {
        for (size_t at = 0; at < len; at++) {
            for (size_t k = 0; k < sizeof specials; k++) {
                memset(text, 'x', sizeof text);
                text[0] = '"';
                text[1 + at] = specials[k];
                text[1 + len] = '"';
                unsigned char c = (unsigned char)specials[k];
                bool good = c >= 0x20 && c != '\\' && c != '"';
                struct json j;
                struct buf s = {0};
                json_init(&j, text, len + 2);
                bool ok = json_read_string(&j, &s, NULL);
                CHECK_INT(ok, good || c == '"');
                if (good) CHECK_INT(s.len, len + (c >= 0x80 ? 2 : 0));
                if (c == '"') CHECK_INT(s.len, at);
                buf_finish(&s);
            }
        }
    }
}

static const char *const seeds[] = {
    "{\"model_type\":\"gpt2\",\"n_layer\":12,\"eps\":1e-05,\"list\":[1,2.5,-3e2,true,false,null],\"nested\":{\"a\":{\"b\":[[]]}}}",
    "{\"\\u0120the\":262,\"\\u00c4\\u00a0\":1,\"\\ud83d\\ude00\":50256,\"\xf0\x9f\x98\x80\":2,\"a\\\"b\\\\c\\/d\":3}",
    "[[\"a\",\"b\"],[\"\\n\\r\\t\\b\\f\",\"\\u0000\"],{},[],[{}],\"\xe2\x82\xac\xc3\xa9\"]",
    "{\"wte.weight\":{\"dtype\":\"F32\",\"shape\":[50257,768],\"data_offsets\":[0,154389504]},\"__metadata__\":{\"format\":\"pt\"}}",
};

static size_t mutate(char *text, size_t len, size_t cap, uint64_t *state) {
    static const char tokens[] = "{}[]\",:\\u0123456789eE+-.tfn \n\xff\x80\xc3\xed\xf4\x01";
    for (uint64_t n = 1 + random_next(state) % 4; n; n--) {
        uint64_t r = random_next(state);
        size_t at = len ? (size_t)(r >> 8) % len : 0;
        char c = r & 0x80 ? tokens[(r >> 40) % (sizeof tokens - 1)] : (char)(r >> 48);
        switch (r % 4) {
        case 0:
            if (len) text[at] = c;
            break;
        case 1:
            if (len == cap) break;
            memmove(text + at + 1, text + at, len - at);
            text[at] = c;
            len++;
            break;
        case 2:
            if (!len) break;
            memmove(text + at, text + at + 1, len - at - 1);
            len--;
            break;
        default:
            if (r & 0x100) len = at; // cut short
        }
    }
    return len;
}

// Skipping and reading agree but for numbers out of range; what was read and rewritten reads back to the same; an error
// has a whole message. The text lies in a block of its exact size, so that the address sanitizer sees any byte too
// many.
TEST(mutations) {
    uint64_t state = 42;
    struct buf once = {0}, twice = {0};
    clock_t start = clock();
    int accepted = 0;
    for (int i = 0; i < 200000; i++) {
        const char *seed = seeds[(size_t)i % ARRAY_LEN(seeds)];
        size_t len = strlen(seed), cap = len + 8;
        char work[256];
        memcpy(work, seed, len);
        len = mutate(work, len, cap, &state);
        char *text = mem_alloc(len, 1);
        memcpy(text, work, len);
        struct err err = {0}, skip_err = {0};
        buf_clear(&once);
        bool ok = rewrite_all(text, len, &once, &err), skipped = skip_all(text, len, &skip_err);
        if (ok != skipped && !strstr(err.message, "out of range")) TEST_FAIL("read %d, skipped %d: %.*s", ok, skipped, (int)len, text);
        free(text);
        accepted += ok;
        if (!ok) {
            CHECK(err.code == ERR_INVALID && strncmp(err.message, "line ", 5) == 0 && utf8_valid(err.message, strlen(err.message)));
            continue;
        }
        buf_clear(&twice);
        CHECK(utf8_valid(once.data, once.len) && rewrite_all(once.data, once.len, &twice, &err));
        CHECK(once.len == twice.len && memcmp(once.data, twice.data, once.len) == 0);
    }
    CHECK(accepted > 5000 && accepted < 195000);
    printf("mutations: %d of 200000 accepted, %.2f s\n", accepted, (double)(clock() - start) / CLOCKS_PER_SEC);
    buf_finish(&once);
    buf_finish(&twice);
}

// A vocabulary of 50,000 entries, as encoder.json spells it. The bound is loose: it catches a quadratic path, not a
// slow one.
TEST(a_large_object_is_fast) {
    struct buf text = {0}, key = {0};
    struct json j;
    size_t n = 0, sum = 0, v;
    buf_add_byte(&text, '{');
    for (int i = 0; i < 50000; i++) buf_printf(&text, "%s\"\\u0120token%d\": %d", i ? ", " : "", i, i);
    buf_add_byte(&text, '}');
    clock_t start = clock();
    json_init(&j, text.data, text.len);
    CHECK(json_open(&j, '{', NULL));
    while (json_next_key(&j, &key, NULL) && json_read_size(&j, &v, NULL)) sum += v, n++;
    CHECK(json_finish(&j, NULL));
    double ms = 1e3 * (double)(clock() - start) / CLOCKS_PER_SEC;
    printf("object of %zu bytes: %.1f ms\n", text.len, ms);
    CHECK(ms < 1000);
    CHECK_INT(n, 50000);
    CHECK_INT(sum, 50000LL * 49999 / 2);
    buf_finish(&text);
    buf_finish(&key);
}

TEST_MAIN("json")
