// SPDX-License-Identifier: MIT
// See file_report.h. The scan reads every row, so it runs on the tools' lane. A file that cannot be trained on is a report that says why, not an error.
#include "server/file_report.h"

#include "base/mem.h"
#include "engine/train/dataset.h"
#include "server/files.h"
#include "server/options.h"
#include "server/request_model.h"

#include <stdlib.h>
#include <string.h>

enum { PREVIEW_ROWS = 3, PREVIEW_TOKENS = 512 };

struct file_report {
    struct stored_file file, validation; // validation.id NULL: none
    struct model *model;                 // a reference
    const char *model_id;
    struct dataset_options options;
    struct buf body;
};

// ?model=, or the first one served. True also where r->cold is set.
static bool model_find(struct http_request *r, struct file_report *p) {
    const char *id = http_query(r, "model");
    if (!id || !*id) {
        const struct viewer v = http_viewer(r);
        struct model_info *all;
        size_t n;
        if (!request_models_ready(r)) return false;
        registry_list(r->server->registry, &v, &all, &n);
        id = n ? arena_strndup(&r->arena, all[0].id, strlen(all[0].id)) : NULL;
        for (size_t i = 0; i < n; i++) model_info_finish(&all[i]);
        free(all);
        if (!id) return request_fail(r, 400, "missing_required_parameter", "model", "No model is served whose tokenizer could be used.");
    }
    p->model_id = id;
    p->model = request_model(r, (struct text){id, strlen(id)});
    return p->model || r->cold;
}

static bool options_read(struct http_request *r, struct file_report *p) {
    static const char *const names[] = {[EXCESS_ERROR] = "error", [EXCESS_TRUNCATE] = "truncate", [EXCESS_DROP] = "drop"};
    const struct model_config *c = model_config(p->model);
    const char *context = http_query(r, "context_length"), *excess = http_query(r, "excess_length");
    uint64_t n = c->n_ctx;
    if (context && (!option_read_uint64(context, &n) || n < 1 || n > c->n_ctx))
        return request_fail(r, 400, "value_out_of_range", "context_length", "'context_length' must be between 1 and %zu.", c->n_ctx);
    size_t e = 0;
    while (excess && e < ARRAY_LEN(names) && strcmp(names[e], excess) != 0) e++;
    if (e == ARRAY_LEN(names)) return request_fail(r, 400, "invalid_value", "excess_length", "'excess_length' must be 'error', 'truncate' or 'drop'.");
    const struct tokenizer *t = model_tokenizer(p->model);
    const char *jinja = t ? tokenizer_chat_template(t) : NULL;
    p->options = (struct dataset_options){.tokenizer = t, .chat = jinja ? chat_template_recognise(jinja) : NULL, .n_vocab = c->n_vocab,
                                          .context = (size_t)n, .excess = (enum excess_length)e,
                                          .temp_dir = arena_printf(&r->arena, "%s/tmp", r->server->config.data_dir)};
    return true;
}

bool file_report_work(struct http_request *r) {
    struct file_report *p = r->state = arena_alloc(&r->arena, 1, sizeof *p);
    const char *validation = http_query(r, "validation_file");
    if (!file_find(r, r->tail, "id", &p->file)) return false;
    if (validation && *validation && !file_find(r, validation, "validation_file", &p->validation)) return false;
    return model_find(r, p) && (r->cold || options_read(r, p));
}

// ---- the scan, on the tools' lane ----

static struct dataset *data_open(struct http_request *r, const struct stored_file *f, struct dataset_report *report, struct err *err) {
    struct file_report *p = r->state;
    struct dataset_options o = p->options;
    o.name = f->filename;
    const char *path = file_path(r->server, f->id, &r->arena);
    struct dataset *d = dataset_open(path, &o, report, err);
    size_t len = strlen(path);
    if (!d && strncmp(err->message, path, len) == 0) { // a client is told of a file, not of where it lies
        char rest[sizeof err->message];
        snprintf(rest, sizeof rest, "%s", err->message + len);
        err_set(err, err->code, "The file%s", rest);
    }
    return d;
}

// The server's own troubles, as opposed to the file's: r->err, to be answered.
static bool is_ours(struct http_request *r) {
    if (r->err.code == ERR_NOT_FOUND) return !request_fail(r, 404, "not_found", "id", "The content of this file is lost.");
    return r->err.code == ERR_IO || r->err.code == ERR_NO_MEMORY || r->err.code == ERR_NO_SPACE;
}

static void write_problems(const struct dataset_report *report, const struct err *err, struct buf *out) {
    buf_printf(out, ",\"numbered_by\":\"%s\",\"n_problems\":%zu,\"problems\":[", dataset_place(report), report->n_problems);
    for (size_t i = 0; i < report->n_problems_kept; i++) {
        const struct data_problem *p = &report->problems[i];
        buf_printf(out, "%s{\"line\":%zu,\"message\":", i ? "," : "", p->line);
        buf_add_json_string(out, p->message, strlen(p->message));
        buf_printf(out, ",\"fatal\":%s}", p->fatal ? "true" : "false");
    }
    if (err && !report->n_fatal) { // of the whole file: empty, not UTF-8
        buf_printf(out, "%s{\"line\":null,\"message\":", report->n_problems_kept ? "," : "");
        buf_add_json_string(out, err->message, strlen(err->message));
        buf_add_str(out, ",\"fatal\":true}");
    }
    buf_add_byte(out, ']');
}

