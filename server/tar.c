// SPDX-License-Identifier: MIT
// See tar.h. Source: POSIX.1-2017, pax, "ustar Interchange Format".
#include "server/tar.h"

#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BLOCK = 512, PIECE = 1 << 18 };
#define SIZE_MAX_USTAR ((uint64_t)1 << 33) // eleven octal digits

struct header {
    char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], sum[8], type, link[100], magic[6], version[2],
        user[32], group[32], major[8], minor[8], prefix[155], pad[12];
};
_Static_assert(sizeof(struct header) == BLOCK, "a header is one block");

static bool write_all(int fd, const void *data, size_t len, struct err *err) {
    for (size_t done = 0; done < len;) {
        const ssize_t n = write(fd, (const char *)data + done, len - done);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0)
            return err_set(err, n < 0 ? err_code_of(errno) : ERR_IO, "the archive cannot be written: %s",
                           strerror(errno));
        done += (size_t)n;
    }
    return true;
}

static bool write_header(int fd, const char *name, const char *file, uint64_t size, struct err *err) {
    struct header h = {.type = '0'};
    unsigned sum = 0;
    if ((size_t)snprintf(h.name, sizeof h.name, "%s/%s", name, file) >= sizeof h.name || size >= SIZE_MAX_USTAR)
        return err_set(err, ERR_UNSUPPORTED, "%s does not fit a tar archive", file);
    snprintf(h.mode, sizeof h.mode, "%07o", 0644u);
    snprintf(h.uid, sizeof h.uid, "%07o", 0u);
    snprintf(h.gid, sizeof h.gid, "%07o", 0u);
    snprintf(h.size, sizeof h.size, "%011llo", (unsigned long long)size);
    snprintf(h.mtime, sizeof h.mtime, "%011o", 0u);
    memcpy(h.magic, "ustar", 6);
    memcpy(h.version, "00", 2);
    memset(h.sum, ' ', sizeof h.sum);
    for (size_t i = 0; i < sizeof h; i++) sum += ((const unsigned char *)&h)[i];
    snprintf(h.sum, 7, "%06o", sum);
    return write_all(fd, &h, sizeof h, err);
}

