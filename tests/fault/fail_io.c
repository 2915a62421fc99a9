// SPDX-License-Identifier: MIT
// Makes a chosen call that changes a file system fail, as a full or broken disk would. Preloaded (LD_PRELOAD=libfail_io.so) or linked into a test.
//
//   FAIL_IO=OP:N:ERRNO    the N-th call of OP in the process fails with ERRNO; N+ : and all after it; ERRNO KILL: the process dies of SIGKILL before it
//   FAIL_IO_BELOW=PATH    only files whose path begins with PATH count (absolute)
//   FAIL_IO_COMMAND=WORD  only in processes whose first argument is WORD: a server hands its environment to its trainers
//   FAIL_IO_ONCE=FILE     of all processes that see it only the first one fails; it makes FILE
//   FAIL_IO_CONTROL=FILE  the rule is read from FILE whenever FILE is a new one (rename it into place; empty: nothing fails); counting begins again then.
//                         FILE.hit is made when a call fails
//   FAIL_IO_REPORT=FILE   at exit: "OP CALLS FAILED" of every OP, one a line
// OP: write (also writev), pwrite, fsync, fdatasync, ftruncate, rename, create (open with O_CREAT, mkostemp), mkdir, or any.
// ERRNO: ENOSPC, EIO, EDQUOT, EFBIG, EROFS or a number.
//
// Only regular files and directories count, so pipes, sockets and eventfds go on. A failing call does nothing at all: no short writes. Thread: any.
#undef _FILE_OFFSET_BITS // both names of each call are defined here
#include "tests/fault/fail_io.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

enum op { OP_WRITE, OP_PWRITE, OP_FSYNC, OP_FDATASYNC, OP_FTRUNCATE, OP_RENAME, OP_CREATE, OP_MKDIR, OP_ANY, OPS };
static const char *const op_names[OPS] = {"write", "pwrite", "fsync", "fdatasync", "ftruncate", "rename", "create", "mkdir", "any"};

static struct {
    enum op op;
    long n; // 0: nothing fails
    bool onwards;
    int number; // errno; FATAL: SIGKILL
} rule;
enum { FATAL = 100000 };
static long calls[OPS], failed[OPS];
static const char *below, *control, *once;
static bool elsewhere; // FAIL_IO_COMMAND names another command
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; // everything above and in control_read

// ---- the rule ----

static int errno_read(const char *text) {
    static const struct {
        const char *name;
        int number;
    } names[] = {{"ENOSPC", ENOSPC}, {"EIO", EIO}, {"EDQUOT", EDQUOT}, {"EFBIG", EFBIG}, {"EROFS", EROFS}, {"KILL", FATAL}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(names[i].name, text) == 0) return names[i].number;
    return atoi(text);
}

EXPORT bool fail_io_set(const char *spec) {
    char op[16], after[16], number[16];
    memset(calls, 0, sizeof calls);
    memset(failed, 0, sizeof failed);
    rule.n = 0;
    if (!spec) return true;
    long n;
    if (sscanf(spec, "%15[a-z]:%ld%15[:+]%15s", op, &n, after, number) != 4) return false;
    for (int i = 0; i < OPS; i++) {
        if (strcmp(op_names[i], op) != 0) continue;
        rule.op = (enum op)i;
        rule.n = n;
        rule.onwards = after[0] == '+';
        rule.number = errno_read(number);
        return rule.number > 0 && n > 0;
    }
    return false;
}

EXPORT bool fail_io_hit(void) { return failed[OP_ANY] > 0; }

static void control_read(void) {
    static struct stat before;
    struct stat now;
    char spec[64] = "";
    if (!control || stat(control, &now) != 0) return;
    if (now.st_ino == before.st_ino && memcmp(&now.st_ctim, &before.st_ctim, sizeof now.st_ctim) == 0) return; // a number may come back
    before = now;
    int fd = (int)syscall(SYS_openat, AT_FDCWD, control, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0 || syscall(SYS_read, fd, spec, sizeof spec - 1) < 0) abort();
    syscall(SYS_close, fd);
    if (!fail_io_set(spec[0] ? spec : NULL)) abort();
}

static void hit_tell(void) {
    char path[PATH_MAX];
    if (!control) return;
    snprintf(path, sizeof path, "%s.hit", control);
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd >= 0) syscall(SYS_close, fd);
}

static bool once_take(void) {
    if (!once) return true;
    int fd = (int)syscall(SYS_openat, AT_FDCWD, once, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd >= 0) syscall(SYS_close, fd);
    return fd >= 0;
}

static bool op_count(enum op op) {
    control_read();
    long n = ++calls[op], any = ++calls[OP_ANY];
    if (!rule.n || (rule.op != op && rule.op != OP_ANY)) return false;
    if (rule.op == OP_ANY) n = any;
    if (rule.onwards ? n < rule.n : n != rule.n) return false;
    if (!once_take()) return false;
    failed[op]++;
    failed[OP_ANY]++;
    hit_tell();
    return true;
}

