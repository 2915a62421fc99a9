// SPDX-License-Identifier: MIT
// A running couplet server, as `couplet files` and `couplet jobs` speak to it; and what the two commands share: verbs, options, printing.
// Blocking; main thread. Whatever a server says is printed without its control characters.
#pragma once

#include "server/options.h"
#include "server/outbound.h"

#include <jansson.h>

struct client {
    struct outbound out;
    bool json; // answers are printed as they come
};

struct answer {
    struct buf text; // as the server sent it
    json_t *tree;
    char difference[32]; // of client_fetch: the header couplet-logit-difference, or ""
};
void answer_finish(struct answer *a); // accepts a zeroed one

// Every function: a refusal is the server's own sentence; a server that cannot be reached, one that says what to do.
// `path` is escaped already but for what comes from outside: client_path.
char *client_path(struct client *c, const char *before, const char *id, const char *after); // before + escaped id + after; malloc'ed
bool client_call(struct client *c, const char *method, const char *path, const json_t *body, struct answer *out, struct err *err) MUST_CHECK;
bool client_upload(struct client *c, const char *file, const char *purpose, struct answer *out, struct err *err) MUST_CHECK;
typedef bool client_bytes_fn(void *ctx, const void *data, size_t len, struct err *err);
bool client_fetch(struct client *c, const char *path, client_bytes_fn *take, void *ctx, struct answer *out, struct err *err) MUST_CHECK;
// Into a file that is there whole or not at all.
bool client_fetch_file(struct client *c, const char *path, const char *to, struct answer *out, struct err *err) MUST_CHECK;
// Server-sent events up to [DONE]. A connection that is cut, or a server that starts again, is taken up after the last event; a minute without one
// is a failure. NULL: no more has come yet.
typedef void client_event_fn(void *ctx, const char *json);
bool client_follow(struct client *c, const char *path, client_event_fn *event, void *ctx, struct err *err) MUST_CHECK;

// ---- commands

struct client_options { // begins every verb's options
    const char *server;
    bool json;
};
#define CLIENT_OPTION_ROWS                                                                                                                              \
    {"--server", 0, OPTION_STRING, offsetof(struct client_options, server), "URL", "the server (COUPLET_SERVER, or http://127.0.0.1:8080)"},            \
    {"--json", 0, OPTION_FLAG, offsetof(struct client_options, json), NULL, "the server's answer, as it is"}

struct client_verb {
    struct option_command command; // its name: "files upload"
    size_t n_args;                 // exactly so many
    bool (*run)(struct client *c, void *options, const struct option_args *args, struct err *err);
};
// Finds argv[1] among the verbs (ended by a zeroed one), parses, connects, runs. `options` begins with struct client_options. The exit status.
int client_command(const char *noun, const char *summary, const struct client_verb *verbs, int argc, char **argv, void *options);

// On stdout: with --json as it came, else what `write` makes of it.
typedef void answer_write_fn(const json_t *answer, struct buf *out);
void answer_show(const struct client *c, const struct answer *a, answer_write_fn *write);
// A whole verb: one request, its answer shown. Takes path.
bool client_show(struct client *c, const char *method, char *path, answer_write_fn *write, struct err *err) MUST_CHECK;

void id_write(const json_t *object, struct buf *out); // its id alone, for scripts
void more_say(const json_t *list); // on stderr, where the list goes on
const char *member_text(const json_t *object, const char *path); // a string by its dotted path, or ""
double member_number(const json_t *object, const char *path);    // NaN: none
void time_write(struct buf *out, double seconds);                // 2026-01-31T12:00:00Z; "-" for NaN
// The object as "path  value" lines; nulls, empty lists and lists of objects are left out.
void members_write(const json_t *object, struct buf *out);
// A line or several on stdout; control characters but line breaks become '?'. Empties it.
void text_print(struct buf *b);
void text_clean(struct buf *b, size_t from); // from that byte on
