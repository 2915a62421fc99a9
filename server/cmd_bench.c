// SPDX-License-Identifier: MIT
// `couplet bench`: how fast a model reads prompts and writes tokens here, as JSON; OpenBLAS's sgemm beside our kernel.
// Medians.
//
// prefill: one prompt of --prompt-tokens, from submission to its first token. decode: a batch of sequences, counted
// between the step in which the last of them wrote its first token and the one in which the first of them ended.
// Prompts are random and never repeat, so that no cached prefix helps. One thread steps the engine.
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/rng.h"
#include "engine/kernels/kernels.h"
#include "server/bench_sgemm.h"
#include "server/bench_train.h"
#include "server/commands.h"
#include "server/local_engine.h"
#include "server/options.h"

#include <cblas.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_BATCHES = 16, MAX_BATCH = 256, MAX_REPEAT = 99, DECODE_PROMPT = 16 };
enum { SGEMM_ROWS = 512, SGEMM_OUTPUTS = 1024, SGEMM_INPUTS = 1024, SGEMM_REPEAT = 10 };

struct bench_options {
    const char *model, *adapter, *weights, *batch, *sgemm;
    const char *train, *lora_targets;
    size_t prompt_tokens, new_tokens, threads, repeat, context;
    float dropout;
    bool json, recompute;
};

#define FIELD(name) offsetof(struct bench_options, name)
static const struct option_spec specs[] = {
    {"--model", 0, OPTION_STRING, FIELD(model), "PATH", "model directory or .gguf file; with --train a preset's name too", .required = true},
    {"--adapter", 0, OPTION_STRING, FIELD(adapter), "DIR", "LoRA adapter to merge into the model"},
    {"--prompt-tokens", 0, OPTION_SIZE, FIELD(prompt_tokens), "N", "length of the prompt to read (512, or the context)",
     .min = 1, .max = 1e9},
    {"--new-tokens", 0, OPTION_SIZE, FIELD(new_tokens), "N", "tokens to write a sequence (128, or the context)",
     .min = 2, .max = 1e9},
    {"--batch", 0, OPTION_STRING, FIELD(batch), "N,N,...", "sequences at a time (1,8,32; with --train one number: 2)"},
    {"--train", 0, OPTION_STRING, FIELD(train), "METHOD", "measure a training step instead: forward, backward, AdamW",
     .choices = "full|lora"},
    {"--context", 0, OPTION_SIZE, FIELD(context), "N", "with --train: tokens a sequence (256)", .min = 1, .max = 1e6},
    {"--dropout", 0, OPTION_FLOAT, FIELD(dropout), "X", "with --train (0)", .max = 0.9},
    {"--recompute", 0, OPTION_FLAG, FIELD(recompute), NULL, "with --train: keep no activations inside layers"},
    {"--lora-targets", 0, OPTION_STRING, FIELD(lora_targets), "A,B", "with --train lora (every linear layer)"},
    {"--threads", 0, OPTION_SIZE, FIELD(threads), "N", "kernel threads (one a processor)", .min = 1, .max = 1024},
    {"--weights", 0, OPTION_STRING, FIELD(weights), "MODE", "precision in memory; auto keeps the file's",
     .choices = "auto|f32|q8"},
    {"--repeat", 0, OPTION_SIZE, FIELD(repeat), "N", "runs that a median is taken of (3)", .min = 1, .max = MAX_REPEAT},
    {"--sgemm", 0, OPTION_STRING, FIELD(sgemm), "SWITCH", "time OpenBLAS's sgemm beside our kernel",
     .choices = "on|off"},
    {"--json", 0, OPTION_FLAG, FIELD(json), NULL, "JSON, as always"},
};

static const struct option_command command = {
    .name = "bench",
    .synopsis = "--model PATH [OPTIONS]",
    .summary = "Measures prefill and decode, or a training step, in tokens per second; prints JSON.",
    .options = specs,
    .n_options = ARRAY_LEN(specs),
};

struct bench {
    struct local_engine local;
    size_t n_vocab;
    uint64_t next_id, next_token; // of sequences; of the random prompts
};

// ---- one measurement ----

// Greedy, to the end. On its own, because gcc 12.2 -O3 (-ftree-loop-distribution) lost the store of repetition_penalty
// when this was the body of the loop below.
__attribute__((noinline)) static void request_init(struct sequence_request *r, uint64_t id, struct model *m,
                                                   const uint32_t *prompt, size_t n_prompt, size_t n_new) {
    *r = (struct sequence_request){.id = id, .group = id, .model = m, .prompt = prompt, .n_prompt = n_prompt};
    r->params = (struct sampling_params){
        .max_tokens = n_new, .top_p = 1, .typical_p = 1, .repetition_penalty = 1, .ignore_eos = true, .n_logprobs = -1};
}

