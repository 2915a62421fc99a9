// SPDX-License-Identifier: MIT
// The small files beside a vocabulary. Each may be absent; a broken one is an error, an unknown field is not.
//
// Precedence (as transformers): tokenizer_config.json, special_tokens_map.json, generation_config.json, config.json;
// the template in chat_template.jinja wins over the one in tokenizer_config.json.
#include "base/file.h"
#include "base/json.h"
#include "tokenizer/vocab_load.h"

#include <stdlib.h>
#include <string.h>

#define MAX_FILE_BYTES ((size_t)64 << 20) // tokenizer_config.json of a large vocabulary lists its added tokens

void vocab_roles_init(struct vocab_roles *r) {
    *r = (struct vocab_roles){.bos_id = -1, .eos_id = -1, .pad_id = -1, .add_bos = -1};
}

void vocab_roles_finish(struct vocab_roles *r) {
    buf_finish(&r->bos);
    buf_finish(&r->eos);
    buf_finish(&r->pad);
    buf_finish(&r->chat_template);
}

// Reads the object at j. out: the member `name` if it is a string; other members are skipped.
static bool member_string(struct json *j, const char *name, struct buf *out, struct err *err) {
    struct buf key = {0};
    bool ok = json_open(j, '{', err);
    while (ok && json_next_key(j, &key, err))
        ok = buf_is(&key, name) && json_peek(j) == JSON_STRING ? json_read_string(j, out, err) : json_skip(j, err);
    buf_finish(&key);
    return ok && !j->failed;
}

// "text" or {"content": "text"}; an earlier file's word stands.
static bool read_token(struct json *j, struct buf *out, struct err *err) {
    enum json_type type = json_peek(j);
    if (out->len || (type != JSON_STRING && type != JSON_OBJECT)) return json_skip(j, err);
    return type == JSON_STRING ? json_read_string(j, out, err) : member_string(j, "content", out, err);
}

// "text", or [{"name": ..., "template": ...}] of which the one called "default" counts, else the first.
static bool read_template(struct json *j, struct buf *out, struct err *err) {
    if (json_peek(j) == JSON_STRING) return json_read_string(j, out, err);
    if (json_peek(j) != JSON_ARRAY) return json_skip(j, err);
    struct buf name = {0}, text = {0};
    bool ok = json_open(j, '[', err);
    while (ok && json_next_item(j, err)) {
        struct json again = *j;
        if (json_peek(j) != JSON_OBJECT) {
            ok = json_skip(j, err);
            continue;
        }
        buf_clear(&name);
        buf_clear(&text);
        ok = member_string(&again, "name", &name, err) && member_string(j, "template", &text, err);
        if (!ok || (out->len && !buf_is(&name, "default"))) continue;
        buf_clear(out);
        buf_add(out, buf_str(&text), text.len);
    }
    buf_finish(&name);
    buf_finish(&text);
    return ok && !j->failed;
}

// An id, or a list of ids of which the first counts; an earlier file's word stands.
static bool read_id(struct json *j, int64_t *out, struct err *err) {
    int64_t id = -1;
    bool ok = true;
    if (json_peek(j) == JSON_NUMBER) {
        ok = json_read_int(j, &id, err);
    } else if (json_peek(j) == JSON_ARRAY) {
        ok = json_open(j, '[', err);
        while (ok && json_next_item(j, err))
            ok = id < 0 && json_peek(j) == JSON_NUMBER ? json_read_int(j, &id, err) : json_skip(j, err);
        ok = ok && !j->failed;
    } else {
        return json_skip(j, err);
    }
    if (ok && *out < 0 && id >= 0) *out = id;
    return ok;
}

static bool read_field(struct vocab_roles *r, struct json *j, const struct buf *key, struct err *err) {
    if (buf_is(key, "bos_token")) return read_token(j, &r->bos, err);
    if (buf_is(key, "eos_token")) return read_token(j, &r->eos, err);
    if (buf_is(key, "pad_token")) return read_token(j, &r->pad, err);
    if (buf_is(key, "bos_token_id")) return read_id(j, &r->bos_id, err);
    if (buf_is(key, "eos_token_id")) return read_id(j, &r->eos_id, err);
    if (buf_is(key, "pad_token_id")) return read_id(j, &r->pad_id, err);
    if (buf_is(key, "chat_template") && !r->chat_template.len) return read_template(j, &r->chat_template, err);
    bool flag = false;
    if (json_peek(j) == JSON_BOOL && (buf_is(key, "add_bos_token") || buf_is(key, "add_prefix_space"))) {
        if (!json_read_bool(j, &flag, err)) return false;
        if (buf_is(key, "add_bos_token")) r->add_bos = flag;
        else if (flag) return err_set(err, ERR_UNSUPPORTED, "add_prefix_space is not supported");
        return true;
    }
    return json_skip(j, err);
}

static bool read_json(struct vocab_roles *r, const char *path, struct err *err) {
    size_t len;
    char *text = file_read(path, MAX_FILE_BYTES, &len, err);
    if (!text) return false;
    struct json j;
    json_init(&j, text, len);
    struct buf key = {0};
    bool ok = json_open(&j, '{', err);
    while (ok && json_next_key(&j, &key, err)) ok = read_field(r, &j, &key, err);
    ok = ok && !j.failed && json_finish(&j, err);
    buf_finish(&key);
    free(text);
    return ok;
}

static bool read_jinja(struct vocab_roles *r, const char *path, struct err *err) {
    size_t len;
    char *text = file_read(path, MAX_FILE_BYTES, &len, err);
    if (!text) return false;
    buf_clear(&r->chat_template);
    buf_add(&r->chat_template, text, len);
    free(text);
    return true;
}

bool vocab_roles_load(struct vocab_roles *r, const char *dir, struct err *err) {
    static const char *const names[] = {"tokenizer_config.json", "special_tokens_map.json", "generation_config.json",
                                        "config.json", "chat_template.jinja"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *path = path_join(dir, names[i]);
        bool ok = true;
        if (file_exists(path)) ok = i < 4 ? read_json(r, path, err) : read_jinja(r, path, err);
        free(path);
        if (!ok) return vocab_file_fail(err, names[i]);
    }
    return true;
}
