// SPDX-License-Identifier: MIT
// HTTP requests as the api_*.c files see them. The loop, libmicrohttpd and sockets stay behind this header.
//
// Thread: everything here runs on the loop thread, but for a route's `work` function, which runs on a libuv pool worker and
// may touch only its own request's arena, body and `state`.
//
// A request's life: headers checked (framing, Host, Origin, key, scope, drain) -> body read into the arena, or handed to the route's sink in
// pieces -> route->work on the pool (parse, validate, tokenize) -> route->start on the loop -> exactly one of: http_reply*, or
// http_stream_open + http_stream_send* + http_stream_close -> route->end on the loop, once, whatever happened -> arena freed.
#pragma once

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "server/store/store.h" // struct viewer

#include <stdint.h>

struct server; // server.h: engine, registry, config, metrics
struct http_connection;

enum http_scope { SCOPE_PUBLIC, SCOPE_INFER, SCOPE_TRAIN, SCOPE_ADMIN };

struct http_request {
    struct server *server;
    struct http_connection *connection; // opaque
    const struct http_route *route;
    struct arena arena;
    uint64_t serial;       // unique in this process
    char id[65];           // x-request-id: the client's (checked) or ours
    const char *method, *path; // path without query, percent-decoded once
    const char *tail;      // what stood for the pattern's '*' ("/v1/models/*") or {id} ("/v1/files/{id}/content"), else ""
    const char *body;      // whole body (NUL behind it), when work runs
    size_t body_len;
    char key_id[33];       // which key, "" when none is required
    enum http_scope key_scope; // of that key; SCOPE_ADMIN where none is required
    uint64_t received_ns;
    const char *cold;      // a model that work found cold (request_model.h), or NULL
    void *state;           // the route's own, usually in the arena
    struct err err;        // set by work on failure: start is then skipped and the error is answered
    int err_status;        // 0: derived from err.code; else the HTTP status
    const char *err_code;  // NULL: derived; else the OpenAI code string
    bool gone;             // the client has left: nothing may be sent any more
};

// A body that does not go into the arena. The connection is suspended while a piece is worked on: back-pressure, flat memory. A client
// that leaves, or a false: route->end, which removes what begin made.
struct http_sink {
    const char *content_type;                                      // the media type required: "multipart/form-data"
    size_t (*max_bytes)(const struct http_request *r);             // loop; 413 past it
    bool (*begin)(struct http_request *r, uint64_t content_length); // pool, headers accepted; UINT64_MAX: not known. false: r->err, refused at once
    bool (*data)(struct http_request *r, const char *p, size_t n); // pool, one at a time, in order; false: r->err, the rest is not taken
    const char *schema;                                            // JSON schema of the body, for /openapi.json
};

struct http_route {
    const char *method, *path; // exact; with one segment {id}; or a prefix ending in '*'. Where several fit: in this order
    enum http_scope scope;
    bool (*work)(struct http_request *r);  // pool thread; NULL: none. false: r->err is set
    void (*start)(struct http_request *r); // loop thread
    void (*end)(struct http_request *r);   // loop thread; the request is over (answered, or the client left: r->gone); NULL: none
    const char *summary;                   // for /openapi.json
    const struct http_sink *sink;          // NULL: JSON, into the arena
};

const char *http_query(const struct http_request *r, const char *name);  // NULL: absent; "" : present without a value
const char *http_query_at(const struct http_request *r, size_t i, const char **value); // the i-th one's name; NULL: past the end
const char *http_header(const struct http_request *r, const char *name);
struct viewer http_viewer(const struct http_request *r); // who asks, for the store: an admin's key, or no keys at all, sees everything

// More work for the pool, from start on, where an answer takes long to write: `work` as the route's own, then `then` as its start.
// Between the two nothing else is called, not even end.
void http_more_work(struct http_request *r, bool (*work)(struct http_request *r), void (*then)(struct http_request *r));

// The same for what takes over 50 ms (model loads and removals): one thread, first come first served. What runs when
// the drain's deadline passes is cut off with the process, so it must survive that as it survives kill -9.
void http_slow_work(struct http_request *r, bool (*work)(struct http_request *r), void (*then)(struct http_request *r));
// The same for what takes minutes (scans of data sets, exports, estimates): one more thread, so that nobody waits behind it for a model.
void http_tool_work(struct http_request *r, bool (*work)(struct http_request *r), void (*then)(struct http_request *r));
// The same for looks inside a model: one more thread. False, and nothing begins, where as many wait as may.
bool http_look_work(struct http_request *r, bool (*work)(struct http_request *r), void (*then)(struct http_request *r)) MUST_CHECK;
// None of them begins for a client that has left. Work that takes seconds asks every few milliseconds, on its thread, whether to end early: the
// client has left, or the drain's deadline has passed. What it returns then is not looked at.
bool http_cancelled(const struct http_request *r);
// http_more_work without a request; loop thread only. fn may not run if the server goes down first.
void http_pool_post(struct server *s, void (*fn)(void *ctx), void *ctx);

// One whole answer. `body` is taken over (its memory moves; *body is left empty).
void http_reply(struct http_request *r, int status, const char *content_type, struct buf *body);
void http_reply_json(struct http_request *r, int status, struct buf *body);
// From the disk, to its end: `size` bytes of `fd`, which is taken. download_name (any bytes; NULL: none) becomes a Content-Disposition.
void http_reply_file(struct http_request *r, int status, const char *content_type, int fd, uint64_t size, const char *download_name);
// From r->err / err_status / err_code in OpenAI's shape (api_error.c).
void http_reply_error(struct http_request *r);
void http_set_header(struct http_request *r, const char *name, const char *value); // before the answer; copied

// Server-sent events. open sends status 200 and the headers; send queues bytes (already "data: ...\n\n") and wakes the
// connection; a comment ping goes out by itself every 15 s of silence. A reader that takes nothing for 30 s, or a queue
// past its cap, is closed as gone (route->end).
void http_stream_open(struct http_request *r);
void http_stream_send(struct http_request *r, const void *data, size_t len);
void http_stream_close(struct http_request *r); // after what is queued was sent
