// SPDX-License-Identifier: MIT
// `couplet keys`: adds, lists and revokes API keys. A running server notices within a second. Main thread.
#include "server/commands.h"
#include "server/keys.h"
#include "server/options.h"

#include "base/buf.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>

struct keys_options {
    const char *data_dir, *scope;
    bool json;
};

static const struct option_spec specs[] = {
    {"--data-dir", 0, OPTION_STRING, offsetof(struct keys_options, data_dir), "DIR", "the server's data directory (default data)"},
    {"--scope", 0, OPTION_STRING, offsetof(struct keys_options, scope), "SCOPE", "what the key may do; each includes those before it (default infer)",
     .choices = "infer|train|admin"},
    {"--json", 0, OPTION_FLAG, offsetof(struct keys_options, json), NULL, "answer as JSON"},
};
static const struct option_command command = {
    .name = "keys",
    .synopsis = "add NAME [--scope infer|train|admin] | list | revoke NAME",
    .summary = "Manages the API keys of a server. Once there is a key, requests need one.",
    .options = specs,
    .n_options = ARRAY_LEN(specs),
    .max_args = 2,
};

static void print_key(const struct key *k, bool json, const char *text) {
    if (!json) {
        char when[32];
        time_t t = (time_t)k->created_s;
        struct tm utc;
        strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&t, &utc));
        printf("%s  %-5s  %s  %s\n", k->id, scope_name(k->scope), when, k->name);
        return;
    }
    struct buf line = {0};
    buf_printf(&line, "{\"id\":\"%s\",\"name\":", k->id);
    buf_add_json_string(&line, k->name, strlen(k->name));
    buf_printf(&line, ",\"scope\":\"%s\",\"created\":%lld", scope_name(k->scope), (long long)k->created_s);
    if (text) buf_printf(&line, ",\"key\":\"%s\"", text);
    buf_add_byte(&line, '}');
    puts(line.data);
    if (text) explicit_bzero(line.data, line.len);
    buf_finish(&line);
}

static bool key_add(struct keys *keys, const struct keys_options *o, const char *name, struct err *err) {
    enum http_scope scope = SCOPE_INFER;
    char text[64];
    if (o->scope && !scope_parse(o->scope, &scope)) return err_set(err, ERR_INVALID, "unknown scope");
    if (!keys_add(keys, name, scope, text, err)) return false;
    if (o->json) {
        print_key(&keys->items[keys->n - 1], true, text);
    } else {
        puts(text);
        fprintf(stderr, "This is the only time the key is shown; only its hash is kept.\n");
    }
    explicit_bzero(text, sizeof text);
    return true;
}

static bool keys_run(struct keys *keys, const struct keys_options *o, const struct option_list *words, int *status, struct err *err) {
    const char *verb = words->n ? words->items[0] : "";
    const char *name = words->n == 2 ? words->items[1] : NULL;
    bool add = strcmp(verb, "add") == 0, list = strcmp(verb, "list") == 0, revoke = strcmp(verb, "revoke") == 0;
    if ((!add && !list && !revoke) || list != (name == NULL)) {
        *status = 2;
        return err_set(err, ERR_INVALID, "expected: add NAME, list, or revoke NAME");
    }
    if (add && mkdir(o->data_dir, 0700) != 0 && errno != EEXIST) return err_set(err, ERR_IO, "%s: %s", o->data_dir, strerror(errno));
    // Two commands at once must not lose each other's key; released when the process ends.
    int folder = list ? -1 : open(o->data_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder >= 0 && flock(folder, LOCK_EX) != 0) return err_set(err, ERR_IO, "%s: %s", o->data_dir, strerror(errno));
    if (!keys_open(keys, o->data_dir, err)) return false;
    if (add) return key_add(keys, o, name, err);
    if (revoke) return keys_revoke(keys, name, err);
    for (size_t i = 0; i < keys->n; i++) print_key(&keys->items[i], o->json, NULL);
    return true;
}

int cmd_keys(int argc, char **argv) {
    const char *from_env = getenv("COUPLET_DATA_DIR");
    struct keys_options o = {.data_dir = from_env && *from_env ? from_env : "data"};
    struct option_args args = {0};
    struct keys keys = {0};
    struct err err = {0};
    int status;
    if (options_start(&command, argc, argv, &o, &args, &status)) {
        status = 1;
        if (keys_run(&keys, &o, &args.positional, &status, &err)) status = 0;
        else fprintf(stderr, "couplet keys: %s\n", err.message);
    }
    keys_close(&keys);
    option_args_finish(&args);
    return status;
}
