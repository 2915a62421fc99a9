// SPDX-License-Identifier: MIT
// Forms in pieces: whatever the pieces' sizes, the same parts come out; hostile forms end in an error and in linear time.
#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "server/multipart.h"
#include "tests/unit/test.h"

static bool on_part(void *ctx, const struct multipart_part *part, struct err *err) {
    buf_printf(ctx, "[%s", buf_str(&part->name));
    if (part->has_filename) buf_printf(ctx, "|%s", buf_str(&part->filename));
    buf_add_byte(ctx, ']');
    return strcmp(buf_str(&part->name), "refuse") != 0 || err_set(err, ERR_INVALID, "refused");
}
static bool on_data(void *ctx, const char *p, size_t n, struct err *err) {
    if (n == 0) TEST_FAIL("no data is data");
    buf_add(ctx, p, n);
    return true;
}

// What comes out of a form fed in pieces of `step` bytes: parts and data, or "!" and why it was refused.
static void parse(const char *type, const char *form, size_t len, size_t step, struct buf *out) {
    struct multipart m = {.on_part = on_part, .on_data = on_data, .ctx = out};
    struct err err = {0};
    bool ok = multipart_init(&m, type, &err);
    for (size_t i = 0; ok && i < len; i += step) ok = multipart_feed(&m, form + i, MIN(step, len - i), &err);
    ok = ok && multipart_end(&m, &err);
    if (!ok) {
        buf_clear(out);
        buf_printf(out, "!%s", err.message);
    }
    multipart_finish(&m);
}

#define PART(disposition, data) "--B\r\nContent-Disposition: form-data; " disposition "\r\nContent-Type: text/plain\r\n\r\n" data "\r\n"

TEST(forms) {
    static const struct {
        const char *form, *expected;
    } cases[] = {
        {PART("name=\"a\"", "1") PART("name=\"f\"; filename=\"x.txt\"", "two") "--B--\r\n", "[a]1[f|x.txt]two"},
        {PART("name=a", "") "--B--", "[a]"},
        {"preamble --B\r\n\r\n" PART("name=a", "x") "--B--\r\nepilogue\r\n--B\r\n", "[a]x"},
        {PART("name=a", "\r\n--A\r\n-B\r\n--\r\r\n\r\n--") "--B--", "[a]\r\n--A\r\n-B\r\n--\r\r\n\r\n--"}, // nearly a boundary
        {PART("name=a", "--B--") "--B--", "[a]--B--"},                                                     // not at a line's beginning
        {"--B \t\r\ncontent-disposition:form-data;NAME=a\r\n\r\nx\r\n--B-- \r\n", "[a]x"},
        {PART("name=\"a;b\\\"c\"; filename=\"C:\\dir\\x \\\\.txt\"", "x") "--B--", "[a;b\"c|C:\\dir\\x \\.txt]x"},
        {PART("filename=\"name=b\"; name=a", "x") "--B--", "[a|name=b]x"},
        {PART("name=a; filename*=UTF-8''na%C3%AFve%20.txt", "x") "--B--", "[a|na\xc3\xafve .txt]x"},
        {PART("name=a; filename*=UTF-8''x; filename=y", "x") "--B--", "[a|y]x"},
        {PART("name=a; filename*=%zz", "x") "--B--", "[a|%zz]x"},
        {PART("name=a", "x") "--B", "!"},
        {PART("name=a", "x"), "!"},
        {"", "!"},
        {"--B--", ""},
        {"--Bx\r\n", "!"},
        {"--B-x", "!"},
        {"--B\rx", "!"},
        {PART("filename=x", "x") "--B--", "!"},
        {PART("name=\"a", "x") "--B--", "!"},
        {"--B\r\nX: y\r\n\r\nx\r\n--B--", "!"},
        {"--B\r\n\r\n\r\nx\r\n--B--", "!"},
        {"--B\r\nContent-Disposition: form-data; name=a\r\nContent-Disposition: form-data; name=b\r\n\r\nx\r\n--B--", "!"},
        {PART("name=a; filename*=UTF-8''x%00y", "x") "--B--", "!"},
        {PART("name=refuse", "x") "--B--", "!refused"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        for (size_t step = 1; step < 200; step++) {
            struct buf out = {0};
            parse("multipart/form-data; boundary=B", cases[i].form, strlen(cases[i].form), step, &out);
            bool refused = strcmp(cases[i].expected, "!") == 0;
            if (refused ? *buf_str(&out) != '!' : strcmp(buf_str(&out), cases[i].expected) != 0)
                TEST_FAIL("case %zu in pieces of %zu: %s", i, step, buf_str(&out));
            buf_finish(&out);
        }
    }
}

TEST(boundaries) {
    static const size_t lengths[] = {0, 1, 2, 69, 70, 71, 10000};
    for (size_t i = 0; i < ARRAY_LEN(lengths); i++) {
        struct buf type = {0}, form = {0}, out = {0};
        char *boundary = mem_alloc(lengths[i] + 1, 1);
        memset(boundary, '-', lengths[i]); // the hardest: it looks like its own beginning
        buf_printf(&type, "multipart/form-data; boundary=\"%s\"", boundary);
        buf_printf(&form, "--%s\r\nContent-Disposition: form-data; name=a\r\n\r\n--\r\n-\r\n\r\n--%s--\r\n", boundary, boundary);
        parse(type.data, form.data, form.len, 3, &out);
        bool fits = lengths[i] >= 1 && lengths[i] <= 70;
        // What is one '-' shorter than the boundary is data, for one of length 1 the delimiter "\r\n---".
        if (fits ? strncmp(buf_str(&out), "[a]--\r\n-", 8) != 0 : *buf_str(&out) != '!') TEST_FAIL("length %zu: %s", lengths[i], buf_str(&out));
        free(boundary);
        buf_finish(&type);
        buf_finish(&form);
        buf_finish(&out);
    }
    static const char *const bad[] = {"multipart/form-data", "multipart/form-data; boundary", "multipart/form-data; boundary=", "multipart/form-data; boundary=\"a",
                                      "multipart/form-data; boundary=\"a\r\nb\"", "multipart/form-data; boundary=a\xc3\xa4", "multipart/form-data; xboundary=a", ""};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct buf out = {0};
        parse(bad[i], "--a--", 5, 5, &out);
        CHECK(*buf_str(&out) == '!');
        buf_finish(&out);
    }
}

