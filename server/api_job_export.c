// SPDX-License-Identifier: MIT
// GET /v1/fine_tuning/jobs/{id}/export: a finished job's model as PEFT or as merged safetensors (tar archives), or as GGUF. Made on the tools' lane by
// `couplet convert`, which reads its result back and compares the logits; sent from an unlinked file, so nothing is left whatever happens.
#include "server/job_api.h"

#include "base/file.h"
#include "base/mem.h"
#include "server/files.h"
#include "server/jobs/runner.h"
#include "server/routes.h"
#include "server/tar.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CONVERT_SECONDS = 1800 };
#define DIFFERENCE_MAX 1e-3 // of f32; f16 and q8_0 round, and say in the header by how much

struct export {
    struct model_source source;
    const char *format, *type, *dir; // dir: of this request, below tmp/
    const char *base;                // id of the model that was trained on
    char difference[32];             // of the logits; "": nothing was converted
    int fd;
    uint64_t size;
};

static bool is_one_of(const char *text, const char *a, const char *b, const char *c) {
    return strcmp(text, a) == 0 || strcmp(text, b) == 0 || strcmp(text, c) == 0;
}

static bool export_read(struct http_request *r) {
    const struct viewer v = http_viewer(r);
    struct stored_job job;
    struct export *e = arena_alloc(&r->arena, 1, sizeof *e);
    e->fd = -1;
    r->state = e;
    if (!job_find(r, &job)) return false;
    const char *format = http_query(r, "format"), *type = http_query(r, "type");
    e->format = format ? format : "safetensors";
    e->type = type ? type : "f32";
    if (!is_one_of(e->format, "peft", "safetensors", "gguf"))
        return request_fail(r, 400, "value_out_of_range", "format", "'format' must be peft, safetensors or gguf.");
    if (!is_one_of(e->type, "f32", "f16", "q8_0"))
        return request_fail(r, 400, "value_out_of_range", "type", "'type' must be f32, f16 or q8_0.");
    if (type && strcmp(e->format, "gguf") != 0)
        return request_fail(r, 400, "unsupported_parameter", "type", "'type' goes with format gguf.");
    if (job.status != JOB_SUCCEEDED || !job.fine_tuned_model)
        return request_fail(r, 409, "job_not_succeeded", NULL, "Only a job that has succeeded has a model to export.");
    if (registry_source(r->server->registry, &v, job.fine_tuned_model, &r->arena, &e->source) == REGISTRY_UNKNOWN)
        return request_fail(r, 404, "model_not_found", NULL, "The job's model has been deleted.");
    if (strcmp(e->format, "peft") == 0 && !e->source.adapter_dir)
        return request_fail(r, 400, "unsupported_parameter", "format",
                            "The job trained every weight: there is no adapter.");
    e->base = e->source.base_model ? e->source.base_model : arena_strndup(&r->arena, job.model, strlen(job.model));
    return files_disk_ok(r->server, 0, &r->err);
}

// The largest difference between the logits of what was read and what was written.
static bool difference_read(struct http_request *r, struct export *e, const struct buf *report) {
    json_t *tree = json_loadb(buf_str(report), report->len, 0, NULL);
    const json_t *v = json_object_get(tree, "max_logit_difference");
    const bool known = json_is_number(v);
    const double difference = json_number_value(v);
    json_decref(tree);
    if (known) snprintf(e->difference, sizeof e->difference, "%.6g", difference);
    if (known && (strcmp(e->type, "f32") != 0 || difference <= DIFFERENCE_MAX)) return true;
    return request_fail(r, 500, "export_check_failed", NULL, "The exported model does not answer as the served one.");
}

static bool convert(struct http_request *r, struct export *e, const char *to) {
    struct arena *a = &r->arena;
    const char *argv[10];
    size_t n = 0;
    struct buf report = {0};
    argv[n++] = "convert";
    argv[n++] = arena_printf(a, "--from=%s", e->source.base_path);
    argv[n++] = arena_printf(a, "--to=%s", to);
    argv[n++] = arena_printf(a, "--type=%s", e->type);
    if (e->source.adapter_dir) argv[n++] = arena_printf(a, "--adapter=%s", e->source.adapter_dir);
    argv[n++] = "--json";
    argv[n] = NULL;
    const bool ok = runner_tool(r, argv, CONVERT_SECONDS, &report, &r->err) && difference_read(r, e, &report);
    buf_finish(&report);
    if (!ok && r->err.code == ERR_INVALID && !r->err_status) // no mistake of the client's
        return request_fail(r, 500, "export_failed", NULL, "The model cannot be written.");
    return ok;
}

