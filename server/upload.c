// SPDX-License-Identifier: MIT
// One upload: form fields into memory, the file through SHA-256 to a temporary name in files/; at the end fsync, rename, fsync of the directory, and
// only then the row that makes it exist. A write or fsync that failed is not tried again: the file is thrown away.
//
// Thread: the sink's begin and data, and upload_work, on the pool, one after the other; start and end on the loop.
#include "server/upload.h"

#include "base/failpoint.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/sha256.h"
#include "base/utf8.h"
#include "server/files.h"
#include "server/json_body.h"
#include "server/multipart.h"
#include "server/options.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    FORM_OVERHEAD_BYTES = 64 << 10, // of a request's body beside its file
    FILES_MAX = 100000, // of one key: a quota of bytes alone lets in any number of small ones
    FIELD_BYTES = 256,
    FILENAME_BYTES = 255,
    LEAST_SECONDS = 3600, // OpenAI's bounds of expires_after
    MOST_SECONDS = 2592000,
    SYNC_BYTES = 8 << 20, // written back so often while the rest is still coming: the fsync at the end is short, and the disk is looked at
};

enum form_field { FIELD_PURPOSE, FIELD_EXPIRES_ANCHOR, FIELD_EXPIRES_SECONDS, FIELD_SHARED, FORM_FIELDS, PART_FILE, PART_IGNORED };
static const char *const form_names[FORM_FIELDS] = {"purpose", "expires_after[anchor]", "expires_after[seconds]", "shared"};

struct upload {
    struct multipart form;
    enum form_field part; // the one being read
    struct buf fields[FORM_FIELDS];
    bool seen[FORM_FIELDS], has_file;
    char id[STORE_ID_SIZE], filename[FILENAME_BYTES + 1];
    struct file_writer writer; // open until the row is about to be made
    struct sha256 sha;
    uint64_t synced;
    struct stored_file row;
};

// Two uploads may each fit into a quota and together not: what counts is the look before the row is made, one at a time.
static pthread_mutex_t row_lock = PTHREAD_MUTEX_INITIALIZER;

static bool quota_ok(struct http_request *r, uint64_t bytes) {
    const struct config *c = &r->server->config;
    const struct viewer v = http_viewer(r);
    struct file_usage usage;
    if (!store_file_usage(r->server->store, &v, &usage, &r->err)) return false;
    if (usage.own_files >= FILES_MAX) return err_set(&r->err, ERR_NO_SPACE, "This key has %d files, as many as it may have; delete some first.", FILES_MAX);
    if (usage.own_bytes + bytes > (uint64_t)c->files_quota_mb << 20)
        return err_set(&r->err, ERR_NO_SPACE, "This key's files would be over its quota of %zu MiB; delete some first.", c->files_quota_mb);
    if (usage.all_bytes + bytes > (uint64_t)c->files_total_mb << 20)
        return err_set(&r->err, ERR_NO_SPACE, "The server's files would be over their quota of %zu MiB.", c->files_total_mb);
    return true;
}

// ---- the form ----

static bool file_open(struct http_request *r, const struct multipart_part *part) {
    struct upload *u = r->state;
    if (u->has_file) return request_fail(r, 400, "invalid_value", "file", "The form holds more than one file.");
    const char *name = buf_str(&part->filename);
    for (const char *p = name; *p; p++)
        if (*p == '/' || *p == '\\') name = p + 1; // some browsers sent whole paths
    size_t len = strlen(name);
    bool plain = len <= FILENAME_BYTES && utf8_valid(name, len);
    for (size_t i = 0; plain && i < len; i++) plain = (unsigned char)name[i] >= ' ' && name[i] != 0x7f;
    if (!plain)
        return request_fail(r, 400, "invalid_value", "file", "A file's name must be UTF-8 text of at most %d bytes without control characters.",
                            FILENAME_BYTES);
    snprintf(u->filename, sizeof u->filename, "%s", len ? name : "upload");
    u->has_file = true;
    store_make_id(u->id, "file-");
    sha256_init(&u->sha);
    return file_writer_open(&u->writer, file_path(r->server, u->id, &r->arena), 0600, &r->err);
}

