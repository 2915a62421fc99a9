// SPDX-License-Identifier: MIT
// OpenAI's fine-tuning objects as JSON, with a member "couplet" for what those have no words for. Thread: see job_api.h.
#include "server/job_api.h"

#include "base/mem.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <time.h>

void job_text_write(struct buf *out, const char *name, const char *value) {
    buf_printf(out, ",\"%s\":", name);
    if (value) buf_add_json_string(out, value, strlen(value));
    else buf_add_str(out, "null");
}
static void put_count(struct buf *out, const char *name, uint64_t value, bool known) {
    if (known) buf_printf(out, ",\"%s\":%" PRIu64, name, value);
    else buf_printf(out, ",\"%s\":null", name);
}
static void put_real(struct buf *out, const char *name, double value) {
    buf_printf(out, ",\"%s\":", name);
    buf_add_json_number(out, value);
}
static void put_flag(struct buf *out, const char *name, bool value) {
    buf_printf(out, ",\"%s\":%s", name, value ? "true" : "false");
}

// ---- when ----

// NaN: not known.
static double remaining_seconds(const struct stored_job *j) {
    return j->seconds_per_step > 0 && j->total_steps >= j->step ? (double)(j->total_steps - j->step) * j->seconds_per_step : NAN;
}

void job_outlook_init(struct job_outlook *o, struct store *store, struct arena *a) {
    static const struct viewer everybody = {"", true};
    static const struct page one = {.limit = 1};
    static const struct job_filter running = {.status = JOB_RUNNING};
    struct stored_job *jobs;
    size_t n = 0;
    bool more;
    struct err ignored;
    *o = (struct job_outlook){.store = store, .now_s = (int64_t)time(NULL)};
    if (!store_job_list(store, &everybody, &one, &running, a, &jobs, &n, &more, &ignored) || !n) return;
    o->remaining_s = remaining_seconds(jobs);
    o->whole_s = isfinite(o->remaining_s) ? (double)jobs->total_steps * jobs->seconds_per_step : NAN;
}

// The running job's rest, and for those between as long as it takes in all: what they really take nobody knows. 0: not known.
static int64_t expected_start(const struct job_outlook *o, size_t place) {
    const double wait = o->remaining_s + (place > 1 ? (double)(place - 1) * o->whole_s : 0);
    return isfinite(wait) && (place == 1 || o->whole_s > 0) ? o->now_s + (int64_t)ceil(wait) : 0;
}

static int64_t expected_finish(const struct job_outlook *o, const struct stored_job *j) {
    const double rest = j->status == JOB_RUNNING ? remaining_seconds(j) : NAN;
    return isfinite(rest) ? o->now_s + (int64_t)ceil(rest) : 0;
}

// ---- a job ----

static void write_hyperparameters(const struct job_spec *s, struct buf *out) {
    buf_printf(out, "\"hyperparameters\":{\"n_epochs\":%zu,\"batch_size\":%zu", s->n_epochs, s->batch_size);
    put_real(out, "learning_rate_multiplier", s->learning_rate_multiplier);
    buf_add_byte(out, '}');
}

// The names of a list that is written with commas.
static void write_modules(const char *list, struct buf *out) {
    if (!list) {
        buf_add_str(out, "\"all-linear\"");
        return;
    }
    for (const char *at = list; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
        buf_add_byte(out, at == list ? '[' : ',');
        buf_add_json_string(out, at, strcspn(at, ","));
    }
    buf_add_byte(out, ']');
}

static void write_settings(const struct job_spec *s, struct buf *out) {
    buf_printf(out, "\"training_type\":{\"type\":\"%s\"", s->lora ? "lora" : "full");
    if (s->lora) {
        put_count(out, "lora_r", s->lora_r, true);
        put_real(out, "lora_alpha", s->lora_alpha);
        put_real(out, "lora_dropout", s->lora_dropout);
        buf_add_str(out, ",\"lora_trainable_modules\":");
        write_modules(s->lora_modules, out);
    }
    buf_add_byte(out, '}');
    put_real(out, "learning_rate", s->learning_rate);
    job_text_write(out, "lr_scheduler", s->lr_scheduler);
    put_real(out, "warmup_ratio", s->warmup_ratio);
    put_real(out, "weight_decay", s->weight_decay);
    put_real(out, "max_grad_norm", s->max_grad_norm);
    put_count(out, "context_length", s->context_length, s->context_length);
    put_count(out, "stride", s->stride, s->stride);
    put_flag(out, "packing", s->packing);
    put_flag(out, "train_on_inputs", s->train_on_inputs);
    put_real(out, "dropout", s->dropout);
    put_count(out, "max_steps", s->max_steps, s->max_steps);
    put_count(out, "n_evals", s->n_evals, true);
    put_count(out, "n_checkpoints", s->n_checkpoints, true);
    put_real(out, "validation_split", s->validation_split > 0 ? s->validation_split : NAN);
    put_count(out, "early_stopping", s->early_stopping, s->early_stopping);
    job_text_write(out, "excess_length", s->excess_length);
    job_text_write(out, "from_checkpoint", s->from_checkpoint);
    buf_add_str(out, ",\"sample_prompts\":[");
    for (size_t i = 0; i < s->n_sample_prompts; i++) {
        if (i) buf_add_byte(out, ',');
        buf_add_json_string(out, s->sample_prompts[i], strlen(s->sample_prompts[i]));
    }
    buf_add_byte(out, ']');
    if (!s->tokenizer) return;
    if (s->architecture && s->architecture[0] == '{') buf_printf(out, ",\"architecture\":%s", s->architecture);
    else if (s->architecture) buf_printf(out, ",\"architecture\":{\"preset\":\"%s\"}", s->architecture);
    job_text_write(out, "tokenizer", s->tokenizer_model ? s->tokenizer_model : "train");
    put_count(out, "vocab_size", s->vocab_size, s->vocab_size);
}

