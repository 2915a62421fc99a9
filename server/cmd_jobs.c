// SPDX-License-Identifier: MIT
// `couplet jobs`: the fine-tuning jobs of a running server. Main thread.
#include "server/client.h"
#include "server/commands.h"
#include "server/job_view.h"
#include "server/tar.h"

#include "base/mem.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PAGE = 100, SETTINGS_MAX = 48, SUBMIT_SPECS_MAX = SETTINGS_MAX + 3 };

union setting {
    const char *s;
    size_t n;
    double x;
    bool b;
    struct option_list l;
};
struct jobs_options {
    struct client_options client;
    bool watch;
    const char *format, *type, *out, *after;
    size_t limit;
    union setting settings[SETTINGS_MAX]; // of submit and estimate, as in their table
};

// ---- what a job is made of ----

// The options of submit and estimate, and the member of the request that each becomes. on|off becomes a boolean, A,B a list, K=V an object's pair.
struct setting_row {
    const char *member;
    struct option_spec spec;
};
// clang-format off
#define HYPER "method.supervised.hyperparameters."
static const struct setting_row setting_rows[] = {
    {"model", {"--model", 0, OPTION_STRING, 0, "ID", "model to train on, or \"new\"", .required = true}},
    {"training_file", {"--file", 0, OPTION_STRING, 0, "FILE|ID", "data: a file here, which is uploaded, or an uploaded one's id", .required = true}},
    {"validation_file", {"--validation", 0, OPTION_STRING, 0, "FILE|ID", "held-out data, likewise"}},
    {"couplet.validation_split", {"--validation-split", 0, OPTION_DOUBLE, 0, "X", "or hold out this share of the data", .min = 1e-6, .max = 0.999999}},
    {"suffix", {"--suffix", 0, OPTION_STRING, 0, "TEXT", "part of the new model's name"}},
    {"couplet.training_type.type", {"--method", 0, OPTION_STRING, 0, "NAME", "low-rank adapters, or every weight", .choices = "lora|full"}},
    {HYPER "n_epochs", {"--epochs", 0, OPTION_SIZE, 0, "N", "times through the data (3)", .min = 1, .max = 50}},
    {"couplet.max_steps", {"--steps", 0, OPTION_SIZE, 0, "N", "or this many updates", .min = 1, .max = 1e9}},
    {HYPER "batch_size", {"--batch-size", 0, OPTION_SIZE, 0, "N", "rows an update (8)", .min = 1, .max = 256}},
    {"couplet.learning_rate", {"--lr", 0, OPTION_DOUBLE, 0, "X", "learning rate (2e-4; full 5e-5)", .min = 0, .max = 1000}},
    {"couplet.lr_scheduler", {"--schedule", 0, OPTION_STRING, 0, "NAME", "its course", .choices = "constant|linear|cosine"}},
    {"couplet.warmup_ratio", {"--warmup-ratio", 0, OPTION_DOUBLE, 0, "X", "share of the run in which it rises (0)", .min = 0, .max = 1}},
    {"couplet.weight_decay", {"--weight-decay", 0, OPTION_DOUBLE, 0, "X", "on parameters with two dimensions (0)", .min = 0, .max = 1000}},
    {"couplet.max_grad_norm", {"--clip", 0, OPTION_DOUBLE, 0, "X", "largest norm of a gradient; 0: any (1)", .min = 0, .max = 1e9}},
    {"couplet.dropout", {"--dropout", 0, OPTION_DOUBLE, 0, "X", "embedding, attention and residual dropout (0)", .min = 0, .max = 0.99}},
    {"couplet.context_length", {"--context", 0, OPTION_SIZE, 0, "N", "tokens a row (the model's context)", .min = 1, .max = 1 << 24}},
    {"couplet.stride", {"--stride", 0, OPTION_SIZE, 0, "N", "text: tokens from window to window (the context)", .min = 1, .max = 1 << 24}},
    {"couplet.excess_length", {"--excess-length", 0, OPTION_STRING, 0, "WHAT", "with a row over the context", .choices = "error|truncate|drop"}},
    {"couplet.packing", {"--packing", 0, OPTION_STRING, 0, "on|off", "several short examples in one row", .choices = "on|off"}},
    {"couplet.train_on_inputs", {"--train-on-inputs", 0, OPTION_STRING, 0, "on|off", "learn the prompts too", .choices = "on|off"}},
    {"couplet.training_type.lora_r", {"--lora-rank", 0, OPTION_SIZE, 0, "N", "rank of the adapters (8)", .min = 1, .max = 4096}},
    {"couplet.training_type.lora_alpha", {"--lora-alpha", 0, OPTION_DOUBLE, 0, "X", "their scale times their rank (16)", .min = 1e-6, .max = 1e6}},
    {"couplet.training_type.lora_dropout", {"--lora-dropout", 0, OPTION_DOUBLE, 0, "X", "dropout before them (0)", .min = 0, .max = 0.99}},
    {"couplet.training_type.lora_trainable_modules", {"--lora-targets", 0, OPTION_STRING, 0, "A,B", "layers that get one (every linear layer)"}},
    {"couplet.n_evals", {"--evals", 0, OPTION_SIZE, 0, "N", "evaluations, spread over the run (the epochs)", .min = 1, .max = 1000}},
    {"couplet.n_checkpoints", {"--checkpoints", 0, OPTION_SIZE, 0, "N", "checkpoints, spread over the run (the evaluations)", .min = 1, .max = 1000}},
    {"couplet.early_stopping", {"--early-stopping", 0, OPTION_SIZE, 0, "N", "end after N evaluations without a lower loss", .min = 1, .max = 1e6}},
    {"couplet.sample_prompts", {"--sample-prompt", 0, OPTION_LIST, 0, "TEXT", "continued at every evaluation"}},
    {"couplet.from_checkpoint", {"--from-checkpoint", 0, OPTION_STRING, 0, "ID", "a checkpoint's model to go on from"}},
    {"couplet.architecture.preset", {"--init", 0, OPTION_STRING, 0, "PRESET", "with --model new: its size (gpt2-nano, gpt2-mini, gpt2-124m, ...)"}},
    {"couplet.tokenizer", {"--tokenizer", 0, OPTION_STRING, 0, "ID", "with --model new: whose vocabulary, or \"train\""}},
    {"couplet.vocab_size", {"--vocab-size", 0, OPTION_SIZE, 0, "N", "with --tokenizer train (1024)", .min = 257, .max = 1 << 20}},
    {"couplet.shared", {"--shared", 0, OPTION_FLAG, 0, NULL, "other keys may use the model"}},
    {"metadata", {"--metadata", 0, OPTION_LIST, 0, "NAME=VALUE", "kept with the job"}},
    {"seed", {"--seed", 0, OPTION_SIZE, 0, "N", "order, random weights and dropout follow from it (drawn)", .min = 0, .max = 2147483647}},
};
static const struct option_spec client_specs[] = {CLIENT_OPTION_ROWS};
static const struct option_spec watch_spec = {"--watch", 0, OPTION_FLAG, offsetof(struct jobs_options, watch), NULL, "and follow it to its end"};
// clang-format on
_Static_assert(ARRAY_LEN(setting_rows) <= SETTINGS_MAX, "settings has room");
static struct option_spec submit_specs[SUBMIT_SPECS_MAX]; // client_specs, the rows', watch_spec; filled once

