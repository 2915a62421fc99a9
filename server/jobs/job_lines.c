// SPDX-License-Identifier: MIT
// See job_lines.h.
#include "server/jobs/job_lines.h"

#include "base/json.h"
#include "base/map.h"
#include "base/mem.h"

#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned long long llu;

void line_splitter_feed(struct line_splitter *s, const char *bytes, size_t n, line_fn *fn, void *ctx) {
    while (n) {
        const char *end = memchr(bytes, '\n', n);
        const size_t len = end ? (size_t)(end - bytes) : n;
        if (s->line.len + len > JOB_LINE_BYTES) s->skipping = true;
        if (!s->skipping) buf_add(&s->line, bytes, len);
        if (end && !s->skipping) fn(ctx, buf_str(&s->line), s->line.len);
        if (end || s->skipping) buf_clear(&s->line);
        if (end) s->skipping = false;
        bytes += len + (end != NULL);
        n -= len + (end != NULL);
    }
}

// ---- reading ----

struct fields { // of one line; numbers NaN and texts empty where it has none
    double step, total_steps, epoch, train_loss, train_accuracy, learning_rate, grad_norm, tokens, seconds, tokens_per_second;
    double valid_loss, token_accuracy, perplexity, bits_per_byte;
    struct buf event, prompt, text, code, message, reason;
    bool stopped; // a checkpoint that was only made because the run was to stop: nobody asked for a model there
};

static const struct {
    const char *name;
    size_t offset;
} numbers[] = {
#define NUMBER(f) {#f, offsetof(struct fields, f)}
    NUMBER(step), NUMBER(total_steps), NUMBER(epoch), NUMBER(train_loss), NUMBER(train_accuracy), NUMBER(learning_rate), NUMBER(grad_norm), NUMBER(tokens),
    NUMBER(seconds), NUMBER(tokens_per_second), NUMBER(valid_loss), NUMBER(token_accuracy), NUMBER(perplexity), NUMBER(bits_per_byte),
}, texts[] = {
    NUMBER(event), NUMBER(prompt), NUMBER(text), NUMBER(code), NUMBER(message), NUMBER(reason),
};

static bool field_read(struct fields *f, struct json *j, const struct buf *key, struct err *err) {
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
        if (buf_is(key, numbers[i].name))
            return json_peek(j) == JSON_NUMBER ? json_read_double(j, (double *)(void *)((char *)f + numbers[i].offset), err) : json_skip(j, err);
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        if (buf_is(key, texts[i].name))
            return json_peek(j) == JSON_STRING ? json_read_string(j, (struct buf *)(void *)((char *)f + texts[i].offset), err) : json_skip(j, err);
    return buf_is(key, "stopped") && json_peek(j) == JSON_BOOL ? json_read_bool(j, &f->stopped, err) : json_skip(j, err);
}

static bool fields_read(struct fields *f, const char *line, size_t n) {
    struct json j;
    struct buf key = {0};
    struct err err = {0};
    *f = (struct fields){0};
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) *(double *)(void *)((char *)f + numbers[i].offset) = NAN;
    json_init(&j, line, n);
    bool ok = json_open(&j, '{', &err);
    while (ok && json_next_key(&j, &key, &err)) ok = field_read(f, &j, &key, &err);
    ok = ok && !j.failed && json_finish(&j, &err);
    buf_finish(&key);
    return ok;
}

static void fields_finish(struct fields *f) {
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) buf_finish((struct buf *)(void *)((char *)f + texts[i].offset));
}

static uint64_t count_of(double v) { return v >= 0 && v < 9007199254740992.0 ? (uint64_t)v : 0; }

// ---- events ----

static void event_add(struct job_lines *l, struct stored_event e) {
    mem_grow(&l->events, &l->cap_events, l->n_events + 1);
    l->events[l->n_events++] = e;
}

static const char *keep(struct job_lines *l, struct buf *b) {
    const char *s = arena_strndup(&l->arena, buf_str(b), b->len);
    buf_finish(b);
    return s;
}

void job_lines_say(struct job_lines *l, const char *once, const char *level, const char *kind, const char *message, ...) {
    char text[500];
    va_list args;
    va_start(args, message);
    vsnprintf(text, sizeof text, message, args);
    va_end(args);
    event_add(l, (struct stored_event){
                     .once = once ? arena_strndup(&l->arena, once, strlen(once)) : NULL,
                     .level = level,
                     .type = "message",
                     .message = arena_strndup(&l->arena, text, strlen(text)),
                     .data = arena_printf(&l->arena, "{\"kind\":\"%s\",\"step\":%llu,\"total_steps\":%llu}", kind, (llu)l->step, (llu)l->total_steps),
                 });
}

