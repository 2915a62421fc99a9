// SPDX-License-Identifier: MIT
// The HTTP core alone, with routes of this file and clients on threads of their own: is `end` called once, never beside work, and with
// the right `gone`? Made for the sanitizers as much as for its checks.
#include "server/http_internal.h"
#include "server/routes.h"
#include "tests/unit/test.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

static struct server server;
static uv_loop_t loop;
static int n_started, n_ended, n_gone, n_worked;
static _Atomic(const void *) in_work; // the request that a worker has, last
static uv_sem_t work_entered, work_may_go;
static struct http_request *waiting;

struct mark {
    int ends;
    char text[32];
};

static bool echo_work(struct http_request *r) {
    struct mark *m = arena_alloc(&r->arena, 1, sizeof *m);
    snprintf(m->text, sizeof m->text, "%zu", r->body_len);
    r->state = m;
    return r->body_len != 7 || err_set_param(&r->err, ERR_INVALID, "body", "seven is refused");
}
static void echo_start(struct http_request *r) {
    struct buf body = {0};
    n_started++;
    buf_add_str(&body, ((struct mark *)r->state)->text);
    http_reply(r, 200, "text/plain", &body);
}
static bool slow_work(struct http_request *r) {
    in_work = r;
    uv_sem_post(&work_entered);
    uv_sem_wait(&work_may_go);
    in_work = NULL;
    return echo_work(r);
}
static void wait_start(struct http_request *r) {
    n_started++;
    waiting = r;
}
static void stream_start(struct http_request *r) {
    n_started++;
    http_stream_open(r);
    for (int i = 0; i < 2000; i++) http_stream_send(r, "data: 0123456789\n\n", 18);
    http_stream_close(r);
}
static void flood_start(struct http_request *r) {
    static char block[65536];
    n_started++;
    http_stream_open(r);
    for (size_t n = 0; n < 2 * HTTP_STREAM_CAP_BYTES; n += sizeof block) http_stream_send(r, block, sizeof block);
}
static void twice_start(struct http_request *r) {
    n_started++;
    http_more_work(r, slow_work, echo_start);
}
static void slowly_start(struct http_request *r) {
    n_started++;
    http_slow_work(r, slow_work, echo_start);
}
static void tool_start(struct http_request *r) {
    n_started++;
    http_tool_work(r, slow_work, echo_start);
}
// Looks until it is told that nobody waits any more.
static _Atomic bool look_ended;
static bool look_work(struct http_request *r) {
    in_work = r;
    while (!http_cancelled(r)) uv_sleep(1);
    in_work = NULL;
    look_ended = true;
    return err_set(&r->err, ERR_BUSY, "given up");
}
static void look_start(struct http_request *r) {
    n_started++;
    if (http_look_work(r, look_work, echo_start)) return;
    err_set(&r->err, ERR_BUSY, "full");
    http_reply_error(r);
}

// A sink that adds up bytes; it refuses a first byte of '!' at once, one of '?' on the pool.
static _Atomic size_t sink_bytes, sink_pieces, sink_most;
static bool in_piece;
static size_t sink_max(const struct http_request *r) { return 40 << 20; }
static bool sink_begin(struct http_request *r, uint64_t content_length) {
    r->state = arena_alloc(&r->arena, 1, sizeof(struct mark));
    n_worked++;
    return !http_header(r, "X-Refuse") || err_set_param(&r->err, ERR_INVALID, "file", "refused at once");
}
static bool sink_data(struct http_request *r, const char *p, size_t n) {
    if (in_piece) TEST_FAIL("two pieces at a time");
    in_piece = true;
    in_work = r;
    sink_bytes += n;
    sink_pieces++;
    if (n > sink_most) sink_most = n;
    bool ok = p[0] != '?';
    if (p[0] == '#') {
        uv_sem_post(&work_entered);
        uv_sem_wait(&work_may_go);
    }
    in_piece = false;
    in_work = NULL;
    return ok || err_set_param(&r->err, ERR_INVALID, "file", "refused on the pool");
}
static const struct http_sink test_sink = {"multipart/form-data", sink_max, sink_begin, sink_data};
static void sink_start(struct http_request *r) {
    struct buf body = {0};
    buf_printf(&body, "%zu", sink_bytes);
    http_reply(r, 200, "text/plain", &body);
}

