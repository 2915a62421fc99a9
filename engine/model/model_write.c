// SPDX-License-Identifier: MIT
// What every format needs: rows of f32 turned into a file's precision, a few at a time, and an opened model seen as tensors to write.
//
// Invariants: (1) f16 and bf16 round to nearest even, Q8_0 is bit-equal to PyPI `gguf`; (2) memory is bounded by CHUNK floats or one row.
// Any thread.
#include "engine/model/write_internal.h"

#include "base/mem.h"
#include "engine/model/tensor.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK = 1 << 18 }; // floats converted at a time

static size_t row_elements(const struct tensor_out *t) { return t->n_dims == 2 ? t->shape[1] : t->shape[0]; }
static size_t row_count(const struct tensor_out *t) { return t->n_dims == 2 ? t->shape[0] : 1; }

size_t tensor_out_bytes(const struct tensor_out *t, enum dtype type) {
    return row_count(t) * (row_elements(t) / dtype_block(type) * dtype_block_bytes(type));
}

void tensor_out_rows(const struct tensor_out *t, size_t row, size_t n_rows, float *out) {
    const size_t n = row_elements(t);
    if (t->data) memcpy(out, t->data + row * n, n_rows * n * sizeof(float));
    else t->fill(t->ctx, t, row, n_rows, out);
}

// gguf.quants.Q8_0: the scale is divided and inverted in f32 before it is rounded to f16; products round half away from zero.
static void quantize_q8_0(const float *x, size_t n, unsigned char *out) {
    for (size_t b = 0; b < n / 32; b++, x += 32, out += 34) {
        float max = 0;
        for (size_t i = 0; i < 32; i++) max = fmaxf(max, fabsf(x[i]));
        const float d = max / 127, inverse = d < FLT_MIN ? 0 : 1 / d; // below that 1 / d is infinite and the f16 scale zero
        const uint16_t scale = f32_to_f16(d);
        memcpy(out, &scale, sizeof(scale));
        for (size_t i = 0; i < 32; i++) out[2 + i] = (unsigned char)(signed char)fmaxf(-127, fminf(127, roundf(x[i] * inverse)));
    }
}

static void convert(enum dtype type, const float *x, size_t n, unsigned char *out) {
    uint16_t h;
    switch (type) {
    case DTYPE_F32: memcpy(out, x, n * sizeof(float)); break;
    case DTYPE_F16:
        for (size_t i = 0; i < n; i++) h = f32_to_f16(x[i]), memcpy(out + 2 * i, &h, 2);
        break;
    case DTYPE_BF16:
        for (size_t i = 0; i < n; i++) h = f32_to_bf16(x[i]), memcpy(out + 2 * i, &h, 2);
        break;
    case DTYPE_Q8_0: quantize_q8_0(x, n, out); break;
    default: assert(!"a type that is not written");
    }
}

bool tensor_out_write(struct file_writer *w, const struct tensor_out *t, enum dtype type, struct err *err) {
    const size_t n = row_elements(t), rows = row_count(t), step = MIN(MAX(CHUNK / n, (size_t)1), rows);
    const size_t row_bytes = n / dtype_block(type) * dtype_block_bytes(type);
    if (t->data && type == DTYPE_F32) { // as the file has it: checkpoints write gigabytes of these, some in a single row
        file_writer_add(w, t->data, rows * row_bytes);
        return true;
    }
    float *x = mem_try_alloc(step * n, sizeof(float), t->name, err);
    unsigned char *bytes = x ? mem_try_alloc(step, row_bytes, t->name, err) : NULL;
    for (size_t row = 0; bytes && row < rows && w->error == 0; row += step) {
        const size_t count = MIN(step, rows - row);
        tensor_out_rows(t, row, count, x);
        convert(type, x, count * n, bytes);
        file_writer_add(w, bytes, count * row_bytes);
    }
    const bool ok = bytes != NULL;
    free(bytes);
    free(x);
    return ok;
}

static int compare_names(const void *a, const void *b) {
    return strcmp((*(const struct tensor_out *const *)a)->name, (*(const struct tensor_out *const *)b)->name);
}

const struct tensor_out **tensors_by_name(const struct tensor_out *tensors, size_t n) {
    const struct tensor_out **list = mem_alloc(n, sizeof(*list));
    for (size_t i = 0; i < n; i++) list[i] = &tensors[i];
    qsort(list, n, sizeof(*list), compare_names);
    for (size_t i = 1; i < n; i++) assert(strcmp(list[i - 1]->name, list[i]->name) != 0);
    return list;
}

static void tensor_fill(void *ctx, const struct tensor_out *t, size_t row, size_t n_rows, float *out) {
    const struct tensor *from = ctx;
    if (from->n_dims == 1) {
        tensor_vector(from, out);
        return;
    }
    const struct linear_view v = {.t = from, .n_out = from->shape[0], .n_in = from->shape[1]};
    linear_view_expand(&v, row, n_rows, out);
}

struct tensor_out *model_file_tensors_out(const struct model_file *f, size_t *n) {
    *n = model_file_tensor_count(f);
    struct tensor_out *list = mem_alloc(*n, sizeof(*list));
    for (size_t i = 0; i < *n; i++) {
        const struct tensor *t = model_file_tensor_at(f, i);
        list[i] = (struct tensor_out){.name = t->name, .n_dims = t->n_dims, .shape = {t->shape[0], t->shape[1]}, .fill = tensor_fill};
        list[i].ctx = (void *)(uintptr_t)t; // only read
    }
    return list;
}