static void submit_specs_fill(void) {
    struct option_spec *at = submit_specs;
    for (size_t i = 0; i < ARRAY_LEN(client_specs); i++) *at++ = client_specs[i];
    for (size_t i = 0; i < ARRAY_LEN(setting_rows); i++) {
        *at = setting_rows[i].spec;
        at++->offset = offsetof(struct jobs_options, settings) + i * sizeof(union setting);
    }
    *at = watch_spec;
}

static bool is_on_off(const struct option_spec *o) { return o->choices && strcmp(o->choices, "on|off") == 0; }

static json_t *strings_make(const char *list) {
    json_t *array = json_array();
    for (const char *at = list; *at; at += strspn(at, ",")) {
        const size_t n = strcspn(at, ",");
        json_array_append_new(array, json_stringn(at, n));
        at += n;
    }
    return array;
}

static json_t *list_make(const struct option_list *l, bool pairs) {
    json_t *made = pairs ? json_object() : json_array();
    for (size_t i = 0; i < l->n; i++) {
        const char *item = l->items[i], *equals = strchr(item, '=');
        if (!pairs) {
            json_array_append_new(made, json_string(item));
            continue;
        }
        json_t *name = equals ? json_stringn(item, (size_t)(equals - item)) : json_string(item);
        json_object_set_new(made, name ? json_string_value(name) : "", json_string(equals ? equals + 1 : ""));
        json_decref(name);
    }
    return made;
}

