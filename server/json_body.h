// SPDX-License-Identifier: MIT
// A request body as a jansson tree, and how a route says what is wrong with it. Pool thread (route->work).
#pragma once

#include "server/http.h"

#include <jansson.h>

enum {
    BODY_MAX_DEPTH = 64,         // jansson recurses
    BODY_MAX_CONTAINERS = 20000, // arrays and objects, members of objects: some 240 bytes of heap each
    BODY_MAX_ELEMENTS = 400000,  // commas: a batch of 256 prompts as ids fits
};

// The body as an object; the caller drops it with json_decref before work returns. NULL: r->err is set (400 invalid_json).
// Duplicate keys are refused; strings may hold NUL.
json_t *json_body_parse(struct http_request *r) MUST_CHECK;

// Fills r->err, err_status and err_code and returns false. `code` must be a literal. The message never quotes the client's values:
// they may hold anything.
bool request_fail(struct http_request *r, int status, const char *code, const char *param, const char *format, ...)
    PRINTF_LIKE(5, 6);
