// SPDX-License-Identifier: MIT
// One claim of a job: what its processes say goes into the store, one stage follows the other, the result is published, the end is written.
// See runner_internal.h.
//
// Blocking is right here: the thread has nothing to do but the one job, and while it waits for the disk the trainer's pipe fills and the trainer waits too.
#include "server/jobs/runner_internal.h"

#include "base/failpoint.h"
#include "base/file.h"
#include "base/log.h"
#include "server/jobs/job_end.h"

#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef unsigned long long llu;
enum { FLUSH_MS = 200, EVENTS_HELD = 512, EVENTS_MOST = 8192, ERRORS_KEPT = 4096, ERRORS_FILE_BYTES = 1 << 20 };

static void run_stage(struct runner *r, enum stage stage);
static void run_end(struct runner *r, struct job_outcome outcome);

static bool is_fenced(const struct err *e) { return e->code == ERR_NOT_FOUND && strcmp(e->param, "attempt") == 0; }

// ---- what it says, into the store ----

static void run_lose(struct runner *r) {
    r->run->lost = true;
    if (r->run->process) job_process_kill(r->run->process, SIGKILL);
}

static void run_flush(struct runner *r) {
    struct run *run = r->run;
    struct job_lines *l = &run->lines;
    struct err err = {0};
    if (run->lost || (!l->n_events && !run->n_checkpoints)) return;
    const struct job_progress p = {.step = l->step, .total_steps = l->total_steps, .trained_tokens = l->tokens, .seconds_per_step = l->seconds_per_step,
                                   .events = l->events, .n_events = l->n_events, .checkpoints = run->checkpoints, .n_checkpoints = run->n_checkpoints,
                                   .models = run->models, .n_models = run->n_checkpoints};
    if (!store_job_progress(r->server->store, run->job.id, run->job.attempt, &p, &err)) {
        runner_complain(r, "job progress not kept", &err);
        if (is_fenced(&err)) run_lose(r);
        else if (l->n_events < EVENTS_MOST) return; // once more at the next time; past that the log brings them back at the end
        run->checkpoint_step = 0;
    }
    job_lines_clear(l);
    run->n_checkpoints = 0;
    uv_mutex_lock(&r->lock);
    r->figures.train_loss = l->train_loss;
    uv_mutex_unlock(&r->lock);
    server_job_changed(r->server, run->job.id);
}

static struct stored_model model_of(const struct run *run, const char *id, const char *dir, uint64_t step) {
    return (struct stored_model){
        .id = id,
        .owner = run->job.owner,
        .job = run->job.id,
        .dir = dir,
        .base = run->spec.base_model ? run->spec.base_model : "",
        .kind = run->spec.lora ? MODEL_ADAPTER : MODEL_FULL,
        .step = step,
        .shared = run->job.shared,
        .created_s = (int64_t)time(NULL),
    };
}

// LoRA factors are loaded at once; whole models when somebody asks for them.
static void live_put(struct runner *r, const char *dir, uint64_t step) {
    struct run *run = r->run;
    struct err err = {0};
    const struct stored_model m = model_of(run, arena_printf(&run->lines.arena, "%s:live", run->name), dir, step);
    if (!registry_put(r->server->registry, &m, MODEL_LIVE, run->spec.lora, &err)) runner_complain(r, "live weights not loaded", &err);
    else run->live = true;
}

static void checkpoint_take(struct runner *r, uint64_t step) {
    struct run *run = r->run;
    struct job_lines *l = &run->lines;
    struct err err = {0};
    const char *dir;
    if (step <= run->checkpoint_step) return;
    if (!publish_checkpoint(&run->place, step, &l->arena, &dir, &err)) runner_complain(r, "checkpoint not published", &err);
    else if (dir) {
        struct stored_model m = model_of(run, arena_printf(&l->arena, "%s:ckpt-step-%llu", run->name, (llu)step), dir, step);
        m.bytes = directory_bytes(arena_printf(&l->arena, "%s/%s", run->place.data_dir, dir));
        m.checkpoint = true;
        if (!registry_put(r->server->registry, &m, MODEL_CHECKPOINT, false, &err)) runner_complain(r, "checkpoint not registered", &err);
        if (!run->spec.lora) live_put(r, dir, step);
        mem_grow(&run->models, &run->cap_models, run->n_checkpoints + 1);
        mem_grow(&run->checkpoints, &run->cap_checkpoints, run->n_checkpoints + 1);
        run->models[run->n_checkpoints] = m;
        run->checkpoints[run->n_checkpoints++] =
            (struct stored_checkpoint){.step = step, .model = m.id, .metrics = job_lines_metrics(l, step, &l->arena), .created_s = m.created_s};
        job_lines_checkpoint(l, step);
        run->checkpoint_step = step;
    }
}

