// SPDX-License-Identifier: MIT
// JSON pull reader over memory (RFC 8259): for model configuration, tokenizer files, safetensors headers, data rows.
// No tree, no allocation but the caller's; strings may hold NUL (\u0000). Lone surrogates \uD800 become U+FFFD,
// and so does every byte of invalid UTF-8 in a string. Raw control characters in strings and NaN are refused. A number may be
// 1,100 characters long. Which of two equal keys counts is the caller's matter. Errors carry ERR_INVALID.
// Depth is limited to JSON_MAX_DEPTH. Not for request bodies (server/ uses jansson).
//
// Usage: json_init, then pull. A value is read by exactly one of the json_read_* calls or skipped by json_skip.
//     struct json j; json_init(&j, text, len);
//     if (!json_open(&j, '{', err)) ...
//     while (json_next_key(&j, &key, err)) { if (buf_is(&key, "n_layer")) ok = json_read_size(&j, &n, err); else ok = json_skip(&j, err); }
// json_next_* return false at the end of the container AND on error: j.failed tells them apart.
// Errors are sticky: after the first, every call fails and *err holds the first message, with line and column.
#pragma once

#include "base/buf.h"
#include "base/err.h"

#define JSON_MAX_DEPTH 64

enum json_type { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT, JSON_END };

struct json {
    const char *text, *at, *end;
    int depth;
    bool failed, first; // first: no element of the innermost open container was read yet
    char stack[JSON_MAX_DEPTH]; // '{' or '['
};

void json_init(struct json *j, const char *text, size_t len);
enum json_type json_peek(struct json *j); // type of the next value; JSON_END when there is none
bool json_open(struct json *j, char open, struct err *err) MUST_CHECK; // '{' or '['
// Object: reads the next key (replacing *key's content); the value must be read or skipped before the next call. At the
// closing brace returns false and closes the container.
bool json_next_key(struct json *j, struct buf *key, struct err *err) MUST_CHECK;
bool json_next_item(struct json *j, struct err *err) MUST_CHECK; // array: is there another element? At ']' false and closes
bool json_read_string(struct json *j, struct buf *out, struct err *err) MUST_CHECK; // replaces *out's content
bool json_read_double(struct json *j, double *out, struct err *err) MUST_CHECK;
bool json_read_size(struct json *j, size_t *out, struct err *err) MUST_CHECK;   // a non-negative integer that fits (1e3 and 12.0 accepted)
bool json_read_int(struct json *j, int64_t *out, struct err *err) MUST_CHECK;
bool json_read_bool(struct json *j, bool *out, struct err *err) MUST_CHECK;
bool json_read_null(struct json *j, struct err *err) MUST_CHECK;
bool json_skip(struct json *j, struct err *err) MUST_CHECK;
bool json_finish(struct json *j, struct err *err) MUST_CHECK; // only white space is left
bool json_fail(struct json *j, struct err *err, const char *format, ...) PRINTF_LIKE(3, 4); // reports at the current place
size_t json_line(const struct json *j); // 1-based line of the current place

bool buf_is(const struct buf *b, const char *s); // byte equality with a C string
