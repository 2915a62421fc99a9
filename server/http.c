// SPDX-License-Identifier: MIT
// A request's life between libmicrohttpd's callbacks and a route: headers -> guard -> body, whole or in pieces -> work (pool) -> start -> answer
// -> end.
//
// Invariants:
//   1. route->end is called once if the sink's begin, work or start was, never while work runs, and nothing is called after it.
//   2. An exchange is freed once libmicrohttpd has completed it and no work runs.
//   3. The access handler returns only after it queued an answer, suspended the connection, or asked for more body.
//   4. While a piece is worked on, its connection is suspended and x->body is the worker's.
// Thread: loop, but for http_work and slow_work.
#include "server/http_internal.h"

#include "base/log.h"
#include "base/mem.h"
#include "server/routes.h"

#include <assert.h>
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <unistd.h>

enum { WORKER_NICE = 5 };

static struct http_connection *connection_of(struct MHD_Connection *mhd) {
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info ? info->socket_context : NULL;
}

// ---- the request line and headers ----

// A request target is visible ASCII, and what is percent-encoded decodes to something other than NUL.
static bool uri_clean(const char *s) {
    for (; *s; s++) {
        if ((unsigned char)*s <= ' ' || (unsigned char)*s >= 0x7f) return false;
        if (*s != '%') continue;
        if (!isxdigit((unsigned char)s[1]) || !isxdigit((unsigned char)s[2])) return false;
        if (s[1] == '0' && s[2] == '0') return false;
    }
    return true;
}

void *http_on_uri(void *cls, const char *uri, struct MHD_Connection *mhd) {
    struct http *h = cls;
    struct http_connection *c = connection_of(mhd);
    if (!c) return NULL;
    c->uri_seen = true;
    c->uri_bad = !uri || !uri_clean(uri);
    c->uri_end = uri ? uri + strlen(uri) : NULL;
    uint64_t deadline = uv_hrtime() + (uint64_t)h->server->config.header_seconds * 1000000000u;
    if (!c->deadline_ns || deadline < c->deadline_ns) c->deadline_ns = deadline; // a first request's clock started at accept
    return NULL;
}

struct pair_sink {
    struct http_exchange *x;
    struct http_pair *pairs;
    size_t n, cap;
};

static enum MHD_Result count_pair(void *cls, enum MHD_ValueKind kind, const char *key, size_t key_len, const char *value, size_t value_len) {
    ((struct pair_sink *)cls)->cap++;
    return MHD_YES;
}

static enum MHD_Result copy_pair(void *cls, enum MHD_ValueKind kind, const char *key, size_t key_len, const char *value, size_t value_len) {
    struct pair_sink *s = cls;
    if (s->n == s->cap) return MHD_NO;
    // A key stays in libmicrohttpd's buffer alone: see authorize in http_guard.c.
    if (kind == MHD_HEADER_KIND && key && strcasecmp(key, "authorization") == 0) return MHD_YES;
    struct arena *a = &s->x->r.arena;
    s->pairs[s->n++] = (struct http_pair){arena_strndup(a, key ? key : "", key_len), arena_strndup(a, value ? value : "", value_len)};
    return MHD_YES;
}

// Copies, so that a route's work on the pool can read them whatever becomes of the connection.
static size_t copy_pairs(struct http_exchange *x, struct MHD_Connection *mhd, enum MHD_ValueKind kind, struct http_pair **out) {
    struct pair_sink s = {.x = x};
    MHD_get_connection_values_n(mhd, kind, count_pair, &s);
    s.pairs = arena_alloc(&x->r.arena, s.cap + 1, sizeof *s.pairs);
    MHD_get_connection_values_n(mhd, kind, copy_pair, &s);
    *out = s.pairs;
    return s.n;
}

const char *http_header(const struct http_request *r, const char *name) {
    const struct http_exchange *x = (const struct http_exchange *)r;
    for (size_t i = 0; i < x->n_headers; i++)
        if (strcasecmp(x->headers[i].name, name) == 0) return x->headers[i].value;
    return NULL;
}

const char *http_query(const struct http_request *r, const char *name) {
    const struct http_exchange *x = (const struct http_exchange *)r;
    for (size_t i = 0; i < x->n_query; i++)
        if (strcmp(x->query[i].name, name) == 0) return x->query[i].value;
    return NULL;
}

struct viewer http_viewer(const struct http_request *r) { return (struct viewer){.key = r->key_id, .all = r->key_scope == SCOPE_ADMIN}; }

