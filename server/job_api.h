// SPDX-License-Identifier: MIT
// What the files of /v1/fine_tuning share: a request's body as settings, and OpenAI's objects as JSON.
// Thread: any but the loop, since all of it asks the store or the registry.
#pragma once

#include "server/jobs/job_spec.h"
#include "server/json_body.h"
#include "server/server.h"

struct job_request {
    struct stored_job job;
    struct job_spec spec;
    const char *ignored;         // members of the body that nothing reads, for a header; NULL: none
    const char *idempotency_key; // NULL: none
    char hash[65];               // SHA-256 of the body in canonical form
    bool again;                  // this key brought this body before: `job` is the one it made, and nothing else was looked at
};
// The body, validated, every "auto" resolved, files and models looked up as the key may see them. In r->arena. create: an Idempotency-Key is heeded,
// before anything that may have changed since its first request (files, models, quotas).
bool job_request_read(struct http_request *r, bool create, struct job_request *out) MUST_CHECK;

// What several jobs' objects have in common: how long the running one will take.
struct job_outlook {
    struct store *store;
    int64_t now_s;
    double remaining_s, whole_s; // of the running job; NaN: not known, 0: none runs
};
void job_text_write(struct buf *out, const char *name, const char *value); // ,"name":"value", or null
void job_outlook_init(struct job_outlook *o, struct store *store, struct arena *a);

bool job_write(const struct job_outlook *o, const struct stored_job *j, struct arena *a, struct buf *out, struct err *err) MUST_CHECK; // fine_tuning.job
void job_event_write(const struct stored_event *e, struct buf *out);                       // fine_tuning.job.event
void job_checkpoint_write(const char *job_id, const struct stored_checkpoint *c, struct buf *out); // fine_tuning.job.checkpoint

// A job by r->tail; false: r->err (404 job_not_found).
bool job_find(struct http_request *r, struct stored_job *out) MUST_CHECK;
bool job_absent(struct http_request *r); // the store's ERR_NOT_FOUND becomes that 404; returns false
bool job_refused(struct http_request *r); // r->err is the store's, to a job it does not take: becomes what the client hears; returns false
// ?after=, ?limit=1..most (default: limit) of a list. False: r->err.
bool job_page_read(struct http_request *r, size_t limit, size_t most, struct page *out) MUST_CHECK;
