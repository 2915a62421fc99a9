// SPDX-License-Identifier: MIT
// `couplet pull`: a model from a Hugging Face hub into a directory that every other command opens. One thread.
//
// Of a repository only what couplet reads is fetched: configuration, safetensors, tokenizer. Files that are there and right stay;
// what an earlier call began is continued.
#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "server/commands.h"
#include "server/hub.h"
#include "server/options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct pull_options {
    const char *out, *revision;
    bool all, json;
};

static const struct option_spec specs[] = {
    {"--out", 0, OPTION_STRING, offsetof(struct pull_options, out), "DIR", "directory to fill; default models/ and the name's last part"},
    {"--revision", 0, OPTION_STRING, offsetof(struct pull_options, revision), "REV", "branch, tag or commit; default main"},
    {"--all", 0, OPTION_FLAG, offsetof(struct pull_options, all), NULL, "every file, not only those that couplet reads"},
    {"--json", 0, OPTION_FLAG, offsetof(struct pull_options, json), NULL, "what was fetched as one JSON object"},
};

static const struct option_command command = {
    .name = "pull",
    .synopsis = "NAME [--out DIR] [--revision REV] [--all] [--json]",
    .summary = "Fetches a model from a Hugging Face hub: pull openai-community/gpt2. HF_ENDPOINT names another hub, HF_TOKEN opens private models.",
    .options = specs,
    .n_options = ARRAY_LEN(specs),
    .max_args = 1,
};

// ---- which files

static bool ends_with(const char *s, const char *suffix) {
    const size_t n = strlen(s), m = strlen(suffix);
    return n >= m && strcmp(s + n - m, suffix) == 0;
}

static const struct hub_file *file_find(const struct hub_repo *r, const char *name) {
    for (size_t i = 0; i < r->n_files; i++)
        if (strcmp(r->files[i].name, name) == 0) return &r->files[i];
    return NULL;
}

static bool file_wanted(const struct hub_repo *r, const char *name) {
    static const char *const small[] = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                                        "vocab.json", "merges.txt", "added_tokens.json", "chat_template.jinja", "chat_template.json"};
    static const char whole[] = "model.safetensors";
    for (size_t i = 0; i < ARRAY_LEN(small); i++)
        if (strcmp(name, small[i]) == 0) return true;
    if (file_find(r, whole)) return strcmp(name, whole) == 0;
    return strcmp(name, "model.safetensors.index.json") == 0 || (strncmp(name, "model-", 6) == 0 && !strchr(name, '/') && ends_with(name, ".safetensors"));
}

static bool name_ok(const char *s) { // owner/name or name
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    const size_t first = strspn(s, letters), second = s[first] == '/' ? strspn(s + first + 1, letters) : 0;
    const char *last = s[first] == '/' ? s + first + 1 : s;
    return first && s[0] != '.' && last[0] != '.' && !strstr(s, "..") && (s[first] == 0 || (second && s[first + 1 + second] == 0));
}

// ---- progress: one line on a terminal, rewritten twice a second

struct progress {
    const struct hub_file *file;
    uint64_t start_ns, shown_ns, done;
    bool terminal;
};

static void progress_show(void *ctx, uint64_t done, uint64_t resumed) {
    struct progress *p = ctx;
    const uint64_t now = clock_ns();
    p->done = done;
    if (!p->terminal || now - p->shown_ns < 500000000) return;
    p->shown_ns = now;
    const double rate = (double)(done - resumed) / ((double)(now - p->start_ns) * 1e-9 + 1e-3);
    const double total = p->file->size > 0 ? (double)p->file->size : (double)done, left = MIN((total - (double)done) / (rate + 1), 1e6);
    fprintf(stderr, "\r%s  %.0f of %.0f MB (%.0f %%)  %.1f MB/s  %d:%02d left \033[K", p->file->name, (double)done * 1e-6, total * 1e-6,
            100 * (double)done / total, rate * 1e-6, (int)left / 60, (int)left % 60);
}

// ---- fetching

