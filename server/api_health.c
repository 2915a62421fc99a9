// SPDX-License-Identifier: MIT
// /health, /livez, /readyz, /version, /metrics: what a supervisor, a load balancer and a person want to know. Thread: loop.
#include "server/http_internal.h"
#include "server/routes.h"

#include "engine/kernels/kernels.h"

#include <stdlib.h>
#include <string.h>

static void reply_state(struct http_request *r) {
    enum server_state state = server_state(r->server);
    if (state != SERVER_READY) {
        r->err_status = 503;
        r->err_code = state == SERVER_LOADING ? "model_loading" : "shutting_down";
        err_set(&r->err, ERR_BUSY, "%s", state == SERVER_LOADING ? "The model is being loaded." : "The server is shutting down.");
        http_reply_error(r);
        return;
    }
    struct buf body = {0};
    buf_add_str(&body, "{\"status\":\"ok\"}");
    http_reply_json(r, 200, &body);
}

static void reply_alive(struct http_request *r) {
    struct buf body = {0};
    buf_add_str(&body, "{\"status\":\"ok\"}");
    http_reply_json(r, 200, &body);
}

static void reply_version(struct http_request *r) {
    struct server *s = r->server;
    struct buf body = {0};
    bool loaded = server_state(s) != SERVER_LOADING;
    const struct kernels *kernels = kernels_get(NULL);
    buf_printf(&body, "{\"version\":\"%s\",\"isa\":\"%s\",\"libmicrohttpd\":\"%s\",\"libuv\":\"%s\",\"models\":[", COUPLET_VERSION,
               kernels ? kernels->name : "none", MHD_get_version(), uv_version_string());
    struct model_info *models = NULL;
    size_t n = 0;
    if (loaded) registry_list(s->registry, &(struct viewer){.key = ""}, &models, &n);
    for (size_t i = 0; i < n; i++) {
        const struct model_info *m = &models[i];
        if (m->origin == MODEL_SERVED && !m->alias_of) { // those come first; the others are nobody's business here
            buf_add_str(&body, i ? ",{\"id\":" : "{\"id\":");
            buf_add_json_string(&body, m->id, strlen(m->id));
            buf_printf(&body, ",\"weights\":\"%s\",\"format\":\"%s\",\"fingerprint\":\"%s\"}", model_weights_name(m->model),
                       model_format(m->model), model_fingerprint(m->model));
        }
        model_info_finish(&models[i]);
    }
    free(models);
    buf_add_str(&body, "]}");
    http_reply_json(r, 200, &body);
}

static void reply_metrics(struct http_request *r) {
    struct buf body = {0};
    metrics_write(r->server, &body);
    http_reply(r, 200, "text/plain; version=0.0.4; charset=utf-8", &body);
}

const struct http_route health_routes[] = {
    {"GET", "/health", SCOPE_PUBLIC, NULL, reply_state, NULL, "200 when requests are taken, 503 while loading or draining"},
    {"GET", "/livez", SCOPE_PUBLIC, NULL, reply_alive, NULL, "200 while the process answers"},
    {"GET", "/readyz", SCOPE_PUBLIC, NULL, reply_state, NULL, "200 when the models are loaded"},
    {"GET", "/version", SCOPE_PUBLIC, NULL, reply_version, NULL, "Version, instruction set, and how each model's weights are kept"},
    {"GET", "/metrics", SCOPE_PUBLIC, NULL, reply_metrics, NULL, "Prometheus metrics"},
    {0},
};
