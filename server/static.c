// SPDX-License-Identifier: MIT
// Answers with an embedded file of the playground, packed for whoever takes that. The page may load nothing but this server's own files,
// holds no inline script or style, and cannot be framed. Thread: loop.
#include "server/static.h"

#include "base/mem.h"

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

bool static_coding_accepted(const char *accept_encoding, const char *coding) {
    bool any = false;
    for (const char *p = accept_encoding ? accept_encoding : ""; *p; p += *p == ',') {
        p += strspn(p, " \t");
        size_t item = strcspn(p, ","), name = strcspn(p, ",; \t");
        bool positive = quality_positive(p + name, item - name);
        if (name == strlen(coding) && strncasecmp(p, coding, name) == 0) return positive;
        if (name == 1 && *p == '*') any = positive;
        p += item;
    }
    return any;
}

void static_reply(struct http_request *r) {
    const struct static_file *f = static_files;
    while (f->path && strcmp(f->path, r->path) != 0) f++;
    const char *accepted = http_header(r, "Accept-Encoding");
    const struct static_body *is = f->bodies;
    for (size_t i = 1; i < ARRAY_LEN(f->bodies) && f->bodies[i].data && is == f->bodies; i++)
        if (static_coding_accepted(accepted, f->bodies[i].coding)) is = &f->bodies[i];
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
    if (is->coding[0]) http_set_header(r, "Content-Encoding", is->coding);
    buf_add(&body, is->data, is->len);
    http_reply(r, 200, f->type, &body);
}
