// SPDX-License-Identifier: MIT
// See client.h. Server-sent events: html.spec.whatwg.org/multipage/server-sent-events.html.
#include "server/client.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "server/jobs/job_lines.h"

#include <curl/curl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { ANSWER_MAX = 64 << 20, SILENCE_S = 45, PATIENCE_S = 60 }; // streams have a ping every few seconds

void answer_finish(struct answer *a) {
    buf_finish(&a->text);
    json_decref(a->tree);
    *a = (struct answer){0};
}

static bool client_open(struct client *c, const struct client_options *o, struct err *err) {
    const char *from_env = getenv("COUPLET_SERVER"), *name = o->server ? "--server" : "COUPLET_SERVER";
    const char *address = o->server ? o->server : from_env && *from_env ? from_env : "http://127.0.0.1:8080";
    *c = (struct client){.json = o->json};
    if (!outbound_open(&c->out, address, name, getenv("COUPLET_API_KEY"), "COUPLET_API_KEY", err)) return false;
    const size_t n = strlen(c->out.endpoint);
    if (strcmp(c->out.endpoint + n - 3, "/v1") == 0) c->out.endpoint[n - 3] = 0; // as other clients want it
    return true;
}

char *client_path(struct client *c, const char *before, const char *id, const char *after) {
    struct buf b = {0};
    buf_add_str(&b, before);
    outbound_add_escaped(&c->out, &b, id, false);
    buf_add_str(&b, after);
    return buf_detach(&b);
}

// ---- one request ----

struct reply {
    struct client *c;
    struct answer *out;
    client_bytes_fn *take; // of a good answer's body; NULL: it becomes out->text
    void *ctx;
    struct err err; // take's
};

static size_t reply_write(char *data, size_t size, size_t n, void *ctx) {
    struct reply *r = ctx;
    const long status = outbound_status(&r->c->out);
    if (r->take && status >= 200 && status < 300) return r->take(r->ctx, data, n, &r->err) ? n : 0;
    if (n > ANSWER_MAX - r->out->text.len) return 0;
    buf_add(&r->out->text, data, n);
    return n;
}

