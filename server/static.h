// SPDX-License-Identifier: MIT
// The playground's files, embedded at build time (embed.py writes the table).
#pragma once

#include "server/http.h"

struct static_body {
    const char *etag; // with its quotes; another one for each encoding
    const unsigned char *data;
    size_t len;
};

struct static_file {
    const char *path, *type;
    struct static_body plain, gzip; // gzip.data is NULL where it would be no smaller
};

extern const struct static_file static_files[]; // ended by a NULL path
void static_reply(struct http_request *r);
// What an Accept-Encoding header (NULL: absent) says about gzip: named or by "*", and not with q=0.
bool static_gzip_accepted(const char *accept_encoding);
