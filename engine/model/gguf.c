// SPDX-License-Identifier: MIT
// Reads the GGUF container.
//
// Invariants: (1) nothing is read past `len`: all reading goes through the cursor; (2) a count is believed only as far
// as the bytes left could hold that many items, before anything is allocated for it; (3) tensors lie one after the
// other, each at the next multiple of the alignment, as every writer of the format puts them, so none overlaps another
// or the header; (4) no loads at assumed alignment. Any thread.
#include "engine/model/gguf.h"

#include "base/mem.h"
#include "engine/model/model_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_MAX_BYTES = 64, KEY_MAX_BYTES = 65535, ALIGNMENT_MAX = 1 << 20, DEFAULT_ALIGNMENT = 32 };
enum { VALUES_MAX = 65536 };

struct cursor {
    const unsigned char *at, *end;
};

static const size_t type_sizes[GGUF_TYPE_COUNT] = {
    [GGUF_U8] = 1,  [GGUF_I8] = 1,   [GGUF_U16] = 2, [GGUF_I16] = 2, [GGUF_U32] = 4, [GGUF_I32] = 4,
    [GGUF_F32] = 4, [GGUF_BOOL] = 1, [GGUF_U64] = 8, [GGUF_I64] = 8, [GGUF_F64] = 8, // strings and arrays: 0, they
                                                                                     // measure themselves
};

static size_t left(const struct cursor *c) { return (size_t)(c->end - c->at); }

static bool truncated(struct err *err) {
    (void)err_set(err, ERR_CORRUPT, "the GGUF header is longer than the file");
    return false; // a constant, so that the compiler sees that callers' outputs are set
}

static uint64_t load_le(const unsigned char *p, size_t n) {
    uint64_t v = 0;
    for (size_t i = n; i > 0; i--) v = v << 8 | p[i - 1];
    return v;
}

static bool read_le(struct cursor *c, size_t n, uint64_t *out, struct err *err) {
    if (left(c) < n) return truncated(err);
    *out = load_le(c->at, n);
    c->at += n;
    return true;
}

static bool read_bytes(struct cursor *c, struct gguf_bytes *out, struct err *err) {
    uint64_t n;
    if (!read_le(c, 8, &n, err)) return false;
    if (n > left(c)) return truncated(err);
    *out = (struct gguf_bytes){(const char *)c->at, (size_t)n};
    c->at += n;
    return true;
}

static bool skip_items(struct cursor *c, enum gguf_type item, uint64_t count, struct err *err) {
    struct gguf_bytes text;
    if (item != GGUF_STRING) {
        if (count > left(c) / type_sizes[item]) return truncated(err);
        c->at += count * type_sizes[item];
        return true;
    }
    for (uint64_t i = 0; i < count; i++)
        if (!read_bytes(c, &text, err)) return false;
    return true;
}

static bool read_array(struct cursor *c, struct gguf_value *v, struct err *err) {
    uint64_t item, count;
    if (!read_le(c, 4, &item, err) || !read_le(c, 8, &count, err)) return false;
    if (item >= GGUF_TYPE_COUNT || item == GGUF_ARRAY)
        return err_set(err, ERR_UNSUPPORTED, "GGUF metadata \"%.*s\" is an array of %s", (int)MIN(v->key.len, 64),
                       v->key.s, item == GGUF_ARRAY ? "arrays" : "items of no known type");
    const size_t least = item == GGUF_STRING ? 8 : type_sizes[item];
    if (count > left(c) / least) return truncated(err);
    v->item = (enum gguf_type)item;
    v->count = (size_t)count;
    v->data = c->at;
    if (!skip_items(c, v->item, count, err)) return false;
    v->len = (size_t)(c->at - v->data);
    return true;
}

static bool read_value(struct cursor *c, struct gguf_value *v, struct err *err) {
    uint64_t type;
    if (!read_bytes(c, &v->key, err)) return false;
    if (v->key.len == 0 || v->key.len > KEY_MAX_BYTES)
        return err_set(err, ERR_CORRUPT, "a GGUF metadata key has %zu bytes", v->key.len);
    if (!read_le(c, 4, &type, err)) return false;
    if (type >= GGUF_TYPE_COUNT)
        return err_set(err, ERR_CORRUPT, "GGUF metadata \"%.*s\" has the unknown type %llu", (int)MIN(v->key.len, 64),
                       v->key.s, (unsigned long long)type);
    v->type = (enum gguf_type)type;
    if (v->type == GGUF_ARRAY) return read_array(c, v, err);
    struct gguf_bytes text = {(const char *)c->at, type_sizes[v->type]};
    if (v->type == GGUF_STRING) {
        if (!read_bytes(c, &text, err)) return false;
    } else {
        if (left(c) < text.len) return truncated(err);
        c->at += text.len;
    }
    v->data = (const unsigned char *)text.s;
    v->len = text.len;
    return true;
}

