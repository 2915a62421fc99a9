// SPDX-License-Identifier: MIT
// Server-sent events: a byte queue a stream, drained by libmicrohttpd's reader. Empty queue: the connection is suspended until
// the next send. Knows nothing of what the events say. Thread: loop.
#include "server/http_internal.h"

#include "base/mem.h"

#include <assert.h>
#include <string.h>

static ssize_t stream_read(void *cls, uint64_t pos, char *out, size_t max) {
    struct http_exchange *x = cls;
    if (x->r.gone || !x->connection) return MHD_CONTENT_READER_END_WITH_ERROR;
    size_t n = MIN(x->queue.len - x->queue_head, max);
    if (n) {
        memcpy(out, x->queue.data + x->queue_head, n);
        x->queue_head += n;
        if (x->queue_head == x->queue.len) {
            buf_clear(&x->queue);
            x->queue_head = 0;
        }
        x->progress_ns = uv_hrtime();
        return (ssize_t)n;
    }
    if (x->stream_closed) return MHD_CONTENT_READER_END_OF_STREAM;
    http_suspend(x->connection); // before the 0, always: rule 3
    return 0;
}

void http_stream_open(struct http_request *r) {
    struct http_exchange *x = http_exchange_of(r);
    if (http_exchange_mute(x)) return;
    assert(!x->response && x->stage != STAGE_REPLYING && !x->streaming);
    x->response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 4096, stream_read, x, NULL);
    if (!x->response) {
        http_cut(x->connection);
        return;
    }
    x->streaming = true;
    x->status = 200;
    x->progress_ns = x->last_queued_ns = uv_hrtime();
    MHD_add_response_header(x->response, MHD_HTTP_HEADER_CONTENT_TYPE, "text/event-stream; charset=utf-8");
    MHD_add_response_header(x->response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-cache");
    MHD_add_response_header(x->response, "X-Accel-Buffering", "no"); // nginx: hand every event on at once
    http_add_standard_headers(x);
    http_wake(x->connection);
}

void http_stream_send(struct http_request *r, const void *data, size_t len) {
    struct http_exchange *x = http_exchange_of(r);
    if (http_exchange_mute(x) || x->stream_closed) return;
    assert(x->streaming);
    if (x->queue.len - x->queue_head > HTTP_STREAM_CAP_BYTES) {
        http_cut(x->connection);
        return;
    }
    if (x->queue_head > 65536 && x->queue_head > x->queue.len / 2) { // the taken part of a queue that never runs empty goes
        memmove(x->queue.data, x->queue.data + x->queue_head, x->queue.len - x->queue_head);
        x->queue.len -= x->queue_head;
        x->queue_head = 0;
    }
    buf_add(&x->queue, data, len);
    x->bytes += len;
    x->last_queued_ns = uv_hrtime();
    if (x->connection->suspended) x->progress_ns = x->last_queued_ns; // the reader had nothing to take until now
    http_wake(x->connection);
}

void http_stream_close(struct http_request *r) {
    struct http_exchange *x = http_exchange_of(r);
    if (http_exchange_mute(x)) return;
    assert(x->streaming);
    x->stream_closed = true;
    http_wake(x->connection);
}

void http_stream_abort(struct http_exchange *x, const struct err *err) {
    x->r.err = *err;
    struct api_error e = api_error_of(&x->r);
    struct buf event = {0};
    buf_add_str(&event, "data: ");
    api_error_write(&event, &e, err->message, err->param);
    buf_add_str(&event, "\n\n");
    http_stream_send(&x->r, event.data, event.len);
    buf_finish(&event);
    http_stream_close(&x->r);
}

void http_stream_sweep(struct http_exchange *x, uint64_t now_ns) {
    if (!x->streaming || x->r.gone) return;
    const struct config *config = &x->http->server->config;
    bool pending = x->queue.len > x->queue_head;
    if (pending && now_ns > x->progress_ns + (uint64_t)config->stall_seconds * 1000000000u) {
        http_exchange_gone(x);
        return;
    }
    if (!pending && !x->stream_closed && now_ns > x->last_queued_ns + (uint64_t)config->ping_seconds * 1000000000u)
        http_stream_send(&x->r, ":\n\n", 3);
}