// Lengths whose search could be quadratic, and junk where nothing should be.
TEST(hostile_forms_take_linear_time) {
    static const struct {
        const char *head, *fill, *tail;
    } cases[] = {
        {"--B", "x", "\r\n"},
        {"--B--", "\r\n--B", ""},
        {"", "\r\n--", "--B--"},
        {PART("name=a", ""), "\r", "\r\n--B--"},
        {PART("name=a", ""), "\r\n--", "\r\n--B--"},
        {"--B\r\nContent-Disposition: form-data; name=a; filename*=UTF-8''", "%41", "\r\n\r\n\r\n--B--"},
        {"--B\r\n", "A: b\r\n", "\r\n\r\n--B--"},
        {"--B ", " ", "\r\n"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct buf form = {0}, out = {0};
        buf_add_str(&form, cases[i].head);
        while (form.len < 1 << 20) buf_add_str(&form, cases[i].fill);
        buf_add_str(&form, cases[i].tail);
        uint64_t begin = clock_ns();
        parse("multipart/form-data; boundary=B", form.data, form.len, 65536, &out);
        double ms = (double)(clock_ns() - begin) / 1e6;
        if (ms > 1000) TEST_FAIL("case %zu took %.0f ms", i, ms);
        buf_finish(&form);
        buf_finish(&out);
    }
}

TEST(random_forms_never_crash) {
    static const char *const words[] = {"--B", "\r\n", "\r", "-", "Content-Disposition: form-data; ", "name=", "filename=", "filename*=", "\"", "\\", ";", "a", "=", ":", "UTF-8''", "%4", "%"};
    uint64_t draw = 0;
    for (int i = 0; i < 20000; i++) {
        struct buf form = {0}, one = {0}, two = {0};
        buf_add_str(&form, i % 2 ? PART("name=a", "x") : "--B\r\n");
        for (int k = 0; k < 30; k++) buf_add_str(&form, words[(size_t)(rng_uniform(5, draw++) * ARRAY_LEN(words))]);
        parse("multipart/form-data; boundary=B", form.data, form.len, 1, &one);
        parse("multipart/form-data; boundary=B", form.data, form.len, 1 + (size_t)i % 97, &two);
        CHECK_STR(buf_str(&one), buf_str(&two));
        buf_finish(&form);
        buf_finish(&one);
        buf_finish(&two);
    }
}

TEST_MAIN("multipart")
