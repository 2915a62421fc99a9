// SPDX-License-Identifier: MIT
// The key file. A line: ID SCOPE CREATED HASH NAME, separated by single spaces. Invariant: a key's text exists in the answer of
// keys_add and nowhere else; comparison touches every byte of every stored hash whatever it finds. Thread: see keys.h.
#include "server/keys.h"

#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/sha256.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <time.h>

enum { KEYS_MAX = 4096, KEY_TEXT_BYTES = 24 };
static const char key_prefix[] = "sk-couplet-";

static const struct {
    const char *name;
    enum http_scope scope;
} scopes[] = {{"infer", SCOPE_INFER}, {"train", SCOPE_TRAIN}, {"admin", SCOPE_ADMIN}};

bool scope_parse(const char *name, enum http_scope *out) {
    for (size_t i = 0; i < ARRAY_LEN(scopes); i++) {
        if (strcmp(scopes[i].name, name) != 0) continue;
        *out = scopes[i].scope;
        return true;
    }
    return false;
}

const char *scope_name(enum http_scope scope) {
    for (size_t i = 0; i < ARRAY_LEN(scopes); i++)
        if (scopes[i].scope == scope) return scopes[i].name;
    return "public";
}

// ---- the file ----

static bool hash_parse(const char *hex, unsigned char out[32]) {
    if (strspn(hex, "0123456789abcdef") != 64 || hex[64]) return false;
    for (size_t i = 0; i < 32; i++) {
        unsigned byte;
        sscanf(hex + 2 * i, "%2x", &byte);
        out[i] = (unsigned char)byte;
    }
    return true;
}

static bool name_valid(const char *name) {
    size_t n = strlen(name);
    if (n == 0 || n > 64) return false;
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)name[i]) && !strchr("-_.@", name[i])) return false;
    return true;
}

static bool line_parse(const char *line, struct key *k) {
    char scope[9], hash[65];
    *k = (struct key){0};
    if (sscanf(line, "%32s %8s %" SCNd64 " %64s %64s", k->id, scope, &k->created_s, hash, k->name) != 5) return false;
    return scope_parse(scope, &k->scope) && hash_parse(hash, k->hash) && name_valid(k->name);
}

static bool keys_parse(struct keys *k, char *text, struct err *err) {
    size_t number = 0;
    for (char *line = text, *next; line; line = next) {
        next = strchr(line, '\n');
        if (next) *next++ = 0;
        number++;
        if (!*line) continue;
        mem_grow(&k->items, &k->cap, k->n + 1);
        if (k->n == KEYS_MAX || !line_parse(line, &k->items[k->n])) return err_set(err, ERR_CORRUPT, "line %zu of the key file is damaged", number);
        k->n++;
    }
    return true;
}

// Fills *fresh (zeroed, path set). A missing file is an empty set.
static bool keys_read(struct keys *fresh, struct err *err) {
    struct stat st;
    if (stat(fresh->path, &st) != 0) {
        if (errno == ENOENT || errno == ENOTDIR) return true;
        return err_set(err, ERR_IO, "%s: %s", fresh->path, strerror(errno));
    }
    if (st.st_mode & 022) return err_set(err, ERR_INVALID, "%s can be written by others; run chmod 600 on it", fresh->path);
    size_t len;
    char *text = file_read(fresh->path, 1 << 20, &len, err);
    if (!text) return false;
    bool ok = keys_parse(fresh, text, err);
    free(text);
    fresh->mtime = st.st_mtim;
    fresh->size = st.st_size;
    fresh->inode = st.st_ino;
    return ok;
}

bool keys_open(struct keys *k, const char *data_dir, struct err *err) {
    struct keys fresh = {.path = path_join(data_dir, "keys")};
    if (!keys_read(&fresh, err)) {
        keys_close(&fresh);
        return false;
    }
    *k = fresh;
    return true;
}

void keys_close(struct keys *k) {
    free(k->path);
    free(k->items);
    *k = (struct keys){0};
}

