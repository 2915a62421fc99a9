// SPDX-License-Identifier: MIT
// POST /v1/fine_tuning/jobs and /estimate: the body's table, and from it settings without an "auto" in them. Nothing here reads the data:
// what depends on its rows is handed to the trainer as a share of the run. Pool thread.
#include "server/job_api.h"
#include "server/job_fields.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/sha256.h"
#include "base/utf8.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum {
    TEXT_CONTEXT = 1024,
    NEW_VOCABULARY = 1024,
    METADATA_PAIRS = 16,
    METADATA_KEY = 64,
    METADATA_VALUE = 512,
    KEY_MAX = 255
};

struct reading {
    struct http_request *r;
    struct viewer viewer;
    struct job_fields f;
    struct job_request *out;
    size_t n_ctx; // of the model; 0: not known
    bool quantised; // its file holds quantised weights, as far as the loaded model tells
};

static bool refuse(struct reading *q, const char *code, const char *param, const char *message) {
    return request_fail(q->r, 400, code, param, "%s", message);
}
static bool unsupported(struct reading *q, const char *param, const char *message) {
    return refuse(q, "unsupported_parameter", param, message);
}
static bool out_of_range(struct reading *q, const char *param, const char *message) {
    return refuse(q, "value_out_of_range", param, message);
}
static bool is_plain(struct text t) { return strlen(t.s) == t.len; } // no NUL inside
static bool is_text(struct text t, const char *s) { return t.s && strcmp(t.s, s) == 0; }
static bool is_given(int64_t v) { return v != FIELD_ABSENT; }
static size_t count_or(int64_t v, size_t otherwise) { return is_given(v) ? (size_t)v : otherwise; }
static double real_or(double v, double otherwise) { return isnan(v) ? otherwise : v; }

// ---- files ----

static bool read_file(struct reading *q, struct text id, const char *param, const char **file, const char **name) {
    struct stored_file f;
    struct err err = {0};
    if (!is_plain(id) || !store_file_get(q->r->server->store, &q->viewer, id.s, &q->r->arena, &f, &err)) {
        if (!is_plain(id) || err.code == ERR_NOT_FOUND)
            return request_fail(q->r, 404, "file_not_found", param, "'%s' names no file.", param);
        q->r->err = err;
        return false;
    }
    if (strcmp(f.purpose, "fine-tune") != 0)
        return request_fail(q->r, 400, "invalid_purpose", param, "'%s' must have been uploaded with purpose fine-tune.",
                            param);
    *file = f.id;
    *name = f.filename;
    return true;
}

static bool read_files(struct reading *q) {
    struct stored_job *j = &q->out->job;
    struct job_spec *s = &q->out->spec;
    if (!read_file(q, q->f.training_file, "training_file", &j->training_file, &s->training_name)) return false;
    return !q->f.validation_file.s ||
           read_file(q, q->f.validation_file, "validation_file", &j->validation_file, &s->validation_name);
}

// ---- the model ----

static const char *join(struct arena *a, const char *list, const char *item) {
    return list ? arena_printf(a, "%s,%s", list, item) : item;
}

// n_positions and vocab_size of a directory's config.json, where the model itself is not loaded.
static void read_config(struct reading *q, const char *dir, size_t *n_vocab) {
    json_t *config = json_load_file(arena_printf(&q->r->arena, "%s/config.json", dir), 0, NULL);
    const char *const names[] = {"n_positions", "n_ctx", "max_position_embeddings"};
    for (size_t i = 0; i < ARRAY_LEN(names) && !q->n_ctx; i++)
        q->n_ctx = (size_t)json_integer_value(json_object_get(config, names[i]));
    *n_vocab = (size_t)json_integer_value(json_object_get(config, "vocab_size"));
    json_decref(config);
}

static bool find_source(struct reading *q, struct text id, const char *param, struct model_source *out,
                        size_t *n_vocab) {
    struct registry *registry = q->r->server->registry;
    struct model_info info = {0};
    if (server_state(q->r->server) == SERVER_LOADING)
        return request_fail(q->r, 503, "model_loading", NULL,
                            "The models are still being loaded. Try again in a moment.");
    if (!is_plain(id) || registry_find(registry, &q->viewer, id.s, &info) == REGISTRY_UNKNOWN ||
        registry_source(registry, &q->viewer, id.s, &q->r->arena, out) == REGISTRY_UNKNOWN) {
        model_info_finish(&info);
        return request_fail(q->r, 404, "model_not_found", param,
                            "'%s' names no model that can be trained; the list of models names those that do.", param);
    }
    const bool live = info.origin == MODEL_LIVE;
    q->n_ctx = info.model ? model_config(info.model)->n_ctx : 0;
    q->quantised = info.model && q->r->server->config.weights == WEIGHTS_AUTO && model_weights_name(info.model)[0] == 'q';
    *n_vocab = info.model ? model_config(info.model)->n_vocab : 0;
    model_info_finish(&info);
    if (!q->n_ctx) read_config(q, out->base_path, n_vocab);
    return !live || request_fail(q->r, 400, "value_out_of_range", param,
                                 "'%s' must not be a running job's weights: take a checkpoint.", param);
}

