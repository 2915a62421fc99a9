// SPDX-License-Identifier: MIT
// The training loop. Thread: the caller's, work is spread over the pool.
//
// Invariants: (1) `state`, the optimizer and the trained weights are the run; whatever else decides a number follows from them, the configuration
// and the data. They change together, at the end of an update, so a run may be left between any two of them. (2) The loop goes from one such
// place to the next in a fixed order: evaluate, checkpoint, end or stop, update; a resumed run enters it at the top. (3) Checkpoints made by
// the clock or a signal leave no trace in the log of the resumed run and are never rolled back to: numbers do not depend on time.
#include "engine/train/trainer_internal.h"

#include "base/clock.h"
#include "base/mem.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { NOT_FINITE_MAX = 3 };                        // skipped updates in a row, or rollbacks to one checkpoint, that end the run
#define CHECKPOINT_NS ((uint64_t)600 * 1000000000u) // no more than this much work is lost, however far apart evaluations are

void trainer_emit(struct trainer *t, struct train_event e) {
    const struct checkpoint_state *s = &t->state;
    e.step = s->step;
    e.total_steps = t->total;
    e.epoch = (double)s->epoch + (double)s->index / (double)t->updates_of_epoch;
    e.tokens = s->tokens;
    e.supervised = s->supervised;
    t->hooks->emit(t->hooks->ctx, &e);
}

static void trainer_warn(void *ctx, const char *message) {
    trainer_emit(ctx, (struct train_event){.kind = TRAIN_WARNING, .message = message});
}

// ---- checkpoints ----

static bool not_finite_fail(struct err *err, const char *what) {
    return err_set_param(err, ERR_CORRUPT, "non_finite_loss", "%s: the learning rate is probably too high", what);
}

// The weights themselves are not finite: back to those of the last regular checkpoint; data and step number go on, past what broke them.
static bool trainer_roll_back(struct trainer *t, struct err *err) {
    struct checkpoint_state old;
    struct buf text = {0};
    if (t->state.regular_step == 0) return not_finite_fail(err, "weights became infinite or NaN before there was a checkpoint to go back to");
    if (++t->rollbacks > NOT_FINITE_MAX) return not_finite_fail(err, "weights became infinite or NaN again and again");
    if (!checkpoint_load(t->config->checkpoint_dir, t->state.regular_step, t->config->run_hash, &old, &t->optimizer, err)) return false;
    buf_printf(&text, "weights are not finite after update %llu: rolled back to the checkpoint of update %llu", (unsigned long long)t->state.step,
               (unsigned long long)old.step);
    trainer_warn(t, buf_str(&text));
    buf_finish(&text);
    return true;
}

// regular: at a place that the run's numbers decide; its event comes after its log position, so that a resumed run repeats it.
static bool trainer_save(struct trainer *t, bool regular, struct err *err) {
    const struct train_config *c = t->config;
    struct checkpoint_state saved = t->state;
    if (regular) saved.regular_step = saved.step;
    if (t->hooks->log_position && !t->hooks->log_position(t->hooks->ctx, &saved.log_position, err)) return false;
    if (!checkpoint_save(c->checkpoint_dir, &saved, &t->optimizer, err)) return false;
    t->state = saved;
    t->saved_ns = clock_ns();
    if (t->irregular_step && t->irregular_step != saved.step) checkpoint_remove(c->checkpoint_dir, t->irregular_step);
    t->irregular_step = regular ? 0 : saved.step;
    if (regular) t->rollbacks = 0;
    checkpoint_prune(c->checkpoint_dir, c->keep + !regular, saved.best_step);
    return true;
}

// end: stopped where it was only made because the run stops.
static void checkpoint_announce(struct trainer *t, enum train_end end) {
    char *path = checkpoint_path(t->config->checkpoint_dir, t->state.step);
    trainer_emit(t, (struct train_event){.kind = TRAIN_CHECKPOINT, .path = path, .end = end});
    free(path);
}

// A full disk must not end a run that still has its weights in memory: it is told and tried again at the next place.
static bool trainer_try_save(struct trainer *t, bool regular) {
    struct err fault = {0};
    if (trainer_save(t, regular, &fault)) return true;
    t->saved_ns = clock_ns();
    (void)!err_prefix(&fault, "no checkpoint at update %llu", (unsigned long long)t->state.step);
    trainer_warn(t, fault.message);
    return false;
}

static bool trainer_stop_save(struct trainer *t, struct err *err) {
    if (!trainer_save(t, false, err)) return false;
    checkpoint_announce(t, TRAIN_END_STOPPED);
    return true;
}

static bool checkpoint_due(const struct trainer *t, bool evaluated_now, bool end) {
    const struct checkpoint_state *s = &t->state;
    const uint64_t every = t->config->checkpoint_every;
    if (!t->config->checkpoint_dir || s->step == 0 || s->regular_step == s->step) return false;
    if (end || (every ? s->step % every == 0 : evaluated_now)) return true;
    return evaluated_now && t->config->early_stopping > 0 && s->best_step == s->step; // the weights to go back to
}

