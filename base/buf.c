// SPDX-License-Identifier: MIT
// Growable byte string and the JSON spelling of strings and numbers. Not thread-safe; any number of buffers.
//
// Invariant: data == NULL iff cap == 0; otherwise len < cap and data[len] == 0.
#include "base/buf.h"
#include "base/mem.h"
#include "base/utf8.h"

#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void buf_finish(struct buf *b) {
    free(b->data);
    *b = (struct buf){0};
}

void buf_clear(struct buf *b) {
    b->len = 0;
    if (b->data) b->data[0] = 0;
}

void buf_reserve(struct buf *b, size_t extra) {
    if (extra < b->cap - b->len) return; // one byte is the NUL's; false for an empty buffer, whatever extra is
    size_t need, cap = MAX(b->cap, 64);
    if (!size_add(b->len, extra, &need) || need >= PTRDIFF_MAX) need = PTRDIFF_MAX; // refused, with size and place, below
    while (cap <= need) cap *= 2;
    b->data = mem_resize(b->data, cap, 1);
    b->cap = cap;
    b->data[b->len] = 0;
}

void buf_add(struct buf *b, const void *data, size_t len) {
    if (len == 0) return;
    buf_reserve(b, len);
    memcpy(b->data + b->len, data, len);
    b->len += len;
    b->data[b->len] = 0;
}

void buf_add_str(struct buf *b, const char *s) {
    buf_add(b, s, strlen(s));
}

void buf_add_byte(struct buf *b, unsigned char c) {
    buf_reserve(b, 1);
    b->data[b->len++] = (char)c;
    b->data[b->len] = 0;
}

void buf_add_utf8(struct buf *b, uint32_t code_point) {
    char text[4];
    buf_add(b, text, utf8_encode(code_point, text));
}

void buf_printf(struct buf *b, const char *format, ...) {
    buf_reserve(b, 64);
    for (;;) {
        va_list args;
        va_start(args, format);
        size_t room = b->cap - b->len;
        int n = vsnprintf(b->data + b->len, room, format, args);
        va_end(args);
        if (n < 0) break; // only a wide-character conversion can fail, and none is used
        if ((size_t)n < room) {
            b->len += (size_t)n;
            return;
        }
        buf_reserve(b, (size_t)n);
    }
    b->data[b->len] = 0;
}

static void buf_add_json_escape(struct buf *b, uint32_t c) {
    static const char names[] = "\"\"\\\\\nn\rr\tt\bb\ff";
    for (const char *name = names; *name; name += 2) {
        if ((unsigned char)name[0] != c) continue;
        buf_add(b, (char[]){'\\', name[1]}, 2);
        return;
    }
    if (c == UTF8_INVALID) buf_add_utf8(b, 0xfffd);
    else buf_printf(b, "\\u%04x", (unsigned)c);
}

// What a JSON string may not hold, and what it had better not: DEL and C1 drive terminals (log lines are made here
// too), U+2028 and U+2029 break lines in a script.
static inline bool json_wants_escape(uint32_t c) {
    return c < 0x20 || c == '"' || c == '\\' || (c >= 0x7f && c < 0xa0) || c == 0x2028 || c == 0x2029 || c == UTF8_INVALID;
}

void buf_add_json_string(struct buf *b, const char *s, size_t len) {
    buf_reserve(b, len + 2);
    buf_add_byte(b, '"');
    size_t run = 0; // s[run..i) is copied as it is
    for (size_t i = 0; i < len;) {
        uint32_t c = (unsigned char)s[i];
        size_t took = 1;
        if (c >= 0x80) took = utf8_decode(s + i, len - i, &c);
        if (json_wants_escape(c)) {
            buf_add(b, s + run, i - run);
            buf_add_json_escape(b, c);
            run = i + took;
        }
        i += took;
    }
    buf_add(b, s + run, len - run);
    buf_add_byte(b, '"');
}

// Readers that know integers take "-0" for the integer 0 and lose the sign.
static bool buf_add_negative_zero(struct buf *b, double v) {
    if (v != 0 || !signbit(v)) return false;
    buf_add_str(b, "-0.0");
    return true;
}

// %g strips trailing zeros, so the first precision that reads back is the shortest. Normal numbers start at the
// precision that any decimal of that many digits survives (DBL_DIG, FLT_DIG); subnormal ones may need fewer.
void buf_add_json_number(struct buf *b, double v) {
    if (!isfinite(v)) {
        buf_add_str(b, "null");
        return;
    }
    if (buf_add_negative_zero(b, v)) return;
    char text[40];
    for (int digits = isnormal(v) || v == 0 ? DBL_DIG : 1; digits <= DBL_DECIMAL_DIG; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtod(text, NULL) == v) break;
    }
    // Counts and times stay integers to the eye: 1234567890123456 rather than 1.23e+15.
    if (fabs(v) < 0x1p53 && v == floor(v)) snprintf(text, sizeof text, "%.0f", v);
    buf_add_str(b, text);
}

