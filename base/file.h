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

// mode: permission bits of the new file. The old file stays whole unless everything succeeded; what is there and no regular file is refused.
bool file_write_atomic(const char *path, const void *data, size_t len, unsigned mode, struct err *err) MUST_CHECK;

// The same in pieces. Errors stick and come out at finish, which renames; until then nothing is at `path`. After finish or abort it is zeroed.
struct file_writer {
    int fd;
    char *path, *temp, *buffer;
    size_t used;
    uint64_t written; // bytes added so far
    int error;        // errno of the first failure
};
bool file_writer_open(struct file_writer *w, const char *path, unsigned mode, struct err *err) MUST_CHECK;
void file_writer_add(struct file_writer *w, const void *data, size_t len);
bool file_writer_sync(struct file_writer *w, struct err *err) MUST_CHECK; // what was added is on the disk, still without its name
bool file_writer_finish(struct file_writer *w, struct err *err) MUST_CHECK;
void file_writer_abort(struct file_writer *w); // removes what was written; accepts a zeroed one

bool dir_make(const char *path, struct err *err) MUST_CHECK;   // with its parents; there already: fine
bool dir_sync(const char *path, struct err *err) MUST_CHECK;   // fsync: names made or renamed in it survive a power cut
bool dir_remove(const char *path, struct err *err) MUST_CHECK; // with everything in it; absent: fine
bool file_exists(const char *path); // a regular file
bool dir_exists(const char *path);
char *path_join(const char *dir, const char *name); // malloc'ed
// The last component without its extension: "a/b.gguf" -> "b", "a/dir/" -> "dir". malloc'ed.
char *path_stem(const char *path);