static bool on_part(void *ctx, const struct multipart_part *part, struct err *err) {
    struct http_request *r = ctx;
    struct upload *u = r->state;
    if (strcmp(buf_str(&part->name), "file") == 0) {
        u->part = PART_FILE;
        return file_open(r, part);
    }
    u->part = PART_IGNORED;
    for (size_t i = 0; i < FORM_FIELDS; i++) {
        if (strcmp(buf_str(&part->name), form_names[i]) != 0) continue;
        if (u->seen[i]) return request_fail(r, 400, "invalid_value", form_names[i], "The form names '%s' twice.", form_names[i]);
        u->seen[i] = true;
        u->part = (enum form_field)i;
    }
    return true;
}

static bool file_add(struct http_request *r, const char *p, size_t n) {
    struct upload *u = r->state;
    const size_t most = r->server->config.upload_max_bytes;
    if (u->writer.written + n > most) return request_fail(r, 413, "payload_too_large", "file", "A file may have at most %zu bytes.", most);
    sha256_update(&u->sha, p, n);
    file_writer_add(&u->writer, p, n);
    if (u->writer.error) return err_set(&r->err, err_code_of(u->writer.error), "%s/: the upload could not be written", r->server->config.data_dir);
    if (u->writer.written - u->synced < SYNC_BYTES) return true;
    u->synced = u->writer.written;
    sync_file_range(u->writer.fd, 0, 0, SYNC_FILE_RANGE_WRITE); // begins, and does not wait
    return files_disk_ok(r->server, 0, &r->err);
}

static bool on_data(void *ctx, const char *p, size_t n, struct err *err) {
    struct http_request *r = ctx;
    struct upload *u = r->state;
    if (u->part == PART_FILE) return file_add(r, p, n);
    if (u->part == PART_IGNORED) return true;
    struct buf *field = &u->fields[u->part];
    if (field->len + n > FIELD_BYTES) return request_fail(r, 400, "invalid_value", form_names[u->part], "'%s' is too long.", form_names[u->part]);
    buf_add(field, p, n);
    return true;
}

// ---- the sink ----

static size_t max_bytes(const struct http_request *r) { return r->server->config.upload_max_bytes + FORM_OVERHEAD_BYTES; }

static bool upload_begin(struct http_request *r, uint64_t content_length) {
    const char *type = http_header(r, "Content-Type");
    struct upload *u = r->state = mem_new(struct upload);
    u->form = (struct multipart){.on_part = on_part, .on_data = on_data, .ctx = r};
    u->writer.fd = -1;
    const uint64_t bytes = content_length == UINT64_MAX ? 0 : content_length > FORM_OVERHEAD_BYTES ? content_length - FORM_OVERHEAD_BYTES : 0;
    return multipart_init(&u->form, type ? type : "", &r->err) && files_disk_ok(r->server, bytes, &r->err) && quota_ok(r, bytes);
}

static bool upload_data(struct http_request *r, const char *p, size_t n) {
    struct upload *u = r->state;
    return multipart_feed(&u->form, p, n, &r->err);
}

const struct http_sink upload_sink = {
    .content_type = "multipart/form-data",
    .max_bytes = max_bytes,
    .begin = upload_begin,
    .data = upload_data,
    .schema = "{\"type\":\"object\",\"required\":[\"file\",\"purpose\"],\"properties\":{\"file\":{\"type\":\"string\",\"format\":\"binary\"},"
              "\"purpose\":{\"type\":\"string\",\"enum\":[\"fine-tune\",\"assistants\",\"batch\",\"vision\",\"user_data\",\"evals\"]},"
              "\"expires_after[anchor]\":{\"type\":\"string\",\"enum\":[\"created_at\"]},"
              "\"expires_after[seconds]\":{\"type\":\"integer\",\"minimum\":3600,\"maximum\":2592000},"
              "\"shared\":{\"type\":\"boolean\",\"description\":\"Keys of scope admin only: every key may read the file.\"}}}",
};

// ---- the end of the form ----

static bool purpose_known(const char *purpose) {
    static const char *const purposes[] = {"fine-tune", "assistants", "batch", "vision", "user_data", "evals"};
    for (size_t i = 0; i < ARRAY_LEN(purposes); i++)
        if (strcmp(purposes[i], purpose) == 0) return true;
    return false;
}

