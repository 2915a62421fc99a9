// SPDX-License-Identifier: MIT
// Files: read-only mappings, whole reads, atomic writes (tmp -> fsync -> rename -> fsync(dir)).
// Messages name the path as the caller gave it (commands show them; the server never forwards them to clients).
#pragma once

#include "base/err.h"

#include <stdint.h>

struct file_map {
    const unsigned char *data; // NULL when len is 0
    size_t len;
};

bool file_map_open(struct file_map *m, const char *path, struct err *err) MUST_CHECK; // regular files only
void file_map_close(struct file_map *m);                                              // accepts a zeroed one

// Reads a whole file (or stdin for "-") into malloc'ed memory with a NUL behind it; over max_len: ERR_TOO_LARGE.
char *file_read(const char *path, size_t max_len, size_t *len, struct err *err) MUST_CHECK;

// mode: permission bits of the new file. The old file stays whole unless everything succeeded.
bool file_write_atomic(const char *path, const void *data, size_t len, unsigned mode, struct err *err) MUST_CHECK;

bool file_exists(const char *path); // a regular file
bool dir_exists(const char *path);
char *path_join(const char *dir, const char *name); // malloc'ed
// The last component without its extension: "a/b.gguf" -> "b", "a/dir/" -> "dir". malloc'ed.
char *path_stem(const char *path);