// ---- one update ----

static bool evaluation_due(const struct trainer *t) {
    const uint64_t every = t->config->eval_every, step = t->state.step;
    return step == 0 || step == t->total || (every ? step % every == 0 : t->state.index == 0);
}

static void cursor_advance(struct trainer *t, const struct update *u) {
    struct checkpoint_state *s = &t->state;
    const bool last = u->index + 1 == u->of;
    s->epoch += last;
    s->index = last ? 0 : s->index + 1;
    if (last) t->updates_of_epoch = batcher_updates_per_epoch(t->batcher, s->epoch);
    s->step++;
    s->tokens += u->n_rows;
    s->supervised += u->n_supervised;
    s->evaluated = !evaluation_due(t);
}

// The weights have not been touched: leaving the update out is all there is to roll back, unless an earlier one broke them.
static bool update_skip(struct trainer *t, double loss, double norm, struct err *err) {
    struct buf text = {0};
    buf_printf(&text, "update %llu is skipped: its loss (%g) or gradient norm (%g) is not finite", (unsigned long long)t->state.step, loss, norm);
    trainer_warn(t, buf_str(&text));
    buf_finish(&text);
    if (++t->state.skipped == NOT_FINITE_MAX) return not_finite_fail(err, "three updates in a row had a loss or gradient that is not finite");
    return optimizer_weights_finite(&t->optimizer) || trainer_roll_back(t, err);
}

// Returns after the stop flag with nothing changed: the update was not made.
static bool trainer_update(struct trainer *t, struct err *err) {
    struct checkpoint_state *s = &t->state;
    struct update u;
    struct loss_sums sums = {0};
    const uint64_t start = clock_ns();
    if (!batcher_next(t->batcher, &u, err)) return false;
    assert(u.epoch == s->epoch && u.index == s->index);
    const float scale = u.n_supervised ? 1.0f / (float)u.n_supervised : 0.0f;
    for (size_t i = 0; i < u.n_batches; i++) {
        struct loss_sums part = {0};
        if (trainer_stopped(t)) return true;
        network_train(t->network, &u.batches[i], scale, i == 0, (uint32_t)(s->step + 1), &part);
        sums.loss += part.loss;
        sums.n_targets += part.n_targets;
        sums.n_correct += part.n_correct;
    }
    const double n = (double)MAX(sums.n_targets, 1), loss = sums.loss / n, norm = optimizer_grad_norm(&t->optimizer);
    const double rate = schedule_rate(&t->schedule, s->step + 1);
    cursor_advance(t, &u);
    if (!isfinite(loss) || !isfinite(norm)) return update_skip(t, loss, norm, err);
    optimizer_step(&t->optimizer, rate, norm);
    s->skipped = 0;
    s->last_train_loss = loss;
    s->window_loss += sums.loss;
    s->window_targets += sums.n_targets;
    const double seconds = (double)(clock_ns() - start) * 1e-9;
    trainer_emit(t, (struct train_event){
                        .kind = TRAIN_STEP,
                        .train_loss = loss,
                        .train_accuracy = (double)sums.n_correct / n,
                        .learning_rate = rate,
                        .grad_norm = norm,
                        .seconds = seconds,
                        .tokens_per_second = (double)u.n_rows / seconds,
                    });
    return true;
}

// ---- the run ----

static bool trainer_loop(struct trainer *t, enum train_end *end, struct err *err) {
    struct checkpoint_state *s = &t->state;
    const struct train_config *c = t->config;
    for (;;) {
        const bool evaluate = !s->evaluated;
        if (evaluate && !trainer_evaluate(t, err)) return false;
        const bool finished = s->step >= t->total, early = c->early_stopping > 0 && s->evals_without_gain >= c->early_stopping;
        if (s->evaluated) {
            if (checkpoint_due(t, evaluate, finished || early)) {
                if (!optimizer_weights_finite(&t->optimizer)) {
                    if (!trainer_roll_back(t, err)) return false;
                } else if (trainer_try_save(t, true)) {
                    checkpoint_announce(t, TRAIN_END_FINISHED);
                }
            }
            *end = finished ? TRAIN_END_FINISHED : TRAIN_END_EARLY;
            if (finished || early) return true;
        }
        *end = TRAIN_END_STOPPED;
        const bool unsaved = c->checkpoint_dir && s->step > 0 && s->regular_step != s->step;
        if (trainer_stopped(t)) return !unsaved || trainer_stop_save(t, err);
        if (unsaved && clock_ns() - t->saved_ns > CHECKPOINT_NS) (void)!trainer_try_save(t, false);
        if (!trainer_update(t, err)) return false;
    }
}

