// SPDX-License-Identifier: MIT
// The GGUF container, versions 2 and 3, little-endian: metadata values and the tensor table, all pointing into the
// file's bytes. Format: github.com/ggml-org/ggml, docs/gguf.md. Knows nothing of models; gguf_model.c does. Internal to
// engine/model/.
#pragma once

#include "base/err.h"
#include "engine/model/model_file.h"

enum gguf_type {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
    GGUF_TYPE_COUNT
};

struct gguf_bytes { // not NUL-terminated
    const char *s;
    size_t len;
};
struct gguf_value {
    struct gguf_bytes key;
    enum gguf_type type, item; // item: of an array
    size_t count;              // of an array
    const unsigned char *data; // the scalar, the string's bytes, or the first item
    size_t len;                // bytes at data
};
struct gguf_tensor {
    struct gguf_bytes name;
    enum dtype type;
    size_t n_dims, ne[4]; // ne[0] is the fastest, as in ggml; unused ones are 1
    const unsigned char *data;
    size_t n_bytes;
};
struct gguf {
    struct gguf_value *values; // sorted by key, no key twice
    size_t n_values, values_cap;
    struct gguf_tensor *tensors; // in file order, no name twice (model_file_finish refuses that)
    size_t n_tensors, tensors_cap;
};

// Every offset, count and size is checked against `len`. On failure nothing is left to free.
bool gguf_parse(struct gguf *g, const unsigned char *data, size_t len, struct err *err) MUST_CHECK;
void gguf_finish(struct gguf *g);

const struct gguf_value *gguf_find(const struct gguf *g, const char *key); // NULL: absent
// Absent: *out and *err untouched. Bad: present with another type or out of range; *err says so.
enum gguf_got { GGUF_ABSENT, GGUF_GOT, GGUF_BAD };
enum gguf_got gguf_get_size(const struct gguf *g, const char *key, size_t *out, struct err *err);
enum gguf_got gguf_get_real(const struct gguf *g, const char *key, double *out, struct err *err);
enum gguf_got gguf_get_bool(const struct gguf *g, const char *key, bool *out, struct err *err);
enum gguf_got gguf_get_string(const struct gguf *g, const char *key, struct gguf_bytes *out, struct err *err);
