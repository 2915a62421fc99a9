// SPDX-License-Identifier: MIT
// Growable byte string. `{0}` is an empty one. data is NULL while cap is 0; otherwise data[len] is always a NUL byte, so
// that data is a C string when it holds no NUL of its own. Growth aborts on failure: callers bound what they append.
#pragma once

#include "base/err.h"

#include <stdint.h>

struct buf {
    char *data;
    size_t len, cap; // bytes
};

void buf_finish(struct buf *b); // frees and zeroes; accepts a zeroed one
void buf_clear(struct buf *b);  // len = 0, keeps the memory
void buf_reserve(struct buf *b, size_t extra);
void buf_add(struct buf *b, const void *data, size_t len);
void buf_add_str(struct buf *b, const char *s);
void buf_add_byte(struct buf *b, unsigned char c);
void buf_add_utf8(struct buf *b, uint32_t code_point);
void buf_printf(struct buf *b, const char *format, ...) PRINTF_LIKE(2, 3);
// A JSON string with its quotes. Invalid UTF-8 becomes U+FFFD; control characters are escaped; NUL is \u0000.
void buf_add_json_string(struct buf *b, const char *s, size_t len);
// A JSON number that reads back to the same double (%.17g shortened); NaN and infinities become null.
void buf_add_json_number(struct buf *b, double v);
// The shortest decimal text that reads back to the same float; NaN and infinities become null.
void buf_add_float(struct buf *b, float v);
void buf_add_json_float(struct buf *b, float v); // the same for log-probabilities: -inf and anything below -9999 becomes -9999.0
void buf_add_base64(struct buf *b, const void *data, size_t len); // RFC 4648, padded
char *buf_detach(struct buf *b); // hands the bytes to the caller (free()), NUL-terminated, never NULL; b becomes empty
const char *buf_str(const struct buf *b); // "" when empty