static void write_token(const struct tokenizer *t, uint32_t id, bool supervised, bool first, struct buf *out) {
    size_t len = 0;
    const char *bytes = t ? tokenizer_bytes(t, id, &len) : NULL;
    char number[16];
    if (!bytes) {
        len = (size_t)snprintf(number, sizeof number, "<%u>", id);
        bytes = number;
    }
    buf_printf(out, "%s{\"id\":%u,\"text\":", first ? "" : ",", id);
    buf_add_json_string(out, bytes, len);
    buf_printf(out, ",\"supervised\":%s}", supervised ? "true" : "false");
}

// The first examples, token by token, with what is trained on. The last target's id is not kept where it is not supervised.
static bool write_preview(const struct dataset *d, const struct tokenizer *t, struct buf *out, struct err *err) {
    bool ok = true;
    buf_add_str(out, ",\"preview\":[");
    for (size_t i = 0; ok && i < MIN((size_t)PREVIEW_ROWS, dataset_count(d)); i++) {
        const size_t n = dataset_length(d, i);
        uint32_t *ids = mem_try_alloc(n, sizeof *ids, "a row", err);
        int32_t *targets = ids ? mem_try_alloc(n, sizeof *targets, "a row", err) : NULL;
        ok = targets && dataset_read(d, i, ids, targets, err);
        if (ok) {
            buf_add_str(out, i ? ",{\"line\":" : "{\"line\":");
            if (dataset_line(d, i)) buf_printf(out, "%zu", dataset_line(d, i));
            else buf_add_str(out, "null"); // a text's window
            buf_printf(out, ",\"cut\":%s,\"tokens\":[", n + 1 > PREVIEW_TOKENS ? "true" : "false");
            write_token(t, ids[0], false, true, out);
            for (size_t k = 0; k < n && k + 1 < PREVIEW_TOKENS; k++)
                if (k + 1 < n || targets[k] >= 0) write_token(t, k + 1 < n ? ids[k + 1] : (uint32_t)targets[k], targets[k] >= 0, false, out);
            buf_add_str(out, "]}");
        }
        free(targets);
        free(ids);
    }
    buf_add_byte(out, ']');
    return ok;
}

// ,"leaks": how many examples of the validation file share a run of tokens with the file; null where none was named.
static bool write_leaks(struct http_request *r, const struct dataset *d, struct buf *out) {
    struct file_report *p = r->state;
    if (!p->validation.id) {
        buf_add_str(out, ",\"leaks\":null");
        return true;
    }
    struct dataset_report report = {0};
    struct dataset *other = data_open(r, &p->validation, &report, &r->err);
    dataset_report_finish(&report);
    if (!other && !is_ours(r))
        return request_fail(r, 400, "invalid_validation_file", "validation_file", "The validation file cannot be used; its own report says why.");
    if (!other) return false;
    struct data_view train, validation;
    data_view_all(&train, d);
    data_view_all(&validation, other);
    const size_t leaks = data_view_leaks(&train, &validation, &r->err);
    data_view_finish(&train);
    data_view_finish(&validation);
    dataset_close(other);
    buf_printf(out, ",\"leaks\":%zu", leaks);
    return leaks != SIZE_MAX;
}

static bool scan_work(struct http_request *r) {
    struct file_report *p = r->state;
    struct buf *out = &p->body;
    struct dataset_report report = {0};
    struct dataset *d = data_open(r, &p->file, &report, &r->err);
    if (!d && is_ours(r)) {
        dataset_report_finish(&report);
        return false;
    }
    buf_printf(out, "{\"object\":\"file.report\",\"file\":\"%s\",\"model\":", p->file.id);
    buf_add_json_string(out, p->model_id, strlen(p->model_id));
    if (d) buf_printf(out, ",\"usable\":true,\"format\":\"%s\"", dataset_format(d) == DATA_TEXT ? "text" : "rows");
    else buf_printf(out, ",\"usable\":false,\"format\":%s", report.n_rows || report.n_problems ? "\"rows\"" : "null");
    buf_printf(out,
               ",\"context_length\":%zu,\"rows\":%zu,\"examples\":%zu,\"tokens\":%zu,\"supervised_tokens\":%zu,\"longest\":%zu,\"truncated\":%zu,"
               "\"dropped\":%zu,\"duplicates\":%zu,\"near_duplicates\":%zu",
               p->options.context, report.n_rows, report.n_examples, report.n_tokens, report.n_supervised, report.longest, report.n_truncated,
               report.n_dropped, report.n_duplicates, report.n_near_duplicates);
    write_problems(&report, d ? NULL : &r->err, out);
    dataset_report_finish(&report);
    bool ok = true;
    if (d) ok = write_leaks(r, d, out) && write_preview(d, p->options.tokenizer, out, &r->err);
    else buf_add_str(out, ",\"leaks\":null,\"preview\":[]");
    buf_add_byte(out, '}');
    dataset_close(d);
    return ok;
}

static void report_then(struct http_request *r) { http_reply_json(r, 200, &((struct file_report *)r->state)->body); }

void file_report_start(struct http_request *r) {
    if (r->cold) request_warm(r);
    else http_tool_work(r, scan_work, report_then);
}

void file_report_end(struct http_request *r) {
    struct file_report *p = r->state;
    if (!p) return;
    if (p->model) model_release(p->model);
    buf_finish(&p->body);
}
