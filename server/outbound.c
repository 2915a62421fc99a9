// SPDX-License-Identifier: MIT
// See outbound.h.
#include "server/outbound.h"

#include "base/mem.h"

#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>

enum { CONNECT_S = 30 };

bool outbound_open(struct outbound *o, const char *address, const char *address_name, const char *key, const char *key_name, struct err *err) {
    *o = (struct outbound){.endpoint = mem_strdup(address)};
    for (size_t n = strlen(o->endpoint); n && o->endpoint[n - 1] == '/';) o->endpoint[--n] = 0;
    if (strncmp(o->endpoint, "http://", 7) != 0 && strncmp(o->endpoint, "https://", 8) != 0)
        return err_set_param(err, ERR_INVALID, address_name, "%s is no http:// or https:// address: %s", address_name, o->endpoint);
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != 0 || !(o->curl = curl_easy_init())) return err_set(err, ERR_IO, "libcurl does not start");
    o->json_headers = curl_slist_append(NULL, "Content-Type: application/json");
    if (key && *key) {
        if (strpbrk(key, "\r\n")) return err_set(err, ERR_INVALID, "%s holds a line break", key_name);
        struct buf header = {0};
        buf_printf(&header, "Authorization: Bearer %s", key);
        o->headers = curl_slist_append(NULL, buf_str(&header));
        o->json_headers = curl_slist_append(o->json_headers, buf_str(&header));
        buf_finish(&header);
    }
    return true;
}

void outbound_close(struct outbound *o) {
    curl_slist_free_all(o->headers);
    curl_slist_free_all(o->json_headers);
    if (o->curl) {
        curl_easy_cleanup(o->curl);
        curl_global_cleanup();
    }
    free(o->endpoint);
    *o = (struct outbound){0};
}

void outbound_add_escaped(struct outbound *o, struct buf *url, const char *text, bool path) {
    while (*text) {
        const size_t n = path ? strcspn(text, "/") : strlen(text);
        char *escaped = n ? curl_easy_escape(o->curl, text, (int)n) : NULL;
        buf_add_str(url, escaped ? escaped : "");
        curl_free(escaped);
        text += n;
        if (*text) buf_add_byte(url, (unsigned char)*text++);
    }
}

void outbound_start(struct outbound *o, const char *url, size_t (*write)(char *data, size_t size, size_t n, void *ctx), void *ctx) {
    curl_easy_reset(o->curl);
    curl_easy_setopt(o->curl, CURLOPT_URL, url);
    curl_easy_setopt(o->curl, CURLOPT_HTTPHEADER, o->headers);
    curl_easy_setopt(o->curl, CURLOPT_USERAGENT, "couplet/" COUPLET_VERSION);
    curl_easy_setopt(o->curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(o->curl, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_S);
    curl_easy_setopt(o->curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(o->curl, CURLOPT_WRITEFUNCTION, write);
    curl_easy_setopt(o->curl, CURLOPT_WRITEDATA, ctx);
}

void outbound_post(struct outbound *o, const char *json) {
    curl_easy_setopt(o->curl, CURLOPT_HTTPHEADER, o->json_headers);
    curl_easy_setopt(o->curl, CURLOPT_POSTFIELDS, json);
}

long outbound_status(struct outbound *o) {
    long status = 0;
    curl_easy_getinfo(o->curl, CURLINFO_RESPONSE_CODE, &status);
    return status;
}
