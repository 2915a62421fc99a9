// SPDX-License-Identifier: MIT
// See train_log.h. One write(2) a line, so that a killed run leaves whole lines.
#include "server/train_log.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TERMINAL_INTERVAL_NS 100000000u
#define PLAIN_INTERVAL_NS 10000000000u

void train_log_init(struct train_log *l, bool json, const char *out) {
    *l = (struct train_log){.fd = -1, .json = json, .out = out ? out : "", .facts = "", .terminal = isatty(STDERR_FILENO)};
}

bool train_log_open(struct train_log *l, const char *path, bool keep, struct err *err) {
    l->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_APPEND | (keep ? 0 : O_TRUNC), 0644);
    struct stat st;
    if (l->fd < 0 || fstat(l->fd, &st) != 0) return err_set(err, err_code_of(errno), "cannot write %s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode)) return err_set(err, ERR_IO, "cannot write %s: not a regular file", path);
    l->position = (uint64_t)st.st_size;
    return true;
}

bool train_log_whole(const struct train_log *l, struct err *err) {
    const int error = l->error ? l->error : l->out_error;
    return !error || err_set(err, err_code_of(error), "the log is not complete: %s", strerror(error));
}

bool train_log_close(struct train_log *l, struct err *err) {
    if (l->open_line) fputc('\n', stderr);
    l->open_line = false;
    if (l->fd >= 0 && close(l->fd) != 0 && !l->error) l->error = errno;
    l->fd = -1;
    buf_finish(&l->line);
    return train_log_whole(l, err);
}

bool train_log_position(struct train_log *l, uint64_t *bytes, struct err *err) {
    if (l->fd >= 0 && fdatasync(l->fd) != 0 && !l->error) l->error = errno;
    *bytes = l->position;
    return !l->error || train_log_whole(l, err);
}

bool train_log_rewind(struct train_log *l, uint64_t position, struct err *err) {
    if (position > l->position)
        return err_set(err, ERR_CORRUPT, "the log has %llu bytes, but had %llu when the checkpoint was written; it is another run's, or was cut",
                       (unsigned long long)l->position, (unsigned long long)position);
    if (ftruncate(l->fd, (off_t)position) != 0) return err_set(err, err_code_of(errno), "cannot cut the log back: %s", strerror(errno));
    l->position = position;
    l->resumed = position > 0;
    return true;
}

// ---- JSON lines ----

static void write_all(int fd, const char *at, size_t n, int *error) {
    while (n > 0 && !*error) {
        ssize_t done = write(fd, at, n);
        if (done < 0 && errno == EINTR) continue;
        if (done < 0) *error = errno;
        else at += done, n -= (size_t)done;
    }
}

static void line_begin(struct train_log *l, const char *event) {
    buf_clear(&l->line);
    buf_printf(&l->line, "{\"event\":\"%s\"", event);
}

static void put_count(struct train_log *l, const char *name, uint64_t v) { buf_printf(&l->line, ",\"%s\":%llu", name, (unsigned long long)v); }

static void put_real(struct train_log *l, const char *name, double v) {
    if (isfinite(v)) buf_printf(&l->line, ",\"%s\":%.9g", name, v);
    else buf_printf(&l->line, ",\"%s\":null", name);
}

static void put_text(struct train_log *l, const char *name, const char *s) {
    buf_printf(&l->line, ",\"%s\":", name);
    buf_add_json_string(&l->line, s, strlen(s));
}

void train_log_hide(const struct train_log *l, char *text) {
    for (size_t i = 0; i < sizeof l->hidden / sizeof *l->hidden && l->hidden[i]; i++) {
        const size_t n = strlen(l->hidden[i]);
        for (char *at = text; n && (at = strstr(at, l->hidden[i]));) memmove(at, at + n, strlen(at + n) + 1);
    }
}

static void line_end(struct train_log *l, bool file) {
    buf_add_str(&l->line, "}\n");
    train_log_hide(l, l->line.data);
    l->line.len = strlen(l->line.data);
    if (l->json) write_all(STDOUT_FILENO, l->line.data, l->line.len, &l->out_error);
    if (!file || l->fd < 0) return;
    write_all(l->fd, l->line.data, l->line.len, &l->error);
    l->position += l->line.len;
}

static void step_line(struct train_log *l, const struct train_event *e) {
    line_begin(l, "step");
    put_count(l, "step", e->step);
    put_real(l, "epoch", e->epoch);
    put_real(l, "train_loss", e->train_loss);
    put_real(l, "train_accuracy", e->train_accuracy);
    put_real(l, "learning_rate", e->learning_rate);
    put_real(l, "grad_norm", e->grad_norm);
    put_count(l, "tokens", e->tokens);
    put_count(l, "supervised_tokens", e->supervised);
    put_real(l, "seconds", e->seconds);
    put_real(l, "tokens_per_second", e->tokens_per_second);
    line_end(l, true);
}

static void eval_line(struct train_log *l, const struct train_event *e) {
    line_begin(l, "eval");
    put_count(l, "step", e->step);
    put_real(l, "epoch", e->epoch);
    put_count(l, "tokens", e->tokens);
    put_real(l, "train_loss", e->eval_train_loss);
    put_real(l, "valid_loss", e->valid_loss);
    put_real(l, "perplexity", e->perplexity);
    put_real(l, "token_accuracy", e->token_accuracy);
    put_real(l, "bits_per_byte", e->bits_per_byte);
    put_count(l, "valid_tokens", e->n_valid_targets);
    buf_printf(&l->line, ",\"best\":%s", e->best ? "true" : "false");
    line_end(l, true);
}