static void on_line(void *ctx, const char *line, size_t n) {
    struct runner *r = ctx;
    struct run *run = r->run;
    const uint64_t tokens = run->lines.tokens;
    const struct job_line what = job_lines_read(&run->lines, line, n);
    if (what.kind == LINE_CHECKPOINT) checkpoint_take(r, what.step);
    if (what.kind == LINE_LIVE && run->process)
        live_put(r, arena_printf(&run->lines.arena, "jobs/%s/out/live/step-%llu", run->job.id, (llu)what.step), what.step);
    if (run->process && run->lines.tokens > tokens) {
        uv_mutex_lock(&r->lock);
        r->figures.trained_tokens += run->lines.tokens - tokens;
        uv_mutex_unlock(&r->lock);
    }
    if (run->lines.n_events >= EVENTS_HELD) run_flush(r);
}

static void log_read(struct runner *r) {
    struct run *run = r->run;
    struct line_splitter splitter = {0};
    char *path = path_join(run->place.out, "log.jsonl"), bytes[4096];
    FILE *f = fopen(path, "re");
    job_lines_restart(&run->lines);
    for (size_t n; f && !run->lost && (n = fread(bytes, 1, sizeof bytes, f)) > 0;) line_splitter_feed(&splitter, bytes, n, on_line, r);
    if (f) fclose(f);
    buf_finish(&splitter.line);
    free(path);
    run_flush(r);
}

// ---- the process ----

static void errors_close(struct run *run) {
    if (run->errors_fd >= 0) close(run->errors_fd);
    run->errors_fd = -1;
}

static void on_output(void *ctx, int fd, const char *bytes, size_t n) {
    struct runner *r = ctx;
    struct run *run = r->run;
    run->watch.idle_ns = 0;
    if (fd == 1) {
        line_splitter_feed(&run->splitter, bytes, n, on_line, r);
        return;
    }
    const off_t at = run->errors_fd >= 0 ? lseek(run->errors_fd, 0, SEEK_END) : ERRORS_FILE_BYTES;
    if (at < ERRORS_FILE_BYTES && write(run->errors_fd, bytes, MIN(n, (size_t)(ERRORS_FILE_BYTES - at))) < 0) errors_close(run);
    buf_add(&run->errors, bytes, n);
    if (run->errors.len > 2 * ERRORS_KEPT) {
        memmove(run->errors.data, run->errors.data + run->errors.len - ERRORS_KEPT, ERRORS_KEPT + 1);
        run->errors.len = ERRORS_KEPT;
    }
}

static void on_tick(uv_timer_t *t) {
    struct runner *r = t->data;
    if (r->run && r->run->process) watch_tick(r);
}

static void on_ended(void *ctx, int64_t status, int signal);

// A later server that finds the job's process still there knows it by this.
static void pid_write(const struct run *run) {
    struct process_facts facts;
    struct err err = {0};
    char text[64], *path = path_join(run->place.dir, "pid");
    if (!process_look(job_process_pid(run->process), &facts)) facts.started_ticks = 0;
    const int n = snprintf(text, sizeof text, "%d %llu\n", job_process_pid(run->process), (llu)facts.started_ticks);
    (void)!file_write_atomic(path, text, (size_t)n, 0600, &err);
    free(path);
}