const char *http_query_at(const struct http_request *r, size_t i, const char **value) {
    const struct http_exchange *x = (const struct http_exchange *)r;
    if (i >= x->n_query) return NULL;
    *value = x->query[i].value;
    return x->query[i].name;
}

// The client's own id where it is short and plain, so that both logs can be laid side by side.
static void choose_request_id(struct http_exchange *x) {
    const char *theirs = http_header(&x->r, "x-request-id");
    size_t n = theirs ? strlen(theirs) : 0;
    bool plain = n > 0 && n < sizeof x->r.id;
    for (size_t i = 0; i < n && plain; i++) plain = isalnum((unsigned char)theirs[i]) || strchr("-_.", theirs[i]);
    if (plain) memcpy(x->r.id, theirs, n + 1);
    else snprintf(x->r.id, sizeof x->r.id, "%s%llu", x->http->id_prefix, (unsigned long long)x->r.serial);
}

static struct http_exchange *exchange_create(struct http *h, struct http_connection *c, const char *url, const char *method) {
    struct http_exchange *x = mem_new(struct http_exchange);
    x->http = h;
    x->connection = c;
    c->exchange = x;
    c->deadline_ns = 0;
    h->n_requests++;
    http_probe_lag(h);
    struct http_request *r = &x->r;
    r->server = h->server;
    r->connection = c;
    r->serial = ++h->next_serial;
    r->method = arena_strndup(&r->arena, method, strlen(method));
    r->path = arena_strndup(&r->arena, url, strlen(url));
    r->tail = "";
    r->body = "";
    r->received_ns = uv_hrtime();
    x->n_headers = copy_pairs(x, c->mhd, MHD_HEADER_KIND, &x->headers);
    x->n_query = copy_pairs(x, c->mhd, MHD_GET_ARGUMENT_KIND, &x->query);
    choose_request_id(x);
    return x;
}

static void exchange_free(struct http_exchange *x) {
    assert(!x->working && !x->connection);
    if (x->response) MHD_destroy_response(x->response);
    buf_finish(&x->body);
    buf_finish(&x->queue);
    arena_finish(&x->r.arena);
    free(x);
}

static void exchange_end(struct http_exchange *x) {
    if (x->ended || !x->entered) return;
    x->ended = true;
    if (x->r.route->end) x->r.route->end(&x->r);
}

void http_exchange_gone(struct http_exchange *x) {
    if (x->r.gone) return;
    x->r.gone = true;
    atomic_store(&x->cancelled, true);
    metrics_add(&x->http->server->metrics, METRIC_DISCONNECTS, 1);
    if (x->working) slow_lane_drop(x->http->slow_lane, &x->slow);
    else exchange_end(x);
    if (!x->connection) return;
    // A client that closed half its side, or reads nothing, would leave libmicrohttpd waiting: cut, so that it notices too.
    http_cut(x->connection);
    http_wake(x->connection);
}

// ---- work and start ----

// Parsing a megabyte may wait; the loop and the engine's next step should not: workers yield to both.
static void thread_yields(void) {
    static __thread bool yielding;
    if (!yielding) setpriority(PRIO_PROCESS, (id_t)gettid(), WORKER_NICE); // of this thread alone, on Linux
    yielding = true;
}

static void http_work(uv_work_t *w) { // pool
    thread_yields();
    struct http_exchange *x = w->data;
    x->work_ok = x->work_fn(&x->r);
}

static void slow_work(void *ctx) { // slow lane
    struct http_exchange *x = ctx;
    thread_yields();
    x->work_ok = x->work_fn(&x->r);
}

// The piece is done with; libmicrohttpd goes on reading, for the next one or for nothing.
static void piece_done(struct http_exchange *x) {
    x->http->body_bytes -= x->body.len;
    buf_clear(&x->body);
    x->discarding = !x->work_ok;
    http_wake(x->connection);
}

static void work_done(struct http_exchange *x, bool ran) {
    x->working = false;
    x->http->n_working--;
    if (http_exchange_mute(x)) {
        exchange_end(x);
        if (!x->connection) exchange_free(x);
        return;
    }
    if (x->http->aborting) http_abort_exchange(x);
    else if (x->stage == STAGE_BODY) piece_done(x);
    else if (x->stage == STAGE_ADMIT && x->work_ok) http_wake(x->connection);
    else if (ran && x->work_ok) x->then_fn(&x->r);
    else http_reply_error(&x->r);
}
static void http_after_work(uv_work_t *w, int status) { work_done(w->data, status == 0); }
static void after_slow_work(void *ctx, bool ran) { work_done(ctx, ran); }

