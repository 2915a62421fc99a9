// SPDX-License-Identifier: MIT
// The configuration table, and the three places a value comes from: file < environment < flag. Every value is set by
// config_set from text, so that a mistake reads the same wherever it stands. Thread: main, before the server runs.
#include "server/config.h"

#include "base/file.h"
#include "base/mem.h"
#include "server/options.h"

#include <arpa/inet.h>
#include <assert.h>
#include <ctype.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum kind { KIND_STRING, KIND_LIST, KIND_SIZE, KIND_WEIGHTS };

static const struct config_key {
    const char *key; // in the file; flag "--key" with dashes; environment COUPLET_KEY
    enum kind kind;
    size_t offset;
    const char *initial; // default, as text
    size_t min, max;     // sizes
    const char *choices, *value;
    const char *help; // one line of --help
    const char *more; // what configs/couplet.conf adds
} keys[] = {
#define AT(field) offsetof(struct config, field)
    {"model", KIND_LIST, AT(model), "", 0, 0, NULL, "[NAME=]PATH", "a model to serve: HF directory, .gguf file or LoRA adapter",
     "NAME ends at the first '='; without it the file's or directory's name without extension. Without a model the server starts and says so."},
    {"adapter", KIND_LIST, AT(adapter), "", 0, 0, NULL, "DIR", "LoRA adapter to merge into the model, where there is exactly one",
     "An adapter's directory is a model's PATH too, when its base is where its adapter_config.json says."},
    {"host", KIND_STRING, AT(host), "127.0.0.1", 0, 0, NULL, "ADDRESS", "address to listen on",
     "Another than loopback is refused until a key exists: couplet keys add NAME."},
    {"port", KIND_SIZE, AT(port), "8080", 0, 65535, NULL, "N", "port to listen on, 0 for any free one", NULL},
    {"public_host", KIND_LIST, AT(public_host), "", 0, 0, NULL, "NAME", "a further name clients reach this server by",
     "Requests whose Host is neither this, localhost, 127.0.0.1, [::1] nor the address listened on are answered 403 (DNS rebinding)."},
    {"data_dir", KIND_STRING, AT(data_dir), "data", 0, 0, NULL, "DIR", "where keys and other state are kept", NULL},
    {"threads", KIND_SIZE, AT(threads), "0", 0, 1024, NULL, "N", "kernel threads, 0 for one per processor", NULL},
    {"weights", KIND_WEIGHTS, AT(weights), "auto", 0, 0, "auto|f32|q8", "MODE", "precision of the weights in memory",
     "auto keeps the file's own precision."},
    {"drain_seconds", KIND_SIZE, AT(drain_seconds), "30", 0, 86400, NULL, "N", "how long SIGTERM lets running requests finish",
     "A second SIGTERM ends at once."},
    {"max_running", KIND_SIZE, AT(max_running), "32", 1, 4096, NULL, "N", "sequences computed together", NULL},
    {"max_waiting", KIND_SIZE, AT(max_waiting), "256", 1, 65536, NULL, "N", "sequences queued before requests are answered 429", NULL},
    {"step_rows", KIND_SIZE, AT(step_rows), "256", 1, 65536, NULL, "N", "rows of one forward step",
     "Bounds the pause between two tokens of a stream while other prompts are read."},
    {"kv_cache_mb", KIND_SIZE, AT(kv_cache_mb), "1024", 1, 1 << 24, NULL, "MIB", "most memory of the key/value cache, per model",
     "Committed as it is used."},
    {"max_loaded", KIND_SIZE, AT(max_loaded), "4", 1, 32, NULL, "N", "full models made by jobs that stay in memory",
     "The one unused longest makes room for another. Adapters do not count: they share their base's weights."},
    {"jobs_max_queued", KIND_SIZE, AT(jobs_max_queued), "100", 1, 1 << 20, NULL, "N", "fine-tuning jobs that one key may have unfinished",
     "Past it new ones are answered 429."},
    {"max_inspect_tokens", KIND_SIZE, AT(max_inspect_tokens), "512", 1, 1 << 20, NULL, "N", "longest prompt that /v1/inspect looks at, in tokens", NULL},
    {"max_connections", KIND_SIZE, AT(max_connections), "1024", 8, 1 << 20, NULL, "N", "connections at a time",
     "Also bounded by the limit of open files, less 128."},
    {"max_body_bytes", KIND_SIZE, AT(max_body_bytes), "2097152", 1024, 1 << 30, NULL, "N", "largest JSON request body", NULL},
    {"max_body_total_bytes", KIND_SIZE, AT(max_body_total_bytes), "268435456", 1024, (size_t)1 << 40, NULL, "N",
     "memory of all request bodies together", "Past it requests are answered 503."},
    {"upload_max_bytes", KIND_SIZE, AT(upload_max_bytes), "1073741824", 1, (size_t)1 << 40, NULL, "N", "largest uploaded file", NULL},
    {"files_quota_mb", KIND_SIZE, AT(files_quota_mb), "10240", 0, (size_t)1 << 30, NULL, "MIB", "most disk that one key's files may take",
     "Without keys it is everybody's."},
    {"files_total_mb", KIND_SIZE, AT(files_total_mb), "102400", 0, (size_t)1 << 30, NULL, "MIB", "most disk that all files may take together", NULL},
    {"disk_low_mb", KIND_SIZE, AT(disk_low_mb), "512", 0, (size_t)1 << 30, NULL, "MIB", "free disk below which nothing more is taken in",
     "Of the data directory's file system: uploads and jobs are answered 507."},
    {"header_seconds", KIND_SIZE, AT(header_seconds), "10", 1, 3600, NULL, "N", "time a request's headers may take", NULL},
    {"body_bytes_per_second", KIND_SIZE, AT(body_bytes_per_second), "1000", 0, 1 << 30, NULL, "N",
     "least rate of a request body", "Measured from header_seconds after its begin."},
    {"stall_seconds", KIND_SIZE, AT(stall_seconds), "30", 1, 3600, NULL, "N", "time a client may read nothing or say nothing", NULL},
    {"ping_seconds", KIND_SIZE, AT(ping_seconds), "15", 1, 3600, NULL, "N", "silence on a stream before a comment is sent",
     "Keeps proxies from closing a stream whose prompt is still being read."},
    {"train_threads", KIND_SIZE, AT(train_threads), "0", 0, 1024, NULL, "N", "threads of a training process, 0 for one per processor", NULL},
    {"train_nice", KIND_SIZE, AT(train_nice), "19", 0, 19, NULL, "N", "niceness of training processes", "They are also in the scheduler's batch class."},
    {"train_memory_mb", KIND_SIZE, AT(train_memory_mb), "0", 0, 1 << 24, NULL, "MIB", "memory of a training process, 0 for three quarters of the machine's",
     "A job that needs more fails with out_of_memory."},
    {"train_grace_seconds", KIND_SIZE, AT(train_grace_seconds), "30", 1, 3600, NULL, "N", "time training has for its checkpoint when it is told to stop", NULL},
    {"train_stall_seconds", KIND_SIZE, AT(train_stall_seconds), "120", 1, 86400, NULL, "N", "silence without work after which a training process is killed",
     "It goes on from its last checkpoint; the third time its job fails."},
    {"train_max_attempts", KIND_SIZE, AT(train_max_attempts), "3", 1, 100, NULL, "N", "starts of a training process that crashes", NULL},
    {"train_launcher", KIND_LIST, AT(train_launcher), "", 0, 0, NULL, "WORD", "a word before the command of a training process",
     "Repeated: systemd-run, --scope, ... or a container's; it must pass signals on and stay in the foreground."},
    {"train_share_percent", KIND_SIZE, AT(train_share_percent), "10", 0, 100, NULL, "N", "share of the time training keeps while requests are served", NULL},
    {"serve_latency_ms", KIND_SIZE, AT(serve_latency_ms), "100", 0, 60000, NULL, "MS", "time between two tokens past which training gives way altogether",
     "0: training stands still whenever a request is served."},
    {"lease_seconds", KIND_SIZE, AT(lease_seconds), "30", 3, 3600, NULL, "N", "how long a running job stays its server's without a sign of life", NULL},
    {"log_level", KIND_STRING, AT(log_level), "info", 0, 0, "error|warn|info|debug", "LEVEL", "least level that is logged", NULL},
    {"log_format", KIND_STRING, AT(log_format), "text", 0, 0, "text|json", "FORMAT", "log lines as text or JSON",
     "Never holds prompt or completion text, nor a key."},
};
enum { N_KEYS = sizeof keys / sizeof keys[0] };