static bool write_file(int fd, int dir_fd, const char *name, const char *file, char *piece, struct err *err) {
    struct stat st;
    uint64_t left;
    const int in = openat(dir_fd, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (in < 0 || fstat(in, &st) < 0) {
        if (in >= 0) close(in);
        return errno == ELOOP || err_set(err, ERR_IO, "cannot read %s: %s", file, strerror(errno));
    }
    bool ok = !S_ISREG(st.st_mode) || write_header(fd, name, file, left = (uint64_t)st.st_size, err);
    while (ok && S_ISREG(st.st_mode) && left > 0) {
        const ssize_t n = read(in, piece, (size_t)MIN(left, (uint64_t)PIECE));
        if (n <= 0) ok = err_set(err, ERR_IO, "cannot read %s", file);
        else ok = write_all(fd, piece, (size_t)n, err);
        left -= ok ? (uint64_t)n : 0;
    }
    if (ok && S_ISREG(st.st_mode) && st.st_size % BLOCK) {
        static const char zeros[BLOCK];
        ok = write_all(fd, zeros, BLOCK - (size_t)(st.st_size % BLOCK), err);
    }
    close(in);
    return ok;
}

bool tar_write(int fd, const char *dir, const char *name, struct err *err) {
    static const char end[2 * BLOCK];
    struct dirent **entries;
    const int n = scandir(dir, &entries, NULL, alphasort);
    if (n < 0) return err_set(err, ERR_IO, "cannot read a directory: %s", strerror(errno));
    const int dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    char *piece = mem_alloc(PIECE, 1);
    bool ok = dir_fd >= 0 || err_set(err, ERR_IO, "cannot read a directory: %s", strerror(errno));
    for (int i = 0; i < n; i++) {
        if (ok && entries[i]->d_name[0] != '.') ok = write_file(fd, dir_fd, name, entries[i]->d_name, piece, err);
        free(entries[i]);
    }
    free(entries);
    free(piece);
    if (dir_fd >= 0) close(dir_fd);
    return ok && write_all(fd, end, sizeof end, err);
}

// ---- the way back ----

static bool octal_read(const char *field, size_t len, uint64_t *out) {
    *out = 0;
    size_t i = 0;
    for (; i < len && field[i] >= '0' && field[i] <= '7'; i++) *out = *out << 3 | (uint64_t)(field[i] - '0');
    return i > 0 && (i == len || field[i] == 0 || field[i] == ' ');
}

static bool sum_holds(const struct header *h) {
    uint64_t stated;
    unsigned sum = 0;
    for (size_t i = 0; i < sizeof *h; i++) {
        const bool own = i >= offsetof(struct header, sum) && i < offsetof(struct header, type);
        sum += own ? ' ' : ((const unsigned char *)h)[i];
    }
    return octal_read(h->sum, sizeof h->sum, &stated) && stated == sum;
}

// FILE of "NAME/FILE", or NULL. What begins with a dot is no file of a model, and neither "..".
static const char *file_of(const char *path) {
    const char *slash = strchr(path, '/');
    if (!slash || slash == path || path[0] == '.' || !slash[1] || slash[1] == '.' || strchr(slash + 1, '/')) return NULL;
    for (const char *at = path; *at; at++)
        if ((unsigned char)*at < ' ' || *at == 127 || *at == '\\') return NULL;
    return slash + 1;
}

static bool header_take(struct tar_reader *t, const struct header *h, struct err *err) {
    static const struct header empty;
    char name[sizeof h->name + 1] = {0};
    uint64_t size;
    if (memcmp(h, &empty, sizeof empty) == 0) return t->ended = true;
    memcpy(name, h->name, sizeof h->name);
    if (memcmp(h->magic, "ustar", 5) != 0 || !sum_holds(h) || !octal_read(h->size, sizeof h->size, &size))
        return err_set(err, ERR_CORRUPT, "the archive is damaged");
    const char *file = file_of(name);
    if (!file || h->prefix[0] || (h->type != '0' && h->type != 0))
        return err_set(err, ERR_CORRUPT, "the archive holds something else than a model's files and is refused: \"%s\"", name);
    char *path = path_join(t->dir, file);
    struct stat st;
    bool ok = lstat(path, &st) != 0 || err_set(err, ERR_CORRUPT, "the archive holds \"%s\" twice", name);
    ok = ok && file_writer_open(&t->file, path, 0644, err);
    free(path);
    if (!ok) return false;
    t->n_files++;
    t->left = size;
    t->padding = (BLOCK - size % BLOCK) % BLOCK;
    return size > 0 || file_writer_finish(&t->file, err);
}

bool tar_reader_add(struct tar_reader *t, const void *data, size_t len, struct err *err) {
    for (const char *at = data; len && !t->ended;) { // behind the end stands padding
        size_t n;
        if (t->left) {
            n = (size_t)MIN(t->left, (uint64_t)len);
            file_writer_add(&t->file, at, n);
            t->left -= n;
            if (!t->left && !file_writer_finish(&t->file, err)) return false;
        } else if (t->padding) {
            n = (size_t)MIN(t->padding, (uint64_t)len);
            t->padding -= n;
        } else {
            n = MIN(BLOCK - t->header.len, len);
            buf_add(&t->header, at, n);
            if (t->header.len == BLOCK) {
                struct header h;
                memcpy(&h, t->header.data, sizeof h);
                buf_clear(&t->header);
                if (!header_take(t, &h, err)) return false;
            }
        }
        at += n;
        len -= n;
    }
    return true;
}

bool tar_reader_finish(struct tar_reader *t, struct err *err) {
    file_writer_abort(&t->file);
    buf_finish(&t->header);
    if (t->ended && t->n_files) return true;
    return err_set(err, ERR_CORRUPT, t->ended ? "the archive is empty" : "the archive is cut off");
}
