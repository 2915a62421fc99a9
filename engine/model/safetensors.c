// SPDX-License-Identifier: MIT
// safetensors: 8 bytes of header length, a JSON header {name: {dtype, shape, data_offsets}}, the data.
// Format: github.com/huggingface/safetensors, README "Format".
//
// Invariants held before a tensor is added: (1) the header lies inside the file and under the format's own cap; (2) no
// name and no key of an entry twice; (3) shape x dtype equals the entry's byte range, in checked arithmetic; (4) the
// ranges cover the data exactly: no hole, no overlap, nothing behind. Memory: one entry per tensor of the header. Any
// thread.
#include "engine/model/model_internal.h"

#include "base/json.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

enum { HEADER_MAX = 100000000, SHAPE_MAX = 8 };

struct entry {
    const char *name;
    const struct st_dtype *dtype;
    size_t shape[SHAPE_MAX], n_dims;
    size_t begin, end; // within the data
};

struct st_dtype {
    const char *name;
    size_t bits;
    bool weight; // a precision the engine reads
    enum dtype type;
};

static const struct st_dtype st_dtypes[] = {
    {"F32", 32, true, DTYPE_F32},
    {"F16", 16, true, DTYPE_F16},
    {"BF16", 16, true, DTYPE_BF16},
    {"F64", 64},
    {"I64", 64},
    {"U64", 64},
    {"I32", 32},
    {"U32", 32},
    {"I16", 16},
    {"U16", 16},
    {"I8", 8},
    {"U8", 8},
    {"BOOL", 8},
    {"F8_E4M3", 8},
    {"F8_E5M2", 8},
    {"F8_E8M0", 8},
    {"F6_E2M3", 6},
    {"F6_E3M2", 6},
    {"F4", 4},
    {"C64", 64},
};

struct header {
    struct entry *entries;
    size_t n_entries, cap;
    struct arena names;
};

static bool dtype_read(struct json *j, struct entry *e, struct buf *text, struct err *err) {
    if (!json_read_string(j, text, err)) return false;
    for (size_t i = 0; i < ARRAY_LEN(st_dtypes) && !e->dtype; i++)
        if (buf_is(text, st_dtypes[i].name)) e->dtype = &st_dtypes[i];
    if (!e->dtype) return json_fail(j, err, "tensor \"%s\" has the unknown type \"%s\"", e->name, buf_str(text));
    return true;
}

static bool shape_read(struct json *j, struct entry *e, struct err *err) {
    if (!json_open(j, '[', err)) return false;
    while (json_next_item(j, err)) {
        if (e->n_dims == SHAPE_MAX)
            return json_fail(j, err, "tensor \"%s\" has more than %d dimensions", e->name, SHAPE_MAX);
        if (!json_read_size(j, &e->shape[e->n_dims++], err)) return false;
    }
    return !j->failed;
}

static bool offsets_read(struct json *j, struct entry *e, struct err *err) {
    size_t n = 0, at[2] = {0, 0};
    if (!json_open(j, '[', err)) return false;
    while (json_next_item(j, err)) {
        if (n == 2) return json_fail(j, err, "tensor \"%s\" has more than two data_offsets", e->name);
        if (!json_read_size(j, &at[n++], err)) return false;
    }
    if (j->failed) return false;
    if (n != 2) return json_fail(j, err, "tensor \"%s\" has fewer than two data_offsets", e->name);
    e->begin = at[0], e->end = at[1];
    return true;
}

static bool entry_size_check(struct json *j, const struct entry *e, size_t data_len, struct err *err) {
    size_t bits = e->dtype->bits;
    if (e->begin > e->end || e->end > data_len)
        return json_fail(j, err, "the bytes %zu to %zu of tensor \"%s\" are not inside the file's %zu data bytes",
                         e->begin, e->end, e->name, data_len);
    for (size_t i = 0; i < e->n_dims; i++)
        if (!size_mul(bits, e->shape[i], &bits))
            return json_fail(j, err, "the shape of tensor \"%s\" is too large for any file", e->name);
    if (bits % 8 != 0 || bits / 8 != e->end - e->begin)
        return json_fail(j, err, "tensor \"%s\" has %zu bytes, but its type and shape need %zu", e->name,
                         e->end - e->begin, bits / 8);
    return true;
}

static bool entry_read(struct json *j, struct entry *e, size_t data_len, struct err *err) {
    struct buf key = {0}, text = {0};
    bool dtype = false, shape = false, offsets = false;
    bool ok = json_open(j, '{', err);
    while (ok && json_next_key(j, &key, err)) {
        bool *seen = buf_is(&key, "dtype")          ? &dtype
                     : buf_is(&key, "shape")        ? &shape
                     : buf_is(&key, "data_offsets") ? &offsets
                                                    : NULL;
        if (!seen || *seen)
            ok = json_fail(j, err, "tensor \"%s\" has the key \"%s\" %s", e->name, buf_str(&key),
                           seen ? "twice" : "of no meaning");
        else if (seen == &dtype)
            ok = dtype_read(j, e, &text, err);
        else if (seen == &shape)
            ok = shape_read(j, e, err);
        else
            ok = offsets_read(j, e, err);
        if (seen) *seen = true;
    }
    ok = ok && !j->failed;
    if (ok && !(dtype && shape && offsets))
        ok = json_fail(j, err, "tensor \"%s\" lacks dtype, shape or data_offsets", e->name);
    ok = ok && entry_size_check(j, e, data_len, err);
    buf_finish(&key);
    buf_finish(&text);
    return ok;
}

