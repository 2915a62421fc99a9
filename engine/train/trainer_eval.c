// SPDX-License-Identifier: MIT
// Evaluation: the mean loss over a view, and what it means for a run (best so far, early stopping). Thread: the trainer's.
#include "engine/train/trainer_internal.h"

#include "base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct eval_rows { // a batch under construction
    uint32_t *ids, *starts; // [max_rows], [max_rows + 1]
    int32_t *targets;       // [max_rows]
    struct batch batch;
    double *loss; // [view's n] of every example, or NULL
    size_t *n_targets;
    size_t first;        // the example that the batch begins with
    float *token_losses; // [max_rows] where loss is wanted
};

static bool rows_init(struct eval_rows *r, size_t max_rows, struct err *err) {
    r->ids = mem_try_alloc(max_rows, sizeof(*r->ids), "evaluation rows", err);
    r->targets = r->ids ? mem_try_alloc(max_rows, sizeof(*r->targets), "evaluation rows", err) : NULL;
    r->starts = r->targets ? mem_try_alloc(max_rows + 1, sizeof(*r->starts), "evaluation rows", err) : NULL;
    if (r->loss && r->starts) r->token_losses = mem_try_alloc(max_rows, sizeof(*r->token_losses), "evaluation rows", err);
    r->batch = (struct batch){.ids = r->ids, .targets = r->targets, .starts = r->starts};
    return r->starts && (!r->loss || r->token_losses);
}

static void rows_finish(struct eval_rows *r) {
    free(r->ids);
    free(r->targets);
    free(r->starts);
    free(r->token_losses);
}

static bool rows_add(struct eval_rows *r, const struct dataset *d, size_t item, const struct tokenizer *k, uint64_t *bytes, struct err *err) {
    struct batch *b = &r->batch;
    const size_t n = dataset_length(d, item);
    if (!dataset_read(d, item, r->ids + b->n_rows, r->targets + b->n_rows, err)) return false;
    for (size_t i = 0; i < n; i++) {
        const int32_t target = r->targets[b->n_rows + i];
        if (target == TARGET_IGNORED) continue;
        b->n_supervised++;
        size_t len = 0;
        if (k && (size_t)target < tokenizer_size(k)) tokenizer_bytes(k, (uint32_t)target, &len);
        *bytes += len;
    }
    r->starts[b->n_segments++] = (uint32_t)b->n_rows;
    b->n_rows += n;
    r->starts[b->n_segments] = (uint32_t)b->n_rows;
    return true;
}

static void rows_evaluate(struct eval_rows *r, struct network *n, struct loss_sums *sums) {
    struct loss_sums s = {0};
    if (r->batch.n_supervised > 0) network_evaluate(n, &r->batch, &s, r->token_losses);
    for (size_t i = 0; r->loss && r->batch.n_supervised > 0 && i < r->batch.n_segments; i++)
        for (size_t row = r->starts[i]; row < r->starts[i + 1]; row++) {
            r->loss[r->first + i] += (double)r->token_losses[row];
            r->n_targets[r->first + i] += r->targets[row] != TARGET_IGNORED;
        }
    r->first += r->batch.n_segments;
    sums->loss += s.loss;
    sums->n_targets += s.n_targets;
    sums->n_correct += s.n_correct;
    r->batch.n_rows = r->batch.n_segments = r->batch.n_supervised = 0;
}

// stop (may be NULL): looked at before every batch; *complete says whether all of the view was evaluated.
static bool view_evaluate_until(struct network *n, const struct data_view *v, const struct tokenizer *k, size_t max_rows, const bool volatile *stop,
                                double *loss, size_t *n_targets, struct view_scores *out, bool *complete, struct err *err) {
    struct eval_rows r = {.loss = loss, .n_targets = n_targets};
    struct view_scores scores = {0};
    bool ok = rows_init(&r, max_rows, err), stopped = false;
    for (size_t i = 0; ok && !stopped && i < v->n; i++) {
        const size_t length = dataset_length(v->data, v->items[i]);
        if (r.batch.n_rows + length > max_rows) rows_evaluate(&r, n, &scores.sums);
        if (length > max_rows) ok = err_set(err, ERR_TOO_LARGE, "an example of %zu tokens does not fit %zu rows of evaluation", length, max_rows);
        ok = ok && rows_add(&r, v->data, v->items[i], k, &scores.bytes, err);
        stopped = stop && *stop;
    }
    if (ok && !stopped) rows_evaluate(&r, n, &scores.sums);
    rows_finish(&r);
    if (ok) *out = scores, *complete = !stopped;
    return ok;
}

static void losses_clear(struct example_losses *l, size_t n) {
    if (!l) return;
    memset(l->loss, 0, n * sizeof(*l->loss));
    memset(l->n_targets, 0, n * sizeof(*l->n_targets));
    l->whole = false;
}

bool view_evaluate(struct network *n, const struct data_view *v, const struct tokenizer *tokenizer, size_t max_rows, struct view_scores *out,
                   struct err *err) {
    bool complete;
    return view_evaluate_until(n, v, tokenizer, max_rows, NULL, NULL, NULL, out, &complete, err);
}

bool view_losses(struct network *n, const struct data_view *v, size_t max_rows, double *loss, size_t *n_targets, struct err *err) {
    struct view_scores scores;
    bool complete;
    losses_clear(&(struct example_losses){.loss = loss, .n_targets = n_targets}, v->n);
    return view_evaluate_until(n, v, NULL, max_rows, NULL, loss, n_targets, &scores, &complete, err);
}

// A loss that is not a number is no gain and, in the state, none at all.
static void state_take_loss(struct checkpoint_state *s, double loss, bool *best) {
    *best = isfinite(loss) && !(loss >= s->best_valid_loss); // NaN: none before
    if (*best) s->best_valid_loss = loss, s->best_step = s->step;
    s->evals_without_gain = *best ? 0 : s->evals_without_gain + 1;
    s->last_valid_loss = isfinite(loss) ? loss : NAN;
    if (s->step == 0) s->first_valid_loss = s->last_valid_loss;
}

bool trainer_evaluate(struct trainer *t, struct err *err) {
    struct checkpoint_state *s = &t->state;
    if (t->validation) {
        struct view_scores scores;
        struct example_losses *keep = s->step == 0 ? t->config->first : t->config->last;
        bool complete, best;
        losses_clear(keep, t->validation->n);
        if (!view_evaluate_until(t->network, t->validation, t->tokenizer, t->max_rows, t->config->stop, keep ? keep->loss : NULL,
                                 keep ? keep->n_targets : NULL, &scores, &complete, err))
            return false;
        if (!complete) return true;
        if (keep) keep->whole = true, keep->step = s->step;
        const double n = (double)scores.sums.n_targets, loss = scores.sums.loss / n;
        state_take_loss(s, loss, &best);
        trainer_emit(t, (struct train_event){
                            .kind = TRAIN_EVAL,
                            .valid_loss = loss,
                            .perplexity = exp(loss),
                            .token_accuracy = (double)scores.sums.n_correct / n,
                            .bits_per_byte = scores.bytes ? scores.sums.loss / log(2.0) / (double)scores.bytes : NAN,
                            .eval_train_loss = s->window_targets ? s->window_loss / (double)s->window_targets : NAN,
                            .best = best,
                            .n_valid_targets = scores.sums.n_targets,
                        });
        s->window_loss = 0;
        s->window_targets = 0;
    }
    if (!samples_emit(t, err)) return false;
    s->evaluated = true;
    return true;
}