static int compare_keys(const struct gguf_bytes *a, const struct gguf_bytes *b) {
    const int order = memcmp(a->s, b->s, MIN(a->len, b->len));
    return order ? order : a->len < b->len ? -1 : a->len > b->len;
}

static int compare_values(const void *a, const void *b) {
    return compare_keys(&((const struct gguf_value *)a)->key, &((const struct gguf_value *)b)->key);
}

static bool read_values(struct gguf *g, struct cursor *c, uint64_t count, struct err *err) {
    for (uint64_t i = 0; i < count; i++) {
        struct gguf_value v = {0};
        if (!read_value(c, &v, err)) return false;
        mem_grow(&g->values, &g->values_cap, g->n_values + 1);
        g->values[g->n_values++] = v;
    }
    if (g->n_values) qsort(g->values, g->n_values, sizeof(*g->values), compare_values);
    for (size_t i = 1; i < g->n_values; i++)
        if (compare_values(&g->values[i - 1], &g->values[i]) == 0)
            return err_set(err, ERR_CORRUPT, "GGUF metadata \"%.*s\" is given twice",
                           (int)MIN(g->values[i].key.len, 64), g->values[i].key.s);
    return true;
}

static bool tensor_type_read(struct cursor *c, struct gguf_tensor *t, struct err *err) {
    static const struct {
        const char *name;
        int type; // -1: refused
    } types[] = {
        [0] = {"F32", DTYPE_F32},    [1] = {"F16", DTYPE_F16}, [2] = {"Q4_0", DTYPE_Q4_0}, [3] = {"Q4_1", DTYPE_Q4_1},
        [6] = {"Q5_0", -1},          [7] = {"Q5_1", -1},       [8] = {"Q8_0", DTYPE_Q8_0}, [9] = {"Q8_1", -1},
        [10] = {"Q2_K", -1},         [11] = {"Q3_K", -1},      [12] = {"Q4_K", -1},        [13] = {"Q5_K", -1},
        [14] = {"Q6_K", DTYPE_Q6_K}, [15] = {"Q8_K", -1},      [16] = {"IQ2_XXS", -1},     [17] = {"IQ2_XS", -1},
        [18] = {"IQ3_XXS", -1},      [19] = {"IQ1_S", -1},     [20] = {"IQ4_NL", -1},      [21] = {"IQ3_S", -1},
        [22] = {"IQ2_S", -1},        [23] = {"IQ4_XS", -1},    [24] = {"I8", -1},          [25] = {"I16", -1},
        [26] = {"I32", -1},          [27] = {"I64", -1},       [28] = {"F64", -1},         [29] = {"IQ1_M", -1},
        [30] = {"BF16", DTYPE_BF16}, [34] = {"TQ1_0", -1},     [35] = {"TQ2_0", -1},       [39] = {"MXFP4", -1},
        [40] = {"NVFP4", -1},        [41] = {"Q1_0", -1},
    };
    uint64_t type;
    if (!read_le(c, 4, &type, err)) return false;
    if (type >= ARRAY_LEN(types) || !types[type].name)
        return err_set(err, ERR_CORRUPT, "tensor \"%.*s\" has the unknown type %llu", (int)t->name.len, t->name.s,
                       (unsigned long long)type);
    if (types[type].type < 0)
        return err_set(err, ERR_UNSUPPORTED,
                       "tensor \"%.*s\" has type %s; F32, F16, BF16, Q8_0, Q4_0, Q4_1 and Q6_K are supported",
                       (int)t->name.len, t->name.s, types[type].name);
    t->type = (enum dtype)types[type].type;
    return true;
}

