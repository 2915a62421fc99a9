// SPDX-License-Identifier: MIT
// Every route of the server. Each api_*.c owns one table, ended by a row of NULLs; routes.c lists the tables.
#pragma once

#include "server/http.h"

extern const struct http_route health_routes[]; // api_health.c
extern const struct http_route static_routes[]; // static.c
extern const struct http_route completion_routes[]; // api_completions.c
extern const struct http_route chat_routes[]; // api_chat.c
extern const struct http_route model_routes[]; // api_models.c
extern const struct http_route tokenize_routes[]; // api_tokenize.c
extern const struct http_route inspect_routes[]; // api_inspect.c
extern const struct http_route openapi_routes[]; // api_openapi.c
extern const struct http_route file_routes[]; // api_files.c
extern const struct http_route job_routes[]; // api_jobs.c
extern const struct http_route job_event_routes[]; // api_job_events.c
extern const struct http_route job_export_routes[]; // api_job_export.c

extern const struct http_route *const route_tables[]; // ended by NULL

// What stands in `path` for the pattern's {id} or '*', len bytes; NULL: the pattern has neither.
const char *route_tail(const struct http_route *route, const char *path, size_t *len);

// The best match: exact paths, then those with {id}, then prefixes. NULL: none. *path_known: the path exists for another method; then `allow` (if
// not NULL) is filled with the methods ("GET, HEAD"). HEAD matches GET's routes.
const struct http_route *route_find(const char *method, const char *path, bool *path_known, char *allow, size_t allow_size);
