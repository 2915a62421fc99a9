// SPDX-License-Identifier: MIT
// Reads request fields by their table. Messages name the field and the bounds, never the client's value.
#include "server/fields.h"

#include "base/mem.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool wrong_type(struct http_request *r, const char *name, const char *expected) {
    return request_fail(r, 400, "invalid_type", name, "'%s' must be %s.", name, expected);
}
static bool out_of_range(struct http_request *r, const struct field *f, const char *unit) {
    return request_fail(r, 400, "value_out_of_range", f->name, "'%s' must be between %.15g and %.15g%s.", f->name,
                        f->min, f->max, unit);
}

struct text text_copy(struct http_request *r, const json_t *string) {
    size_t len = json_string_length(string);
    return (struct text){arena_strndup(&r->arena, json_string_value(string), len), len};
}

// Integers written as 3.0 or 3e0 are integers to many clients.
static bool json_as_integer(const json_t *v, int64_t *out) {
    if (json_is_integer(v)) {
        *out = json_integer_value(v);
        return true;
    }
    if (!json_is_real(v)) return false;
    double d = json_real_value(v);
    if (d != floor(d) || fabs(d) > 9007199254740992.0) return false;
    *out = (int64_t)d;
    return true;
}

static bool read_integer(struct http_request *r, const struct field *f, const json_t *v, int64_t *out) {
    int64_t value;
    if (!json_as_integer(v, &value)) {
        bool huge = json_is_real(v) && fabs(json_real_value(v)) > 9007199254740992.0;
        return huge ? out_of_range(r, f, "") : wrong_type(r, f->name, "an integer");
    }
    // A bound of 2^63 does not fit an int64_t; comparing as doubles is exact enough for bounds that are round.
    if ((double)value < f->min || (double)value > f->max) return out_of_range(r, f, "");
    *out = value;
    return true;
}

static bool read_number(struct http_request *r, const struct field *f, const json_t *v, double *out) {
    if (!json_is_number(v)) return wrong_type(r, f->name, "a number");
    double value = json_number_value(v);
    if (!(value >= f->min && value <= f->max)) return out_of_range(r, f, "");
    *out = value;
    return true;
}

static bool read_string(struct http_request *r, const struct field *f, const json_t *v, const char *expected,
                        struct text *out) {
    if (!json_is_string(v)) return wrong_type(r, f->name, expected);
    size_t len = json_string_length(v);
    if ((double)len < f->min || (f->max > 0 && (double)len > f->max)) return out_of_range(r, f, " bytes long");
    *out = text_copy(r, v);
    return true;
}

static bool read_choice(struct http_request *r, const struct field *f, const json_t *v, const char *expected, struct text *out) {
    if (!read_string(r, f, v, expected, out)) return false;
    for (const char *at = f->choices; at; at = strchr(at, '|') ? strchr(at, '|') + 1 : NULL) {
        size_t n = strcspn(at, "|");
        if (n == out->len && memcmp(at, out->s, n) == 0) return true;
    }
    return !f->choices ||
           request_fail(r, 400, "value_out_of_range", f->name, "'%s' must be one of %s.", f->name, f->choices);
}

static bool too_many(struct http_request *r, const struct field *f) {
    return request_fail(r, 400, "value_out_of_range", f->name, "'%s' may have at most %zu entries.", f->name,
                        f->max_items);
}

static bool read_strings(struct http_request *r, const struct field *f, const json_t *v, struct texts *out) {
    const char *expected = "a string or a list of strings";
    bool list = json_is_array(v);
    if (!list && !json_is_string(v)) return wrong_type(r, f->name, expected);
    size_t n = list ? json_array_size(v) : 1;
    if (n > f->max_items) return too_many(r, f);
    struct text *items = arena_alloc(&r->arena, n ? n : 1, sizeof *items);
    for (size_t i = 0; i < n; i++)
        if (!read_choice(r, f, list ? json_array_get(v, i) : v, expected, &items[i])) return false;
    *out = (struct texts){items, n};
    return true;
}

bool id_list_read(struct http_request *r, const char *name, const json_t *array, struct id_list *out) {
    size_t n = json_array_size(array);
    uint32_t *ids = arena_alloc(&r->arena, n ? n : 1, sizeof *ids);
    for (size_t i = 0; i < n; i++) {
        int64_t id;
        const json_t *v = json_array_get(array, i);
        if (!json_as_integer(v, &id)) {
            if (!json_is_real(v)) return wrong_type(r, name, "a list of token ids (integers)");
            id = -1;
        }
        if (id < 0 || id > UINT32_MAX)
            return request_fail(r, 400, "invalid_token_id", name,
                                "'%s' holds a number that is no token id (entry %zu).", name, i);
        ids[i] = (uint32_t)id;
    }
    *out = (struct id_list){ids, n};
    return true;
}

static bool read_ids(struct http_request *r, const struct field *f, const json_t *v, struct id_list *out) {
    if (!json_is_array(v)) return wrong_type(r, f->name, "a list of token ids (integers)");
    if (json_array_size(v) > f->max_items) return too_many(r, f);
    return id_list_read(r, f->name, v, out);
}

// Keys are token ids in decimal, as OpenAI has them.
static bool parse_id_key(const char *key, uint32_t *out) {
    size_t len = strlen(key);
    if (len == 0 || len > 10 || strspn(key, "0123456789") != len) return false;
    unsigned long long id = strtoull(key, NULL, 10);
    if (id > UINT32_MAX) return false;
    *out = (uint32_t)id;
    return true;
}