static bool tensor_size(struct gguf_tensor *t, struct err *err) {
    size_t n = t->ne[0] / dtype_block(t->type);
    if (t->ne[0] == 0 || t->ne[0] % dtype_block(t->type) != 0)
        return err_set(err, ERR_CORRUPT, "tensor \"%.*s\" has rows of %zu, not a multiple of the block of %zu",
                       (int)t->name.len, t->name.s, t->ne[0], dtype_block(t->type));
    bool ok = size_mul(n, dtype_block_bytes(t->type), &n);
    for (size_t i = 1; i < 4; i++) ok = ok && t->ne[i] > 0 && size_mul(n, t->ne[i], &n);
    if (!ok)
        return err_set(err, ERR_CORRUPT, "the shape of tensor \"%.*s\" is empty or too large for any file",
                       (int)t->name.len, t->name.s);
    t->n_bytes = n;
    return true;
}

// *offset: from the start of the data section, which is only known behind the last entry.
static bool read_tensor(struct cursor *c, struct gguf_tensor *t, uint64_t *offset, struct err *err) {
    uint64_t n;
    if (!read_bytes(c, &t->name, err)) return false;
    if (t->name.len == 0 || t->name.len > NAME_MAX_BYTES || memchr(t->name.s, 0, t->name.len))
        return err_set(err, ERR_CORRUPT, "a GGUF tensor's name has %zu bytes, outside 1 to %d, or holds a NUL",
                       t->name.len, NAME_MAX_BYTES);
    if (!read_le(c, 4, &n, err)) return false;
    if (n < 1 || n > 4)
        return err_set(err, ERR_CORRUPT, "tensor \"%.*s\" has %llu dimensions, outside 1 to 4", (int)t->name.len,
                       t->name.s, (unsigned long long)n);
    t->n_dims = (size_t)n;
    for (size_t i = 0; i < 4; i++) {
        uint64_t size = 1;
        if (i < t->n_dims && !read_le(c, 8, &size, err)) return false;
        t->ne[i] = (size_t)size;
    }
    return tensor_type_read(c, t, err) && read_le(c, 8, offset, err) && tensor_size(t, err);
}

static bool read_tensors(struct gguf *g, struct cursor *c, uint64_t count, size_t alignment, const unsigned char *start,
                         struct err *err) {
    size_t next = 0; // where the next tensor must begin
    for (uint64_t i = 0; i < count; i++) {
        struct gguf_tensor t = {0};
        uint64_t offset = 0;
        if (!read_tensor(c, &t, &offset, err)) return false;
        if (offset != next)
            return err_set(err, ERR_CORRUPT, "tensor \"%.*s\" is at offset %llu of the data, expected at %zu",
                           (int)t.name.len, t.name.s, (unsigned long long)offset, next);
        size_t padded;
        if (!size_add(next, t.n_bytes, &padded) || !size_add(padded, alignment - 1, &padded))
            return err_set(err, ERR_CORRUPT, "the tensors are larger than any file");
        mem_grow(&g->tensors, &g->tensors_cap, g->n_tensors + 1);
        g->tensors[g->n_tensors++] = t;
        next = padded / alignment * alignment;
    }
    // The data section begins at the next multiple of the alignment, counted from the file's first byte.
    const size_t header = (size_t)(c->at - start), total = header + left(c);
    const size_t begin = (header + alignment - 1) / alignment * alignment;
    size_t at = begin;
    for (size_t i = 0; i < g->n_tensors; i++) {
        struct gguf_tensor *t = &g->tensors[i];
        if (at > total || t->n_bytes > total - at)
            return err_set(err, ERR_CORRUPT, "the data of tensor \"%.*s\" end behind the end of the file",
                           (int)t->name.len, t->name.s);
        t->data = start + at;
        at = (at + t->n_bytes + alignment - 1) / alignment * alignment;
    }
    if (total > at) return err_set(err, ERR_CORRUPT, "%zu bytes behind the last tensor belong to nothing", total - at);
    return true;
}

static bool alignment_get(const struct gguf *g, size_t *out, struct err *err) {
    size_t a = DEFAULT_ALIGNMENT;
    if (gguf_get_size(g, "general.alignment", &a, err) == GGUF_BAD) return false;
    *out = a;
    if (a == 0 || a > ALIGNMENT_MAX || (a & (a - 1)) != 0)
        return err_set_param(err, ERR_CORRUPT, "general.alignment",
                             "general.alignment is %zu, not a power of two up to %d", a, ALIGNMENT_MAX);
    return true;
}

