// SPDX-License-Identifier: MIT
// POST /v1/inspect: what a served model computes on a short text, or attention over given matrices. Read on the pool; looked and written on a thread
// of its own (http_look_work), which gives up as soon as nobody waits for the answer.
//
// Invariants: a look holds one reference to its model from work to end; answers that are not read yet hold at most ANSWERS_BYTES and one more, as
// looks run one at a time and none begins past it.
#include "server/inspection.h"
#include "server/routes.h"
#include "server/request_model.h"

#include <stdlib.h>

enum { ANSWERS_BYTES = 256 << 20 };
static _Atomic size_t answers_bytes; // grows on the looks' thread, shrinks on the loop

struct state {
    struct inspect_look look;
    const char *ignored;
    struct buf reply;
    size_t sending; // bytes of answers_bytes
    bool too_many;  // answers are not read: it did not begin
};

static bool inspect_work(struct http_request *r) { // pool
    json_t *tree = json_body_parse(r);
    if (!tree) return false;
    struct state *s = arena_alloc(&r->arena, 1, sizeof *s);
    bool ok = inspect_look_read(r, tree, &s->look);
    s->ignored = fields_ignored(r, &inspect_table, tree);
    json_decref(tree);
    if (ok) r->state = s;
    return ok || r->cold;
}

static bool nobody_waits(void *ctx) { return http_cancelled(ctx); }

static bool look_work(struct http_request *r) {
    struct state *s = r->state;
    struct inspection found = {0};
    struct inspect_array output = {0};
    s->too_many = answers_bytes > ANSWERS_BYTES;
    if (s->too_many) return true;
    s->look.request.cancelled = s->look.matrices.cancelled = nobody_waits;
    s->look.request.ctx = s->look.matrices.ctx = r;
    bool ok = s->look.request.model ? inspect_model(&s->look.request, &found, &r->err)
                                    : inspect_matrices(&s->look.matrices, &found, &output, &r->err);
    if (ok) inspect_reply_write(&s->look, &found, s->look.request.model ? NULL : &output, &s->reply);
    inspection_finish(&found);
    free(output.data);
    s->sending = s->reply.len;
    answers_bytes += s->sending;
    if (ok || r->err.code != ERR_TOO_LARGE) return ok;
    return request_fail(r, 400, "inspection_too_large", "what", "The answer would hold over %d MiB of arrays: %s.", INSPECT_MAX_BYTES >> 20,
                        s->look.request.model ? "name a layer or a head, fewer things, or a shorter prompt" : "take fewer inputs or heads");
}

static void too_many(struct http_request *r) {
    metrics_add(&r->server->metrics, METRIC_REJECTED, 1);
    (void)request_fail(r, 429, "rate_limit_exceeded", NULL, "Too many looks inside are waiting. Try again in a second.");
    http_reply_error(r);
}

static void look_then(struct http_request *r) {
    struct state *s = r->state;
    if (s->too_many) {
        too_many(r);
        return;
    }
    if (s->ignored) http_set_header(r, "x-couplet-ignored", s->ignored);
    http_reply_json(r, 200, &s->reply);
}

static void inspect_start(struct http_request *r) {
    if (r->cold) {
        request_warm(r);
        return;
    }
    if (!http_look_work(r, look_work, look_then)) too_many(r);
}

static void inspect_end(struct http_request *r) {
    struct state *s = r->state;
    if (!s) return;
    model_release(s->look.request.model);
    buf_finish(&s->reply);
    answers_bytes -= s->sending;
    r->state = NULL;
}

const struct http_route inspect_routes[] = {
    {"POST", "/v1/inspect", SCOPE_INFER, inspect_work, inspect_start, inspect_end, "What a model computes on a text, inside"},
    {0},
};