static void process_begin(struct runner *r, const char *const *argv) {
    struct run *run = r->run;
    struct err err = {0};
    char *path = path_join(run->place.dir, "stderr.log");
    const struct job_process_config config = {.loop = &r->loop, .argv = argv, .launcher = &r->server->config.train_launcher, .limits = &r->limits,
                                              .output = on_output, .ended = on_ended, .ctx = r};
    buf_clear(&run->errors);
    buf_clear(&run->splitter.line);
    run->splitter.skipping = false;
    run->argv = argv;
    run->errors_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    free(path);
    run->process = job_process_start(&config, &err);
    if (!run->process) {
        errors_close(run);
        run_end(r, (struct job_outcome){.status = JOB_FAILED, .error_code = "internal_error", .error_message = "The training process could not be started."});
        return;
    }
    failpoint("runner.after_spawn");
    pid_write(run);
    watch_begin(r);
    uv_timer_start(&r->tick, on_tick, YIELD_TICK_MS, YIELD_TICK_MS);
}

static bool mark_exists(const struct run *run, const char *name) {
    char *path = path_join(run->place.dir, name);
    const bool there = file_exists(path) || dir_exists(path);
    free(path);
    return there;
}

static void mark_make(struct runner *r, const char *name) {
    struct err err = {0};
    char *path = path_join(r->run->place.dir, name);
    if (!file_write_atomic(path, "", 0, 0600, &err)) runner_complain(r, "stage not marked", &err); // it is done again after a restart
    free(path);
}

static struct job_exit exit_of(const struct runner *r, int64_t status, int signal) {
    struct run *run = r->run;
    const bool quit = run->stage == STAGE_TRAIN && !status && !run->lines.done; // whatever a launcher makes of a failure
    struct job_exit e = {
        .status = quit ? 1 : status,
        .signal = signal,
        .wish = run->wish,
        .draining = r->stopping,
        .told = run->watch.told,
        .stalled = run->watch.stalled,
        .short_of_memory = watch_short_of_memory(run),
        .code = run->lines.error_code,
        .message = run->lines.error_message,
        .attempts = run->attempts,
        .stalls = run->stalls,
        .max_attempts = (unsigned)r->server->config.train_max_attempts,
    };
    if (run->watch.no_space) {
        e.signal = 0;
        e.status = 1;
        e.code = "no_space";
        e.message = "The server's disk is full.";
    } else if (run->stage == STAGE_TOKENIZER && !signal && status && run->errors.len) {
        while (run->errors.len && run->errors.data[run->errors.len - 1] == '\n') run->errors.data[--run->errors.len] = 0;
        paths_cut(&run->errors, run->argv);
        const char *line = strrchr(buf_str(&run->errors), '\n'), *text = line ? line + 1 : buf_str(&run->errors), *colon = strstr(text, ": ");
        e.code = "invalid_training_file";
        e.message = colon ? colon + 2 : text;
    }
    return e;
}

static void run_judged(struct runner *r, const struct job_exit *e) {
    struct run *run = r->run;
    const struct job_verdict v = job_judge(e);
    if (v.next == NEXT_PUBLISH) {
        if (run->stage == STAGE_TRAIN) mark_make(r, "trained");
        run_stage(r, run->stage + 1);
    } else if (v.next == NEXT_AGAIN) {
        log_line(LOG_WARN, "trainer started again", "job", run->job.id, "code", v.code, NULL);
        job_lines_say(&run->lines, NULL, "warn", "job_restarted", "%s Training goes on from the last checkpoint.", v.message);
        run_stage(r, run->stage);
    } else {
        const char *message = v.message ? arena_strndup(&run->arena, v.message, strlen(v.message)) : NULL;
        const char *code = v.code ? arena_strndup(&run->arena, v.code, strlen(v.code)) : NULL;
        const char *param = code && strcmp(code, "invalid_training_file") == 0     ? "training_file"
                            : code && strcmp(code, "invalid_validation_file") == 0 ? "validation_file"
                                                                                   : NULL;
        run_end(r, (struct job_outcome){.status = v.status, .error_code = code, .error_message = message, .error_param = param});
    }
}