static bool parse(struct gguf *g, const unsigned char *data, size_t len, struct err *err) {
    struct cursor c = {data, data + len};
    uint64_t version, n_tensors, n_values;
    size_t alignment;
    if (len < 24 || memcmp(data, "GGUF", 4) != 0)
        return err_set(err, ERR_CORRUPT, "this is not a GGUF file, or only the start of one");
    c.at += 4;
    if (!read_le(&c, 4, &version, err) || !read_le(&c, 8, &n_tensors, err) || !read_le(&c, 8, &n_values, err))
        return false;
    if (version != 2 && version != 3)
        return err_set(err, ERR_UNSUPPORTED, "GGUF version %llu%s is not supported, only little-endian 2 and 3",
                       (unsigned long long)version, version > 0xffff ? " (a big-endian file?)" : "");
    // The least entry of each kind: key length, one byte, type, one byte of value; name length, one byte, dimensions,
    // one of them, type, offset.
    if (n_values > VALUES_MAX || n_values > left(&c) / 14)
        return err_set(err, ERR_CORRUPT, "the file claims %llu metadata values, more than it could hold",
                       (unsigned long long)n_values);
    if (n_tensors == 0 || n_tensors > MODEL_MAX_TENSORS || n_tensors > left(&c) / 33)
        return err_set(err, ERR_CORRUPT, "the file claims %llu tensors, outside 1 to what it could hold",
                       (unsigned long long)n_tensors);
    return read_values(g, &c, n_values, err) && alignment_get(g, &alignment, err) &&
           read_tensors(g, &c, n_tensors, alignment, data, err);
}

bool gguf_parse(struct gguf *g, const unsigned char *data, size_t len, struct err *err) {
    *g = (struct gguf){0};
    if (parse(g, data, len, err)) return true;
    gguf_finish(g);
    return false;
}

void gguf_finish(struct gguf *g) {
    free(g->values);
    free(g->tensors);
    *g = (struct gguf){0};
}

const struct gguf_value *gguf_find(const struct gguf *g, const char *key) {
    const struct gguf_value wanted = {.key = {key, strlen(key)}};
    return g->n_values ? bsearch(&wanted, g->values, g->n_values, sizeof(*g->values), compare_values) : NULL;
}

static enum gguf_got bad(const char *key, const char *wanted, struct err *err) {
    (void)err_set_param(err, ERR_CORRUPT, key, "GGUF metadata \"%s\" is not %s", key, wanted);
    return GGUF_BAD;
}

enum gguf_got gguf_get_size(const struct gguf *g, const char *key, size_t *out, struct err *err) {
    const struct gguf_value *v = gguf_find(g, key);
    if (!v) return GGUF_ABSENT;
    const bool is_signed = v->type == GGUF_I8 || v->type == GGUF_I16 || v->type == GGUF_I32 || v->type == GGUF_I64;
    const bool is_unsigned = v->type == GGUF_U8 || v->type == GGUF_U16 || v->type == GGUF_U32 || v->type == GGUF_U64;
    if ((!is_signed && !is_unsigned) || (is_signed && v->data[v->len - 1] & 0x80))
        return bad(key, "a non-negative integer", err);
    *out = (size_t)load_le(v->data, v->len);
    return GGUF_GOT;
}

enum gguf_got gguf_get_real(const struct gguf *g, const char *key, double *out, struct err *err) {
    const struct gguf_value *v = gguf_find(g, key);
    float f;
    double d;
    if (!v) return GGUF_ABSENT;
    if (v->type == GGUF_F32)
        memcpy(&f, v->data, sizeof(f)), d = (double)f;
    else if (v->type == GGUF_F64)
        memcpy(&d, v->data, sizeof(d));
    else
        return bad(key, "a real number", err);
    if (!isfinite(d)) return bad(key, "a finite number", err);
    *out = d;
    return GGUF_GOT;
}

enum gguf_got gguf_get_bool(const struct gguf *g, const char *key, bool *out, struct err *err) {
    const struct gguf_value *v = gguf_find(g, key);
    if (!v) return GGUF_ABSENT;
    if (v->type != GGUF_BOOL || v->data[0] > 1) return bad(key, "true or false", err);
    *out = v->data[0];
    return GGUF_GOT;
}

enum gguf_got gguf_get_string(const struct gguf *g, const char *key, struct gguf_bytes *out, struct err *err) {
    const struct gguf_value *v = gguf_find(g, key);
    if (!v) return GGUF_ABSENT;
    if (v->type != GGUF_STRING) return bad(key, "a string", err);
    *out = (struct gguf_bytes){(const char *)v->data, v->len};
    return GGUF_GOT;
}
