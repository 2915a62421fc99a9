// SPDX-License-Identifier: MIT
// text_stream equals Python's bytes.decode("utf-8", "replace") wherever the bytes are cut (stream.jsonl of
// make_golden.py).
#include "tests/unit/tokenizer/golden.h"
#include "tokenizer/text_stream.h"

static int hex_digit(char c) { return c <= '9' ? c - '0' : c - 'a' + 10; }

struct stream_vector {
    struct buf key, hex, text, bytes;
};

static bool stream_vector_parse(struct stream_vector *v, const char *line, size_t len) {
    struct json j;
    json_init(&j, line, len);
    bool ok = json_open(&j, '{', NULL);
    while (ok && json_next_key(&j, &v->key, NULL))
        ok = json_read_string(&j, buf_is(&v->key, "hex") ? &v->hex : &v->text, NULL);
    buf_clear(&v->bytes);
    for (size_t i = 0; i + 1 < v->hex.len; i += 2)
        buf_add_byte(&v->bytes, (unsigned char)(hex_digit(v->hex.data[i]) << 4 | hex_digit(v->hex.data[i + 1])));
    return ok && !j.failed;
}

// Fed in steps of `step` bytes (0: all at once).
static void check_stream(const struct stream_vector *v, size_t step) {
    struct text_stream s = {0};
    struct buf out = {0};
    const char *bytes = buf_str(&v->bytes);
    for (size_t i = 0, n; i < v->bytes.len; i += n) {
        n = step && step < v->bytes.len - i ? step : v->bytes.len - i;
        text_stream_add(&s, bytes + i, n, &out);
    }
    text_stream_end(&s, &out);
    CHECK_INT(s.n_held, 0);
    bool equal = out.len == v->text.len && (!out.len || !memcmp(out.data, v->text.data, out.len));
    if (!equal) TEST_FAIL("%s in steps of %zu", buf_str(&v->hex), step);
    buf_finish(&out);
}

TEST(python_golden) {
    size_t len, n = 0;
    char *text = file_read(GOLDEN_DIR "/stream.jsonl", (size_t)1 << 24, &len, NULL);
    REQUIRE(text);
    struct stream_vector v = {0};
    for (const char *s = text, *stop; (stop = strchr(s, '\n')); s = stop + 1, n++) {
        CHECK(stream_vector_parse(&v, s, (size_t)(stop - s)));
        for (size_t step = 0; step < 5; step++) check_stream(&v, step);
    }
    CHECK_INT(n, 700);
    buf_finish(&v.key);
    buf_finish(&v.hex);
    buf_finish(&v.text);
    buf_finish(&v.bytes);
    free(text);
}

TEST(never_half_a_character) {
    static const char text[] = "a\xc3\xa9\xe4\xb8\xad\xf0\x9f\x98\x80z";
    static const size_t whole[] = {1, 1, 3, 3, 3, 6, 6, 6, 6, 10, 11};
    struct text_stream s = {0};
    struct buf out = {0};
    for (size_t i = 0; i < sizeof text - 1; i++) {
        text_stream_add(&s, text + i, 1, &out);
        CHECK_INT(out.len, whole[i]);
    }
    text_stream_end(&s, &out);
    CHECK_STR(buf_str(&out), text);
    buf_finish(&out);
}

TEST_MAIN("tokenizer_text_stream")