// A file of this machine is uploaded; anything that is none and looks like an id is one.
static json_t *file_make(struct client *c, const char *name, struct err *err) {
    struct answer a = {0};
    if (strncmp(name, "file-", 5) == 0 && !file_exists(name)) return json_string(name);
    if (!client_upload(c, name, "fine-tune", &a, err)) {
        answer_finish(&a);
        return NULL;
    }
    json_t *id = json_string(member_text(a.tree, "id"));
    struct buf line = {0};
    buf_printf(&line, "uploaded %s as %s\n", name, json_string_value(id));
    text_clean(&line, 0);
    fputs(line.data, stderr);
    buf_finish(&line);
    answer_finish(&a);
    return id;
}

static json_t *setting_make(struct client *c, const struct setting_row *row, const union setting *v, struct err *err) {
    const char *file = strstr(row->member, "_file");
    switch (row->spec.kind) {
    case OPTION_SIZE: return json_integer((json_int_t)v->n);
    case OPTION_DOUBLE: return json_real(v->x);
    case OPTION_FLAG: return json_boolean(v->b);
    case OPTION_LIST: return list_make(&v->l, strcmp(row->member, "metadata") == 0);
    default: break;
    }
    if (file && !file[5]) return file_make(c, v->s, err);
    if (is_on_off(&row->spec)) return json_boolean(strcmp(v->s, "on") == 0);
    if (strcmp(row->spec.name, "--lora-targets") == 0) return strings_make(v->s);
    return json_string(v->s);
}

// Puts the value at the dotted path, whose objects are made as needed. Takes it.
static void member_put(json_t *object, const char *path, json_t *value) {
    size_t n;
    for (; path[n = strcspn(path, ".")]; path += n + 1) {
        char name[64];
        snprintf(name, sizeof name, "%.*s", (int)n, path);
        if (!json_object_get(object, name)) json_object_set_new(object, name, json_object());
        object = json_object_get(object, name);
    }
    json_object_set_new(object, path, value);
}

static json_t *request_make(struct client *c, const struct jobs_options *o, const struct option_args *args, struct err *err) {
    json_t *body = json_object();
    member_put(body, "method.type", json_string("supervised"));
    for (size_t i = 0; i < ARRAY_LEN(setting_rows); i++) {
        const struct setting_row *row = &setting_rows[i];
        if (!(args->seen >> (i + ARRAY_LEN(client_specs)) & 1)) continue;
        json_t *v = setting_make(c, row, &o->settings[i], err);
        if (v) {
            member_put(body, row->member, v);
            continue;
        }
        if (err->code == ERR_NONE) err_set_param(err, ERR_INVALID, row->spec.name, "%s is not valid UTF-8", row->spec.name);
        json_decref(body);
        return NULL;
    }
    return body;
}

// ---- watch ----

static char goodbye[256]; // what an interrupt says: prepared, since a handler may only write

static void on_interrupt(int number) {
    if (write(STDOUT_FILENO, goodbye, strlen(goodbye)) < 0) _exit(1);
    _exit(1);
}

