// SPDX-License-Identifier: MIT
// UTF-8, decoded by the ranges of the Unicode standard, table 3-7. Any thread; no state.
#include "base/utf8.h"

#include <string.h>

// What a lead byte promises: the length of its sequence and the range of the second byte (the later ones are 80..BF).
// The narrowed ranges refuse overlong forms (E0, F0), surrogates (ED) and code points past U+10FFFF (F4).
struct lead {
    unsigned char len, low, high;
};

static inline struct lead lead_of(unsigned char c) {
    if (c < 0xc2) return (struct lead){0, 0, 0}; // ASCII is handled before; 80..BF continue, C0 and C1 are overlong
    if (c < 0xe0) return (struct lead){2, 0x80, 0xbf};
    if (c < 0xf0) return (struct lead){3, c == 0xe0 ? 0xa0 : 0x80, c == 0xed ? 0x9f : 0xbf};
    if (c < 0xf5) return (struct lead){4, c == 0xf0 ? 0x90 : 0x80, c == 0xf4 ? 0x8f : 0xbf};
    return (struct lead){0, 0, 0};
}

static inline bool is_continuation(unsigned char c) {
    return (c & 0xc0) == 0x80;
}

size_t utf8_decode(const char *s, size_t len, uint32_t *code_point) {
    const unsigned char *p = (const unsigned char *)s;
    if (p[0] < 0x80) {
        *code_point = p[0];
        return 1;
    }
    struct lead lead = lead_of(p[0]);
    *code_point = UTF8_INVALID;
    if (lead.len == 0 || len < lead.len || p[1] < lead.low || p[1] > lead.high) return 1;
    uint32_t c = p[0] & (0x7fu >> lead.len);
    c = c << 6 | (p[1] & 0x3f);
    for (size_t i = 2; i < lead.len; i++) {
        if (!is_continuation(p[i])) return 1;
        c = c << 6 | (p[i] & 0x3f);
    }
    *code_point = c;
    return lead.len;
}

size_t utf8_encode(uint32_t c, char out[4]) {
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3f));
        out[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3f));
    out[2] = (char)(0x80 | (c >> 6 & 0x3f));
    out[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

// Length of the leading ASCII run, eight bytes at a time.
static size_t ascii_run(const char *s, size_t len) {
    size_t i = 0;
    for (; len - i >= 8; i += 8) {
        uint64_t word;
        memcpy(&word, s + i, 8);
        if (word & 0x8080808080808080u) break;
    }
    while (i < len && (unsigned char)s[i] < 0x80) i++;
    return i;
}

size_t utf8_valid_prefix(const char *s, size_t len) {
    for (size_t i = 0; i < len;) {
        i += ascii_run(s + i, len - i);
        if (i == len) break;
        uint32_t c;
        size_t n = utf8_decode(s + i, len - i, &c);
        if (c == UTF8_INVALID) return i;
        i += n;
    }
    return len;
}

bool utf8_valid(const char *s, size_t len) { return utf8_valid_prefix(s, len) == len; }

size_t utf8_count(const char *s, size_t len) {
    size_t n = 0;
    for (size_t i = 0; i < len; n++) {
        uint32_t c;
        i += utf8_decode(s + i, len - i, &c);
    }
    return n;
}

size_t utf8_complete_prefix(const char *s, size_t len) {
    const unsigned char *p = (const unsigned char *)s;
    size_t tail = 1; // bytes from the last lead byte to the end
    while (tail < 3 && tail < len && is_continuation(p[len - tail])) tail++;
    if (len == 0) return 0;
    const unsigned char *last = p + len - tail;
    struct lead lead = *last < 0x80 ? (struct lead){0} : lead_of(*last);
    if (lead.len <= tail) return len; // whole, or no lead byte at all
    if (tail >= 2 && (last[1] < lead.low || last[1] > lead.high)) return len;
    return len - tail;
}
