// SPDX-License-Identifier: MIT
// GET /openapi.json: written from the route tables and the field tables, so that it cannot say what the server does not do. Pool.
#include "server/chat.h"
#include "server/completions.h"
#include "server/inspection.h"
#include "server/job_fields.h"
#include "server/request_model.h"
#include "server/routes.h"
#include "server/tokenize.h"

#include "base/mem.h"

#include <string.h>

static const struct {
    const char *path;
    const struct field_table *table;
} bodies[] = {
    {"/v1/completions", &completion_table},
    {"/v1/chat/completions", &chat_table},
    {"/tokenize", &tokenize_table},
    {"/detokenize", &detokenize_table},
    {"/v1/inspect", &inspect_table},
    {"/v1/fine_tuning/jobs", &job_table},
    {"/v1/fine_tuning/estimate", &job_table},
    {"/v1/models/*", &alias_table},
};

static const struct field_table *body_of(const char *path) {
    for (size_t i = 0; i < ARRAY_LEN(bodies); i++)
        if (strcmp(bodies[i].path, path) == 0) return bodies[i].table;
    return NULL;
}

static void add_string(struct buf *out, const char *s) { buf_add_json_string(out, s, strlen(s)); }

// -- Schemas -----------------------------------------------------------------------------------------------------------------
static void write_bounds(const struct field *f, struct buf *out) {
    if (f->kind == FIELD_NUMBER) buf_printf(out, ",\"minimum\":%.15g,\"maximum\":%.15g", f->min, f->max);
    else if (f->max < 9223372036854775807.0) buf_printf(out, ",\"minimum\":%.0f,\"maximum\":%.0f", f->min, f->max);
    else buf_printf(out, ",\"minimum\":%.0f,\"maximum\":9223372036854775807", f->min); // 2^63 is no int64
}

static void write_lengths(const struct field *f, struct buf *out) {
    if (f->min > 0) buf_printf(out, ",\"minLength\":%.0f", f->min);
    if (f->max > 0) buf_printf(out, ",\"maxLength\":%.0f", f->max);
}

// "a|b" -> enum; with null, which is absent, where it may be.
static void write_choices(const char *choices, bool null, struct buf *out) {
    const char *comma = null ? "null," : "";
    buf_add_str(out, ",\"enum\":[");
    for (const char *at = choices; at; at = strchr(at, '|') ? strchr(at, '|') + 1 : NULL, comma = ",")
        buf_printf(out, "%s\"%.*s\"", comma, (int)strcspn(at, "|"), at);
    buf_add_byte(out, ']');
}

static void write_properties(const struct field_table *t, struct buf *out);

static void write_type(const struct field *f, struct buf *out) {
    switch (f->kind) {
    case FIELD_STRING:
        buf_add_str(out, "\"type\":[\"string\",\"null\"]");
        write_lengths(f, out);
        if (f->choices) write_choices(f->choices, true, out);
        break;
    case FIELD_INTEGER:
    case FIELD_NUMBER:
        if (f->automatic) buf_add_str(out, "\"anyOf\":[{\"type\":\"string\",\"enum\":[\"auto\"]},{");
        buf_printf(out, "\"type\":[\"%s\",\"null\"]", f->kind == FIELD_INTEGER ? "integer" : "number");
        write_bounds(f, out);
        if (f->automatic) buf_add_str(out, "}]");
        break;
    case FIELD_BOOLEAN: buf_add_str(out, "\"type\":[\"boolean\",\"null\"]"); break;
    case FIELD_STRINGS:
        buf_add_str(out, "\"anyOf\":[{\"type\":\"string\"");
        write_lengths(f, out);
        if (f->choices) write_choices(f->choices, false, out);
        buf_add_str(out, "},{\"type\":\"array\",\"items\":{\"type\":\"string\"");
        write_lengths(f, out);
        if (f->choices) write_choices(f->choices, false, out);
        buf_printf(out, "},\"maxItems\":%zu},{\"type\":\"null\"}]", f->max_items);
        break;
    case FIELD_IDS:
        buf_printf(out, "\"type\":[\"array\",\"null\"],\"items\":{\"type\":\"integer\",\"minimum\":0},\"maxItems\":%zu",
                   f->max_items);
        break;
    case FIELD_BIAS:
        buf_add_str(out, "\"type\":[\"object\",\"null\"],\"additionalProperties\":{\"type\":\"number\"");
        buf_printf(out, ",\"minimum\":%.15g,\"maximum\":%.15g", f->min, f->max);
        buf_printf(out, "},\"maxProperties\":%zu", f->max_items);
        break;
    case FIELD_OBJECT:
        buf_add_str(out, "\"type\":[\"object\",\"null\"],");
        write_properties(f->object, out);
        break;
    case FIELD_VALUE:
        buf_printf(out, f->required ? "\"anyOf\":[%s]" : "\"anyOf\":[%s,{\"type\":\"null\"}]", f->schema);
        break;
    case FIELD_REFUSED: buf_add_str(out, "\"type\":\"null\""); break;
    }
}

// The table's rows and its common ones: i-th, NULL past the end.
static const struct field *field_at(const struct field_table *t, size_t i) {
    if (i < t->n) return &t->fields[i];
    return t->common ? field_at(t->common, i - t->n) : NULL;
}

