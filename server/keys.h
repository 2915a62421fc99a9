// SPDX-License-Identifier: MIT
// API keys: DATA_DIR/keys, one line a key, holding the SHA-256 of the key and never the key itself. Mode 0600, written
// atomically. The running server notices a changed file (keys_refresh).
//
// Thread: loop thread (server) or a command's only thread.
#pragma once

#include "base/err.h"
#include "server/http.h"

#include <stdint.h>
#include <sys/stat.h>

struct key {
    char id[33];   // "key-" + 12 hex digits of the hash
    char name[65]; // what `keys add` was given
    enum http_scope scope;
    unsigned char hash[32];
    int64_t created_s;
};

struct keys {
    char *path;
    struct key *items;
    size_t n, cap;
    struct timespec mtime; // of the file when it was read; zero: there was none
    int64_t size;
    uint64_t inode;
};

// Reads DATA_DIR/keys; a missing file is an empty set. A file that others can write to or that does not parse is an error.
bool keys_open(struct keys *k, const char *data_dir, struct err *err) MUST_CHECK;
void keys_close(struct keys *k); // accepts a zeroed one

// Reads the file again if it changed. On failure the old keys stay in force and err says why. *changed may be NULL.
bool keys_refresh(struct keys *k, bool *changed, struct err *err) MUST_CHECK;

// The key that `authorization` ("Bearer sk-couplet-...") names, or NULL. Takes the same time for every key of the set.
const struct key *keys_match(const struct keys *k, const char *authorization);

// Makes a key, stores its hash and writes its text (the only time anyone sees it) to `text`.
bool keys_add(struct keys *k, const char *name, enum http_scope scope, char text[64], struct err *err) MUST_CHECK;
bool keys_revoke(struct keys *k, const char *name, struct err *err) MUST_CHECK;

bool scope_parse(const char *name, enum http_scope *out); // "infer" | "train" | "admin"
const char *scope_name(enum http_scope scope);