static void interrupt_prepare(const char *id) {
    struct sigaction act = {.sa_handler = on_interrupt};
    struct buf text = {0};
    buf_printf(&text, "The job goes on. To watch it again: couplet jobs watch %.60s\n", id);
    text_clean(&text, 0);
    snprintf(goodbye, sizeof goodbye, "%s%s", isatty(STDOUT_FILENO) ? "\033[?7h\n" : "", text.data);
    buf_finish(&text);
    sigaction(SIGINT, &act, NULL);
}

static bool bytes_keep(void *ctx, const void *data, size_t len, struct err *err) {
    struct buf *b = ctx;
    if (b->len + len > 1 << 20) return err_set(err, ERR_TOO_LARGE, "the report is longer than any");
    buf_add(b, data, len);
    return true;
}

// The report card's first line, which says whether the model became better; a job without one has only its name to show.
static void verdict_say(struct client *c, const json_t *job, struct job_view *v) {
    size_t i;
    const json_t *file;
    json_array_foreach(json_object_get(job, "result_files"), i, file) {
        const char *id = json_string_value(file);
        struct answer a = {0};
        struct buf text = {0};
        struct err ignored = {0};
        char *path = client_path(c, "/v1/files/", id ? id : "", ""), *content = client_path(c, "/v1/files/", id ? id : "", "/content");
        if (client_call(c, "GET", path, NULL, &a, &ignored) && strcmp(member_text(a.tree, "filename"), "report.md") == 0 &&
            client_fetch(c, content, bytes_keep, &text, &a, &ignored) && text.len) {
            text.data[strcspn(text.data, "\n")] = 0;
            job_view_say(v, text.data);
        }
        free(path);
        free(content);
        buf_finish(&text);
        answer_finish(&a);
    }
}

static bool job_end(struct client *c, const json_t *job, struct job_view *v, struct err *err) {
    const char *status = member_text(job, "status"), *id = member_text(job, "id");
    if (strcmp(status, "failed") == 0) return err_set(err, ERR_IO, "%s failed (%s): %s", id, member_text(job, "error.code"), member_text(job, "error.message"));
    if (strcmp(status, "succeeded") != 0) return err_set(err, ERR_IO, "%s is %s", id, status);
    verdict_say(c, job, v);
    job_view_say(v, member_text(job, "fine_tuned_model"));
    return true;
}

static void job_greet(const json_t *job, struct job_view *v) {
    struct buf line = {0};
    buf_printf(&line, "%s  %s  %s", member_text(job, "id"), member_text(job, "model"), member_text(job, "status"));
    if (member_number(job, "couplet.queue_place") > 0) {
        buf_printf(&line, ", place %.0f, expected to start ", member_number(job, "couplet.queue_place"));
        time_write(&line, member_number(job, "couplet.expected_start"));
    }
    job_view_say(v, buf_str(&line));
    buf_finish(&line);
}

static bool job_watch(struct client *c, const char *id, struct err *err) {
    struct answer first = {0}, last = {0};
    struct job_view v;
    char *path = client_path(c, "/v1/fine_tuning/jobs/", id, ""), *events = client_path(c, "/v1/fine_tuning/jobs/", id, "/events?stream=true");
    job_view_init(&v, c->json);
    bool ok = client_call(c, "GET", path, NULL, &first, err);
    if (ok) interrupt_prepare(member_text(first.tree, "id"));
    if (ok) job_greet(first.tree, &v);
    ok = ok && client_follow(c, events, job_view_event, &v, err) && client_call(c, "GET", path, NULL, &last, err);
    if (ok && v.frame_lines) v.frame_lines = 0; // it stays, the end below it
    if (ok && c->json) puts(buf_str(&last.text));
    ok = ok && job_end(c, last.tree, &v, err);
    signal(SIGINT, SIG_DFL);
    job_view_finish(&v);
    answer_finish(&first);
    answer_finish(&last);
    free(path);
    free(events);
    return ok;
}

static bool run_watch(struct client *c, void *options, const struct option_args *args, struct err *err) {
    return job_watch(c, args->positional.items[0], err);
}

// ---- submit, estimate ----

