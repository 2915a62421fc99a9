// SPDX-License-Identifier: MIT
// Shared by the tokenizer's tests: the golden set (tests/golden/tokenizer, made by make_golden.py) and a place for
// files.
#pragma once

#include "base/file.h"
#include "base/json.h"
#include "tests/unit/test.h"
#include "tokenizer/tokenizer.h"

#include <unistd.h>

// One line of vectors.jsonl.
struct vector {
    struct buf key, text;
    struct ids ids;
    bool special;
};

static inline void vector_finish(struct vector *v) {
    buf_finish(&v->key);
    buf_finish(&v->text);
    ids_finish(&v->ids);
}

static inline bool vector_parse(struct vector *v, const char *line, size_t len) {
    struct json j;
    struct err err = {0};
    json_init(&j, line, len);
    v->special = false;
    v->ids.len = 0;
    bool ok = json_open(&j, '{', &err);
    while (ok && json_next_key(&j, &v->key, &err)) {
        if (buf_is(&v->key, "text")) {
            ok = json_read_string(&j, &v->text, &err);
        } else if (buf_is(&v->key, "ids")) {
            size_t id;
            ok = json_open(&j, '[', &err);
            while (ok && json_next_item(&j, &err) && (ok = json_read_size(&j, &id, &err)))
                ids_add(&v->ids, (uint32_t)id);
        } else if (buf_is(&v->key, "special")) {
            ok = json_read_bool(&j, &v->special, &err);
        } else {
            ok = false;
        }
    }
    return ok && !j.failed;
}

// Encodes every line of a vectors file; reports the first differences. Returns how many lines there were.
static inline size_t vectors_check(const struct tokenizer *t, const char *path) {
    size_t len, n = 0, bad = 0;
    struct err err = {0};
    char *text = file_read(path, (size_t)1 << 24, &len, &err);
    if (!text) return TEST_FAIL("%s", err.message), 0;
    struct vector v = {0};
    for (const char *s = text, *stop; (stop = strchr(s, '\n')); s = stop + 1, n++) {
        struct ids out = {0};
        if (vector_parse(&v, s, (size_t)(stop - s))) tokenizer_encode(t, buf_str(&v.text), v.text.len, v.special, &out);
        else TEST_FAIL("%s:%zu: not a vector", path, n + 1);
        bool equal = out.len == v.ids.len && (!out.len || !memcmp(out.data, v.ids.data, out.len * sizeof *out.data));
        if (!equal && bad++ < 3) TEST_FAIL("%s:%zu: other ids than expected", path, n + 1);
        ids_finish(&out);
    }
    vector_finish(&v);
    free(text);
    CHECK_INT(bad, 0);
    return n;
}

static inline struct tokenizer *golden_load(const char *name) {
    struct err err = {0};
    char *dir = path_join(GOLDEN_DIR, name);
    struct tokenizer *t = tokenizer_load_dir(dir, &err);
    if (!t) TEST_FAIL("%s: %s", name, err.message);
    free(dir);
    return t;
}

// Where GPT-2's own vocabulary is; NULL: nowhere (./start brings it to models/gpt2-vocab).
static inline const char *gpt2_vocabulary_dir(void) {
    const char *dir = getenv("COUPLET_GPT2_VOCAB");
    if (!dir) dir = SOURCE_ROOT "/models/gpt2-vocab";
    return dir_exists(dir) ? dir : NULL;
}

static inline uint64_t random_next(uint64_t *state) { // splitmix64
    uint64_t z = *state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

// How often a long test repeats: its default, or what the environment says.
static inline size_t repeats(const char *variable, size_t otherwise) {
    const char *s = getenv(variable);
    return s ? (size_t)strtoull(s, NULL, 10) : otherwise;
}

// A directory for the files of one test; files are written into it by name and removed with it.
struct scratch_dir {
    char path[64];
};

static inline bool scratch_init(struct scratch_dir *d) {
    strcpy(d->path, "/tmp/couplet-tokenizer-XXXXXX");
    return mkdtemp(d->path) != NULL;
}

static inline void scratch_write(const struct scratch_dir *d, const char *name, const void *data, size_t len) {
    char *path = path_join(d->path, name);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, len, f) != len || fclose(f) != 0) TEST_FAIL("cannot write %s", path);
    free(path);
}

static inline void scratch_remove(const struct scratch_dir *d, const char *name) {
    char *path = path_join(d->path, name);
    unlink(path);
    free(path);
}

static inline void scratch_finish(const struct scratch_dir *d) {
    static const char *const names[] = {"tokenizer.json",
                                        "vocab.json",
                                        "merges.txt",
                                        "encoder.json",
                                        "vocab.bpe",
                                        "tokenizer_config.json",
                                        "special_tokens_map.json",
                                        "generation_config.json",
                                        "config.json",
                                        "chat_template.jinja"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) scratch_remove(d, names[i]);
    rmdir(d->path);
}
