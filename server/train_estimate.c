// SPDX-License-Identifier: MIT
// See train_estimate.h. Memory is that of the process after an update of the longest examples, time that of updates of a fair choice of examples;
// both are made by trainer_run itself, so they hold whatever the method, the model and the kernels are.
#include "server/train_estimate.h"

#include "base/clock.h"
#include "base/mem.h"
#include "server/jobs/job_spec.h"
#include "server/report_card.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WARM_UPDATES = 1, TIMED_UPDATES = 2, MOST_UPDATES = 64, EVALUATED_ROWS = 16 };
#define LEAST_TIMED_SECONDS 1.5 // small models: more updates, for a fair mean
#define CHECKPOINT_BYTES_PER_SECOND 250e6 // hashed, written and synced
#define LEAST_SECONDS 1e-9
#define FORWARD_SPEED 3.0 // of a training update's, where nothing is held out to measure it

struct timing {
    uint64_t n, tokens;
    double seconds;
};

static void timing_event(void *ctx, const struct train_event *e) {
    struct timing *t = ctx;
    if (e->kind != TRAIN_STEP || ++t->n <= WARM_UPDATES) return;
    t->seconds += e->seconds;
    t->tokens += (uint64_t)llround(e->tokens_per_second * e->seconds);
}

static bool updates_time(struct train_job *j, const struct data_view *v, uint64_t n, struct timing *t, struct err *err) {
    struct train_config c = j->config;
    struct train_result result;
    const struct train_hooks hooks = {.emit = timing_event, .ctx = t};
    c.steps = n;
    c.warmup = MIN(c.warmup, n);
    c.eval_every = c.checkpoint_every = 0;
    c.early_stopping = c.n_prompts = 0;
    c.checkpoint_dir = NULL;
    c.resume = false;
    *t = (struct timing){0};
    return trainer_run(j->params, &c, v, NULL, j->tokenizer, &hooks, j->pool, &result, err);
}

static bool training_time(struct train_job *j, struct timing *t, struct err *err) {
    if (!updates_time(j, &j->train, WARM_UPDATES + TIMED_UPDATES, t, err)) return false;
    if (t->seconds >= LEAST_TIMED_SECONDS) return true;
    const double n = TIMED_UPDATES * LEAST_TIMED_SECONDS / fmax(t->seconds, LEAST_SECONDS);
    return updates_time(j, &j->train, WARM_UPDATES + (uint64_t)fmin(ceil(n), MOST_UPDATES), t, err);
}

struct length {
    size_t tokens;
    uint32_t item;
};
static int longest_first(const void *a, const void *b) {
    const struct length *x = a, *y = b;
    return x->tokens != y->tokens ? (x->tokens < y->tokens) - (x->tokens > y->tokens) : (x->item > y->item) - (x->item < y->item);
}

// The n longest examples of the training view.
static void view_longest(const struct train_job *j, size_t n, struct data_view *out) {
    struct length *all = mem_alloc(j->train.n, sizeof *all);
    for (size_t i = 0; i < j->train.n; i++) all[i] = (struct length){dataset_length(j->data, j->train.items[i]), j->train.items[i]};
    qsort(all, j->train.n, sizeof *all, longest_first);
    *out = (struct data_view){.data = j->data, .n = MIN(n, j->train.n)};
    out->items = mem_alloc(out->n, sizeof *out->items);
    for (size_t i = 0; i < out->n; i++) out->items[i] = all[i].item;
    free(all);
}

// Tokens a second of an evaluation.
static bool evaluation_rate(struct train_job *j, double *rate, struct err *err) {
    struct data_view v = {.data = j->validation.data, .n = MIN((size_t)EVALUATED_ROWS, j->validation.n)};
    struct held_out h = {0};
    uint64_t tokens = 0, begin = clock_ns();
    v.items = mem_alloc(v.n, sizeof *v.items);
    for (size_t i = 0; i < v.n; i++) { // spread over the whole
        v.items[i] = j->validation.items[i * j->validation.n / v.n];
        tokens += dataset_length(v.data, v.items[i]);
    }
    const bool ok = held_out_measure(&h, j->params, &v, j->pool, err);
    *rate = (double)tokens / fmax((double)(clock_ns() - begin) / 1e9, LEAST_SECONDS);
    held_out_finish(&h);
    data_view_finish(&v);
    return ok;
}

// Rows that the sample prompts of one evaluation cost: every token of a continuation is computed from the prompt's beginning.
static double sampled_rows(const struct train_job *j) {
    const struct train_config *c = &j->config;
    double rows = 0;
    for (size_t i = 0; j->tokenizer && i < c->n_prompts; i++) {
        struct ids ids = {0};
        tokenizer_encode(j->tokenizer, c->prompts[i], strlen(c->prompts[i]), true, &ids);
        rows += (double)c->sample_tokens * ((double)ids.len + (double)c->sample_tokens / 2);
        ids_finish(&ids);
    }
    return rows;
}

// What a service's job does after training: answers of two models to a few rows (job_eval_arguments). Their tokens are counted as an evaluation's:
// each takes longer, but most answers end before the limit.
static double results_seconds(const struct train_job *j, const struct train_estimate *e, double opening, double rate) {
    const size_t models = j->file ? 2 : 1, answers = MIN(e->valid_rows ? e->valid_rows : e->train_rows, (size_t)RESULTS_ANSWERS);
    if (!j->options->supervised || dataset_format(j->data) == DATA_TEXT) return 0;
    const double row = (double)e->train_tokens / (double)e->train_rows;
    return (double)models * (opening + (double)answers * (row + RESULTS_ANSWER_TOKENS) / rate);
}