static bool run_submit(struct client *c, void *options, const struct option_args *args, struct err *err) {
    const struct jobs_options *o = options;
    struct answer a = {0};
    json_t *body = request_make(c, o, args, err);
    bool ok = body && client_call(c, "POST", "/v1/fine_tuning/jobs", body, &a, err);
    if (ok && (c->json || !o->watch)) answer_show(c, &a, id_write);
    if (ok && o->watch) ok = job_watch(c, member_text(a.tree, "id"), err);
    json_decref(body);
    answer_finish(&a);
    return ok;
}

static void estimate_write(const json_t *e, struct buf *out) {
    const double seconds = member_number(e, "seconds"), mib = 1 << 20;
    size_t i;
    const json_t *warning;
    buf_printf(out, "%.0f rows (longest %.0f tokens), %.0f tokens, %.0f of them trained on\n", member_number(e, "train_rows"), member_number(e, "longest"),
               member_number(e, "train_tokens"), member_number(e, "supervised_tokens"));
    buf_printf(out, "%.0f updates in about %.0f:%02.0f minutes, at %.0f tokens/s\n", member_number(e, "steps"), (double)(long long)(seconds / 60),
               (double)((long long)seconds % 60), member_number(e, "tokens_per_second"));
    buf_printf(out, "%.0f MiB of memory, %.1f MiB of disk a checkpoint\n", member_number(e, "peak_memory_bytes") / mib,
               member_number(e, "checkpoint_bytes") / mib);
    json_array_foreach(json_object_get(e, "warnings"), i, warning) buf_printf(out, "warning: %s\n", json_string_value(warning));
}

static bool run_estimate(struct client *c, void *options, const struct option_args *args, struct err *err) {
    struct answer a = {0};
    json_t *body = request_make(c, options, args, err);
    const bool ok = body && client_call(c, "POST", "/v1/fine_tuning/estimate", body, &a, err);
    if (ok) answer_show(c, &a, estimate_write);
    json_decref(body);
    answer_finish(&a);
    return ok;
}

// ---- look, act ----

static void list_write(const json_t *list, struct buf *out) {
    size_t i;
    const json_t *j;
    json_array_foreach(json_object_get(list, "data"), i, j) {
        const char *tuned = member_text(j, "fine_tuned_model");
        buf_printf(out, "%-30s  ", member_text(j, "id"));
        time_write(out, member_number(j, "created_at"));
        buf_printf(out, "  %-9s  step %.0f", member_text(j, "status"), member_number(j, "couplet.step"));
        if (member_number(j, "couplet.total_steps") > 0) buf_printf(out, "/%.0f", member_number(j, "couplet.total_steps"));
        buf_printf(out, "  %s%s%s\n", member_text(j, "model"), *tuned ? " -> " : "", tuned);
    }
    more_say(list);
}

static void checkpoints_write(const json_t *list, struct buf *out) {
    size_t i;
    const json_t *k;
    json_array_foreach(json_object_get(list, "data"), i, k) {
        const double valid = member_number(k, "metrics.valid_loss");
        buf_printf(out, "step %-6.0f  loss %.4f", member_number(k, "step_number"), member_number(k, "metrics.train_loss"));
        if (valid >= 0) buf_printf(out, "  validation %.4f", valid);
        buf_printf(out, "  %s\n", member_text(k, "fine_tuned_model_checkpoint"));
    }
}

static void job_status_write(const json_t *job, struct buf *out) {
    const char *wish = member_text(job, "couplet.requested");
    buf_printf(out, "%s  %s", member_text(job, "id"), member_text(job, "status"));
    if (*wish) buf_printf(out, ", to be %s", strcmp(wish, "pause") == 0 ? "paused" : "cancelled");
    buf_add_byte(out, '\n');
}

static bool run_list(struct client *c, void *options, const struct option_args *args, struct err *err) {
    const struct jobs_options *o = options;
    char before[64];
    snprintf(before, sizeof before, "/v1/fine_tuning/jobs?limit=%zu&after=", o->limit);
    return client_show(c, "GET", client_path(c, before, o->after ? o->after : "", ""), list_write, err);
}

