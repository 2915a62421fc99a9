// SPDX-License-Identifier: MIT
// Both directions of GPT-2's printable alphabet, by arithmetic: no table to initialise, so any thread may call at any
// time.
#include "tokenizer/byte_alphabet.h"

#include "base/utf8.h"

// The byte of a character of the alphabet, or -1. The 68 bytes without a visible character of their own, in order:
// 00-20, 7F-A0, AD.
static int byte_of(uint32_t c) {
    if ((c >= 0x21 && c <= 0x7e) || (c >= 0xa1 && c <= 0xff && c != 0xad)) return (int)c;
    if (c < 0x100 || c > 0x143) return -1;
    uint32_t k = c - 0x100;
    if (k <= 0x20) return (int)k;
    return k < 0x43 ? (int)(k - 0x21 + 0x7f) : 0xad;
}

static uint32_t character_of(unsigned char b) {
    if (b <= 0x20) return 0x100u + b;
    if (b >= 0x7f && b <= 0xa0) return 0x100u + b - 0x7f + 0x21;
    return b == 0xad ? 0x143 : b;
}

bool byte_alphabet_decode(const char *text, size_t len, struct buf *out) {
    size_t start = out->len;
    buf_reserve(out, len);
    for (size_t i = 0; i < len;) {
        unsigned char c = (unsigned char)text[i];
        uint32_t code_point = c;
        if (c < 0x80) i++;
        else i += utf8_decode(text + i, len - i, &code_point);
        int byte = byte_of(code_point);
        if (byte < 0) {
            out->len = start;
            if (out->data) out->data[start] = 0;
            return false;
        }
        buf_add_byte(out, (unsigned char)byte);
    }
    return true;
}

void byte_alphabet_encode(const char *bytes, size_t len, struct buf *out) {
    for (size_t i = 0; i < len; i++) buf_add_utf8(out, character_of((unsigned char)bytes[i]));
}