static void on_ended(void *ctx, int64_t status, int signal) {
    struct runner *r = ctx;
    struct run *run = r->run;
    run->process = NULL;
    uv_timer_stop(&r->tick);
    errors_close(run);
    run->stalls += run->watch.stalled;
    run_read_wish(r);
    const struct job_exit e = exit_of(r, status, signal);
    log_line(status || signal ? LOG_INFO : LOG_DEBUG, "process ended", "job", run->job.id, "status", log_value("%lld", (long long)status), "signal",
             log_value("%d", signal), NULL);
    if (run->lost) {
        run_end(r, (struct job_outcome){0});
    } else if (run->stage == STAGE_EVAL && !e.told && !r->stopping && run->wish != WISH_CANCEL) {
        if (status || signal)
            job_lines_say(&run->lines, "no_results_page", "warn", "warning", "The results page could not be made; the model is not affected.");
        run_stage(r, STAGE_PUBLISH);
    } else {
        run_judged(r, &e);
    }
}

// ---- lease and wishes ----

void run_read_wish(struct runner *r) {
    struct run *run = r->run;
    struct err err = {0};
    if (run->lost || run->ending) return;
    if (!store_job_heartbeat(r->server->store, run->job.id, run->job.attempt, runner_lease_end(r), &run->wish, &err)) {
        runner_complain(r, "no heartbeat", &err);
        if (is_fenced(&err)) run_lose(r);
    }
    if (run->wish != WISH_NONE) watch_tell(r);
}

static void on_beat(uv_timer_t *t) {
    struct runner *r = t->data;
    if (r->run) run_read_wish(r);
}

static void on_flush(uv_timer_t *t) {
    struct runner *r = t->data;
    if (r->run) run_flush(r);
}

// ---- stages ----

static void run_fail(struct runner *r, const struct err *e) {
    const bool space = e->code == ERR_NO_SPACE;
    runner_complain(r, "job failed", e);
    run_end(r, (struct job_outcome){.status = JOB_FAILED, .error_code = space ? "no_space" : "io_error",
                                    .error_message = space ? "The server's disk is full." : "The server could not keep the result."});
}

static bool results_gather(struct runner *r, size_t *n, struct err *err) {
    struct run *run = r->run;
    static const struct {
        const char *in, *name;
        bool tokenizer; // of a job that only makes one
    } files[] = {{"out/results.csv", "results.csv", false},          {"out/report.md", "report.md", false},
                 {"results.html", "results.html", false},            {"results.json", "results.json", false},
                 {"tokenizer/tokenizer.json", "tokenizer.json", true}, {"tokenizer/vocab.json", "vocab.json", true},
                 {"tokenizer/merges.txt", "merges.txt", true}};
    const bool tokenizer = strcmp(run->job.kind, "tokenizer") == 0;
    bool ok = true;
    *n = 0;
    for (size_t i = 0; ok && i < ARRAY_LEN(files); i++) {
        bool there = false;
        if (files[i].tokenizer != tokenizer) continue;
        char *path = path_join(run->place.dir, files[i].in);
        ok = publish_file(&run->place, path, files[i].name, &run->arena, &run->files[*n], &there, err);
        free(path);
        *n += there; // also one that failed: what there is of it goes with the others
    }
    return ok;
}

// Files first, then the model can be found, then the job says so: whoever reads "succeeded" gets an answer from the model.
static void run_publish(struct runner *r) {
    struct run *run = r->run;
    struct err err = {0};
    struct job_outcome o = {.status = JOB_SUCCEEDED, .files = run->files};
    const bool tokenizer = strcmp(run->job.kind, "tokenizer") == 0;
    run_read_wish(r);
    if (run->wish == WISH_CANCEL) {
        run_end(r, (struct job_outcome){.status = JOB_CANCELLED});
        return;
    }
    if (!tokenizer && !publish_result(&run->place, &err)) {
        run_fail(r, &err);
        return;
    }
    if (!results_gather(r, &run->n_files, &err)) {
        run_fail(r, &err);
        return;
    }
    o.n_files = run->n_files;
    if (!tokenizer) {
        run->model = model_of(run, run->name, run->place.model, run->lines.step);
        char *path = path_join(run->place.data_dir, run->place.model);
        run->model.bytes = directory_bytes(path);
        free(path);
        o.model = &run->model;
        if (!registry_put(r->server->registry, &run->model, MODEL_TUNED, true, &err) &&
            !registry_put(r->server->registry, &run->model, MODEL_TUNED, false, &err))
            runner_complain(r, "model not registered", &err);
        job_lines_say(&run->lines, "model_created", "info", "job_complete", "New fine-tuned model created: %s", run->name);
    }
    job_lines_say(&run->lines, "job_complete", "info", "job_complete", "The job has successfully completed");
    run_end(r, o);
}

