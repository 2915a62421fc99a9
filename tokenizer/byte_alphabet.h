// SPDX-License-Identifier: MIT
// GPT-2's printable alphabet: vocabulary files spell each of the 256 bytes as one visible character (encoder.py,
// bytes_to_unicode): '!'..'~', U+00A1..U+00AC and U+00AE..U+00FF stand for themselves, the other 68 bytes for U+0100
// onwards.
#pragma once

#include "base/buf.h"

#include <stdint.h>

// Appends the bytes that text spells. false, and *out as it was, when a character lies outside the alphabet.
bool byte_alphabet_decode(const char *text, size_t len, struct buf *out);
// Appends the spelling of the bytes.
void byte_alphabet_encode(const char *bytes, size_t len, struct buf *out);