static void put(struct buf *b, const char *name, double v) {
    if (!isfinite(v)) return;
    buf_printf(b, "%s\"%s\":", b->len > 1 ? "," : "", name);
    buf_add_json_number(b, v);
}

static void read_step(struct job_lines *l, const struct fields *f) {
    const uint64_t epochs = count_of(floor(f->epoch + 1e-9));
    struct buf data = {0};
    l->step = count_of(f->step);
    l->tokens = isfinite(f->tokens) ? count_of(f->tokens) : l->tokens;
    l->train_loss = f->train_loss;
    l->train_accuracy = f->train_accuracy;
    if (f->seconds > 0) l->seconds_per_step = l->seconds_per_step > 0 ? 0.9 * l->seconds_per_step + 0.1 * f->seconds : f->seconds;
    buf_add_byte(&data, '{');
    put(&data, "step", f->step);
    put(&data, "total_steps", l->total_steps ? (double)l->total_steps : NAN);
    put(&data, "epoch", f->epoch);
    put(&data, "train_loss", f->train_loss);
    put(&data, "train_mean_token_accuracy", f->train_accuracy);
    put(&data, "learning_rate", f->learning_rate);
    put(&data, "grad_norm", f->grad_norm);
    put(&data, "tokens", f->tokens);
    put(&data, "tokens_per_second", f->tokens_per_second);
    buf_add_byte(&data, '}');
    event_add(l, (struct stored_event){
                     .once = arena_printf(&l->arena, "step-%llu", (llu)l->step),
                     .level = "info",
                     .type = "metrics",
                     .message = arena_printf(&l->arena, "Step %llu/%llu: training loss=%.4g", (llu)l->step, (llu)l->total_steps, f->train_loss),
                     .data = keep(l, &data),
                 });
    if (epochs > l->epochs) job_lines_say(l, arena_printf(&l->arena, "epoch-%llu", (llu)epochs), "info", "epoch_complete", "Epoch %llu complete", (llu)epochs);
    l->epochs = MAX(l->epochs, epochs);
}

static void read_eval(struct job_lines *l, const struct fields *f) {
    const uint64_t step = count_of(f->step);
    struct buf data = {0};
    l->valid_loss = f->valid_loss;
    l->valid_accuracy = f->token_accuracy;
    buf_add_byte(&data, '{');
    put(&data, "step", f->step);
    put(&data, "total_steps", l->total_steps ? (double)l->total_steps : NAN);
    put(&data, "epoch", f->epoch);
    put(&data, "train_loss", f->train_loss);
    put(&data, "valid_loss", f->valid_loss); // every evaluation is over all of the validation data: both of OpenAI's names
    put(&data, "full_valid_loss", f->valid_loss);
    put(&data, "valid_mean_token_accuracy", f->token_accuracy);
    put(&data, "full_valid_mean_token_accuracy", f->token_accuracy);
    put(&data, "perplexity", f->perplexity);
    put(&data, "bits_per_byte", f->bits_per_byte);
    put(&data, "tokens", f->tokens);
    buf_add_byte(&data, '}');
    event_add(l, (struct stored_event){
                     .once = arena_printf(&l->arena, "eval-%llu", (llu)step),
                     .level = "info",
                     .type = "metrics",
                     .message = arena_printf(&l->arena, "Step %llu/%llu: validation loss=%.4g", (llu)step, (llu)l->total_steps, f->valid_loss),
                     .data = keep(l, &data),
                 });
}

static void read_sample(struct job_lines *l, const struct fields *f) {
    const uint64_t step = count_of(f->step);
    struct buf data = {0};
    if (step != l->sample_step) l->n_samples = 0;
    l->sample_step = step;
    buf_printf(&data, "{\"kind\":\"sample\",\"step\":%llu,\"prompt\":", (llu)step);
    buf_add_json_string(&data, buf_str(&f->prompt), f->prompt.len);
    buf_add_str(&data, ",\"text\":");
    buf_add_json_string(&data, buf_str(&f->text), f->text.len);
    buf_add_byte(&data, '}');
    event_add(l, (struct stored_event){
                     .once = arena_printf(&l->arena, "sample-%llu-%zu", (llu)step, l->n_samples++),
                     .level = "info",
                     .type = "message",
                     .message = arena_printf(&l->arena, "Sample at step %llu", (llu)step),
                     .data = keep(l, &data),
                 });
}