bool config_key_at(size_t i, const char **key, const char **initial, const char **help) {
    if (i >= N_KEYS) return false;
    *key = keys[i].key;
    *initial = keys[i].initial;
    *help = keys[i].help;
    return true;
}

static void list_clear(struct string_list *l) {
    for (size_t i = 0; i < l->n; i++) free(l->items[i]);
    free(l->items);
    *l = (struct string_list){0};
}

void config_finish(struct config *c) {
    for (size_t i = 0; i < N_KEYS; i++) {
        void *at = (char *)c + keys[i].offset;
        if (keys[i].kind == KIND_LIST) list_clear(at);
        if (keys[i].kind == KIND_STRING) free(*(char **)at);
    }
    free(c->bound_host);
    *c = (struct config){0};
}

// ---- one value ----

static bool choice_holds(const char *choices, const char *value) {
    size_t len = strlen(value);
    for (const char *at = choices; *at; at += *at == '|') {
        size_t n = strcspn(at, "|");
        if (n == len && memcmp(at, value, n) == 0) return true;
        at += n;
    }
    return false;
}

static bool size_parse(const struct config_key *k, const char *text, size_t *out, struct err *err) {
    uint64_t v;
    if (!option_read_uint64(text, &v)) return err_set_param(err, ERR_INVALID, k->key, "%s takes a whole number, not '%s'", k->key, text);
    if (v < k->min || v > k->max)
        return err_set_param(err, ERR_INVALID, k->key, "%s must be between %zu and %zu, not %s", k->key, k->min, k->max, text);
    *out = (size_t)v;
    return true;
}