static void count_end(struct http_request *r) {
    struct mark *m = r->state;
    n_ended++;
    n_gone += r->gone;
    if (m && m->ends++) TEST_FAIL("end twice");
    if (in_work == r) TEST_FAIL("end beside work");
    if (waiting == r) waiting = NULL;
}

static const struct http_route test_routes[] = {
    {"POST", "/echo", SCOPE_PUBLIC, echo_work, echo_start, count_end, "answers the body's length"},
    {"POST", "/slow", SCOPE_PUBLIC, slow_work, echo_start, count_end, "the same, when let go"},
    {"POST", "/twice", SCOPE_PUBLIC, echo_work, twice_start, count_end, "goes to the pool again"},
    {"POST", "/tool", SCOPE_PUBLIC, echo_work, tool_start, count_end, "goes to the tools' lane"},
    {"POST", "/look", SCOPE_PUBLIC, echo_work, look_start, count_end, "goes to the looks' lane"},
    {"POST", "/slowly", SCOPE_PUBLIC, echo_work, slowly_start, count_end, "goes to the slow lane"},
    {"POST", "/sink/{id}", SCOPE_PUBLIC, NULL, sink_start, count_end, "adds up what it is sent", &test_sink},
    {"GET", "/wait", SCOPE_PUBLIC, NULL, wait_start, count_end, "never answers by itself"},
    {"GET", "/stream", SCOPE_PUBLIC, NULL, stream_start, count_end, "2000 events at once"},
    {"GET", "/flood", SCOPE_PUBLIC, NULL, flood_start, count_end, "more than may wait"},
    {0},
};
const struct http_route *const route_tables[] = {test_routes, NULL};
// ---- a client on its own thread ----

struct client {
    const char *request;
    char fill; // with fill_len: what follows the request
    size_t fill_len;
    bool leave; // closes after sending, when `left_after` is posted
    uv_sem_t *left_after;
    char *answer;
    size_t n;
    _Atomic bool done;
    pthread_t thread;
};

static void *client_main(void *arg) {
    struct client *c = arg;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)server.http->port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) != 0 || send(fd, c->request, strlen(c->request), MSG_NOSIGNAL) < 0) abort();
    static const size_t step = 100000;
    char *fill = c->fill_len ? mem_alloc(1, step) : NULL;
    if (fill) memset(fill, c->fill, step);
    for (size_t left = c->fill_len; left;) { // until the server wants no more
        ssize_t n = send(fd, fill, MIN(left, step), MSG_NOSIGNAL);
        if (n < 0) break;
        left -= (size_t)n;
    }
    free(fill);
    if (c->leave) {
        if (c->left_after) uv_sem_wait(c->left_after);
    } else {
        size_t cap = 1 << 20;
        ssize_t n;
        c->answer = mem_alloc(1, cap);
        while (c->n < cap - 1 && (n = recv(fd, c->answer + c->n, cap - 1 - c->n, 0)) > 0) c->n += (size_t)n;
    }
    close(fd);
    c->done = true;
    return NULL;
}

static void client_start(struct client *c) {
    if (pthread_create(&c->thread, NULL, client_main, c) != 0) abort();
}
static void client_finish(struct client *c) {
    pthread_join(c->thread, NULL);
    free(c->answer);
}

