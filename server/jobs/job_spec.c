// SPDX-License-Identifier: MIT
// See job_spec.h. One table says how a member is called in the store's JSON; the lists of arguments follow the options of cmd_train.c,
// cmd_tokenizer_train.c and cmd_eval.c. Thread: any.
#include "server/jobs/job_spec.h"

#include "base/buf.h"
#include "base/mem.h"

#include <assert.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum key_kind { KEY_TEXT, KEY_SIZE, KEY_REAL, KEY_FLAG };
_Static_assert(_Generic((uint64_t)0, size_t: true, default: false), "KEY_SIZE reads both");

// clang-format off
#define KEY(member, kind) {#member, kind, offsetof(struct job_spec, member)}
static const struct key {
    const char *name;
    enum key_kind kind;
    size_t offset;
} keys[] = {
    KEY(base_path, KEY_TEXT),         KEY(base_model, KEY_TEXT),      KEY(lora_init, KEY_TEXT),
    KEY(architecture, KEY_TEXT),      KEY(tokenizer, KEY_TEXT),       KEY(vocab_size, KEY_SIZE),
    KEY(lora, KEY_FLAG),              KEY(training_name, KEY_TEXT),   KEY(validation_name, KEY_TEXT),
    KEY(n_epochs, KEY_SIZE),          KEY(batch_size, KEY_SIZE),      KEY(lora_r, KEY_SIZE),
    KEY(context_length, KEY_SIZE),    KEY(stride, KEY_SIZE),          KEY(n_evals, KEY_SIZE),
    KEY(n_checkpoints, KEY_SIZE),     KEY(early_stopping, KEY_SIZE),  KEY(max_steps, KEY_SIZE),
    KEY(learning_rate, KEY_REAL),     KEY(warmup_ratio, KEY_REAL),    KEY(learning_rate_multiplier, KEY_REAL),
    KEY(weight_decay, KEY_REAL),      KEY(max_grad_norm, KEY_REAL),   KEY(lora_alpha, KEY_REAL),
    KEY(lora_dropout, KEY_REAL),      KEY(dropout, KEY_REAL),         KEY(validation_split, KEY_REAL),
    KEY(lr_scheduler, KEY_TEXT),      KEY(lora_modules, KEY_TEXT),    KEY(excess_length, KEY_TEXT),
    KEY(packing, KEY_FLAG),           KEY(train_on_inputs, KEY_FLAG), KEY(seed, KEY_SIZE),
    KEY(from_checkpoint, KEY_TEXT),   KEY(tokenizer_model, KEY_TEXT),
};
// clang-format on

// ---- the store's JSON ----

static json_t *key_value(const struct key *k, const struct job_spec *s) {
    const void *at = (const char *)s + k->offset;
    switch (k->kind) {
    case KEY_TEXT: return *(const char *const *)at ? json_string(*(const char *const *)at) : json_null();
    case KEY_SIZE: return json_integer((json_int_t) * (const size_t *)at);
    case KEY_REAL: return json_real(*(const double *)at);
    case KEY_FLAG: return json_boolean(*(const bool *)at);
    }
    return NULL;
}

void job_spec_write(const struct job_spec *s, struct buf *out) {
    json_t *o = json_object(), *prompts = json_array();
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) json_object_set_new(o, keys[i].name, key_value(&keys[i], s));
    for (size_t i = 0; i < s->n_sample_prompts; i++) json_array_append_new(prompts, json_string(s->sample_prompts[i]));
    json_object_set_new(o, "sample_prompts", prompts);
    char *text = json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(17));
    assert(text); // the texts are valid UTF-8, the numbers finite: the request was checked
    buf_add_str(out, text);
    free(text);
    json_decref(o);
}

static char *text_in(struct arena *a, const json_t *v) {
    return arena_strndup(a, json_string_value(v), json_string_length(v));
}

// An absent member is zero: settings may be added later.
static bool key_read(const struct key *k, const json_t *v, struct arena *a, struct job_spec *s) {
    void *at = (char *)s + k->offset;
    if (!v || json_is_null(v)) return true;
    switch (k->kind) {
    case KEY_TEXT:
        if (!json_is_string(v)) return false;
        *(const char **)at = text_in(a, v);
        return true;
    case KEY_SIZE:
        if (!json_is_integer(v) || json_integer_value(v) < 0) return false;
        *(size_t *)at = (size_t)json_integer_value(v);
        return true;
    case KEY_REAL:
        if (!json_is_number(v)) return false;
        *(double *)at = json_number_value(v);
        return true;
    case KEY_FLAG:
        if (!json_is_boolean(v)) return false;
        *(bool *)at = json_is_true(v);
        return true;
    }
    return false;
}

