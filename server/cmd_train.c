// SPDX-License-Identifier: MIT
// `couplet train`: from the options to the files in --out. Main thread.
//
// Invariants. (1) Nothing is written before options and data were found right. (2) Weights appear in --out whole, and only at the end of a run.
// (3) A stopped run (signal) leaves a checkpoint and no weights.
#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "engine/train/checkpoint.h"
#include "engine/train/gemm.h"
#include "server/commands.h"
#include "server/plot.h"
#include "server/report_card.h"
#include "server/train_estimate.h"
#include "server/train_log.h"
#include "server/train_result.h"

#include <assert.h>
#include <dirent.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CHECKS_PER_ARRAY = 8, CHECKS = 320 }; // of one array; in all, about: each is four forward passes

static volatile bool stop_asked; // by a signal

static void on_signal(int number) { stop_asked = true; }

// The first signal asks, the second one kills; not where a server supervises: it kills for itself, and whoever stops the server may have told its
// whole group already.
static void signals_catch(bool supervised) {
    const struct sigaction a = {.sa_handler = on_signal, .sa_flags = supervised ? 0 : (int)SA_RESETHAND};
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
}

// OpenBLAS chooses its kernels before main runs; where it does not know the processor the program starts itself again, told what to choose.
static void restart_with_better_core(int argc, char **argv) {
    const char *core = gemm_better_core();
    if (!core || getenv("OPENBLAS_CORETYPE") || setenv("OPENBLAS_CORETYPE", core, 1) != 0) return;
    char **whole = mem_alloc((size_t)argc + 2, sizeof(*whole)), name[] = "couplet";
    whole[0] = name;
    memcpy(whole + 1, argv, (size_t)argc * sizeof(*argv));
    fprintf(stderr, "couplet train: restarting with OPENBLAS_CORETYPE=%s, which suits this processor better\n", core);
    execv("/proc/self/exe", whole);
    free(whole); // not possible here: on with what there is
}

// ---- places ----

// Whether a name in dir begins so.
static bool dir_holds(const char *dir, const char *prefix) {
    DIR *d = opendir(dir);
    bool holds = false;
    for (struct dirent *e; d && !holds && (e = readdir(d));) holds = strncmp(e->d_name, prefix, strlen(prefix)) == 0;
    if (d) closedir(d);
    return holds;
}

static bool out_check(const struct train_options *o, const char *checkpoint_dir, struct err *err) {
    if (!o->out || o->config.resume) return true;
    if (dir_holds(o->out, "model.safetensors") || dir_holds(o->out, "adapter_model.safetensors"))
        return err_set(err, ERR_INVALID, "%s already holds a model: --resume, or another --out", o->out);
    if (dir_holds(checkpoint_dir, "step-"))
        return err_set(err, ERR_INVALID, "%s holds the checkpoints of another run: --resume goes on with it, or take another --out", o->out);
    return true;
}

// ---- the run ----

struct run {
    struct train_job job;
    struct train_log log;
    char *log_path, *checkpoint_dir, *snapshot_dir, *live_dir, *csv_path;
    bool plot_failed;
    uint64_t began_ns, live_ns; // live_ns: when the newest adapter was written
    struct held_out before, after;
    struct train_result result;
};

// --out with the log in it, and a place for the plot; what cannot be written is found before any work.
static bool places_open(struct run *r, struct err *err) {
    const struct train_options *o = r->job.options;
    struct file_writer plot = {0};
    if (!dir_make(o->out, err)) return false;
    bool ok = !o->plot || file_writer_open(&plot, o->plot, 0644, err); // --plot may lie in --out
    file_writer_abort(&plot);
    ok = ok && train_log_open(&r->log, r->log_path, true, err);
    if (ok) return dir_make(r->checkpoint_dir, err);
    rmdir(o->out); // where it is empty
    return false;
}

