// SPDX-License-Identifier: MIT
// What a PyTorch file (torch.save since 1.6) consists of: a zip archive of stored entries and a pickle. Internal to engine/model/.
#pragma once

#include "base/arena.h"
#include "engine/model/model_file.h"

// ---- zip.c ----
struct zip_entry {
    const char *name; // not NUL-terminated
    size_t name_len;
    const unsigned char *data;
    size_t len;
};
struct zip {
    struct zip_entry *entries; // by name
    size_t n_entries;
};
// Every entry is inside `data` and stored as it is; compressed and encrypted ones: ERR_UNSUPPORTED.
bool zip_open(struct zip *z, const unsigned char *data, size_t len, struct err *err) MUST_CHECK;
void zip_close(struct zip *z);
const struct zip_entry *zip_find(const struct zip *z, const char *name, size_t len); // NULL: absent

// ---- pickle.c ----
enum pickle_kind {
    PICKLE_NONE, // and whatever no state dict needs the value of: truth values, floats, bytes
    PICKLE_INT,
    PICKLE_TEXT,
    PICKLE_TUPLE,
    PICKLE_LIST,
    PICKLE_DICT,
    PICKLE_GLOBAL,  // one of the few names in pickle.c's table
    PICKLE_STORAGE, // a persistent id: ('storage', type, key, location, count)
    PICKLE_TENSOR
};
struct pickle_item {
    const struct pickle_value *key, *value; // key NULL but in dicts
    struct pickle_item *next;
};
enum { PICKLE_DIMS = 4 };
struct pickle_value {
    enum pickle_kind kind;
    union {
        int64_t integer; // too long for 64 bits: 0
        struct {
            const char *s; // not NUL-terminated
            size_t len;
        } text;
        struct {
            struct pickle_item *first, *last;
            size_t n;
        } items; // tuple, list, dict
        const struct pickle_global *global;
        struct {
            const struct pickle_value *key; // text: the entry data/KEY
            const char *type;               // "FloatStorage"
        } storage;
        struct {
            const struct pickle_value *storage;
            size_t offset, n_dims, shape[PICKLE_DIMS], stride[PICKLE_DIMS]; // elements
        } tensor;
    };
};
// Builds values and executes nothing: a name outside torch's state dicts is refused by that name (ERR_UNSUPPORTED). Values live in `a`
// and point into `data`.
const struct pickle_value *pickle_read(struct arena *a, const unsigned char *data, size_t len, struct err *err) MUST_CHECK;
// The value under a key of a dict; NULL: absent or no dict.
const struct pickle_value *pickle_get(const struct pickle_value *dict, const char *key);