static bool prompts_read(const json_t *list, struct arena *a, struct job_spec *s) {
    s->n_sample_prompts = json_array_size(list); // 0 where it is none
    const char **texts = arena_alloc(a, s->n_sample_prompts + 1, sizeof *texts);
    for (size_t i = 0; i < s->n_sample_prompts; i++) {
        const json_t *v = json_array_get(list, i);
        if (!json_is_string(v)) return false;
        texts[i] = text_in(a, v);
    }
    s->sample_prompts = texts;
    return true;
}

bool job_spec_read(const char *json, struct arena *a, struct job_spec *out, struct err *err) {
    json_t *o = json_loads(json, 0, NULL);
    struct job_spec s = {0};
    bool ok = json_is_object(o) && prompts_read(json_object_get(o, "sample_prompts"), a, &s);
    for (size_t i = 0; ok && i < ARRAY_LEN(keys); i++) ok = key_read(&keys[i], json_object_get(o, keys[i].name), a, &s);
    json_decref(o);
    if (!ok) return err_set(err, ERR_CORRUPT, "a job's settings in the store are damaged");
    *out = s;
    return true;
}

// ---- arguments ----

enum { ARGUMENTS_MAX = 128 };
struct arguments {
    const char **items; // [ARGUMENTS_MAX], in the arena
    size_t n;
    struct arena *arena;
};

static struct arguments arguments_begin(struct arena *a) {
    return (struct arguments){.items = arena_alloc(a, ARGUMENTS_MAX, sizeof(char *)), .arena = a};
}
static void add(struct arguments *l, const char *text) {
    assert(l->n < ARGUMENTS_MAX - 1);
    l->items[l->n++] = text;
}
// As one argument: a value may begin with a dash.
static void add_text(struct arguments *l, const char *name, const char *value) {
    if (value) add(l, arena_printf(l->arena, "%s=%s", name, value));
}
static void add_count(struct arguments *l, const char *name, uint64_t n) {
    if (n) add(l, arena_printf(l->arena, "%s=%" PRIu64, name, n));
}
static void add_real(struct arguments *l, const char *name, double v) {
    add(l, arena_printf(l->arena, "%s=%.17g", name, v));
}
static void add_path(struct arguments *l, const char *name, const char *dir, const char *file) {
    add(l, arena_printf(l->arena, "%s=%s/%s", name, dir, file));
}

static bool ends_as(const char *name, const char *a, const char *b) {
    const char *dot = name ? strrchr(name, '.') : NULL;
    return dot && (strcasecmp(dot, a) == 0 || strcasecmp(dot, b) == 0);
}
bool job_data_is_text(const char *name) { return ends_as(name, ".txt", ".md"); }
bool job_data_is_rows(const char *name) { return ends_as(name, ".jsonl", ".json"); }

static void add_data(struct arguments *l, const struct stored_job *j, const struct job_spec *s, const char *files_dir) {
    add_path(l, "--data", files_dir, j->training_file);
    add_text(l, "--data-name", s->training_name);
    if (j->validation_file) {
        add_path(l, "--validation", files_dir, j->validation_file);
        add_text(l, "--validation-name", s->validation_name);
    } else if (s->validation_split > 0) {
        add_real(l, "--validation-split", s->validation_split);
    }
    if (!job_data_is_rows(s->training_name)) add_count(l, "--stride", s->stride);
    if (job_data_is_text(s->training_name)) return;
    add_text(l, "--train-on-inputs", s->train_on_inputs ? "on" : "off");
    add_text(l, "--packing", s->packing ? "on" : "off");
    add_text(l, "--excess-length", s->excess_length);
}

static void add_model(struct arguments *l, const struct job_spec *s, const char *job_dir) {
    if (s->base_path) {
        add_text(l, "--model", s->base_path);
    } else {
        if (s->architecture[0] == '{') add_path(l, "--init", job_dir, "config.json");
        else add_text(l, "--init", s->architecture);
        if (strcmp(s->tokenizer, "train") == 0) add_path(l, "--tokenizer", job_dir, "tokenizer");
        else add_text(l, "--tokenizer", s->tokenizer);
    }
    add_text(l, "--method", s->lora ? "lora" : "full");
    if (!s->lora) return;
    add_count(l, "--lora-rank", s->lora_r);
    add_real(l, "--lora-alpha", s->lora_alpha);
    add_real(l, "--lora-dropout", s->lora_dropout);
    add_text(l, "--lora-targets", s->lora_modules);
    if (s->lora_init) add_path(l, "--lora-init", s->lora_init, "adapter_model.safetensors");
}