static void run_stage(struct runner *r, enum stage stage) {
    struct run *run = r->run;
    const struct config *c = &r->server->config;
    char *files_dir = path_join(run->place.data_dir, "files");
    const char *const *argv = NULL;
    run->stage = stage;
    if (r->stopping || run->wish == WISH_PAUSE) stage = STAGE_PUBLISH + 1;
    for (; !argv && stage < STAGE_PUBLISH; stage++) {
        run->stage = stage;
        if (stage == STAGE_TOKENIZER && !mark_exists(run, "tokenizer/tokenizer.json"))
            argv = job_tokenizer_arguments(&run->job, &run->spec, run->place.dir, files_dir, &run->arena);
        const bool trained = mark_exists(run, "trained") || publish_is_done(&run->place); // a full disk may have refused the mark
        if (stage == STAGE_TRAIN && strcmp(run->job.kind, "tokenizer") != 0 && !trained) {
            argv = job_train_arguments(&run->job, &run->spec, run->place.dir, files_dir, c->train_threads, &run->arena);
            run->attempts++;
            job_lines_restart(&run->lines);
        }
        const bool eval_made = mark_exists(run, "results.html") || mark_exists(run, "result") || publish_is_done(&run->place);
        if (stage == STAGE_EVAL && mark_exists(run, "trained") && !eval_made)
            argv = job_eval_arguments(&run->job, &run->spec, run->name, run->place.dir, files_dir, &run->arena);
    }
    free(files_dir);
    if (argv) {
        process_begin(r, argv);
    } else if (stage == STAGE_PUBLISH) {
        run->stage = stage;
        run_publish(r);
    } else {
        run_end(r, (struct job_outcome){.status = run->wish == WISH_PAUSE ? JOB_PAUSED : JOB_QUEUED});
    }
}

// ---- begin and end of a run ----

static void run_free(struct runner *r) {
    struct run *run = r->run;
    r->run = NULL;
    job_lines_finish(&run->lines);
    buf_finish(&run->splitter.line);
    buf_finish(&run->errors);
    free(run->checkpoints);
    free(run->models);
    arena_finish(&run->arena);
    free(run);
}

static void run_clean(struct run *run) {
    const enum job_status status = run->outcome.status;
    if (!job_status_final(status)) return;
    if (status != JOB_SUCCEEDED) publish_undo(&run->place, run->files, run->n_files);
    job_place_clean(&run->place);
}