static void list_add(struct string_list *l, const char *value) {
    l->items = mem_resize(l->items, l->n + 1, sizeof *l->items);
    l->items[l->n++] = mem_strdup(value);
}

static bool config_set(struct config *c, const struct config_key *k, const char *text, struct err *err) {
    void *at = (char *)c + k->offset;
    if (k->choices && !choice_holds(k->choices, text))
        return err_set_param(err, ERR_INVALID, k->key, "%s must be one of %s, not '%s'", k->key, k->choices, text);
    switch (k->kind) {
    case KIND_SIZE: return size_parse(k, text, at, err);
    case KIND_WEIGHTS: return weights_mode_parse(text, at) || err_set_param(err, ERR_INVALID, k->key, "unknown weights mode '%s'", text);
    case KIND_LIST:
        if (!*text) return err_set_param(err, ERR_INVALID, k->key, "%s needs a value", k->key);
        list_add(at, text);
        return true;
    case KIND_STRING:
        if (!*text) return err_set_param(err, ERR_INVALID, k->key, "%s needs a value", k->key);
        free(*(char **)at);
        *(char **)at = mem_strdup(text);
        return true;
    }
    return true;
}

static void config_init(struct config *c) {
    *c = (struct config){0};
    for (size_t i = 0; i < N_KEYS; i++) {
        struct err err = {0};
        bool ok = keys[i].kind == KIND_LIST || config_set(c, &keys[i], keys[i].initial, &err);
        assert(ok);
    }
}

// ---- the file ----

static char *trim(char *s) {
    while (isspace((unsigned char)*s)) s++;
    size_t n = strlen(s);
    while (n && isspace((unsigned char)s[n - 1])) s[--n] = 0;
    return s;
}

static size_t key_find(const char *name) { // N_KEYS: there is none
    size_t i = 0;
    while (i < N_KEYS && strcmp(keys[i].key, name) != 0) i++;
    return i;
}

static bool file_line(struct config *c, char *line, uint64_t *seen, struct err *err) {
    line = trim(line);
    if (!*line || *line == '#') return true;
    char *equals = strchr(line, '=');
    if (!equals) return err_set(err, ERR_INVALID, "expected 'key = value'");
    *equals = 0;
    char *name = trim(line), *value = trim(equals + 1);
    size_t i = key_find(name);
    if (i == N_KEYS) return err_set(err, ERR_INVALID, "unknown key '%s'", name);
    if (keys[i].kind != KIND_LIST && *seen >> i & 1) return err_set(err, ERR_INVALID, "%s is set twice", name);
    *seen |= UINT64_C(1) << i;
    return config_set(c, &keys[i], value, err);
}

