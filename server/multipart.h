// SPDX-License-Identifier: MIT
// multipart/form-data (RFC 7578, framing of RFC 2046) from pieces of any size, without keeping more than a part's header lines. libmicrohttpd's own
// parser is bound to a connection, which may be gone while a piece is still on the pool.
// Thread: any, one at a time.
#pragma once

#include "base/buf.h"

enum {
    MULTIPART_BOUNDARY_MAX = 70,    // RFC 2046
    MULTIPART_HEADER_MAX = 8 << 10, // of one part's header lines
    MULTIPART_PARTS_MAX = 64,
};

struct multipart_part {
    struct buf name, filename; // of Content-Disposition; may hold any bytes but NUL
    bool has_filename;
};

struct multipart {
    // A part begins: its data follows in any number of calls, then the next begins or all has ended. false: *err, and parsing ends.
    bool (*on_part)(void *ctx, const struct multipart_part *part, struct err *err);
    bool (*on_data)(void *ctx, const char *p, size_t n, struct err *err);
    void *ctx;
    int state;
    char delimiter[MULTIPART_BOUNDARY_MAX + 5]; // CR LF "--" boundary
    size_t delimiter_len, matched;
    struct buf header;
    struct multipart_part part;
    size_t n_parts;
};

// content_type: the request's, for its boundary. The callbacks and ctx are set already, all else is zero.
bool multipart_init(struct multipart *m, const char *content_type, struct err *err) MUST_CHECK;
bool multipart_feed(struct multipart *m, const char *p, size_t n, struct err *err) MUST_CHECK;
bool multipart_end(const struct multipart *m, struct err *err) MUST_CHECK; // was the closing boundary there?
void multipart_finish(struct multipart *m);                                // accepts a zeroed one
