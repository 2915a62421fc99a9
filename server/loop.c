// SPDX-License-Identifier: MIT
// libmicrohttpd inside the libuv loop: its epoll descriptor is polled, its timer is ours, and http_turn is the only place that runs
// it. Connections from accept to close; deadlines by one sweep over all of them. Rules: http_internal.h. Thread: loop.
#include "server/http_internal.h"

#include "base/log.h"
#include "base/mem.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

// ---- turns ----

static void on_daemon_timer(uv_timer_t *t) { ((struct http *)t->data)->dirty = true; }
static void on_epoll_readable(uv_poll_t *p, int status, int events) { ((struct http *)p->data)->dirty = true; }

static void http_turn(struct http *h) {
    h->dirty = false;
    MHD_run(h->daemon);
    MHD_UNSIGNED_LONG_LONG wait_ms;
    if (h->dirty) wait_ms = 0; // resumed from inside: libmicrohttpd's own timeout does not count those
    else if (MHD_get_timeout(h->daemon, &wait_ms) != MHD_YES) {
        uv_timer_stop(&h->daemon_timer);
        return;
    }
    uv_timer_start(&h->daemon_timer, on_daemon_timer, wait_ms, 0);
}

// Before and after the loop blocks: whatever was resumed by timers, work or engine events goes out in the same iteration.
static void turn_if_due(struct http *h) {
    if (h->dirty && h->daemon) http_turn(h);
}
static void on_prepare(uv_prepare_t *p) { turn_if_due(p->data); }
static void on_check(uv_check_t *c) { turn_if_due(c->data); }

// ---- loop lag ----

static void on_lag_timer(uv_timer_t *t) {
    struct http *h = t->data;
    uint64_t now = uv_hrtime();
    double late = now > h->lag_due_ns ? (double)(now - h->lag_due_ns) / 1e9 : 0;
    metrics_observe(&h->server->metrics, METRIC_LOOP_LAG, late);
    h->lag_due_ns = now + HTTP_LAG_MS * 1000000u;
    if (h->n_requests == 0) uv_timer_stop(t); // an idle server sleeps
}

void http_probe_lag(struct http *h) {
    if (uv_is_active((uv_handle_t *)&h->lag_timer)) return;
    h->lag_due_ns = uv_hrtime() + HTTP_LAG_MS * 1000000u;
    uv_update_time(h->loop); // the timer counts from the loop's clock, which stood still since the loop woke
    uv_timer_start(&h->lag_timer, on_lag_timer, HTTP_LAG_MS, HTTP_LAG_MS);
}

// ---- connections ----

static void on_watch(uv_poll_t *watch, int status, int events) {
    struct http_connection *c = watch->data;
    uv_poll_stop(watch); // level-triggered
    c->watching = false;
    if (c->exchange) http_exchange_gone(c->exchange);
}

void http_suspend(struct http_connection *c) {
    if (c->suspended) return;
    c->suspended = true;
    MHD_suspend_connection(c->mhd);
    if (c->watching) return;
    if (!c->watch_made) {
        if (uv_poll_init(c->http->loop, &c->watch, c->fd) != 0) return; // unwatched: TCP_USER_TIMEOUT remains
        c->watch.data = c;
        c->watch_made = true;
    }
    c->watching = uv_poll_start(&c->watch, UV_DISCONNECT, on_watch) == 0;
}

void http_wake(struct http_connection *c) {
    if (!c->suspended) return;
    c->suspended = false;
    MHD_resume_connection(c->mhd);
    c->http->dirty = true;
}

void http_cut(struct http_connection *c) { shutdown(c->fd, SHUT_RDWR); }

static void set_socket_options(int fd) {
    int one = 1, send_bytes = HTTP_SOCKET_SEND_BYTES, idle_s = 30, interval_s = 10, probes = 3, user_timeout_ms = 30000;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &send_bytes, sizeof send_bytes); // else loopback swallows megabytes unread
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof interval_s);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout_ms, sizeof user_timeout_ms);
}

static void on_sweep(uv_timer_t *t);

