// SPDX-License-Identifier: MIT
// The hub's two requests (huggingface.co/docs/hub/api): GET /api/models/NAME/revision/REV?blobs=true lists, GET /NAME/resolve/COMMIT/FILE
// sends a file, often by redirecting to a store on another host, to which libcurl does not carry the token.
//
// Invariants: (1) nothing the hub says becomes a path before name_safe saw it; (2) PATH.part is taken up only where a sha256 will tell
// whether old and new bytes fit together; (3) only bytes that were checked are renamed to PATH.
#include "server/hub.h"

#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/sha256.h"

#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LISTING_MAX = 8 << 20, FRUITLESS_MAX = 3, STALL_S = 60 };

bool hub_open(struct hub *h, struct err *err) {
    const char *endpoint = getenv("HF_ENDPOINT");
    return outbound_open(&h->out, endpoint && *endpoint ? endpoint : "https://huggingface.co", "HF_ENDPOINT", getenv("HF_TOKEN"), "HF_TOKEN", err);
}

void hub_close(struct hub *h) { outbound_close(&h->out); }

static void request_start(struct hub *h, const struct buf *url, curl_write_callback write, void *ctx) {
    CURL *curl = h->out.curl;
    outbound_start(&h->out, buf_str(url), write, ctx);
    curl_easy_setopt(curl, CURLOPT_REDIR_PROTOCOLS_STR, strncmp(h->out.endpoint, "https:", 6) == 0 ? "https" : "http,https");
    curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(curl, CURLOPT_MAXREDIRS, 10L);
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, (long)STALL_S);
}

static long status_of(struct hub *h) { return outbound_status(&h->out); }

static bool status_check(struct hub *h, const char *model, const char *what, struct err *err) {
    const long status = status_of(h);
    if (status >= 200 && status < 300) return true;
    if (status == 401)
        return err_set(err, ERR_NOT_FOUND, "the hub answers 401 for %s: there is no such model, or it is private and HF_TOKEN does not open it", model);
    if (status == 403) return err_set(err, ERR_NOT_FOUND, "the hub answers 403 for %s: accept the model's terms on its page and set HF_TOKEN", model);
    if (status == 404) return err_set(err, ERR_NOT_FOUND, "the hub has no %s of %s", what, model);
    return err_set(err, ERR_IO, "the hub answers %ld for %s of %s", status, what, model);
}

// ---- what there is

static bool name_safe(const char *s, size_t len) {
    if (len == 0 || len > 255 || s[0] == '/') return false;
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)s[i] < ' ' || s[i] == 127 || s[i] == '\\') return false; // NUL among them
    for (size_t from = 0, to; from <= len; from = to + 1) { // each part
        for (to = from; to < len && s[to] != '/';) to++;
        if (to == from || (s[from] == '.' && (to == from + 1 || (to == from + 2 && s[from + 1] == '.')))) return false;
    }
    return true;
}

// One of the listing's "siblings"; what large-file storage says of it ("lfs") counts.
static bool sibling_read(json_t *sibling, struct hub_repo *r, struct err *err) {
    const char *name = NULL, *sha256 = NULL;
    size_t name_len = 0;
    json_int_t size = HUB_SIZE_UNKNOWN;
    json_t *lfs = json_object_get(sibling, "lfs");
    if (json_unpack(sibling, "{s:s%, s?I}", "rfilename", &name, &name_len, "size", &size) != 0 ||
        (lfs && !json_is_null(lfs) && json_unpack(lfs, "{s:s, s:I}", "sha256", &sha256, "size", &size) != 0) || size < HUB_SIZE_UNKNOWN ||
        (sha256 && (strlen(sha256) != 64 || strspn(sha256, "0123456789abcdef") != 64)))
        return err_set(err, ERR_CORRUPT, "an entry has no name, no size or no sha256 that could be one");
    if (!name_safe(name, name_len))
        return err_set(err, ERR_CORRUPT, "the file name \"%s\" is refused: it could lead outside the directory", name);
    mem_grow(&r->files, &r->files_cap, r->n_files + 1);
    struct hub_file *f = &r->files[r->n_files++];
    *f = (struct hub_file){.name = mem_strdup(name), .size = size};
    if (sha256) memcpy(f->sha256, sha256, sizeof(f->sha256));
    return true;
}