static void run_warn(struct run *r, const char *what, const struct err *err) {
    struct buf text = {0};
    buf_printf(&text, "%s: %s", what, err->message);
    train_log_event(&r->log, &(struct train_event){.kind = TRAIN_WARNING, .message = buf_str(&text)});
    buf_finish(&text);
}

// The newest factors, for whoever wants to try them while the run lasts. What cannot be written is tried again later.
static void live_write(struct run *r, uint64_t step) {
    const uint64_t now = clock_ns();
    struct err err = {0};
    if (r->live_ns && (double)(now - r->live_ns) / 1e9 < r->job.options->live_every) return;
    r->live_ns = now;
    if (!train_snapshot_write(&r->job, r->live_dir, step, &err)) {
        fprintf(stderr, "couplet train: warning: no live weights: %s\n", err.message);
        return;
    }
    struct buf path = {0};
    buf_printf(&path, "%s/step-%llu", r->live_dir, (unsigned long long)step);
    train_log_live(&r->log, step, buf_str(&path));
    buf_finish(&path);
    train_snapshots_prune(r->live_dir);
}

static void run_emit(void *ctx, const struct train_event *e) {
    struct run *r = ctx;
    struct err err = {0};
    const char *plot = r->job.options->plot;
    // Before the line that tells of it.
    const bool snapshot = e->kind == TRAIN_CHECKPOINT && e->end != TRAIN_END_STOPPED && r->job.options->snapshots;
    if (snapshot && !train_snapshot_write(&r->job, r->snapshot_dir, e->step, &err))
        run_warn(r, "no snapshot", &err);
    train_log_event(&r->log, e);
    if (e->kind == TRAIN_STEP && r->job.options->live_every > 0) live_write(r, e->step);
    if (!plot || r->plot_failed || e->kind != TRAIN_EVAL || e->step == 0) return;
    r->plot_failed = !plot_write(r->log_path, plot, &err);
    if (r->plot_failed) fprintf(stderr, "couplet train: warning: no plot: %s\n", err.message);
}

static bool run_log_position(void *ctx, uint64_t *bytes, struct err *err) { return train_log_position(&((struct run *)ctx)->log, bytes, err); }
static bool run_log_rewind(void *ctx, uint64_t position, struct err *err) { return train_log_rewind(&((struct run *)ctx)->log, position, err); }

// Early stopping keeps the best weights. Those of the beginning have no checkpoint; then the last ones are as good a choice as any.
static bool best_restore(struct run *r, bool *restored, struct err *err) {
    const struct train_result *t = &r->result;
    *restored = false;
    if (!r->job.options->config.early_stopping || t->best_step == t->steps) return true;
    if (t->best_step == 0) {
        fputs("couplet train: warning: no evaluation was better than the one before training; the last weights are written\n", stderr);
        return true;
    }
    return *restored = checkpoint_load_weights(r->checkpoint_dir, t->best_step, r->job.params, err);
}

static bool report_write(struct run *r, bool best, struct err *err) {
    const struct train_options *o = r->job.options;
    struct report_card card = {
        .base = o->model ? "the base" : "the random weights it began with",
        .facts = buf_str(&r->job.facts),
        .data = o->data_name ? o->data_name : o->data, // a name where there is one: the report is handed on
        .method = o->method_name,
        .n_train = r->job.train.n,
        .n_validation = r->job.validation.n,
        .n_parameters = r->job.params->n_parameters,
        .n_trainable = r->job.params->n_trainable,
        .result = &r->result,
        .best_weights = best,
    };
    struct buf line = {0};
    const bool told = r->after.rows.whole && r->after.rows.step == r->result.steps && !best; // by the last evaluation
    if (r->job.validation.n && !told) {
        held_out_finish(&r->after);
        if (!held_out_measure(&r->after, r->job.params, &r->job.validation, r->job.pool, err)) return false;
    }
    assert(!r->job.validation.n || r->before.rows.whole);
    held_out_compare(&r->before, &r->after, &card.comparison);
    report_card_headline(&card, &line);
    fprintf(o->json ? stderr : stdout, "%s\n", buf_str(&line));
    buf_finish(&line);
    return report_card_write(&card, o->out, err);
}