static void work_begin(struct http_request *r, bool (*work)(struct http_request *r), void (*then)(struct http_request *r)) {
    struct http_exchange *x = http_exchange_of(r);
    assert(!x->working);
    x->work_fn = work;
    x->then_fn = then;
    x->working = true;
    x->http->n_working++;
}

void http_more_work(struct http_request *r, bool (*work)(struct http_request *r), void (*then)(struct http_request *r)) {
    struct http_exchange *x = http_exchange_of(r);
    work_begin(r, work, then);
    x->work.data = x;
    int rc = uv_queue_work(x->http->loop, &x->work, http_work, http_after_work);
    assert(rc == 0); // fails only for a NULL work function
}

static void slow_begin(struct http_request *r, enum slow_thread thread, bool (*work)(struct http_request *r), void (*then)(struct http_request *r)) {
    struct http_exchange *x = http_exchange_of(r);
    work_begin(r, work, then);
    x->slow = (struct slow_item){.run = slow_work, .after = after_slow_work, .ctx = x, .thread = thread};
    slow_lane_add(x->http->slow_lane, &x->slow);
}
void http_slow_work(struct http_request *r, bool (*work)(struct http_request *r), void (*then)(struct http_request *r)) {
    slow_begin(r, SLOW_MODELS, work, then);
}
void http_tool_work(struct http_request *r, bool (*work)(struct http_request *r), void (*then)(struct http_request *r)) {
    slow_begin(r, SLOW_TOOLS, work, then);
}
bool http_look_work(struct http_request *r, bool (*work)(struct http_request *r), void (*then)(struct http_request *r)) {
    if (slow_lane_waiting(http_exchange_of(r)->http->slow_lane, SLOW_LOOKS) >= HTTP_LOOKS_WAITING) return false;
    slow_begin(r, SLOW_LOOKS, work, then);
    return true;
}
bool http_cancelled(const struct http_request *r) { return atomic_load(&((const struct http_exchange *)r)->cancelled); }

static bool piece_work(struct http_request *r) {
    const struct http_exchange *x = http_exchange_of(r);
    return r->route->sink->data(r, x->body.data, x->body.len);
}

static void sink_work(struct http_exchange *x, bool (*work)(struct http_request *r)) {
    http_more_work(&x->r, work, NULL);
    http_suspend(x->connection);
}

static void route_enter(struct http_exchange *x) {
    struct http_request *r = &x->r;
    x->stage = STAGE_ROUTE;
    r->body = buf_str(&x->body);
    r->body_len = x->body.len;
    x->entered = true;
    if (r->route->work) http_more_work(r, r->route->work, r->route->start);
    else r->route->start(r);
}

// ---- libmicrohttpd's callbacks ----

static enum MHD_Result queue_response(struct http_exchange *x) {
    assert(x->response);
    enum MHD_Result ok = MHD_queue_response(x->connection->mhd, (unsigned)x->status, x->response);
    MHD_destroy_response(x->response); // our reference; the connection holds its own
    x->response = NULL;
    x->stage = STAGE_REPLYING;
    return ok;
}

static bool admit_work(struct http_request *r) { return r->route->sink->begin(r, http_exchange_of(r)->content_length); }

static enum MHD_Result headers_received(struct http_exchange *x, const char *method, const char *version) {
    if (!http_guard(x, method, version)) {
        x->stage = STAGE_REFUSED;
        http_refuse(x);
        // With a body under way the answer goes out now and the connection ends; without, it can live on.
        if (!x->has_body && !x->close_after) return MHD_YES;
        x->connection->linger = true;
        return queue_response(x);
    }
    x->stage = STAGE_BODY;
    x->body_started_ns = uv_hrtime();
    if (x->r.route->sink) { // we are called once more as if nothing had been, before the body
        x->stage = STAGE_ADMIT;
        x->entered = true;
        sink_work(x, admit_work);
    }
    return MHD_YES;
}

// libmicrohttpd takes no answer before a body's end. So a short rest is read and dropped; in a long one the client is told past
// libmicrohttpd, and the connection ends.
static enum MHD_Result body_discard(struct http_exchange *x, size_t len) {
    x->discarded += len;
    if (x->discarded <= HTTP_DISCARD_BYTES) return MHD_YES;
    struct api_error e = api_error_of(&x->r);
    http_answer_raw(x->connection, &e, x->r.err.message, x->r.err.param);
    x->status = e.status;
    x->cut_short = true;
    return MHD_NO;
}

