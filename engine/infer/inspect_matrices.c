// SPDX-License-Identifier: MIT
// Attention over matrices that the caller brings: the seed's worked examples, without a model. Shapes: T tokens, H heads, HS head size.
#include "engine/infer/inspect_internal.h"

#include "base/mem.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct matrices_look {
    const struct inspect_matrices *m;
    struct inspection *out;
    struct inspect_array *output;
    float *q, *k, *v, *heads; // [H][T][HS] each; [T][H * HS]
    size_t head_size;
    struct dropout_stream dropout;
};

// y [T][n] = x [T][n_in] times columns [column, column + n) of w [n_in][n_out], + b
static void rows_times(const float *x, size_t T, size_t n_in, const float *w, size_t n_out, size_t column, size_t n, const float *b,
                       float *y) {
    for (size_t t = 0; t < T; t++, x += n_in, y += n) {
        if (b) memcpy(y, b + column, n * sizeof *y);
        else memset(y, 0, n * sizeof *y);
        for (size_t i = 0; i < n_in; i++)
            for (size_t o = 0; o < n; o++) y[o] += x[i] * w[i * n_out + column + o];
    }
}

// One head's queries, keys or values [T][HS].
static void project(const struct matrices_look *l, const float *w, size_t head, float *y) {
    const struct inspect_matrices *m = l->m;
    const size_t HS = l->head_size;
    if (!w)
        for (size_t t = 0; t < m->n_tokens; t++) memcpy(y + t * HS, m->inputs + t * m->d_in + head * HS, HS * sizeof *y);
    else if (m->n_matrices > 1) rows_times(m->inputs, m->n_tokens, m->d_in, w + head * m->d_in * m->d_out, m->d_out, 0, HS, NULL, y);
    else rows_times(m->inputs, m->n_tokens, m->d_in, w, m->d_out, head * HS, HS, NULL, y);
}

static void softmax(const float *scores, size_t n, float scale, float *weights) {
    float max = -INFINITY;
    double sum = 0;
    for (size_t i = 0; i < n; i++) max = fmaxf(max, scores[i] * scale);
    for (size_t i = 0; i < n; i++) sum += weights[i] = expf(scores[i] * scale - max);
    for (size_t i = 0; i < n; i++) weights[i] = (float)(weights[i] / sum);
}

static void attend(struct matrices_look *l, size_t head) {
    const size_t T = l->m->n_tokens, HS = l->head_size, at = head * T * HS;
    const float *q = l->q + at, *k = l->k + at, *v = l->v + at;
    float *scores = l->out->scores.data + head * T * T, *weights = l->out->weights.data + head * T * T,
          *context = l->out->context.data + at;
    for (size_t t = 0; t < T; t++) {
        const size_t n = l->m->no_mask ? T : t + 1;
        for (size_t p = 0; p < T; p++) {
            float dot = 0;
            for (size_t d = 0; d < HS; d++) dot += q[t * HS + d] * k[p * HS + d];
            scores[t * T + p] = p < n ? dot : -INFINITY;
        }
        softmax(scores + t * T, n, l->out->scale, weights + t * T);
    }
    if (l->m->dropout.p > 0) dropout_stream_apply(&l->dropout, weights, T * T);
    for (size_t t = 0; t < T; t++) {
        for (size_t p = 0; p < T; p++)
            for (size_t d = 0; d < HS; d++) context[t * HS + d] += weights[t * T + p] * v[p * HS + d];
        memcpy(l->heads + (t * l->m->n_heads + head) * HS, context + t * HS, HS * sizeof *context);
    }
}

static void shape(const struct matrices_look *l, struct inspect_array *a, size_t columns) {
    if (l->m->n_heads > 1 || l->m->heads_dimension) a->shape[a->n_dims++] = l->m->n_heads;
    a->shape[a->n_dims++] = l->m->n_tokens;
    a->shape[a->n_dims++] = columns;
}

static bool matrices_make(struct matrices_look *l, struct err *err) {
    const struct inspect_matrices *m = l->m;
    struct inspection *out = l->out;
    struct inspect_array *arrays[] = {&out->q, &out->k, &out->v, &out->scores, &out->weights, &out->context, l->output};
    struct array_sum sum = {0};
    for (size_t i = 0; i < 3; i++) shape(l, arrays[i], l->head_size);
    shape(l, &out->scores, m->n_tokens);
    shape(l, &out->weights, m->n_tokens);
    shape(l, &out->context, l->head_size);
    *l->output = (struct inspect_array){.shape = {m->n_tokens, m->w_o ? m->d_o : m->n_heads * l->head_size}, .n_dims = 2};
    for (size_t i = 0; i < ARRAY_LEN(arrays); i++) array_sum_add(&sum, arrays[i]->shape, arrays[i]->n_dims, sizeof(float));
    if (!array_sum_check(&sum, m->max_bytes, err)) return false;
    for (size_t i = 0; i < ARRAY_LEN(arrays); i++)
        if (!inspect_array_alloc(arrays[i], err)) return false;
    l->q = out->q.data, l->k = out->k.data, l->v = out->v.data;
    l->heads = m->w_o ? mem_try_alloc(m->n_tokens * m->n_heads, l->head_size * sizeof(float), "heads side by side", err) : l->output->data;
    return l->heads;
}

static bool matrices_look(struct matrices_look *l, struct err *err) {
    const struct inspect_matrices *m = l->m;
    if (!matrices_make(l, err)) return false;
    if (m->dropout.p > 0) dropout_stream_init(&l->dropout, &m->dropout);
    l->out->scale = m->w_q ? 1.0f / sqrtf((float)l->head_size) : 1;
    for (size_t h = 0; h < m->n_heads; h++) {
        if (m->cancelled && m->cancelled(m->ctx)) return look_cancelled_error(err);
        const size_t at = h * m->n_tokens * l->head_size;
        project(l, m->w_q, h, l->q + at);
        project(l, m->w_k, h, l->k + at);
        project(l, m->w_v, h, l->v + at);
        attend(l, h);
    }
    if (m->w_o) rows_times(l->heads, m->n_tokens, m->n_heads * l->head_size, m->w_o, m->d_o, 0, m->d_o, m->b_o, l->output->data);
    return true;
}

bool inspect_matrices(const struct inspect_matrices *m, struct inspection *out, struct inspect_array *output, struct err *err) {
    struct inspection made = {0};
    struct inspect_array made_output = {0};
    struct matrices_look l = {.m = m, .out = &made, .output = &made_output};
    assert(m->n_tokens > 0 && m->d_in > 0 && m->n_heads > 0 && !m->w_q == !m->w_k && !m->w_q == !m->w_v && m->dropout.p >= 0 &&
           m->dropout.p < 1);
    l.head_size = !m->w_q ? m->d_in / m->n_heads : m->n_matrices > 1 ? m->d_out : m->d_out / m->n_heads;
    assert(l.head_size > 0);
    bool ok = matrices_look(&l, err);
    if (l.heads != made_output.data) free(l.heads);
    if (ok && !m->w_q) { // they are the inputs
        free(made.q.data), free(made.k.data), free(made.v.data);
        made.q = made.k = made.v = (struct inspect_array){0};
    }
    if (ok) {
        *out = made;
        *output = made_output;
    } else {
        inspection_finish(&made);
        free(made_output.data);
    }
    return ok;
}