static bool file_apply(struct config *c, const char *path, struct err *err) {
    size_t len;
    char *text = file_read(path, 1 << 20, &len, err);
    if (!text) return false;
    bool ok = !memchr(text, 0, len) || err_set(err, ERR_INVALID, "%s: holds a NUL byte", path);
    uint64_t seen = 0;
    size_t number = 0;
    for (char *line = text, *next; ok && line; line = next) {
        next = strchr(line, '\n');
        if (next) *next++ = 0;
        number++;
        ok = file_line(c, line, &seen, err) || err_prefix(err, "%s:%zu", path, number);
    }
    free(text);
    return ok;
}

// ---- environment and flags ----

static bool list_apply_env(struct config *c, const struct config_key *k, const char *text, struct err *err) {
    char *copy = mem_strdup(text), *rest = copy;
    bool ok = true;
    for (char *item; ok && (item = strsep(&rest, ","));) ok = config_set(c, k, trim(item), err);
    free(copy);
    return ok;
}

static bool env_apply(struct config *c, struct err *err) {
    for (size_t i = 0; i < N_KEYS; i++) {
        char name[64];
        int n = snprintf(name, sizeof name, "COUPLET_%s", keys[i].key);
        for (int j = 0; j < n; j++) name[j] = (char)toupper((unsigned char)name[j]);
        const char *text = getenv(name);
        if (!text || !*text) continue;
        if (keys[i].kind == KIND_LIST) list_clear((struct string_list *)(void *)((char *)c + keys[i].offset));
        bool ok = keys[i].kind == KIND_LIST ? list_apply_env(c, &keys[i], text, err) : config_set(c, &keys[i], text, err);
        if (!ok) return err_prefix(err, "environment %s", name);
    }
    return true;
}

// The flags' raw texts, in the table's order; the shared option parser fills it.
struct flags {
    const char *file;
    bool check, print, json;
    struct option_list lists[N_KEYS];
    const char *strings[N_KEYS];
};

static struct option_command *flag_command(void) {
    static char names[N_KEYS][40], helps[N_KEYS][120];
    static struct option_spec specs[N_KEYS + 4];
    static struct option_command command = {
        .name = "serve",
        .synopsis = "[-c FILE] [--model [NAME=]PATH]... [OPTIONS]",
        .summary = "Serves models over HTTP. Every option may stand in FILE (key = value) or the environment (COUPLET_KEY); a flag wins.",
        .options = specs,
        .n_options = N_KEYS + 4,
    };
    for (size_t i = 0; i < N_KEYS; i++) {
        const struct config_key *k = &keys[i];
        snprintf(names[i], sizeof names[i], "--%s", k->key);
        for (char *p = names[i]; *p; p++)
            if (*p == '_') *p = '-';
        bool list = k->kind == KIND_LIST;
        snprintf(helps[i], sizeof helps[i], list ? "%s" : "%s (default %s)", k->help, k->initial);
        specs[i] = (struct option_spec){
            .name = names[i],
            .kind = list ? OPTION_LIST : OPTION_STRING,
            .offset = list ? offsetof(struct flags, lists) + i * sizeof(struct option_list) : offsetof(struct flags, strings) + i * sizeof(char *),
            .value = k->value,
            .help = helps[i],
            .choices = k->choices,
        };
    }
    specs[N_KEYS] = (struct option_spec){"--config", 'c', OPTION_STRING, offsetof(struct flags, file), "FILE", "read settings from FILE"};
    specs[N_KEYS + 1] = (struct option_spec){"--check-config", 0, OPTION_FLAG, offsetof(struct flags, check), NULL,
                                             "read all settings, say whether they are right, and end"};
    specs[N_KEYS + 2] = (struct option_spec){"--print-config", 0, OPTION_FLAG, offsetof(struct flags, print), NULL,
                                             "print the settings in force as a file, and end"};
    specs[N_KEYS + 3] = (struct option_spec){"--json", 0, OPTION_FLAG, offsetof(struct flags, json), NULL, "the same as --log-format json"};
    return &command;
}

