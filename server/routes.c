// SPDX-License-Identifier: MIT
// The list of route tables.
#include "server/routes.h"

const struct http_route *const route_tables[] = {
    completion_routes,
    chat_routes,
    model_routes,
    tokenize_routes,
    inspect_routes,
    file_routes,
    job_routes,
    job_event_routes,
    job_export_routes,
    openapi_routes,
    health_routes,
    static_routes,
    NULL,
};
