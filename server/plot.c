// SPDX-License-Identifier: MIT
// See plot.h. The figure is that of Raschka's "Build a Large Language Model", chapter 5: training solid, validation dash-dotted, one axis of
// epochs, one of tokens. Besides, every update's loss as a thin line behind.
//
// Drawn from the log and from nothing else, so that a resumed run draws its first part too.
#include "server/plot.h"

#include "base/file.h"
#include "base/mem.h"
#include "server/loss_lines.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WIDTH = 800, HEIGHT = 480, LEFT = 74, RIGHT = 772, TOP = 62, BOTTOM = 416 };
enum { THIN_POINTS = 1200, SOLID_POINTS = 60 };
#define MAX_LOG_BYTES ((size_t)1 << 30)
#define TRAIN_COLOR "#1f77b4"
#define VALID_COLOR "#d95f02"

struct point {
    double epoch, tokens, loss;
};
struct series {
    struct point *points;
    size_t n, cap;
};
struct losses {
    struct series steps, train, valid; // every update; means between evaluations; evaluations
};

static void series_add(struct series *s, struct point p) {
    if (!isfinite(p.epoch) || !isfinite(p.loss)) return;
    mem_grow(&s->points, &s->cap, s->n + 1);
    s->points[s->n++] = p;
}

// ---- reading ----

static void line_take(void *ctx, const struct loss_line *line) {
    struct losses *l = ctx;
    if (!line->eval) {
        series_add(&l->steps, (struct point){line->epoch, line->tokens, line->train_loss});
        return;
    }
    // A mean over the updates since the last one belongs in their middle.
    const double since = l->valid.n ? l->valid.points[l->valid.n - 1].epoch : 0;
    series_add(&l->train, (struct point){(since + line->epoch) / 2, line->tokens, line->train_loss});
    series_add(&l->valid, (struct point){line->epoch, line->tokens, line->valid_loss});
}

// At most n points, each the mean of its neighbours.
static struct series series_thin(const struct series *s, size_t n) {
    struct series out = {0};
    const size_t buckets = MIN(s->n, n);
    for (size_t b = 0; b < buckets; b++) {
        const size_t from = s->n * b / buckets, to = s->n * (b + 1) / buckets;
        struct point mean = {0};
        for (size_t i = from; i < to; i++) {
            mean.epoch += s->points[i].epoch / (double)(to - from);
            mean.loss += s->points[i].loss / (double)(to - from);
        }
        series_add(&out, mean);
    }
    return out;
}

// ---- drawing ----

struct axis {
    double low, high, step;
};

// Ticks at 1, 2 or 5 times a power of ten, about `n` of them.
static double tick_step(double range, double n) {
    const double power = pow(10, floor(log10(range / n))), rest = range / n / power;
    return power * (rest <= 1 ? 1 : rest <= 2 ? 2 : rest <= 5 ? 5 : 10);
}

static struct axis axis_of(double low, double high, double margin, double n_ticks) {
    double range = high - low;
    if (range < 1e-9) range = fmax(fabs(high) * 0.1, 1e-6);
    return (struct axis){low - margin * range, low + range + margin * range, tick_step(range, n_ticks)};
}

static double along(const struct axis *a, double v, double from, double to) { return from + (v - a->low) / (a->high - a->low) * (to - from); }

static void series_range(const struct series *s, double *low, double *high) {
    for (size_t i = 0; i < s->n; i++) {
        *low = fmin(*low, s->points[i].loss);
        *high = fmax(*high, s->points[i].loss);
    }
}

static void draw_text(struct buf *o, double x, double y, const char *anchor, const char *text) {
    buf_printf(o, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">%s</text>\n", x, y, anchor, text);
}

static void draw_line(struct buf *o, double x1, double y1, double x2, double y2, const char *style) {
    buf_printf(o, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" %s/>\n", x1, y1, x2, y2, style);
}

