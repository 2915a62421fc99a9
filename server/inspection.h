// SPDX-License-Identifier: MIT
// POST /v1/inspect in three rooms: the request (inspect_request.c, inspect_matrices.c), the look itself (api_inspect.c) and the answer
// (inspect_reply.c), which `couplet inspect` writes too.
#pragma once

#include "engine/infer/inspect.h"
#include "server/fields.h"

// Of the arrays of an answer; weights alone can be bytes: the others are float32 then.
enum array_encoding { ENCODING_NUMBERS, ENCODING_FLOAT32, ENCODING_UINT8 };

enum {
    INSPECT_MAX_BYTES = 64 << 20, // of an answer's arrays
    INSPECT_MAX_ABLATED = 1024,
    INSPECT_MAX_INPUTS = 512, // of matrices: rows, columns (of all heads together), heads
    INSPECT_MAX_WIDTH = 1024,
    INSPECT_MAX_HEADS = 64,
};

// What is to be looked at. request.model NULL: at matrices; then only what, layer, head (-1), mask and dropout of `request` are filled.
struct inspect_look {
    const char *model_id; // NULL: matrices
    struct inspect_request request;
    struct inspect_matrices matrices;
    enum array_encoding encoding;
};

struct inspect_fields {
    struct text model, mask, positions, encoding;
    const json_t *prompt, *ablate;
    struct texts what;
    int64_t layer, head, top_k, lens_tokens, seed, n_head;
    double p;
    const json_t *inputs, *W_q, *W_k, *W_v, *W_o, *b_o; // of matrices
};
extern const struct field_table inspect_table;

// Pool. Fills *out, whose arrays lie in r->arena, but for the model, of which it takes a reference. false: r->err, or r->cold; no reference then.
bool inspect_look_read(struct http_request *r, const json_t *tree, struct inspect_look *out) MUST_CHECK;
bool inspect_matrices_read(struct http_request *r, const struct inspect_fields *f, struct inspect_matrices *out) MUST_CHECK; // inspect_matrices.c

// The whole answer. output: of matrices, else NULL.
void inspect_reply_write(const struct inspect_look *l, const struct inspection *i, const struct inspect_array *output, struct buf *out);