static struct http_connection *connection_create(struct http *h, struct MHD_Connection *mhd) {
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct http_connection *c = mem_new(struct http_connection);
    c->http = h;
    c->mhd = mhd;
    c->fd = info ? info->connect_fd : -1;
    c->deadline_ns = uv_hrtime() + (uint64_t)h->server->config.header_seconds * 1000000000u;
    set_socket_options(c->fd);
    c->next = h->connections;
    c->link = &h->connections;
    if (c->next) c->next->link = &c->next;
    h->connections = c;
    if (h->n_connections++ == 0) uv_timer_start(&h->sweep_timer, on_sweep, HTTP_SWEEP_MS, HTTP_SWEEP_MS);
    return c;
}

static void on_watch_closed(uv_handle_t *handle) { free(handle->data); }

// libmicrohttpd calls this before it closes the socket.
static void connection_release(struct http_connection *c) {
    struct http *h = c->http;
    *c->link = c->next;
    if (c->next) c->next->link = c->link;
    if (--h->n_connections == 0) uv_timer_stop(&h->sweep_timer);
    h->dirty = true; // at the connection limit, only another turn lets libmicrohttpd listen again
    int unread = 0;
    if (c->linger || (ioctl(c->fd, FIONREAD, &unread) == 0 && unread > 0)) http_linger(h, c->fd);
    if (c->watch_made) uv_close((uv_handle_t *)&c->watch, on_watch_closed);
    else free(c);
}

static void on_connection(void *cls, struct MHD_Connection *mhd, void **socket_context, enum MHD_ConnectionNotificationCode code) {
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        *socket_context = connection_create(cls, mhd);
    } else if (*socket_context) {
        connection_release(*socket_context);
        *socket_context = NULL;
    }
}

// ---- deadlines ----

static bool connection_unused(const struct http_connection *c) {
    int unread = 0;
    return !c->exchange && !c->uri_seen && !(ioctl(c->fd, FIONREAD, &unread) == 0 && unread > 0);
}

// A body must keep up a rate, after the grace that headers have.
static bool body_too_slow(const struct http_exchange *x, uint64_t now) {
    if (x->stage != STAGE_BODY || x->working) return false;
    const struct config *config = &x->http->server->config;
    double seconds = (double)(now - x->body_started_ns) / 1e9 - (double)config->header_seconds;
    return seconds > 0 && (double)(x->received + x->discarded) < seconds * (double)config->body_bytes_per_second;
}

