// SPDX-License-Identifier: MIT
// Lingering closes. An answer given before the request was read to its end (413, 400) is lost when the kernel resets the
// connection over the unread bytes; so a duplicate of the socket outlives libmicrohttpd's, and what still comes is read and dropped
// until the peer closes or HTTP_LINGER_MS passed. At most HTTP_LINGER_MAX at a time. Thread: loop.
#include "server/http_internal.h"

#include "base/mem.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

struct lingerer {
    struct http *http;
    int fd;
    int open_handles;
    uv_poll_t poll;
    uv_timer_t timer;
};

static void on_closed(uv_handle_t *handle) {
    struct lingerer *l = handle->data;
    if (--l->open_handles) return;
    close(l->fd);
    l->http->n_lingering--;
    free(l);
}

static void linger_end(struct lingerer *l) {
    if (uv_is_closing((uv_handle_t *)&l->timer)) return;
    uv_close((uv_handle_t *)&l->timer, on_closed);
    uv_close((uv_handle_t *)&l->poll, on_closed);
}

static void on_timer(uv_timer_t *timer) { linger_end(timer->data); }

static void on_readable(uv_poll_t *poll, int status, int events) {
    struct lingerer *l = poll->data;
    static char sink[65536];
    for (int round = 0; round < 16; round++) {
        ssize_t n = recv(l->fd, sink, sizeof sink, MSG_DONTWAIT);
        if (n > 0) continue;
        if (n < 0 && (errno == EAGAIN || errno == EINTR) && status == 0) return;
        linger_end(l);
        return;
    }
}

void http_linger(struct http *h, int fd) {
    if (h->n_lingering >= HTTP_LINGER_MAX || server_state(h->server) == SERVER_DRAINING) return;
    int own = dup(fd);
    if (own < 0) return;
    struct lingerer *l = mem_new(struct lingerer);
    l->http = h;
    l->fd = own;
    if (uv_poll_init(h->loop, &l->poll, own) != 0) {
        close(own);
        free(l);
        return;
    }
    h->n_lingering++;
    uv_timer_init(h->loop, &l->timer);
    l->poll.data = l->timer.data = l;
    l->open_handles = 2;
    uv_poll_start(&l->poll, UV_READABLE, on_readable);
    uv_timer_start(&l->timer, on_timer, HTTP_LINGER_MS, 0);
}
