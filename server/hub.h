// SPDX-License-Identifier: MIT
// A Hugging Face hub over HTTP: what a model's repository holds, and its files, resumed and checked. Only `couplet pull` uses it.
// Blocking; one thread.
#pragma once

#include "server/outbound.h"

#include <stdint.h>

struct hub {
    struct outbound out;
};

enum { HUB_SIZE_UNKNOWN = -1 };
struct hub_file {
    char *name;      // relative path, safe to join: no "..", no empty part
    int64_t size;    // bytes, or HUB_SIZE_UNKNOWN
    char sha256[65]; // "": the hub states none (small files that are not in large-file storage)
};
struct hub_repo {
    char *commit; // what `revision` stands for: every file is asked for by it
    struct hub_file *files;
    size_t n_files, files_cap;
};

// Endpoint and token: HF_ENDPOINT and HF_TOKEN.
bool hub_open(struct hub *h, struct err *err) MUST_CHECK;
void hub_close(struct hub *h);
// 401, 403 and 404 become sentences that say what to do.
bool hub_list(struct hub *h, const char *model, const char *revision, struct hub_repo *out, struct err *err) MUST_CHECK;
void hub_repo_finish(struct hub_repo *r); // accepts a zeroed one

typedef void hub_progress_fn(void *ctx, uint64_t done, uint64_t resumed); // bytes in the file, of them from an earlier try
// Makes `path` of the file: PATH.part grows, is checked (size, sha256), synced, renamed. A connection that is cut is taken up again
// where it ended, now and in a later call. Wrong bytes are removed and ERR_CORRUPT.
bool hub_download(struct hub *h, const char *model, const char *commit, const struct hub_file *f, const char *path, hub_progress_fn *progress,
                  void *ctx, struct err *err) MUST_CHECK;
// The file at `path` is the hub's: size, and sha256 where stated.
bool hub_file_present(const struct hub_file *f, const char *path);
