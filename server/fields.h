// SPDX-License-Identifier: MIT
// Request fields as data: one table an endpoint drives validation, /openapi.json and the tests.
//
// Rules of every table: null is absent; a wrong type is 400 invalid_type, a value outside the bounds 400 value_out_of_range, a missing
// required one 400 missing_required_parameter, all with `param`
// (a member's: "object.member"); fields the table lacks are ignored and named in a header.
// Thread: fields_read runs in route->work, on the pool; the tables are constants.
#pragma once

#include "server/json_body.h"

enum field_kind {
    FIELD_STRING,  // struct text; min, max: bytes
    FIELD_INTEGER, // int64_t (3.0 counts as 3); FIELD_ABSENT when absent without a default
    FIELD_NUMBER,  // double
    FIELD_BOOLEAN, // bool
    FIELD_STRINGS, // a string or a list of them: struct texts; min, max: bytes of each
    FIELD_IDS,     // token ids: struct id_list; whether the vocabulary has them is checked by the route
    FIELD_BIAS,    // {"id": number}: struct bias_list; min, max: of the numbers
    FIELD_OBJECT,  // the members of `object`, into the same struct
    FIELD_VALUE,   // const json_t *, into the tree: the route checks it; `schema` says what it may be
    FIELD_REFUSED, // known to OpenAI's API, not done here: anything but null is 400 unsupported_parameter
};

#define FIELD_ABSENT INT64_MIN

struct text {
    const char *s; // NULL: absent; a NUL behind it
    size_t len;
};
struct texts {
    struct text *items;
    size_t n;
};
struct id_list {
    uint32_t *items;
    size_t n;
};
struct id_bias {
    uint32_t id;
    float bias;
};
struct bias_list {
    struct id_bias *items;
    size_t n;
};

struct field {
    const char *name;
    enum field_kind kind;
    size_t offset; // of the value in the route's struct
    double min, max;
    size_t max_items;         // lists and maps
    const char *default_text; // JSON; NULL: absent
    const char *choices;      // strings, lists of them: "a|b", the only values; NULL: any
    bool required, automatic; // automatic: the string "auto" counts as absent
    const struct field_table *object; // FIELD_OBJECT
    const char *schema;               // JSON schema, where kind does not say it
    const char *doc;
};
struct field_table {
    const char *name; // in /openapi.json
    const struct field *fields;
    size_t n;
    const struct field_table *common; // fields that several routes share, for the first member of the route's struct; or NULL
};

// A row: FIELD_ROW(struct x, member, kind, .min = 0, ...). The member's name is the field's.
#define FIELD_ROW(type_, name_, kind_, ...) {.name = #name_, .kind = kind_, .offset = offsetof(type_, name_), __VA_ARGS__}

// Fills *out (zeroed by the caller) from `object`; what it points to lies in r->arena, but for FIELD_VALUE.
bool fields_read(struct http_request *r, const struct field_table *table, const json_t *object, void *out) MUST_CHECK;

// The names that the table lacks, separated by ", ", fit for a header, at most 200 bytes; NULL: none.
const char *fields_ignored(struct http_request *r, const struct field_table *table, const json_t *object);

// A string value copied to the arena.
struct text text_copy(struct http_request *r, const json_t *string);
// A list of token ids; `name` (as in "prompt[3]") names it in errors. Elements: integers 0..2^32-1.
bool id_list_read(struct http_request *r, const char *name, const json_t *array, struct id_list *out) MUST_CHECK;
