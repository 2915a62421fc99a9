// SPDX-License-Identifier: MIT
// Everything that can be wrong with a request before its body is read, in this order: framing (400, close), Host and Origin (403), path
// and method (404, 405), server state (503), key and scope (401, 403), body headers (413, 415, 417). Thread: loop.
//
// libmicrohttpd 0.9.75 accepts two Content-Lengths, Content-Length beside Transfer-Encoding, other transfer codings, NUL bytes and bare
// line feeds: each a way to make a proxy and us see different requests. So the framing is checked again here.
#include "server/http_internal.h"

#include "base/mem.h"
#include "server/routes.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static bool refuse(struct http_exchange *x, int status, const char *code, const char *format, ...) PRINTF_LIKE(4, 5);
static bool refuse(struct http_exchange *x, int status, const char *code, const char *format, ...) {
    char text[300];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    x->r.err_status = status;
    x->r.err_code = code;
    return err_set(&x->r.err, ERR_INVALID, "%s", text);
}

static bool refuse_framing(struct http_exchange *x, const char *what) {
    x->close_after = true;
    x->has_body = true; // whatever follows is not to be read as a request
    return refuse(x, 400, "bad_request", "%s", what);
}

// ---- framing ----

static bool is_token(const char *s) {
    if (!*s) return false;
    for (; *s; s++)
        if (!isalnum((unsigned char)*s) && !strchr("!#$%&'*+-.^_`|~", *s)) return false;
    return true;
}

// Walks libmicrohttpd's own buffer, where lines lie one after the other with their CR and LF zeroed: each must begin two bytes after
// the end of the one before. A NUL inside a value, a bare line feed or a folded line breaks the chain.
struct raw_walk {
    const char *expected; // where the next header line must begin
    bool broken;
};

static enum MHD_Result raw_line(void *cls, enum MHD_ValueKind kind, const char *key, size_t key_len, const char *value, size_t value_len) {
    struct raw_walk *w = cls;
    w->broken |= key != w->expected || !value || value <= key + key_len;
    if (w->broken) return MHD_NO;
    for (size_t i = 0; i < value_len; i++) {
        unsigned char c = (unsigned char)value[i];
        w->broken |= (c < ' ' && c != '\t') || c == 0x7f;
    }
    w->expected = value + value_len + 2;
    return MHD_YES;
}

