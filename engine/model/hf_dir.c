// SPDX-License-Identifier: MIT
// A Hugging Face model directory: config.json, model.safetensors or model.safetensors.index.json with its shards, the
// tokenizer's files.
//
// Invariants: (1) a shard's name from the index is a plain file name, never a path; (2) the index and the shards list
// the same tensors, each in the shard where the index says. Any thread.
#include "engine/model/model_internal.h"

#include "base/json.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

struct place { // one line of the index's weight_map
    const char *tensor;
    size_t shard;
};

struct shard_index {
    struct arena names;
    struct place *places; // by name once read
    size_t n_places, places_cap;
    const char **shards;
    size_t n_shards, shards_cap;
    size_t current, found; // while loading: the shard at hand, tensors met so far
};

static bool shard_number(struct json *j, struct shard_index *x, const struct buf *file, size_t *out, struct err *err) {
    for (*out = x->n_shards; *out > 0; --*out) // newest first: files come in runs
        if (buf_is(file, x->shards[*out - 1])) {
            --*out;
            return true;
        }
    if (file->len == 0 || file->len > MODEL_MAX_NAME || file->data[0] == '.' || memchr(file->data, '/', file->len) ||
        memchr(file->data, 0, file->len))
        return json_fail(j, err, "\"%s\" is not a file name", buf_str(file));
    if (x->n_shards == MODEL_MAX_SHARDS)
        return json_fail(j, err, "the weights lie in more than %d files", MODEL_MAX_SHARDS);
    mem_grow(&x->shards, &x->shards_cap, x->n_shards + 1);
    x->shards[x->n_shards] = arena_strndup(&x->names, file->data, file->len);
    *out = x->n_shards++;
    return true;
}

static bool weight_map_read(struct json *j, struct shard_index *x, struct err *err) {
    struct buf key = {0}, file = {0};
    bool ok = json_open(j, '{', err);
    while (ok && json_next_key(j, &key, err)) {
        struct place p;
        if (key.len == 0 || key.len > MODEL_MAX_NAME || memchr(key.data, 0, key.len))
            ok = json_fail(j, err, "a tensor's name has %zu bytes or holds a NUL", key.len);
        else if (x->n_places == MODEL_MAX_TENSORS)
            ok = json_fail(j, err, "the index lists more than %d tensors", MODEL_MAX_TENSORS);
        ok = ok && json_read_string(j, &file, err) && shard_number(j, x, &file, &p.shard, err);
        if (!ok) break;
        p.tensor = arena_strndup(&x->names, key.data, key.len);
        mem_grow(&x->places, &x->places_cap, x->n_places + 1);
        x->places[x->n_places++] = p;
    }
    buf_finish(&key);
    buf_finish(&file);
    return ok && !j->failed;
}

static int compare_places(const void *a, const void *b) {
    return strcmp(((const struct place *)a)->tensor, ((const struct place *)b)->tensor);
}

static bool index_read(struct shard_index *x, const unsigned char *text, size_t len, struct err *err) {
    struct json j;
    struct buf key = {0};
    json_init(&j, (const char *)text, len);
    bool ok = json_open(&j, '{', err);
    while (ok && json_next_key(&j, &key, err))
        ok = buf_is(&key, "weight_map") ? weight_map_read(&j, x, err) : json_skip(&j, err);
    ok = ok && !j.failed && json_finish(&j, err);
    buf_finish(&key);
    if (!ok) return false;
    if (x->n_places == 0) return err_set(err, ERR_CORRUPT, "the index lists no tensor");
    qsort(x->places, x->n_places, sizeof(*x->places), compare_places);
    for (size_t i = 1; i < x->n_places; i++)
        if (compare_places(&x->places[i - 1], &x->places[i]) == 0)
            return err_set(err, ERR_CORRUPT, "the index lists tensor \"%s\" twice", x->places[i].tensor);
    return true;
}

static bool tensor_expected(void *ctx, const char *name, struct err *err) {
    struct shard_index *x = ctx;
    const struct place wanted = {.tensor = name};
    const struct place *p = bsearch(&wanted, x->places, x->n_places, sizeof(*x->places), compare_places);
    if (!p || p->shard != x->current)
        return err_set(err, ERR_CORRUPT, "the index does not place tensor \"%s\" here", name);
    x->found++;
    return true;
}

// Maps DIR/name and loads it. The mapping belongs to `f` from then on.
static bool weights_load(struct model_file *f, const char *dir, const char *name, struct shard_index *x,
                         struct err *err) {
    struct file_map m = {0};
    char *path = path_join(dir, name);
    const bool opened = file_map_open(&m, path, err);
    free(path);
    if (!opened) return false;
    mem_grow(&f->maps, &f->maps_cap, f->n_maps + 1);
    f->maps[f->n_maps++] = m;
    return safetensors_load(f, m.data, m.len, x ? tensor_expected : NULL, x, err) || err_prefix(err, "%s", name);
}

static bool shards_load(struct model_file *f, const char *dir, const char *index_path, struct err *err) {
    struct shard_index x = {0};
    struct file_map m = {0};
    if (!file_map_open(&m, index_path, err)) return false;
    bool ok =
        index_read(&x, m.data, m.len, err) || json_corrupt(err) || err_prefix(err, "model.safetensors.index.json");
    file_map_close(&m);
    for (x.current = 0; ok && x.current < x.n_shards; x.current++)
        ok = weights_load(f, dir, x.shards[x.current], &x, err);
    if (ok && x.found != x.n_places)
        ok = err_set(err, ERR_CORRUPT, "the index lists %zu tensors, but the files hold %zu of them", x.n_places,
                     x.found);
    free(x.places);
    free(x.shards);
    arena_finish(&x.names);
    return ok;
}

static bool config_load(struct model_file *f, const char *dir, struct err *err) {
    enum { CONFIG_MAX = 1 << 20 };
    size_t len;
    char *path = path_join(dir, "config.json"), *text = file_read(path, CONFIG_MAX, &len, err);
    free(path);
    if (!text) return false;
    const bool ok = config_hf_parse(text, len, &f->config, err) || err_prefix(err, "config.json");
    free(text);
    return ok;
}

bool tokenizer_load_beside(struct model_file *f, const char *dir, struct err *err) {
    struct err why = {0};
    f->tokenizer = tokenizer_load_dir(dir, &why);
    if (f->tokenizer || why.code == ERR_NOT_FOUND) return true;
    if (err) *err = why;
    return false;
}

bool hf_load_dir(struct model_file *f, const char *dir, struct err *err) {
    if (!config_load(f, dir, err)) return false;
    char *one = path_join(dir, "model.safetensors"), *index = path_join(dir, "model.safetensors.index.json");
    const bool sharded = !file_exists(one) && file_exists(index);
    bool ok = sharded ? shards_load(f, dir, index, err) : weights_load(f, dir, "model.safetensors", NULL, err);
    free(one);
    free(index);
    return ok && tokenizer_load_beside(f, dir, err);
}
