// SPDX-License-Identifier: MIT
// /v1/files: upload, list, one, its content, its end. The store is asked on the pool; uploads: upload.c, reports: file_report.c.
#include "base/mem.h"
#include "server/file_report.h"
#include "server/files.h"
#include "server/json_body.h"
#include "server/options.h"
#include "server/routes.h"
#include "server/upload.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LIST_MAX = 10000 };

struct reply {
    struct buf body;
    struct stored_file file;
    int fd; // of a content that is about to be sent, or -1
    uint64_t size;
};

static struct reply *reply_make(struct http_request *r) {
    struct reply *reply = r->state = arena_alloc(&r->arena, 1, sizeof *reply);
    reply->fd = -1;
    return reply;
}
static void reply_end(struct http_request *r) {
    struct reply *reply = r->state;
    if (!reply) return;
    buf_finish(&reply->body);
    if (reply->fd >= 0) close(reply->fd);
}
static void reply_start(struct http_request *r) { http_reply_json(r, 200, &((struct reply *)r->state)->body); }

// ---- list, one ----

static bool page_read(struct http_request *r, struct page *out) {
    const char *limit = http_query(r, "limit"), *order = http_query(r, "order"), *after = http_query(r, "after");
    uint64_t n = LIST_MAX;
    if (limit && (!option_read_uint64(limit, &n) || n < 1 || n > LIST_MAX))
        return request_fail(r, 400, "value_out_of_range", "limit", "'limit' must be between 1 and %d.", LIST_MAX);
    if (order && strcmp(order, "asc") != 0 && strcmp(order, "desc") != 0)
        return request_fail(r, 400, "invalid_value", "order", "'order' must be 'asc' or 'desc'.");
    *out = (struct page){.after = after && *after ? after : NULL, .limit = (size_t)n, .ascending = order && strcmp(order, "asc") == 0};
    return true;
}

static bool list_work(struct http_request *r) {
    struct buf *body = &reply_make(r)->body;
    const struct viewer v = http_viewer(r);
    const char *purpose = http_query(r, "purpose");
    struct stored_file *files;
    struct page page;
    size_t n;
    bool more;
    if (!page_read(r, &page)) return false;
    if (!store_file_list(r->server->store, &v, &page, purpose && *purpose ? purpose : NULL, &r->arena, &files, &n, &more, &r->err)) return false;
    buf_add_str(body, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; i < n; i++) {
        if (i) buf_add_byte(body, ',');
        file_write_json(&files[i], body);
    }
    if (n) buf_printf(body, "],\"first_id\":\"%s\",\"last_id\":\"%s\"", files[0].id, files[n - 1].id);
    else buf_add_str(body, "],\"first_id\":null,\"last_id\":null");
    buf_printf(body, ",\"has_more\":%s}", more ? "true" : "false");
    return true;
}

static bool one_work(struct http_request *r) {
    struct reply *reply = reply_make(r);
    if (!file_find(r, r->tail, "id", &reply->file)) return false;
    file_write_json(&reply->file, &reply->body);
    return true;
}

// ---- content ----

static bool content_work(struct http_request *r) {
    struct reply *reply = reply_make(r);
    struct stat st;
    if (!file_find(r, r->tail, "id", &reply->file)) return false;
    reply->fd = open(file_path(r->server, reply->file.id, &r->arena), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (reply->fd < 0 && errno == ENOENT) return request_fail(r, 404, "not_found", "id", "The content of this file is lost.");
    if (reply->fd < 0 || fstat(reply->fd, &st) != 0) return err_set(&r->err, ERR_IO, "%s: %s", reply->file.id, strerror(errno));
    reply->size = (uint64_t)st.st_size;
    return true;
}

static void content_start(struct http_request *r) {
    struct reply *reply = r->state;
    const int fd = reply->fd;
    reply->fd = -1;
    http_reply_file(r, 200, "application/octet-stream", fd, reply->size, reply->file.filename);
}

// ---- delete ----

static bool delete_work(struct http_request *r) {
    struct buf *body = &reply_make(r)->body;
    const struct viewer v = http_viewer(r);
    struct stored_file file;
    const char *const *models;
    if (!file_find(r, r->tail, "id", &file)) return false;
    if (!store_file_remove(r->server->store, &v, file.id, &r->arena, &models, &r->err)) {
        if (r->err.code == ERR_BUSY)
            return request_fail(r, 409, "file_in_use", "id", "A job that has not ended uses this file; cancel it or wait for its end.");
        // Seen but not owned: a shared file of another key's.
        return r->err.code == ERR_NOT_FOUND ? request_fail(r, 403, "forbidden", "id", "This file belongs to another key.") : false;
    }
    unlink(file_path(r->server, file.id, &r->arena)); // a crash before: files_sweep
    buf_printf(body, "{\"id\":\"%s\",\"object\":\"file\",\"deleted\":true,\"models\":[", file.id);
    for (size_t i = 0; models && models[i]; i++) {
        if (i) buf_add_byte(body, ',');
        buf_add_json_string(body, models[i], strlen(models[i]));
    }
    buf_add_str(body, "]}");
    return true;
}

const struct http_route file_routes[] = {
    {"POST", "/v1/files", SCOPE_TRAIN, upload_work, upload_start, upload_end, "Upload a file", &upload_sink},
    {"GET", "/v1/files", SCOPE_TRAIN, list_work, reply_start, reply_end, "List files"},
    {"GET", "/v1/files/{id}", SCOPE_TRAIN, one_work, reply_start, reply_end, "One file"},
    {"DELETE", "/v1/files/{id}", SCOPE_TRAIN, delete_work, reply_start, reply_end, "Delete a file"},
    {"GET", "/v1/files/{id}/content", SCOPE_TRAIN, content_work, content_start, reply_end, "A file's bytes"},
    {"GET", "/v1/files/{id}/report", SCOPE_TRAIN, file_report_work, file_report_start, file_report_end,
     "A data file's rows, tokens and problems, as ?model= would be trained on it"},
    {0},
};