static bool flags_apply(struct config *c, const struct flags *f, struct err *err) {
    for (size_t i = 0; i < N_KEYS; i++) {
        bool ok = true;
        if (f->strings[i]) ok = config_set(c, &keys[i], f->strings[i], err);
        if (f->lists[i].n) list_clear((struct string_list *)(void *)((char *)c + keys[i].offset));
        for (size_t j = 0; ok && j < f->lists[i].n; j++) ok = config_set(c, &keys[i], f->lists[i].items[j], err);
        if (!ok) return err_prefix(err, "%s", flag_command()->options[i].name);
    }
    return true;
}

static void bound_host_set(struct config *c) {
    const char *h = strcmp(c->host, "localhost") == 0 ? "127.0.0.1" : c->host;
    size_t n = strlen(h);
    c->bound_host = h[0] == '[' && h[n - 1] == ']' ? mem_strndup(h + 1, n - 2) : mem_strdup(h);
}

bool config_load(struct config *c, int argc, char **argv, enum config_action *action, struct err *err) {
    struct flags flags = {0};
    struct option_args args = {0};
    config_init(c);
    bool ok = options_parse(flag_command(), argc, argv, &flags, &args, err);
    const char *file = flags.file ? flags.file : getenv("COUPLET_CONFIG");
    if (ok && !args.help) {
        if (file && *file) ok = file_apply(c, file, err);
        ok = ok && env_apply(c, err) && flags_apply(c, &flags, err);
        if (ok && flags.json) ok = config_set(c, &keys[key_find("log_format")], "json", err);
    }
    if (ok && c->adapter.n > 0 && (c->adapter.n > 1 || c->model.n != 1))
        ok = err_set(err, ERR_INVALID, "--adapter is for exactly one --model: give further adapters as --model NAME=DIR");
    if (ok) bound_host_set(c);
    *action = args.help ? CONFIG_HELP : flags.check ? CONFIG_CHECK : flags.print ? CONFIG_PRINT : CONFIG_SERVE;
    for (size_t i = 0; i < N_KEYS; i++) option_list_finish(&flags.lists[i]);
    option_args_finish(&args);
    if (!ok) config_finish(c);
    return ok;
}

// ---- words for people ----

void config_print_help(FILE *out) { options_help(flag_command(), out); }

static void value_print(const struct config *c, const struct config_key *k, FILE *out) {
    static const char *const modes[] = {[WEIGHTS_AUTO] = "auto", [WEIGHTS_F32] = "f32", [WEIGHTS_Q8] = "q8"};
    const void *at = (const char *)c + k->offset;
    const struct string_list *list = at;
    if (k->kind == KIND_LIST && list->n == 0) fprintf(out, "# %s = %s\n", k->key, k->value);
    for (size_t i = 0; k->kind == KIND_LIST && i < list->n; i++) fprintf(out, "%s = %s\n", k->key, list->items[i]);
    if (k->kind == KIND_STRING) fprintf(out, "%s = %s\n", k->key, *(char *const *)at);
    if (k->kind == KIND_SIZE) fprintf(out, "%s = %zu\n", k->key, *(const size_t *)at);
    if (k->kind == KIND_WEIGHTS) fprintf(out, "%s = %s\n", k->key, modes[*(const enum weights_mode *)at]);
}

void config_print(const struct config *c, FILE *out) {
    fputs("# couplet.conf: the settings of `couplet serve`, one `key = value` a line, lists by repeating the key.\n"
          "# Each may also stand in the environment (COUPLET_KEY, lists separated by commas) or on the command line (--key); a flag\n"
          "# wins over the environment, the environment over this file. `couplet serve -c FILE --check-config` checks it.\n", out);
    for (size_t i = 0; i < N_KEYS; i++) {
        fprintf(out, "\n# %c%s.%s%s\n", toupper((unsigned char)keys[i].help[0]), keys[i].help + 1, keys[i].more ? " " : "",
                keys[i].more ? keys[i].more : "");
        if (keys[i].choices) fprintf(out, "# One of %s.\n", keys[i].choices);
        value_print(c, &keys[i], out);
    }
}

bool config_host_is_loopback(const char *host) {
    struct in_addr v4;
    if (inet_pton(AF_INET, host, &v4) == 1) return ntohl(v4.s_addr) >> 24 == 127;
    return strcmp(host, "::1") == 0 || strcmp(host, "localhost") == 0;
}