static bool archive(struct http_request *r, struct export *e, const char *dir) {
    const char *path = arena_printf(&r->arena, "%s/export.tar", e->dir);
    e->fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (e->fd < 0) return err_set(&r->err, err_code_of(errno), "cannot write an export: %s", strerror(errno));
    return tar_write(e->fd, dir, arena_printf(&r->arena, "%s-%s", r->tail, e->format), &r->err);
}

// The adapter's files, with the base's id in place of where the base lies on this machine.
static bool adapter_copy(struct http_request *r, struct export *e, const char *to) {
    struct arena *a = &r->arena;
    const char *from = e->source.adapter_dir;
    if (!dir_make(to, &r->err)) return false;
    if (link(arena_printf(a, "%s/adapter_model.safetensors", from), arena_printf(a, "%s/adapter_model.safetensors", to)) < 0)
        return err_set(&r->err, err_code_of(errno), "cannot link an adapter: %s", strerror(errno));
    json_t *config = json_load_file(arena_printf(a, "%s/adapter_config.json", from), 0, NULL);
    const bool ok = json_object_set_new(config, "base_model_name_or_path", json_string(e->base)) == 0 &&
                    json_dump_file(config, arena_printf(a, "%s/adapter_config.json", to), JSON_INDENT(2) | JSON_REAL_PRECISION(9)) == 0;
    json_decref(config);
    return ok || err_set(&r->err, ERR_IO, "an adapter's settings cannot be copied");
}

static bool export_make(struct http_request *r, struct export *e) {
    struct arena *a = &r->arena;
    struct stat st;
    bool ok;
    if (!dir_make(e->dir, &r->err)) return false;
    if (strcmp(e->format, "gguf") == 0) {
        const char *path = arena_printf(a, "%s/model.gguf", e->dir);
        if (!convert(r, e, path)) return false;
        e->fd = open(path, O_RDONLY | O_CLOEXEC);
        ok = e->fd >= 0;
    } else if (strcmp(e->format, "peft") == 0) {
        const char *copy = arena_printf(a, "%s/adapter", e->dir);
        ok = adapter_copy(r, e, copy) && archive(r, e, copy);
    } else { // a whole model lies there as it is to be
        const char *merged = e->source.adapter_dir ? arena_printf(a, "%s/model", e->dir) : e->source.base_path;
        ok = (!e->source.adapter_dir || convert(r, e, merged)) && archive(r, e, merged);
    }
    if (!ok || fstat(e->fd, &st) < 0)
        return r->err.message[0] ? false : err_set(&r->err, ERR_IO, "cannot read an export: %s", strerror(errno));
    e->size = (uint64_t)st.st_size;
    return lseek(e->fd, 0, SEEK_SET) == 0;
}

static bool export_work(struct http_request *r) { // tools' lane
    struct export *e = r->state;
    struct err ignored;
    e->dir = arena_printf(&r->arena, "%s/tmp/export-%" PRIu64, r->server->config.data_dir, r->serial);
    const bool ok = export_make(r, e);
    (void)!dir_remove(e->dir, &ignored);
    return ok;
}

static void export_reply(struct http_request *r) {
    struct export *e = r->state;
    const bool gguf = strcmp(e->format, "gguf") == 0;
    const int fd = e->fd;
    e->fd = -1;
    if (e->difference[0]) http_set_header(r, "couplet-logit-difference", e->difference);
    http_reply_file(r, 200, gguf ? "application/octet-stream" : "application/x-tar", fd, e->size,
                    gguf ? arena_printf(&r->arena, "%s.gguf", r->tail) : arena_printf(&r->arena, "%s-%s.tar", r->tail, e->format));
}
static void export_start(struct http_request *r) { http_tool_work(r, export_work, export_reply); }

static void export_end(struct http_request *r) {
    struct export *e = r->state;
    if (e && e->fd >= 0) close(e->fd);
    r->state = NULL;
}

const struct http_route job_export_routes[] = {
    {"GET", "/v1/fine_tuning/jobs/{id}/export", SCOPE_TRAIN, export_read, export_start, export_end,
     "A finished job's model: format=peft, safetensors (tar archives) or gguf"},
    {0},
};