static bool listing_read(const struct buf *text, struct hub_repo *r, struct err *err) {
    json_error_t why;
    json_t *root = json_loadb(buf_str(text), text->len, JSON_ALLOW_NUL, &why), *siblings, *sibling;
    const char *commit;
    size_t i;
    bool ok = json_unpack(root, "{s:s, s:o}", "sha", &commit, "siblings", &siblings) == 0;
    ok = ok && *commit && strlen(commit) <= 64 && strspn(commit, "0123456789abcdef") == strlen(commit);
    if (!ok) (void)err_set(err, ERR_CORRUPT, "no JSON with commit and files");
    if (ok) r->commit = mem_strdup(commit);
    if (ok) json_array_foreach(siblings, i, sibling) if (!(ok = sibling_read(sibling, r, err))) break;
    json_decref(root);
    return ok || err_prefix(err, "the hub's listing");
}

static size_t listing_write(char *data, size_t size, size_t n, void *ctx) {
    struct buf *b = ctx;
    if (n > LISTING_MAX - b->len) return 0;
    buf_add(b, data, n);
    return n;
}

bool hub_list(struct hub *h, const char *model, const char *revision, struct hub_repo *out, struct err *err) {
    struct buf url = {0}, text = {0};
    struct hub_repo r = {0};
    buf_printf(&url, "%s/api/models/", h->out.endpoint);
    outbound_add_escaped(&h->out, &url, model, true);
    buf_add_str(&url, "/revision/");
    outbound_add_escaped(&h->out, &url, revision, false);
    buf_add_str(&url, "?blobs=true");
    request_start(h, &url, listing_write, &text);
    const CURLcode code = curl_easy_perform(h->out.curl);
    bool ok = code == CURLE_OK ? status_check(h, model, "such revision", err)
                               : err_set(err, ERR_IO, "the hub at %s cannot be reached: %s", h->out.endpoint, curl_easy_strerror(code));
    ok = ok && listing_read(&text, &r, err);
    buf_finish(&url);
    buf_finish(&text);
    if (ok) *out = r;
    else hub_repo_finish(&r);
    return ok;
}

void hub_repo_finish(struct hub_repo *r) {
    for (size_t i = 0; i < r->n_files; i++) free(r->files[i].name);
    free(r->files);
    free(r->commit);
    *r = (struct hub_repo){0};
}

// ---- one file

struct transfer {
    struct hub *h;
    const struct hub_file *f;
    int fd;
    uint64_t done, resumed;
    struct sha256 hash; // of the bytes in the file
    bool first, damaged; // no byte of this answer came yet; more bytes than listed, or others than asked for
    int error;           // errno of a write
    hub_progress_fn *progress;
    void *ctx;
};

// Starts the file again: there is nothing to resume, or the server answers a range with the whole.
static bool restart(struct transfer *t) {
    t->done = t->resumed = 0;
    sha256_init(&t->hash);
    return ftruncate(t->fd, 0) == 0 && lseek(t->fd, 0, SEEK_SET) == 0;
}

static bool range_start_ok(struct transfer *t) {
    struct curl_header *header;
    unsigned long long from;
    return curl_easy_header(t->h->out.curl, "Content-Range", 0, CURLH_HEADER, -1, &header) == CURLHE_OK &&
           sscanf(header->value, "bytes %llu-", &from) == 1 && from == t->done;
}

static size_t file_bytes(char *data, size_t size, size_t n, void *ctx) {
    struct transfer *t = ctx;
    const long status = status_of(t->h);
    if (status < 200 || status >= 300) return n; // an error's page: not for the file
    if (t->first && t->done && status == 206) t->damaged = !range_start_ok(t);
    else if (t->first && t->done && !restart(t)) t->error = errno;
    t->first = false;
    t->damaged |= t->f->size != HUB_SIZE_UNKNOWN && n > (uint64_t)t->f->size - t->done;
    for (size_t at = 0; at < n && !t->damaged && !t->error;) {
        const ssize_t wrote = write(t->fd, data + at, n - at);
        if (wrote >= 0) at += (size_t)wrote;
        else if (errno != EINTR) t->error = errno;
    }
    if (t->damaged || t->error) return 0; // anything but n ends the transfer
    sha256_update(&t->hash, data, n);
    t->done += n;
    if (t->progress) t->progress(t->ctx, t->done, t->resumed);
    return n;
}

// Hashes what an earlier try left, and stands behind it.
static bool resume(struct transfer *t) {
    static unsigned char block[1 << 16];
    if (!t->f->sha256[0]) return restart(t);
    sha256_init(&t->hash);
    ssize_t n;
    while ((n = read(t->fd, block, sizeof(block))) > 0) {
        sha256_update(&t->hash, block, (size_t)n);
        t->done += (size_t)n;
    }
    t->resumed = t->done;
    return n == 0 && (t->f->size == HUB_SIZE_UNKNOWN || t->done <= (uint64_t)t->f->size || restart(t));
}

