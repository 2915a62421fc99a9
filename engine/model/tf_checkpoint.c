// SPDX-License-Identifier: MIT
// GPT-2 as OpenAI published it: a directory with hparams.json, encoder.json, vocab.bpe and a TensorFlow checkpoint (tensor
// bundle: PREFIX.index and PREFIX.data-SSSSS-of-NNNNN; tensorflow/core/protobuf/tensor_bundle.proto).
//
// Names: "model/h0/attn/c_attn/w" [1, C, 3C] is transformer.h.0.attn.c_attn.weight, g and b are a norm's weight and any bias.
// What is not named so (an optimizer's slots, the step count) is ignored; names_check finds what is missing.
// Invariants: (1) a tensor's bytes lie inside its shard, equal dtype x shape and carry their checksum; (2) the prefix is a
// plain file name. Any thread.
#include "engine/model/model_internal.h"

#include "base/json.h"
#include "base/mem.h"
#include "engine/model/tf_table.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DT_FLOAT = 1, DT_BFLOAT16 = 14, DT_HALF = 19 }; // tensorflow/core/framework/types.proto

struct entry { // BundleEntryProto
    uint64_t dtype, shard, offset, size, crc;
    uint64_t shape[3];
    size_t n_dims;
    bool sliced;
};

struct bundle {
    struct model_file *f;
    size_t n_shards, first_map; // shard i is f->maps[first_map + i]
    size_t unclaimed;           // bytes of all shards that no tensor has taken yet: each is read for one checksum only
    const char *dir, *prefix;
};

// ---- hparams.json

static bool hparams_read(const char *text, size_t len, struct model_config *c, struct err *err) {
    const struct {
        const char *key;
        size_t *value;
    } fields[] = {{"n_vocab", &c->n_vocab}, {"n_ctx", &c->n_ctx}, {"n_embd", &c->n_embd}, {"n_head", &c->n_head}, {"n_layer", &c->n_layer}};
    struct json j;
    struct buf key = {0};
    json_init(&j, text, len);
    bool ok = json_open(&j, '{', err);
    while (ok && json_next_key(&j, &key, err)) {
        size_t *value = NULL;
        for (size_t i = 0; i < ARRAY_LEN(fields); i++)
            if (buf_is(&key, fields[i].key)) value = fields[i].value;
        ok = value ? json_read_size(&j, value, err) : json_skip(&j, err);
    }
    ok = ok && !j.failed && json_finish(&j, err);
    buf_finish(&key);
    if (!ok) return json_corrupt(err);
    for (size_t i = 0; i < ARRAY_LEN(fields); i++)
        if (*fields[i].value == 0)
            return err_set_param(err, ERR_CORRUPT, fields[i].key, "hparams.json gives no positive %s", fields[i].key);
    return true;
}

static bool hparams_load(struct model_config *c, const char *dir, struct err *err) {
    size_t len;
    struct model_config sizes = {0};
    char *path = path_join(dir, "hparams.json"), *text = file_read(path, 1 << 20, &len, err);
    free(path);
    if (!text) return false;
    const bool ok = hparams_read(text, len, &sizes, err) || err_prefix(err, "hparams.json");
    free(text);
    if (!ok) return false;
    *c = config_gpt2(sizes.n_layer, sizes.n_head, sizes.n_embd, 4 * sizes.n_embd, sizes.n_vocab, sizes.n_ctx);
    return true;
}

// ---- which checkpoint

static bool name_is_plain(const char *s, size_t len) { return len > 0 && len < 200 && s[0] != '.' && !memchr(s, '/', len); }

// The prefix that the file "checkpoint" names (its last component: the directory may have moved); NULL where it names none.
static char *prefix_stated(const char *dir) {
    static const char key[] = "model_checkpoint_path: \"";
    size_t len;
    char *path = path_join(dir, "checkpoint"), *text = file_read(path, 1 << 16, &len, NULL), *prefix = NULL;
    free(path);
    char *at = text && strncmp(text, key, sizeof(key) - 1) == 0 ? text + sizeof(key) - 1 : NULL;
    char *end = at ? strchr(at, '"') : NULL;
    if (end) {
        *end = 0;
        const char *slash = strrchr(at, '/'), *name = slash ? slash + 1 : at;
        if (name_is_plain(name, strlen(name))) prefix = mem_strdup(name);
    }
    free(text);
    return prefix;
}

