// SPDX-License-Identifier: MIT
// The model that a request names, loaded first where that is needed: work finds it cold, start has the slow lane load it and begins again.
#pragma once

#include "server/fields.h"
#include "server/server.h"

// Route->work. One reference, for model_release; id absent or empty: the only one served. NULL: r->err is set (400, 404, 503), or r->cold, and then work
// returns true and start calls request_warm.
struct model *request_model(struct http_request *r, struct text id) MUST_CHECK;
// Loop: loads r->cold, then the route's work and start as if the request had just come.
void request_warm(struct http_request *r);
extern const struct field_table alias_table; // "ModelAliasRequest", api_models.c
// Route->work or start: false, and 503, while the models are loaded.
bool request_models_ready(struct http_request *r) MUST_CHECK;
