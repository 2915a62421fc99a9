// SPDX-License-Identifier: MIT
// /v1/models: the list, one, DELETE of what jobs made, PUT of an alias. Reading happens on the loop (the registry never makes it wait); what changes
// store, registry and disk runs on the slow lane, one after the other.
#include "tokenizer/chat_template.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "server/request_model.h"
#include "server/routes.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

// ---- the object ----

static void write_text(const char *s, struct buf *out) {
    if (s) buf_add_json_string(out, s, strlen(s));
    else buf_add_str(out, "null");
}

static void write_meta(struct model *m, struct buf *out) {
    const struct model_config *c = model_config(m);
    const struct tokenizer *t = model_tokenizer(m);
    const struct chat_template *chat = t ? chat_template_recognise(tokenizer_chat_template(t)) : NULL;
    buf_printf(out,
               ",\"max_model_len\":%zu,\"meta\":{\"architecture\":\"%s\",\"vocab_type\":\"%s\",\"n_"
               "vocab\":%zu,\"n_ctx_train\":%zu,\"n_embd\":%zu,\"n_layer\":%zu,"
               "\"n_head\":%zu,\"n_params\":%llu,\"size\":%zu,\"format\":\"%s\",\"weights\":\"%s\",\"chat_template\":",
               c->n_ctx, c->arch == ARCH_GPT2 ? "gpt2" : "llama", t ? "bpe" : "none", c->n_vocab, c->n_ctx, c->n_embd,
               c->n_layer, c->n_head, (unsigned long long)model_parameters(m), model_bytes(m), model_format(m), model_weights_name(m));
    if (chat) buf_printf(out, "\"%s\"}", chat_template_name(chat));
    else buf_add_str(out, "null}");
}

static void write_model(const struct model_info *m, struct buf *out) {
    static const char *const origins[] = {[MODEL_SERVED] = "served", [MODEL_TUNED] = "result", [MODEL_CHECKPOINT] = "checkpoint", [MODEL_LIVE] = "live"};
    buf_add_str(out, "{\"id\":");
    write_text(m->id, out);
    buf_printf(out, ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"couplet\",\"root\":", (long long)m->created_s);
    write_text(m->alias_of ? m->alias_of : m->id, out);
    buf_add_str(out, ",\"parent\":");
    write_text(m->parent, out);
    if (m->alias_of) {
        buf_add_str(out, ",\"alias_of\":");
        write_text(m->alias_of, out);
    }
    if (m->model) write_meta(m->model, out);
    else buf_add_str(out, ",\"max_model_len\":null,\"meta\":null");
    buf_printf(out, ",\"couplet\":{\"origin\":\"%s\",\"adapter\":%s,\"shared\":%s,\"loaded\":%s,\"bytes\":%llu,\"job\":", origins[m->origin],
               m->adapter ? "true" : "false", m->shared ? "true" : "false", m->cold ? "false" : "true", (unsigned long long)m->bytes);
    write_text(m->job, out);
    buf_add_str(out, "}}");
}

// ---- reading ----

static void list_start(struct http_request *r) {
    if (!request_models_ready(r)) {
        http_reply_error(r);
        return;
    }
    const struct viewer viewer = http_viewer(r);
    struct model_info *models;
    size_t n;
    registry_list(r->server->registry, &viewer, &models, &n);
    struct buf reply = {0};
    buf_add_str(&reply, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; i < n; i++) {
        if (i) buf_add_byte(&reply, ',');
        write_model(&models[i], &reply);
        model_info_finish(&models[i]);
    }
    free(models);
    buf_add_str(&reply, "]}");
    http_reply_json(r, 200, &reply);
}

// The model or alias that the path names; false: r->err.
static bool find_named(struct http_request *r, struct model_info *out) {
    const struct viewer viewer = http_viewer(r);
    if (r->tail[0] && registry_find(r->server->registry, &viewer, r->tail, out) != REGISTRY_UNKNOWN) return true;
    return request_fail(r, 404, "model_not_found", "model", "The model does not exist.");
}

static void one_start(struct http_request *r) {
    struct model_info m = {0};
    if (!request_models_ready(r) || !find_named(r, &m)) {
        http_reply_error(r);
        return;
    }
    struct buf reply = {0};
    write_model(&m, &reply);
    model_info_finish(&m);
    http_reply_json(r, 200, &reply);
}

// ---- DELETE ----

static bool refuse(struct http_request *r, const char *code, const char *message) {
    return request_fail(r, 409, code, "model", "%s", message);
}

// Its own key's, or an admin's.
static bool is_owner(struct http_request *r, const struct model_info *m) {
    const struct viewer viewer = http_viewer(r);
    return viewer.all || (m->owner && strcmp(m->owner, viewer.key) == 0);
}

// Do adapters stand on this whole model's files?
static bool has_adapters(struct http_request *r, const char *id) {
    struct model_info *models;
    size_t n;
    bool found = false;
    registry_list(r->server->registry, &(struct viewer){.key = "", .all = true}, &models, &n);
    for (size_t i = 0; i < n; i++) {
        found |= models[i].adapter && !models[i].alias_of && models[i].parent && strcmp(models[i].parent, id) == 0;
        model_info_finish(&models[i]);
    }
    free(models);
    return found;
}

static bool delete_check(struct http_request *r, const struct model_info *m) {
    if (m->origin == MODEL_SERVED && !m->alias_of)
        return refuse(r, "model_is_served", "The model is served by the command line and can only be removed there.");
    if (!is_owner(r, m)) return request_fail(r, 403, "forbidden", "model", "Only the key that made the model may do this.");
    if (m->alias_of) return true;
    if (m->origin == MODEL_LIVE) return refuse(r, "model_in_use", "These are the weights of a job that has not ended.");
    return !has_adapters(r, m->id) || refuse(r, "model_in_use", "Other models are adapters of this one.");
}