// What must be known before the network: the widest batch and the number of updates.
static bool trainer_measure(struct trainer *t, const struct model_config *model, struct err *err) {
    const struct train_config *c = t->config;
    if (!(t->batcher = batcher_create(t->train, &c->batching, err))) return false;
    t->max_rows = batcher_max_rows(t->batcher);
    t->max_segment = batcher_max_segment(t->batcher);
    for (size_t i = 0; t->validation && i < t->validation->n; i++) {
        const size_t n = dataset_length(t->validation->data, t->validation->items[i]);
        t->max_rows = MAX(t->max_rows, n);
        t->max_segment = MAX(t->max_segment, n);
    }
    t->total = c->steps;
    for (uint64_t e = 0; c->steps == 0 && e < c->epochs; e++) t->total += batcher_updates_per_epoch(t->batcher, e);
    if (t->total == 0) return err_set(err, ERR_NO_MEMORY, "not enough memory for the order of an epoch");
    t->schedule = (struct schedule){c->schedule, c->lr, c->min_lr, c->warmup, t->total};
    return samples_init(t, model, err);
}

static bool trainer_open(struct trainer *t, struct params *p, struct err *err) {
    const struct train_config *c = t->config;
    if (!trainer_measure(t, &p->config, err)) return false;
    const struct network_config n = {
        .max_rows = t->max_rows,
        .max_segment = t->max_segment,
        .dropout_embedding = c->dropout,
        .dropout_attention = c->dropout,
        .dropout_residual = c->dropout,
        .dropout_lora = c->dropout_lora,
        .dropout_seed = c->seed,
        .recompute = c->recompute,
    };
    t->network = network_create(p, &n, t->pool, err);
    return t->network && optimizer_init(&t->optimizer, &c->optimizer, p, t->pool, err);
}

// Locks the checkpoints and takes up the newest one, or begins. Warnings about damaged checkpoints come before the log is cut back, which
// cuts them off too: the log of a resumed run is that of an uninterrupted one.
static bool trainer_begin(struct trainer *t, struct err *err) {
    const struct train_config *c = t->config;
    const struct train_hooks *h = t->hooks;
    bool found = false;
    t->state = (struct checkpoint_state){.best_valid_loss = NAN, .first_valid_loss = NAN, .last_valid_loss = NAN, .last_train_loss = NAN};
    memcpy(t->state.run_hash, c->run_hash, sizeof(c->run_hash));
    t->updates_of_epoch = batcher_updates_per_epoch(t->batcher, 0);
    if (c->checkpoint_dir) {
        if ((t->lock = checkpoint_lock(c->checkpoint_dir, err)) < 0) return false;
        if (c->resume && !checkpoint_load_newest(c->checkpoint_dir, c->run_hash, &t->state, &t->optimizer, &found, trainer_warn, t, err)) return false;
    }
    if (c->resume && h->log_rewind && !h->log_rewind(h->ctx, found ? t->state.log_position : 0, err)) return false;
    if (!batcher_seek(t->batcher, t->state.epoch, t->state.index, err)) return false;
    t->updates_of_epoch = batcher_updates_per_epoch(t->batcher, t->state.epoch);
    t->saved_ns = clock_ns();
    if (!found) trainer_emit(t, (struct train_event){.kind = TRAIN_START});
    else if (t->state.regular_step == t->state.step) checkpoint_announce(t, TRAIN_END_FINISHED);
    else t->irregular_step = t->state.step;
    return true;
}

static void trainer_close(struct trainer *t) {
    if (t->lock >= 0) close(t->lock);
    samples_finish(t);
    network_destroy(t->network);
    optimizer_finish(&t->optimizer);
    batcher_destroy(t->batcher);
}

bool trainer_run(struct params *p, const struct train_config *c, const struct data_view *train, const struct data_view *validation,
                 const struct tokenizer *tokenizer, const struct train_hooks *hooks, struct pool *pool, struct train_result *out, struct err *err) {
    struct trainer t = {
        .config = c,
        .train = train,
        .validation = validation && validation->n ? validation : NULL,
        .tokenizer = tokenizer,
        .hooks = hooks,
        .pool = pool,
        .lock = -1,
    };
    enum train_end end = TRAIN_END_FINISHED;
    bool ok = trainer_open(&t, p, err) && trainer_begin(&t, err) && trainer_loop(&t, &end, err);
    if (ok) {
        const struct checkpoint_state *s = &t.state;
        *out = (struct train_result){s->step, s->first_valid_loss, s->last_valid_loss, s->best_valid_loss, s->best_step, s->last_train_loss, end};
        trainer_emit(&t, (struct train_event){.kind = TRAIN_DONE, .end = end, .train_loss = s->last_train_loss, .valid_loss = s->last_valid_loss});
    }
    trainer_close(&t);
    return ok;
}
