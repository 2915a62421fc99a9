// SPDX-License-Identifier: MIT
// Whole answers: body and headers become a libmicrohttpd response that the access handler queues. Thread: loop.
#include "server/http_internal.h"

#include <assert.h>
#include <ctype.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void http_set_header(struct http_request *r, const char *name, const char *value) {
    struct http_exchange *x = http_exchange_of(r);
    struct http_pair_list *h = arena_alloc(&r->arena, 1, sizeof *h);
    h->pair.name = arena_strndup(&r->arena, name, strlen(name));
    h->pair.value = arena_strndup(&r->arena, value, strlen(value));
    h->next = x->reply_headers;
    x->reply_headers = h;
}

void http_add_standard_headers(struct http_exchange *x) {
    for (struct http_pair_list *h = x->reply_headers; h; h = h->next) MHD_add_response_header(x->response, h->pair.name, h->pair.value);
    MHD_add_response_header(x->response, "x-request-id", x->r.id);
    MHD_add_response_header(x->response, "X-Content-Type-Options", "nosniff");
    if (x->close_after || server_state(x->http->server) == SERVER_DRAINING)
        MHD_add_response_header(x->response, MHD_HTTP_HEADER_CONNECTION, "close");
}

// Takes the response; NULL, out of memory: the client sees a closed connection.
static void reply_send(struct http_exchange *x, int status, const char *content_type, struct MHD_Response *response, uint64_t bytes) {
    assert(!x->response && x->stage != STAGE_REPLYING && !x->streaming);
    x->response = response;
    if (!x->response) {
        http_cut(x->connection);
        return;
    }
    x->status = status;
    x->bytes = bytes;
    if (content_type) MHD_add_response_header(x->response, MHD_HTTP_HEADER_CONTENT_TYPE, content_type);
    http_add_standard_headers(x);
    http_wake(x->connection);
}

void http_reply(struct http_request *r, int status, const char *content_type, struct buf *body) {
    struct http_exchange *x = http_exchange_of(r);
    if (http_exchange_mute(x)) {
        buf_finish(body);
        return;
    }
    size_t len = body->len;
    char *data = buf_detach(body);
    struct MHD_Response *response = MHD_create_response_from_buffer(len, data, MHD_RESPMEM_MUST_FREE);
    if (!response) free(data);
    reply_send(x, status, content_type, response, len);
}

// A name of the client's own choosing in a header (RFC 6266): plain ASCII for old readers, and percent-encoded (RFC 8187) where that loses something.
static void set_disposition(struct http_request *r, const char *name) {
    struct buf value = {0};
    bool plain = true;
    buf_add_str(&value, "attachment; filename=\"");
    for (const char *p = name; *p; p++) {
        bool safe = *p >= ' ' && *p < 0x7f && !strchr("\"\\%", *p);
        buf_add_byte(&value, safe ? (unsigned char)*p : '_');
        plain &= safe;
    }
    buf_add_byte(&value, '"');
    if (!plain) buf_add_str(&value, "; filename*=UTF-8''");
    for (const char *p = name; *p && !plain; p++)
        buf_printf(&value, isalnum((unsigned char)*p) || strchr("-._~", *p) ? "%c" : "%%%02X", (unsigned char)*p);
    http_set_header(r, "Content-Disposition", value.data);
    buf_finish(&value);
}

void http_reply_file(struct http_request *r, int status, const char *content_type, int fd, uint64_t size, const char *download_name) {
    struct http_exchange *x = http_exchange_of(r);
    if (http_exchange_mute(x)) {
        close(fd);
        return;
    }
    posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL); // libmicrohttpd sends 128 KiB a turn, from the page cache if the kernel read ahead
    if (download_name) set_disposition(r, download_name);
    struct MHD_Response *response = MHD_create_response_from_fd64(size, fd);
    if (!response) close(fd);
    reply_send(x, status, content_type, response, size);
}

void http_reply_json(struct http_request *r, int status, struct buf *body) { http_reply(r, status, "application/json", body); }

void http_reply_error(struct http_request *r) {
    struct api_error e = api_error_of(r);
    struct buf body = {0};
    api_error_write(&body, &e, r->err.message, r->err.param);
    if (e.status == 401) http_set_header(r, "WWW-Authenticate", "Bearer");
    if (e.status == 429 || e.status == 503) http_set_header(r, "Retry-After", e.status == 429 ? "1" : "2");
    if (e.status == 409 || e.status == 507) http_set_header(r, "x-should-retry", "false"); // openai-python repeats them otherwise
    http_reply_json(r, e.status, &body);
}

void http_refuse(struct http_exchange *x) { http_reply_error(&x->r); }