#define JOB_VERB(name, method, after, write)                                                                                   \
    static bool name(struct client *c, void *options, const struct option_args *args, struct err *err) {                       \
        return client_show(c, method, client_path(c, "/v1/fine_tuning/jobs/", args->positional.items[0], after), write, err); \
    }
JOB_VERB(run_show, "GET", "", members_write)
JOB_VERB(run_checkpoints, "GET", "/checkpoints?limit=100", checkpoints_write)
JOB_VERB(run_cancel, "POST", "/cancel", job_status_write)
JOB_VERB(run_pause, "POST", "/pause", job_status_write)
JOB_VERB(run_resume, "POST", "/resume", job_status_write)

// The list is newest first, in pages; a log is read the other way.
static bool run_logs(struct client *c, void *options, const struct option_args *args, struct err *err) {
    json_t *all = json_array();
    struct buf text = {0}, query = {0};
    bool ok = true, more = true;
    while (ok && more) {
        struct answer a = {0};
        const char *last = member_text(json_array_get(all, json_array_size(all) - 1), "id");
        buf_clear(&query);
        buf_printf(&query, "/events?limit=%d&after=", PAGE);
        outbound_add_escaped(&c->out, &query, last, false);
        char *path = client_path(c, "/v1/fine_tuning/jobs/", args->positional.items[0], query.data);
        ok = client_call(c, "GET", path, NULL, &a, err);
        more = ok && json_is_true(json_object_get(a.tree, "has_more"));
        if (ok) json_array_extend(all, json_object_get(a.tree, "data"));
        answer_finish(&a);
        free(path);
    }
    for (size_t i = json_array_size(all); ok && i-- > 0;) {
        const json_t *e = json_array_get(all, i);
        if (c->json) {
            char *line = json_dumps(e, JSON_COMPACT | JSON_REAL_PRECISION(9));
            puts(line);
            free(line);
            continue;
        }
        time_write(&text, member_number(e, "created_at"));
        buf_printf(&text, "  %-5s  %s\n", member_text(e, "level"), member_text(e, "message"));
        text_print(&text);
    }
    json_decref(all);
    buf_finish(&text);
    buf_finish(&query);
    return ok;
}

// ---- export ----

static bool to_tar(void *ctx, const void *data, size_t len, struct err *err) { return tar_reader_add(ctx, data, len, err); }

// Unpacked beside its place, then renamed: a directory of that name is a whole model. An empty one may be there.
static bool export_dir(struct client *c, const char *path, const char *out, struct answer *a, struct err *err) {
    struct buf part = {0};
    struct tar_reader tar = {0};
    size_t n = strlen(out);
    while (n > 1 && out[n - 1] == '/') n--;
    buf_printf(&part, "%.*s.part-%d", (int)n, out, (int)getpid());
    tar.dir = part.data;
    if (rmdir(out) != 0 && errno != ENOENT) {
        buf_finish(&part);
        return err_set_param(err, ERR_INVALID, "--out", "%s is there already; name a new directory", out);
    }
    bool ok = mkdir(part.data, 0777) == 0 || err_set(err, err_code_of(errno), "cannot make %s: %s", part.data, strerror(errno));
    const bool made = ok;
    ok = ok && client_fetch(c, path, to_tar, &tar, a, err);
    struct err late = {0};
    const bool whole = tar_reader_finish(&tar, &late);
    if (ok && !whole) {
        *err = late;
        ok = false;
    }
    if (ok && rename(part.data, out) != 0) ok = err_set(err, err_code_of(errno), "cannot rename to %s: %s", out, strerror(errno));
    if (made && !ok) (void)!dir_remove(part.data, NULL);
    buf_finish(&part);
    return ok;
}

