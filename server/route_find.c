// SPDX-License-Identifier: MIT
// Which route a request finds. Pure.
#include "server/routes.h"

#include <stdio.h>
#include <string.h>

const char *route_tail(const struct http_route *route, const char *path, size_t *len) {
    size_t n = strcspn(route->path, "*{");
    if (!route->path[n]) return NULL;
    *len = route->path[n] == '*' ? strlen(path + n) : strcspn(path + n, "/");
    return path + n;
}

static bool path_matches(const struct http_route *route, const char *path) {
    size_t n = strcspn(route->path, "*{"), len;
    if (strncmp(route->path, path, n) != 0) return false;
    const char *tail = route_tail(route, path, &len);
    if (!tail) return !path[n];
    if (len == 0) return false;
    return route->path[n] == '*' || strcmp(route->path + n + strlen("{id}"), tail + len) == 0;
}

// Exact paths before {id} before prefixes, longer patterns before shorter.
static size_t path_rank(const char *pattern) {
    size_t kind = strchr(pattern, '*') ? 0 : strchr(pattern, '{') ? 4096 : 8192;
    return kind + strlen(pattern);
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
    size_t best_rank = 0;
    *path_known = false;
    if (allow) allow[0] = 0;
    for (size_t t = 0; route_tables[t]; t++) {
        for (const struct http_route *route = route_tables[t]; route->path; route++) {
            if (!path_matches(route, path)) continue;
            *path_known = true;
            if (allow) allow_add(allow, allow_size, route->method);
            size_t rank = path_rank(route->path);
            if (method_matches(route, method) && rank > best_rank) {
                best = route;
                best_rank = rank;
            }
        }
    }
    return best;
}