// Has the peer closed in the middle of a request? When its last bytes and its FIN arrive together, libmicrohttpd 0.9.75 reads the
// bytes and waits for an event that was already there.
static bool peer_finished(const struct http_connection *c) {
    char byte;
    return (!c->exchange || c->exchange->stage == STAGE_BODY) && recv(c->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

static void connection_sweep(struct http_connection *c, uint64_t now, bool draining) {
    if ((draining && connection_unused(c)) || peer_finished(c)) http_cut(c);
    if (c->deadline_ns && now > c->deadline_ns) {
        // Only a client that began a request is told; libmicrohttpd has nothing of its own under way here.
        static const char late[] = "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        if (c->uri_seen && send(c->fd, late, sizeof late - 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) errno = 0;
        c->deadline_ns = 0;
        http_cut(c);
    }
    if (!c->exchange) return;
    if (body_too_slow(c->exchange, now)) {
        c->exchange->status = 408;
        http_cut(c);
    }
    http_stream_sweep(c->exchange, now);
}

static void on_sweep(uv_timer_t *t) {
    struct http *h = t->data;
    uint64_t now = uv_hrtime();
    bool draining = server_state(h->server) == SERVER_DRAINING;
    for (struct http_connection *c = h->connections; c; c = c->next) connection_sweep(c, now, draining); // frees none
}

// ---- start and stop ----

void http_answer_raw(struct http_connection *c, const struct api_error *e, const char *message, const char *param) {
    struct buf body = {0}, answer = {0};
    api_error_write(&body, e, message, param);
    buf_printf(&answer, "HTTP/1.1 %d %s\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s", e->status,
               MHD_get_reason_phrase_for((unsigned)e->status), body.len, body.data);
    ssize_t sent = send(c->fd, answer.data, answer.len, MSG_DONTWAIT | MSG_NOSIGNAL); // at most once: a full window closes without a word
    c->linger = sent > 0;
    shutdown(c->fd, SHUT_WR);
    buf_finish(&body);
    buf_finish(&answer);
}

// libmicrohttpd 0.9.75 answers a Content-Length it cannot read before it calls us, and writes the head of that answer twice. It
// tells its log first: so find the connection whose headers are complete but have not reached us, and answer it once; what
// libmicrohttpd writes afterwards goes nowhere.
static void answer_bad_length(struct http *h, bool too_large) {
    struct http_connection *c = h->connections;
    while (c && (c->exchange || !c->uri_seen || !MHD_get_connection_info(c->mhd, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE))) c = c->next;
    if (!c) return;
    struct api_error e = {too_large ? 413 : 400, "invalid_request_error", too_large ? "payload_too_large" : "bad_request"};
    http_answer_raw(c, &e, too_large ? "The request body is too large." : "Content-Length is not a length.", NULL);
    metrics_count_http(&h->server->metrics, "none", "any", e.status);
}

static void on_log(void *cls, const char *format, va_list args) {
    if (strstr(format, "value of 'Content-Length'") || strstr(format, "parse `Content-Length'")) answer_bad_length(cls, format[0] == 'T');
    // libmicrohttpd reports every client that hung up; one line each second is enough of that.
    static uint64_t last_ns;
    uint64_t now = uv_hrtime();
    if (now - last_ns < 1000000000u) return;
    last_ns = now;
    char text[256];
    vsnprintf(text, sizeof text, format, args);
    text[strcspn(text, "\r\n")] = 0;
    log_line(LOG_DEBUG, "libmicrohttpd", "message", text, NULL);
}

static void on_panic(void *cls, const char *file, unsigned line, const char *reason) {
    log_line(LOG_ERROR, "libmicrohttpd panic", "reason", reason ? reason : "", NULL);
    abort();
}

// Fills *address; numeric only: the server resolves no names.
static bool address_parse(const char *host, size_t port, struct sockaddr_storage *address, socklen_t *len) {
    struct sockaddr_in *v4 = (struct sockaddr_in *)address;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)address;
    memset(address, 0, sizeof *address);
    if (uv_ip4_addr(host, (int)port, v4) == 0) *len = sizeof *v4;
    else if (uv_ip6_addr(host, (int)port, v6) == 0) *len = sizeof *v6;
    else return false;
    return true;
}

static int listen_open(const struct config *config, unsigned *port, struct err *err) {
    struct sockaddr_storage address;
    socklen_t len;
    if (!address_parse(config->bound_host, config->port, &address, &len)) {
        err_set_param(err, ERR_INVALID, "--host", "host must be 'localhost' or a numeric address, not '%s'", config->host);
        return -1;
    }
    int one = 1, fd = socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, len) != 0 || listen(fd, 511) != 0) {
        err_set(err, ERR_IO, "cannot listen on %s port %zu: %s", config->host, config->port, strerror(errno));
        if (fd >= 0) close(fd);
        return -1;
    }
    getsockname(fd, (struct sockaddr *)&address, &len);
    *port = ntohs(address.ss_family == AF_INET ? ((struct sockaddr_in *)&address)->sin_port : ((struct sockaddr_in6 *)&address)->sin6_port);
    return fd;
}

// Below the descriptor limit, so that a full house still can open files, and accept never meets EMFILE.
static unsigned connection_limit(const struct config *config) {
    struct rlimit limit;
    size_t most = config->max_connections;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) {
        size_t spare = limit.rlim_cur > 192 ? (size_t)limit.rlim_cur - 128 : (size_t)limit.rlim_cur / 2;
        most = MIN(most, spare);
    }
    return (unsigned)most;
}

static struct MHD_Daemon *daemon_start(struct http *h, int fd) {
    unsigned flags = MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG;
    return MHD_start_daemon(flags, 0, NULL, NULL, http_on_request, h, MHD_OPTION_EXTERNAL_LOGGER, on_log, h, MHD_OPTION_LISTEN_SOCKET, fd,
                            MHD_OPTION_CONNECTION_LIMIT, connection_limit(&h->server->config), MHD_OPTION_CONNECTION_MEMORY_LIMIT,
                            (size_t)HTTP_MEMORY_BYTES, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)h->server->config.stall_seconds,
                            MHD_OPTION_NOTIFY_CONNECTION, on_connection, h, MHD_OPTION_NOTIFY_COMPLETED,
                            http_on_completed, h, MHD_OPTION_URI_LOG_CALLBACK, http_on_uri, h, MHD_OPTION_END);
}

