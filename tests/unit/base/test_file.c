// SPDX-License-Identifier: MIT
// Files in a temporary directory; log lines through a pipe in stderr's place.
#include "tests/unit/test.h"

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static char *dir; // of the test that runs

static char *temp_dir_make(void) {
    char *path = path_join(getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp", "test-file-XXXXXX");
    if (!mkdtemp(path)) abort();
    return path;
}

// Removes the directory and what is in it; returns how many entries there were.
static int temp_dir_remove(char *path) {
    int n = 0;
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d));) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        char *name = path_join(path, e->d_name);
        if (unlink(name) < 0) rmdir(name);
        free(name);
        n++;
    }
    if (d) closedir(d);
    rmdir(path);
    free(path);
    return n;
}

TEST(write_map_read) {
    dir = temp_dir_make();
    char *path = path_join(dir, "x.bin");
    struct err err = {0};
    CHECK(!file_exists(path) && dir_exists(dir) && !file_exists(dir));
    CHECK(file_write_atomic(path, "one\0two", 7, 0600, &err));
    CHECK(file_write_atomic(path, "three", 5, 0640, &err));
    CHECK(file_exists(path) && !dir_exists(path));
    struct stat st;
    CHECK(stat(path, &st) == 0 && (st.st_mode & 0777) == 0640);
    struct file_map m = {0};
    CHECK(file_map_open(&m, path, &err));
    CHECK(m.len == 5 && memcmp(m.data, "three", 5) == 0);
    file_map_close(&m);
    file_map_close(&m);
    size_t len = 0;
    char *text = file_read(path, 5, &len, &err);
    REQUIRE(text != NULL);
    CHECK_INT(len, 5);
    CHECK_STR(text, "three");
    free(text);
    CHECK(file_read(path, 4, &len, &err) == NULL);
    CHECK_INT(err.code, ERR_TOO_LARGE);
    CHECK(file_write_atomic(path, NULL, 0, 0600, &err));
    CHECK(file_map_open(&m, path, &err) && m.len == 0 && m.data == NULL);
    text = file_read(path, 0, NULL, &err);
    CHECK(text && text[0] == 0);
    free(text);
    free(path);
    CHECK_INT(temp_dir_remove(dir), 1); // no temporary file is left
}

TEST(what_is_not_a_file_is_refused) {
    dir = temp_dir_make();
    char *missing = path_join(dir, "none"), *fifo = path_join(dir, "fifo"), *below = path_join(dir, "none/x");
    struct file_map m = {0};
    struct err err = {0};
    CHECK(mkfifo(fifo, 0600) == 0);
    CHECK(!file_map_open(&m, dir, &err) && strstr(err.message, "it is a directory"));
    CHECK(file_read(dir, 100, NULL, &err) == NULL && strstr(err.message, "it is a directory"));
    CHECK(!file_map_open(&m, fifo, &err) && strstr(err.message, "not a regular file")); // and does not hang
    CHECK(!file_map_open(&m, "/dev/null", &err));
    CHECK(!file_map_open(&m, missing, &err));
    CHECK_INT(err.code, ERR_NOT_FOUND);
    CHECK(file_read(missing, 100, NULL, &err) == NULL && err.code == ERR_NOT_FOUND);
    CHECK(!file_write_atomic(below, "x", 1, 0600, &err) && err.code == ERR_NOT_FOUND);
    CHECK(!file_write_atomic(dir, "x", 1, 0600, &err) && strstr(err.message, "it is a directory"));
    CHECK(!file_write_atomic(fifo, "x", 1, 0600, &err) && strstr(err.message, "not a regular file"));
    CHECK(!file_exists(fifo)); // it is the pipe still
    CHECK(m.data == NULL);
    free(missing), free(fifo), free(below);
    CHECK_INT(temp_dir_remove(dir), 1);
}

// A disk that fills up half way: the old file stays, nothing else does.
TEST(a_failed_write_leaves_the_old_file) {
    dir = temp_dir_make();
    char *path = path_join(dir, "x");
    struct err err = {0};
    struct rlimit old, small;
    CHECK(file_write_atomic(path, "old", 3, 0600, &err));
    getrlimit(RLIMIT_FSIZE, &old);
    small = old;
    small.rlim_cur = 1000;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    char *data = mem_alloc(5000, 1);
    CHECK(!file_write_atomic(path, data, 5000, 0600, &err));
    setrlimit(RLIMIT_FSIZE, &old);
    CHECK_INT(err.code, ERR_NO_SPACE);
    free(data);
    char *text = file_read(path, 100, NULL, &err);
    CHECK(text && strcmp(text, "old") == 0);
    free(text);
    free(path);
    CHECK_INT(temp_dir_remove(dir), 1);
}