static bool file_fetch(struct hub *h, const char *model, const struct hub_repo *r, const struct hub_file *f, const char *out, bool *present, struct err *err) {
    struct progress p = {.file = f, .start_ns = clock_ns(), .terminal = isatty(STDERR_FILENO)};
    struct err why = {0};
    char *path = path_join(out, f->name), *slash = strrchr(path, '/');
    *slash = 0; // a file in a folder of its own (--all)
    bool ok = dir_make(path, &why);
    *slash = '/';
    *present = ok && hub_file_present(f, path);
    ok = ok && (*present || hub_download(h, model, r->commit, f, path, progress_show, &p, &why));
    if (p.terminal && !*present) fputs("\r\033[K", stderr);
    const double seconds = (double)(clock_ns() - p.start_ns) * 1e-9;
    if (ok && *present) fprintf(stderr, "%s  is there\n", f->name);
    if (ok && !*present) fprintf(stderr, "%s  %.1f MB in %.1f s%s\n", f->name, (double)p.done * 1e-6, seconds, f->sha256[0] ? ", sha256 right" : "");
    free(path);
    if (!ok && err) *err = why;
    return ok;
}

static bool fetch_all(struct hub *h, const char *model, const struct pull_options *o, const struct hub_repo *r, const char *out, struct err *err) {
    struct buf line = {0};
    buf_add_str(&line, "{\"model\":");
    buf_add_json_string(&line, model, strlen(model));
    buf_printf(&line, ",\"commit\":\"%s\",\"directory\":", r->commit);
    buf_add_json_string(&line, out, strlen(out));
    buf_add_str(&line, ",\"files\":[");
    bool ok = true;
    size_t n = 0;
    for (size_t i = 0; ok && i < r->n_files; i++) {
        const struct hub_file *f = &r->files[i];
        bool present;
        if (!o->all && !file_wanted(r, f->name)) continue;
        ok = file_fetch(h, model, r, f, out, &present, err);
        buf_printf(&line, "%s{\"name\":", n++ ? "," : "");
        buf_add_json_string(&line, f->name, strlen(f->name));
        if (f->size != HUB_SIZE_UNKNOWN) buf_printf(&line, ",\"bytes\":%lld", (long long)f->size);
        if (f->sha256[0]) buf_printf(&line, ",\"sha256\":\"%s\"", f->sha256);
        buf_printf(&line, ",\"fetched\":%s}", present ? "false" : "true");
    }
    buf_add_str(&line, "]}");
    if (ok && (puts(o->json ? line.data : out) < 0 || fflush(stdout) != 0)) ok = err_set(err, ERR_IO, "cannot write the result");
    buf_finish(&line);
    return ok;
}

static bool repo_check(const struct hub_repo *r, const char *model, struct err *err) {
    if (!file_find(r, "config.json")) return err_set(err, ERR_UNSUPPORTED, "%s has no config.json; --all fetches what it has", model);
    if (!file_find(r, "model.safetensors") && !file_find(r, "model.safetensors.index.json"))
        return err_set(err, ERR_UNSUPPORTED, "%s has no safetensors weights; --all fetches what it has", model);
    return true;
}

static bool pull(const char *model, const struct pull_options *o, struct err *err) {
    struct hub h = {0};
    struct hub_repo r = {0};
    const char *slash = strrchr(model, '/');
    char *out = o->out ? mem_strdup(o->out) : path_join("models", slash ? slash + 1 : model);
    bool ok = hub_open(&h, err) && hub_list(&h, model, o->revision, &r, err) && (o->all || repo_check(&r, model, err)) &&
              fetch_all(&h, model, o, &r, out, err);
    hub_repo_finish(&r);
    hub_close(&h);
    free(out);
    return ok;
}

int cmd_pull(int argc, char **argv) {
    struct pull_options o = {.revision = "main"};
    struct option_args args = {0};
    struct err err = {0};
    int status;
    if (options_start(&command, argc, argv, &o, &args, &status)) {
        const char *model = args.positional.n ? args.positional.items[0] : "";
        status = 0;
        if (!name_ok(model)) {
            fprintf(stderr, "couplet pull: expected a model's name as on the hub, such as openai-community/gpt2\n");
            status = 2;
        } else if (!pull(model, &o, &err)) {
            status = options_fail(&command, &err);
        }
    }
    option_args_finish(&args);
    return status;
}
