// SPDX-License-Identifier: MIT
// JSON pull reader. Not thread-safe; any number of readers over the same text.
//
// Invariants: text <= at <= end; stack[0..depth) names the open containers; nothing is stored into an output before the
// whole value was found good. Strings take two passes: one that finds the end and checks, one that decodes what was
// checked.
#include "base/json.h"
#include "base/utf8.h"

#include <assert.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Longer than any number that a program prints; more digits than this cannot be told apart from an attack.
#define JSON_NUMBER_MAX 1100

void json_init(struct json *j, const char *text, size_t len) {
    *j = (struct json){.text = text, .at = text, .end = text + len};
    // RFC 8259, 8.1: a reader may ignore a byte order mark. Editors write it.
    if (len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) j->at += 3;
}

size_t json_line(const struct json *j) {
    size_t line = 1;
    for (const char *p = j->text; p < j->at && (p = memchr(p, '\n', (size_t)(j->at - p))); p++) line++;
    return line;
}

static size_t json_column(const struct json *j) {
    const char *start = j->at;
    while (start > j->text && start[-1] != '\n') start--;
    return utf8_count(start, (size_t)(j->at - start)) + 1;
}

bool json_fail(struct json *j, struct err *err, const char *format, ...) {
    if (j->failed) return false;
    j->failed = true;
    if (!err) return false;
    char text[sizeof err->message];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (n >= (int)sizeof text) text[utf8_complete_prefix(text, sizeof text - 1)] = 0;
    return err_set(err, ERR_INVALID, "line %zu, column %zu: %s", json_line(j), json_column(j), text);
}

static inline void skip_space(struct json *j) {
    while (j->at < j->end && (*j->at == ' ' || *j->at == '\n' || *j->at == '\r' || *j->at == '\t')) j->at++;
}

static inline bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

enum json_type json_peek(struct json *j) {
    if (j->failed) return JSON_END;
    skip_space(j);
    if (j->at == j->end) return JSON_END;
    switch (*j->at) {
    case 'n': return JSON_NULL;
    case 't':
    case 'f': return JSON_BOOL;
    case '"': return JSON_STRING;
    case '[': return JSON_ARRAY;
    case '{': return JSON_OBJECT;
    case '-': return JSON_NUMBER;
    default: return is_digit(*j->at) ? JSON_NUMBER : JSON_END;
    }
}

// Fails with what was wanted and what is there.
static bool json_unexpected(struct json *j, struct err *err, const char *wanted) {
    static const char *const names[] = {"null", "true or false", "a number", "a string", "an array", "an object"};
    enum json_type type = json_peek(j);
    if (type != JSON_END) return json_fail(j, err, "expected %s, found %s", wanted, names[type]);
    if (j->at == j->end) return json_fail(j, err, "expected %s, found the end of the text", wanted);
    uint32_t c;
    size_t took = utf8_decode(j->at, (size_t)(j->end - j->at), &c);
    return json_fail(j, err, "expected %s, found '%.*s'", wanted, (int)took, j->at);
}

static bool json_expect(struct json *j, enum json_type type, struct err *err, const char *wanted) {
    return json_peek(j) == type || json_unexpected(j, err, wanted);
}

// ---- strings

