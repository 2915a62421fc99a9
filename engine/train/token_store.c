// SPDX-License-Identifier: MIT
// See token_store.h. Page cache, not process memory, holds what is read again: a 2 GB text costs 256 KiB here.
#include "engine/train/token_store.h"

#include "base/file.h"
#include "base/mem.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BUFFER_TOKENS = 1 << 16 };

// Without a name from the beginning where the file system can: a process that is killed leaves nothing.
static int nameless_open(const char *dir) {
    int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0) return fd;
    char *path = path_join(dir, ".couplet-tokens-XXXXXX");
    fd = mkostemp(path, O_CLOEXEC);
    if (fd >= 0) unlink(path);
    free(path);
    return fd;
}

bool token_store_open(struct token_store *s, const char *dir, struct err *err) {
    *s = (struct token_store){.fd = -1};
    if (!dir) dir = getenv("TMPDIR");
    if (!dir || !*dir) dir = "/tmp";
    int fd = nameless_open(dir);
    if (fd < 0) return err_set(err, err_code_of(errno), "cannot create a temporary file in %s: %s", dir, strerror(errno));
    s->fd = fd;
    s->buffer = mem_alloc(BUFFER_TOKENS, sizeof *s->buffer);
    sha256_init(&s->digest);
    return true;
}

static void flush(struct token_store *s) {
    const char *p = (const char *)s->buffer;
    size_t left = s->used * sizeof *s->buffer;
    sha256_update(&s->digest, p, left);
    s->used = 0;
    while (left && !s->error) {
        ssize_t n = write(s->fd, p, left);
        if (n < 0 && errno != EINTR) s->error = errno;
        if (n > 0) p += n, left -= (size_t)n;
    }
}

void token_store_add(struct token_store *s, const uint32_t *tokens, size_t n) {
    s->n += n;
    while (n) {
        size_t take = MIN(n, BUFFER_TOKENS - s->used);
        memcpy(s->buffer + s->used, tokens, take * sizeof *tokens);
        s->used += take;
        tokens += take;
        n -= take;
        if (s->used == BUFFER_TOKENS) flush(s);
    }
}

bool token_store_finish(struct token_store *s, struct err *err) {
    flush(s);
    free(s->buffer);
    s->buffer = NULL;
    return !s->error || err_set(err, err_code_of(s->error), "cannot write the temporary file of tokens: %s", strerror(s->error));
}

bool token_store_read(const struct token_store *s, uint64_t at, uint32_t *tokens, size_t n, struct err *err) {
    assert(at <= s->n && n <= s->n - at);
    char *p = (char *)tokens;
    size_t left = n * sizeof *tokens;
    off_t from = (off_t)(at * sizeof *tokens);
    while (left) {
        ssize_t got = pread(s->fd, p, left, from);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0)
            return err_set(err, ERR_IO, "cannot read the temporary file of tokens: %s", got ? strerror(errno) : "it was cut");
        p += got;
        from += got;
        left -= (size_t)got;
    }
    return true;
}

void token_store_close(struct token_store *s) {
    if (s->fd >= 0) close(s->fd);
    free(s->buffer);
    *s = (struct token_store){.fd = -1};
}