// Rank, scale and layers are the adapter's own: its factors fit nothing else.
static bool go_on_from(struct reading *q, const char *dir) {
    struct job_spec *s = &q->out->spec;
    struct arena *a = &q->r->arena;
    json_t *config = json_load_file(arena_printf(a, "%s/adapter_config.json", dir), 0, NULL);
    const json_t *targets = json_object_get(config, "target_modules"), *r = json_object_get(config, "r");
    const char *modules = NULL;
    for (size_t i = 0; i < json_array_size(targets); i++) {
        const json_t *v = json_array_get(targets, i);
        if (json_is_string(v))
            modules = join(a, modules, arena_strndup(a, json_string_value(v), json_string_length(v)));
    }
    const int64_t rank = json_integer_value(r);
    const double alpha = json_number_value(json_object_get(config, "lora_alpha"));
    json_decref(config);
    if (rank < 1 || !(alpha > 0)) return out_of_range(q, "model", "The adapter's settings cannot be read.");
    if (is_given(q->f.lora_r) && q->f.lora_r != rank)
        return request_fail(q->r, 400, "value_out_of_range", "couplet.training_type.lora_r",
                            "The adapter that is trained on has rank %lld.", (long long)rank);
    if (q->f.lora_trainable_modules.n)
        return unsupported(q, "couplet.training_type.lora_trainable_modules",
                           "An adapter is trained on with its own layers.");
    s->lora_init = dir;
    s->lora_r = (size_t)rank;
    s->lora_alpha = real_or(q->f.lora_alpha, alpha);
    s->lora_modules = modules;
    return true;
}

