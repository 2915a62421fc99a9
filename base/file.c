// SPDX-License-Identifier: MIT
// Files: mapping, whole reads, atomic writes, path arithmetic. Any thread; no state.
#include "base/file.h"
#include "base/buf.h"
#include "base/mem.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static bool file_fail(struct err *err, const char *what, const char *path, int number) {
    return err_set(err, err_code_of(number), "cannot %s %s: %s", what, path, strerror(number));
}

// Opens for reading; never blocks (a FIFO without a writer would).
static int file_open(const char *path, struct stat *st, struct err *err) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        file_fail(err, "open", path, errno);
        return -1;
    }
    if (fstat(fd, st) == 0) return fd;
    file_fail(err, "open", path, errno);
    close(fd);
    return -1;
}

bool file_map_open(struct file_map *m, const char *path, struct err *err) {
    struct stat st;
    int fd = file_open(path, &st, err);
    if (fd < 0) return false;
    struct file_map map = {.len = (size_t)st.st_size};
    bool ok = false;
    if (!S_ISREG(st.st_mode)) {
        err_set(err, ERR_INVALID, "cannot map %s: it is %s", path,
                S_ISDIR(st.st_mode) ? "a directory" : "not a regular file");
        goto done;
    }
    if (st.st_size > 0) {
        void *data = mmap(NULL, map.len, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED) {
            file_fail(err, "map", path, errno);
            goto done;
        }
        map.data = data;
    }
    *m = map;
    ok = true;
done:
    close(fd);
    return ok;
}

void file_map_close(struct file_map *m) {
    if (m->data) munmap((void *)(uintptr_t)m->data, m->len);
    *m = (struct file_map){0};
}

// Reads fd to its end into *data, which the caller frees on failure too. `expected`: how much there probably is.
static bool file_read_fd(int fd, size_t expected, size_t max_len, char **data, size_t *len, const char *name,
                         struct err *err) {
    size_t cap = 0;
    for (*len = 0;;) {
        if (cap - *len < 2) { // room for one byte and the NUL, so that the end is met without growing
            cap = MAX(cap * 2, MAX(expected, 4094) + 2);
            char *grown = realloc(*data, cap);
            if (!grown) return err_set(err, ERR_NO_MEMORY, "not enough memory to read %s", name);
            *data = grown;
        }
        ssize_t n = read(fd, *data + *len, cap - *len - 1);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return file_fail(err, "read", name, errno);
        *len += (size_t)n;
        if (*len > max_len) return err_set(err, ERR_TOO_LARGE, "%s is longer than %zu bytes", name, max_len);
        if (n == 0) break;
    }
    (*data)[*len] = 0;
    return true;
}

char *file_read(const char *path, size_t max_len, size_t *len, struct err *err) {
    bool is_stdin = strcmp(path, "-") == 0;
    struct stat st;
    int fd = is_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0 || fstat(fd, &st) < 0) {
        file_fail(err, "open", path, errno);
        if (fd > STDIN_FILENO) close(fd);
        return NULL;
    }
    size_t expected = S_ISREG(st.st_mode) ? (size_t)st.st_size : 0, n = 0;
    char *data = NULL;
    bool ok;
    if (S_ISDIR(st.st_mode)) ok = err_set(err, ERR_INVALID, "cannot read %s: it is a directory", path);
    else if (expected > max_len) ok = err_set(err, ERR_TOO_LARGE, "%s is longer than %zu bytes", path, max_len);
    else ok = file_read_fd(fd, expected, max_len, &data, &n, is_stdin ? "standard input" : path, err);
    if (!is_stdin) close(fd);
    if (!ok) {
        free(data);
        return NULL;
    }
    if (len) *len = n;
    return data;
}

static bool write_all(int fd, const char *data, size_t len) {
    while (len) {
        ssize_t n = write(fd, data, MIN(len, (size_t)1 << 30));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return false;
        data += n;
        len -= (size_t)n;
    }
    return true;
}

// The directory part, "." when there is none. malloc'ed.
static char *path_dir(const char *path) {
    const char *slash = strrchr(path, '/');
    if (!slash) return mem_strdup(".");
    return mem_strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

// ---- writing: beside its place under another name, then renamed ----

enum { WRITER_BUFFER = 1 << 16 };

bool file_writer_open(struct file_writer *w, const char *path, unsigned mode, struct err *err) {
    struct stat st;
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode)) // root's rename would put a file in the place of /dev/null
        return err_set(err, ERR_INVALID, "cannot write %s: it is %s", path, S_ISDIR(st.st_mode) ? "a directory" : "not a regular file");
    char *dir = path_dir(path), *temp = path_join(dir, ".write-XXXXXX");
    free(dir);
    int fd = mkostemp(temp, O_CLOEXEC);
    if (fd < 0 || fchmod(fd, mode) < 0) {
        file_fail(err, "write", path, errno);
        if (fd >= 0) {
            close(fd);
            unlink(temp);
        }
        free(temp);
        return false;
    }
    *w = (struct file_writer){.fd = fd, .path = mem_strdup(path), .temp = temp, .buffer = mem_alloc(WRITER_BUFFER, 1)};
    return true;
}