static void draw_series(struct buf *o, const struct series *s, const struct axis *x, const struct axis *y, const char *style) {
    if (s->n == 0) return;
    buf_printf(o, "<polyline fill=\"none\" stroke-linejoin=\"round\" %s points=\"", style);
    for (size_t i = 0; i < s->n; i++)
        buf_printf(o, "%s%.1f,%.1f", i ? " " : "", along(x, s->points[i].epoch, LEFT, RIGHT), along(y, s->points[i].loss, BOTTOM, TOP));
    buf_add_str(o, "\"/>\n");
}

static void draw_points(struct buf *o, const struct series *s, const struct axis *x, const struct axis *y, const char *color) {
    if (s->n > 40) return; // the line says it better
    for (size_t i = 0; i < s->n; i++)
        buf_printf(o, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"2.6\" fill=\"%s\"/>\n", along(x, s->points[i].epoch, LEFT, RIGHT),
                   along(y, s->points[i].loss, BOTTOM, TOP), color);
}

// "0.05", "12", "1.5M": as many decimals as the step needs.
static void tick_label(double v, double step, bool large, char out[32]) {
    if (fabs(v) < step * 1e-6) v = 0; // not "-0.0"
    const double unit = large && v >= 1e6 ? 1e6 : large && v >= 1e4 ? 1e3 : 1;
    const double digits = -floor(log10(step / unit) + 1e-9);
    snprintf(out, 32, "%.*f%s", digits > 0 ? (int)fmin(digits, 9) : 0, v / unit, unit >= 1e6 ? "M" : unit >= 1e3 ? "k" : "");
}

static void draw_axes(struct buf *o, const struct axis *x, const struct axis *y, double tokens_per_epoch) {
    char label[32];
    for (double v = ceil(y->low / y->step) * y->step; v <= y->high; v += y->step) {
        const double at = along(y, v, BOTTOM, TOP);
        tick_label(v, y->step, false, label);
        draw_line(o, LEFT, at, RIGHT, at, "stroke=\"#e6e6e6\"");
        draw_line(o, LEFT - 5, at, LEFT, at, "stroke=\"#333\"");
        draw_text(o, LEFT - 9, at + 4, "end", label);
    }
    for (double v = ceil(x->low / x->step - 1e-9) * x->step; v <= x->high; v += x->step) {
        const double at = along(x, v, LEFT, RIGHT);
        tick_label(v, x->step, false, label);
        draw_line(o, at, BOTTOM, at, BOTTOM + 5, "stroke=\"#333\"");
        draw_text(o, at, BOTTOM + 20, "middle", label);
    }
    draw_text(o, (LEFT + RIGHT) / 2.0, BOTTOM + 44, "middle", "Epochs");
    buf_printf(o, "<text transform=\"translate(20 %d) rotate(-90)\" text-anchor=\"middle\">Loss</text>\n", (TOP + BOTTOM) / 2);
    if (tokens_per_epoch > 0) {
        const double step = tick_step((x->high - x->low) * tokens_per_epoch, 8);
        for (double v = ceil(fmax(x->low, 0) * tokens_per_epoch / step) * step; v <= x->high * tokens_per_epoch; v += step) {
            const double at = along(x, v / tokens_per_epoch, LEFT, RIGHT);
            tick_label(v, step, true, label);
            draw_line(o, at, TOP - 5, at, TOP, "stroke=\"#333\"");
            draw_text(o, at, TOP - 10, "middle", label);
        }
        draw_text(o, (LEFT + RIGHT) / 2.0, TOP - 34, "middle", "Tokens seen");
    }
    buf_printf(o, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"none\" stroke=\"#333\"/>\n", LEFT, TOP, RIGHT - LEFT, BOTTOM - TOP);
}

#define SOLID "stroke=\"" TRAIN_COLOR "\" stroke-width=\"2\""
#define DASH_DOT "stroke=\"" VALID_COLOR "\" stroke-width=\"2\" stroke-dasharray=\"10 4 2 4\""