static void handles_start(struct http *h) {
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(h->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    uv_poll_init(h->loop, &h->epoll_watch, info->epoll_fd);
    uv_timer_init(h->loop, &h->daemon_timer);
    uv_timer_init(h->loop, &h->sweep_timer);
    uv_timer_init(h->loop, &h->lag_timer);
    uv_prepare_init(h->loop, &h->prepare);
    uv_check_init(h->loop, &h->check);
    h->epoll_watch.data = h->daemon_timer.data = h->sweep_timer.data = h->lag_timer.data = h->prepare.data = h->check.data = h;
    uv_poll_start(&h->epoll_watch, UV_READABLE, on_epoll_readable);
    uv_prepare_start(&h->prepare, on_prepare);
    uv_check_start(&h->check, on_check);
}

struct http *http_create(struct server *s, uv_loop_t *loop, struct err *err) {
    struct http *h = mem_new(struct http);
    h->server = s;
    h->loop = loop;
    snprintf(h->id_prefix, sizeof h->id_prefix, "req-%08llx-", (unsigned long long)(uv_hrtime() & 0xffffffffu));
    int fd = listen_open(&s->config, &h->port, err);
    if (fd < 0) {
        free(h);
        return NULL;
    }
    MHD_set_panic_func(on_panic, NULL);
    h->slow_lane = slow_lane_create(h, err);
    h->daemon = h->slow_lane ? daemon_start(h, fd) : NULL;
    if (!h->daemon) {
        if (h->slow_lane) err_set(err, ERR_IO, "libmicrohttpd does not start");
        slow_lane_destroy(h->slow_lane);
        close(fd);
        free(h);
        return NULL;
    }
    handles_start(h);
    h->dirty = true; // the first turn puts the listening socket into epoll
    return h;
}

void http_quiesce(struct http *h) {
    if (h->quiesced) return;
    http_turn(h); // what was accepted already gets its chance
    h->quiesced = true;
    int fd = MHD_quiesce_daemon(h->daemon);
    if (fd >= 0) close(fd);
    for (struct http_connection *c = h->connections; c; c = c->next)
        if (connection_unused(c)) http_cut(c);
}

void http_abort_exchange(struct http_exchange *x) {
    const struct err err = {.code = ERR_BUSY, .message = "The server is shutting down."};
    if (x->aborted || x->r.gone) return;
    if (x->streaming) {
        http_stream_abort(x, &err);
    } else if ((x->stage == STAGE_ROUTE || x->stage == STAGE_ADMIT) && !x->response) {
        x->r.err = err;
        x->r.err_status = 0;
        x->r.err_code = NULL;
        http_reply_error(&x->r);
    }
    x->aborted = true;
}

void http_abort_requests(struct http *h) {
    h->aborting = true;
    slow_lane_abort(h->slow_lane);
    for (struct http_connection *c = h->connections; c; c = c->next) {
        if (!c->exchange) continue;
        if (c->exchange->working) atomic_store(&c->exchange->cancelled, true); // a worker owns its request: after it
        else http_abort_exchange(c->exchange);
    }
}

void http_cut_connections(struct http *h) {
    for (struct http_connection *c = h->connections; c; c = c->next) {
        http_cut(c);
        if (c->exchange) http_exchange_gone(c->exchange);
    }
    h->dirty = true;
}

bool http_idle(const struct http *h) { return h->n_requests == 0 && h->n_working == 0; }

void http_destroy(struct http *h) {
    if (!h) return;
    MHD_stop_daemon(h->daemon);
    h->daemon = NULL;
    slow_lane_destroy(h->slow_lane);
    uv_close((uv_handle_t *)&h->epoll_watch, NULL);
    uv_close((uv_handle_t *)&h->daemon_timer, NULL);
    uv_close((uv_handle_t *)&h->sweep_timer, NULL);
    uv_close((uv_handle_t *)&h->lag_timer, NULL);
    uv_close((uv_handle_t *)&h->prepare, NULL);
    uv_close((uv_handle_t *)&h->check, NULL);
    uv_run(h->loop, UV_RUN_NOWAIT);
    free(h);
}