// A pipe's length is unknown: growth, the limit, the exact limit.
TEST(streams_are_read_to_the_end) {
    int fds[2], saved = dup(STDIN_FILENO);
    struct err err = {0};
    for (size_t max_len = 9999; max_len <= 10001; max_len++) {
        if (pipe(fds) < 0) abort();
        for (int i = 0; i < 1000; i++) CHECK(write(fds[1], "0123456789", 10) == 10);
        close(fds[1]);
        dup2(fds[0], STDIN_FILENO);
        close(fds[0]);
        size_t len = 0;
        char *text = file_read("-", max_len, &len, &err);
        CHECK((text != NULL) == (max_len >= 10000));
        if (text) CHECK(len == 10000 && strlen(text) == 10000);
        free(text);
    }
    CHECK_STR(err.message, "standard input is longer than 9999 bytes");
    dup2(saved, STDIN_FILENO);
    close(saved);
}

static void check_stem(const char *path, const char *expected) {
    char *stem = path_stem(path);
    if (strcmp(stem, expected) != 0) TEST_FAIL("stem of %s is %s, expected %s", path, stem, expected);
    free(stem);
}

TEST(paths) {
    check_stem("a/b.gguf", "b");
    check_stem("a/dir/", "dir");
    check_stem("dir//", "dir");
    check_stem("SmolLM2-135M-Instruct.Q4_1.gguf", "SmolLM2-135M-Instruct.Q4_1");
    check_stem("models/llama-1.7B", "llama-1.7B");
    check_stem(".hidden", ".hidden");
    check_stem("a.b/c", "c");
    check_stem("name.", "name.");
    check_stem("/", "");
    check_stem("", "");
    char *joined = path_join("a/", "b"), *other = path_join("a", "b"), *bare = path_join("", "b");
    CHECK_STR(joined, "a/b");
    CHECK_STR(other, "a/b");
    CHECK_STR(bare, "b");
    free(joined), free(other), free(bare);
}

// What one log_line writes.
static void capture(char *out, size_t cap, void (*run)(void)) {
    int fds[2], saved = dup(STDERR_FILENO);
    if (pipe(fds) < 0 || dup2(fds[1], STDERR_FILENO) < 0) abort();
    run();
    dup2(saved, STDERR_FILENO);
    close(saved), close(fds[1]);
    ssize_t n = read(fds[0], out, cap - 1);
    out[n > 0 ? n : 0] = 0;
    close(fds[0]);
}

static void log_hostile(void) {
    log_line(LOG_INFO, "listening", "port", log_value("%d", 8080), "host", "a b\n\x1b[31m\"", "none", NULL, NULL);
}

static void log_debug(void) {
    log_line(LOG_DEBUG, "never", NULL);
}

TEST(log_lines) {
    char line[600];
    log_configure(LOG_INFO, false);
    capture(line, sizeof line, log_debug);
    CHECK_STR(line, "");
    capture(line, sizeof line, log_hostile);
    CHECK(strlen(line) > 25);
    CHECK_STR(line + 24, " info  listening port=8080 host=\"a b\\n\\u001b[31m\\\"\" none=\"\"\n");
    log_configure(LOG_INFO, true);
    capture(line, sizeof line, log_hostile);
    struct json j;
    struct err err = {0};
    json_init(&j, line, strlen(line));
    CHECK(json_skip(&j, &err) && json_finish(&j, &err));
    CHECK(strstr(line,
                 "\"level\":\"info\",\"event\":\"listening\",\"port\":\"8080\",\"host\":"
                 "\"a b\\n\\u001b[31m\\\"\",\"none\":null}\n") != NULL);
    enum log_level level = LOG_ERROR;
    CHECK(log_level_parse("debug", &level) && level == LOG_DEBUG);
    CHECK(!log_level_parse("verbose", &level) && level == LOG_DEBUG);
    CHECK_INT(strlen(log_value("%500s", "x")), 255);
}

TEST(writer_appears_whole_or_not_at_all) {
    char *top = temp_dir_make();
    char *sub = path_join(top, "a/b"), *path = path_join(sub, "x");
    struct err err = {0};
    REQUIRE(dir_make(sub, &err) && dir_make(sub, &err));
    struct file_writer w = {0};
    REQUIRE(file_writer_open(&w, path, 0644, &err));
    char block[50000];
    memset(block, 'x', sizeof block);
    for (int i = 0; i < 5; i++) file_writer_add(&w, block, sizeof block);
    CHECK(!file_exists(path));
    REQUIRE(file_writer_finish(&w, &err));
    size_t len = 0;
    char *back = file_read(path, 1 << 20, &len, &err);
    CHECK_INT(len, 250000);
    free(back);
    REQUIRE(file_writer_open(&w, path, 0644, &err));
    file_writer_add(&w, "short", 5);
    file_writer_abort(&w);
    back = file_read(path, 1 << 20, &len, &err);
    CHECK_INT(len, 250000);
    free(back);
    CHECK(dir_remove(top, &err) && !dir_exists(top) && dir_remove(top, &err));
    free(path);
    free(sub);
    free(top);
}

TEST_MAIN("file")
