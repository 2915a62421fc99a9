// SPDX-License-Identifier: MIT
// Answers with an embedded file of the playground. The page may load nothing but this server's own files, holds no inline script, and
// cannot be framed. Thread: loop.
#include "server/static.h"

#include <string.h>

void static_reply(struct http_request *r) {
    const struct static_file *f = static_files;
    while (f->path && strcmp(f->path, r->path) != 0) f++;
    struct buf body = {0};
    http_set_header(r, "ETag", f->etag);
    http_set_header(r, "Cache-Control", "no-cache"); // may be kept, but asks each time whether it is still current
    http_set_header(r, "Content-Security-Policy",
                    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'");
    http_set_header(r, "Referrer-Policy", "no-referrer");
    const char *known = http_header(r, "If-None-Match");
    if (known && strstr(known, f->etag)) {
        http_reply(r, 304, NULL, &body);
        return;
    }
    buf_add(&body, f->data, f->len);
    http_reply(r, 200, f->type, &body);
}
