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

void buf_add_json_float(struct buf *b, float v) {
    if (isnan(v) || (isinf(v) && v > 0)) {
        buf_add_str(b, "null");
        return;
    }
    if (v < -9999.0f) {
        buf_add_str(b, "-9999.0");
        return;
    }
    if (buf_add_negative_zero(b, (double)v)) return;
    char text[32];
    for (int digits = isnormal(v) || v == 0 ? FLT_DIG : 1; digits <= FLT_DECIMAL_DIG; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)v);
        if (strtof(text, NULL) == v) break;
    }
    buf_add_str(b, text);
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
