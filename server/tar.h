// SPDX-License-Identifier: MIT
// A directory's files as a tar archive (POSIX ustar) and back, for exports. Any thread.
#pragma once

#include "base/buf.h"
#include "base/file.h"

// The regular files of `dir`, by name, as "name/FILE", written to fd; what lies deeper is left out. Nothing in the archive depends on time or user.
bool tar_write(int fd, const char *dir, const char *name, struct err *err) MUST_CHECK;

// The way back, as the bytes come: the files "NAME/FILE" of one archive into `dir`, as FILE. Nothing else is taken from an archive: no path that leads
// elsewhere, no deeper one, no link, no second file of a name.
struct tar_reader {
    const char *dir; // exists; borrowed
    struct buf header; // the one that is being read
    struct file_writer file;
    uint64_t left, padding; // of the file
    size_t n_files;
    bool ended; // the empty block behind the last file was there
};
bool tar_reader_add(struct tar_reader *t, const void *data, size_t len, struct err *err) MUST_CHECK;
// Was it whole? Frees in any case; a file that was not whole is gone.
bool tar_reader_finish(struct tar_reader *t, struct err *err) MUST_CHECK;