static bool body_fits(struct http_exchange *x, size_t len) {
    const struct config *config = &x->http->server->config;
    const struct http_sink *sink = x->r.route->sink;
    size_t most = sink ? sink->max_bytes(&x->r) : config->max_body_bytes;
    if (x->received + len > most) {
        x->r.err_status = 413;
        return err_set(&x->r.err, ERR_TOO_LARGE, "The request body is over %zu bytes.", most);
    }
    if (x->http->body_bytes + len > config->max_body_total_bytes) {
        x->r.err_status = 503;
        return err_set(&x->r.err, ERR_BUSY, "Too many request bodies are being read; try again.");
    }
    return true;
}

static enum MHD_Result body_received(struct http_exchange *x, const char *data, size_t len) {
    if (x->stage != STAGE_BODY) return MHD_NO;
    if (!x->discarding) x->discarding = !body_fits(x, len);
    if (x->discarding) return body_discard(x, len);
    buf_add(&x->body, data, len);
    x->http->body_bytes += len;
    x->received += len;
    if (x->r.route->sink && x->body.len >= HTTP_PIECE_BYTES) sink_work(x, piece_work);
    return MHD_YES;
}

static enum MHD_Result request_received(struct http_exchange *x) {
    if (x->stage == STAGE_BODY && x->r.route->sink && x->body.len && !x->discarding) { // the last piece; then we are called again
        sink_work(x, piece_work);
        return MHD_YES;
    }
    if (x->stage == STAGE_BODY) {
        if (x->discarding) {
            x->stage = STAGE_REFUSED;
            http_refuse(x);
        } else {
            route_enter(x);
        }
    }
    if (x->stage == STAGE_ADMIT) {
        if (!x->response) { // the body may come
            x->stage = STAGE_BODY;
            x->body_started_ns = uv_hrtime();
            return MHD_YES;
        }
        x->connection->linger = x->has_body;
    }
    if (x->response) return queue_response(x);
    http_suspend(x->connection);
    return MHD_YES;
}

enum MHD_Result http_on_request(void *cls, struct MHD_Connection *mhd, const char *url, const char *method, const char *version,
                                const char *upload, size_t *upload_size, void **ctx) {
    struct http_exchange *x = *ctx;
    if (!x) {
        struct http_connection *c = connection_of(mhd);
        if (!c) return MHD_NO;
        x = exchange_create(cls, c, url, method);
        *ctx = x;
        return headers_received(x, method, version);
    }
    if (x->r.gone) return MHD_NO;
    if (*upload_size) {
        if (x->working) return MHD_YES; // suspended, yet the next chunk was in the buffer: it stays there
        size_t n = *upload_size;
        *upload_size = 0;
        return body_received(x, upload, n);
    }
    return request_received(x);
}

static void log_request(const struct http_exchange *x, bool whole) {
    const struct http_request *r = &x->r;
    double ms = (double)(uv_hrtime() - r->received_ns) / 1e6;
    const char *path = r->route ? r->path : "(no such path)"; // a hostile path is not worth a log line's safety
    log_line(LOG_INFO, "request", "id", r->id, "method", r->method, "path", path, "status", log_value("%d", x->status), "ms",
             log_value("%.1f", ms), "bytes", log_value("%llu", (unsigned long long)x->bytes), "key", r->key_id[0] ? r->key_id : "-",
             "end", whole ? "whole" : "gone", NULL);
}

void http_on_completed(void *cls, struct MHD_Connection *mhd, void **ctx, enum MHD_RequestTerminationCode toe) {
    struct http *h = cls;
    struct http_connection *c = connection_of(mhd);
    struct http_exchange *x = *ctx;
    *ctx = NULL;
    if (c) { // the next request on this connection may take this long to come
        c->uri_seen = c->uri_bad = false;
        c->exchange = NULL;
        c->deadline_ns = uv_hrtime() + (uint64_t)(h->server->config.stall_seconds + h->server->config.header_seconds) * 1000000000u;
        if (c->watching) uv_poll_stop(&c->watch);
        c->watching = false;
    }
    if (!x) return; // its headers never were complete
    x->connection = NULL;
    x->r.connection = NULL;
    bool whole = (toe == MHD_REQUEST_TERMINATED_COMPLETED_OK || x->cut_short) && !x->r.gone;
    if (!whole) http_exchange_gone(x);
    h->n_requests--;
    h->body_bytes -= x->body.len;
    const struct http_route *route = x->r.route;
    metrics_count_http(&h->server->metrics, route ? route->path : "none", route ? route->method : "any", whole ? x->status : 499);
    log_request(x, whole);
    if (x->working) return; // http_after_work ends and frees it
    exchange_end(x);
    exchange_free(x);
}