// The row first: what is left of the directory after a crash is nobody's.
static bool delete_model(struct http_request *r, const struct model_info *m) {
    const struct viewer all = {.key = "", .all = true};
    struct server *s = r->server;
    struct model_source source;
    if (registry_source(s->registry, &all, m->id, &r->arena, &source) == REGISTRY_UNKNOWN) return true;
    if (!store_model_remove(s->store, m->id, &r->err))
        return r->err.code == ERR_BUSY && refuse(r, "model_in_use", "A job that has not ended begins with this model.");
    registry_remove(s->registry, m->id);
    struct err err = {0};
    if (!dir_remove(source.adapter_dir ? source.adapter_dir : source.base_path, &err))
        log_line(LOG_WARN, "model's directory not removed", "id", m->id, "message", err.message, NULL);
    return true;
}

static bool delete_work(struct http_request *r) { // slow lane
    struct model_info m = {0};
    if (!find_named(r, &m)) return false;
    bool ok = delete_check(r, &m);
    if (ok && m.alias_of) {
        ok = store_alias_remove(r->server->store, m.id, &r->err);
        if (ok) registry_remove(r->server->registry, m.id);
    } else if (ok) {
        ok = delete_model(r, &m);
    }
    model_info_finish(&m);
    return ok;
}

static void delete_then(struct http_request *r) {
    struct buf reply = {0};
    buf_add_str(&reply, "{\"id\":");
    write_text(r->tail, &reply);
    buf_add_str(&reply, ",\"object\":\"model\",\"deleted\":true}");
    http_reply_json(r, 200, &reply);
}

static void delete_start(struct http_request *r) {
    if (request_models_ready(r)) http_slow_work(r, delete_work, delete_then);
    else http_reply_error(r);
}

// ---- PUT: an alias ----

struct alias_fields {
    struct text model;
    bool shared;
};

#define ROW(...) FIELD_ROW(struct alias_fields, __VA_ARGS__)
static const struct field alias_fields[] = {
    ROW(model, FIELD_STRING, .min = 1, .max = 1024, .required = true, .doc = "The model that the alias stands for from now on."),
    ROW(shared, FIELD_BOOLEAN, .default_text = "false", .doc = "Other keys that may see the model see the alias too."),
};
const struct field_table alias_table = {"ModelAliasRequest", alias_fields, ARRAY_LEN(alias_fields), NULL};

static bool put_work(struct http_request *r) { // pool
    if (!request_models_ready(r)) return false;
    json_t *tree = json_body_parse(r);
    if (!tree) return false;
    struct alias_fields *f = arena_alloc(&r->arena, 1, sizeof *f);
    r->state = f;
    const bool ok = fields_read(r, &alias_table, tree, f);
    json_decref(tree);
    return ok;
}

// old: what the name stood for; its id is NULL where it is new.
static bool put_checked(struct http_request *r, const struct model_info *target, const struct model_info *old) {
    const struct alias_fields *f = r->state;
    struct server *s = r->server;
    const struct stored_alias alias = {.alias = r->tail, .model = target->alias_of ? target->alias_of : target->id,
                                       .owner = old->id ? old->owner : r->key_id, .shared = f->shared, .created_s = (int64_t)time(NULL)};
    const struct stored_alias before = {.alias = old->id, .model = old->alias_of, .owner = old->owner, .shared = old->shared, .created_s = old->created_s};
    struct err err = {0};
    if (!registry_alias(s->registry, &alias, &err))
        return err.code == ERR_NOT_FOUND ? request_fail(r, 404, "model_not_found", "model", "The model does not exist.")
                                         : refuse(r, "name_taken", "The name is another model's, or no name.");
    if (store_alias_put(s->store, &alias, &r->err)) return true;
    if (!old->id || !registry_alias(s->registry, &before, NULL)) registry_remove(s->registry, alias.alias);
    return false;
}

static bool put_slow(struct http_request *r) { // slow lane
    const struct alias_fields *f = r->state;
    const struct viewer viewer = http_viewer(r);
    struct model_info old = {0}, target = {0};
    const bool known = registry_find(r->server->registry, &viewer, r->tail, &old) != REGISTRY_UNKNOWN;
    bool ok = true;
    if (known && (!old.alias_of || !is_owner(r, &old))) ok = refuse(r, "name_taken", "The name is another model's.");
    if (ok && (strlen(f->model.s) != f->model.len || registry_find(r->server->registry, &viewer, f->model.s, &target) == REGISTRY_UNKNOWN))
        ok = request_fail(r, 404, "model_not_found", "model", "The model does not exist.");
    ok = ok && put_checked(r, &target, &old);
    model_info_finish(&old);
    model_info_finish(&target);
    return ok;
}

static void put_start(struct http_request *r) { http_slow_work(r, put_slow, one_start); }

const struct http_route model_routes[] = {
    {"GET", "/v1/models", SCOPE_INFER, NULL, list_start, NULL, "The served models"},
    {"GET", "/v1/models/*", SCOPE_INFER, NULL, one_start, NULL, "One served model"},
    {"DELETE", "/v1/models/*", SCOPE_TRAIN, NULL, delete_start, NULL, "Remove a model that a job made, or an alias"},
    {"PUT", "/v1/models/*", SCOPE_TRAIN, put_work, put_start, NULL, "Make an alias, or point it at another model"},
    {0},
};