static void request_start(struct client *c, const char *path, struct reply *r) {
    struct buf url = {0};
    buf_printf(&url, "%s%s", c->out.endpoint, path);
    outbound_start(&c->out, buf_str(&url), reply_write, r); // the address is copied
    buf_finish(&url);
    curl_easy_setopt(c->out.curl, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(c->out.curl, CURLOPT_TCP_KEEPALIVE, 1L);
    const char *host = strstr(c->out.endpoint, "//") + 2;
    const bool here = strncmp(host, "127.", 4) == 0 || strncmp(host, "localhost", 9) == 0 || strncmp(host, "[::1]", 5) == 0;
    if (here) curl_easy_setopt(c->out.curl, CURLOPT_NOPROXY, "*"); // of this machine no proxy knows
}

static bool connection_fail(struct client *c, CURLcode code, struct err *err) {
    if (code == CURLE_COULDNT_CONNECT)
        return err_set(err, ERR_IO, "no server answers at %s; start one with 'couplet serve --model PATH', or name another with --server or COUPLET_SERVER",
                       c->out.endpoint);
    return err_set(err, ERR_IO, "the connection to %s failed: %s", c->out.endpoint, curl_easy_strerror(code));
}

// True for a good status. The server's sentence otherwise.
static bool status_check(struct client *c, const struct answer *a, struct err *err) {
    const long status = outbound_status(&c->out);
    if (status >= 200 && status < 300) return true;
    json_t *tree = json_loadb(buf_str(&a->text), a->text.len, 0, NULL);
    const char *message = member_text(tree, "error.message");
    if (!*message) (void)err_set(err, ERR_IO, "%s answers %ld, and not as a couplet server would", c->out.endpoint, status);
    else if (status == 401) (void)err_set(err, ERR_INVALID, "%s (COUPLET_API_KEY is where a key is taken from)", message);
    else (void)err_set(err, status == 404 ? ERR_NOT_FOUND : ERR_IO, "%s", message);
    json_decref(tree);
    return false;
}

static bool request_run(struct client *c, struct reply *r, struct err *err) {
    const CURLcode code = curl_easy_perform(c->out.curl);
    if (r->err.code != ERR_NONE) {
        if (err) *err = r->err;
        return false;
    }
    if (code != CURLE_OK) return connection_fail(c, code, err);
    if (!status_check(c, r->out, err)) return false;
    if (r->take) return true;
    r->out->tree = json_loadb(buf_str(&r->out->text), r->out->text.len, 0, NULL);
    return r->out->tree || err_set(err, ERR_CORRUPT, "%s answers something that is not JSON", c->out.endpoint);
}

bool client_call(struct client *c, const char *method, const char *path, const json_t *body, struct answer *out, struct err *err) {
    struct reply r = {.c = c, .out = out};
    char *text = body ? json_dumps(body, JSON_COMPACT | JSON_REAL_PRECISION(15)) : NULL;
    request_start(c, path, &r);
    if (strcmp(method, "GET") != 0) outbound_post(&c->out, text ? text : "");
    curl_easy_setopt(c->out.curl, CURLOPT_CUSTOMREQUEST, method);
    const bool ok = request_run(c, &r, err);
    free(text);
    return ok;
}

bool client_upload(struct client *c, const char *file, const char *purpose, struct answer *out, struct err *err) {
    struct reply r = {.c = c, .out = out};
    struct stat st;
    if (stat(file, &st) != 0 || !S_ISREG(st.st_mode) || access(file, R_OK) != 0) return err_set(err, ERR_NOT_FOUND, "%s is no file that can be read", file);
    request_start(c, "/v1/files", &r);
    curl_mime *form = curl_mime_init(c->out.curl);
    curl_mimepart *part = curl_mime_addpart(form);
    curl_mime_name(part, "purpose");
    curl_mime_data(part, purpose, CURL_ZERO_TERMINATED);
    part = curl_mime_addpart(form);
    curl_mime_name(part, "file");
    const bool given = curl_mime_filedata(part, file) == CURLE_OK;
    curl_easy_setopt(c->out.curl, CURLOPT_MIMEPOST, form);
    const bool ok = given ? request_run(c, &r, err) : err_set(err, ERR_IO, "%s cannot be read", file);
    curl_easy_reset(c->out.curl);
    curl_mime_free(form);
    return ok;
}

// An interrupted download ends as one that failed, so that what there is of it is removed.
static volatile sig_atomic_t interrupted;
static void on_interrupt(int number) { interrupted = number; }
static int interrupted_now(void *ctx, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d) { return interrupted; } // asked every second

bool client_fetch(struct client *c, const char *path, client_bytes_fn *take, void *ctx, struct answer *out, struct err *err) {
    struct reply r = {.c = c, .out = out, .take = take, .ctx = ctx};
    struct sigaction act = {.sa_handler = on_interrupt}, before_int, before_term;
    struct curl_header *h;
    request_start(c, path, &r);
    curl_easy_setopt(c->out.curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(c->out.curl, CURLOPT_XFERINFOFUNCTION, interrupted_now);
    sigaction(SIGINT, &act, &before_int);
    sigaction(SIGTERM, &act, &before_term);
    bool ok = request_run(c, &r, err);
    sigaction(SIGINT, &before_int, NULL);
    sigaction(SIGTERM, &before_term, NULL);
    if (interrupted) ok = err_set(err, ERR_IO, "interrupted; nothing was kept");
    if (ok && curl_easy_header(c->out.curl, "couplet-logit-difference", 0, CURLH_HEADER, -1, &h) == CURLHE_OK)
        snprintf(out->difference, sizeof out->difference, "%s", h->value);
    return ok;
}

static bool to_writer(void *ctx, const void *data, size_t len, struct err *err) {
    file_writer_add(ctx, data, len); // what fails comes out at the end
    return true;
}

bool client_fetch_file(struct client *c, const char *path, const char *to, struct answer *out, struct err *err) {
    struct file_writer w = {0};
    const bool ok = file_writer_open(&w, to, 0644, err) && client_fetch(c, path, to_writer, &w, out, err) && file_writer_finish(&w, err);
    file_writer_abort(&w);
    return ok;
}

// ---- events ----

struct follow {
    struct line_splitter lines;
    struct buf data;
    char id[128], next_id[128]; // of the last event that was handed on; of the one that is being read
    uint64_t heard_ns;          // the last byte, a ping's too
    bool done;
    client_event_fn *event;
    void *ctx;
};

static void follow_line(void *ctx, const char *line, size_t n) {
    struct follow *f = ctx;
    if (n && line[n - 1] == '\r') n--;
    if (n == 0 && f->data.len) {
        memcpy(f->id, f->next_id, sizeof f->id);
        if (strcmp(f->data.data, "[DONE]") == 0) f->done = true;
        else f->event(f->ctx, f->data.data);
        buf_clear(&f->data);
    } else if (n >= 6 && memcmp(line, "data: ", 6) == 0) {
        if (f->data.len) buf_add_byte(&f->data, '\n');
        buf_add(&f->data, line + 6, n - 6);
    } else if (n >= 4 && memcmp(line, "id: ", 4) == 0 && n - 4 < sizeof f->next_id) {
        snprintf(f->next_id, sizeof f->next_id, "%.*s", (int)(n - 4), line + 4);
    }
}

static bool follow_bytes(void *ctx, const void *data, size_t len, struct err *err) {
    struct follow *f = ctx;
    f->heard_ns = clock_ns();
    line_splitter_feed(&f->lines, data, len, follow_line, f);
    f->event(f->ctx, NULL);
    return true;
}

// One connection. True: it came to an end that is worth another try, or to [DONE].
static bool follow_once(struct client *c, const char *path, struct follow *f, struct err *err) {
    struct answer answer = {0};
    struct reply r = {.c = c, .out = &answer, .take = follow_bytes, .ctx = f};
    struct curl_slist *headers = NULL;
    buf_clear(&f->lines.line); // the half event of a connection that was cut
    f->lines.skipping = false;
    buf_clear(&f->data);
    request_start(c, path, &r);
    for (const struct curl_slist *h = c->out.headers; h; h = h->next) headers = curl_slist_append(headers, h->data);
    if (f->id[0]) {
        char line[160];
        snprintf(line, sizeof line, "Last-Event-ID: %s", f->id);
        headers = curl_slist_append(headers, line);
    }
    curl_easy_setopt(c->out.curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(c->out.curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(c->out.curl, CURLOPT_LOW_SPEED_TIME, (long)SILENCE_S);
    const CURLcode code = curl_easy_perform(c->out.curl);
    const long status = outbound_status(&c->out);
    bool again = code == CURLE_OK && status >= 400 && status != 503 ? status_check(c, &answer, err) : f->heard_ns != 0;
    if (again && !f->done && (double)(clock_ns() - f->heard_ns) > PATIENCE_S * 1e9) again = false;
    if (!again && err->code == ERR_NONE && (code != CURLE_OK || status_check(c, &answer, err)))
        (void)connection_fail(c, code == CURLE_OK ? CURLE_GOT_NOTHING : code, err);
    curl_slist_free_all(headers);
    answer_finish(&answer);
    return again;
}

bool client_follow(struct client *c, const char *path, client_event_fn *event, void *ctx, struct err *err) {
    struct follow f = {.event = event, .ctx = ctx};
    bool ok;
    while ((ok = follow_once(c, path, &f, err)) && !f.done) sleep(1);
    buf_finish(&f.lines.line);
    buf_finish(&f.data);
    return ok;
}

// ---- commands ----

static void verbs_print(const char *noun, const char *summary, const struct client_verb *verbs, FILE *out) {
    fprintf(out, "usage: couplet %s COMMAND [OPTIONS]\n\n%s\n\n", noun, summary);
    for (const struct client_verb *v = verbs; v->run; v++) {
        const char *name = v->command.name + strlen(noun) + 1;
        fprintf(out, "  %-12s%s\n", name, v->command.summary);
    }
    fprintf(out, "\n'couplet %s COMMAND --help' names its options. The server: --server URL or COUPLET_SERVER; its key: COUPLET_API_KEY.\n", noun);
}

static int verb_run(const struct client_verb *v, int argc, char **argv, void *options) {
    struct option_args args = {0};
    struct client c = {0};
    struct err err = {0};
    int status;
    if (options_start(&v->command, argc, argv, options, &args, &status)) {
        status = 0;
        if (args.positional.n != v->n_args) {
            fprintf(stderr, "couplet %s: expected: couplet %s %s\n", v->command.name, v->command.name, v->command.synopsis);
            status = 2;
        } else if (!client_open(&c, options, &err) || !v->run(&c, options, &args, &err)) {
            status = options_fail(&v->command, &err);
        }
    }
    outbound_close(&c.out);
    option_args_finish(&args);
    return status;
}

int client_command(const char *noun, const char *summary, const struct client_verb *verbs, int argc, char **argv, void *options) {
    const char *name = argc > 1 ? argv[1] : "";
    for (const struct client_verb *v = verbs; v->run; v++)
        if (strcmp(v->command.name + strlen(noun) + 1, name) == 0) return verb_run(v, argc - 1, argv + 1, options);
    const bool help = strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0;
    if (!help && *name) fprintf(stderr, "couplet %s: there is no command '%s'\n\n", noun, name);
    verbs_print(noun, summary, verbs, help ? stdout : stderr);
    return help ? 0 : 2;
}

void answer_show(const struct client *c, const struct answer *a, answer_write_fn *write) {
    struct buf text = {0};
    if (c->json) puts(buf_str(&a->text));
    else write(a->tree, &text);
    text_print(&text);
    fflush(stdout);
    buf_finish(&text);
}

bool client_show(struct client *c, const char *method, char *path, answer_write_fn *write, struct err *err) {
    struct answer a = {0};
    const bool ok = client_call(c, method, path, NULL, &a, err);
    if (ok) answer_show(c, &a, write);
    answer_finish(&a);
    free(path);
    return ok;
}

// ---- words ----

void id_write(const json_t *object, struct buf *out) { buf_printf(out, "%s\n", member_text(object, "id")); }

static const json_t *member_at(const json_t *object, const char *path) {
    size_t n;
    for (char name[64]; (n = strcspn(path, ".")) < sizeof name; path += n + 1) {
        memcpy(name, path, n);
        name[n] = 0;
        object = json_object_get(object, name);
        if (!path[n]) return object;
    }
    return NULL;
}

const char *member_text(const json_t *object, const char *path) {
    const char *s = json_string_value(member_at(object, path));
    return s ? s : "";
}

double member_number(const json_t *object, const char *path) {
    const json_t *v = member_at(object, path);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

void more_say(const json_t *list) {
    const json_t *data = json_object_get(list, "data");
    struct buf id = {0};
    buf_add_str(&id, member_text(json_array_get(data, json_array_size(data) - 1), "id"));
    text_clean(&id, 0);
    if (json_is_true(json_object_get(list, "has_more"))) fprintf(stderr, "there are more: --after %s\n", buf_str(&id));
    buf_finish(&id);
}

void time_write(struct buf *out, double seconds) {
    char text[32] = "-";
    struct tm utc;
    if (seconds >= 0 && seconds < 1e11) {
        const time_t t = (time_t)seconds;
        strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&t, &utc));
    }
    buf_add_str(out, text);
}

static bool is_time(const char *name) {
    const size_t n = strlen(name);
    return (n > 3 && strcmp(name + n - 3, "_at") == 0) || strcmp(name, "expected_start") == 0 || strcmp(name, "estimated_finish") == 0;
}

static void value_write(struct buf *out, const char *name, const json_t *v) {
    if (json_is_string(v)) buf_add(out, json_string_value(v), json_string_length(v));
    else if (json_is_boolean(v)) buf_add_str(out, json_is_true(v) ? "yes" : "no");
    else if (is_time(name)) time_write(out, json_number_value(v));
    else if (json_is_integer(v)) buf_printf(out, "%lld", (long long)json_integer_value(v));
    else buf_printf(out, "%.9g", json_number_value(v));
}

static void members_write_below(struct buf *out, const char *prefix, const json_t *object) {
    for (void *at = json_object_iter((json_t *)(uintptr_t)object); at; at = json_object_iter_next((json_t *)(uintptr_t)object, at)) {
        const char *name = json_object_iter_key(at);
        const json_t *v = json_object_iter_value(at);
        struct buf path = {0};
        buf_printf(&path, "%s%s%s", prefix, *prefix ? "." : "", name);
        const json_t *first = json_array_get(v, 0);
        if (json_is_object(v)) {
            members_write_below(out, path.data, v);
        } else if (!json_is_null(v) && (!json_is_array(v) || (first && !json_is_object(first)))) {
            buf_printf(out, "%-28s  ", path.data);
            if (first)
                for (size_t i = 0; i < json_array_size(v); i++) {
                    if (i) buf_add_str(out, ", ");
                    value_write(out, name, json_array_get(v, i));
                }
            else value_write(out, name, v);
            buf_add_byte(out, '\n');
        }
        buf_finish(&path);
    }
}

void members_write(const json_t *object, struct buf *out) { members_write_below(out, "", object); }

void text_clean(struct buf *b, size_t from) {
    for (size_t i = from; i < b->len; i++) {
        unsigned char *p = (unsigned char *)b->data + i;
        const bool c1 = i + 1 < b->len && p[0] == 0xc2 && p[1] < 0xa0; // U+0080 to U+009F
        if (c1) p[0] = ' ', p[1] = '?';
        else if ((p[0] < ' ' && p[0] != '\n') || p[0] == 127) p[0] = '?';
    }
}

void text_print(struct buf *b) {
    text_clean(b, 0);
    fwrite(buf_str(b), 1, b->len, stdout);
    buf_clear(b);
}