static bool tokens_count(struct train_job *j, struct train_estimate *e, struct err *err) {
    const struct data_view *views[] = {&j->train, &j->validation};
    for (size_t k = 0; k < ARRAY_LEN(views); k++) {
        for (size_t i = 0; i < views[k]->n; i++) {
            const size_t n = dataset_length(views[k]->data, views[k]->items[i]);
            if (k) {
                e->valid_tokens += n;
                continue;
            }
            e->train_tokens += n;
            e->longest = MAX(e->longest, n + 1);
        }
    }
    uint32_t *ids = mem_alloc(e->longest, sizeof *ids);
    int32_t *targets = mem_alloc(e->longest, sizeof *targets);
    bool ok = true;
    for (size_t i = 0; ok && i < j->train.n; i++) {
        const size_t n = dataset_length(j->data, j->train.items[i]);
        ok = dataset_read(j->data, j->train.items[i], ids, targets, err);
        for (size_t k = 0; ok && k < n; k++) e->supervised_tokens += targets[k] >= 0;
    }
    free(ids);
    free(targets);
    return ok;
}

// The most memory that this program has had. Not getrusage's: that begins with what the process had before it became this program, so with the server's.
static uint64_t peak_memory(void) {
    unsigned long long kib = 0;
    char line[256];
    FILE *f = fopen("/proc/self/status", "re");
    while (f && !kib && fgets(line, sizeof line, f)) (void)!sscanf(line, "VmHWM: %llu", &kib);
    if (f) fclose(f);
    return (uint64_t)kib << 10;
}

bool train_estimate_measure(struct train_job *j, uint64_t began_ns, struct train_estimate *out, struct err *err) {
    const struct train_config *c = &j->config;
    const double opening = (double)(clock_ns() - began_ns) / 1e9;
    struct train_estimate e = {.train_rows = j->train.n, .valid_rows = j->validation.n};
    struct batcher *b = batcher_create(&j->train, &c->batching, err);
    if (!b) return false;
    const uint64_t per_epoch = batcher_updates_per_epoch(b, 0);
    batcher_destroy(b);
    struct data_view longest;
    struct timing hard, fair;
    double evaluation = 0;
    view_longest(j, c->batching.batch_size * c->batching.accumulate, &longest);
    bool ok = tokens_count(j, &e, err) && updates_time(j, &longest, 1, &hard, err) &&
              training_time(j, &fair, err) && (!j->validation.n || evaluation_rate(j, &evaluation, err));
    data_view_finish(&longest);
    if (!ok) return false;
    e.steps = c->steps ? c->steps : per_epoch * c->epochs;
    const uint64_t every = c->eval_every ? c->eval_every : per_epoch;
    e.evaluations = j->validation.n ? 1 + (e.steps + every - 1) / every : 0;
    e.checkpoints = c->checkpoint_every ? (e.steps + c->checkpoint_every - 1) / c->checkpoint_every : (e.steps + every - 1) / every;
    e.tokens_per_second = (double)fair.tokens / fmax(fair.seconds, LEAST_SECONDS);
    e.checkpoint_bytes = 3 * sizeof(float) * (uint64_t)j->params->n_trained;
    e.peak_memory_bytes = peak_memory() + e.checkpoint_bytes; // a checkpoint is mapped while it is read again
    if (!(evaluation > 0)) evaluation = FORWARD_SPEED * e.tokens_per_second;
    const double epochs = (double)e.steps / (double)per_epoch, tokens = epochs * (double)e.train_tokens;
    const double checked = e.evaluations ? (double)(e.evaluations + (c->early_stopping > 0)) * (double)e.valid_tokens : 0; // the best weights' own
    const double sampled = (double)(1 + (e.steps + every - 1) / every) * sampled_rows(j);
    evaluation = fmax(evaluation, LEAST_SECONDS);
    e.seconds = opening + results_seconds(j, &e, opening, evaluation) + tokens / fmax(e.tokens_per_second, LEAST_SECONDS) + (checked + sampled) / evaluation +
                (double)e.checkpoints * (double)e.checkpoint_bytes / CHECKPOINT_BYTES_PER_SECOND;
    *out = e;
    return true;
}

void train_estimate_write(const struct train_estimate *e, const struct train_job *j, struct buf *out) {
    buf_printf(out,
               "{\"train_rows\":%zu,\"train_tokens\":%" PRIu64 ",\"supervised_tokens\":%" PRIu64 ",\"valid_rows\":%zu,\"valid_tokens\":%" PRIu64
               ",\"longest\":%zu,\"steps\":%" PRIu64 ",\"evaluations\":%" PRIu64 ",\"checkpoints\":%" PRIu64
               ",\"tokens_per_second\":%.6g,\"seconds\":%.6g,\"peak_memory_bytes\":%" PRIu64 ",\"checkpoint_bytes\":%" PRIu64 ",\"warnings\":[",
               e->train_rows, e->train_tokens, e->supervised_tokens, e->valid_rows, e->valid_tokens, e->longest, e->steps, e->evaluations, e->checkpoints,
               e->tokens_per_second, e->seconds, e->peak_memory_bytes, e->checkpoint_bytes);
    for (size_t i = 0; i < j->warnings.n; i++) {
        if (i) buf_add_byte(out, ',');
        buf_add_json_string(out, j->warnings.items[i], strlen(j->warnings.items[i]));
    }
    buf_add_str(out, "]}");
}