static void write_properties(const struct field_table *t, struct buf *out) {
    const struct field *f;
    buf_add_str(out, "\"properties\":{");
    for (size_t i = 0; (f = field_at(t, i)); i++) {
        if (i) buf_add_byte(out, ',');
        add_string(out, f->name);
        buf_add_str(out, ":{");
        write_type(f, out);
        if (f->default_text) buf_printf(out, ",\"default\":%s", f->default_text);
        buf_add_str(out, ",\"description\":");
        add_string(out, f->doc);
        buf_add_byte(out, '}');
    }
    buf_add_str(out, "},\"required\":[");
    bool first = true;
    for (size_t i = 0; (f = field_at(t, i)); i++) {
        if (!f->required) continue;
        if (!first) buf_add_byte(out, ',');
        add_string(out, f->name);
        first = false;
    }
    buf_add_byte(out, ']');
}

static void write_components(struct buf *out) {
    buf_add_str(
        out, "\"components\":{\"securitySchemes\":{\"bearer\":{\"type\":\"http\",\"scheme\":\"bearer\"}},\"schemas\":{"
             "\"Error\":{\"type\":\"object\",\"required\":[\"error\"],\"properties\":{\"error\":{\"type\":\"object\","
             "\"required\":[\"message\",\"type\",\"param\",\"code\"],"
             "\"properties\":{\"message\":{\"type\":\"string\"},\"type\":{\"type\":\"string\"},\"param\":{\"type\":["
             "\"string\",\"null\"]},\"code\":{\"type\":[\"string\",\"null\"]}}}}}");
    for (size_t i = 0; i < ARRAY_LEN(bodies); i++) {
        if (i && bodies[i].table == bodies[i - 1].table) continue;
        buf_printf(out, ",\"%s\":{\"type\":\"object\",", bodies[i].table->name);
        write_properties(bodies[i].table, out);
        buf_add_byte(out, '}');
    }
    buf_add_str(out, "}}");
}

// -- Paths -------------------------------------------------------------------------------------------------------------------
static void write_operation(const struct http_route *route, struct buf *out) {
    char method[16] = "";
    for (size_t i = 0; route->method[i] && i + 1 < sizeof method; i++) method[i] = (char)(route->method[i] | 0x20);
    buf_printf(out, "\"%s\":{\"summary\":", method);
    add_string(out, route->summary);
    if (route->scope == SCOPE_PUBLIC) buf_add_str(out, ",\"security\":[]");
    if (strpbrk(route->path, "*{"))
        buf_add_str(
            out,
            ",\"parameters\":[{\"name\":\"id\",\"in\":\"path\",\"required\":true,\"schema\":{\"type\":\"string\"}}]");
    const struct field_table *body = route->method[0] == 'P' ? body_of(route->path) : NULL;
    if (body)
        buf_printf(out,
                   ",\"requestBody\":{\"required\":true,\"content\":{\"application/json\":{\"schema\":{\"$ref\":\"#/"
                   "components/schemas/%s\"}}}}",
                   body->name);
    if (route->sink)
        buf_printf(out, ",\"requestBody\":{\"required\":true,\"content\":{\"%s\":{\"schema\":%s}}}", route->sink->content_type, route->sink->schema);
    buf_add_str(out, ",\"responses\":{\"200\":{\"description\":\"Success\"},\"default\":{\"description\":\"Failure\","
                     "\"content\":{\"application/json\":{\"schema\":{\"$ref\":\"#/components/schemas/Error\"}}}}}}");
}

// A path's first route with a summary writes the path's whole object.
static bool is_first(const struct http_route *table, const struct http_route *route) {
    for (const struct http_route *other = table; other < route; other++)
        if (other->summary && strcmp(other->path, route->path) == 0) return false;
    return true;
}

static void write_path(const struct http_route *route, struct buf *out) {
    size_t len = strcspn(route->path, "*");
    struct buf path = {0};
    buf_add(&path, route->path, len);
    if (route->path[len]) buf_add_str(&path, "{id}");
    buf_add_json_string(out, path.data, path.len);
    buf_finish(&path);
    buf_add_str(out, ":{");
    bool first = true;
    for (const struct http_route *other = route; other->path; other++) { // a path's routes are in one table
        if (!other->summary || strcmp(other->path, route->path) != 0) continue;
        if (!first) buf_add_byte(out, ',');
        write_operation(other, out);
        first = false;
    }
    buf_add_byte(out, '}');
}

static bool openapi_work(struct http_request *r) {
    struct buf *out = arena_alloc(&r->arena, 1, sizeof *out);
    buf_add_str(out, "{\"openapi\":\"3.1.0\",\"info\":{\"title\":\"couplet\",\"version\":\"" COUPLET_VERSION
                     "\"},\"security\":[{},{\"bearer\":[]}],\"paths\":{");
    bool first = true;
    for (size_t i = 0; route_tables[i]; i++) {
        for (const struct http_route *route = route_tables[i]; route->path; route++) {
            if (!route->summary || !is_first(route_tables[i], route)) continue;
            if (!first) buf_add_byte(out, ',');
            write_path(route, out);
            first = false;
        }
    }
    buf_add_str(out, "},");
    write_components(out);
    buf_add_byte(out, '}');
    r->state = out;
    return true;
}

static void openapi_start(struct http_request *r) { http_reply_json(r, 200, r->state); }
static void openapi_end(struct http_request *r) {
    if (r->state) buf_finish(r->state);
    r->state = NULL;
}

const struct http_route openapi_routes[] = {
    {"GET", "/openapi.json", SCOPE_PUBLIC, openapi_work, openapi_start, openapi_end, "This description"},
    {0},
};