static bool raw_layout_intact(const struct http_connection *c, const char *method, const char *version) {
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(c->mhd, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
    if (!info || strncmp(MHD_get_version(), "0.9.", 4) != 0) return true; // 1.x refuses all of these itself
    if (c->uri_end + 1 != version) return false;                          // a NUL in the request target
    struct raw_walk w = {.expected = version + strlen(version) + 2};
    MHD_get_connection_values_n(c->mhd, MHD_HEADER_KIND, raw_line, &w);
    return !w.broken && w.expected + 2 == method + info->header_size;
}

static size_t header_count(const struct http_exchange *x, const char *name) {
    size_t n = 0;
    for (size_t i = 0; i < x->n_headers; i++) n += strcasecmp(x->headers[i].name, name) == 0;
    return n;
}

static enum MHD_Result count_authorization(void *cls, enum MHD_ValueKind kind, const char *key, const char *value) {
    *(size_t *)cls += key && strcasecmp(key, "authorization") == 0;
    return MHD_YES;
}

// Digits only, at most 18 of them: 2^64-1 means "unknown" to libmicrohttpd.
static bool content_length_parse(const char *s, uint64_t *out) {
    size_t n = strlen(s);
    if (n == 0 || n > 18 || strspn(s, "0123456789") != n) return false;
    *out = strtoull(s, NULL, 10);
    return true;
}

static bool framing_ok(struct http_exchange *x, const char *method, const char *version) {
    const struct http_connection *c = x->connection;
    if (c->uri_bad) return refuse_framing(x, "The request target holds bytes that must be percent-encoded.");
    if (!raw_layout_intact(c, method, version)) return refuse_framing(x, "The request's header lines are malformed.");
    for (size_t i = 0; i < x->n_headers; i++)
        if (!is_token(x->headers[i].name)) return refuse_framing(x, "A header's name is malformed.");
    static const char *const unique[] = {"Host", "Content-Length", "Transfer-Encoding", "Content-Type", "Content-Encoding", "Origin", "Expect"};
    for (size_t i = 0; i < ARRAY_LEN(unique); i++)
        if (header_count(x, unique[i]) > 1) return refuse_framing(x, "A header that may be there once is there twice.");
    size_t n_authorization = 0;
    MHD_get_connection_values(c->mhd, MHD_HEADER_KIND, count_authorization, &n_authorization);
    if (n_authorization > 1) return refuse_framing(x, "A header that may be there once is there twice.");
    if (!http_header(&x->r, "Host") && strcmp(version, "HTTP/1.0") != 0) return refuse_framing(x, "The Host header is missing.");
    const char *coding = http_header(&x->r, "Transfer-Encoding"), *length = http_header(&x->r, "Content-Length");
    if (coding && length) return refuse_framing(x, "Content-Length and Transfer-Encoding exclude each other.");
    if (coding && (strcasecmp(coding, "chunked") != 0 || strcmp(version, "HTTP/1.1") != 0))
        return refuse_framing(x, "The only transfer coding is chunked, in HTTP/1.1.");
    x->content_length = coding ? UINT64_MAX : 0;
    if (length && !content_length_parse(length, &x->content_length)) return refuse_framing(x, "Content-Length is not a length.");
    x->has_body = x->content_length > 0;
    return true;
}

// ---- who asks, and from where ----

// The name in "name[:port]" or "[v6][:port]"; its length, 0 when malformed.
static size_t authority_name(const char *s) {
    size_t n = s[0] == '[' ? strcspn(s, "]") + 1 : strcspn(s, ":");
    if (n == 0 || n > strlen(s)) return 0;
    if (!s[n]) return n;
    size_t digits = strspn(s + n + 1, "0123456789");
    return s[n] == ':' && digits >= 1 && digits <= 5 && !s[n + 1 + digits] ? n : 0;
}

static bool name_is(const char *s, size_t n, const char *name) { return strlen(name) == n && strncasecmp(s, name, n) == 0; }

// Allowed names defeat DNS rebinding: a page of evil.com whose name now points here still sends "Host: evil.com".
bool host_allowed(const struct config *c, const char *host) {
    size_t n = authority_name(host);
    if (n == 0) return false;
    if (name_is(host, n, "localhost") || name_is(host, n, "127.0.0.1") || name_is(host, n, "[::1]")) return true;
    char bound[80];
    snprintf(bound, sizeof bound, strchr(c->bound_host, ':') ? "[%s]" : "%s", c->bound_host);
    bool any = strcmp(bound, "0.0.0.0") == 0 || strcmp(bound, "[::]") == 0;
    if (!any && name_is(host, n, bound)) return true;
    for (size_t i = 0; i < c->public_host.n; i++)
        if (name_is(host, n, c->public_host.items[i])) return true;
    return false;
}

bool origin_allowed(const struct config *c, const char *origin) {
    const char *authority = NULL;
    if (strncasecmp(origin, "http://", 7) == 0) authority = origin + 7;
    if (strncasecmp(origin, "https://", 8) == 0) authority = origin + 8;
    return authority && host_allowed(c, authority);
}

static bool site_ok(struct http_exchange *x) {
    const struct config *config = &x->http->server->config;
    const char *host = http_header(&x->r, "Host"), *origin = http_header(&x->r, "Origin");
    if (!host || !host_allowed(config, host))
        return refuse(x, 403, "host_not_allowed", "This server does not answer to that Host; --public-host NAME adds one.");
    if (origin && !origin_allowed(config, origin))
        return refuse(x, 403, "origin_not_allowed", "Pages of other sites may not use this server.");
    return true;
}

// ---- what is asked ----

static bool route_ok(struct http_exchange *x) {
    struct http_request *r = &x->r;
    bool known;
    char allow[64];
    r->route = route_find(r->method, r->path, &known, allow, sizeof allow);
    if (r->route) {
        size_t len;
        const char *tail = route_tail(r->route, r->path, &len);
        if (tail) r->tail = arena_strndup(&r->arena, tail, len);
        return true;
    }
    if (!known) return refuse(x, 404, "not_found", "There is no such path.");
    http_set_header(r, "Allow", allow);
    return refuse(x, 405, "method_not_allowed", "This path takes %s.", allow);
}

static bool state_ok(struct http_exchange *x) {
    enum server_state state = server_state(x->http->server);
    if (x->r.route->scope == SCOPE_PUBLIC || state == SERVER_READY) return true;
    if (state == SERVER_LOADING) return refuse(x, 503, "model_loading", "The model is being loaded.");
    x->close_after = true;
    return refuse(x, 503, "shutting_down", "The server is shutting down.");
}

static bool key_ok(struct http_exchange *x) {
    struct http_request *r = &x->r;
    const struct keys *keys = &x->http->server->keys;
    // Where others can reach us a key stays required, also when the last one was revoked.
    bool required = keys->n > 0 || !config_host_is_loopback(x->http->server->config.bound_host);
    r->key_scope = required ? SCOPE_PUBLIC : SCOPE_ADMIN;
    if (!required || r->route->scope == SCOPE_PUBLIC) return true;
    const char *authorization = MHD_lookup_connection_value(x->connection->mhd, MHD_HEADER_KIND, MHD_HTTP_HEADER_AUTHORIZATION);
    const struct key *key = authorization ? keys_match(keys, authorization) : NULL;
    if (!key) return refuse(x, 401, "invalid_api_key", "A valid API key is required: 'Authorization: Bearer KEY'.");
    memcpy(r->key_id, key->id, sizeof r->key_id);
    r->key_scope = key->scope;
    if (key->scope < r->route->scope)
        return refuse(x, 403, "insufficient_scope", "This key's scope is %s; this path needs %s.", scope_name(key->scope), scope_name(r->route->scope));
    return true;
}

static bool body_ok(struct http_exchange *x) {
    const struct http_request *r = &x->r;
    const struct http_sink *sink = r->route->sink;
    const char *expect = http_header(r, "Expect"), *type = http_header(r, "Content-Type"), *coding = http_header(r, "Content-Encoding");
    if (expect && strcasecmp(expect, "100-continue") != 0) return refuse(x, 417, "expectation_failed", "The only expectation is 100-continue.");
    if (!x->has_body) return true;
    if (coding && strcasecmp(coding, "identity") != 0)
        return refuse(x, 415, "unsupported_media_type", "Compressed request bodies are not accepted.");
    // JSON alone also keeps out what a foreign page can send without asking (text/plain, forms); where a form is taken, its Origin does.
    const char *taken = sink ? sink->content_type : "application/json";
    if (!type || !name_is(type, strcspn(type, "; \t"), taken)) return refuse(x, 415, "unsupported_media_type", "The Content-Type must be %s.", taken);
    size_t most = sink ? sink->max_bytes(r) : x->http->server->config.max_body_bytes;
    if (x->content_length != UINT64_MAX && x->content_length > most)
        return refuse(x, 413, "payload_too_large", "The request body is over %zu bytes.", most);
    return true;
}

bool http_guard(struct http_exchange *x, const char *raw_method, const char *raw_version) {
    return framing_ok(x, raw_method, raw_version) && site_ok(x) && route_ok(x) && state_ok(x) && key_ok(x) && body_ok(x);
}
