// SPDX-License-Identifier: MIT
// Answers with an embedded file of the playground, gzipped for whoever takes that. The page may load nothing but this server's own files,
// holds no inline script or style, and cannot be framed. Thread: loop.
#include "server/static.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define POLICY                                                                                                                  \
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; font-src 'self'; " \
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// Whether the parameters behind a coding (";q=0.5") leave it acceptable.
static bool quality_positive(const char *parameters, size_t len) {
    const char *q = memmem(parameters, len, "q=", 2);
    if (!q) q = memmem(parameters, len, "Q=", 2);
    return !q || strtod(q + 2, NULL) > 0;
}

bool static_gzip_accepted(const char *accept_encoding) {
    bool any = false;
    for (const char *p = accept_encoding ? accept_encoding : ""; *p; p += *p == ',') {
        p += strspn(p, " \t");
        size_t item = strcspn(p, ","), name = strcspn(p, ",; \t");
        bool positive = quality_positive(p + name, item - name);
        if (name == 4 && strncasecmp(p, "gzip", 4) == 0) return positive;
        if (name == 1 && *p == '*') any = positive;
        p += item;
    }
    return any;
}

void static_reply(struct http_request *r) {
    const struct static_file *f = static_files;
    while (f->path && strcmp(f->path, r->path) != 0) f++;
    bool packed = f->gzip.data && static_gzip_accepted(http_header(r, "Accept-Encoding"));
    const struct static_body *is = packed ? &f->gzip : &f->plain;
    struct buf body = {0};
    http_set_header(r, "ETag", is->etag);
    http_set_header(r, "Vary", "Accept-Encoding");
    http_set_header(r, "Cache-Control", "no-cache"); // may be kept, but asks each time whether it is still current
    http_set_header(r, "Content-Security-Policy", POLICY);
    http_set_header(r, "Referrer-Policy", "no-referrer");
    const char *known = http_header(r, "If-None-Match");
    if (known && strstr(known, is->etag)) {
        http_reply(r, 304, NULL, &body);
        return;
    }
    if (packed) http_set_header(r, "Content-Encoding", "gzip");
    buf_add(&body, is->data, is->len);
    http_reply(r, 200, f->type, &body);
}
