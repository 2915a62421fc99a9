// SPDX-License-Identifier: MIT
// See fake_server.h.
#include "fake_server.h"

#include "base/mem.h"
#include "server/routes.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct server fake_server;
static uint64_t next_id = 1;
static struct watch {
    struct watch *next;
    uint64_t id;
    sequence_fn *fn;
    void *ctx;
} * watches;

static struct exchange *exchange_of(struct http_request *r) { return (struct exchange *)r; }

// -- Server ------------------------------------------------------------------------------------------------------------------
uint64_t server_next_sequence_id(struct server *s) { return next_id++; }
void server_watch_sequence(struct server *s, uint64_t id, sequence_fn *fn, void *ctx) {
    struct watch *w = mem_new(struct watch);
    *w = (struct watch){watches, id, fn, ctx};
    watches = w;
}
void server_unwatch_sequence(struct server *s, uint64_t id) {
    for (struct watch **link = &watches; *link; link = &(*link)->next) {
        if ((*link)->id != id) continue;
        struct watch *w = *link;
        *link = w->next;
        free(w);
        return;
    }
}
void server_cancel_sequence(struct server *s, uint64_t id) {
    server_unwatch_sequence(s, id);
    engine_cancel(s->engine, id);
}

// One model, as if the command line had named it.
static struct model *model;
static char *model_id;
bool fake_cold;
size_t fake_n_warmed;
static struct model_info info_make(void) {
    return (struct model_info){.id = mem_strdup(model_id), .created_s = 1700000000, .bytes = model_own_bytes(model), .model = model_acquire(model)};
}
void model_info_finish(struct model_info *m) {
    free(m->id);
    model_release(m->model);
    *m = (struct model_info){0};
}
enum registry_answer registry_find(struct registry *r, const struct viewer *v, const char *id, struct model_info *out) {
    if (id && *id && strcmp(id, model_id) != 0) return REGISTRY_UNKNOWN;
    *out = info_make();
    if (!fake_cold) return REGISTRY_FOUND;
    model_release(out->model);
    out->model = NULL;
    return REGISTRY_COLD;
}
void registry_list(struct registry *r, const struct viewer *v, struct model_info **out, size_t *n) {
    *out = mem_new(struct model_info);
    **out = info_make();
    *n = 1;
}
bool registry_warm(struct registry *r, const struct viewer *v, const char *id, struct err *err) {
    fake_cold = false;
    fake_n_warmed++;
    return strcmp(id, model_id) == 0;
}
enum registry_answer registry_source(struct registry *r, const struct viewer *v, const char *id, struct arena *a, struct model_source *out) {
    return REGISTRY_UNKNOWN;
}
void registry_remove(struct registry *r, const char *id) {}
bool registry_alias(struct registry *r, const struct stored_alias *a, struct err *err) { return err_set(err, ERR_INVALID, "no aliases here"); }
void metrics_add(struct metrics *m, enum metric_counter c, uint64_t n) { m->counters[c] += n; }
void metrics_observe(struct metrics *m, enum metric_histogram h, double value) {}

void fake_server_init(struct model *m, const char *id) {
    struct err err = {0};
    model = m;
    model_id = mem_strdup(id);
    fake_server = (struct server){.config = {.threads = 1, .max_inspect_tokens = 48}};
    fake_server.engine = engine_create(&(struct engine_config){.max_running = 32, .max_waiting = 256}, &err);
    atomic_store(&fake_server.state, SERVER_READY);
}
void fake_server_finish(void) {
    engine_destroy(fake_server.engine);
    model_release(model);
    free(model_id);
    assert(!watches);
}

void fake_deliver(void) {
    engine_step(fake_server.engine);
    for (struct engine_event *e = engine_take_events(fake_server.engine); e;) {
        struct engine_event *next = e->next;
        struct watch *w = watches;
        while (w && w->id != e->id) w = w->next;
        if (w) {
            sequence_fn *fn = w->fn;
            void *ctx = w->ctx;
            if (e->kind == EVENT_FINISH) server_unwatch_sequence(&fake_server, e->id);
            fn(ctx, e);
        }
        engine_event_free(e);
        e = next;
    }
}