// The run's own first and last evaluation tell what the report compares. One that goes on from a checkpoint makes no first one.
static bool held_out_prepare(struct run *r, struct err *err) {
    struct train_job *j = &r->job;
    const bool goes_on = j->options->config.resume && dir_holds(r->checkpoint_dir, "step-");
    if (!(goes_on ? held_out_measure(&r->before, j->params, &j->validation, j->pool, err) : held_out_init(&r->before, &j->validation, err))) return false;
    if (!held_out_init(&r->after, &j->validation, err)) return false;
    j->config.first = &r->before.rows;
    j->config.last = &r->after.rows;
    return true;
}

static bool run_train(struct run *r, struct err *err) {
    struct train_job *j = &r->job;
    const struct train_options *o = j->options;
    const struct train_hooks hooks = {run_emit, run_log_position, run_log_rewind, r};
    bool best;
    j->config.stop = &stop_asked;
    j->config.checkpoint_dir = r->checkpoint_dir;
    if (!places_open(r, err)) return false;
    if (j->validation.n && !held_out_prepare(r, err)) return false;
    train_job_hash(j, j->config.run_hash);
    r->log.facts = buf_str(&j->facts);
    if (!trainer_run(j->params, &j->config, &j->train, &j->validation, j->tokenizer, &hooks, j->pool, &r->result, err)) return false;
    if (r->result.end == TRAIN_END_STOPPED)
        return err_set_param(err, ERR_BUSY, "stopped", "stopped at step %llu; --resume goes on", (unsigned long long)r->result.steps);
    return best_restore(r, &best, err) && train_result_write(j, o->out, err) && report_write(r, best, err) &&
           train_results_csv(r->log_path, r->csv_path, err) && (!o->plot || plot_write(r->log_path, o->plot, err));
}

static bool run_check_gradients(struct run *r, struct err *err) {
    struct train_job *j = &r->job;
    struct update u;
    struct gradient_check c;
    struct batcher *b = batcher_create(&j->train, &j->config.batching, err);
    bool ok = b && batcher_next(b, &u, err);
    const struct network_config config = {.max_rows = b ? batcher_max_rows(b) : 0, .max_segment = b ? batcher_max_segment(b) : 0,
                                          .recompute = j->config.recompute};
    struct network *n = ok ? network_create(j->params, &config, j->pool, err) : NULL;
    ok = n != NULL;
    if (ok) {
        size_t arrays = 0;
        for (size_t i = 0; i < j->params->n_items; i++) arrays += j->params->items[i].grad != NULL;
        const size_t each = MIN((size_t)CHECKS_PER_ARRAY, MAX((size_t)1, CHECKS / MAX(arrays, (size_t)1)));
        network_check_gradients(n, &u.batches[0], each, j->config.seed, &c);
        printf(j->options->json ? "{\"checked\":%zu,\"failed\":%zu,\"worst_error\":%.3g,\"worst\":\"%s\"}\n"
                                : "gradients: %zu checked against finite differences, %zu differ; largest error %.3g (%s)\n",
               c.n_checked, c.n_failed, c.worst_error, c.worst);
        ok = c.n_failed == 0 || err_set(err, ERR_CORRUPT, "%zu gradients differ from their finite differences", c.n_failed);
    }
    network_destroy(n);
    batcher_destroy(b);
    return ok;
}

static void run_finish(struct run *r) {
    held_out_finish(&r->before);
    held_out_finish(&r->after);
    free(r->log_path);
    free(r->checkpoint_dir);
    free(r->snapshot_dir);
    free(r->live_dir);
    free(r->csv_path);
    train_job_finish(&r->job);
}

