// SPDX-License-Identifier: MIT
// See request_model.h.
#include "server/request_model.h"

#include "base/log.h"

#include <string.h>

static bool not_found(struct http_request *r) {
    return request_fail(r, 404, "model_not_found", "model", "The model does not exist; the list of models names those that do.");
}

bool request_models_ready(struct http_request *r) {
    if (server_state(r->server) != SERVER_LOADING) return true;
    return request_fail(r, 503, "model_loading", NULL, "The models are still being loaded. Try again in a moment.");
}

struct model *request_model(struct http_request *r, struct text id) {
    if (!request_models_ready(r)) return NULL;
    const struct viewer viewer = http_viewer(r);
    struct model_info info = {0};
    enum registry_answer answer = REGISTRY_UNKNOWN;
    if (!id.len || strlen(id.s) == id.len) answer = registry_find(r->server->registry, &viewer, id.len ? id.s : NULL, &info);
    struct model *m = info.model;
    info.model = NULL;
    if (answer == REGISTRY_COLD) r->cold = arena_strndup(&r->arena, info.id, strlen(info.id));
    model_info_finish(&info);
    if (answer == REGISTRY_UNKNOWN && id.len) (void)not_found(r);
    else if (answer == REGISTRY_UNKNOWN)
        (void)request_fail(r, 400, "missing_required_parameter", "model", "'model' is required: not exactly one model is served.");
    return m;
}

static bool warm_work(struct http_request *r) { // slow lane
    const struct viewer viewer = http_viewer(r);
    struct err err = {0};
    if (registry_warm(r->server->registry, &viewer, r->cold, &err)) return true;
    if (err.code == ERR_NOT_FOUND && strcmp(err.param, "model") == 0) return not_found(r);
    log_line(LOG_ERROR, "model not loaded", "id", r->cold, "message", err.message, NULL);
    return request_fail(r, err.code == ERR_NO_MEMORY ? 503 : 500, err.code == ERR_NO_MEMORY ? "insufficient_memory" : "model_not_loadable", "model",
                        "The model could not be loaded.");
}

static void warm_then(struct http_request *r) {
    r->cold = NULL;
    http_more_work(r, r->route->work, r->route->start);
}

void request_warm(struct http_request *r) { http_slow_work(r, warm_work, warm_then); }