static void writer_flush(struct file_writer *w, const void *data, size_t len) {
    if (w->error == 0 && !write_all(w->fd, data, len)) w->error = errno;
}

void file_writer_add(struct file_writer *w, const void *data, size_t len) {
    w->written += len;
    if (w->used + len > WRITER_BUFFER) {
        writer_flush(w, w->buffer, w->used);
        w->used = 0;
    }
    if (len > WRITER_BUFFER) {
        writer_flush(w, data, len);
    } else if (len > 0) {
        memcpy(w->buffer + w->used, data, len);
        w->used += len;
    }
}

void file_writer_abort(struct file_writer *w) {
    if (!w->path) return;
    if (w->fd >= 0) close(w->fd);
    unlink(w->temp);
    free(w->path);
    free(w->temp);
    free(w->buffer);
    *w = (struct file_writer){.fd = -1};
}

bool file_writer_sync(struct file_writer *w, struct err *err) {
    writer_flush(w, w->buffer, w->used);
    w->used = 0;
    if (w->error == 0 && fsync(w->fd) < 0) w->error = errno;
    return w->error == 0 || file_fail(err, "write", w->path, w->error);
}

bool file_writer_finish(struct file_writer *w, struct err *err) {
    (void)!file_writer_sync(w, NULL); // its error sticks
    int closed = close(w->fd);
    if (w->error == 0 && closed < 0) w->error = errno;
    w->fd = -1;
    if (w->error == 0 && rename(w->temp, w->path) < 0) w->error = errno;
    char *dir = path_dir(w->path);
    bool ok = w->error == 0 ? dir_sync(dir, err) : file_fail(err, "write", w->path, w->error);
    free(dir);
    file_writer_abort(w); // after the rename there is nothing of that name to remove
    return ok;
}

bool file_write_atomic(const char *path, const void *data, size_t len, unsigned mode, struct err *err) {
    struct file_writer w = {0};
    if (!file_writer_open(&w, path, mode, err)) return false;
    file_writer_add(&w, data, len);
    return file_writer_finish(&w, err);
}

// ---- directories ----

bool dir_sync(const char *path, struct err *err) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool ok = fd >= 0 && fsync(fd) == 0;
    if (!ok) file_fail(err, "write", path, errno);
    if (fd >= 0) close(fd);
    return ok;
}

bool dir_make(const char *path, struct err *err) {
    char *p = mem_strdup(path);
    for (char *slash = strchr(p + 1, '/'); slash && *p; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        mkdir(p, 0777); // what cannot be made shows at the last one
        *slash = '/';
    }
    bool ok = mkdir(p, 0777) == 0 || (errno == EEXIST && dir_exists(p)) || file_fail(err, "make", path, errno);
    free(p);
    return ok;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *walk) { return remove(path); }

bool dir_remove(const char *path, struct err *err) {
    return nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS) == 0 || errno == ENOENT || file_fail(err, "remove", path, errno);
}

bool file_exists(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

bool dir_exists(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

char *path_join(const char *dir, const char *name) {
    struct buf b = {0};
    buf_add_str(&b, dir);
    if (b.len && b.data[b.len - 1] != '/') buf_add_byte(&b, '/');
    buf_add_str(&b, name);
    return buf_detach(&b);
}

// An extension is a dot and letters or digits, a letter first: "llama-1.7B" has none.
static size_t name_without_extension(const char *name, size_t len) {
    size_t dot = len;
    while (dot > 0 && isalnum((unsigned char)name[dot - 1])) dot--;
    if (dot < 2 || dot == len || name[dot - 1] != '.' || !isalpha((unsigned char)name[dot])) return len;
    return dot - 1;
}

char *path_stem(const char *path) {
    size_t end = strlen(path);
    while (end > 0 && path[end - 1] == '/') end--;
    size_t start = end;
    while (start > 0 && path[start - 1] != '/') start--;
    return mem_strndup(path + start, name_without_extension(path + start, end - start));
}