static bool run_estimate(struct run *r, struct err *err) {
    struct train_estimate e;
    struct buf text = {0};
    const bool ok = train_estimate_measure(&r->job, r->began_ns, &e, err);
    if (ok && r->job.options->json) train_estimate_write(&e, &r->job, &text);
    else if (ok)
        buf_printf(&text, "%llu updates at %.0f tokens a second: about %.0f seconds and %llu MB", (unsigned long long)e.steps, e.tokens_per_second, e.seconds,
                   (unsigned long long)e.peak_memory_bytes >> 20);
    if (ok) puts(buf_str(&text));
    buf_finish(&text);
    return ok;
}

// Why a run failed, in words that a service can hand on.
static const char *failure_code(const struct run *r, const struct err *e) {
    const char *opening = r->job.opening;
    if (strcmp(e->param, "stopped") == 0) return "stopped";
    if (strcmp(e->param, "non_finite_loss") == 0) return "non_finite_loss";
    switch (e->code) {
    case ERR_NO_MEMORY: return "out_of_memory";
    case ERR_NO_SPACE: return "no_space";
    case ERR_IO: return "io_error";
    default: break;
    }
    if (strncmp(e->param, "--", 2) == 0) return "invalid_option";
    if (!opening) return "internal_error";
    return strcmp(opening, "model") == 0 ? "invalid_model" : strcmp(opening, "training_file") == 0 ? "invalid_training_file" : "invalid_validation_file";
}

// "a/b/" of "a/b/c"; malloc'ed; NULL for a bare name.
static char *directory_of(const char *path) {
    const char *slash = path ? strrchr(path, '/') : NULL;
    return slash ? mem_strndup(path, (size_t)(slash - path) + 1) : NULL;
}

static void paths_hide(struct train_log *l, const struct train_options *o) {
    const char *const paths[] = {o->out, o->data, o->validation, o->model, o->lora_init};
    size_t n = 0;
    for (size_t i = 0; i < ARRAY_LEN(paths); i++)
        if ((l->hidden[n] = directory_of(paths[i]))) n++;
}

static bool run(const struct train_options *o, uint64_t began_ns, struct err *err) {
    struct run r = {.began_ns = began_ns};
    struct err fault = {0};
    signals_catch(o->supervised);
    gemm_start();
    train_log_init(&r.log, o->json, o->out);
    if (o->out) {
        r.log_path = o->log ? mem_strdup(o->log) : path_join(o->out, "log.jsonl");
        r.checkpoint_dir = path_join(o->out, "checkpoints");
        r.snapshot_dir = path_join(o->out, "snapshots");
        r.live_dir = path_join(o->out, "live");
        r.csv_path = path_join(o->out, "results.csv");
    }
    if (o->supervised) paths_hide(&r.log, o);
    bool ok = (o->estimate || out_check(o, r.checkpoint_dir, err)) && train_job_open(&r.job, o, err) &&
              (o->check_gradients ? run_check_gradients(&r, err) : o->estimate ? run_estimate(&r, err) : run_train(&r, err)) &&
              train_log_whole(&r.log, err);
    if (!ok) train_log_hide(&r.log, err->message);
    // Busy: the log is another run's.
    if (!ok && err->code != ERR_BUSY && strcmp(err->param, "stopped") != 0) train_log_error(&r.log, failure_code(&r, err), err);
    if (!train_log_close(&r.log, &fault) && ok) {
        *err = fault;
        ok = false;
    }
    for (size_t i = 0; i < ARRAY_LEN(r.log.hidden); i++) free((void *)(uintptr_t)r.log.hidden[i]);
    run_finish(&r);
    return ok;
}

int cmd_train(int argc, char **argv) {
    const uint64_t began_ns = clock_ns();
    struct train_options o;
    struct err err = {0};
    int status;
    if (train_options_start(&o, argc, argv, &status)) {
        restart_with_better_core(argc, argv);
        status = run(&o, began_ns, &err) ? 0 : options_fail(&train_command, &err);
    }
    train_options_finish(&o);
    return status;
}
