// SPDX-License-Identifier: MIT
// Bodies: bounded before they are parsed. jansson turns 1 MiB of "{},{},..." into 79 MB of heap and recurses once a level, so
// one pass over the bytes counts depth and values first. The count may be wrong for text that is no JSON: jansson refuses that.
#include "server/json_body.h"

#include <stdarg.h>
#include <stdio.h>

bool request_fail(struct http_request *r, int status, const char *code, const char *param, const char *format, ...) {
    char message[sizeof r->err.message];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    enum err_code kind = status == 404 ? ERR_NOT_FOUND : status == 429 || status == 503 ? ERR_BUSY : ERR_INVALID;
    err_set_param(&r->err, kind, param ? param : "", "%s", message);
    r->err_status = status;
    r->err_code = code;
    return false;
}

// NULL when the text is within the limits, else what is too much.
static const char *scan(const char *s, size_t len) {
    size_t depth = 0, containers = 0, elements = 0;
    bool in_string = false;
    for (size_t i = 0; i < len; i++) {
        char c = s[i];
        if (in_string) {
            if (c == '\\') i++;
            else if (c == '"') in_string = false;
            continue;
        }
        switch (c) {
        case '"': in_string = true; break;
        case '{':
        case '[':
            containers++;
            if (++depth > BODY_MAX_DEPTH) return "nested deeper than 64 levels";
            break;
        case '}':
        case ']': depth -= depth > 0; break;
        case ':': containers++; break;
        case ',': elements++; break;
        default: break;
        }
        if (containers > BODY_MAX_CONTAINERS || elements > BODY_MAX_ELEMENTS) return "made of too many values";
    }
    return NULL;
}

json_t *json_body_parse(struct http_request *r) {
    const char *excess = scan(r->body, r->body_len);
    if (excess) {
        request_fail(r, 400, "invalid_json", NULL, "The request body is %s.", excess);
        return NULL;
    }
    json_error_t error;
    json_t *tree = json_loadb(r->body, r->body_len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    if (tree && json_is_object(tree)) return tree;
    // jansson's own text quotes the body.
    if (tree) request_fail(r, 400, "invalid_json", NULL, "The request body must be a JSON object.");
    else if (json_error_code(&error) == json_error_duplicate_key)
        request_fail(r, 400, "invalid_json", NULL, "The request body names a key twice (line %d, column %d).",
                     error.line, error.column);
    else if (json_error_code(&error) == json_error_invalid_utf8)
        request_fail(r, 400, "invalid_utf8", NULL, "The request body is not valid UTF-8 (byte %d).", error.position);
    else if (json_error_code(&error) == json_error_numeric_overflow)
        request_fail(r, 400, "invalid_json", NULL, "A number in the request body is too large (line %d, column %d).",
                     error.line, error.column);
    else
        request_fail(r, 400, "invalid_json", NULL, "The request body is not valid JSON (line %d, column %d).",
                     error.line, error.column);
    json_decref(tree);
    return NULL;
}