static char *prefix_find(const char *dir, struct err *err) {
    char *prefix = prefix_stated(dir);
    if (prefix) return prefix;
    size_t found = 0;
    DIR *d = opendir(dir);
    for (const struct dirent *e; d && (e = readdir(d));) {
        const size_t n = strlen(e->d_name);
        if (n <= 6 || strcmp(e->d_name + n - 6, ".index") != 0 || !name_is_plain(e->d_name, n)) continue;
        free(prefix);
        prefix = mem_strndup(e->d_name, n - 6);
        found++;
    }
    if (d) closedir(d);
    if (found == 1) return prefix;
    free(prefix);
    (void)err_set(err, ERR_NOT_FOUND, found ? "the directory holds several checkpoints, and no file \"checkpoint\" says which"
                                            : "the directory has hparams.json, but no checkpoint (no .index file)");
    return NULL;
}

// Maps DIR/PREFIX + suffix; the mapping belongs to the model.
static bool part_open(const struct bundle *b, const char *suffix, struct err *err) {
    struct file_map m = {0};
    struct buf name = {0};
    buf_printf(&name, "%s%s", b->prefix, suffix);
    char *path = path_join(b->dir, buf_str(&name));
    const bool ok = file_map_open(&m, path, err);
    free(path);
    buf_finish(&name);
    if (!ok) return false;
    mem_grow(&b->f->maps, &b->f->maps_cap, b->f->n_maps + 1);
    b->f->maps[b->f->n_maps++] = m;
    return true;
}

// ---- records

// The record with the empty key: BundleHeaderProto {num_shards = 1, endianness = 2}.
static bool header_read(struct bundle *b, struct bytes value, struct err *err) {
    uint64_t shards = 1, big_endian = 0;
    for (struct proto_field f; proto_next(&value, &f);) {
        if (f.number == 1) shards = f.value;
        if (f.number == 2) big_endian = f.value;
    }
    if (value.at != value.end) return err_set(err, ERR_CORRUPT, "the checkpoint's header cannot be read");
    if (big_endian) return err_set(err, ERR_UNSUPPORTED, "the checkpoint is big-endian");
    if (b->n_shards || shards == 0 || shards > MODEL_MAX_SHARDS)
        return err_set(err, ERR_CORRUPT, "the checkpoint's header does not give 1 to %d shards once", MODEL_MAX_SHARDS);
    b->first_map = b->f->n_maps;
    for (; b->n_shards < shards; b->n_shards++) {
        char suffix[48];
        snprintf(suffix, sizeof(suffix), ".data-%05zu-of-%05zu", b->n_shards, (size_t)shards);
        if (!part_open(b, suffix, err)) return false;
        b->unclaimed += b->f->maps[b->f->n_maps - 1].len;
    }
    return true;
}

static bool shape_read(struct bytes shape, struct entry *e) { // TensorShapeProto {repeated dim = 2 {size = 1}}
    for (struct proto_field dim, size; proto_next(&shape, &dim);) {
        if (dim.number != 2 || !dim.is_bytes) continue;
        if (e->n_dims == ARRAY_LEN(e->shape)) return false;
        e->shape[e->n_dims] = 0; // protobuf leaves zeros out
        while (proto_next(&dim.bytes, &size))
            if (size.number == 1) e->shape[e->n_dims] = size.value;
        if (dim.bytes.at != dim.bytes.end) return false;
        e->n_dims++;
    }
    return shape.at == shape.end;
}

static bool entry_read(struct bytes value, struct entry *e) {
    *e = (struct entry){0};
    for (struct proto_field f; proto_next(&value, &f);) {
        switch (f.number) {
        case 1: e->dtype = f.value; break;
        case 2:
            if (!f.is_bytes || e->n_dims || !shape_read(f.bytes, e)) return false;
            break;
        case 3: e->shard = f.value; break;
        case 4: e->offset = f.value; break;
        case 5: e->size = f.value; break;
        case 6: e->crc = f.value; break;
        case 7: e->sliced = true; break;
        }
    }
    return value.at == value.end;
}

// OpenAI's name as HF's. False: no weight of the model.
static bool name_map(const char *key, size_t len, char out[MODEL_MAX_NAME + 1]) {
    static const char root[] = "model/";
    char name[MODEL_MAX_NAME - 32];
    if (len >= sizeof(name) || memchr(key, 0, len) || strncmp(key, root, sizeof(root) - 1) != 0) return false;
    snprintf(name, sizeof(name), "%.*s", (int)(len - (sizeof(root) - 1)), key + sizeof(root) - 1);
    const bool embedding = strcmp(name, "wte") == 0 || strcmp(name, "wpe") == 0;
    char *last = strrchr(name, '/'), kind = 'w';
    if (!embedding) {
        if (!last || !strchr("wgb", last[1]) || !last[1] || last[2]) return false;
        kind = last[1];
        *last = 0;
    }
    for (char *p = name; *p; p++)
        if (*p == '/') *p = '.';
    const bool layer = name[0] == 'h' && name[1] >= '0' && name[1] <= '9';
    snprintf(out, MODEL_MAX_NAME + 1, "transformer.%s%s.%s", layer ? "h." : "", name + layer, kind == 'b' ? "bias" : "weight");
    return true;
}