static void draw_legend(struct buf *o, bool valid) {
    const int x = RIGHT - 166, y = TOP + 10, rows = valid ? 2 : 1;
    buf_printf(o, "<rect x=\"%d\" y=\"%d\" width=\"156\" height=\"%d\" rx=\"4\" fill=\"#fff\" fill-opacity=\"0.85\" stroke=\"#ccc\"/>\n", x, y, 10 + 20 * rows);
    draw_line(o, x + 10, y + 15, x + 42, y + 15, SOLID);
    draw_text(o, x + 50, y + 19, "start", "Training loss");
    if (!valid) return;
    draw_line(o, x + 10, y + 35, x + 42, y + 35, DASH_DOT);
    draw_text(o, x + 50, y + 39, "start", "Validation loss");
}

static void draw(struct buf *o, const struct losses *l, const struct series *thin, const struct series *solid) {
    double low = INFINITY, high = -INFINITY, first = INFINITY, last = -INFINITY, tokens_per_epoch = 0;
    series_range(thin, &low, &high);
    series_range(solid, &low, &high);
    series_range(&l->valid, &low, &high);
    const struct series *all[] = {thin, solid, &l->valid};
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        if (all[i]->n == 0) continue;
        first = fmin(first, all[i]->points[0].epoch);
        last = fmax(last, all[i]->points[all[i]->n - 1].epoch);
    }
    const struct point *end = l->steps.n ? &l->steps.points[l->steps.n - 1] : NULL;
    if (end && end->epoch > 0) tokens_per_epoch = end->tokens / end->epoch;
    const struct axis x = axis_of(first, last, 0.03, 6), y = axis_of(low, high, 0.05, 6);
    buf_printf(o,
               "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" font-family=\"sans-serif\" font-size=\"13\" "
               "fill=\"#222\">\n<title>Training and validation loss</title>\n<rect width=\"%d\" height=\"%d\" fill=\"#fff\"/>\n",
               WIDTH, HEIGHT, WIDTH, HEIGHT, WIDTH, HEIGHT);
    draw_axes(o, &x, &y, tokens_per_epoch);
    draw_series(o, thin, &x, &y, "stroke=\"" TRAIN_COLOR "\" stroke-width=\"1\" stroke-opacity=\"0.3\"");
    draw_series(o, solid, &x, &y, SOLID);
    draw_series(o, &l->valid, &x, &y, DASH_DOT);
    draw_points(o, solid, &x, &y, TRAIN_COLOR);
    draw_points(o, &l->valid, &x, &y, VALID_COLOR);
    draw_legend(o, l->valid.n > 0);
    buf_add_str(o, "</svg>\n");
}

bool plot_losses(const char *log, size_t len, struct buf *svg, struct err *err) {
    struct losses l = {0};
    loss_lines_each(log, len, line_take, &l);
    const bool ok = l.steps.n || l.valid.n;
    if (ok) { // with fewer than two evaluations there is no curve of means: the updates' own, smoothed
        struct series thin = series_thin(&l.steps, THIN_POINTS), smooth = series_thin(&l.steps, SOLID_POINTS);
        draw(svg, &l, &thin, l.train.n > 1 ? &l.train : &smooth);
        free(thin.points);
        free(smooth.points);
    }
    free(l.steps.points);
    free(l.train.points);
    free(l.valid.points);
    return ok || err_set(err, ERR_INVALID, "the log has no losses to plot");
}

bool plot_write(const char *log_path, const char *svg_path, struct err *err) {
    size_t len;
    char *log = file_read(log_path, MAX_LOG_BYTES, &len, err);
    if (!log) return false;
    struct buf svg = {0};
    const bool ok = plot_losses(log, len, &svg, err) && file_write_atomic(svg_path, svg.data, svg.len, 0644, err);
    buf_finish(&svg);
    free(log);
    return ok;
}
