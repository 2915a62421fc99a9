// SPDX-License-Identifier: MIT
// `couplet files`: the files of a running server. Main thread.
#include "server/client.h"
#include "server/commands.h"

#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct files_options {
    struct client_options client;
    const char *purpose, *out, *model, *after;
    size_t limit;
};

// ---- upload, list, show, delete ----

static bool run_upload(struct client *c, void *options, const struct option_args *args, struct err *err) {
    const struct files_options *o = options;
    struct answer a = {0};
    const bool ok = client_upload(c, args->positional.items[0], o->purpose ? o->purpose : "fine-tune", &a, err);
    if (ok) answer_show(c, &a, id_write);
    answer_finish(&a);
    return ok;
}

static void list_write(const json_t *list, struct buf *out) {
    size_t i;
    const json_t *f;
    json_array_foreach(json_object_get(list, "data"), i, f) {
        buf_printf(out, "%-29s  ", member_text(f, "id"));
        time_write(out, member_number(f, "created_at"));
        buf_printf(out, "  %12.0f  %-17s  %s\n", member_number(f, "bytes"), member_text(f, "purpose"), member_text(f, "filename"));
    }
    more_say(list);
}

static bool run_list(struct client *c, void *options, const struct option_args *args, struct err *err) {
    const struct files_options *o = options;
    struct buf query = {0};
    buf_printf(&query, "/v1/files?limit=%zu&purpose=", o->limit);
    outbound_add_escaped(&c->out, &query, o->purpose ? o->purpose : "", false);
    buf_add_str(&query, "&after=");
    outbound_add_escaped(&c->out, &query, o->after ? o->after : "", false);
    return client_show(c, "GET", buf_detach(&query), list_write, err);
}

static bool run_show(struct client *c, void *options, const struct option_args *args, struct err *err) {
    return client_show(c, "GET", client_path(c, "/v1/files/", args->positional.items[0], ""), members_write, err);
}

static bool run_delete(struct client *c, void *options, const struct option_args *args, struct err *err) {
    return client_show(c, "DELETE", client_path(c, "/v1/files/", args->positional.items[0], ""), members_write, err);
}

// ---- content ----

static bool to_stdout(void *ctx, const void *data, size_t len, struct err *err) {
    return fwrite(data, 1, len, stdout) == len || err_set(err, ERR_IO, "the content cannot be written");
}

static bool run_content(struct client *c, void *options, const struct option_args *args, struct err *err) {
    const struct files_options *o = options;
    struct answer a = {0};
    char *path = client_path(c, "/v1/files/", args->positional.items[0], "/content");
    bool ok = o->out ? client_fetch_file(c, path, o->out, &a, err) : client_fetch(c, path, to_stdout, NULL, &a, err);
    if (ok && fflush(stdout) != 0) ok = err_set(err, ERR_IO, "the content cannot be written");
    answer_finish(&a);
    free(path);
    return ok;
}

// ---- report ----

// The first rows as they are trained on: what counts for the loss in brackets.
static void preview_write(const json_t *rows, const char *place, struct buf *out) {
    size_t i, k;
    const json_t *row, *token;
    json_array_foreach(rows, i, row) {
        bool open = false;
        buf_printf(out, "\n%s %.0f, trained on what stands in [[ ]]:\n", place, member_number(row, "line"));
        json_array_foreach(json_object_get(row, "tokens"), k, token) {
            const bool counts = json_is_true(json_object_get(token, "supervised"));
            if (counts != open) buf_add_str(out, counts ? "[[" : "]]");
            open = counts;
            buf_add_str(out, member_text(token, "text"));
        }
        buf_add_str(out, open ? "]]\n" : "\n");
    }
}

static void report_write(const json_t *report, struct buf *out) {
    size_t i;
    const json_t *p;
    const char *place = member_text(report, "numbered_by");
    members_write(report, out);
    json_array_foreach(json_object_get(report, "problems"), i, p) {
        if (json_is_integer(json_object_get(p, "line"))) buf_printf(out, "%s %.0f: ", place, member_number(p, "line"));
        buf_printf(out, "%s\n", member_text(p, "message"));
    }
    preview_write(json_object_get(report, "preview"), place, out);
}

static bool run_report(struct client *c, void *options, const struct option_args *args, struct err *err) {
    const struct files_options *o = options;
    struct buf after = {0};
    buf_add_str(&after, "/report?model=");
    outbound_add_escaped(&c->out, &after, o->model ? o->model : "", false);
    char *path = client_path(c, "/v1/files/", args->positional.items[0], buf_str(&after));
    buf_finish(&after);
    return client_show(c, "GET", path, report_write, err);
}

// ---- the command ----

// clang-format off
#define FIELD(name) offsetof(struct files_options, name)
static const struct option_spec common_specs[] = {CLIENT_OPTION_ROWS};
static const struct option_spec upload_specs[] = {CLIENT_OPTION_ROWS,
    {"--purpose", 0, OPTION_STRING, FIELD(purpose), "NAME", "what the file is for (fine-tune)"}};
static const struct option_spec list_specs[] = {CLIENT_OPTION_ROWS,
    {"--purpose", 0, OPTION_STRING, FIELD(purpose), "NAME", "only files for this"},
    {"--limit", 0, OPTION_SIZE, FIELD(limit), "N", "at most so many (10000)", .min = 1, .max = 10000},
    {"--after", 0, OPTION_STRING, FIELD(after), "ID", "those after this one"}};
static const struct option_spec content_specs[] = {CLIENT_OPTION_ROWS,
    {"--out", 0, OPTION_STRING, FIELD(out), "FILE", "where it goes (standard output)"}};
static const struct option_spec report_specs[] = {CLIENT_OPTION_ROWS,
    {"--model", 0, OPTION_STRING, FIELD(model), "ID", "whose tokenizer and context count (the first model served)"}};
#undef FIELD
#define VERB(name, specs, synopsis, summary, n_args, run) \
    {{"files " name, synopsis, summary, specs, ARRAY_LEN(specs), n_args}, n_args, run}
static const struct client_verb verbs[] = {
    VERB("upload", upload_specs, "FILE [--purpose NAME]", "Sends a file to the server and prints its id.", 1, run_upload),
    VERB("list", list_specs, "[--purpose NAME]", "Lists files, newest first.", 0, run_list),
    VERB("show", common_specs, "ID", "Shows one file's facts.", 1, run_show),
    VERB("content", content_specs, "ID [--out FILE]", "Fetches a file's bytes: a training file, or a job's results.", 1, run_content),
    VERB("delete", common_specs, "ID", "Deletes a file; names the models made from it.", 1, run_delete),
    VERB("report", report_specs, "ID [--model ID]", "Shows a file as training would see it: rows, tokens, problems, the first rows.", 1, run_report),
    {{0}},
};
// clang-format on

int cmd_files(int argc, char **argv) {
    struct files_options o = {.limit = 10000};
    return client_command("files", "Files of a running server: data to train on, results of jobs.", verbs, argc, argv, &o);
}
