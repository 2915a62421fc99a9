// SPDX-License-Identifier: MIT
// What the HTTP core's own files share: the loop around libmicrohttpd (loop.c), a connection's and a request's state
// (http.c), refusals (http_guard.c), answers (http_reply.c), streams (sse.c), lingering closes (linger.c), long work (slow_lane.c).
//
// Rules of libmicrohttpd 0.9.75 in a foreign loop, which these files keep (each was measured, see tests/api/test_lifecycle.py):
//   1. MHD_run only from http_turn, once a loop iteration at most; its timer is set again after every turn.
//   2. MHD_resume_connection wakes nothing: whoever resumes sets http->dirty, and the turn follows in this iteration.
//   3. A reader that returns 0 has suspended its connection first; otherwise libmicrohttpd spins.
//   4. A suspended connection is out of epoll: no timeout, no disconnect. connection->watch looks at its socket instead.
//   5. The daemon is stopped only when no connection is suspended.
//   6. Suspend only one's own connection, from its own access handler or reader.
#pragma once

#include "base/mem.h" // before uv.h, whose sys/param.h defines MIN and MAX too
#include "server/http.h"
#include "server/server.h"

#include <microhttpd.h>
#include <uv.h>

enum {
    HTTP_LAG_MS = 5,                  // the loop-lag probe's period, while requests are active
    HTTP_SWEEP_MS = 250,              // how often deadlines are looked at while there are connections
    HTTP_STREAM_CAP_BYTES = 16 << 20, // what may wait for a slow reader: a second of 20 log-probabilities a token
    HTTP_DISCARD_BYTES = 8 << 20,     // of a body that will not be used before the connection is cut
    HTTP_PIECE_BYTES = 256 << 10,     // of a body that goes to a sink: as much is worked on at once
    HTTP_SOCKET_SEND_BYTES = 128 << 10,
    HTTP_MEMORY_BYTES = 64 << 10,     // libmicrohttpd's pool a connection: bounds request line and headers
    HTTP_LINGER_MS = 2000,
    HTTP_LINGER_MAX = 64,
    HTTP_LOOKS_WAITING = 8, // besides the one that runs
};

struct api_error { // api_error.c
    int status;
    const char *type, *code;
};

struct http {
    struct server *server;
    uv_loop_t *loop;
    struct MHD_Daemon *daemon;
    uv_poll_t epoll_watch;
    uv_timer_t daemon_timer, sweep_timer, lag_timer;
    uint64_t lag_due_ns; // when lag_timer should fire
    uv_prepare_t prepare;
    uv_check_t check;
    bool dirty; // a turn is due
    bool quiesced;
    bool aborting;  // the drain's deadline has passed
    int listen_fd; // ours to close once quiesced
    struct http_connection *connections;
    size_t n_connections, n_requests; // requests: from their headers to NOTIFY_COMPLETED
    size_t n_working;                 // items under way on the pool and the slow lane
    struct slow_lane *slow_lane;
    size_t body_bytes;                // of all requests
    size_t n_lingering;
    uint64_t next_serial;
    char id_prefix[24]; // of the request ids this process makes
    unsigned port;
};

// One TCP connection, from accept to close; freed when libuv has let go of `watch`.
struct http_connection {
    struct http *http;
    struct MHD_Connection *mhd;
    struct http_connection *next, **link; // in http->connections
    int fd;
    uv_poll_t watch;
    bool watch_made, watching;
    bool suspended;
    bool uri_seen, uri_bad; // of the request being read
    const char *uri_end;    // where its raw request target ends in libmicrohttpd's buffer
    uint64_t deadline_ns;   // headers must be complete by then; 0: not now
    bool linger;            // unread request bytes may follow the answer
    struct http_exchange *exchange;
};

enum http_stage {
    STAGE_ADMIT,    // headers were accepted; the sink's begin looks at them
    STAGE_BODY,     // headers were accepted; the body is being read
    STAGE_REFUSED,  // answered with an error as soon as libmicrohttpd allows
    STAGE_ROUTE,    // work, start, waiting for the answer
    STAGE_REPLYING, // the answer was handed to libmicrohttpd
};

enum slow_thread { SLOW_MODELS, SLOW_TOOLS, SLOW_LOOKS, SLOW_THREADS };

struct slow_item {
    struct slow_item *next;
    void (*run)(void *ctx);             // slow lane's thread
    void (*after)(void *ctx, bool ran); // loop
    void *ctx;
    enum slow_thread thread;
    bool ran;
};

struct http_pair {
    const char *name, *value;
};

