// SPDX-License-Identifier: MIT
// UTF-8 by the Unicode standard, table 3-7: no overlong forms, no surrogates, nothing past U+10FFFF.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define UTF8_INVALID UINT32_MAX

// Decodes one code point at s[0..len), len > 0. Returns how many bytes it took (1-4) and sets *code_point; an invalid byte
// takes 1 and gives UTF8_INVALID.
size_t utf8_decode(const char *s, size_t len, uint32_t *code_point);

size_t utf8_encode(uint32_t code_point, char out[4]); // returns 1-4; code_point must be a Unicode scalar value
bool utf8_valid(const char *s, size_t len);
size_t utf8_valid_prefix(const char *s, size_t len); // where the first invalid byte is; len: nowhere
size_t utf8_count(const char *s, size_t len); // code points; an invalid byte counts as one

// Length of the prefix of s that does not end inside a character that could still be completed: bytes after it are a proper
// prefix of a valid sequence (0-3 of them). Invalid bytes count as complete.
size_t utf8_complete_prefix(const char *s, size_t len);
