// SPDX-License-Identifier: MIT
// See files.h.
#include "server/files.h"

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "server/json_body.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

enum { SWEEP_ROWS = 1000 };

const char *file_path(const struct server *s, const char *id, struct arena *a) {
    return arena_printf(a, "%s/files/%s", s->config.data_dir, id);
}

bool file_find(struct http_request *r, const char *id, const char *param, struct stored_file *out) {
    const struct viewer v = http_viewer(r);
    if (store_file_get(r->server->store, &v, id, &r->arena, out, &r->err)) return true;
    return r->err.code == ERR_NOT_FOUND && request_fail(r, 404, "not_found", param, "There is no such file.");
}

void file_write_json(const struct stored_file *f, struct buf *out) {
    buf_printf(out, "{\"id\":\"%s\",\"object\":\"file\",\"bytes\":%lld,\"created_at\":%lld", f->id, (long long)f->bytes, (long long)f->created_s);
    if (f->expires_s) buf_printf(out, ",\"expires_at\":%lld", (long long)f->expires_s);
    buf_add_str(out, ",\"filename\":");
    buf_add_json_string(out, f->filename, strlen(f->filename));
    buf_add_str(out, ",\"purpose\":");
    buf_add_json_string(out, f->purpose, strlen(f->purpose));
    buf_printf(out, ",\"status\":\"processed\",\"status_details\":null,\"sha256\":\"%s\",\"shared\":%s}", f->sha256, f->shared ? "true" : "false");
}

bool files_disk_ok(const struct server *s, uint64_t bytes, struct err *err) {
    struct statvfs fs;
    if (s->config.disk_low_mb == 0 || statvfs(s->config.data_dir, &fs) != 0) return true;
    uint64_t room = (uint64_t)fs.f_bavail * fs.f_frsize, low = (uint64_t)s->config.disk_low_mb << 20;
    return (room > low && room - low >= bytes) || err_set(err, ERR_NO_SPACE, "The server's disk is nearly full; it takes no more data.");
}

static bool sweep_entries(struct server *s, const char *folder, struct err *err) {
    DIR *dir = opendir(folder);
    if (!dir) return err_set(err, ERR_IO, "%s cannot be read: %s", folder, strerror(errno));
    for (struct dirent *e; (e = readdir(dir));) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 || store_file_known(s->store, e->d_name)) continue;
        if (unlinkat(dirfd(dir), e->d_name, 0) == 0) log_line(LOG_INFO, "upload swept", "file", e->d_name, NULL);
    }
    closedir(dir);
    return true;
}

static bool sweep_rows(struct server *s, struct err *err) {
    static const struct viewer all = {.key = "", .all = true};
    struct page page = {.limit = SWEEP_ROWS};
    struct arena arena = {0};
    struct stored_file *rows;
    size_t n;
    bool more = true, ok = true;
    while (more && (ok = store_file_list(s->store, &all, &page, NULL, &arena, &rows, &n, &more, err))) {
        for (size_t i = 0; i < n; i++)
            if (!file_exists(file_path(s, rows[i].id, &arena))) log_line(LOG_ERROR, "file lost", "file", rows[i].id, NULL);
        if (n) page.after = rows[n - 1].id;
    }
    arena_finish(&arena);
    return ok;
}

bool files_sweep(struct server *s, struct err *err) {
    struct arena arena = {0};
    bool ok = sweep_entries(s, file_path(s, "", &arena), err) && sweep_rows(s, err);
    arena_finish(&arena);
    return ok;
}

void files_expire(struct server *s) {
    struct arena arena = {0};
    struct err err = {0};
    const char *const *ids;
    if (!store_file_expire(s->store, (int64_t)time(NULL), &arena, &ids, &err)) {
        log_line(LOG_ERROR, "files not expired", "message", err.message, NULL);
    } else {
        for (; ids && *ids; ids++) {
            unlink(file_path(s, *ids, &arena));
            log_line(LOG_INFO, "file expired", "file", *ids, NULL);
        }
    }
    arena_finish(&arena);
}