void job_lines_checkpoint(struct job_lines *l, uint64_t step) {
    struct buf data = {0};
    buf_printf(&data, "{\"kind\":\"checkpoint_save\",\"step\":%llu,\"model\":", (llu)step);
    const char *model = arena_printf(&l->arena, "%s:ckpt-step-%llu", l->name, (llu)step);
    buf_add_json_string(&data, model, strlen(model));
    buf_add_byte(&data, '}');
    event_add(l, (struct stored_event){
                     .once = arena_printf(&l->arena, "checkpoint-%llu", (llu)step),
                     .level = "info",
                     .type = "message",
                     .message = arena_printf(&l->arena, "Checkpoint created at step %llu", (llu)step),
                     .data = keep(l, &data),
                 });
}

static void read_warning(struct job_lines *l, const struct fields *f) {
    char once[40];
    snprintf(once, sizeof once, "warning-%016llx", (llu)hash_bytes(buf_str(&f->message), f->message.len, 0));
    job_lines_say(l, once, "warn", "warning", "%s", buf_str(&f->message));
}

static void read_done(struct job_lines *l, const struct fields *f) {
    if (buf_is(&f->reason, "stopped")) return; // it will go on
    const bool early = buf_is(&f->reason, "early_stopping");
    l->done = true;
    job_lines_say(l, "training_complete", "info", "training_complete",
                  early ? "Training complete: the validation loss stopped falling, at step %llu" : "Training complete after %llu steps", (llu)l->step);
}

struct job_line job_lines_read(struct job_lines *l, const char *line, size_t n) {
    struct fields f;
    struct job_line out = {0};
    bool known = fields_read(&f, line, n);
    out.step = count_of(f.step);
    if (!known) {
    } else if (buf_is(&f.event, "start")) {
        if (f.total_steps >= 0) l->total_steps = count_of(f.total_steps);
        job_lines_say(l, "training_start", "info", "training_start", "Training started: %llu steps", (llu)l->total_steps);
    } else if (buf_is(&f.event, "step")) {
        read_step(l, &f);
    } else if (buf_is(&f.event, "eval")) {
        read_eval(l, &f);
    } else if (buf_is(&f.event, "sample")) {
        read_sample(l, &f);
    } else if (buf_is(&f.event, "checkpoint")) {
        out.kind = f.stopped ? LINE_OTHER : LINE_CHECKPOINT;
    } else if (buf_is(&f.event, "live")) {
        out.kind = LINE_LIVE;
    } else if (buf_is(&f.event, "warning")) {
        read_warning(l, &f);
    } else if (buf_is(&f.event, "done")) {
        read_done(l, &f);
    } else if (buf_is(&f.event, "error")) {
        snprintf(l->error_code, sizeof l->error_code, "%s", buf_str(&f.code));
        snprintf(l->error_message, sizeof l->error_message, "%s", buf_str(&f.message));
    } else {
        known = false;
    }
    l->ignored += !known;
    fields_finish(&f);
    return out;
}

const char *job_lines_metrics(struct job_lines *l, uint64_t step, struct arena *a) {
    struct buf data = {0};
    buf_add_byte(&data, '{');
    put(&data, "step", (double)step);
    put(&data, "train_loss", l->train_loss);
    put(&data, "train_mean_token_accuracy", l->train_accuracy);
    put(&data, "valid_loss", l->valid_loss);
    put(&data, "full_valid_loss", l->valid_loss);
    put(&data, "valid_mean_token_accuracy", l->valid_accuracy);
    put(&data, "full_valid_mean_token_accuracy", l->valid_accuracy);
    buf_add_byte(&data, '}');
    const char *text = arena_strndup(a, data.data, data.len);
    buf_finish(&data);
    return text;
}

void job_lines_init(struct job_lines *l, const char *name) {
    *l = (struct job_lines){.name = name, .train_loss = NAN, .train_accuracy = NAN, .valid_loss = NAN, .valid_accuracy = NAN};
    job_lines_restart(l);
}

void job_lines_restart(struct job_lines *l) {
    l->sample_step = UINT64_MAX;
    l->error_code[0] = l->error_message[0] = 0;
}

void job_lines_clear(struct job_lines *l) {
    arena_finish(&l->arena);
    l->n_events = 0;
}

void job_lines_finish(struct job_lines *l) {
    arena_finish(&l->arena);
    free(l->events);
    *l = (struct job_lines){0};
}