static void sample_line(struct train_log *l, const struct train_event *e) {
    line_begin(l, "sample");
    put_count(l, "step", e->step);
    put_text(l, "prompt", e->prompt);
    put_text(l, "text", e->text);
    line_end(l, true);
}

// A path in --out, from there.
static const char *path_inside(const struct train_log *l, const char *path) {
    const size_t n = strlen(l->out);
    if (!n || strncmp(path, l->out, n) != 0) return path;
    return path + n + strspn(path + n, "/");
}

static void checkpoint_line(struct train_log *l, const struct train_event *e) {
    line_begin(l, "checkpoint");
    put_count(l, "step", e->step);
    put_text(l, "path", path_inside(l, e->path));
    if (e->end == TRAIN_END_STOPPED) buf_add_str(&l->line, ",\"stopped\":true");
    line_end(l, true);
}

void train_log_live(struct train_log *l, uint64_t step, const char *path) {
    if (!l->json) return;
    line_begin(l, "live");
    put_count(l, "step", step);
    put_text(l, "path", path_inside(l, path));
    line_end(l, false);
}

// What an earlier run left in the file goes, unless the trainer has just cut it back to go on from there.
static void start_line(struct train_log *l, const struct train_event *e) {
    if (!l->resumed && l->fd >= 0 && l->position > 0) {
        if (ftruncate(l->fd, 0) != 0 && !l->error) l->error = errno;
        l->position = 0;
    }
    line_begin(l, "start");
    put_count(l, "step", e->step);
    put_count(l, "total_steps", e->total_steps);
    buf_printf(&l->line, "%s%s", *l->facts ? "," : "", l->facts);
    line_end(l, !l->resumed);
}

static void done_line(struct train_log *l, const struct train_event *e) {
    static const char *const ends[] = {"finished", "early_stopping", "stopped"};
    line_begin(l, "done");
    put_count(l, "step", e->step);
    put_text(l, "reason", ends[e->end]);
    line_end(l, true);
}

// ---- for people ----

// Removes the progress line, so that another line can be printed.
static void progress_clear(struct train_log *l) {
    if (l->open_line) fputs("\r\033[K", stderr);
    l->open_line = false;
}

double train_progress_pace(double average, double seconds) { return average > 0 ? 0.9 * average + 0.1 * seconds : seconds; }

void train_progress_write(const struct train_progress *p, struct buf *out) {
    const double left = (double)(p->total_steps - p->step);
    const unsigned eta = (unsigned)fmin(left * p->seconds_per_step, 359999);
    buf_printf(out, "step %llu/%llu  epoch %.2f  loss %.4f  %.0f tokens/s  ETA %u:%02u:%02u", (unsigned long long)p->step,
               (unsigned long long)p->total_steps, p->epoch, p->loss, p->tokens_per_second, eta / 3600, eta / 60 % 60, eta % 60);
}

static void progress_step(struct train_log *l, const struct train_event *e) {
    const uint64_t now = clock_ns();
    struct buf line = {0};
    l->seconds_per_step = train_progress_pace(l->seconds_per_step, e->seconds);
    if (e->step < e->total_steps && now - l->last_ns < (l->terminal ? TERMINAL_INTERVAL_NS : PLAIN_INTERVAL_NS)) return;
    l->last_ns = now;
    progress_clear(l);
    const struct train_progress p = {e->step, e->total_steps, e->epoch, e->train_loss, e->tokens_per_second, l->seconds_per_step};
    train_progress_write(&p, &line);
    fprintf(stderr, "%s%s", line.data, l->terminal ? "" : "\n");
    buf_finish(&line);
    l->open_line = l->terminal;
}

static void progress_eval(struct train_log *l, const struct train_event *e) {
    progress_clear(l);
    fprintf(stderr, "step %llu/%llu  validation loss %.4f%s  perplexity %.2f  token accuracy %.1f%%\n", (unsigned long long)e->step,
            (unsigned long long)e->total_steps, e->valid_loss, e->best ? " (best)" : "", e->perplexity, 100 * e->token_accuracy);
}

static void progress_sample(struct train_log *l, const struct train_event *e) {
    struct buf text = {0};
    buf_add_str(&text, "  ");
    buf_add_json_string(&text, e->prompt, strlen(e->prompt));
    buf_add_str(&text, " -> ");
    buf_add_json_string(&text, e->text, strlen(e->text));
    progress_clear(l);
    fprintf(stderr, "%s\n", buf_str(&text));
    buf_finish(&text);
}

static void warning_line(struct train_log *l, const char *message) {
    progress_clear(l);
    fprintf(stderr, "couplet train: warning: %s\n", message);
    line_begin(l, "warning");
    put_text(l, "message", message);
    line_end(l, true);
}

void train_log_error(struct train_log *l, const char *code, const struct err *e) {
    progress_clear(l);
    line_begin(l, "error");
    put_text(l, "code", code);
    put_text(l, "message", e->message);
    line_end(l, true);
}

void train_log_event(struct train_log *l, const struct train_event *e) {
    switch (e->kind) {
    case TRAIN_START: start_line(l, e); break;
    case TRAIN_STEP:
        step_line(l, e);
        progress_step(l, e);
        break;
    case TRAIN_EVAL:
        eval_line(l, e);
        progress_eval(l, e);
        break;
    case TRAIN_SAMPLE:
        sample_line(l, e);
        progress_sample(l, e);
        break;
    case TRAIN_CHECKPOINT: checkpoint_line(l, e); break;
    case TRAIN_WARNING: warning_line(l, e->message); break;
    case TRAIN_DONE: done_line(l, e); break;
    }
}
