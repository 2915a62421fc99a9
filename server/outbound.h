// SPDX-License-Identifier: MIT
// Where the program itself is an HTTP client (pull, judge, files, jobs): one libcurl handle, an address, a key. Blocking; one thread.
#pragma once

#include "base/buf.h"

#include <stddef.h>

struct outbound {
    void *curl;     // CURL *
    char *endpoint; // without a slash at the end
    void *headers;  // struct curl_slist *: the key's, or NULL
    void *json_headers; // the same and the type of a JSON body
};

// address_name and key_name are what messages call the two: a variable's or an option's name. key NULL or "": none.
bool outbound_open(struct outbound *o, const char *address, const char *address_name, const char *key, const char *key_name, struct err *err) MUST_CHECK;
void outbound_close(struct outbound *o); // accepts a zeroed one
// Escaped. A path keeps its slashes.
void outbound_add_escaped(struct outbound *o, struct buf *url, const char *text, bool path);
// Forgets the last request; what is common to all of them is set, `write` takes the answer. More options may follow.
void outbound_start(struct outbound *o, const char *url, size_t (*write)(char *data, size_t size, size_t n, void *ctx), void *ctx);
void outbound_post(struct outbound *o, const char *json); // after start: with this body, which is borrowed
long outbound_status(struct outbound *o); // of the answer; 0: none yet
