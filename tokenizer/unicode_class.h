// SPDX-License-Identifier: MIT
// The character classes that pre-tokenizers know: \p{L}, \p{N} and \s of Unicode 16, from generated tables.
#pragma once

#include <stdint.h>

enum char_class { CHAR_OTHER, CHAR_LETTER, CHAR_NUMBER, CHAR_SPACE };

// unicode_tables.c, written by make_unicode_tables.py.
extern const uint8_t unicode_block[0x110000 / 256];
extern const uint8_t unicode_bits[][64];

// Anything past U+10FFFF (UTF8_INVALID among it) is CHAR_OTHER.
static inline enum char_class unicode_class(uint32_t code_point) {
    if (code_point >= 0x110000) return CHAR_OTHER;
    const uint8_t *bits = unicode_bits[unicode_block[code_point >> 8]];
    return (enum char_class)(bits[(code_point & 255) >> 2] >> 2 * (code_point & 3) & 3);
}
