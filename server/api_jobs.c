// SPDX-License-Identifier: MIT
// /v1/fine_tuning/jobs: create, list, look at, cancel, pause, resume; checkpoints; and /v1/fine_tuning/estimate. Events are api_job_events.c's,
// exports api_job_export.c's. Everything is asked and written in route->work, on the pool; an estimate on the tools' lane.
#include "server/job_api.h"

#include "base/file.h"
#include "base/mem.h"
#include "server/files.h"
#include "server/jobs/runner.h"
#include "server/options.h"
#include "server/routes.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LIST_LIMIT = 20, LIST_MAX = 100, CHECKPOINT_LIMIT = 10, CHECKPOINT_MAX = 1000, FILTER_MAX = 16, ESTIMATE_SECONDS = 300 };

struct reply {
    struct buf body;
    struct job_request request; // create, estimate
};

static struct reply *reply_make(struct http_request *r) {
    r->state = arena_alloc(&r->arena, 1, sizeof(struct reply));
    return r->state;
}
static void reply_start(struct http_request *r) {
    struct reply *reply = r->state;
    if (reply->request.ignored) http_set_header(r, "x-couplet-ignored", reply->request.ignored);
    http_reply_json(r, 200, &reply->body);
}
static void reply_end(struct http_request *r) {
    struct reply *reply = r->state;
    if (reply) buf_finish(&reply->body);
    r->state = NULL;
}

bool job_absent(struct http_request *r) {
    return r->err.code == ERR_NOT_FOUND ? request_fail(r, 404, "job_not_found", NULL, "The job does not exist.")
                                        : false;
}

bool job_find(struct http_request *r, struct stored_job *out) {
    const struct viewer v = http_viewer(r);
    return store_job_get(r->server->store, &v, r->tail, &r->arena, out, &r->err) || job_absent(r);
}

bool job_page_read(struct http_request *r, size_t limit, size_t most, struct page *out) {
    const char *text = http_query(r, "limit"), *after = http_query(r, "after");
    uint64_t n = limit;
    if (text && (!option_read_uint64(text, &n) || n < 1 || n > most))
        return request_fail(r, 400, "value_out_of_range", "limit", "'limit' must be between 1 and %zu.", most);
    *out = (struct page){.after = after && *after ? after : NULL, .limit = (size_t)n};
    return true;
}

static bool reply_job(struct http_request *r, struct reply *reply, const struct stored_job *j) {
    struct job_outlook outlook;
    job_outlook_init(&outlook, r->server->store, &r->arena);
    return job_write(&outlook, j, &r->arena, &reply->body, &r->err);
}

// ---- create ----

static bool create_work(struct http_request *r) {
    struct reply *reply = reply_make(r);
    struct job_request *q = &reply->request;
    const struct viewer v = http_viewer(r);
    struct stored_job job;
    bool again;
    if (!job_request_read(r, true, q)) return false;
    if (q->again) return reply_job(r, reply, &q->job);
    if (!files_disk_ok(r->server, 0, &r->err)) return false;
    if (!store_job_create(r->server->store, &v, &q->job, q->idempotency_key, q->hash, r->server->config.jobs_max_queued,
                          &r->arena, &job, &again, &r->err))
        return job_refused(r);
    if (r->server->runner && !again) runner_wake(r->server->runner);
    return reply_job(r, reply, &job);
}

// ---- look ----

static bool one_work(struct http_request *r) {
    struct reply *reply = reply_make(r);
    struct stored_job job;
    return job_find(r, &job) && reply_job(r, reply, &job);
}

// metadata[k]=v, repeated; metadata=null.
static bool filter_read(struct http_request *r, struct job_filter *out) {
    const char **pairs = arena_alloc(&r->arena, 2 * FILTER_MAX + 1, sizeof *pairs), *name, *value;
    size_t n = 0;
    *out = (struct job_filter){.metadata = pairs, .status = -1};
    for (size_t i = 0; (name = http_query_at(r, i, &value)); i++) {
        const size_t len = strlen(name);
        if (strcmp(name, "metadata") == 0 && strcmp(value, "null") == 0) out->without_metadata = true;
        if (strncmp(name, "metadata[", 9) != 0 || name[len - 1] != ']') continue;
        if (n == FILTER_MAX)
            return request_fail(r, 400, "value_out_of_range", "metadata",
                                "At most %d pairs of 'metadata' can be asked for.", FILTER_MAX);
        pairs[2 * n] = arena_strndup(&r->arena, name + 9, len - 10);
        pairs[2 * n++ + 1] = value;
    }
    return true;
}