static bool expiry_read(struct http_request *r, int64_t now_s, int64_t *expires_s) {
    struct upload *u = r->state;
    uint64_t seconds;
    *expires_s = 0;
    if (!u->seen[FIELD_EXPIRES_ANCHOR] && !u->seen[FIELD_EXPIRES_SECONDS]) return true;
    if (strcmp(buf_str(&u->fields[FIELD_EXPIRES_ANCHOR]), "created_at") != 0)
        return request_fail(r, 400, "invalid_value", "expires_after.anchor", "'expires_after[anchor]' must be 'created_at'.");
    if (!option_read_uint64(buf_str(&u->fields[FIELD_EXPIRES_SECONDS]), &seconds) || seconds < LEAST_SECONDS || seconds > MOST_SECONDS)
        return request_fail(r, 400, "value_out_of_range", "expires_after.seconds", "'expires_after[seconds]' must be between %d and %d.", LEAST_SECONDS,
                            MOST_SECONDS);
    *expires_s = now_s + (int64_t)seconds;
    return true;
}

static bool form_read(struct http_request *r) {
    struct upload *u = r->state;
    if (!multipart_end(&u->form, &r->err)) return false;
    if (!u->has_file) return request_fail(r, 400, "missing_required_parameter", "file", "The form holds no 'file'.");
    if (!u->seen[FIELD_PURPOSE]) return request_fail(r, 400, "missing_required_parameter", "purpose", "The form holds no 'purpose'.");
    const char *purpose = buf_str(&u->fields[FIELD_PURPOSE]), *shared = buf_str(&u->fields[FIELD_SHARED]);
    if (!purpose_known(purpose)) return request_fail(r, 400, "invalid_value", "purpose", "The 'purpose' is not one of those that files are uploaded for.");
    if (*shared && strcmp(shared, "true") != 0 && strcmp(shared, "false") != 0)
        return request_fail(r, 400, "invalid_value", "shared", "'shared' must be 'true' or 'false'.");
    if (strcmp(shared, "true") == 0 && r->key_scope != SCOPE_ADMIN)
        return request_fail(r, 403, "insufficient_scope", "shared", "Only keys of scope admin share files with everybody.");
    if (u->writer.written == 0) return request_fail(r, 400, "invalid_value", "file", "The file is empty.");
    const int64_t now_s = (int64_t)time(NULL);
    u->row = (struct stored_file){.id = u->id, .owner = r->key_id, .filename = u->filename, .purpose = purpose, .bytes = (int64_t)u->writer.written,
                                  .created_s = now_s, .shared = strcmp(shared, "true") == 0};
    return expiry_read(r, now_s, &u->row.expires_s);
}

bool upload_work(struct http_request *r) {
    struct upload *u = r->state;
    unsigned char hash[32];
    char hex[65];
    if (!form_read(r)) return false;
    sha256_digest(&u->sha, hash);
    hex_write(hash, sizeof hash, hex);
    u->row.sha256 = arena_strndup(&r->arena, hex, 64);
    failpoint("upload.before_rename");
    bool ok = file_writer_finish(&u->writer, &r->err);
    if (ok) {
        failpoint("upload.after_rename");
        pthread_mutex_lock(&row_lock);
        ok = quota_ok(r, (uint64_t)u->row.bytes) && store_file_add(r->server->store, &u->row, &r->err);
        pthread_mutex_unlock(&row_lock);
    }
    if (!ok) unlink(file_path(r->server, u->id, &r->arena)); // also after a rename whose directory could not be synced
    return ok;
}

void upload_start(struct http_request *r) {
    const struct upload *u = r->state;
    struct buf body = {0};
    file_write_json(&u->row, &body);
    http_reply_json(r, 200, &body);
}

static void upload_destroy(void *ctx) {
    struct upload *u = ctx;
    file_writer_abort(&u->writer);
    multipart_finish(&u->form);
    for (size_t i = 0; i < FORM_FIELDS; i++) buf_finish(&u->fields[i]);
    free(u);
}

void upload_end(struct http_request *r) {
    struct upload *u = r->state;
    if (!u) return;
    if (u->writer.path) http_pool_post(r->server, upload_destroy, u); // removing a large file takes a while
    else upload_destroy(u);
}