static bool op_fails(enum op op) {
    if (elsewhere) return false;
    int kept = errno;
    pthread_mutex_lock(&lock);
    bool fails = op_count(op);
    int number = rule.number;
    pthread_mutex_unlock(&lock);
    if (fails && number == FATAL) kill(getpid(), SIGKILL);
    errno = fails ? number : kept;
    return fails;
}

static bool path_counts(const char *path) { return !below || strncmp(path, below, strlen(below)) == 0; }

static bool fd_counts(int fd) {
    struct stat st;
    int kept = errno;
    bool counts = fstat(fd, &st) == 0 && (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode));
    if (counts && below) {
        char link[40], path[PATH_MAX];
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t n = readlink(link, path, sizeof path - 1);
        if (n >= 0) path[n] = 0;
        counts = n >= 0 && path_counts(path);
    }
    errno = kept;
    return counts;
}

__attribute__((constructor)) static void fail_io_begin(int argc, char **argv) { // glibc hands them over
    const char *command = getenv("FAIL_IO_COMMAND");
    elsewhere = command && (argc < 2 || strcmp(argv[1], command) != 0);
    once = getenv("FAIL_IO_ONCE");
    below = getenv("FAIL_IO_BELOW");
    control = getenv("FAIL_IO_CONTROL");
    const char *spec = getenv("FAIL_IO");
    if (spec && !fail_io_set(spec)) {
        fprintf(stderr, "fail_io: FAIL_IO=%s cannot be read\n", spec);
        _exit(127);
    }
}

__attribute__((destructor)) static void fail_io_report(void) {
    const char *path = getenv("FAIL_IO_REPORT");
    if (!path) return;
    char line[80];
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    for (int i = 0; fd >= 0 && i < OPS; i++) {
        int len = snprintf(line, sizeof line, "%s %ld %ld\n", op_names[i], calls[i], failed[i]);
        if (syscall(SYS_write, fd, line, (size_t)len) != len) break;
    }
    if (fd >= 0) syscall(SYS_close, fd);
}

// ---- the calls ----

// The next definition of a name: the C library's, or a sanitizer's around it.
#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define ON_FD(op, result, name, parameters, ...)                  \
    EXPORT result name parameters {                               \
        if (fd_counts(fd) && op_fails(op)) return -1;             \
        return NEXT(name)(__VA_ARGS__);                           \
    }

ON_FD(OP_WRITE, ssize_t, write, (int fd, const void *data, size_t n), fd, data, n)
ON_FD(OP_WRITE, ssize_t, writev, (int fd, const struct iovec *parts, int n), fd, parts, n)
ON_FD(OP_PWRITE, ssize_t, pwrite, (int fd, const void *data, size_t n, off_t at), fd, data, n, at)
ON_FD(OP_PWRITE, ssize_t, pwrite64, (int fd, const void *data, size_t n, off64_t at), fd, data, n, at)
ON_FD(OP_FSYNC, int, fsync, (int fd), fd)
ON_FD(OP_FDATASYNC, int, fdatasync, (int fd), fd)
ON_FD(OP_FTRUNCATE, int, ftruncate, (int fd, off_t n), fd, n)
ON_FD(OP_FTRUNCATE, int, ftruncate64, (int fd, off64_t n), fd, n)

EXPORT int rename(const char *from, const char *to) {
    if (path_counts(to) && op_fails(OP_RENAME)) return -1;
    return NEXT(rename)(from, to);
}

EXPORT int mkostemp(char *path, int flags) {
    if (path_counts(path) && op_fails(OP_CREATE)) return -1;
    return NEXT(mkostemp)(path, flags);
}

EXPORT int mkdir(const char *path, mode_t mode) {
    if (path_counts(path) && op_fails(OP_MKDIR)) return -1;
    return NEXT(mkdir)(path, mode);
}

#define MODE_OF(flags, mode)                                      \
    mode_t mode = 0;                                              \
    if ((flags) & (O_CREAT | __O_TMPFILE)) {                      \
        va_list more;                                             \
        va_start(more, flags);                                    \
        mode = (mode_t)va_arg(more, int);                         \
        va_end(more);                                             \
    }
#define ON_OPEN(name)                                                                     \
    EXPORT int name(const char *path, int flags, ...) {                                   \
        MODE_OF(flags, mode)                                                              \
        if ((flags & O_CREAT) && path_counts(path) && op_fails(OP_CREATE)) return -1;     \
        return NEXT(name)(path, flags, mode);                                             \
    }
#define ON_OPENAT(name)                                                                   \
    EXPORT int name(int dir, const char *path, int flags, ...) {                          \
        MODE_OF(flags, mode)                                                              \
        if ((flags & O_CREAT) && path_counts(path) && op_fails(OP_CREATE)) return -1;     \
        return NEXT(name)(dir, path, flags, mode);                                        \
    }
ON_OPEN(open)
ON_OPEN(open64)
ON_OPENAT(openat)
ON_OPENAT(openat64)
