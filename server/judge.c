// SPDX-License-Identifier: MIT
// See judge.h.
#include "server/judge.h"
#include "server/outbound.h"

#include "base/buf.h"
#include "base/mem.h"

#include <ctype.h>
#include <curl/curl.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ANSWER_LIMIT = 1 << 20, TIMEOUT_S = 600 };

struct judge {
    struct outbound out; // its address ends in /v1
    char *model;
};

static size_t answer_add(char *data, size_t size, size_t n, void *ctx) {
    struct buf *b = ctx;
    if (b->len + n > ANSWER_LIMIT) return 0;
    buf_add(b, data, n);
    return n;
}

// GET without a body, else POST. The parsed answer, a new reference.
static json_t *judge_call(struct judge *j, const char *path, const char *body, struct err *err) {
    struct buf url = {0}, answer = {0};
    buf_printf(&url, "%s%s", j->out.endpoint, path);
    outbound_start(&j->out, url.data, answer_add, &answer);
    if (body) outbound_post(&j->out, body);
    curl_easy_setopt(j->out.curl, CURLOPT_TIMEOUT, (long)TIMEOUT_S);
    CURLcode code = curl_easy_perform(j->out.curl);
    long status = outbound_status(&j->out);
    json_t *json = NULL;
    if (code != CURLE_OK) err_set(err, ERR_IO, "the judge at %s does not answer: %s", j->out.endpoint, curl_easy_strerror(code));
    else if (status != 200) err_set(err, ERR_IO, "the judge at %s answers %ld: %.200s", url.data, status, buf_str(&answer));
    else if (!(json = json_loadb(buf_str(&answer), answer.len, 0, NULL))) err_set(err, ERR_IO, "the judge's answer is not JSON");
    buf_finish(&url);
    buf_finish(&answer);
    return json;
}

static bool model_choose(struct judge *j, struct err *err) {
    json_t *list = judge_call(j, "/models", NULL, err);
    if (!list) return false;
    const char *id = json_string_value(json_object_get(json_array_get(json_object_get(list, "data"), 0), "id"));
    if (id) j->model = mem_strdup(id);
    else err_set(err, ERR_IO, "the judge at %s lists no model", j->out.endpoint);
    json_decref(list);
    return j->model != NULL;
}

struct judge *judge_create(const char *url, const char *model, const char *key, struct err *err) {
    struct judge *j = mem_new(struct judge);
    struct buf b = {0};
    size_t len = strlen(url);
    while (len > 0 && url[len - 1] == '/') len--;
    buf_add(&b, url, len);
    if (len < 3 || memcmp(url + len - 3, "/v1", 3) != 0) buf_add_str(&b, "/v1");
    if (model) j->model = mem_strdup(model);
    const bool ok = outbound_open(&j->out, b.data, "--judge", key, "OPENAI_API_KEY", err) && (j->model || model_choose(j, err));
    buf_finish(&b);
    if (ok) return j;
    judge_destroy(j);
    return NULL;
}

void judge_destroy(struct judge *j) {
    if (!j) return;
    outbound_close(&j->out);
    free(j->model);
    free(j);
}

const char *judge_model(const struct judge *j) { return j->model; }

// The first whole number from 0 to 100 in the text: "85", "Score: 85/100." NaN: none.
static double score_find(const char *text) {
    for (const char *p = text; *p; p++) {
        if (!isdigit((unsigned char)*p)) continue;
        char *end;
        unsigned long n = strtoul(p, &end, 10);
        if (n <= 100) return (double)n;
        p = end - 1;
    }
    return NAN;
}

bool judge_score(struct judge *j, const char *prompt, const char *reference, const char *answer, double *score, struct err *err) {
    struct buf question = {0};
    buf_printf(&question,
               "Given the input `%s` and correct output `%s`, score the model response `%s` on a scale from 0 to 100, where 100 is the best score. "
               "Respond with the integer number only.", prompt, reference, answer);
    json_t *body = json_pack("{s:s, s:[{s:s, s:s}], s:i, s:i, s:i}", "model", j->model, "messages", "role", "user", "content", question.data,
                             "temperature", 0, "seed", 123, "max_tokens", 16);
    char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
    json_decref(body);
    buf_finish(&question);
    json_t *reply = text ? judge_call(j, "/chat/completions", text, err) : NULL;
    if (!text) err_set(err, ERR_INVALID, "an answer to be judged is not valid UTF-8");
    free(text);
    if (!reply) return false;
    json_t *choice = json_array_get(json_object_get(reply, "choices"), 0);
    const char *content = json_string_value(json_object_get(json_object_get(choice, "message"), "content"));
    *score = content ? score_find(content) : NAN;
    json_decref(reply);
    return true;
}
