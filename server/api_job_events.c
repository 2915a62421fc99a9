// SPDX-License-Identifier: MIT
// GET /v1/fine_tuning/jobs/{id}/events: a list, newest first, or with ?stream=true server-sent events, oldest first: what there is after Last-Event-ID
// (or ?after=), then what comes, then [DONE] once the job has ended.
//
// Invariants. (1) A stream looks into the store on the pool, one look at a time; a change that comes meanwhile makes it look again. (2) A look reads the
// job's status before its events: where that was final, no event is missing. Thread: loop, but for the work functions.
#include "server/job_api.h"

#include "base/mem.h"
#include "server/routes.h"

#include <stdio.h>
#include <string.h>

enum { EVENTS_LIMIT = 20, EVENTS_MAX = 1000, LOOK_ROWS = 200 };

struct events {
    struct http_request *r;
    struct buf out;             // a list's answer; a look's events
    char cursor[STORE_ID_SIZE]; // the event after which to go on; "": from the beginning
    bool stream, open;
    bool looking, changed; // changed: while looking
    bool broken;           // drain, or a store that fails: the stream ends without [DONE], the client comes back with Last-Event-ID
    bool more, final;      // of the last look
};

static struct events *events_of(struct http_request *r) { return r->state; }

static bool event_list(struct http_request *r, const struct page *p, struct stored_event **rows, size_t *n,
                       bool *more) {
    const struct viewer v = http_viewer(r);
    return store_event_list(r->server->store, &v, r->tail, p, &r->arena, rows, n, more, &r->err) || job_absent(r);
}

static bool list_read(struct http_request *r, struct events *e) {
    struct page page;
    struct stored_event *rows;
    size_t n;
    bool more;
    if (!job_page_read(r, EVENTS_LIMIT, EVENTS_MAX, &page) || !event_list(r, &page, &rows, &n, &more)) return false;
    buf_add_str(&e->out, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; i < n; i++) {
        if (i) buf_add_byte(&e->out, ',');
        job_event_write(&rows[i], &e->out);
    }
    buf_printf(&e->out, "],\"has_more\":%s}", more ? "true" : "false");
    return true;
}

// ---- streams ----

// Rows of a look go into an arena of their own: a stream may last for days.
static bool stream_look(struct http_request *r) {
    struct events *e = events_of(r);
    struct arena arena = r->arena;
    r->arena = (struct arena){0};
    struct page page = {.after = e->cursor[0] ? e->cursor : NULL, .limit = LOOK_ROWS, .ascending = true};
    struct stored_job job;
    struct stored_event *rows;
    size_t n;
    const bool ok = job_find(r, &job) && event_list(r, &page, &rows, &n, &e->more);
    for (size_t i = 0; ok && i < n; i++) {
        buf_printf(&e->out, "id: %s\ndata: ", rows[i].id);
        job_event_write(&rows[i], &e->out);
        buf_add_str(&e->out, "\n\n");
        snprintf(e->cursor, sizeof e->cursor, "%s", rows[i].id);
    }
    e->final = ok && job_status_final(job.status) && !e->more;
    arena_finish(&r->arena);
    r->arena = arena;
    return ok;
}

// A stream that is under way cannot be answered with an error: it ends, and the client asks again.
static bool stream_look_on(struct http_request *r) {
    struct events *e = events_of(r);
    if (stream_look(r)) return true;
    e->broken = true;
    r->err = (struct err){0};
    buf_clear(&e->out);
    return true;
}

static void stream_looked(struct http_request *r) {
    struct events *e = events_of(r);
    e->looking = false;
    if (e->out.len) http_stream_send(r, e->out.data, e->out.len);
    buf_clear(&e->out);
    if (e->final) {
        static const char done[] = "data: [DONE]\n\n";
        http_stream_send(r, done, sizeof done - 1);
        http_stream_close(r);
    } else if (e->broken) {
        e->final = true;
        http_stream_close(r);
    } else if (e->more || e->changed) {
        e->changed = false;
        e->looking = true;
        http_more_work(r, stream_look_on, stream_looked);
    }
}

static void stream_changed(void *ctx, const char *job_id) {
    struct events *e = ctx;
    if (e->r->gone || e->final || (job_id && strcmp(job_id, e->r->tail) != 0)) return;
    if (job_id) e->changed = true;
    else e->broken = true;
    if (!e->looking) stream_looked(e->r);
}

// ---- the route ----

static bool events_work(struct http_request *r) {
    struct events *e = arena_alloc(&r->arena, 1, sizeof *e);
    const char *stream = http_query(r, "stream"), *last = http_header(r, "last-event-id");
    r->state = e;
    e->r = r;
    e->stream = stream && strcmp(stream, "false") != 0 && strcmp(stream, "0") != 0;
    if (!e->stream) return list_read(r, e);
    if (!last) last = http_query(r, "after");
    if (last && strlen(last) >= sizeof e->cursor)
        return request_fail(r, 400, "value_out_of_range", "after", "'after' names nothing in this list.");
    if (last) strcpy(e->cursor, last);
    return stream_look(r);
}

static void events_start(struct http_request *r) {
    struct events *e = events_of(r);
    if (!e->stream) {
        http_reply_json(r, 200, &e->out);
        return;
    }
    http_stream_open(r);
    e->open = e->changed = true; // what came between the first look and now
    e->broken = server_state(r->server) == SERVER_DRAINING;
    server_watch_jobs(r->server, stream_changed, e);
    stream_looked(r);
}

static void events_end(struct http_request *r) {
    struct events *e = events_of(r);
    if (!e) return;
    if (e->open) server_unwatch_jobs(r->server, stream_changed, e);
    buf_finish(&e->out);
    r->state = NULL;
}

const struct http_route job_event_routes[] = {
    {"GET", "/v1/fine_tuning/jobs/{id}/events", SCOPE_TRAIN, events_work, events_start, events_end,
     "What happened in a job: a list, newest first, or a stream (stream=true), oldest first"},
    {0},
};