static void write_progress(const struct job_outlook *o, const struct stored_job *j, struct buf *out) {
    const size_t place = j->status == JOB_QUEUED ? store_job_place(o->store, j->id) : 0;
    const int64_t start = place ? expected_start(o, place) : 0;
    put_count(out, "queue_place", place, place);
    put_count(out, "expected_start", (uint64_t)start, start);
    put_count(out, "started_at", (uint64_t)j->started_s, j->started_s);
    put_count(out, "step", j->step, true);
    put_count(out, "total_steps", j->total_steps, j->total_steps);
    put_real(out, "seconds_per_step", j->seconds_per_step > 0 ? j->seconds_per_step : NAN);
    put_count(out, "attempt", (uint64_t)j->attempt, true);
    job_text_write(out, "requested", j->wish == WISH_CANCEL ? "cancel" : j->wish == WISH_PAUSE ? "pause" : NULL);
    put_flag(out, "shared", j->shared);
}

static void write_error(const struct stored_job *j, struct buf *out) {
    if (!j->error_code) {
        buf_add_str(out, ",\"error\":null");
        return;
    }
    buf_add_str(out, ",\"error\":{\"code\":");
    buf_add_json_string(out, j->error_code, strlen(j->error_code));
    job_text_write(out, "message", j->error_message ? j->error_message : "");
    job_text_write(out, "param", j->error_param);
    buf_add_byte(out, '}');
}

bool job_write(const struct job_outlook *o, const struct stored_job *j, struct arena *a, struct buf *out,
               struct err *err) {
    struct job_spec s;
    if (!job_spec_read(j->spec, a, &s, err)) return false;
    const int64_t finish = expected_finish(o, j);
    buf_add_str(out, "{\"object\":\"fine_tuning.job\"");
    job_text_write(out, "id", j->id);
    put_count(out, "created_at", (uint64_t)j->created_s, true);
    write_error(j, out);
    job_text_write(out, "fine_tuned_model", j->status == JOB_SUCCEEDED ? j->fine_tuned_model : NULL);
    put_count(out, "finished_at", (uint64_t)j->finished_s, j->finished_s);
    buf_add_byte(out, ',');
    write_hyperparameters(&s, out);
    job_text_write(out, "model", j->model);
    buf_add_str(out, ",\"organization_id\":\"local\"");
    buf_printf(out, ",\"result_files\":%s", j->result_files ? j->result_files : "[]");
    job_text_write(out, "status", job_status_name(j->status));
    put_count(out, "trained_tokens", j->trained_tokens, job_status_final(j->status));
    job_text_write(out, "training_file", j->training_file);
    job_text_write(out, "validation_file", j->validation_file);
    buf_add_str(out, ",\"integrations\":[]");
    buf_printf(out, ",\"seed\":%" PRId64, j->seed);
    put_count(out, "estimated_finish", (uint64_t)finish, finish);
    buf_add_str(out, ",\"method\":{\"type\":\"supervised\",\"supervised\":{");
    write_hyperparameters(&s, out);
    buf_printf(out, "}},\"metadata\":%s", j->metadata && strcmp(j->metadata, "{}") != 0 ? j->metadata : "null");
    job_text_write(out, "user_provided_suffix", j->suffix);
    buf_add_str(out, ",\"couplet\":{");
    write_settings(&s, out);
    write_progress(o, j, out);
    buf_add_str(out, "}}");
    return true;
}

// ---- its parts ----

void job_event_write(const struct stored_event *e, struct buf *out) {
    buf_add_str(out, "{\"object\":\"fine_tuning.job.event\"");
    job_text_write(out, "id", e->id);
    put_count(out, "created_at", (uint64_t)e->created_s, true);
    job_text_write(out, "level", e->level);
    job_text_write(out, "message", e->message);
    job_text_write(out, "type", e->type);
    buf_printf(out, ",\"data\":%s}", e->data ? e->data : "null");
}

void job_checkpoint_write(const char *job_id, const struct stored_checkpoint *c, struct buf *out) {
    buf_add_str(out, "{\"object\":\"fine_tuning.job.checkpoint\"");
    job_text_write(out, "id", c->id);
    put_count(out, "created_at", (uint64_t)c->created_s, true);
    job_text_write(out, "fine_tuned_model_checkpoint", c->model);
    put_count(out, "step_number", c->step, true);
    job_text_write(out, "fine_tuning_job_id", job_id);
    buf_printf(out, ",\"metrics\":%s}", c->metrics ? c->metrics : "{}");
}
