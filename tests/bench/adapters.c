// SPDX-License-Identifier: MIT
// What adapters cost: decode and prefill of one batch, every sequence on the base, and the same with every linear layer's adapters mixed in.
// adapters MODEL [RANK [ADAPTERS [BATCH [THREADS]]]]; the two are measured in turn, medians of tokens per second.
#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "engine/infer/adapter_rows.h"
#include "engine/infer/engine.h"
#include "engine/model/adapter.h"

#include <stdio.h>
#include <stdlib.h>

enum { MAX_ADAPTERS = 64, MAX_BATCH = 64, REPEAT = 7, PROMPT = 32, NEW = 32 };

static struct model *adapted(struct model *base, size_t r, struct err *err) {
    static uint64_t drawn;
    const struct weights *w = model_weights(base);
    struct adapter a = {.modules = mem_alloc(weights_linears(w) * 3, sizeof *a.modules)};
    for (size_t i = 0; i + 1 < weights_linears(w); i++)
        for (size_t k = 0; k < weights_linear(w, i)->n_parts; k++) {
            const struct linear_part *p = &weights_linear(w, i)->parts[k];
            struct adapter_module *m = &a.modules[a.n++];
            *m = (struct adapter_module){.name = mem_strdup(p->name), .r = r, .n_in = p->w.n_in, .n_out = p->w.n_out, .scale = 1};
            m->a = mem_alloc(r * m->n_in, sizeof *m->a);
            m->b = mem_alloc(r * m->n_out, sizeof *m->b);
            for (size_t j = 0; j < r * m->n_in; j++) m->a[j] = (float)(rng_uniform(1, drawn++) - 0.5) * 0.05f;
            for (size_t j = 0; j < r * m->n_out; j++) m->b[j] = (float)(rng_uniform(1, drawn++) - 0.5) * 0.05f;
        }
    struct model *m = model_create_adapted(base, &a, err);
    adapter_finish(&a);
    return m;
}

static void events_drop(struct engine *e) {
    for (struct engine_event *v = engine_take_events(e), *next; v; v = next) {
        next = v->next;
        engine_event_free(v);
    }
}

static void measure(struct engine *e, struct model **models, size_t n_models, size_t batch, double *prefill, double *decode) {
    static uint64_t id;
    size_t n_vocab = model_config(models[0])->n_vocab;
    for (size_t i = 0; i < batch; i++) {
        uint32_t prompt[PROMPT];
        for (size_t k = 0; k < PROMPT; k++) prompt[k] = (uint32_t)(rng_uniform(2, ++id) * (double)n_vocab);
        struct sequence_request r = {.id = ++id, .group = id, .model = models[i % n_models], .prompt = prompt, .n_prompt = PROMPT};
        r.params = (struct sampling_params){.max_tokens = NEW, .top_p = 1, .typical_p = 1, .repetition_penalty = 1, .ignore_eos = true, .n_logprobs = -1};
        if (!engine_submit(e, &r, 1, NULL)) abort();
    }
    struct engine_stats s, begin;
    engine_stats(e, &begin);
    double t0 = (double)clock_ns();
    do engine_step(e), engine_stats(e, &s);
    while (s.prompt_tokens < begin.prompt_tokens + batch * PROMPT);
    double t1 = (double)clock_ns();
    uint64_t written = s.generated_tokens;
    while (engine_step(e)) continue;
    double t2 = (double)clock_ns();
    engine_stats(e, &s);
    *prefill = (double)(batch * PROMPT) / (t1 - t0) * 1e9;
    *decode = (double)(s.generated_tokens - written) / (t2 - t1) * 1e9;
    events_drop(e);
}

static int by_value(const void *a, const void *b) { return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b); }

int main(int argc, char **argv) {
    struct err err = {0};
    size_t given[] = {8, 4, 8, pool_cpu_count()}; // rank, adapters, batch, threads
    for (int i = 2; i < argc && i < 6; i++) given[i - 2] = strtoul(argv[i], NULL, 10);
    size_t n_models = 1 + given[1], batch = given[2];
    if (argc < 2 || n_models > MAX_ADAPTERS + 1 || batch > MAX_BATCH) return fprintf(stderr, "adapters MODEL [RANK [ADAPTERS [BATCH [THREADS]]]]\n"), 2;
    struct pool *pool = pool_create(given[3], &err);
    struct model_file *f = pool ? model_file_open(argv[1], &err) : NULL;
    struct model *models[MAX_ADAPTERS + 1] = {f ? model_create(f, WEIGHTS_AUTO, pool, &err) : NULL};
    struct engine_config config = {.pool = pool, .max_running = batch, .max_waiting = batch, .step_rows = 256};
    struct engine *e = models[0] ? engine_create(&config, &err) : NULL;
    bool ok = e && engine_add_model(e, models[0], (size_t)256 << 20, &err);
    for (size_t i = 1; ok && i < n_models; i++) ok = (models[i] = adapted(models[0], given[0], &err)) != NULL;
    if (!ok) return fprintf(stderr, "%s\n", err.message), 1;
    double prefill[2][REPEAT], decode[2][REPEAT], warm;
    measure(e, models, n_models, batch, &warm, &warm);
    for (size_t i = 0; i < REPEAT; i++)
        for (size_t mixed = 0; mixed < 2; mixed++) measure(e, models, mixed ? n_models : 1, batch, &prefill[mixed][i], &decode[mixed][i]);
    for (size_t k = 0; k < 2; k++) {
        qsort(prefill[k], REPEAT, sizeof(double), by_value);
        qsort(decode[k], REPEAT, sizeof(double), by_value);
    }
    double p[2] = {prefill[0][REPEAT / 2], prefill[1][REPEAT / 2]}, d[2] = {decode[0][REPEAT / 2], decode[1][REPEAT / 2]};
    printf("{\"rank\":%zu,\"adapters\":%zu,\"batch\":%zu,\"threads\":%zu,\"adapter_bytes\":%zu,\"prefill\":{\"base\":%.0f,\"mixed\":%.0f,\"ratio\":%.3f},"
           "\"decode\":{\"base\":%.1f,\"mixed\":%.1f,\"ratio\":%.3f}}\n",
           given[0], given[1], batch, given[3], n_models > 1 ? model_own_bytes(models[1]) : 0, p[0], p[1], p[1] / p[0], d[0], d[1], d[1] / d[0]);
    engine_destroy(e);
    for (size_t i = n_models; i-- > 0;) model_release(models[i]);
    pool_destroy(pool);
    return 0;
}
