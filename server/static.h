// SPDX-License-Identifier: MIT
// The playground's files, embedded at build time (embed.py writes the table).
#pragma once

#include "server/http.h"

struct static_file {
    const char *path, *type, *etag;
    const unsigned char *data;
    size_t len;
};

extern const struct static_file static_files[]; // ended by a NULL path
void static_reply(struct http_request *r);
