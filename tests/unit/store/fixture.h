// SPDX-License-Identifier: MIT
// A store in a folder of its own, and short ways to put rows into it.
#pragma once

#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"
#include "server/store/store_internal.h"
#include "tests/unit/test.h"

#include <unistd.h>

static const struct viewer admin = {"", true}, alice = {"alice", false}, bob = {"bob", false};
static struct err err;
static struct arena arena;

// Checks that fail print what the store said.
#define OK(call) ((call) ? (void)0 : (void)TEST_FAIL("%s: %s (code %d, param \"%s\")", #call, err.message, (int)err.code, err.param))
#define FAILS(call, wanted)                                        \
    do {                                                           \
        err = (struct err){0};                                     \
        if (call) TEST_FAIL("%s succeeded", #call);                \
        if (err.code != (wanted)) TEST_FAIL("%s: code %d, %s", #call, (int)err.code, err.message); \
    } while (0)

static char *folder_make(void) {
    char *folder = NULL;
    const char *tmp = getenv("TMPDIR");
    if (asprintf(&folder, "%s/couplet-store-XXXXXX", tmp ? tmp : "/tmp") < 0 || !mkdtemp(folder)) abort();
    return folder;
}

__attribute__((unused)) static void folder_remove(char *folder) {
    OK(dir_remove(folder, &err));
    free(folder);
    arena_finish(&arena);
}

__attribute__((unused)) static bool file_add(struct store *s, const char *id, const char *owner, bool shared) {
    return store_file_add(s, &(struct stored_file){.id = id, .owner = owner, .filename = "rows.jsonl", .purpose = "fine-tune", .sha256 = "00", .bytes = 10,
                                                   .shared = shared}, &err);
}

// A queued job of `owner` on `file`, under its own id.
__attribute__((unused)) static bool job_add(struct store *s, const char *id, const char *owner, const char *file, const char *metadata) {
    struct stored_job j = {.id = id, .owner = owner, .status = JOB_QUEUED, .kind = "fine_tune", .model = "base", .training_file = file, .metadata = metadata,
                           .spec = "{\"n\":1}", .seed = 7, .total_steps = 100}, out;
    bool again;
    return store_job_create(s, &(struct viewer){owner, false}, &j, NULL, NULL, 0, &arena, &out, &again, &err);
}

__attribute__((unused)) static enum job_status job_status_of(struct store *s, const char *id) {
    struct stored_job j = {.status = JOB_STATUSES};
    OK(store_job_get(s, &admin, id, &arena, &j, &err));
    return j.status;
}