static int hex_digit(char c) {
    if (is_digit(c)) return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

// Four hex digits at p, or -1.
static int32_t hex_4(const char *p, const char *end) {
    if (end - p < 4) return -1;
    int32_t v = 0;
    for (int i = 0; i < 4; i++) {
        int d = hex_digit(p[i]);
        if (d < 0) return -1;
        v = v << 4 | d;
    }
    return v;
}

// The first quote, backslash, control character or byte past ASCII (the last only if stop_high) at or behind p. Eight
// bytes a step: a byte of (x - 0x01..) & ~x & 0x80.. is set where x has a zero byte; a borrow can set one too many
// above a true one, never one below, and only the lowest is used (little endian; elsewhere the byte loop does it all).
static inline const char *string_special(const char *p, const char *end, bool stop_high) {
    const uint64_t ones = 0x0101010101010101u, highs = 0x8080808080808080u;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    for (; end - p >= 8; p += 8) {
        uint64_t x;
        memcpy(&x, p, 8);
        uint64_t quote = x ^ ones * '"', slash = x ^ ones * '\\';
        uint64_t hit = ((quote - ones) & ~quote) | ((slash - ones) & ~slash) | ((x - ones * 0x20) & ~x);
        if (stop_high) hit |= x;
        if (hit & highs) return p + (__builtin_ctzll(hit & highs) >> 3);
    }
#endif
    while (p < end) {
        unsigned char c = (unsigned char)*p;
        if (c < 0x20 || c == '"' || c == '\\' || (stop_high && c >= 0x80)) break;
        p++;
    }
    return p;
}

// Checks the string at `at`, steps over it and yields its inside; *escaped: it holds a backslash.
static bool string_scan(struct json *j, const char **start, size_t *len, bool *escaped, struct err *err) {
    const char *p = j->at + 1, *open = j->at;
    *escaped = false;
    for (;;) {
        p = string_special(p, j->end, false);
        if (p == j->end) return json_fail(j, err, "the string that starts here has no closing quote");
        if (*p == '"') break;
        j->at = p; // the place that a message names
        if (*p != '\\') return json_fail(j, err, "control character 0x%02X inside a string", (unsigned char)*p);
        *escaped = true;
        char c = j->end - p > 1 ? p[1] : 0;
        if (c == 'u' && hex_4(p + 2, j->end) < 0) return json_fail(j, err, "\\u wants four hexadecimal digits");
        if (c == 0 || !strchr("\"\\/bfnrtu", c)) return json_fail(j, err, "unknown escape in a string");
        p += c == 'u' ? 6 : 2;
        j->at = open;
    }
    *start = open + 1;
    *len = (size_t)(p - *start);
    j->at = p + 1;
    return true;
}

// Decodes the checked escape at p into *out and returns what is behind it.
static const char *string_escape(struct buf *out, const char *p, const char *end) {
    if (p[1] != 'u') {
        static const char from[] = "bfnrt", to[] = "\b\f\n\r\t";
        const char *found = strchr(from, p[1]);
        buf_add_byte(out, (unsigned char)(found ? to[found - from] : p[1]));
        return p + 2;
    }
    uint32_t c = (uint32_t)hex_4(p + 2, end);
    p += 6;
    if (c < 0xd800 || c > 0xdfff) {
        buf_add_utf8(out, c);
        return p;
    }
    int32_t low = c < 0xdc00 && end - p >= 6 && p[0] == '\\' && p[1] == 'u' ? hex_4(p + 2, end) : -1;
    if (low < 0xdc00 || low > 0xdfff) {
        buf_add_utf8(out, 0xfffd);
        return p;
    }
    buf_add_utf8(out, 0x10000 + ((c - 0xd800) << 10) + ((uint32_t)low - 0xdc00));
    return p + 6;
}

// Invalid UTF-8 is accepted: each byte of it becomes U+FFFD, as everywhere in the program.
static void string_decode(struct buf *out, const char *p, size_t len) {
    const char *end = p + len, *run = p;
    buf_reserve(out, len);
    while ((p = string_special(p, end, true)) < end) {
        uint32_t c = 0;
        size_t took = *p == '\\' ? 0 : utf8_decode(p, (size_t)(end - p), &c);
        if (took && c != UTF8_INVALID) {
            p += took;
            continue;
        }
        buf_add(out, run, (size_t)(p - run));
        if (took) buf_add_utf8(out, 0xfffd);
        run = p = took ? p + took : string_escape(out, p, end);
    }
    buf_add(out, run, (size_t)(p - run));
}

bool json_read_string(struct json *j, struct buf *out, struct err *err) {
    const char *start;
    size_t len;
    bool escaped;
    if (!json_expect(j, JSON_STRING, err, "a string") || !string_scan(j, &start, &len, &escaped, err)) return false;
    buf_clear(out);
    if (!escaped && string_special(start, start + len, true) == start + len) buf_add(out, start, len);
    else string_decode(out, start, len);
    return true;
}

static bool json_skip_string(struct json *j, struct err *err) {
    const char *start;
    size_t len;
    bool escaped;
    return string_scan(j, &start, &len, &escaped, err);
}

// ---- containers

bool json_open(struct json *j, char open, struct err *err) {
    assert(open == '{' || open == '[');
    if (!json_expect(j, open == '{' ? JSON_OBJECT : JSON_ARRAY, err, open == '{' ? "an object" : "an array")) return false;
    if (j->depth == JSON_MAX_DEPTH) return json_fail(j, err, "nested deeper than %d levels", JSON_MAX_DEPTH);
    j->stack[j->depth++] = open;
    j->at++;
    j->first = true;
    return true;
}

// Steps over the comma before the next element. False at the closing bracket, which is consumed, and on error.
static bool json_next(struct json *j, char open, const char *wanted, struct err *err) {
    if (j->failed) return false;
    assert(j->depth > 0 && j->stack[j->depth - 1] == open);
    skip_space(j);
    if (j->at < j->end && *j->at == (open == '{' ? '}' : ']')) {
        j->at++;
        j->depth--;
        j->first = false; // the container was an element of what is around it
        return false;
    }
    if (j->first) {
        j->first = false;
        return true;
    }
    if (j->at == j->end || *j->at != ',') return json_unexpected(j, err, wanted);
    j->at++;
    return true;
}

// The next key and its colon; with key NULL the key is checked only.
static bool json_take_key(struct json *j, struct buf *key, struct err *err) {
    if (!json_next(j, '{', "',' or '}'", err)) return false;
    if (json_peek(j) != JSON_STRING) return json_unexpected(j, err, "a key in double quotes");
    if (!(key ? json_read_string(j, key, err) : json_skip_string(j, err))) return false;
    skip_space(j);
    if (j->at == j->end || *j->at != ':') return json_unexpected(j, err, "':'");
    j->at++;
    return true;
}

bool json_next_key(struct json *j, struct buf *key, struct err *err) {
    assert(key);
    return json_take_key(j, key, err);
}

bool json_next_item(struct json *j, struct err *err) {
    if (!json_next(j, '[', "',' or ']'", err)) return false;
    return json_peek(j) != JSON_END || json_unexpected(j, err, "a value");
}

bool json_finish(struct json *j, struct err *err) {
    if (j->failed) return false;
    assert(j->depth == 0);
    skip_space(j);
    return j->at == j->end || json_unexpected(j, err, "the end of the text");
}

// ---- numbers and literals

struct number {
    const char *text;
    size_t len;
    uint64_t digits;  // the digits as one integer, valid if !wide
    int64_t exponent; // power of ten of its last digit
    bool negative, wide, integer; // integer: neither point nor exponent
};

static void number_digit(struct number *n, char c) {
    uint64_t v;
    if (n->wide || __builtin_mul_overflow(n->digits, 10, &v) || __builtin_add_overflow(v, (uint64_t)(c - '0'), &v)) n->wide = true;
    else n->digits = v;
}

// Checks the number at `at` by the grammar of RFC 8259, section 6, and steps over it.
static bool number_scan(struct json *j, struct number *n, struct err *err) {
    const char *p = j->at, *end = j->end;
    *n = (struct number){.text = p, .negative = *p == '-', .integer = true};
    p += n->negative;
    const char *digits = p;
    for (; p < end && is_digit(*p); p++) number_digit(n, *p);
    if (p == digits || (*digits == '0' && p - digits > 1)) goto bad;
    if (p < end && *p == '.') {
        n->integer = false;
        for (digits = ++p; p < end && is_digit(*p); p++) number_digit(n, *p);
        if (p == digits) goto bad;
        n->exponent = -(p - digits);
    }
    if (p < end && (*p == 'e' || *p == 'E')) {
        n->integer = false;
        bool minus = ++p < end && *p == '-';
        if (p < end && (*p == '-' || *p == '+')) p++;
        int64_t e = 0;
        for (digits = p; p < end && is_digit(*p); p++) e = e < 100000000 ? e * 10 + (*p - '0') : e;
        if (p == digits) goto bad;
        n->exponent += minus ? -e : e;
    }
    n->len = (size_t)(p - n->text);
    j->at = p;
    return true;
bad:
    return json_fail(j, err, "malformed number");
}

// Clinger's fast path: digits and power are exact doubles, so one operation rounds once. Everything else: strtod, which
// is exact; the program never leaves the C locale.
static bool number_double(struct json *j, const struct number *n, double *out, struct err *err) {
    static const double tens[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                  1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    if (!n->wide && n->digits < (uint64_t)1 << 53 && n->exponent >= -22 && n->exponent <= 22) {
        double v = (double)n->digits;
        v = n->exponent < 0 ? v / tens[-n->exponent] : v * tens[n->exponent];
        *out = n->negative ? -v : v;
        return true;
    }
    char text[JSON_NUMBER_MAX + 1];
    j->at = n->text; // the place that a message names
    if (n->len > JSON_NUMBER_MAX) return json_fail(j, err, "a number longer than %d characters", JSON_NUMBER_MAX);
    memcpy(text, n->text, n->len);
    text[n->len] = 0;
    double v = strtod(text, NULL);
    if (!isfinite(v)) return json_fail(j, err, "number out of range");
    *out = v;
    j->at = n->text + n->len;
    return true;
}

bool json_read_double(struct json *j, double *out, struct err *err) {
    struct number n;
    return json_expect(j, JSON_NUMBER, err, "a number") && number_scan(j, &n, err) && number_double(j, &n, out, err);
}

// Sign and magnitude of an integer, however it is spelled. 1e3 and 12.0 are integers; such spellings must be exact
// doubles.
static bool json_read_integer(struct json *j, bool *negative, uint64_t *magnitude, struct err *err) {
    struct number n;
    if (!json_expect(j, JSON_NUMBER, err, "an integer") || !number_scan(j, &n, err)) return false;
    *negative = n.negative;
    *magnitude = n.digits;
    if (n.integer && !n.wide) return true;
    double v = 0;
    if (!n.integer && !number_double(j, &n, &v, err)) return false;
    j->at = n.text;
    if (n.integer || fabs(v) > 0x1p53) return json_fail(j, err, "integer out of range");
    if (v != floor(v)) return json_fail(j, err, "expected an integer, found a fraction");
    *magnitude = (uint64_t)fabs(v);
    j->at = n.text + n.len;
    return true;
}

bool json_read_size(struct json *j, size_t *out, struct err *err) {
    bool negative = false;
    uint64_t v = 0;
    skip_space(j);
    const char *start = j->at;
    if (!json_read_integer(j, &negative, &v, err)) return false;
    if ((!negative || v == 0) && v <= SIZE_MAX) {
        *out = (size_t)v;
        return true;
    }
    j->at = start;
    return json_fail(j, err, negative ? "expected a non-negative integer" : "integer out of range");
}

bool json_read_int(struct json *j, int64_t *out, struct err *err) {
    bool negative = false;
    uint64_t v = 0;
    skip_space(j);
    const char *start = j->at;
    if (!json_read_integer(j, &negative, &v, err)) return false;
    if (v <= (uint64_t)INT64_MAX + negative) {
        *out = negative ? (int64_t)(0 - v) : (int64_t)v;
        return true;
    }
    j->at = start;
    return json_fail(j, err, "integer out of range");
}

static bool json_literal(struct json *j, const char *word, const char *wanted, struct err *err) {
    size_t len = strlen(word);
    if ((size_t)(j->end - j->at) < len || memcmp(j->at, word, len) != 0) {
        return json_fail(j, err, "expected %s, found something else", wanted);
    }
    j->at += len;
    return true;
}

bool json_read_bool(struct json *j, bool *out, struct err *err) {
    if (!json_expect(j, JSON_BOOL, err, "true or false")) return false;
    bool v = *j->at == 't';
    if (!json_literal(j, v ? "true" : "false", "true or false", err)) return false;
    *out = v;
    return true;
}

bool json_read_null(struct json *j, struct err *err) {
    return json_expect(j, JSON_NULL, err, "null") && json_literal(j, "null", "null", err);
}

// ---- skipping

static bool json_skip_scalar(struct json *j, enum json_type type, struct err *err) {
    bool flag;
    struct number n;
    switch (type) {
    case JSON_NULL: return json_read_null(j, err);
    case JSON_BOOL: return json_read_bool(j, &flag, err);
    case JSON_NUMBER: return number_scan(j, &n, err);
    case JSON_STRING: return json_skip_string(j, err);
    default: return json_unexpected(j, err, "a value");
    }
}

// A loop over the reader's own stack, so that hostile nesting costs no stack of ours.
bool json_skip(struct json *j, struct err *err) {
    int depth = j->depth;
    do {
        enum json_type type = json_peek(j);
        if (type == JSON_OBJECT || type == JSON_ARRAY) {
            if (!json_open(j, *j->at, err)) return false;
        } else if (!json_skip_scalar(j, type, err)) {
            return false;
        }
        // Close what ends here; stop at the next value.
        while (j->depth > depth && !j->failed) {
            if (j->stack[j->depth - 1] == '{' ? json_take_key(j, NULL, err) : json_next_item(j, err)) break;
        }
    } while (j->depth > depth && !j->failed);
    return !j->failed;
}

bool buf_is(const struct buf *b, const char *s) {
    size_t len = strlen(s);
    return b->len == len && (len == 0 || memcmp(b->data, s, len) == 0);
}