// 10^0..10^22 are exact in a double, so that scaling by one rounds once or twice.
static double scale_by_power(double v, int power) {
    static const double powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                    1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    for (; power > 22; power -= 22) v *= 1e22;
    for (; power < -22; power += 22) v /= 1e22;
    return power < 0 ? v / powers[-power] : v * powers[power];
}

// The text of digits x 10^(exponent - precision + 1) as "%.*g" writes it. Returns its length.
static size_t float_write(char *out, bool negative, uint32_t digits, int precision, int exponent) {
    char text[FLT_DECIMAL_DIG];
    size_t n = 0;
    int len = precision;
    for (int i = len; i-- > 0; digits /= 10) text[i] = (char)('0' + digits % 10);
    while (len > 1 && text[len - 1] == '0') len--;
    if (negative) out[n++] = '-';
    bool scientific = exponent < -4 || exponent >= precision;
    int point = scientific ? 1 : exponent + 1; // digits before it
    if (point <= 0) out[n++] = '0', out[n++] = '.';
    for (int zeros = point; zeros < 0; zeros++) out[n++] = '0';
    for (int i = 0; i < MAX(len, point); i++) {
        if (i == point && i > 0) out[n++] = '.';
        out[n++] = i < len ? text[i] : '0';
    }
    if (scientific) n += (size_t)sprintf(out + n, "e%c%02d", exponent < 0 ? '-' : '+', abs(exponent));
    return n;
}

// The shortest text by arithmetic in doubles, which leaves a relative error below 1e-15: where that could decide between two digits or two floats,
// 0. v: normal, positive.
static size_t float_shorten(float v, bool negative, char *out) {
    const double margin = 1e-14;
    int exponent = (int)floor(log10((double)v));
    double nine = scale_by_power((double)v, 8 - exponent); // 1e8 <= nine < 1e9
    if (nine < 1e8 * (1 + margin) || nine > 1e9 * (1 - 1e-9)) return 0;
    for (int precision = FLT_DIG; precision <= FLT_DECIMAL_DIG; precision++) {
        double whole = scale_by_power(nine, precision - FLT_DECIMAL_DIG), digits = rint(whole);
        if (fabs(fabs(whole - digits) - 0.5) < 1e-5 || digits >= scale_by_power(1, precision)) return 0;
        double back = scale_by_power(digits, exponent - precision + 1);
        bool below = (float)(back * (1 - margin)) == v, above = (float)(back * (1 + margin)) == v;
        if (below != above) return 0;
        if (below) return float_write(out, negative, (uint32_t)digits, precision, exponent);
    }
    return 0;
}

void buf_add_float(struct buf *b, float v) {
    if (!isfinite(v) || v == 0) {
        buf_add_str(b, v == 0 ? (signbit(v) ? "-0.0" : "0") : "null");
        return;
    }
    char text[32];
    size_t len = isnormal(v) ? float_shorten(fabsf(v), v < 0, text) : 0;
    for (int digits = isnormal(v) ? FLT_DIG : 1; !len && digits <= FLT_DECIMAL_DIG; digits++) {
        int n = snprintf(text, sizeof text, "%.*g", digits, (double)v);
        if (strtof(text, NULL) == v) len = (size_t)n;
    }
    buf_add(b, text, len);
}

void buf_add_json_float(struct buf *b, float v) {
    if (v < -9999.0f) buf_add_str(b, "-9999.0");
    else buf_add_float(b, v);
}

void buf_add_base64(struct buf *b, const void *data, size_t len) {
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *in = data;
    buf_reserve(b, len / 3 * 4 + 4);
    char *out = b->data + b->len;
    for (; len >= 3; len -= 3, in += 3) {
        *out++ = letters[in[0] >> 2];
        *out++ = letters[(in[0] & 3) << 4 | in[1] >> 4];
        *out++ = letters[(in[1] & 15) << 2 | in[2] >> 6];
        *out++ = letters[in[2] & 63];
    }
    if (len) {
        *out++ = letters[in[0] >> 2];
        *out++ = letters[(in[0] & 3) << 4 | (len > 1 ? in[1] >> 4 : 0)];
        *out++ = len > 1 ? letters[(in[1] & 15) << 2] : '=';
        *out++ = '=';
    }
    *out = 0;
    b->len = (size_t)(out - b->data);
}

char *buf_detach(struct buf *b) {
    buf_reserve(b, 0);
    char *data = b->data;
    *b = (struct buf){0};
    return data;
}

const char *buf_str(const struct buf *b) {
    return b->data ? b->data : "";
}
