// SPDX-License-Identifier: MIT
// Uploaded and result files: bytes in DATA_DIR/files under the id of their row in the store. A client's name for a file is never a path.
//
// Invariant: a row's bytes are on the disk before the row is, and go after it; what a crash left over is removed at the next start.
#pragma once

#include "server/server.h"
#include "server/store/store.h"

// DATA_DIR/files/ID, in the arena. id is of the server's making: from a row, or store_make_id.
const char *file_path(const struct server *s, const char *id, struct arena *a);
struct http_request;
// The file as the asking key sees it; false: r->err (404 under `param`). Not on the loop.
bool file_find(struct http_request *r, const char *id, const char *param, struct stored_file *out) MUST_CHECK;
void file_write_json(const struct stored_file *f, struct buf *out); // OpenAI's file object

// Before the server listens: removes entries of files/ that have no row (crashed uploads) and logs rows that have no bytes.
bool files_sweep(struct server *s, struct err *err) MUST_CHECK;
// Files past their time, not in use: rows, then bytes. Any thread but the loop.
void files_expire(struct server *s);
// Is there room for `bytes` more above disk_low_mb? ERR_NO_SPACE: no. Any thread but the loop.
bool files_disk_ok(const struct server *s, uint64_t bytes, struct err *err) MUST_CHECK;