static bool header_item_read(struct json *j, struct header *h, const struct buf *key, size_t data_len,
                             struct err *err) {
    if (buf_is(key, "__metadata__")) return json_skip(j, err);
    if (key->len == 0 || key->len > MODEL_MAX_NAME - 16 || memchr(key->data, 0, key->len))
        return json_fail(j, err, "a tensor's name has %zu bytes or holds a NUL", key->len);
    if (h->n_entries == MODEL_MAX_TENSORS)
        return json_fail(j, err, "the header lists more than %d tensors", MODEL_MAX_TENSORS);
    mem_grow(&h->entries, &h->cap, h->n_entries + 1);
    struct entry *e = &h->entries[h->n_entries++];
    *e = (struct entry){.name = arena_strndup(&h->names, key->data, key->len)};
    return entry_read(j, e, data_len, err);
}

static int compare_names(const void *a, const void *b) {
    return strcmp(((const struct entry *)a)->name, ((const struct entry *)b)->name);
}

static int compare_ranges(const void *a, const void *b) {
    const struct entry *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end;
}

static bool header_check(struct header *h, size_t data_len, struct err *err) {
    if (h->n_entries == 0) return err_set(err, ERR_CORRUPT, "the file holds no tensor");
    qsort(h->entries, h->n_entries, sizeof(*h->entries), compare_names);
    for (size_t i = 1; i < h->n_entries; i++)
        if (strcmp(h->entries[i - 1].name, h->entries[i].name) == 0)
            return err_set(err, ERR_CORRUPT, "the header lists tensor \"%s\" twice", h->entries[i].name);
    qsort(h->entries, h->n_entries, sizeof(*h->entries), compare_ranges);
    size_t at = 0;
    for (size_t i = 0; i < h->n_entries; i++) {
        const struct entry *e = &h->entries[i];
        if (e->begin != at)
            return err_set(err, ERR_CORRUPT, "tensor \"%s\" begins at data byte %zu, %s the one before ends at %zu",
                           e->name, e->begin, e->begin < at ? "but" : "leaving a hole, as", at);
        at = e->end;
    }
    if (at != data_len)
        return err_set(err, ERR_CORRUPT, "%zu bytes behind the last tensor belong to nothing", data_len - at);
    return true;
}

static bool header_read(struct header *h, const char *text, size_t len, size_t data_len, struct err *err) {
    struct json j;
    struct buf key = {0};
    json_init(&j, text, len);
    bool ok = json_open(&j, '{', err);
    while (ok && json_next_key(&j, &key, err)) ok = header_item_read(&j, h, &key, data_len, err);
    ok = ok && !j.failed && json_finish(&j, err) && header_check(h, data_len, err);
    buf_finish(&key);
    return ok;
}

static bool entry_add(struct model_file *f, const struct entry *e, const unsigned char *data, struct err *err) {
    char name[MODEL_MAX_NAME + 1];
    if (f->raw_names) memcpy(name, e->name, strlen(e->name) + 1);
    else if (!hf_name_normalize(&f->config, e->name, name)) return true;
    if (!e->dtype->weight)
        return err_set(err, ERR_UNSUPPORTED, "tensor \"%s\" has type %s; F32, F16 and BF16 are supported", e->name,
                       e->dtype->name);
    if (e->n_dims < 1 || e->n_dims > 2)
        return err_set(err, ERR_UNSUPPORTED, "tensor \"%s\" has %zu dimensions, not 1 or 2", e->name, e->n_dims);
    const struct tensor t = {
        .type = e->dtype->type,
        .n_dims = (int)e->n_dims,
        .shape = {e->shape[0], e->n_dims == 2 ? e->shape[1] : 1},
        .data = data + e->begin,
        .n_bytes = e->end - e->begin,
    };
    return model_file_add(f, &t, name, err);
}

bool safetensors_load(struct model_file *f, const unsigned char *data, size_t len, safetensors_expect_fn *expect,
                      void *ctx, struct err *err) {
    if (len < 8) return err_set(err, ERR_CORRUPT, "the file has %zu bytes, too few for a safetensors header", len);
    uint64_t header_len = 0;
    for (int i = 7; i >= 0; i--) header_len = header_len << 8 | data[i];
    if (header_len > HEADER_MAX || header_len > len - 8)
        return err_set(err, ERR_CORRUPT,
                       "the header claims %llu bytes, but the file has %zu and %d is the most allowed",
                       (unsigned long long)header_len, len - 8, HEADER_MAX);
    const size_t data_len = len - 8 - (size_t)header_len;
    struct header h = {0};
    bool ok = header_read(&h, (const char *)data + 8, (size_t)header_len, data_len, err);
    if (!ok) (void)(json_corrupt(err) || err_prefix(err, "safetensors header"));
    for (size_t i = 0; ok && i < h.n_entries; i++) {
        ok = !expect || expect(ctx, h.entries[i].name, err);
        ok = ok && entry_add(f, &h.entries[i], data + 8 + header_len, err);
    }
    free(h.entries);
    arena_finish(&h.names);
    return ok;
}
