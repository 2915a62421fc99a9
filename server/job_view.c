// SPDX-License-Identifier: MIT
// See job_view.h. What escapes the terminal gets are here; everything that comes from outside is cleaned of its own.
#include "server/job_view.h"

#include "base/clock.h"
#include "base/mem.h"
#include "server/client.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BAR_WIDTH = 24, CURVE_WIDTH = 48 };
#define PLAIN_INTERVAL_NS 10000000000u

void job_view_init(struct job_view *v, bool json) {
    *v = (struct job_view){.json = json, .terminal = !json && isatty(STDOUT_FILENO), .valid_loss = NAN};
}

void job_view_finish(struct job_view *v) {
    buf_finish(&v->sample);
    free(v->losses);
}

// ---- drawing ----

static void block_add(struct buf *out, unsigned height) { buf_add_utf8(out, 0x2580 + height); } // 1 to 8 eighths: U+2581 to U+2588

void loss_curve_write(const double *losses, size_t n, size_t width, struct buf *out) {
    double means[256], low = INFINITY, high = -INFINITY;
    const size_t columns = MIN(MIN(n, width), ARRAY_LEN(means));
    for (size_t c = 0; c < columns; c++) {
        const size_t from = c * n / columns, to = (c + 1) * n / columns;
        means[c] = 0;
        for (size_t i = from; i < to; i++) means[c] += losses[i] / (double)(to - from);
        low = fmin(low, means[c]);
        high = fmax(high, means[c]);
    }
    for (size_t c = 0; c < columns; c++) {
        const double share = high > low ? (means[c] - low) / (high - low) : 0;
        block_add(out, 1 + (unsigned)lround(7 * share));
    }
}

static void bar_write(double share, struct buf *out) {
    const unsigned eighths = (unsigned)(fmin(fmax(share, 0), 1) * BAR_WIDTH * 8);
    for (unsigned i = 0; i < BAR_WIDTH; i++) {
        const unsigned here = eighths >= 8 * (i + 1) ? 8 : eighths > 8 * i ? eighths - 8 * i : 0;
        if (here) buf_add_utf8(out, 0x2590 - here); // U+2588 is full, U+258F an eighth
        else buf_add_utf8(out, 0x00b7);
    }
}

// Takes the frame from the screen; what is printed next begins where it began.
static void frame_clear(struct job_view *v) {
    if (v->frame_lines) printf("\033[%zuA\r\033[J", v->frame_lines);
    v->frame_lines = 0;
}

static void frame_line(struct job_view *v, const struct buf *line) {
    printf("%s\n", buf_str(line));
    v->frame_lines++;
}

// Lines that are too long are cut by the terminal (?7l), so that the frame has as many lines as it thinks.
static void frame_draw(struct job_view *v) {
    const struct train_progress *p = &v->progress;
    struct buf line = {0};
    frame_clear(v);
    if (p->total_steps) {
        fputs("\033[?7l", stdout);
        bar_write((double)p->step / (double)p->total_steps, &line);
        buf_printf(&line, " %3.0f%%  ", 100 * (double)p->step / (double)p->total_steps);
        train_progress_write(p, &line);
        frame_line(v, &line);
        buf_clear(&line);
        loss_curve_write(v->losses, v->n_losses, CURVE_WIDTH, &line);
        buf_printf(&line, "  loss %.4f -> %.4f", v->losses[0], v->losses[v->n_losses - 1]);
        if (isfinite(v->valid_loss)) buf_printf(&line, ", validation %.4f", v->valid_loss);
        frame_line(v, &line);
        if (v->sample.len) frame_line(v, &v->sample);
        fputs("\033[?7h", stdout);
    }
    fflush(stdout);
    buf_finish(&line);
}

void job_view_say(struct job_view *v, const char *line) {
    struct buf clean = {0};
    if (v->json) return;
    buf_printf(&clean, "%s\n", line);
    frame_clear(v);
    text_print(&clean);
    fflush(stdout);
    buf_finish(&clean);
    v->changed = true;
}

static void draw(struct job_view *v) {
    const struct train_progress *p = &v->progress;
    const uint64_t now = clock_ns();
    if (!v->changed || !v->n_losses) return;
    if (v->terminal) {
        frame_draw(v);
    } else {
        if (p->step == v->last_step || (p->step < p->total_steps && now - v->last_ns < PLAIN_INTERVAL_NS)) return;
        struct buf line = {0};
        train_progress_write(p, &line);
        puts(line.data);
        fflush(stdout);
        buf_finish(&line);
        v->last_ns = now;
        v->last_step = p->step;
    }
    v->changed = false;
}

// ---- events ----

static void read_step(struct job_view *v, const json_t *e) {
    const double rate = member_number(e, "data.tokens_per_second"), tokens = member_number(e, "data.tokens");
    struct train_progress *p = &v->progress;
    p->step = (uint64_t)fmax(member_number(e, "data.step"), 0);
    p->total_steps = (uint64_t)fmax(member_number(e, "data.total_steps"), (double)p->step);
    p->epoch = fmax(member_number(e, "data.epoch"), 0);
    p->loss = member_number(e, "data.train_loss");
    p->tokens_per_second = fmax(rate, 0);
    if (rate > 0 && tokens > v->tokens) p->seconds_per_step = train_progress_pace(p->seconds_per_step, (tokens - v->tokens) / rate);
    if (tokens > v->tokens) v->tokens = tokens;
    if (!isfinite(p->loss)) return;
    mem_grow(&v->losses, &v->cap_losses, v->n_losses + 1);
    v->losses[v->n_losses++] = p->loss;
    v->changed = true;
}

static void read_sample(struct job_view *v, const json_t *e) {
    const char *prompt = member_text(e, "data.prompt"), *text = member_text(e, "data.text");
    buf_clear(&v->sample);
    buf_add_json_string(&v->sample, prompt, strlen(prompt));
    buf_add_str(&v->sample, " -> ");
    buf_add_json_string(&v->sample, text, strlen(text));
    text_clean(&v->sample, 0);
    v->changed = true;
    if (!v->terminal) job_view_say(v, buf_str(&v->sample));
}

void job_view_event(void *view, const char *json) {
    struct job_view *v = view;
    if (v->json) {
        if (json) puts(json);
        fflush(stdout);
        return;
    }
    if (!json) {
        draw(v);
        return;
    }
    json_t *e = json_loads(json, 0, NULL);
    if (isfinite(member_number(e, "data.learning_rate"))) {
        read_step(v, e);
    } else if (strcmp(member_text(e, "data.kind"), "sample") == 0) {
        read_sample(v, e);
    } else {
        if (isfinite(member_number(e, "data.valid_loss"))) v->valid_loss = member_number(e, "data.valid_loss");
        job_view_say(v, member_text(e, "message"));
    }
    json_decref(e);
}