bool keys_refresh(struct keys *k, bool *changed, struct err *err) {
    struct stat st = {0};
    if (stat(k->path, &st) != 0) st = (struct stat){0};
    bool same = st.st_mtim.tv_sec == k->mtime.tv_sec && st.st_mtim.tv_nsec == k->mtime.tv_nsec && st.st_size == k->size && st.st_ino == k->inode;
    if (changed) *changed = !same;
    if (same) return true;
    struct keys fresh = {.path = k->path};
    if (!keys_read(&fresh, err)) {
        free(fresh.items);
        // Not again until it changes once more; what was in force stays.
        k->mtime = st.st_mtim, k->size = st.st_size, k->inode = st.st_ino;
        return false;
    }
    free(k->items);
    *k = fresh;
    return true;
}

static bool keys_write(const struct keys *k, struct err *err) {
    struct buf text = {0};
    for (size_t i = 0; i < k->n; i++) {
        const struct key *key = &k->items[i];
        char hash[2 * sizeof key->hash + 1];
        hex_write(key->hash, sizeof key->hash, hash);
        buf_printf(&text, "%s %s %" PRId64 " %s %s\n", key->id, scope_name(key->scope), key->created_s, hash, key->name);
    }
    bool ok = file_write_atomic(k->path, text.data, text.len, 0600, err);
    buf_finish(&text);
    return ok;
}

// ---- keys ----

static void hash_text(const char *text, size_t len, unsigned char out[32]) {
    struct sha256 s;
    sha256_init(&s);
    sha256_update(&s, text, len);
    sha256_digest(&s, out);
}

const struct key *keys_match(const struct keys *k, const char *authorization) {
    static const char scheme[] = "Bearer ";
    if (strncasecmp(authorization, scheme, sizeof scheme - 1) != 0) return NULL;
    const char *text = authorization + sizeof scheme - 1;
    while (*text == ' ') text++;
    size_t len = strlen(text);
    while (len && text[len - 1] == ' ') len--;
    unsigned char hash[32];
    hash_text(text, len, hash);
    // The hash of a guess says nothing about a key, and still every stored byte is looked at.
    const struct key *found = NULL;
    for (size_t i = 0; i < k->n; i++) {
        unsigned char differ = 0;
        for (size_t b = 0; b < sizeof hash; b++) differ |= (unsigned char)(hash[b] ^ k->items[i].hash[b]);
        found = differ ? found : &k->items[i];
    }
    return found;
}

static bool random_fill(void *out, size_t n, struct err *err) {
    return getrandom(out, n, 0) == (ssize_t)n || err_set(err, ERR_IO, "the system gives no random bytes");
}

bool keys_add(struct keys *k, const char *name, enum http_scope scope, char text[64], struct err *err) {
    if (!name_valid(name)) return err_set(err, ERR_INVALID, "a key's name is 1 to 64 letters, digits, '-', '_', '.' or '@'");
    for (size_t i = 0; i < k->n; i++)
        if (strcmp(k->items[i].name, name) == 0) return err_set(err, ERR_INVALID, "there is a key named '%s' already", name);
    if (k->n == KEYS_MAX) return err_set(err, ERR_TOO_LARGE, "there are %d keys already", KEYS_MAX);
    unsigned char random[KEY_TEXT_BYTES];
    if (!random_fill(random, sizeof random, err)) return false;
    char key_text[64], hex[2 * sizeof random + 1];
    hex_write(random, sizeof random, hex);
    int n = snprintf(key_text, sizeof key_text, "%s%s", key_prefix, hex);
    explicit_bzero(hex, sizeof hex);
    struct key key = {.scope = scope, .created_s = (int64_t)time(NULL)};
    hash_text(key_text, (size_t)n, key.hash);
    memcpy(key.id, "key-", 4);
    hex_write(key.hash, 6, key.id + 4);
    snprintf(key.name, sizeof key.name, "%s", name);
    mem_grow(&k->items, &k->cap, k->n + 1);
    k->items[k->n++] = key;
    if (!keys_write(k, err)) {
        k->n--;
        return false;
    }
    memcpy(text, key_text, sizeof key_text);
    explicit_bzero(key_text, sizeof key_text);
    return true;
}

bool keys_revoke(struct keys *k, const char *name, struct err *err) {
    for (size_t i = 0; i < k->n; i++) {
        if (strcmp(k->items[i].name, name) != 0 && strcmp(k->items[i].id, name) != 0) continue;
        memmove(&k->items[i], &k->items[i + 1], (k->n - i - 1) * sizeof *k->items);
        k->n--;
        return keys_write(k, err);
    }
    return err_set(err, ERR_NOT_FOUND, "there is no key named '%s'", name);
}
