// SPDX-License-Identifier: MIT
// GPT-2's two files: encoder.json or vocab.json ({"token": id}) and vocab.bpe or merges.txt (one merge a line, by
// rank).
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "tokenizer/vocab_load.h"

#include <stdlib.h>
#include <string.h>

#define MAX_FILE_BYTES ((size_t)128 << 20)

bool vocab_file_fail(struct err *err, const char *path) {
    const char *slash = strrchr(path, '/');
    if (err && err->code == ERR_INVALID) err->code = ERR_CORRUPT;
    return err_prefix(err, "%s", slash ? slash + 1 : path);
}

bool vocab_read_object(struct vocab_builder *b, struct json *j, struct err *err) {
    struct buf key = {0};
    bool ok = json_open(j, '{', err);
    while (ok && json_next_key(j, &key, err)) {
        size_t id;
        ok = json_read_size(j, &id, err) && vocab_builder_add(b, buf_str(&key), key.len, id, err);
    }
    buf_finish(&key);
    return ok && !j->failed;
}

static bool vocab_file_load(struct vocab_builder *b, const char *path, struct err *err) {
    struct file_map map;
    if (!file_map_open(&map, path, err)) return false;
    struct json j;
    json_init(&j, (const char *)map.data, map.len);
    bool ok = map.len <= MAX_FILE_BYTES || err_set(err, ERR_TOO_LARGE, "larger than %zu bytes", MAX_FILE_BYTES);
    ok = ok && vocab_read_object(b, &j, err) && json_finish(&j, err);
    file_map_close(&map);
    return ok || vocab_file_fail(err, path);
}

// Lines "left right"; a first line "#version..." and empty lines mean nothing.
static bool merges_read(struct vocab_builder *b, const char *text, size_t len, struct err *err) {
    const char *end = text + len;
    size_t line = 1;
    for (const char *s = text; s < end; line++) {
        const char *stop = memchr(s, '\n', (size_t)(end - s));
        if (!stop) stop = end;
        size_t n = (size_t)(stop - s);
        if (n && s[n - 1] == '\r') n--;
        bool comment = line == 1 && n >= 8 && !memcmp(s, "#version", 8);
        if (n && !comment && !vocab_builder_merge_text(b, s, n, err)) return err_prefix(err, "line %zu", line);
        s = stop < end ? stop + 1 : end;
    }
    return true;
}

static bool merges_file_load(struct vocab_builder *b, const char *path, struct err *err) {
    struct file_map map;
    if (!file_map_open(&map, path, err)) return false;
    bool ok = map.len <= MAX_FILE_BYTES || err_set(err, ERR_TOO_LARGE, "larger than %zu bytes", MAX_FILE_BYTES);
    ok = ok && merges_read(b, (const char *)map.data, map.len, err);
    file_map_close(&map);
    return ok || vocab_file_fail(err, path);
}

bool vocab_load_files(struct vocab_builder *b, const char *vocab_path, const char *merges_path, struct err *err) {
    static const char end_of_text[] = "<|endoftext|>";
    if (!vocab_file_load(b, vocab_path, err) || !merges_file_load(b, merges_path, err)) return false;
    int64_t id = vocab_builder_find(b, end_of_text, strlen(end_of_text));
    return id < 0 || vocab_builder_add_special(b, end_of_text, strlen(end_of_text), (size_t)id, true, err);
}