static bool list_work(struct http_request *r) {
    struct reply *reply = reply_make(r);
    const struct viewer v = http_viewer(r);
    struct page page;
    struct job_filter filter;
    struct stored_job *jobs;
    struct job_outlook outlook;
    size_t n;
    bool more;
    if (!job_page_read(r, LIST_LIMIT, LIST_MAX, &page) || !filter_read(r, &filter)) return false;
    if (!store_job_list(r->server->store, &v, &page, &filter, &r->arena, &jobs, &n, &more, &r->err)) return false;
    job_outlook_init(&outlook, r->server->store, &r->arena);
    buf_add_str(&reply->body, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; i < n; i++) {
        if (i) buf_add_byte(&reply->body, ',');
        if (!job_write(&outlook, &jobs[i], &r->arena, &reply->body, &r->err)) return false;
    }
    buf_printf(&reply->body, "],\"has_more\":%s}", more ? "true" : "false");
    return true;
}

static bool checkpoints_work(struct http_request *r) {
    struct reply *reply = reply_make(r);
    const struct viewer v = http_viewer(r);
    struct page page;
    struct stored_checkpoint *rows;
    size_t n;
    bool more;
    if (!job_page_read(r, CHECKPOINT_LIMIT, CHECKPOINT_MAX, &page)) return false;
    if (!store_checkpoint_list(r->server->store, &v, r->tail, &page, &r->arena, &rows, &n, &more, &r->err))
        return job_absent(r);
    buf_add_str(&reply->body, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; i < n; i++) {
        if (i) buf_add_byte(&reply->body, ',');
        job_checkpoint_write(r->tail, &rows[i], &reply->body);
    }
    buf_add_byte(&reply->body, ']');
    job_text_write(&reply->body, "first_id", n ? rows[0].id : NULL);
    job_text_write(&reply->body, "last_id", n ? rows[n - 1].id : NULL);
    buf_printf(&reply->body, ",\"has_more\":%s}", more ? "true" : "false");
    return true;
}

// ---- act ----

static bool act(struct http_request *r, enum job_action action, const char *refused) {
    struct reply *reply = reply_make(r);
    const struct viewer v = http_viewer(r);
    struct stored_job job;
    if (!store_job_act(r->server->store, &v, r->tail, action, &r->arena, &job, &r->err)) {
        const struct err why = r->err;
        if (strcmp(why.param, "status") == 0)
            return request_fail(r, 409, refused, NULL, "That is not possible: %s.", why.message);
        return job_absent(r);
    }
    if (r->server->runner) runner_wake(r->server->runner);
    server_job_changed(r->server, r->tail);
    return reply_job(r, reply, &job);
}
static bool cancel_work(struct http_request *r) { return act(r, ACTION_CANCEL, "job_not_cancellable"); }
static bool pause_work(struct http_request *r) { return act(r, ACTION_PAUSE, "job_not_pausable"); }
static bool resume_work(struct http_request *r) { return act(r, ACTION_RESUME, "job_not_resumable"); }

// ---- estimate ----

static bool estimate_read(struct http_request *r) {
    struct job_request *q = &reply_make(r)->request;
    return job_request_read(r, false, q) &&
           (strcmp(q->job.kind, "tokenizer") != 0 ||
            request_fail(r, 400, "unsupported_parameter", "couplet.architecture",
                         "Only training is estimated: a tokenizer alone takes seconds."));
}

// What must lie beside a new model: its configuration, its vocabulary.
static bool estimate_prepare(struct http_request *r, const struct job_request *q, const char *dir,
                             const char *files_dir) {
    const struct job_spec *s = &q->spec;
    struct buf out = {0};
    if (!dir_make(dir, &r->err)) return false;
    if (s->architecture && s->architecture[0] == '{' &&
        !file_write_atomic(arena_printf(&r->arena, "%s/config.json", dir), s->architecture, strlen(s->architecture),
                           0600, &r->err))
        return false;
    const char *const *argv = job_tokenizer_arguments(&q->job, s, dir, files_dir, &r->arena);
    const bool ok = !argv || runner_tool(r, argv, ESTIMATE_SECONDS, &out, &r->err);
    buf_finish(&out);
    return ok;
}

