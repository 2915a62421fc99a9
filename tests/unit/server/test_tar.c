// SPDX-License-Identifier: MIT
// Archives there and back, in pieces of every size, and those that somebody made to do harm.
#include "server/tar.h"

#include "base/mem.h"

#include "tests/unit/test.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static char root[64];

static char *below(const char *name) { return path_join(root, name); }

static void begin(void) {
    strcpy(root, "/tmp/couplet-tar-XXXXXX");
    CHECK(mkdtemp(root) != NULL);
    char *in = below("in"), *out = below("out");
    CHECK(mkdir(in, 0700) == 0 && mkdir(out, 0700) == 0);
    free(in);
    free(out);
}

static void end(void) { CHECK(dir_remove(root, NULL)); }

static bool extract(const char *archive, size_t len, size_t piece, struct err *err) {
    char *out = below("out");
    struct tar_reader t = {.dir = out};
    bool ok = true;
    for (size_t at = 0; ok && at < len; at += piece) ok = tar_reader_add(&t, archive + at, MIN(piece, len - at), err);
    struct err late = {0};
    const bool whole = tar_reader_finish(&t, &late);
    if (ok && !whole) *err = late;
    free(out);
    return ok && whole;
}

TEST(there_and_back) {
    static const size_t pieces[] = {1, 7, 511, 512, 513, 4096, 1 << 20};
    static const size_t sizes[] = {0, 1, 511, 512, 513, 70000};
    char data[70000];
    for (size_t i = 0; i < sizeof data; i++) data[i] = (char)(i * 7 + i / 251);
    for (size_t p = 0; p < ARRAY_LEN(pieces); p++) {
        struct err err = {0};
        size_t len;
        begin();
        for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
            char name[32];
            snprintf(name, sizeof name, "in/file-%zu.bin", sizes[i]);
            char *path = below(name);
            CHECK(file_write_atomic(path, data, sizes[i], 0600, &err));
            free(path);
        }
        char *in = below("in"), *archive = below("archive.tar");
        const int fd = open(archive, O_RDWR | O_CREAT, 0600);
        CHECK(tar_write(fd, in, "model", &err));
        close(fd);
        char *bytes = file_read(archive, 1 << 20, &len, &err);
        CHECK(bytes && len % 512 == 0);
        if (!extract(bytes, len, pieces[p], &err)) TEST_FAIL("pieces of %zu: %s", pieces[p], err.message);
        for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
            char name[32];
            size_t n = 1;
            snprintf(name, sizeof name, "out/file-%zu.bin", sizes[i]);
            char *path = below(name), *back = file_read(path, 1 << 20, &n, &err);
            CHECK(back && n == sizes[i] && memcmp(back, data, n) == 0);
            free(back);
            free(path);
        }
        free(bytes);
        free(in);
        free(archive);
        end();
    }
}

// A header as tar programs write it, and a body of `size` bytes.
static void entry_add(struct buf *b, const char *name, char type, size_t size) {
    char h[512] = {0};
    unsigned sum = 0;
    snprintf(h, 100, "%s", name);
    snprintf(h + 100, 8, "0000644");
    snprintf(h + 124, 12, "%011o", (unsigned)size);
    h[156] = type;
    memcpy(h + 257, "ustar\0" "00", 8);
    memset(h + 148, ' ', 8);
    for (size_t i = 0; i < sizeof h; i++) sum += (unsigned char)h[i];
    snprintf(h + 148, 8, "%06o", sum);
    buf_add(b, h, sizeof h);
    for (size_t i = 0; i < (size + 511) / 512 * 512; i++) buf_add_byte(b, 'x');
}

static void check_refused(struct buf *b, const char *why) {
    struct err err = {0};
    static const char zeros[1024];
    buf_add(b, zeros, sizeof zeros);
    begin();
    if (extract(b->data, b->len, 100, &err)) TEST_FAIL("accepted; expected: %s", why);
    if (!strstr(err.message, why)) TEST_FAIL("\"%s\", expected \"%s\"", err.message, why);
    char *outside = below("evil"), *inside = below("out/evil");
    CHECK(!file_exists(outside) && !file_exists(inside) && !file_exists("/tmp/couplet-evil"));
    free(outside);
    free(inside);
    end();
    buf_finish(b);
}

TEST(hostile_names) {
    static const char *const names[] = {"../evil", "/tmp/couplet-evil", "model/../evil", "model/../../evil", "..", "../..", "model/..", "model/.", "./evil", "evil",
                                        "model/sub/evil", "model//evil", "model/", "/evil", "", ".model/evil", "model/.evil", "model/a\\..\\evil", "model/e\nvil"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct buf b = {0};
        entry_add(&b, names[i], '0', 5);
        check_refused(&b, "is refused");
    }
}

TEST(other_than_files) {
    static const char types[] = {'1', '2', '3', '4', '5', '6', 'x', 'g', 'L'};
    for (size_t i = 0; i < sizeof types; i++) {
        struct buf b = {0};
        entry_add(&b, "model/evil", types[i], 0);
        check_refused(&b, "is refused");
    }
    struct buf b = {0};
    entry_add(&b, "model/a", '0', 1);
    entry_add(&b, "model/a", '0', 1);
    check_refused(&b, "twice");
}

TEST(damaged) {
    struct buf b = {0};
    check_refused(&b, "empty");
    entry_add(&b, "model/evil", '0', 5);
    b.data[130] ^= 1; // the size
    check_refused(&b, "damaged");
    entry_add(&b, "model/evil", '0', 1 << 16);
    b.len = 5000; // ends inside, then zeros
    check_refused(&b, "cut off");
    buf_add(&b, "<html>no archive</html>", 23);
    for (size_t i = 0; i < 600; i++) buf_add_byte(&b, ' ');
    check_refused(&b, "damaged");
}

TEST_MAIN("tar")