// Runs the loop until `condition`; at most 20 s.
static void on_tick(uv_timer_t *t) {}
#define RUN_UNTIL(condition)                                                                       \
    do {                                                                                           \
        uint64_t end_ = uv_hrtime() + UINT64_C(20000000000);                                       \
        while (!(condition) && uv_hrtime() < end_) uv_run(&loop, UV_RUN_ONCE);                     \
        if (!(condition)) TEST_FAIL("never: %s", #condition);                                      \
    } while (0)

static uv_timer_t ticker;

static void set_up(void) {
    char name[] = "serve", port[] = "--port=0", stall[] = "--stall-seconds=2";
    char *argv[] = {name, port, stall, NULL};
    enum config_action action;
    struct err err = {0};
    memset(&server, 0, sizeof server);
    n_started = n_ended = n_gone = n_worked = 0;
    sink_bytes = sink_pieces = sink_most = 0;
    in_work = NULL;
    if (!config_load(&server.config, 3, argv, &action, &err)) abort();
    server.state = SERVER_READY;
    uv_loop_init(&loop);
    uv_sem_init(&work_entered, 0);
    uv_sem_init(&work_may_go, 0);
    uv_timer_init(&loop, &ticker);
    uv_timer_start(&ticker, on_tick, 5, 5); // so that RUN_UNTIL looks again
    server.http = http_create(&server, &loop, &err);
    if (!server.http) abort();
}

static void tear_down(void) {
    server.state = SERVER_DRAINING;
    http_quiesce(server.http);
    RUN_UNTIL(http_idle(server.http) && server.http->n_lingering == 0);
    http_destroy(server.http);
    uv_close((uv_handle_t *)&ticker, NULL);
    while (uv_run(&loop, UV_RUN_DEFAULT)) {}
    CHECK_INT(uv_loop_close(&loop), 0);
    CHECK_INT(n_ended, n_started + n_worked);
    config_finish(&server.config);
    metrics_finish(&server.metrics);
    uv_sem_destroy(&work_entered);
    uv_sem_destroy(&work_may_go);
}

#define POST(path, n, body) \
    "POST " path " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: " n "\r\n\r\n" body
#define GET(path) "GET " path " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

TEST(answers) {
    set_up();
    struct client c = {.request = POST("/echo", "5", "01234")};
    client_start(&c);
    RUN_UNTIL(c.done);
    CHECK(strstr(c.answer, "HTTP/1.1 200") == c.answer && strcmp(strstr(c.answer, "\r\n\r\n") + 4, "5") == 0);
    client_finish(&c);
    RUN_UNTIL(n_ended == 1);
    CHECK_INT(n_gone, 0);
    tear_down();
}

TEST(failed_work_is_answered_and_ended) {
    set_up();
    struct client c = {.request = POST("/echo", "7", "0123456")};
    client_start(&c);
    RUN_UNTIL(c.done);
    CHECK(strstr(c.answer, "HTTP/1.1 400") == c.answer && strstr(c.answer, "\"param\":\"body\"") != NULL);
    client_finish(&c);
    RUN_UNTIL(n_ended == 1);
    n_worked = 1; // start was skipped, end was not
    tear_down();
}

TEST(leaving_during_work) {
    set_up();
    struct client c = {.request = POST("/slow", "1", "x"), .leave = true, .left_after = &work_entered};
    client_start(&c);
    RUN_UNTIL(c.done);
    RUN_UNTIL(server.http->n_requests == 0); // libmicrohttpd is done with it while work still runs
    CHECK_INT(n_ended, 0);
    CHECK_INT(server.http->n_working, 1);
    uv_sem_post(&work_may_go);
    RUN_UNTIL(n_ended == 1);
    CHECK_INT(n_started, 0);
    CHECK_INT(n_gone, 1);
    client_finish(&c);
    n_worked = 1;
    tear_down();
}

TEST(leaving_while_waiting_is_noticed_at_once) {
    set_up();
    uv_sem_t leave;
    uv_sem_init(&leave, 0);
    struct client c = {.request = GET("/wait"), .leave = true, .left_after = &leave};
    client_start(&c);
    RUN_UNTIL(waiting);
    uint64_t begin = uv_hrtime();
    uv_sem_post(&leave);
    RUN_UNTIL(n_ended == 1);
    double ms = (double)(uv_hrtime() - begin) / 1e6;
    if (ms > 500) TEST_FAIL("noticed after %.1f ms", ms);
    CHECK_INT(n_gone, 1);
    client_finish(&c);
    uv_sem_destroy(&leave);
    tear_down();
}

TEST(late_answer) {
    set_up();
    struct client c = {.request = GET("/wait")};
    client_start(&c);
    RUN_UNTIL(waiting);
    struct buf body = {0};
    buf_add_str(&body, "{}");
    http_reply_json(waiting, 200, &body);
    RUN_UNTIL(c.done);
    CHECK(strstr(c.answer, "HTTP/1.1 200") == c.answer);
    client_finish(&c);
    RUN_UNTIL(n_ended == 1);
    tear_down();
}

TEST(stream_arrives_whole) {
    set_up();
    struct client c = {.request = GET("/stream")};
    client_start(&c);
    RUN_UNTIL(c.done);
    size_t events = 0;
    for (const char *at = c.answer; (at = strstr(at, "0123456789")); at++) events++;
    CHECK(events >= 1990); // a chunk's end may cut a few in the raw bytes
    CHECK(c.n > 36000 && strcmp(c.answer + c.n - 5, "0\r\n\r\n") == 0);
    client_finish(&c);
    RUN_UNTIL(n_ended == 1);
    CHECK_INT(n_gone, 0);
    tear_down();
}

TEST(queue_past_its_cap_is_cut) {
    set_up();
    struct client c = {.request = GET("/flood")};
    client_start(&c);
    RUN_UNTIL(n_ended == 1);
    CHECK_INT(n_gone, 1);
    RUN_UNTIL(c.done);
    client_finish(&c);
    tear_down();
}

TEST(many_at_once) {
    set_up();
    enum { N = 60 };
    static struct client clients[N];
    static const char *const requests[] = {POST("/echo", "5", "01234"), GET("/stream"), GET("/wait"), POST("/echo", "7", "0123456")};
    memset(clients, 0, sizeof clients);
    for (size_t i = 0; i < N; i++) {
        clients[i].request = requests[i % 4];
        clients[i].leave = i % 4 == 2 || i % 5 == 0;
        client_start(&clients[i]);
    }
    size_t done = 0;
    while (done < N) {
        RUN_UNTIL(clients[done].done);
        done++;
    }
    RUN_UNTIL(http_idle(server.http));
    for (size_t i = 0; i < N; i++) client_finish(&clients[i]);
    n_worked = n_ended - n_started; // work that failed, or whose client had left
    CHECK(n_worked >= 0);
    CHECK_INT(server.http->body_bytes, 0);
    tear_down();
}

TEST(abort_answers_everyone) {
    set_up();
    struct client c = {.request = GET("/wait")};
    client_start(&c);
    RUN_UNTIL(waiting);
    server.state = SERVER_DRAINING;
    http_abort_requests(server.http);
    RUN_UNTIL(c.done);
    CHECK(strstr(c.answer, "HTTP/1.1 503") == c.answer && strstr(c.answer, "shutting_down") != NULL);
    client_finish(&c);
    tear_down();
}

TEST(more_work) {
    set_up();
    struct client stays = {.request = POST("/twice", "1", "x")};
    client_start(&stays);
    RUN_UNTIL(in_work);
    CHECK_INT(n_ended, 0);
    uv_sem_post(&work_may_go);
    RUN_UNTIL(stays.done);
    CHECK(strcmp(strstr(stays.answer, "\r\n\r\n") + 4, "1") == 0);
    client_finish(&stays);
    RUN_UNTIL(n_ended == 1);
    CHECK_INT(n_gone, 0);
    uv_sem_wait(&work_entered);
    struct client leaves = {.request = POST("/twice", "1", "x"), .leave = true, .left_after = &work_entered};
    client_start(&leaves);
    RUN_UNTIL(leaves.done && server.http->n_requests == 0);
    CHECK_INT(n_ended, 1);
    uv_sem_post(&work_may_go);
    RUN_UNTIL(n_ended == 2);
    CHECK_INT(n_gone, 1);
    client_finish(&leaves);
    CHECK_INT(n_started, 3); // the first one's `then` counts too
    n_started = 2;
    tear_down();
}

// While work runs, the request's arena and error are the worker's alone.
TEST(abort_leaves_work_its_request) {
    set_up();
    struct client c = {.request = POST("/slow", "1", "x")};
    client_start(&c);
    RUN_UNTIL(in_work);
    server.state = SERVER_DRAINING;
    struct http_request *r = &server.http->connections->exchange->r;
    size_t used = r->arena.used;
    http_abort_requests(server.http);
    CHECK_INT(r->arena.used, used);
    CHECK_INT(r->err.code, ERR_NONE);
    uv_sem_post(&work_may_go);
    RUN_UNTIL(c.done);
    CHECK(strstr(c.answer, "HTTP/1.1 503") == c.answer && strstr(c.answer, "shutting_down") != NULL);
    client_finish(&c);
    CHECK_INT(n_started, 0);
    n_worked = 1;
    tear_down();
}

TEST(slow_lane_is_first_come_first_served) {
    set_up();
    struct client first = {.request = POST("/slowly", "3", "abc")}, second = {.request = POST("/slowly", "4", "abcd")}, other = {.request = POST("/echo", "5", "abcde")};
    client_start(&first);
    RUN_UNTIL(in_work);
    client_start(&second);
    RUN_UNTIL(n_started == 2);
    client_start(&other); // does not wait for them
    RUN_UNTIL(other.done);
    CHECK(!first.done && !second.done && server.http->n_working == 2);
    uv_sem_post(&work_may_go);
    RUN_UNTIL(first.done);
    CHECK(!second.done);
    uv_sem_post(&work_may_go);
    RUN_UNTIL(second.done);
    CHECK(strstr(first.answer, "\r\n\r\n3") && strstr(second.answer, "\r\n\r\n4"));
    client_finish(&first);
    client_finish(&second);
    client_finish(&other);
    n_started -= 2; // echo_start counted them again
    tear_down();
}

TEST(nobody_waits_behind_a_tool) {
    set_up();
    struct client tool = {.request = POST("/tool", "3", "abc")}, slowly = {.request = POST("/slowly", "4", "abcd")};
    client_start(&tool);
    RUN_UNTIL(in_work);
    const void *first = in_work;
    client_start(&slowly);
    RUN_UNTIL(in_work != first); // both are at work
    uv_sem_post(&work_may_go);
    uv_sem_post(&work_may_go);
    RUN_UNTIL(tool.done && slowly.done);
    client_finish(&tool);
    client_finish(&slowly);
    n_started -= 2; // echo_start counted them again
    tear_down();
}

TEST(a_look_ends_with_its_client) {
    set_up();
    uv_sem_t leave;
    uv_sem_init(&leave, 0);
    struct client look = {.request = POST("/look", "3", "abc"), .leave = true, .left_after = &leave};
    struct client others[HTTP_LOOKS_WAITING], last = {.request = POST("/look", "4", "abcd")};
    look_ended = false;
    client_start(&look);
    RUN_UNTIL(in_work);
    for (size_t i = 0; i < HTTP_LOOKS_WAITING; i++) {
        others[i] = (struct client){.request = POST("/look", "3", "abc")};
        client_start(&others[i]);
    }
    RUN_UNTIL(n_started == 1 + HTTP_LOOKS_WAITING);
    client_start(&last);
    RUN_UNTIL(last.done);
    CHECK(strstr(last.answer, "503") && slow_lane_waiting(server.http->slow_lane, SLOW_LOOKS) == HTTP_LOOKS_WAITING);
    CHECK(!look_ended);
    uv_sem_post(&leave);
    RUN_UNTIL(look_ended && slow_lane_waiting(server.http->slow_lane, SLOW_LOOKS) == HTTP_LOOKS_WAITING - 1); // the next one looks
    http_abort_requests(server.http); // which ends it, and the others begin no more
    for (size_t i = 0; i < HTTP_LOOKS_WAITING; i++) {
        RUN_UNTIL(others[i].done);
        CHECK(strstr(others[i].answer, "503"));
        client_finish(&others[i]);
    }
    client_finish(&look);
    client_finish(&last);
    uv_sem_destroy(&leave);
    tear_down();
}

TEST(abort_drops_what_the_slow_lane_has_not_begun) {
    set_up();
    struct client first = {.request = POST("/slowly", "3", "abc")}, second = {.request = POST("/slowly", "4", "abcd")};
    client_start(&first);
    RUN_UNTIL(in_work);
    client_start(&second);
    RUN_UNTIL(n_started == 2);
    http_abort_requests(server.http);
    RUN_UNTIL(second.done);
    CHECK(strstr(second.answer, "503") && slow_lane_busy(server.http->slow_lane));
    uv_sem_post(&work_may_go);
    RUN_UNTIL(first.done);
    CHECK(strstr(first.answer, "503"));
    client_finish(&first);
    client_finish(&second);
    tear_down();
}

TEST(what_nobody_waits_for_is_not_begun) {
    set_up();
    uv_sem_t leave;
    uv_sem_init(&leave, 0);
    struct client first = {.request = POST("/slowly", "3", "abc")}, third = {.request = POST("/slowly", "4", "abcd")};
    struct client second = {.request = POST("/slowly", "5", "abcde"), .leave = true, .left_after = &leave};
    client_start(&first);
    RUN_UNTIL(in_work);
    client_start(&second);
    RUN_UNTIL(n_started == 2);
    client_start(&third);
    RUN_UNTIL(n_started == 3);
    uv_sem_post(&leave);
    RUN_UNTIL(n_ended == 1); // while the first is still at work
    CHECK(n_gone == 1 && server.http->n_working == 2);
    uv_sem_post(&work_may_go);
    uv_sem_post(&work_may_go);
    RUN_UNTIL(first.done && third.done);
    CHECK(strstr(first.answer, "\r\n\r\n3") && strstr(third.answer, "\r\n\r\n4"));
    client_finish(&first);
    client_finish(&second);
    client_finish(&third);
    uv_sem_destroy(&leave);
    n_started -= 2; // echo_start counted them again
    tear_down();
}

static void post_count(void *ctx) { ++*(_Atomic int *)ctx; }

TEST(posts_run_and_are_waited_for) {
    set_up();
    _Atomic int n = 0;
    for (int i = 0; i < 20; i++) {
        http_pool_post(&server, post_count, &n);
    }
    CHECK(!http_idle(server.http));
    tear_down();
    CHECK_INT(n, 20);
}

#define UPLOAD(more) "POST /sink/one HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: multipart/form-data; boundary=x\r\n" more "\r\n"

TEST(sink_takes_pieces_in_order_and_bounded) {
    set_up();
    struct client c = {.request = UPLOAD("Content-Length: 30000000\r\n"), .fill = 'a', .fill_len = 30000000};
    client_start(&c);
    RUN_UNTIL(c.done);
    CHECK(strstr(c.answer, "200 OK") && strstr(c.answer, "\r\n\r\n30000000"));
    CHECK(sink_pieces > 80 && sink_most < HTTP_PIECE_BYTES + HTTP_MEMORY_BYTES);
    CHECK_INT(server.http->body_bytes, 0);
    client_finish(&c);
    tear_down();
}

TEST(sink_in_chunks) { // many chunks in one buffer: what came behind the one that filled a piece must wait
    set_up();
    struct buf request = {0};
    buf_add_str(&request, UPLOAD("Transfer-Encoding: chunked\r\n"));
    size_t total = 0;
    for (size_t i = 0; i < 60000; i++) {
        buf_printf(&request, "%zx\r\n%.*s\r\n", i % 16 + 1, (int)(i % 16 + 1), "abcdefghijklmnop");
        total += i % 16 + 1;
    }
    buf_add_str(&request, "0\r\n\r\n");
    struct client c = {.request = request.data};
    client_start(&c);
    RUN_UNTIL(c.done);
    char expected[40];
    snprintf(expected, sizeof expected, "\r\n\r\n%zu", total);
    CHECK(strstr(c.answer, expected) && sink_pieces >= 2);
    client_finish(&c);
    buf_finish(&request);
    tear_down();
}

TEST(sink_refuses) {
    static const struct {
        const char *request, *said;
        char fill;
        size_t n;
    } cases[] = {
        {UPLOAD("Content-Length: 30000000\r\nX-Refuse: 1\r\n"), "refused at once", 'a', 30000000},
        {UPLOAD("Content-Length: 50000000\r\n"), "payload_too_large", 'a', 0},
        {UPLOAD("Content-Length: 3\r\n"), "refused on the pool", '?', 3},               // in the last piece
        {UPLOAD("Content-Length: 3000000\r\n"), "refused on the pool", '?', 3000000},   // the rest is short: read and dropped
        {UPLOAD("Content-Length: 30000000\r\n"), "refused on the pool", '?', 30000000}, // long: told, then cut
        {UPLOAD("Content-Length: 0\r\n"), "200 OK", 'a', 0},
        {POST("/sink/one", "5", "01234"), "unsupported_media_type", 'a', 0},
        {"POST /sink/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", "not_found", 'a', 0},
        {"POST /sink/a/b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", "not_found", 'a', 0},
    };
    set_up();
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct client c = {.request = cases[i].request, .fill = cases[i].fill, .fill_len = cases[i].n};
        client_start(&c);
        RUN_UNTIL(c.done);
        if (!strstr(c.answer, cases[i].said)) TEST_FAIL("case %zu: %.300s", i, c.answer);
        client_finish(&c);
    }
    RUN_UNTIL(http_idle(server.http));
    CHECK_INT(server.http->body_bytes, 0);
    tear_down();
}

TEST(leaving_in_the_middle_of_a_piece) {
    set_up();
    uv_sem_t leave;
    uv_sem_init(&leave, 0);
    struct client c = {.request = UPLOAD("Content-Length: 30000000\r\n"), .fill = '#', .fill_len = 290000, .leave = true, .left_after = &leave};
    client_start(&c);
    RUN_UNTIL(in_work);
    uv_sem_post(&leave);
    RUN_UNTIL(c.done && server.http->n_requests == 0);
    CHECK_INT(n_ended, 0); // a worker still has it
    uv_sem_post(&work_may_go);
    RUN_UNTIL(n_ended == 1);
    CHECK(n_gone == 1 && sink_pieces == 1 && server.http->body_bytes == 0);
    client_finish(&c);
    uv_sem_destroy(&leave);
    tear_down();
}

TEST_MAIN("http")
