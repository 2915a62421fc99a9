// SPDX-License-Identifier: MIT
// GET /v1/models and /v1/models/{id}. Loop thread.
#include "tokenizer/chat_template.h"
#include "server/json_body.h"
#include "server/routes.h"
#include "server/server.h"

#include <string.h>

static void write_model(const struct registry_entry *e, struct buf *out) {
    const struct model_config *c = model_config(e->model);
    const struct tokenizer *t = model_tokenizer(e->model);
    const struct chat_template *chat = t ? chat_template_recognise(tokenizer_chat_template(t)) : NULL;
    size_t id_len = strlen(e->id);
    buf_add_str(out, "{\"id\":");
    buf_add_json_string(out, e->id, id_len);
    buf_printf(out,
               ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"couplet\",\"root\":", (long long)e->created_s);
    buf_add_json_string(out, e->id, id_len);
    buf_printf(out,
               ",\"parent\":null,\"max_model_len\":%zu,\"meta\":{\"architecture\":\"%s\",\"vocab_type\":\"%s\",\"n_"
               "vocab\":%zu,\"n_ctx_train\":%zu,\"n_embd\":%zu,\"n_layer\":%zu,"
               "\"n_head\":%zu,\"n_params\":%llu,\"size\":%zu,\"format\":\"%s\",\"weights\":\"%s\",\"chat_template\":",
               c->n_ctx, c->arch == ARCH_GPT2 ? "gpt2" : "llama", t ? "bpe" : "none", c->n_vocab, c->n_ctx, c->n_embd,
               c->n_layer, c->n_head, (unsigned long long)model_parameters(e->model), model_bytes(e->model),
               model_format(e->model), model_weights_name(e->model));
    if (chat) buf_printf(out, "\"%s\"}}", chat_template_name(chat));
    else buf_add_str(out, "null}}");
}

static bool loading(struct http_request *r) {
    if (server_state(r->server) != SERVER_LOADING) return false;
    request_fail(r, 503, "model_loading", NULL, "The models are still being loaded. Try again in a moment.");
    http_reply_error(r);
    return true;
}

static void list_start(struct http_request *r) {
    if (loading(r)) return;
    const struct registry *models = &r->server->registry;
    struct buf reply = {0};
    buf_add_str(&reply, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; i < models->n; i++) {
        if (i) buf_add_byte(&reply, ',');
        write_model(&models->entries[i], &reply);
    }
    buf_add_str(&reply, "]}");
    http_reply_json(r, 200, &reply);
}

static void one_start(struct http_request *r) {
    if (loading(r)) return;
    const struct registry_entry *e = r->tail[0] ? registry_find(&r->server->registry, r->tail) : NULL;
    if (!e) {
        request_fail(r, 404, "model_not_found", "model", "The model does not exist.");
        http_reply_error(r);
        return;
    }
    struct buf reply = {0};
    write_model(e, &reply);
    http_reply_json(r, 200, &reply);
}

const struct http_route model_routes[] = {
    {"GET", "/v1/models", SCOPE_INFER, NULL, list_start, NULL, "The served models"},
    {"GET", "/v1/models/*", SCOPE_INFER, NULL, one_start, NULL, "One served model"},
    {0},
};