static bool read_bias(struct http_request *r, const struct field *f, const json_t *v, struct bias_list *out) {
    if (!json_is_object(v)) return wrong_type(r, f->name, "an object from token ids to numbers");
    size_t n = json_object_size(v), i = 0;
    if (n > f->max_items) return too_many(r, f);
    struct id_bias *items = arena_alloc(&r->arena, n ? n : 1, sizeof *items);
    for (void *at = json_object_iter((json_t *)(uintptr_t)v); at;
         at = json_object_iter_next((json_t *)(uintptr_t)v, at)) {
        double bias;
        if (!parse_id_key(json_object_iter_key(at), &items[i].id))
            return request_fail(r, 400, "invalid_token_id", f->name, "'%s' has a key that is no token id.", f->name);
        if (!read_number(r, f, json_object_iter_value(at), &bias)) return false;
        items[i++].bias = (float)bias;
    }
    *out = (struct bias_list){items, n};
    return true;
}

static void set_default(const struct field *f, char *at) {
    const char *d = f->default_text;
    switch (f->kind) {
    case FIELD_INTEGER: *(int64_t *)(void *)at = d ? strtoll(d, NULL, 10) : FIELD_ABSENT; break;
    case FIELD_NUMBER: *(double *)(void *)at = d ? strtod(d, NULL) : NAN; break;
    case FIELD_BOOLEAN: *(bool *)(void *)at = d && strcmp(d, "true") == 0; break;
    default: break; // zeroed
    }
}

static bool read_members(struct http_request *r, const struct field_table *table, const json_t *object, void *out);

// "member" -> "object.member". Returns false.
static bool name_owner(struct http_request *r, const char *object) {
    char param[sizeof r->err.param];
    if ((size_t)snprintf(param, sizeof param, "%s.%s", object, r->err.param) < sizeof param)
        memcpy(r->err.param, param, sizeof param);
    return false;
}

static bool read_field(struct http_request *r, const struct field *f, const json_t *v, char *base) {
    void *at = base + f->offset;
    switch (f->kind) {
    case FIELD_STRING: return read_choice(r, f, v, "a string", at);
    case FIELD_INTEGER: return read_integer(r, f, v, at);
    case FIELD_NUMBER: return read_number(r, f, v, at);
    case FIELD_STRINGS: return read_strings(r, f, v, at);
    case FIELD_IDS: return read_ids(r, f, v, at);
    case FIELD_BIAS: return read_bias(r, f, v, at);
    case FIELD_BOOLEAN:
        if (!json_is_boolean(v)) return wrong_type(r, f->name, "true or false");
        *(bool *)at = json_is_true(v);
        return true;
    case FIELD_OBJECT:
        if (!json_is_object(v)) return wrong_type(r, f->name, "an object");
        return read_members(r, f->object, v, base) || name_owner(r, f->name);
    case FIELD_VALUE: *(const json_t **)at = v; return true;
    case FIELD_REFUSED:
        return request_fail(r, 400, "unsupported_parameter", f->name, "'%s' is not supported. %s", f->name, f->doc);
    }
    assert(!"field kind");
    return false;
}

// Members of an absent object still get their defaults.
static void set_defaults(const struct field_table *table, char *base) {
    if (table->common) set_defaults(table->common, base);
    for (size_t i = 0; i < table->n; i++) {
        const struct field *f = &table->fields[i];
        if (f->kind == FIELD_OBJECT) set_defaults(f->object, base);
        else if (f->kind != FIELD_REFUSED) set_default(f, base + f->offset);
    }
}

static bool is_auto(const json_t *v) { return json_is_string(v) && strcmp(json_string_value(v), "auto") == 0; }

static bool read_members(struct http_request *r, const struct field_table *table, const json_t *object, void *out) {
    if (table->common && !read_members(r, table->common, object, out)) return false;
    for (size_t i = 0; i < table->n; i++) {
        const struct field *f = &table->fields[i];
        const json_t *v = json_object_get(object, f->name);
        if (v && !json_is_null(v) && !(f->automatic && is_auto(v))) {
            if (!read_field(r, f, v, out)) return false;
        } else if (f->required) {
            return request_fail(r, 400, "missing_required_parameter", f->name, "'%s' is required.", f->name);
        }
    }
    return true;
}

bool fields_read(struct http_request *r, const struct field_table *table, const json_t *object, void *out) {
    set_defaults(table, out);
    return read_members(r, table, object, out);
}

static bool table_has(const struct field_table *table, const char *name) {
    for (size_t i = 0; i < table->n; i++)
        if (strcmp(table->fields[i].name, name) == 0) return true;
    return table->common && table_has(table->common, name);
}

const char *fields_ignored(struct http_request *r, const struct field_table *table, const json_t *object) {
    char list[201];
    size_t len = 0;
    for (void *at = json_object_iter((json_t *)(uintptr_t)object); at;
         at = json_object_iter_next((json_t *)(uintptr_t)object, at)) {
        const char *name = json_object_iter_key(at);
        if (table_has(table, name)) continue;
        size_t n = MIN(strlen(name), (size_t)40);
        if (len + n + 2 > sizeof list - 1) break;
        if (len) list[len++] = ',', list[len++] = ' ';
        for (size_t i = 0; i < n;
             i++) { // a header field takes no control characters, and nothing that looks like a list
            unsigned char c = (unsigned char)name[i];
            bool plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_' ||
                         c == '-' || c == '.';
            list[len++] = plain ? (char)c : '?';
        }
    }
    return len ? arena_strndup(&r->arena, list, len) : NULL;
}
