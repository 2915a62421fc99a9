// SPDX-License-Identifier: MIT
// An adapter added to an opened model: the touched weights become f32 copies in memory, in HF's order. See adapter.h.
//
// Invariants: (1) one copy of a base's tensors is made in one block that the model_file owns; (2) the sum over the rank runs in order, in
// f32, so that equal files give equal bits; (3) nothing in the model changes until every module was found to fit.
#include "engine/model/adapter.h"

#include "base/mem.h"
#include "engine/model/model_internal.h"
#include "engine/model/tensor.h"

#include <stdlib.h>
#include <string.h>

struct target {
    struct tensor *t;
    bool conv1d; // HF's shape is (in, out)
};

const struct tensor *adapter_target(const struct model_file *f, const struct adapter_module *m, bool *conv1d, struct err *err) {
    char weight[MODEL_MAX_NAME + 16], name[MODEL_MAX_NAME + 1];
    size_t layer;
    const size_t len = strlen(m->name), suffix = sizeof(".weight") - 1;
    memcpy(weight, m->name, len); // tensor names of a file are at most MODEL_MAX_NAME - 16 long
    memcpy(weight + len, ".weight", suffix + 1);
    const struct slot *s = hf_name_normalize(&f->config, weight, name) ? slot_find_hf(f->config.arch, name, &layer) : NULL;
    const struct tensor *t = s ? model_file_tensor(f, name) : NULL;
    if (!t || t->n_dims != 2 || (!s->layer && strcmp(s->hf, "lm_head.weight") != 0)) {
        err_set(err, ERR_INVALID, "the adapter changes module \"%s\", and the model has no such linear layer", m->name);
        return NULL;
    }
    const size_t n_in = t->shape[s->conv1d ? 0 : 1], n_out = t->shape[s->conv1d ? 1 : 0];
    if (m->n_in != n_in || m->n_out != n_out) {
        err_set(err, ERR_INVALID, "the adapter's module \"%s\" has %zu inputs and %zu outputs, the model's %zu and %zu", m->name, m->n_in,
                m->n_out, n_in, n_out);
        return NULL;
    }
    *conv1d = s->conv1d;
    return t;
}

static bool target_find(struct model_file *f, const struct adapter_module *m, struct target *out, struct err *err) {
    const struct tensor *t = adapter_target(f, m, &out->conv1d, err);
    if (t) out->t = &f->tensors[t - f->tensors];
    return t;
}

// out[rows][cols] += scale * sum over k of left(row, k) * right(k, col), k in order: B and A, or for Conv1D, whose weight is the transpose,
// A and B. scratch: a row of sums and, for Conv1D, B with its columns as rows.
static void delta_add(const struct adapter_module *m, bool conv1d, float *scratch, float *out) {
    const size_t rows = conv1d ? m->n_in : m->n_out, cols = conv1d ? m->n_out : m->n_in;
    float *sum = scratch, *b_rows = scratch + cols;
    for (size_t c = 0; conv1d && c < cols; c++)
        for (size_t k = 0; k < m->r; k++) b_rows[k * cols + c] = m->b[c * m->r + k];
    for (size_t row = 0; row < rows; row++, out += cols) {
        memset(sum, 0, cols * sizeof(*sum));
        for (size_t k = 0; k < m->r; k++) {
            const float left = conv1d ? m->a[k * rows + row] : m->b[row * m->r + k], *right = (conv1d ? b_rows : m->a) + k * cols;
            for (size_t c = 0; c < cols; c++) sum[c] += left * right[c];
        }
        for (size_t c = 0; c < cols; c++) out[c] += m->scale * sum[c];
    }
}

static void module_merge(const struct adapter_module *m, const struct target *to, float *scratch, float *out) {
    struct tensor *t = to->t;
    const struct linear_view v = {.t = t, .n_out = t->shape[0], .n_in = t->shape[1]}; // HF's rows, whatever the file's order
    linear_view_expand(&v, 0, v.n_out, out);
    delta_add(m, to->conv1d, scratch, out);
    t->type = DTYPE_F32;
    t->data = (const unsigned char *)out;
    t->n_bytes = t->shape[0] * t->shape[1] * sizeof(float);
    t->transposed = false;
    t->rope_heads = 0;
}

// Finds every module's weight. *total: floats of them all; *scratch: what the largest needs.
static bool targets_find(struct model_file *f, const struct adapter *a, struct target *targets, size_t *total, size_t *scratch,
                         struct err *err) {
    *total = *scratch = 0;
    for (size_t i = 0; i < a->n; i++) {
        const struct adapter_module *m = &a->modules[i];
        if (!target_find(f, m, &targets[i], err)) return false;
        for (size_t k = 0; k < i; k++)
            if (targets[k].t == targets[i].t)
                return err_set(err, ERR_INVALID, "the adapter changes module \"%s\" under two names", m->name);
        if (!size_add(*total, m->n_in * m->n_out, total)) return err_set(err, ERR_TOO_LARGE, "the merged weights fit no memory");
        *scratch = MAX(*scratch, MAX(m->n_in, m->n_out) + m->r * m->n_out);
    }
    return true;
}

bool model_file_merge(struct model_file *f, const struct adapter *a, struct err *err) {
    struct target *targets = mem_alloc(a->n, sizeof(*targets));
    size_t total, n_scratch;
    const bool found = targets_find(f, a, targets, &total, &n_scratch, err);
    float *block = found ? mem_try_alloc(total, sizeof(*block), "the merged weights", err) : NULL;
    float *scratch = block ? mem_try_alloc(n_scratch, sizeof(*scratch), "the merged weights", err) : NULL;
    if (scratch) {
        mem_grow(&f->blocks, &f->blocks_cap, f->n_blocks + 1);
        f->blocks[f->n_blocks++] = block;
        for (size_t i = 0; i < a->n; block += a->modules[i].n_in * a->modules[i].n_out, i++)
            module_merge(&a->modules[i], &targets[i], scratch, block);
    } else {
        free(block);
    }
    free(targets);
    free(scratch);
    return scratch != NULL;
}

// ---- opening ----

static bool adapter_merge_dir(struct model_file *f, const char *dir, struct err *err) {
    struct adapter a = {0};
    if (!adapter_load(&a, dir, err)) return false;
    const bool ok = model_file_merge(f, &a, err);
    adapter_finish(&a);
    return ok;
}

static struct model_file *adapter_open(const char *dir, struct err *err) {
    struct adapter a = {0};
    if (!adapter_load(&a, dir, err)) return NULL;
    char *base = adapter_base_path(dir, err);
    struct model_file *f = base ? model_file_open(base, err) : NULL;
    if (base && !f) err_prefix(err, "the adapter's base model \"%s\"", base);
    if (f && !model_file_merge(f, &a, err)) {
        model_file_close(f);
        f = NULL;
    }
    free(base);
    adapter_finish(&a);
    return f;
}

struct model_file *model_file_open_adapted(const char *path, const char *adapter_dir, struct err *err) {
    struct model_file *f = adapter_is_dir(path) ? adapter_open(path, err) : model_file_open(path, err);
    if (!f || !adapter_dir || adapter_merge_dir(f, adapter_dir, err)) return f;
    model_file_close(f);
    return NULL;
}
