// SPDX-License-Identifier: MIT
// The whole unit-test framework. One executable a file: `TEST(name) { CHECK(...); }` anywhere, `TEST_MAIN("suite")` once.
// Run without arguments: every test; with names: those; `--list` prints them. A failing check prints both values and
// goes on; the last line is `suite: N passed, N failed`.
#pragma once

#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct test {
    const char *name;
    void (*run)(void);
    struct test *next;
};
static struct test *test_first, **test_last = &test_first;
static int test_failures; // in the test that runs

#define TEST(n)                                                                   \
    static void test_##n(void);                                                   \
    static struct test test_entry_##n = {#n, test_##n, NULL};                     \
    __attribute__((constructor)) static void test_register_##n(void) {            \
        *test_last = &test_entry_##n;                                             \
        test_last = &test_entry_##n.next;                                         \
    }                                                                             \
    static void test_##n(void)

#define TEST_FAIL(...) \
    (test_failures++, fprintf(stderr, "%s:%d: ", __FILE__, __LINE__), fprintf(stderr, __VA_ARGS__), fputc('\n', stderr))
#define CHECK(c) ((c) ? (void)0 : (void)TEST_FAIL("CHECK(%s)", #c))
#define CHECK_INT(a, b)                                                                                     \
    do {                                                                                                    \
        long long a_ = (long long)(a), b_ = (long long)(b);                                                 \
        if (a_ != b_) TEST_FAIL("%s = %lld, expected %s = %lld", #a, a_, #b, b_);                           \
    } while (0)
#define CHECK_STR(a, b)                                                                                     \
    do {                                                                                                    \
        const char *a_ = (a), *b_ = (b);                                                                    \
        if (strcmp(a_, b_) != 0) TEST_FAIL("%s = \"%s\", expected \"%s\"", #a, a_, b_);                     \
    } while (0)
#define CHECK_NEAR(a, b, tol)                                                                               \
    do {                                                                                                    \
        double a_ = (a), b_ = (b), t_ = (tol);                                                              \
        if (!(fabs(a_ - b_) <= t_)) TEST_FAIL("%s = %.9g, expected %.9g +- %g", #a, a_, b_, t_);            \
    } while (0)
// For checks whose failure makes the rest of the test meaningless.
#define REQUIRE(c)                                \
    do {                                          \
        if (!(c)) {                               \
            TEST_FAIL("REQUIRE(%s)", #c);         \
            return;                               \
        }                                         \
    } while (0)

static inline int test_main(const char *suite, int argc, char **argv) {
    int passed = 0, failed = 0;
    for (struct test *t = test_first; t; t = t->next) {
        bool wanted = argc < 2;
        for (int i = 1; i < argc; i++) wanted |= strcmp(argv[i], t->name) == 0;
        if (argc == 2 && strcmp(argv[1], "--list") == 0) {
            puts(t->name);
            continue;
        }
        if (!wanted) continue;
        test_failures = 0;
        t->run();
        if (test_failures) fprintf(stderr, "FAILED %s\n", t->name);
        if (test_failures) failed++;
        else passed++;
    }
    if (argc == 2 && strcmp(argv[1], "--list") == 0) return 0;
    printf("%s: %d passed, %d failed\n", suite, passed, failed);
    return failed || !passed;
}
#define TEST_MAIN(suite) \
    int main(int argc, char **argv) { return test_main(suite, argc, argv); }