// -- HTTP --------------------------------------------------------------------------------------------------------------------
void http_set_header(struct http_request *r, const char *name, const char *value) {
    buf_printf(&exchange_of(r)->headers, "%s: %s\n", name, value);
}
const char *http_query(const struct http_request *r, const char *name) { return NULL; }
void http_more_work(struct http_request *r, bool (*work)(struct http_request *r), void (*then)(struct http_request *r)) {
    if (work(r)) then(r);
    else http_reply_error(r);
}
void http_slow_work(struct http_request *r, bool (*work)(struct http_request *r), void (*then)(struct http_request *r)) {
    http_more_work(r, work, then);
}
bool fake_lane_full, fake_cancelled_request;
bool http_look_work(struct http_request *r, bool (*work)(struct http_request *r), void (*then)(struct http_request *r)) {
    if (!fake_lane_full) http_more_work(r, work, then);
    return !fake_lane_full;
}
bool http_cancelled(const struct http_request *r) { return fake_cancelled_request; }
struct viewer http_viewer(const struct http_request *r) { return (struct viewer){.key = r->key_id, .all = true}; }
void http_reply_json(struct http_request *r, int status, struct buf *body) {
    struct exchange *x = exchange_of(r);
    assert(!x->replied && !x->streaming && !x->ended);
    x->status = status;
    x->body = *body;
    *body = (struct buf){0};
    x->replied = true;
}
void http_reply_error(struct http_request *r) {
    struct buf body = {0};
    buf_add_str(&body, "{\"error\":{\"message\":");
    buf_add_json_string(&body, r->err.message, strlen(r->err.message));
    buf_add_str(&body, ",\"param\":");
    buf_add_json_string(&body, r->err.param, strlen(r->err.param));
    buf_printf(&body, ",\"code\":\"%s\"}}", r->err_code);
    http_reply_json(r, r->err_status, &body);
}
void http_stream_open(struct http_request *r) {
    struct exchange *x = exchange_of(r);
    assert(!x->replied && !x->streaming);
    x->streaming = true;
    x->status = 200;
}
void http_stream_send(struct http_request *r, const void *data, size_t len) {
    struct exchange *x = exchange_of(r);
    assert(x->streaming && !x->closed && !x->ended);
    buf_add(&x->body, data, len);
}
void http_stream_close(struct http_request *r) {
    struct exchange *x = exchange_of(r);
    assert(x->streaming && !x->closed);
    x->closed = true;
}

void exchange_begin(struct exchange *x, const struct http_route *routes, const char *path, const char *body,
                    size_t body_len) {
    *x = (struct exchange){.r = {.server = &fake_server, .path = path, .tail = "", .body = body, .body_len = body_len}};
    const struct http_route *route = routes;
    while (route->path && strcmp(route->path, path) != 0) route++;
    if (!route->path) { // a prefix: the only one
        for (route = routes; !strchr(route->path, '*'); route++)
            ;
        x->r.tail = path + strlen(route->path) - 1;
    }
    x->r.route = route;
    if (route->work && !route->work(&x->r)) {
        http_reply_error(&x->r);
        return;
    }
    x->started = true;
    route->start(&x->r);
}

void exchange_run(struct exchange *x) {
    for (int i = 0; i < 100000 && !x->replied && !x->closed; i++) fake_deliver();
    assert(x->replied || x->closed);
}

void exchange_end(struct exchange *x) {
    x->r.gone = !x->replied && !x->closed;
    if (x->r.route->end) x->r.route->end(&x->r);
    x->ended = true;
    fake_deliver();
}

json_t *exchange_json(struct exchange *x, const struct http_route *routes, const char *path, const char *body) {
    exchange_begin(x, routes, path, body, strlen(body));
    exchange_run(x);
    exchange_end(x);
    return x->streaming ? NULL
                        : json_loadb(buf_str(&x->body), x->body.len, JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, NULL);
}

void exchange_free(struct exchange *x) {
    buf_finish(&x->body);
    buf_finish(&x->headers);
    arena_finish(&x->r.arena);
}

const struct http_route *const route_tables[] = {completion_routes, chat_routes,    model_routes,
                                                 tokenize_routes,   openapi_routes, NULL};
