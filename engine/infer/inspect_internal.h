// SPDX-License-Identifier: MIT
// What the parts of inspection share: memory of an answer's arrays, dropout, the look itself. Functions of one inspection's thread.
#pragma once

#include "engine/infer/inspect.h"
#include "engine/infer/transformer.h"

// ---- memory: shapes first, all of them; then one check; then the arrays ----

struct array_sum { // bytes of an answer's arrays
    size_t bytes;
    bool overflow;
};
void array_sum_add(struct array_sum *s, const size_t *shape, int n_dims, size_t element);
bool array_sum_check(const struct array_sum *s, size_t max_bytes, struct err *err) MUST_CHECK; // ERR_TOO_LARGE
bool inspect_array_alloc(struct inspect_array *a, struct err *err) MUST_CHECK; // data of its shape, zeroed; n_dims 0: none

// ---- dropout as torch does it on a CPU: MT19937, two draws a number ----

struct dropout_stream {
    double keep; // 1 - p
    uint32_t state[624];
    size_t at;
};
void dropout_stream_init(struct dropout_stream *d, const struct inspect_dropout *o);
void dropout_stream_apply(struct dropout_stream *d, float *x, size_t n);

// ---- a look at a model ----

struct look {
    const struct inspect_request *r;
    const struct model_config *c;
    const struct weights *w;
    struct pool *pool;
    struct transformer *transformer; // NULL: nothing of the forward was asked for
    struct inspection *out;
    struct dropout_stream dropout;
    float *maps;     // the tap's
    float *residual; // [lens entries][rows][C]: what the lens reads
    size_t n_layers; // of the forward that are needed
    bool cancelled;
};
bool look_cancelled(struct look *l); // asks; stays true
bool look_cancelled_error(struct err *err); // false

bool look_lens(struct look *l, struct err *err) MUST_CHECK;       // fills out->lens, allocated
bool look_neighbours(struct look *l, struct err *err) MUST_CHECK; // fills out->neighbours, allocated