static bool entry_add(struct bundle *b, const struct entry *e, const char *name, struct err *err) {
    const bool half = e->dtype == DT_HALF || e->dtype == DT_BFLOAT16;
    if (!half && e->dtype != DT_FLOAT)
        return err_set(err, ERR_UNSUPPORTED, "the tensor %s has TensorFlow's type %llu; float, half and bfloat16 are supported", name,
                       (unsigned long long)e->dtype);
    if (e->sliced) return err_set(err, ERR_UNSUPPORTED, "the tensor %s is stored in slices", name);
    const size_t skip = e->n_dims == 3 && e->shape[0] == 1; // a convolution of width 1
    if (e->n_dims - skip < 1 || e->n_dims - skip > 2)
        return err_set(err, ERR_UNSUPPORTED, "the tensor %s has %zu dimensions", name, e->n_dims);
    struct tensor t = {.type = e->dtype == DT_FLOAT ? DTYPE_F32 : e->dtype == DT_HALF ? DTYPE_F16 : DTYPE_BF16,
                       .n_dims = (int)(e->n_dims - skip), .shape = {e->shape[skip], e->n_dims - skip == 2 ? e->shape[skip + 1] : 1}};
    if (!size_mul(t.shape[0], t.shape[1], &t.n_bytes) || !size_mul(t.n_bytes, half ? 2 : 4, &t.n_bytes) || t.n_bytes != e->size)
        return err_set(err, ERR_CORRUPT, "the tensor %s has %llu bytes, which its type and shape do not need", name, (unsigned long long)e->size);
    if (e->shard >= b->n_shards) return err_set(err, ERR_CORRUPT, "the tensor %s lies in a shard that does not exist", name);
    const struct file_map *m = &b->f->maps[b->first_map + e->shard];
    if (e->offset > m->len || e->size > m->len - e->offset)
        return err_set(err, ERR_CORRUPT, "the tensor %s lies outside the %zu bytes of its data file", name, m->len);
    if (e->size == 0 || e->size > b->unclaimed) return err_set(err, ERR_CORRUPT, "the tensor %s is empty or overlaps others", name);
    b->unclaimed -= e->size;
    t.data = m->data + e->offset;
    if (crc32c_masked(t.data, t.n_bytes) != e->crc) return err_set(err, ERR_CORRUPT, "the tensor %s has a wrong checksum", name);
    return model_file_add(b->f, &t, name, err);
}

static bool record_visit(void *ctx, const char *key, size_t len, struct bytes value, struct err *err) {
    struct bundle *b = ctx;
    char name[MODEL_MAX_NAME + 1];
    struct entry e;
    if (len == 0) return header_read(b, value, err);
    if (!name_map(key, len, name)) return true;
    if (b->n_shards == 0) return err_set(err, ERR_CORRUPT, "the checkpoint's index has no header");
    if (!entry_read(value, &e)) return err_set(err, ERR_CORRUPT, "the record of the tensor %s cannot be read", name);
    return entry_add(b, &e, name, err);
}

bool tf_is_dir(const char *dir) {
    char *hparams = path_join(dir, "hparams.json"), *config = path_join(dir, "config.json");
    const bool is = file_exists(hparams) && !file_exists(config);
    free(hparams);
    free(config);
    return is;
}

bool tf_load_dir(struct model_file *f, const char *dir, struct err *err) {
    if (!hparams_load(&f->config, dir, err)) return false;
    char *prefix = prefix_find(dir, err);
    if (!prefix) return false;
    struct bundle b = {.f = f, .dir = dir, .prefix = prefix};
    const size_t index = f->n_maps;
    bool ok = part_open(&b, ".index", err);
    if (ok) {
        const struct file_map m = f->maps[index]; // by value: opening the shards moves the list
        ok = tf_table_walk(m.data, m.len, record_visit, &b, err);
    }
    free(prefix);
    return ok && tokenizer_load_beside(f, dir, err);
}
