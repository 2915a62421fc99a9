// SPDX-License-Identifier: MIT
// See report_card.h. Nothing in the report depends on time or thread count.
//
// The verdict: each held-out row has a mean loss before and after; their differences d are compared with zero by a paired t test, which
// needs no more than that the rows are independent. A row counts as one whatever its length, since the tokens of a row hang together. The loss
// that is printed is the mean over tokens, as in the log; where the two disagree about the direction the verdict is "no change".
#include "server/report_card.h"

#include "base/file.h"
#include "base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MEASURE_ROWS = 1024 }; // tokens a forward pass, or the longest row

bool held_out_init(struct held_out *h, const struct data_view *v, struct err *err) {
    *h = (struct held_out){.n = v->n};
    h->rows.loss = mem_try_alloc(v->n, sizeof(*h->rows.loss), "the held-out losses", err);
    h->rows.n_targets = h->rows.loss ? mem_try_alloc(v->n, sizeof(*h->rows.n_targets), "the held-out losses", err) : NULL;
    if (!h->rows.n_targets) held_out_finish(h);
    return h->rows.n_targets;
}

bool held_out_measure(struct held_out *h, struct params *p, const struct data_view *v, struct pool *pool, struct err *err) {
    struct network_config c = {.max_segment = 1, .inference = true};
    struct network *net = NULL;
    for (size_t i = 0; i < v->n; i++) c.max_segment = MAX(c.max_segment, dataset_length(v->data, v->items[i]));
    c.max_rows = MAX(c.max_segment, (size_t)MEASURE_ROWS);
    if (held_out_init(h, v, err)) net = network_create(p, &c, pool, err);
    const bool ok = net && view_losses(net, v, c.max_rows, h->rows.loss, h->rows.n_targets, err);
    h->rows.whole = ok;
    network_destroy(net);
    if (!ok) held_out_finish(h);
    return ok;
}

void held_out_finish(struct held_out *h) {
    free(h->rows.loss);
    free(h->rows.n_targets);
    *h = (struct held_out){0};
}

// ---- comparing ----

// Student's t that |t| exceeds by chance in 5 % of cases, for n - 1 degrees of freedom; past the table within 0.02.
static double t_critical(size_t n) {
    static const double table[] = {12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228};
    return n < 2 ? INFINITY : n - 2 < ARRAY_LEN(table) ? table[n - 2] : 1.96 + 2.45 / (double)(n - 1);
}

void held_out_compare(const struct held_out *before, const struct held_out *after, struct comparison *out) {
    *out = (struct comparison){0};
    double sum = 0, squares = 0, loss_before = 0, loss_after = 0;
    size_t targets = 0;
    for (size_t i = 0; i < before->n; i++) {
        if (!before->rows.n_targets[i]) continue;
        const double d = (after->rows.loss[i] - before->rows.loss[i]) / (double)before->rows.n_targets[i];
        sum += d;
        squares += d * d;
        out->n_rows++;
        out->n_gained += d < 0;
        loss_before += before->rows.loss[i];
        loss_after += after->rows.loss[i];
        targets += before->rows.n_targets[i];
    }
    if (!out->n_rows) return;
    const double n = (double)out->n_rows, mean = sum / n, variance = n > 1 ? fmax(squares - n * mean * mean, 0) / (n - 1) : 0;
    out->before = loss_before / (double)targets;
    out->after = loss_after / (double)targets;
    out->t = variance > 0 ? mean / sqrt(variance / n) : n > 1 && mean != 0 ? copysign(1e6, mean) : 0;
    out->t_needed = t_critical(out->n_rows);
    const bool sure = fabs(out->t) > out->t_needed && (mean < 0) == (out->after < out->before);
    out->verdict = !sure ? VERDICT_SAME : mean < 0 ? VERDICT_BETTER : VERDICT_WORSE;
}

// ---- writing ----

static const char *const verdicts[] = {"not measured", "better", "worse", "no change"};

