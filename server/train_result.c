// SPDX-License-Identifier: MIT
// See train_result.h.
#include "server/train_result.h"

#include "base/file.h"
#include "base/mem.h"
#include "engine/model/adapter.h"
#include "engine/model/model_write.h"
#include "server/loss_lines.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_LOG_BYTES ((size_t)1 << 30)

// ---- weights ----

static bool adapter_out(const struct train_job *j, const char *dir, const struct tensor_out *tensors, size_t n, struct err *err) {
    const struct train_options *o = j->options;
    struct option_list targets = {0}; // as given, or the last parts of the modules' names
    for (size_t i = 0; i < n && !o->targets.n; i++) {
        const char *end = strstr(tensors[i].name, ".lora_A.weight"), *begin = end;
        if (!end) continue;
        while (begin[-1] != '.') begin--;
        const size_t len = (size_t)(end - begin);
        bool known = false;
        for (size_t k = 0; k < targets.n; k++) known |= strlen(targets.items[k]) == len && memcmp(targets.items[k], begin, len) == 0;
        if (known) continue;
        mem_grow(&targets.items, &targets.cap, targets.n + 1);
        targets.items[targets.n++] = mem_strndup(begin, len);
    }
    const struct option_list *list = o->targets.n ? &o->targets : &targets;
    const struct adapter_meta meta = {
        .rank = o->lora_rank,
        .alpha = o->lora_alpha,
        .dropout = o->config.dropout_lora,
        .targets = list->items,
        .n_targets = list->n,
        .base = o->model,
        .conv1d = j->init.config.arch == ARCH_GPT2,
    };
    const bool ok = adapter_write(dir, &meta, tensors, n, err);
    for (size_t k = 0; k < targets.n; k++) free((void *)(uintptr_t)targets.items[k]);
    option_list_finish(&targets);
    return ok;
}

bool train_result_write(const struct train_job *j, const char *dir, struct err *err) {
    const struct train_options *o = j->options;
    const struct params *p = j->params;
    const bool lora = o->method == TRAIN_LORA;
    struct tensor_out *tensors = mem_alloc(p->n_items, sizeof(*tensors));
    size_t n = 0;
    for (size_t i = 0; i < p->n_items; i++) {
        const struct param *q = &p->items[i];
        if (lora && !q->grad) continue;
        tensors[n++] = (struct tensor_out){.name = q->name, .n_dims = q->n_dims, .shape = {q->shape[0], q->shape[1]}, .data = q->w};
    }
    const bool ok = lora ? adapter_out(j, dir, tensors, n, err) : hf_dir_write(dir, &p->config, tensors, n, WRITE_F32, j->tokenizer, err);
    free(tensors);
    return ok;
}

static char *step_dir(const char *parent, const char *prefix, uint64_t step) {
    struct buf b = {0};
    buf_printf(&b, "%s/%s%" PRIu64, parent, prefix, step);
    return b.data;
}

bool train_snapshot_write(const struct train_job *j, const char *parent, uint64_t step, struct err *err) {
    char *temp = step_dir(parent, ".new-", step), *old = step_dir(parent, ".old-", step), *path = step_dir(parent, "step-", step);
    bool ok = dir_make(parent, err) && dir_remove(temp, err) && dir_make(temp, err) && train_result_write(j, temp, err) && dir_sync(temp, err);
    if (ok && dir_exists(path)) ok = dir_remove(old, err) && (rename(path, old) == 0 || err_set(err, err_code_of(errno), "cannot rename %s", path));
    if (ok) ok = rename(temp, path) == 0 || err_set(err, err_code_of(errno), "cannot rename %s: %s", temp, strerror(errno));
    ok = ok && dir_sync(parent, err);
    (void)!dir_remove(temp, NULL);
    (void)!dir_remove(old, NULL);
    free(temp);
    free(old);
    free(path);
    return ok;
}

void train_snapshots_prune(const char *parent) {
    DIR *d = opendir(parent);
    uint64_t *steps = NULL, newest = 0, second = 0, step;
    size_t n = 0, cap = 0;
    for (struct dirent *e; d && (e = readdir(d));) {
        if (sscanf(e->d_name, "step-%" SCNu64, &step) != 1) continue;
        mem_grow(&steps, &cap, n + 1);
        steps[n++] = step;
        if (step > newest) second = newest, newest = step;
        else if (step > second) second = step;
    }
    if (d) closedir(d);
    for (size_t i = 0; i < n; i++) {
        if (steps[i] >= second) continue;
        char *path = step_dir(parent, "step-", steps[i]);
        (void)!dir_remove(path, NULL);
        free(path);
    }
    free(steps);
}

// ---- losses ----

struct csv_table {
    struct loss_line *rows; // updates, one after the other, each with what was evaluated after it
    size_t n, cap;
};

static void csv_line(void *ctx, const struct loss_line *line) {
    struct csv_table *t = ctx;
    if (!line->eval) {
        mem_grow(&t->rows, &t->cap, t->n + 1);
        t->rows[t->n++] = *line;
    } else if (t->n && t->rows[t->n - 1].step == line->step) {
        t->rows[t->n - 1].valid_loss = line->valid_loss;
        t->rows[t->n - 1].valid_accuracy = line->valid_accuracy;
    }
}

static void csv_number(struct buf *out, double v, char end) {
    if (isfinite(v)) buf_printf(out, "%.9g", v);
    buf_add_byte(out, (unsigned char)end);
}

bool train_results_csv(const char *log_path, const char *csv_path, struct err *err) {
    struct csv_table t = {0};
    struct buf out = {0};
    size_t len;
    char *log = file_read(log_path, MAX_LOG_BYTES, &len, err);
    if (!log) return false;
    loss_lines_each(log, len, csv_line, &t);
    buf_add_str(&out, "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy\n");
    for (size_t i = 0; i < t.n; i++) {
        const struct loss_line *r = &t.rows[i];
        buf_printf(&out, "%" PRIu64 ",", r->step);
        csv_number(&out, r->train_loss, ',');
        csv_number(&out, r->train_accuracy, ',');
        csv_number(&out, r->valid_loss, ',');
        csv_number(&out, r->valid_accuracy, '\n');
    }
    const bool ok = file_write_atomic(csv_path, out.data, out.len, 0644, err);
    buf_finish(&out);
    free(t.rows);
    free(log);
    return ok;
}