static bool submit(struct bench *b, size_t batch, size_t n_prompt, size_t n_new, struct err *err) {
    struct sequence_request *r = mem_alloc(batch, sizeof *r);
    uint32_t *prompts = mem_alloc(batch * n_prompt, sizeof *prompts);
    for (size_t i = 0; i < batch * n_prompt; i++)
        prompts[i] = (uint32_t)(rng_uniform(0, b->next_token++) * (double)b->n_vocab);
    for (size_t i = 0; i < batch; i++)
        request_init(&r[i], b->next_id++, b->local.model, prompts + i * n_prompt, n_prompt, n_new);
    bool ok = engine_submit(b->local.engine, r, batch, err);
    free(prompts);
    free(r);
    return ok;
}

// One step. *ended grows by the sequences that ended in it.
static bool step(struct bench *b, size_t *ended, struct err *err) {
    bool worked = engine_step(b->local.engine), ok = true;
    for (struct engine_event *e = engine_take_events(b->local.engine), *next; e; e = next) {
        next = e->next;
        *ended += e->kind == EVENT_FINISH;
        if (e->kind == EVENT_FINISH && e->finish != FINISH_LENGTH)
            ok = err_set(err, ERR_CORRUPT, "the model computed a value that is not a number");
        engine_event_free(e);
    }
    return ok && (worked || err_set(err, ERR_NO_MEMORY, "the engine cannot go on"));
}

// Tokens per second of one run.
static bool run(struct bench *b, size_t batch, size_t n_prompt, size_t n_new, double *prefill, double *decode,
                struct err *err) {
    struct engine_stats before, now;
    engine_stats(b->local.engine, &before);
    uint64_t target = before.prompt_tokens + batch * n_prompt;
    size_t ended = 0;
    if (!submit(b, batch, n_prompt, n_new, err)) return false;
    double begin = (double)clock_ns() * 1e-9;
    do {
        if (!step(b, &ended, err)) return false;
        engine_stats(b->local.engine, &now);
    } while (now.prompt_tokens < target);
    double first = (double)clock_ns() * 1e-9, last = first;
    *prefill = (double)(batch * n_prompt) / (first - begin);
    uint64_t written = now.generated_tokens;
    while (ended == 0) {
        if (!step(b, &ended, err)) return false;
        last = (double)clock_ns() * 1e-9;
    }
    engine_stats(b->local.engine, &now);
    *decode = last > first ? (double)(now.generated_tokens - written) / (last - first) : 0;
    while (ended < batch)
        if (!step(b, &ended, err)) return false;
    return true;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *x, size_t n) {
    qsort(x, n, sizeof *x, by_value);
    return n % 2 ? x[n / 2] : (x[n / 2 - 1] + x[n / 2]) / 2;
}

// ---- the report ----

static void field_number(struct buf *out, const char *name, double v) {
    char text[32];
    snprintf(text, sizeof text, "%.4g", v); // no more digits than a clock deserves
    buf_printf(out, "\"%s\":%s", name, v >= 1e4 ? "" : text);
    if (v >= 1e4) buf_printf(out, "%.0f", v);
}

static bool report_prefill(struct bench *b, const struct bench_options *o, size_t n_prompt, struct buf *out,
                           struct err *err) {
    double speed[MAX_REPEAT], ignored;
    for (size_t i = 0; i < o->repeat; i++)
        if (!run(b, 1, n_prompt, 1, &speed[i], &ignored, err)) return false;
    buf_printf(out, ",\"prefill\":{\"prompt_tokens\":%zu,", n_prompt);
    field_number(out, "tokens_per_second", median(speed, o->repeat));
    buf_add_byte(out, '}');
    return true;
}

static bool report_decode(struct bench *b, const struct bench_options *o, const size_t *batches, size_t n_batches,
                          size_t n_ctx, struct buf *out, struct err *err) {
    size_t n_prompt = MIN((size_t)DECODE_PROMPT, n_ctx / 2), n_new = MIN(o->new_tokens, n_ctx - n_prompt);
    buf_add_str(out, ",\"decode\":[");
    for (size_t k = 0; k < n_batches; k++) {
        double speed[MAX_REPEAT], ignored;
        for (size_t i = 0; i < o->repeat; i++)
            if (!run(b, batches[k], n_prompt, n_new, &ignored, &speed[i], err)) return false;
        buf_printf(out, "%s{\"batch\":%zu,\"prompt_tokens\":%zu,\"new_tokens\":%zu,", k ? "," : "", batches[k],
                   n_prompt, n_new);
        field_number(out, "tokens_per_second", median(speed, o->repeat));
        buf_add_byte(out, '}');
    }
    buf_add_byte(out, ']');
    return true;
}

