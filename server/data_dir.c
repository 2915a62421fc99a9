// SPDX-License-Identifier: MIT
// See data_dir.h.
#include "server/data_dir.h"

#include "base/file.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

// flock: the kernel lets go when the process ends, however it ends. Not handed to trainers (close on exec), which outlive nobody's lock.
static int lock_take(const char *dir, struct err *err) {
    char *path = path_join(dir, "lock");
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) err_set(err, err_code_of(errno), "%s: %s", path, strerror(errno));
    free(path);
    if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) == 0) return fd;
    if (errno == EWOULDBLOCK) err_set(err, ERR_BUSY, "%s is another running server's data directory; --data-dir names one for this server", dir);
    else err_set(err, ERR_IO, "%s: cannot be locked: %s", dir, strerror(errno));
    close(fd);
    return -1;
}

int data_dir_open(const char *path, struct err *err) {
    static const char *const folders[] = {"files", "models", "jobs", "tmp"};
    if (!dir_make(path, err)) return -1;
    int lock = lock_take(path, err);
    bool ok = lock >= 0;
    for (size_t i = 0; ok && i < ARRAY_LEN(folders); i++) {
        char *folder = path_join(path, folders[i]);
        if (strcmp(folders[i], "tmp") == 0) ok = dir_remove(folder, err);
        ok = ok && dir_make(folder, err);
        free(folder);
    }
    ok = ok && dir_sync(path, err);
    if (ok) return lock;
    if (lock >= 0) close(lock);
    return -1;
}