static bool read_modules(struct reading *q) {
    struct texts list = q->f.lora_trainable_modules;
    if (list.n == 1 && is_text(list.items[0], "all-linear")) return true;
    for (size_t i = 0; i < list.n; i++) {
        struct text t = list.items[i];
        if (strspn(t.s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.") != t.len)
            return out_of_range(q, "couplet.training_type.lora_trainable_modules",
                                "Layers are named by letters, digits, _ and dots.");
        q->out->spec.lora_modules = join(&q->r->arena, q->out->spec.lora_modules, t.s);
    }
    return true;
}

static bool read_base(struct reading *q) {
    struct job_spec *s = &q->out->spec;
    const struct job_fields *f = &q->f;
    struct model_source source = {0}, start = {0};
    size_t n_vocab;
    if (!find_source(q, f->model, "model", &source, &n_vocab)) return false;
    if (f->preset.s || is_given(f->n_layer) || is_given(f->n_head) || is_given(f->n_embd) || is_given(f->n_ctx))
        return unsupported(q, "couplet.architecture", "'architecture' goes with the model \"new\".");
    if (f->tokenizer.s)
        return unsupported(q, "couplet.tokenizer", "'tokenizer' goes with the model \"new\": a model has its own.");
    start = source;
    if (f->from_checkpoint.s) {
        if (!find_source(q, f->from_checkpoint, "couplet.from_checkpoint", &start, &n_vocab)) return false;
        if (start.adapter_dir && strcmp(start.base_path, source.base_path) != 0)
            return out_of_range(q, "couplet.from_checkpoint", "The checkpoint is an adapter of another model.");
        s->from_checkpoint = f->from_checkpoint.s;
    }
    s->base_path = start.base_path;
    s->base_model = start.base_model;
    s->lora = !is_text(f->type, "full");
    if (q->quantised && !s->lora)
        return unsupported(q, "couplet.training_type.type", "The model's weights are quantised and cannot be moved: train it with type lora.");
    if (start.adapter_dir && !s->lora)
        return unsupported(q, "couplet.training_type.type", "An adapter can be trained on as an adapter only.");
    return start.adapter_dir ? go_on_from(q, start.adapter_dir) : read_modules(q);
}

static bool read_architecture(struct reading *q) {
    const struct job_fields *f = &q->f;
    struct job_spec *s = &q->out->spec;
    const int64_t sizes[] = {f->n_layer, f->n_head, f->n_embd, f->n_ctx};
    size_t n = 0;
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) n += is_given(sizes[i]);
    if (f->preset.s ? n > 0 : n < ARRAY_LEN(sizes))
        return refuse(q, n || f->preset.s ? "value_out_of_range" : "missing_required_parameter", "couplet.architecture",
                      "A new model needs 'architecture': a preset, or n_layer, n_head, n_embd and n_ctx.");
    s->architecture = f->preset.s;
    q->n_ctx = is_text(f->preset, "gpt2-nano") ? 256 : is_text(f->preset, "gpt2-mini") ? 512 : 1024;
    if (f->preset.s) return true;
    if (f->n_embd % f->n_head)
        return out_of_range(q, "couplet.architecture.n_embd", "'n_embd' must be a multiple of 'n_head'.");
    q->n_ctx = (size_t)f->n_ctx;
    s->architecture = arena_printf(&q->r->arena,
                                   "{\"model_type\":\"gpt2\",\"n_layer\":%lld,\"n_head\":%lld,\"n_embd\":%lld,\"n_"
                                   "positions\":%lld,\"n_ctx\":%lld,\"vocab_size\":%zu}",
                                   (long long)f->n_layer, (long long)f->n_head, (long long)f->n_embd,
                                   (long long)f->n_ctx, (long long)f->n_ctx, s->vocab_size);
    return true;
}

static bool has_architecture(const struct job_fields *f) {
    return f->preset.s || is_given(f->n_layer) || is_given(f->n_head) || is_given(f->n_embd) || is_given(f->n_ctx);
}

static bool read_new(struct reading *q) {
    const struct job_fields *f = &q->f;
    struct job_spec *s = &q->out->spec;
    struct model_source source = {0};
    if (is_text(f->type, "lora"))
        return unsupported(q, "couplet.training_type.type",
                           "A new model is trained as a whole: an adapter to random weights fits nothing.");
    if (f->from_checkpoint.s) return unsupported(q, "couplet.from_checkpoint", "A new model goes on from nothing.");
    if (!f->tokenizer.s)
        return refuse(q, "missing_required_parameter", "couplet.tokenizer",
                      "A new model needs 'tokenizer': a model's id, or \"train\".");
    if (is_text(f->tokenizer, "train")) {
        if (job_data_is_rows(s->training_name))
            return unsupported(q, "couplet.tokenizer", "A tokenizer is made from text, not from rows.");
        s->tokenizer = "train";
        s->vocab_size = count_or(f->vocab_size, NEW_VOCABULARY);
        if (!has_architecture(f)) { // the tokenizer alone
            q->out->job.kind = "tokenizer";
            return true;
        }
        return read_architecture(q);
    }
    if (is_given(f->vocab_size))
        return unsupported(q, "couplet.vocab_size", "'vocab_size' goes with the tokenizer \"train\".");
    if (!find_source(q, f->tokenizer, "couplet.tokenizer", &source, &s->vocab_size)) return false;
    if (!dir_exists(source.base_path))
        return unsupported(q, "couplet.tokenizer",
                           "That model is one file: a tokenizer is taken from models that are directories.");
    s->tokenizer = source.base_path;
    s->tokenizer_model = f->tokenizer.s;
    return read_architecture(q);
}

// ---- numbers ----

static bool check_data_kind(struct reading *q) {
    const struct job_fields *f = &q->f;
    const struct job_spec *s = &q->out->spec;
    if (job_data_is_rows(s->training_name))
        return !is_given(f->stride) || unsupported(q, "couplet.stride", "'stride' is for texts.");
    if (!job_data_is_text(s->training_name)) return true;
    if (f->packing) return unsupported(q, "couplet.packing", "'packing' is for rows: the windows of a text are full.");
    if (f->train_on_inputs)
        return unsupported(q, "couplet.train_on_inputs",
                           "'train_on_inputs' is for rows: a text is learned as a whole.");
    return !f->excess_length.s ||
           unsupported(q, "couplet.excess_length", "'excess_length' is for rows: a text is cut into windows.");
}

static bool read_lengths(struct reading *q) {
    struct job_spec *s = &q->out->spec;
    const bool text = job_data_is_text(s->training_name), known = text || job_data_is_rows(s->training_name);
    const size_t usual = !known ? 0 : text ? MIN(q->n_ctx, (size_t)TEXT_CONTEXT) : q->n_ctx;
    s->context_length = count_or(q->f.context_length, usual);
    if (q->n_ctx && s->context_length > q->n_ctx)
        return request_fail(q->r, 400, "value_out_of_range", "couplet.context_length",
                            "'context_length' is over the model's context of %zu.", q->n_ctx);
    s->stride = count_or(q->f.stride, text ? s->context_length : 0);
    return !s->context_length || s->stride <= s->context_length ||
           out_of_range(q, "couplet.stride", "'stride' must not be over the context_length: tokens would be skipped.");
}

static bool read_prompts(struct reading *q) {
    struct job_spec *s = &q->out->spec;
    struct texts list = q->f.sample_prompts;
    const char **prompts = arena_alloc(&q->r->arena, list.n + 1, sizeof *prompts);
    for (size_t i = 0; i < list.n; i++) {
        if (!is_plain(list.items[i])) return out_of_range(q, "couplet.sample_prompts", "A prompt must not hold a NUL.");
        prompts[i] = list.items[i].s;
    }
    s->sample_prompts = prompts;
    s->n_sample_prompts = list.n;
    return true;
}

static int64_t draw_seed(void) {
    uint32_t bits = 0;
    while (getrandom(&bits, sizeof bits, 0) != sizeof bits) {}
    return bits & 0x7fffffff;
}

static bool read_numbers(struct reading *q) {
    const struct job_fields *f = &q->f;
    struct job_spec *s = &q->out->spec;
    const bool held_out = f->validation_file.s || !isnan(f->validation_split);
    if (f->validation_file.s && !isnan(f->validation_split))
        return unsupported(q, "couplet.validation_split", "'validation_split' excludes 'validation_file'.");
    if (is_given(f->early_stopping) && !held_out)
        return unsupported(q, "couplet.early_stopping",
                           "'early_stopping' needs 'validation_file' or 'validation_split'.");
    if (!s->lora &&
        (is_given(f->lora_r) || !isnan(f->lora_alpha) || !isnan(f->lora_dropout) || f->lora_trainable_modules.n))
        return unsupported(q, "couplet.training_type", "The lora settings go with type \"lora\".");
    s->n_epochs = count_or(f->n_epochs, 3);
    s->batch_size = count_or(f->batch_size, 8);
    s->learning_rate_multiplier = real_or(f->learning_rate_multiplier, 1);
    s->learning_rate = real_or(f->learning_rate, s->learning_rate_multiplier * (s->lora ? 2e-4 : 5e-5));
    s->lr_scheduler = f->lr_scheduler.s ? f->lr_scheduler.s : "linear";
    s->warmup_ratio = f->warmup_ratio;
    s->weight_decay = f->weight_decay;
    s->max_grad_norm = f->max_grad_norm;
    s->dropout = f->dropout;
    s->packing = f->packing;
    s->train_on_inputs = f->train_on_inputs;
    s->excess_length = f->excess_length.s ? f->excess_length.s : "error";
    s->validation_split = real_or(f->validation_split, 0);
    s->early_stopping = count_or(f->early_stopping, 0);
    s->max_steps = count_or(f->max_steps, 0);
    s->n_evals = count_or(f->n_evals, s->n_epochs);
    s->n_checkpoints = count_or(f->n_checkpoints, s->n_evals);
    s->seed = (uint64_t)(is_given(f->seed) ? f->seed : draw_seed());
    if (s->lora && !s->lora_init) s->lora_r = count_or(f->lora_r, 8), s->lora_alpha = real_or(f->lora_alpha, 16);
    s->lora_dropout = real_or(f->lora_dropout, 0);
    return check_data_kind(q) && read_lengths(q) && read_prompts(q);
}

// ---- names ----

static bool read_metadata(struct reading *q) {
    json_t *m = (json_t *)(uintptr_t)q->f.metadata;
    q->out->job.metadata = "{}";
    if (!m) return true;
    if (!json_is_object(m)) return refuse(q, "invalid_type", "metadata", "'metadata' must be an object of strings.");
    if (json_object_size(m) > METADATA_PAIRS)
        return out_of_range(q, "metadata", "'metadata' may have at most 16 pairs.");
    for (void *at = json_object_iter(m); at; at = json_object_iter_next(m, at)) {
        const char *key = json_object_iter_key(at);
        const json_t *v = json_object_iter_value(at);
        if (!json_is_string(v))
            return refuse(q, "invalid_type", "metadata", "The values of 'metadata' must be strings.");
        if (strlen(json_string_value(v)) != json_string_length(v)) // SQLite compares up to it: a filter would find what it should not
            return out_of_range(q, "metadata", "The values of 'metadata' must not hold a NUL.");
        if (!*key || utf8_count(key, strlen(key)) > METADATA_KEY ||
            utf8_count(json_string_value(v), json_string_length(v)) > METADATA_VALUE)
            return out_of_range(q, "metadata", "Keys of 'metadata' have 1 to 64 characters, values at most 512.");
    }
    char *text = json_dumps(m, JSON_COMPACT);
    q->out->job.metadata = arena_strndup(&q->r->arena, text, strlen(text));
    free(text);
    return true;
}

static bool read_names(struct reading *q) {
    const struct job_fields *f = &q->f;
    const char *key = http_header(q->r, "idempotency-key");
    if (f->suffix.s &&
        strspn(f->suffix.s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") != f->suffix.len)
        return out_of_range(q, "suffix", "'suffix' may hold letters, digits, '-', '_' and '.'.");
    if (f->integrations && (!json_is_array(f->integrations) || json_array_size(f->integrations)))
        return unsupported(q, "integrations", "'integrations' is not supported.");
    if (key && (!*key || strlen(key) > KEY_MAX))
        return out_of_range(q, "Idempotency-Key", "An Idempotency-Key has 1 to 255 characters.");
    q->out->idempotency_key = key;
    return read_metadata(q);
}

// ---- whole ----

static void hash_body(const json_t *tree, char out[65]) {
    char *text = json_dumps(tree, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(17));
    sha256_hex(text, strlen(text), out);
    free(text);
}

// "a, couplet.b".
static const char *ignored_members(struct http_request *r, const json_t *tree) {
    const char *outer = fields_ignored(r, &job_table, tree);
    const char *inner = fields_ignored(r, &couplet_table, json_object_get(tree, "couplet"));
    for (const char *at = inner; at; at = strstr(at, ", ")) {
        if (*at == ',') at += 2;
        const char *name = arena_printf(&r->arena, "couplet.%.*s", (int)strcspn(at, ","), at);
        outer = outer ? arena_printf(&r->arena, "%s, %s", outer, name) : name;
    }
    return outer;
}

bool job_refused(struct http_request *r) {
    const struct err why = r->err;
    if (strcmp(why.param, "idempotency_key") == 0)
        return request_fail(r, 409, "idempotency_error", "Idempotency-Key",
                            "This Idempotency-Key came with another request before.");
    if (strcmp(why.param, "jobs") == 0)
        return request_fail(r, 429, "rate_limit_exceeded", NULL,
                            "This key has %zu jobs that have not ended, as many as it may have.",
                            r->server->config.jobs_max_queued);
    // A file may have been deleted since it was looked up.
    return why.code == ERR_NOT_FOUND && request_fail(r, 404, "file_not_found", why.param, "The file does not exist.");
}

// The job that this key made before, if any.
static bool read_again(struct reading *q) {
    struct http_request *r = q->r;
    struct job_request *out = q->out;
    if (!out->idempotency_key) return true;
    return store_job_by_key(r->server->store, r->key_id, out->idempotency_key, out->hash, &r->arena, &out->job, &out->again, &r->err) ||
           job_refused(r);
}

static bool read_tree(struct http_request *r, const json_t *tree, bool create, struct job_request *out) {
    struct reading q = {.r = r, .viewer = http_viewer(r), .out = out};
    struct buf spec = {0};
    if (!fields_read(r, &job_table, tree, &q.f)) return false;
    out->ignored = ignored_members(r, tree);
    hash_body(tree, out->hash);
    if (!read_names(&q) || (create && !read_again(&q))) return false;
    if (out->again) return true;
    out->job.kind = "fine_tune";
    if (!read_files(&q) || !(is_text(q.f.model, "new") ? read_new(&q) : read_base(&q)) ||
        !read_numbers(&q))
        return false;
    job_spec_write(&out->spec, &spec);
    out->job.spec = arena_strndup(&r->arena, spec.data, spec.len);
    buf_finish(&spec);
    out->job.owner = r->key_id;
    out->job.status = JOB_QUEUED;
    out->job.model = q.f.model.s;
    out->job.suffix = q.f.suffix.s;
    out->job.result_files = "[]";
    out->job.seed = (int64_t)out->spec.seed;
    out->job.total_steps = out->spec.max_steps;
    out->job.shared = q.f.shared;
    return true;
}

bool job_request_read(struct http_request *r, bool create, struct job_request *out) {
    json_t *tree = json_body_parse(r);
    if (!tree) return false;
    *out = (struct job_request){0};
    const bool ok = read_tree(r, tree, create, out);
    json_decref(tree);
    return ok;
}
