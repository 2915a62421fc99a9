// SPDX-License-Identifier: MIT
// POST /v1/files: a multipart form, its file streamed to the disk.
#pragma once

#include "server/http.h"

extern const struct http_sink upload_sink;
bool upload_work(struct http_request *r);  // pool: the form is whole; its file gets its name and its row
void upload_start(struct http_request *r); // loop: answers with the file object
void upload_end(struct http_request *r);   // loop: whatever was not acknowledged is removed, on the pool
