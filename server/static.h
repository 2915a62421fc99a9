// SPDX-License-Identifier: MIT
// The playground's files, embedded at build time (embed.py writes the table).
#pragma once

#include "server/http.h"

struct static_body {
    const char *coding; // "br", "gzip"; "": as it is
    const char *etag;   // with its quotes; another one for each coding
    const unsigned char *data;
    size_t len;
};

struct static_file {
    const char *path, *type;
    struct static_body bodies[3]; // as it is first, then packed ones, the smallest first; data is NULL where there are no more
};

extern const struct static_file static_files[]; // ended by a NULL path
void static_reply(struct http_request *r);
// What an Accept-Encoding header (NULL: absent) says about a coding: named or by "*", and not with q=0.
bool static_coding_accepted(const char *accept_encoding, const char *coding);
