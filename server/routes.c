// SPDX-License-Identifier: MIT
// The list of route tables, and finding a route in them. Immutable.
#include "server/routes.h"

#include <stdio.h>
#include <string.h>

const struct http_route *const route_tables[] = {
    completion_routes,
    chat_routes,
    model_routes,
    tokenize_routes,
    openapi_routes,
    health_routes,
    static_routes,
    NULL,
};

static bool path_matches(const struct http_route *route, const char *path) {
    size_t n = strlen(route->path);
    if (route->path[n - 1] != '*') return strcmp(route->path, path) == 0;
    return strncmp(route->path, path, n - 1) == 0 && path[n - 1];
}

static bool method_matches(const struct http_route *route, const char *method) {
    return strcmp(route->method, method) == 0 || (strcmp(method, "HEAD") == 0 && strcmp(route->method, "GET") == 0);
}

static void allow_add(char *allow, size_t size, const char *method) {
    size_t n = strlen(allow);
    if (strstr(allow, method)) return;
    snprintf(allow + n, size - n, "%s%s%s", n ? ", " : "", method, strcmp(method, "GET") == 0 ? ", HEAD" : "");
}

const struct http_route *route_find(const char *method, const char *path, bool *path_known, char *allow, size_t allow_size) {
    const struct http_route *best = NULL;
    size_t best_len = 0;
    *path_known = false;
    if (allow) allow[0] = 0;
    for (size_t t = 0; route_tables[t]; t++) {
        for (const struct http_route *route = route_tables[t]; route->path; route++) {
            if (!path_matches(route, path)) continue;
            *path_known = true;
            if (allow) allow_add(allow, allow_size, route->method);
            bool exact = route->path[strlen(route->path) - 1] != '*';
            size_t len = strlen(route->path) + (exact ? 4096 : 0); // exact paths before prefixes, longer prefixes before shorter
            if (method_matches(route, method) && len > best_len) {
                best = route;
                best_len = len;
            }
        }
    }
    return best;
}
