// SPDX-License-Identifier: MIT
// The matrices of POST /v1/inspect: rectangular, finite, of shapes that fit each other. Shapes are looked at before anything is allocated, so that
// memory is bounded by the body. Pool thread.
#include "server/inspection.h"

#include "base/mem.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

struct matrices {
    const float *data; // [n][rows][cols]
    size_t n, rows, cols;
    bool several; // a list of matrices
};

static bool fail(struct http_request *r, const char *code, const char *param, const char *format, ...) PRINTF_LIKE(4, 5);
static bool fail(struct http_request *r, const char *code, const char *param, const char *format, ...) {
    char text[200];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return request_fail(r, 400, code, param, "'%s' must %s.", param, text);
}

// A list of 1 to `most` entries.
static bool length_read(struct http_request *r, const char *param, const json_t *v, const char *what, size_t most, size_t *out) {
    *out = json_array_size(v);
    if (!json_is_array(v)) return fail(r, "invalid_type", param, "be %s", what);
    return (*out >= 1 && *out <= most) || fail(r, "value_out_of_range", param, "have 1 to %zu entries", most);
}

static bool numbers_read(struct http_request *r, const char *param, const json_t *row, float *out) {
    const json_t *v;
    size_t i;
    json_array_foreach(row, i, v) {
        double number = json_number_value(v);
        if (!json_is_number(v)) return fail(r, "invalid_type", param, "hold numbers (entry %zu does not)", i);
        if (!isfinite((float)number)) return fail(r, "value_out_of_range", param, "hold numbers that a 32-bit float can hold (entry %zu)", i);
        out[i] = (float)number;
    }
    return true;
}

// One matrix at data, or NULL: its shape is checked.
static bool matrix_walk(struct http_request *r, const char *name, const json_t *v, const struct matrices *m, float *data) {
    char param[64];
    const json_t *row;
    size_t i, n;
    json_array_foreach(v, i, row) {
        snprintf(param, sizeof param, "%s[%zu]", name, i);
        if (data && !numbers_read(r, param, row, data + i * m->cols)) return false;
        if (data) continue;
        if (!length_read(r, param, row, "a list of numbers", INSPECT_MAX_WIDTH, &n)) return false;
        if (n != m->cols) return fail(r, "value_out_of_range", param, "have %zu entries, as the first row has", m->cols);
    }
    return true;
}

static bool shape_read(struct http_request *r, const char *name, const json_t *v, size_t most_rows, struct matrices *m) {
    return length_read(r, name, v, "a list of rows", most_rows, &m->rows) &&
           length_read(r, name, json_array_get(v, 0), "a list of rows", INSPECT_MAX_WIDTH, &m->cols) && matrix_walk(r, name, v, m, NULL);
}

// The shape, then the numbers, of a matrix or a list of them.
static bool matrices_read(struct http_request *r, const char *name, const json_t *v, size_t most_rows, bool heads, struct matrices *m) {
    m->several = heads && json_is_array(json_array_get(json_array_get(v, 0), 0));
    m->n = 1;
    if (m->several && !length_read(r, name, v, "a list of matrices", INSPECT_MAX_HEADS, &m->n)) return false;
    float *data = NULL;
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < m->n; i++) {
            char param[48];
            snprintf(param, sizeof param, m->several ? "%s[%zu]" : "%s", name, i);
            const json_t *one = m->several ? json_array_get(v, i) : v;
            struct matrices shape = *m;
            if (pass && !matrix_walk(r, param, one, m, data + i * m->rows * m->cols)) return false;
            if (!pass && !shape_read(r, param, one, most_rows, &shape)) return false;
            if (i && (shape.rows != m->rows || shape.cols != m->cols)) return fail(r, "value_out_of_range", param, "have the first head's shape");
            *m = shape;
        }
        if (!pass) m->data = data = arena_alloc(&r->arena, m->n * m->rows * m->cols, sizeof *data);
    }
    return true;
}