// Asks until the file is whole. A cut connection that brought something is taken up at once, one that brought nothing a few times.
static bool transfer_run(struct transfer *t, const struct buf *url, const char *model, struct err *err) {
    for (int fruitless = 0; t->f->size == HUB_SIZE_UNKNOWN || t->done < (uint64_t)t->f->size || t->done == 0;) {
        char range[32];
        const uint64_t before = t->done;
        request_start(t->h, url, file_bytes, t);
        snprintf(range, sizeof(range), "%llu-", (unsigned long long)t->done);
        if (t->done) curl_easy_setopt(t->h->out.curl, CURLOPT_RANGE, range);
        t->first = true;
        const CURLcode code = curl_easy_perform(t->h->out.curl);
        if (t->damaged) return err_set(err, ERR_CORRUPT, "the hub sends other bytes of %s than it lists", t->f->name);
        if (t->error) return err_set(err, ERR_IO, "cannot write %s: %s", t->f->name, strerror(t->error));
        if (code == CURLE_OK && status_of(t->h) < 500) {
            if (!status_check(t->h, model, t->f->name, err)) return false;
            if (t->f->size == HUB_SIZE_UNKNOWN || t->done == (uint64_t)t->f->size) break;
        }
        if (t->done > before) fruitless = 0;
        else if (++fruitless > FRUITLESS_MAX)
            return code == CURLE_OK ? status_check(t->h, model, t->f->name, err) && err_set(err, ERR_IO, "the hub sends no more of %s", t->f->name)
                                    : err_set(err, ERR_IO, "the download of %s ended early (%s); run the command again to go on", t->f->name,
                                              curl_easy_strerror(code));
        if (fruitless) sleep(1);
    }
    return true;
}

static bool bytes_check(struct transfer *t, struct err *err) {
    unsigned char digest[32];
    char hex[65];
    sha256_digest(&t->hash, digest);
    hex_write(digest, sizeof digest, hex);
    return !t->f->sha256[0] || strcmp(hex, t->f->sha256) == 0 ||
           err_set(err, ERR_CORRUPT, "%s is damaged and was removed: its sha256 is %s, the hub states %s", t->f->name, hex, t->f->sha256);
}

bool hub_download(struct hub *h, const char *model, const char *commit, const struct hub_file *f, const char *path, hub_progress_fn *progress,
                  void *ctx, struct err *err) {
    struct buf part = {0}, url = {0}, dir = {0};
    struct err why = {0};
    buf_printf(&part, "%s.part", path);
    buf_printf(&url, "%s/", h->out.endpoint);
    outbound_add_escaped(&h->out, &url, model, true);
    buf_printf(&url, "/resolve/%s/", commit);
    outbound_add_escaped(&h->out, &url, f->name, true);
    buf_printf(&dir, "%.*s", (int)(strrchr(path, '/') - path), path);
    struct transfer t = {.h = h, .f = f, .progress = progress, .ctx = ctx};
    t.fd = open(part.data, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    bool ok = t.fd >= 0 && resume(&t);
    if (!ok) (void)err_set(&why, ERR_IO, "cannot write %s: %s", part.data, strerror(errno));
    ok = ok && transfer_run(&t, &url, model, &why) && bytes_check(&t, &why);
    if (ok && fsync(t.fd) != 0) ok = err_set(&why, ERR_IO, "cannot write %s: %s", part.data, strerror(errno));
    if (t.fd >= 0) close(t.fd);
    if (ok && rename(part.data, path) != 0) ok = err_set(&why, ERR_IO, "cannot rename to %s: %s", path, strerror(errno));
    ok = ok && dir_sync(dir.data, &why);
    if (!ok && (why.code == ERR_CORRUPT || (t.fd >= 0 && t.done == 0))) unlink(part.data);
    if (!ok && err) *err = why;
    buf_finish(&part);
    buf_finish(&url);
    buf_finish(&dir);
    return ok;
}

bool hub_file_present(const struct hub_file *f, const char *path) {
    struct file_map m;
    if (!file_exists(path) || !file_map_open(&m, path, NULL)) return false;
    char hex[65];
    bool same = f->size != HUB_SIZE_UNKNOWN && m.len == (uint64_t)f->size;
    if (same && f->sha256[0]) {
        sha256_hex(m.data ? (const void *)m.data : "", m.len, hex);
        same = strcmp(hex, f->sha256) == 0;
    }
    file_map_close(&m);
    return same;
}
