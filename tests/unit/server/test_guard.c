// SPDX-License-Identifier: MIT
// Which Host and Origin are ours; which route a path finds; what an error becomes.
#include "server/http_internal.h"
#include "server/routes.h"
#include "tests/unit/test.h"

static char loopback[] = "127.0.0.1", v6[] = "fd00::1", wild[] = "0.0.0.0", wild6[] = "::", name[] = "llm.example";
static char *names[] = {name};

TEST(hosts) {
    const struct config c = {.bound_host = loopback, .public_host = {names, 1}};
    static const char *const yes[] = {"localhost", "LocalHost:1", "127.0.0.1", "127.0.0.1:65535", "[::1]", "[::1]:80", "llm.example", "LLM.EXAMPLE:443"};
    static const char *const no[] = {"", ":", ":80", "evil", "localhost.", "localhost.evil", "evil.localhost", "127.0.0.1.evil", "127.0.0.2", "::1", "[::1", "[::1]]",
                                     "[::1]80", "localhost:", "localhost:8a", "localhost:123456", "localhost :80", "localhost/", "a@localhost", "[]", "[", "llm.example.",
                                     "xllm.example", "llm.examplex", "127.0.0.1:80:80", "[::ffff:127.0.0.1]", "0.0.0.0"};
    for (size_t i = 0; i < ARRAY_LEN(yes); i++)
        if (!host_allowed(&c, yes[i])) TEST_FAIL("refused %s", yes[i]);
    for (size_t i = 0; i < ARRAY_LEN(no); i++)
        if (host_allowed(&c, no[i])) TEST_FAIL("allowed %s", no[i]);
}

TEST(bound_address_is_a_host_but_the_wildcard_is_not) {
    const struct config six = {.bound_host = v6}, any = {.bound_host = wild}, any6 = {.bound_host = wild6};
    CHECK(host_allowed(&six, "[fd00::1]:8080") && !host_allowed(&six, "fd00::1"));
    CHECK(!host_allowed(&any, "0.0.0.0") && !host_allowed(&any6, "[::]") && host_allowed(&any, "localhost"));
}

TEST(origins) {
    const struct config c = {.bound_host = loopback, .public_host = {names, 1}};
    static const char *const yes[] = {"http://localhost", "https://localhost:3000", "HTTP://127.0.0.1:8080", "http://[::1]:1", "https://llm.example"};
    static const char *const no[] = {"", "null", "localhost", "http:/localhost", "http://", "https://evil.example", "http://localhost.evil.example", "http://localhost/",
                                     "http://localhost#", "http://localhost?x", "http://user@localhost", "ws://localhost", "file://localhost", " http://localhost"};
    for (size_t i = 0; i < ARRAY_LEN(yes); i++)
        if (!origin_allowed(&c, yes[i])) TEST_FAIL("refused %s", yes[i]);
    for (size_t i = 0; i < ARRAY_LEN(no); i++)
        if (origin_allowed(&c, no[i])) TEST_FAIL("allowed %s", no[i]);
}

TEST(routes) {
    bool known;
    char allow[64];
    const struct http_route *r = route_find("GET", "/health", &known, allow, sizeof allow);
    CHECK(r && known && strcmp(r->path, "/health") == 0);
    CHECK(route_find("HEAD", "/health", &known, allow, sizeof allow) == r);
    CHECK(!route_find("POST", "/health", &known, allow, sizeof allow) && known);
    CHECK_STR(allow, "GET, HEAD");
    CHECK(!route_find("get", "/health", &known, allow, sizeof allow));
    static const char *const absent[] = {"", "/health/", "/Health", "//health", "/v1", "/v1/", "health", "/v1/models/"};
    for (size_t i = 0; i < ARRAY_LEN(absent); i++)
        if (route_find("GET", absent[i], &known, NULL, 0) || known) TEST_FAIL("found %s", absent[i]);
}