void run_end_try(struct runner *r) {
    struct run *run = r->run;
    struct err err = {0};
    if (run->n_checkpoints) run_flush(r); // they are not part of the outcome
    if (!run->lost) {
        run->outcome.events = run->lines.events;
        run->outcome.n_events = run->lines.n_events;
        const int failed = failpoint("runner.before_finish");
        const bool ok = failed               ? err_set(&err, err_code_of(failed), "failpoint")
                        : run->n_checkpoints ? err_set(&err, ERR_NO_SPACE, "checkpoints are not kept yet")
                                             : store_job_finish(r->server->store, run->job.id, run->job.attempt, &run->outcome, &err);
        if (!ok) {
            runner_complain(r, "job not ended", &err);
            if (!is_fenced(&err) && !r->stopping) { // the disk may have room again soon: what is of no use any more is in its way
                if (err.code == ERR_NO_SPACE && run->outcome.status == JOB_SUCCEEDED) job_place_trim(&run->place);
                else if (err.code == ERR_NO_SPACE) run_clean(run);
                runner_retry(r);
                return;
            }
            if (run->outcome.model) registry_remove(r->server->registry, run->name);
        } else {
            failpoint("runner.after_finish");
        }
        if (ok) run_clean(run);
        log_line(LOG_INFO, "job ended", "job", run->job.id, "status", job_status_name(run->outcome.status), "code",
                 run->outcome.error_code ? run->outcome.error_code : "-", NULL);
    }
    char *live = mem_alloc(strlen(run->name) + 6, 1);
    sprintf(live, "%s:live", run->name);
    if (run->live) registry_remove(r->server->registry, live);
    free(live);
    server_job_changed(r->server, run->job.id);
    run_free(r);
    uv_timer_stop(&r->flush);
    uv_timer_stop(&r->beat);
    uv_mutex_lock(&r->lock);
    r->figures.train_loss = NAN;
    uv_mutex_unlock(&r->lock);
    uv_async_send(&r->wake); // for the next one; not from here, where many that fail at once would pile up
}

static void run_end(struct runner *r, struct job_outcome outcome) {
    struct run *run = r->run;
    if (!run->lost && run->stage >= STAGE_TRAIN) log_read(r);
    run->ending = true;
    run->outcome = outcome;
    struct job_lines *l = &run->lines;
    switch (outcome.status) {
    case JOB_FAILED: job_lines_say(l, NULL, "error", "job_failed", "The job failed: %s", outcome.error_message); break;
    case JOB_CANCELLED: job_lines_say(l, NULL, "info", "job_cancelled", "The job has been cancelled."); break;
    case JOB_PAUSED: job_lines_say(l, NULL, "info", "job_paused", "The job has been paused."); break;
    case JOB_QUEUED: job_lines_say(l, NULL, "info", "job_stopped", "The job waits to go on."); break;
    default: break;
    }
    run_end_try(r);
}

static void name_make(struct run *run) {
    const char *base = run->spec.base_model ? run->spec.base_model : run->job.model, *dash = strchr(run->job.id, '-');
    run->name = arena_printf(&run->arena, "ft:%s:local:%s:%.8s", base, run->job.suffix ? run->job.suffix : "", dash ? dash + 1 : run->job.id);
}

static bool run_open(struct run *run, struct err *err) {
    if (!job_spec_read(run->job.spec, &run->arena, &run->spec, err)) return false;
    name_make(run);
    run->lines.name = run->name;
    if (!dir_make(run->place.dir, err)) return false;
    if (!run->spec.architecture || run->spec.architecture[0] != '{') return true;
    char *path = path_join(run->place.dir, "config.json");
    const bool ok = file_write_atomic(path, run->spec.architecture, strlen(run->spec.architecture), 0600, err);
    free(path);
    return ok;
}

void run_begin(struct runner *r) {
    struct run *run = r->run;
    struct err err = {0};
    const uint64_t lease_ms = (uint64_t)r->server->config.lease_seconds * 1000;
    failpoint("runner.after_claim");
    run->errors_fd = -1;
    run->name = run->job.id;
    job_place_init(&run->place, r->server->config.data_dir, run->job.id, &run->arena);
    job_lines_init(&run->lines, run->name);
    run->lines.total_steps = run->job.total_steps;
    uv_timer_start(&r->flush, on_flush, FLUSH_MS, FLUSH_MS);
    uv_timer_start(&r->beat, on_beat, lease_ms / 3, lease_ms / 3);
    log_line(LOG_INFO, "job started", "job", run->job.id, "attempt", log_value("%lld", (long long)run->job.attempt), NULL);
    if (!run_open(run, &err)) {
        run_fail(r, &err);
        return;
    }
    job_lines_say(&run->lines, "job_start", "info", "job_start", "Fine-tuning job started"); // again: a first attempt may have been killed before it was kept
    if (run->job.attempt > 1) job_lines_say(&run->lines, NULL, "info", "job_restarted", "The job goes on, from its last checkpoint where it has one");
    log_read(r);
    runner_count(r);
    run_stage(r, STAGE_TOKENIZER);
}