static bool projections_read(struct http_request *r, const struct inspect_fields *f, struct inspect_matrices *out) {
    const char *const names[3] = {"matrices.W_q", "matrices.W_k", "matrices.W_v"};
    const json_t *const values[3] = {f->W_q, f->W_k, f->W_v};
    struct matrices w[3] = {0};
    if (!f->W_q && !f->W_k && !f->W_v) return true;
    for (size_t i = 0; i < 3; i++) {
        if (!values[i]) return request_fail(r, 400, "missing_required_parameter", names[i], "'%s' is required beside the others.", names[i]);
        if (!matrices_read(r, names[i], values[i], INSPECT_MAX_WIDTH, true, &w[i])) return false;
        if (w[i].rows != out->d_in) return fail(r, "value_out_of_range", names[i], "have %zu rows, as the inputs have columns", out->d_in);
        if (w[i].n != w[0].n || w[i].several != w[0].several || w[i].cols != w[0].cols)
            return fail(r, "value_out_of_range", names[i], "have the shape of W_q");
    }
    if (w[0].n * w[0].cols > INSPECT_MAX_WIDTH)
        return fail(r, "value_out_of_range", names[0], "have at most %d columns, all heads together", INSPECT_MAX_WIDTH);
    out->w_q = w[0].data, out->w_k = w[1].data, out->w_v = w[2].data;
    out->n_matrices = out->n_heads = w[0].n;
    out->d_out = w[0].cols;
    out->heads_dimension = w[0].several;
    return true;
}

static bool heads_read(struct http_request *r, const struct inspect_fields *f, struct inspect_matrices *m) {
    if (f->n_head == FIELD_ABSENT) return true;
    size_t n = (size_t)f->n_head;
    if (!m->w_q) return request_fail(r, 400, "unsupported_parameter", "matrices.n_head", "'matrices.n_head' divides W_q's columns: there is no W_q.");
    if (m->heads_dimension && n != m->n_matrices) return fail(r, "value_out_of_range", "matrices.n_head", "be the number of W_q's matrices");
    if (!m->heads_dimension && m->d_out % n) return fail(r, "value_out_of_range", "matrices.n_head", "divide the %zu columns of W_q", m->d_out);
    m->n_heads = n;
    m->heads_dimension = true;
    return true;
}

static bool output_read(struct http_request *r, const struct inspect_fields *f, struct inspect_matrices *m) {
    static const char b_o[] = "matrices.b_o";
    struct matrices w = {0};
    size_t width = m->w_q ? m->n_matrices * m->d_out : m->d_in, n;
    if (!f->W_o)
        return !f->b_o || request_fail(r, 400, "missing_required_parameter", "matrices.W_o", "'matrices.W_o' is required where there is a b_o.");
    if (!matrices_read(r, "matrices.W_o", f->W_o, INSPECT_MAX_WIDTH, false, &w)) return false;
    if (w.rows != width) return fail(r, "value_out_of_range", "matrices.W_o", "have %zu rows, as the heads have columns together", width);
    m->w_o = w.data, m->d_o = w.cols;
    if (!f->b_o) return true;
    if (!length_read(r, b_o, f->b_o, "a list of numbers", INSPECT_MAX_WIDTH, &n)) return false;
    if (n != m->d_o) return fail(r, "value_out_of_range", b_o, "have %zu entries, as W_o has columns", m->d_o);
    float *bias = arena_alloc(&r->arena, n, sizeof *bias);
    m->b_o = bias;
    return numbers_read(r, b_o, f->b_o, bias);
}

bool inspect_matrices_read(struct http_request *r, const struct inspect_fields *f, struct inspect_matrices *out) {
    struct matrices inputs = {0};
    if (!matrices_read(r, "matrices.inputs", f->inputs, INSPECT_MAX_INPUTS, false, &inputs)) return false;
    out->inputs = inputs.data, out->n_tokens = inputs.rows, out->d_in = inputs.cols;
    out->n_matrices = out->n_heads = 1;
    return projections_read(r, f, out) && heads_read(r, f, out) && output_read(r, f, out);
}