// One request. `r` is what routes see and comes first: http_exchange_of casts back.
struct http_exchange {
    struct http_request r;
    struct http *http;
    struct http_connection *connection; // NULL once libmicrohttpd has completed the request
    enum http_stage stage;
    struct http_pair *headers, *query;
    size_t n_headers, n_query;
    bool has_body;
    uint64_t content_length; // UINT64_MAX: chunked
    bool discarding; // r->err says why: the rest of the body is dropped
    bool cut_short;  // the answer went out past libmicrohttpd (http_answer_raw)
    size_t received, discarded;
    struct buf body; // whole; with a sink: the piece being gathered, or worked on
    uint64_t body_started_ns;
    uv_work_t work;
    struct slow_item slow;
    bool (*work_fn)(struct http_request *r);
    void (*then_fn)(struct http_request *r);
    bool working, work_ok;
    _Atomic bool cancelled; // nobody waits for the answer any more: http_cancelled
    bool entered, ended; // work or start was called; end was called
    // the answer
    struct MHD_Response *response; // until it is queued
    int status;
    struct http_pair_list {
        struct http_pair pair;
        struct http_pair_list *next;
    } *reply_headers;
    bool close_after;
    bool aborted; // answered by the drain's deadline: whatever the route still says is dropped
    bool streaming, stream_closed;
    struct buf queue;
    size_t queue_head;       // bytes of `queue` already taken
    uint64_t progress_ns;    // when the reader last took something, or could have
    uint64_t last_queued_ns; // for the ping
    uint64_t bytes;          // of the answer's body so far
};

static inline struct http_exchange *http_exchange_of(struct http_request *r) { return (struct http_exchange *)r; }
// Nothing that the route says can reach the client any more.
static inline bool http_exchange_mute(const struct http_exchange *x) { return x->r.gone || !x->connection || x->aborted; }

// loop.c
struct http *http_create(struct server *s, uv_loop_t *loop, struct err *err) MUST_CHECK;
void http_quiesce(struct http *h);                 // no new connection; idle ones are closed
void http_abort_requests(struct http *h);          // every unfinished answer gets an error and ends, when no work runs
void http_abort_exchange(struct http_exchange *x); // one of them
void http_cut_connections(struct http *h);         // every connection is shut down
bool http_idle(const struct http *h);              // no request and no work under way
void http_destroy(struct http *h);                 // all connections gone (asserted by libmicrohttpd itself); handles closed
void http_probe_lag(struct http *h);               // arms the probe; it stops by itself
void http_wake(struct http_connection *c);         // resumes it if it is suspended
void http_suspend(struct http_connection *c);      // and watches for the client's leaving
// An error, past libmicrohttpd, which takes no answer in the middle of a request; then nothing more is sent. libmicrohttpd closes the rest.
void http_answer_raw(struct http_connection *c, const struct api_error *e, const char *message, const char *param);
// Ends the connection from our side. Never calls into a route: the watch or libmicrohttpd notices, as if the client had left.
void http_cut(struct http_connection *c);

// http.c
enum MHD_Result http_on_request(void *cls, struct MHD_Connection *mhd, const char *url, const char *method, const char *version,
                                const char *upload, size_t *upload_size, void **ctx);
void http_on_completed(void *cls, struct MHD_Connection *mhd, void **ctx, enum MHD_RequestTerminationCode toe);
void *http_on_uri(void *cls, const char *uri, struct MHD_Connection *mhd);
void http_exchange_gone(struct http_exchange *x); // the client left, or is to be treated so

// http_guard.c: everything that can be wrong with a request before its body is read. false: r->err and err_status say
// what; x->close_after is set where the framing itself cannot be trusted.
// Fills x->content_length.
bool http_guard(struct http_exchange *x, const char *raw_method, const char *raw_version);
bool host_allowed(const struct config *c, const char *host); // the Host header's value
bool origin_allowed(const struct config *c, const char *origin); // the Origin header's value

// http_reply.c
void http_refuse(struct http_exchange *x); // r->err -> x->response
void http_add_standard_headers(struct http_exchange *x);

// sse.c
void http_stream_sweep(struct http_exchange *x, uint64_t now_ns);
void http_stream_abort(struct http_exchange *x, const struct err *err); // an error event, then the end

// linger.c: takes over a duplicate of `fd`, whose answer was sent, and reads what still comes until the peer closes: closing a
// socket with unread bytes would make the kernel send a reset that destroys the answer on its way.
void http_linger(struct http *h, int fd);

// slow_lane.c. Loop thread, but for the items' run.
struct slow_lane *slow_lane_create(struct http *h, struct err *err) MUST_CHECK;
void slow_lane_add(struct slow_lane *l, struct slow_item *item); // borrowed until its `after`
// What has not begun is handed to its `after` with ran false: one item (nothing, if it runs or never was added), or all.
void slow_lane_drop(struct slow_lane *l, struct slow_item *item);
void slow_lane_abort(struct slow_lane *l);
size_t slow_lane_waiting(struct slow_lane *l, enum slow_thread thread); // added and not begun
bool slow_lane_busy(const struct slow_lane *l);
void slow_lane_destroy(struct slow_lane *l); // nothing is under way; its handle closes with the loop's next turns

// api_error.c: the one place where an error becomes HTTP.
struct api_error api_error_of(const struct http_request *r);
void api_error_write(struct buf *out, const struct api_error *e, const char *message, const char *param);