// What decides the run's numbers.
static struct arguments train_arguments(const struct stored_job *j, const struct job_spec *s, const char *job_dir,
                                        const char *files_dir, size_t threads, struct arena *a) {
    struct arguments l = arguments_begin(a);
    add(&l, "train");
    add_model(&l, s, job_dir);
    add_data(&l, j, s, files_dir);
    if (s->max_steps) add_count(&l, "--steps", s->max_steps);
    else add_count(&l, "--epochs", s->n_epochs);
    add_count(&l, "--batch-size", s->batch_size);
    add_count(&l, "--context", s->context_length);
    add_real(&l, "--lr", s->learning_rate);
    add_text(&l, "--schedule", s->lr_scheduler);
    add_real(&l, "--warmup-ratio", s->warmup_ratio);
    add_real(&l, "--weight-decay", s->weight_decay);
    add_real(&l, "--clip", s->max_grad_norm);
    add_real(&l, "--dropout", s->dropout);
    add(&l, arena_printf(a, "--seed=%" PRIu64, s->seed));
    add_count(&l, "--evals", s->n_evals);
    add_count(&l, "--checkpoints", s->n_checkpoints);
    add_count(&l, "--early-stopping", s->early_stopping);
    for (size_t i = 0; i < s->n_sample_prompts; i++) add_text(&l, "--sample-prompt", s->sample_prompts[i]);
    add_count(&l, "--threads", threads);
    return l;
}

const char *const *job_train_arguments(const struct stored_job *j, const struct job_spec *s, const char *job_dir,
                                       const char *files_dir, size_t threads, struct arena *a) {
    struct arguments l = train_arguments(j, s, job_dir, files_dir, threads, a);
    add_path(&l, "--out", job_dir, "out");
    add(&l, "--resume");
    add(&l, "--supervised");
    add(&l, "--json");
    add(&l, "--snapshots");
    if (s->lora) add(&l, "--live-every=10");
    return l.items;
}

const char *const *job_estimate_arguments(const struct stored_job *j, const struct job_spec *s, const char *job_dir,
                                          const char *files_dir, size_t threads, struct arena *a) {
    struct arguments l = train_arguments(j, s, job_dir, files_dir, threads, a);
    add(&l, "--estimate");
    add(&l, "--supervised");
    add(&l, "--json");
    return l.items;
}

const char *const *job_tokenizer_arguments(const struct stored_job *j, const struct job_spec *s, const char *job_dir,
                                           const char *files_dir, struct arena *a) {
    if (!s->tokenizer || strcmp(s->tokenizer, "train") != 0) return NULL;
    struct arguments l = arguments_begin(a);
    add(&l, "tokenizer");
    add(&l, "train");
    add_count(&l, "--vocab-size", s->vocab_size);
    add_path(&l, "--out", job_dir, "tokenizer");
    add(&l, arena_printf(a, "%s/%s", files_dir, j->training_file));
    return l.items;
}

const char *const *job_eval_arguments(const struct stored_job *j, const struct job_spec *s, const char *model, const char *job_dir,
                                      const char *files_dir, struct arena *a) {
    const char *name = j->validation_file ? s->validation_name : s->training_name;
    if (job_data_is_text(name)) return NULL;
    struct arguments l = arguments_begin(a);
    add(&l, "eval");
    if (s->lora) {
        add_text(&l, "--model", s->base_path);
        add_path(&l, "--adapter", job_dir, "out");
    } else {
        add_path(&l, "--model", job_dir, "out");
        add_text(&l, "--base", s->base_path);
    }
    add_path(&l, "--data", files_dir, j->validation_file ? j->validation_file : j->training_file);
    add_text(&l, "--model-name", model);
    add_text(&l, "--base-name", s->base_model ? s->base_model : j->model);
    add_path(&l, "--cards", job_dir, "results.json"); // before the page, whose being there says that both are
    add_path(&l, "--html", job_dir, "results.html");
    if (!j->validation_file && s->validation_split > 0) { // what was not trained on
        add_real(&l, "--validation-split", s->validation_split);
        add(&l, arena_printf(a, "--seed=%" PRIu64, s->seed));
    }
    add_count(&l, "--context", s->context_length);
    add_text(&l, "--excess-length", s->excess_length);
    add(&l, "--metrics=exact_match,token_f1,rouge_l"); // the losses are the run's own already
    add_count(&l, "--limit", RESULTS_ANSWERS);
    add_count(&l, "--max-tokens", RESULTS_ANSWER_TOKENS);
    return l.items;
}