TEST(patterns) {
    static const struct {
        const char *pattern, *path, *tail; // tail NULL: the pattern has none
    } cases[] = {{"/a/{id}", "/a/x", "x"}, {"/a/{id}/c", "/a/x-1/c", "x-1"}, {"/a/*", "/a/x/y", "x/y"}, {"/a", "/a", NULL}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const struct http_route route = {"GET", cases[i].pattern};
        size_t len = 0;
        const char *tail = route_tail(&route, cases[i].path, &len);
        CHECK(cases[i].tail ? tail && len == strlen(cases[i].tail) && memcmp(tail, cases[i].tail, len) == 0 : !tail);
    }
}

// No two routes may answer the same request, and every path is absolute.
TEST(route_tables_are_sound) {
    for (size_t t = 0; route_tables[t]; t++) {
        for (const struct http_route *a = route_tables[t]; a->path; a++) {
            CHECK(a->path[0] == '/' && a->method && a->start && a->summary);
            for (size_t u = 0; route_tables[u]; u++)
                for (const struct http_route *b = route_tables[u]; b->path; b++)
                    if (a != b && strcmp(a->path, b->path) == 0 && strcmp(a->method, b->method) == 0) TEST_FAIL("twice: %s %s", a->method, a->path);
        }
    }
}

TEST(errors_become_http) {
    struct server s = {.state = SERVER_READY};
    static const struct {
        enum err_code code;
        int forced, status;
        const char *type, *name;
    } cases[] = {
        {ERR_INVALID, 0, 400, "invalid_request_error", "invalid_request"}, {ERR_INVALID, 404, 404, "invalid_request_error", "not_found"},
        {ERR_BUSY, 429, 429, "rate_limit_error", "rate_limit_exceeded"},   {ERR_BUSY, 0, 503, "server_error", "overloaded"},
        {ERR_IO, 0, 500, "server_error", "internal_error"},                {ERR_NO_MEMORY, 0, 503, "server_error", "insufficient_memory"},
        {ERR_TOO_LARGE, 413, 413, "invalid_request_error", "payload_too_large"}, {ERR_INVALID, 403, 403, "permission_error", "forbidden"},
        {ERR_INVALID, 409, 409, "conflict_error", "conflict"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct http_request r = {.server = &s, .err = {.code = cases[i].code}, .err_status = cases[i].forced};
        struct api_error e = api_error_of(&r);
        CHECK_INT(e.status, cases[i].status);
        CHECK_STR(e.type, cases[i].type);
        CHECK_STR(e.code, cases[i].name);
    }
    struct buf out = {0};
    api_error_write(&out, &(struct api_error){500, "server_error", "internal_error"}, "/etc/secret at 0x7f", "");
    CHECK_STR(out.data, "{\"error\":{\"message\":\"The server failed to answer this request.\",\"type\":\"server_error\",\"param\":null,\"code\":\"internal_error\"}}");
    buf_finish(&out);
}

TEST(histograms_are_cumulative) {
    static struct metrics m;
    metrics_observe(&m, METRIC_LOOP_LAG, 0.0005); // a bound is inside its bucket
    metrics_observe(&m, METRIC_LOOP_LAG, 0.0006);
    metrics_observe(&m, METRIC_LOOP_LAG, 1e9);
    metrics_count_http(&m, "/a", "GET", 200);
    metrics_count_http(&m, "/a", "GET", 200);
    struct server *s = mem_new(struct server);
    s->metrics = m;
    struct buf out = {0};
    metrics_write(s, &out);
    CHECK(strstr(out.data, "couplet:loop_lag_seconds_bucket{le=\"0.0005\"} 1\n") != NULL);
    CHECK(strstr(out.data, "couplet:loop_lag_seconds_bucket{le=\"0.001\"} 2\n") != NULL);
    CHECK(strstr(out.data, "couplet:loop_lag_seconds_bucket{le=\"2.5\"} 2\n") != NULL);
    CHECK(strstr(out.data, "couplet:loop_lag_seconds_bucket{le=\"+Inf\"} 3\n") != NULL);
    buf_finish(&out);
    metrics_finish(&s->metrics);
    free(s);
}

TEST_MAIN("guard")
