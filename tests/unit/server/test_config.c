// SPDX-License-Identifier: MIT
// The configuration table: order of the sources, messages, the printed file.
#include "server/config.h"
#include "tests/unit/test.h"

#include <unistd.h>

static struct config config;
static struct err err;
static enum config_action action;

static bool load(const char *file_text, const char *arg1, const char *arg2) {
    char path[] = "/tmp/couplet-config-XXXXXX";
    int fd = mkstemp(path);
    if (fd < 0 || write(fd, file_text, strlen(file_text)) < 0) abort();
    close(fd);
    char name[] = "serve", c[] = "-c", a[64], b[64];
    snprintf(a, sizeof a, "%s", arg1 ? arg1 : "");
    snprintf(b, sizeof b, "%s", arg2 ? arg2 : "");
    char *argv[] = {name, c, path, a, b, NULL};
    err = (struct err){0};
    bool ok = config_load(&config, 3 + (arg1 != NULL) + (arg2 != NULL), argv, &action, &err);
    unlink(path);
    return ok;
}

TEST(defaults) {
    REQUIRE(load("", NULL, NULL));
    CHECK_STR(config.host, "127.0.0.1");
    CHECK_INT(config.port, 8080);
    CHECK_INT(config.max_running, 32);
    CHECK_INT(config.max_waiting, 256);
    CHECK_INT(config.drain_seconds, 30);
    CHECK_INT(config.max_body_bytes, 2 << 20);
    CHECK_INT(config.model.n, 0);
    CHECK(action == CONFIG_SERVE);
    config_finish(&config);
}

TEST(file_then_environment_then_flag) {
    setenv("COUPLET_PORT", "2", 1);
    setenv("COUPLET_THREADS", "2", 1);
    setenv("COUPLET_MODEL", "a=x, b=y", 1);
    bool ok = load("port = 1\nthreads = 1\nmax_running = 1\nmodel = z\n", "--port", "3");
    unsetenv("COUPLET_PORT");
    unsetenv("COUPLET_THREADS");
    unsetenv("COUPLET_MODEL");
    REQUIRE(ok);
    CHECK_INT(config.port, 3);
    CHECK_INT(config.threads, 2);
    CHECK_INT(config.max_running, 1);
    CHECK_INT(config.model.n, 2);
    CHECK_STR(config.model.items[0], "a=x");
    CHECK_STR(config.model.items[1], "b=y");
    config_finish(&config);
}

TEST(white_space_comments_and_equals_signs) {
    REQUIRE(load("\n  # c\n\t port=5 \r\nmodel = n=p=q \nmodel = r\n", NULL, NULL));
    CHECK_INT(config.port, 5);
    CHECK_INT(config.model.n, 2);
    CHECK_STR(config.model.items[0], "n=p=q");
    config_finish(&config);
}

TEST(mistakes_name_line_and_key) {
    static const struct {
        const char *text, *said;
    } cases[] = {
        {"port = 65536", ":1: port must be between 0 and 65535"}, {"\n\nport = x", ":3: port takes a whole number"},
        {"port", ":1: expected 'key = value'"},                   {"prot = 1", ":1: unknown key 'prot'"},
        {"port = 1\nport = 1", ":2: port is set twice"},          {"weights = q7", ":1: weights must be one of auto|f32|q8"},
        {"threads = -1", ":1: threads takes a whole number"},     {"host =", ":1: host needs a value"},
        {"max_running = 0", ":1: max_running must be between"},   {"port = 99999999999999999999", ":1: port takes"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        CHECK(!load(cases[i].text, NULL, NULL));
        if (!strstr(err.message, cases[i].said)) TEST_FAIL("\"%s\" lacks \"%s\"", err.message, cases[i].said);
    }
    CHECK(!load("", "--nonsense", NULL));
    CHECK(!load("", "--port", "-1"));
    CHECK(strstr(err.message, "--port") != NULL);
    setenv("COUPLET_PORT", "many", 1);
    CHECK(!load("", NULL, NULL));
    CHECK(strstr(err.message, "COUPLET_PORT") != NULL);
    unsetenv("COUPLET_PORT");
}

TEST(random_files_never_crash) {
    unsigned seed = 1;
    static const char alphabet[] = "port=model#\n\r\t 019-_.,/\"\\\x7f\xc3";
    for (int round = 0; round < 3000; round++) {
        char text[80];
        size_t n = (size_t)rand_r(&seed) % (sizeof text - 1);
        for (size_t i = 0; i < n; i++) text[i] = alphabet[(size_t)rand_r(&seed) % (sizeof alphabet - 1)];
        text[n] = 0;
        if (load(text, NULL, NULL)) config_finish(&config);
        else if (!err.message[0]) TEST_FAIL("no message for %s", text);
    }
}

TEST(printed_file_reads_back) {
    REQUIRE(load("model = a=b\nport = 7\nlog_format = json\nweights = f32\npublic_host = x\n", NULL, NULL));
    char *text = NULL, *again = NULL;
    size_t n;
    FILE *out = open_memstream(&text, &n);
    config_print(&config, out);
    fclose(out);
    config_finish(&config);
    REQUIRE(load(text, NULL, NULL));
    out = open_memstream(&again, &n);
    config_print(&config, out);
    fclose(out);
    CHECK_STR(text, again);
    free(text);
    free(again);
    config_finish(&config);
}

TEST(every_key_is_printed_and_helped) {
    REQUIRE(load("", NULL, NULL));
    char *text = NULL;
    size_t n;
    FILE *out = open_memstream(&text, &n);
    config_print(&config, out);
    fclose(out);
    const char *key, *initial, *help;
    for (size_t i = 0; config_key_at(i, &key, &initial, &help); i++) {
        CHECK(strstr(text, key) != NULL);
        CHECK(help[0] != 0);
    }
    free(text);
    config_finish(&config);
}

TEST(loopback) {
    static const char *const yes[] = {"127.0.0.1", "127.1.2.3", "::1", "localhost"}, *const no[] = {"0.0.0.0", "::", "10.0.0.1", "1270.0.0.1", "localhost.", ""};
    for (size_t i = 0; i < sizeof yes / sizeof yes[0]; i++) CHECK(config_host_is_loopback(yes[i]));
    for (size_t i = 0; i < sizeof no / sizeof no[0]; i++) CHECK(!config_host_is_loopback(no[i]));
}

TEST_MAIN("config")