void report_card_headline(const struct report_card *r, struct buf *out) {
    const struct comparison *c = &r->comparison;
    if (c->verdict == VERDICT_NONE) buf_add_str(out, "not measured: no rows were held out (--validation or --validation-split)");
    else
        buf_printf(out, "%s: validation loss %.4f -> %.4f on %zu held-out row%s against %s", verdicts[c->verdict], c->before, c->after, c->n_rows,
                   c->n_rows == 1 ? "" : "s", r->base);
}

static void markdown(const struct report_card *r, struct buf *o) {
    const struct comparison *c = &r->comparison;
    report_card_headline(r, o);
    buf_add_str(o, "\n\n");
    if (c->verdict != VERDICT_NONE) {
        buf_printf(o, "| | before | after |\n|---|---|---|\n| validation loss | %.4f | %.4f |\n| perplexity | %.2f | %.2f |\n\n", c->before, c->after,
                   exp(c->before), exp(c->after));
        buf_printf(o, "%zu of %zu rows have a lower loss than before. ", c->n_gained, c->n_rows);
        if (c->n_rows > 1)
            buf_printf(o, "Paired t over the rows: %.2f; below %.2f counts as better, above %.2f as worse, between them chance would do.\n\n", c->t,
                       -c->t_needed, c->t_needed);
        else buf_add_str(o, "One row cannot tell a change from chance.\n\n");
    }
    const struct train_result *t = r->result;
    buf_printf(o, "- data: %s, %zu rows to train on, %zu held out\n", r->data, r->n_train, r->n_validation);
    buf_printf(o, "- method: %s, %llu of %llu parameters trained\n", r->method, (unsigned long long)r->n_trainable, (unsigned long long)r->n_parameters);
    buf_printf(o, "- updates: %llu, the last with a training loss of %.4f\n", (unsigned long long)t->steps, t->last_train_loss);
    if (isfinite(t->best_valid_loss))
        buf_printf(o, "- lowest validation loss: %.4f, after update %llu\n", t->best_valid_loss, (unsigned long long)t->best_step);
    buf_printf(o, "- weights: %s\n", r->best_weights ? "those of the lowest validation loss" : "the last");
}

static void json(const struct report_card *r, struct buf *o) {
    const struct comparison *c = &r->comparison;
    const struct train_result *t = r->result;
    buf_add_str(o, "{\"headline\":");
    struct buf line = {0};
    report_card_headline(r, &line);
    buf_add_json_string(o, buf_str(&line), line.len);
    buf_finish(&line);
    buf_printf(o, ",\"verdict\":\"%s\"", verdicts[c->verdict]);
    if (c->verdict != VERDICT_NONE)
        buf_printf(o,
                   ",\"rows\":%zu,\"rows_gained\":%zu,\"valid_loss_before\":%.9g,\"valid_loss_after\":%.9g,\"perplexity_before\":%.9g,"
                   "\"perplexity_after\":%.9g,\"t\":%.9g",
                   c->n_rows, c->n_gained, c->before, c->after, exp(c->before), exp(c->after), c->t);
    buf_printf(o, ",\"steps\":%llu,\"best_step\":%llu,\"weights\":\"%s\",\"last_train_loss\":", (unsigned long long)t->steps,
               (unsigned long long)t->best_step, r->best_weights ? "best" : "last");
    buf_add_json_number(o, t->last_train_loss);
    buf_printf(o, ",\"run\":{%s}}\n", r->facts);
}

bool report_card_write(const struct report_card *r, const char *dir, struct err *err) {
    struct buf text = {0}, object = {0};
    char *md = path_join(dir, "report.md"), *js = path_join(dir, "report.json");
    markdown(r, &text);
    json(r, &object);
    const bool ok = file_write_atomic(js, object.data, object.len, 0644, err) && file_write_atomic(md, text.data, text.len, 0644, err);
    free(md);
    free(js);
    buf_finish(&text);
    buf_finish(&object);
    return ok;
}