static bool report_sgemm(struct pool *pool, struct buf *out, struct err *err) {
    struct sgemm_result r;
    if (!bench_sgemm(pool, SGEMM_ROWS, SGEMM_OUTPUTS, SGEMM_INPUTS, SGEMM_REPEAT, &r, err)) return false;
    buf_printf(out, ",\"sgemm\":{\"m\":%d,\"n\":%d,\"k\":%d,\"gflops\":{", SGEMM_ROWS, SGEMM_OUTPUTS, SGEMM_INPUTS);
    field_number(out, "ours_1_thread", r.ours[0]);
    buf_add_byte(out, ',');
    field_number(out, "openblas_1_thread", r.openblas[0]);
    buf_add_byte(out, ',');
    field_number(out, "ours_all_threads", r.ours[1]);
    buf_add_byte(out, ',');
    field_number(out, "openblas_all_threads", r.openblas[1]);
    buf_printf(out, "},\"openblas_core\":\"%s\"}", openblas_get_corename());
    return true;
}

static bool report(struct bench *b, const struct bench_options *o, const size_t *batches, size_t n_batches,
                   struct err *err) {
    const struct model *m = b->local.model;
    const struct kernels *kernels = kernels_get(err);
    size_t n_ctx = model_config(m)->n_ctx;
    if (!kernels) return false;
    if (n_ctx < 4) return err_set(err, ERR_UNSUPPORTED, "the model's context of %zu is too short to measure", n_ctx);
    struct buf out = {0};
    char *name = path_stem(o->model);
    buf_add_str(&out, "{\"model\":");
    buf_add_json_string(&out, name, strlen(name));
    free(name);
    buf_printf(
        &out,
        ",\"parameters\":%llu,\"weights\":\"%s\",\"weights_mib\":%.1f,\"isa\":\"%s\",\"threads\":%zu,\"repeat\":%zu",
        (unsigned long long)model_parameters(m), model_weights_name(m), (double)model_bytes(m) / 1048576, kernels->name,
        pool_threads(b->local.pool), o->repeat);
    bool ok = report_prefill(b, o, MIN(o->prompt_tokens, n_ctx - 1), &out, err) &&
              report_decode(b, o, batches, n_batches, n_ctx, &out, err) &&
              (strcmp(o->sgemm, "off") == 0 || report_sgemm(b->local.pool, &out, err));
    buf_add_str(&out, "}\n");
    if (ok) fwrite(out.data, 1, out.len, stdout);
    buf_finish(&out);
    return ok && (fflush(stdout) == 0 || err_set(err, ERR_IO, "cannot write the result"));
}

// ---- the command ----

static bool batches_parse(const char *text, size_t *batches, size_t *n, struct err *err) {
    for (*n = 0;; text++) {
        char number[8] = "";
        size_t len = strcspn(text, ",");
        uint64_t v = 0;
        if (len < sizeof number) memcpy(number, text, len);
        if (*n == MAX_BATCHES || !option_read_uint64(number, &v) || v < 1 || v > MAX_BATCH)
            return err_set_param(err, ERR_INVALID, "--batch",
                                 "--batch takes up to %d numbers from 1 to %d, with commas between them", MAX_BATCHES,
                                 MAX_BATCH);
        batches[(*n)++] = (size_t)v;
        text += len;
        if (!*text) return true;
    }
}

static bool bench_training(const struct bench_options *o, const size_t *batches, size_t n_batches, struct err *err) {
    if (n_batches > 1) return err_set_param(err, ERR_INVALID, "--batch", "--batch takes one number with --train");
    const struct bench_train_options train = {
        .model = o->model, .lora = strcmp(o->train, "lora") == 0, .lora_targets = o->lora_targets, .batch = batches[0], .context = o->context,
        .threads = o->threads, .repeat = o->repeat, .dropout = o->dropout, .recompute = o->recompute};
    struct buf out = {0};
    bool ok = bench_train(&train, &out, err);
    if (ok) puts(buf_str(&out));
    buf_finish(&out);
    return ok && (fflush(stdout) == 0 || err_set(err, ERR_IO, "cannot write the result"));
}

static bool bench(const struct bench_options *o, struct err *err) {
    size_t batches[MAX_BATCHES], n_batches, largest = 1;
    if (!batches_parse(o->batch ? o->batch : o->train ? "2" : "1,8,32", batches, &n_batches, err)) return false;
    if (o->train) return bench_training(o, batches, n_batches, err);
    for (size_t i = 0; i < n_batches; i++) largest = MAX(largest, batches[i]);
    struct bench b = {.next_id = 1};
    size_t longest = MAX(o->prompt_tokens, o->new_tokens + DECODE_PROMPT);
    if (!local_engine_open(&b.local, o->model, o->adapter, o->weights, o->threads, largest, longest, err)) return false;
    b.n_vocab = model_config(b.local.model)->n_vocab;
    bool ok = report(&b, o, batches, n_batches, err);
    local_engine_close(&b.local);
    return ok;
}

int cmd_bench(int argc, char **argv) {
    struct bench_options o = {
        .weights = "auto", .sgemm = "on", .prompt_tokens = 512, .new_tokens = 128, .repeat = 3, .context = 256};
    struct option_args args = {0};
    struct err err = {0};
    int status;
    if (options_start(&command, argc, argv, &o, &args, &status))
        status = bench(&o, &err) ? 0 : options_fail(&command, &err);
    option_args_finish(&args);
    return status;
}
