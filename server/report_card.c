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

// ---- measuring ----

struct measure { // one forward pass over several rows
    uint32_t *ids, *starts;
    int32_t *targets;
    float *losses;
    size_t max_rows, n_rows, n_segments;
};

static bool measure_init(struct measure *m, const struct data_view *v, size_t *longest, struct err *err) {
    *longest = 1;
    for (size_t i = 0; i < v->n; i++) *longest = MAX(*longest, dataset_length(v->data, v->items[i]));
    m->max_rows = MAX(*longest, (size_t)MEASURE_ROWS);
    m->ids = mem_try_alloc(m->max_rows, sizeof(*m->ids), "the held-out rows", err);
    m->starts = mem_try_alloc(m->max_rows + 1, sizeof(*m->starts), "the held-out rows", err);
    m->targets = mem_try_alloc(m->max_rows, sizeof(*m->targets), "the held-out rows", err);
    m->losses = mem_try_alloc(m->max_rows, sizeof(*m->losses), "the held-out rows", err);
    return m->ids && m->starts && m->targets && m->losses;
}

static void measure_finish(struct measure *m) {
    free(m->ids);
    free(m->starts);
    free(m->targets);
    free(m->losses);
}

// The rows that were gathered are `first`, first + 1, ... of h.
static void measure_run(struct measure *m, struct network *net, struct held_out *h, size_t first) {
    struct batch b = {.n_rows = m->n_rows, .ids = m->ids, .targets = m->targets, .n_segments = m->n_segments, .starts = m->starts};
    for (size_t r = 0; r < m->n_rows; r++) b.n_supervised += m->targets[r] != TARGET_IGNORED;
    struct loss_sums sums;
    network_evaluate(net, &b, &sums, m->losses);
    for (size_t s = 0; s < m->n_segments; s++)
        for (size_t r = m->starts[s]; r < m->starts[s + 1]; r++) {
            h->loss[first + s] += (double)m->losses[r];
            h->targets[first + s] += m->targets[r] != TARGET_IGNORED;
        }
    m->n_rows = m->n_segments = 0;
}

static bool measure_view(struct measure *m, struct network *net, const struct data_view *v, struct held_out *h, struct err *err) {
    for (size_t i = 0; i < v->n; i++) {
        const size_t n = dataset_length(v->data, v->items[i]);
        if (m->n_rows + n > m->max_rows) measure_run(m, net, h, i - m->n_segments);
        if (!dataset_read(v->data, v->items[i], m->ids + m->n_rows, m->targets + m->n_rows, err)) return false;
        m->n_rows += n;
        m->starts[++m->n_segments] = (uint32_t)m->n_rows;
    }
    if (m->n_segments) measure_run(m, net, h, v->n - m->n_segments);
    return true;
}

bool held_out_measure(struct held_out *h, struct params *p, const struct data_view *v, struct pool *pool, struct err *err) {
    struct measure m = {0};
    struct network *net = NULL;
    size_t longest;
    *h = (struct held_out){.n = v->n};
    h->loss = mem_try_alloc(v->n, sizeof(*h->loss), "the held-out losses", err);
    h->targets = mem_try_alloc(v->n, sizeof(*h->targets), "the held-out losses", err);
    bool ok = h->loss && h->targets && measure_init(&m, v, &longest, err);
    if (ok) net = network_create(p, &(struct network_config){.max_rows = m.max_rows, .max_segment = longest, .inference = true}, pool, err);
    ok = net && measure_view(&m, net, v, h, err);
    network_destroy(net);
    measure_finish(&m);
    if (!ok) held_out_finish(h);
    return ok;
}

void held_out_finish(struct held_out *h) {
    free(h->loss);
    free(h->targets);
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
        if (!before->targets[i]) continue;
        const double d = (after->loss[i] - before->loss[i]) / (double)before->targets[i];
        sum += d;
        squares += d * d;
        out->n_rows++;
        out->n_gained += d < 0;
        loss_before += before->loss[i];
        loss_after += after->loss[i];
        targets += before->targets[i];
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