// The tool's last line: the figures, or why there are none.
static bool estimate_answer(struct http_request *r, struct reply *reply, bool ok, const struct buf *out) {
    const char *text = buf_str(out), *end = text + out->len;
    while (end > text && end[-1] == '\n') end--;
    const char *line = end;
    while (line > text && line[-1] != '\n') line--;
    json_t *tree = json_loadb(line, (size_t)(end - line), 0, NULL);
    const char *code = json_string_value(json_object_get(tree, "code"));
    if (!ok && code && strncmp(code, "invalid_", 8) == 0) {
        const char *kept = arena_strndup(&r->arena, code, strlen(code));
        const char *param = strcmp(kept, "invalid_model") == 0    ? "model"
                            : strcmp(kept, "invalid_option") == 0 ? NULL
                                                                  : kept + 8;
        const struct err why = r->err; // without paths
        ok = request_fail(r, 400, kept, param, "%s", why.message);
    } else if (ok && json_is_object(tree)) {
        json_object_set_new(tree, "object", json_string("fine_tuning.estimate"));
        char *answer = json_dumps(tree, JSON_COMPACT | JSON_REAL_PRECISION(8));
        buf_add_str(&reply->body, answer);
        free(answer);
    } else if (ok) {
        ok = err_set(&r->err, ERR_IO, "the estimate said nothing");
    }
    json_decref(tree);
    return ok;
}

static bool estimate_work(struct http_request *r) { // tools' lane
    struct reply *reply = r->state;
    const struct job_request *q = &reply->request;
    const char *data = r->server->config.data_dir, *files_dir = arena_printf(&r->arena, "%s/files", data);
    const char *dir = arena_printf(&r->arena, "%s/tmp/estimate-%" PRIu64, data, r->serial);
    struct buf out = {0};
    struct err ignored;
    bool ok = estimate_prepare(r, q, dir, files_dir);
    if (ok) {
        const char *const *argv =
            job_estimate_arguments(&q->job, &q->spec, dir, files_dir, r->server->config.train_threads, &r->arena);
        ok = runner_tool(r, argv, ESTIMATE_SECONDS, &out, &r->err);
        ok = estimate_answer(r, reply, ok, &out);
    }
    buf_finish(&out);
    (void)!dir_remove(dir, &ignored);
    return ok;
}
static void estimate_start(struct http_request *r) { http_tool_work(r, estimate_work, reply_start); }

const struct http_route job_routes[] = {
    {"POST", "/v1/fine_tuning/jobs", SCOPE_TRAIN, create_work, reply_start, reply_end,
     "Fine-tune a model on an uploaded file"},
    {"GET", "/v1/fine_tuning/jobs", SCOPE_TRAIN, list_work, reply_start, reply_end, "The jobs, newest first"},
    {"POST", "/v1/fine_tuning/estimate", SCOPE_TRAIN, estimate_read, estimate_start, reply_end,
     "What a job would take: tokens, time, memory"},
    {"GET", "/v1/fine_tuning/jobs/{id}", SCOPE_TRAIN, one_work, reply_start, reply_end, "One job"},
    {"POST", "/v1/fine_tuning/jobs/{id}/cancel", SCOPE_TRAIN, cancel_work, reply_start, reply_end, "End a job"},
    {"POST", "/v1/fine_tuning/jobs/{id}/pause", SCOPE_TRAIN, pause_work, reply_start, reply_end, "Let a job rest"},
    {"POST", "/v1/fine_tuning/jobs/{id}/resume", SCOPE_TRAIN, resume_work, reply_start, reply_end, "Let a job go on"},
    {"GET", "/v1/fine_tuning/jobs/{id}/checkpoints", SCOPE_TRAIN, checkpoints_work, reply_start, reply_end,
     "A job's checkpoints, newest first"},
    {0},
};