static bool run_export(struct client *c, void *options, const struct option_args *args, struct err *err) {
    const struct jobs_options *o = options;
    struct answer a = {0};
    struct buf after = {0};
    buf_printf(&after, "/export?format=%s%s%s", o->format, o->type ? "&type=" : "", o->type ? o->type : "");
    char *path = client_path(c, "/v1/fine_tuning/jobs/", args->positional.items[0], after.data);
    const bool ok = strcmp(o->format, "gguf") == 0 ? client_fetch_file(c, path, o->out, &a, err) : export_dir(c, path, o->out, &a, err);
    if (ok && c->json) {
        buf_add_str(&a.text, "{\"path\":");
        buf_add_json_string(&a.text, o->out, strlen(o->out));
        buf_printf(&a.text, ",\"format\":\"%s\",\"max_logit_difference\":%s}", o->format, a.difference[0] ? a.difference : "null");
    }
    if (ok) puts(c->json ? a.text.data : o->out);
    buf_finish(&after);
    answer_finish(&a);
    free(path);
    return ok;
}

// ---- the command ----

// clang-format off
#define FIELD(name) offsetof(struct jobs_options, name)
static const struct option_spec list_specs[] = {CLIENT_OPTION_ROWS,
    {"--limit", 0, OPTION_SIZE, FIELD(limit), "N", "at most so many (20)", .min = 1, .max = PAGE},
    {"--after", 0, OPTION_STRING, FIELD(after), "ID", "those after this one"}};
static const struct option_spec export_specs[] = {CLIENT_OPTION_ROWS,
    {"--format", 0, OPTION_STRING, FIELD(format), "NAME", "adapter as trained; merged model; one file", .required = true, .choices = "peft|safetensors|gguf"},
    {"--type", 0, OPTION_STRING, FIELD(type), "NAME", "gguf: how numbers are kept (f32)", .choices = "f32|f16|q8_0"},
    {"--out", 0, OPTION_STRING, FIELD(out), "PATH", "a new directory; for gguf a file", .required = true}};
#undef FIELD
#define VERB(name, specs, n_specs, synopsis, summary, n_args, run) {{"jobs " name, synopsis, summary, specs, n_specs, n_args}, n_args, run}
#define ID_VERB(name, summary, run) VERB(name, client_specs, ARRAY_LEN(client_specs), "ID", summary, 1, run)
enum { N_ESTIMATE = ARRAY_LEN(client_specs) + ARRAY_LEN(setting_rows), N_SUBMIT = N_ESTIMATE + 1 };
static const struct client_verb verbs[] = {
    VERB("submit", submit_specs, N_SUBMIT, "--model ID --file FILE|ID [OPTIONS]",
         "Makes a job and prints its id; --watch follows it to the end.", 0, run_submit),
    VERB("estimate", submit_specs, N_ESTIMATE, "--model ID --file FILE|ID [OPTIONS]",
         "Says how long the job would take and how much memory.", 0, run_estimate),
    VERB("list", list_specs, ARRAY_LEN(list_specs), "[--limit N]", "Lists jobs, newest first.", 0, run_list),
    ID_VERB("show", "Shows a job's settings and state.", run_show),
    ID_VERB("watch", "Follows a job to its end: progress, losses, samples. Ctrl-C leaves it running.", run_watch),
    ID_VERB("logs", "Prints what happened so far, oldest first.", run_logs),
    ID_VERB("events", "The same.", run_logs),
    ID_VERB("checkpoints", "Lists a job's checkpoints, which are models too.", run_checkpoints),
    ID_VERB("pause", "Lets a job rest: a checkpoint, then others' turn.", run_pause),
    ID_VERB("resume", "Lets it go on.", run_resume),
    ID_VERB("cancel", "Ends a job.", run_cancel),
    VERB("export", export_specs, ARRAY_LEN(export_specs), "ID --format NAME --out PATH",
         "Fetches a finished job's model, checked against the served one.", 1, run_export),
    {{0}},
};
// clang-format on

int cmd_jobs(int argc, char **argv) {
    struct jobs_options o = {.limit = 20};
    submit_specs_fill();
    const int status = client_command("jobs", "Fine-tuning jobs of a running server.", verbs, argc, argv, &o);
    for (size_t i = 0; i < ARRAY_LEN(setting_rows); i++)
        if (setting_rows[i].spec.kind == OPTION_LIST) option_list_finish(&o.settings[i].l);
    return status;
}
