// SPDX-License-Identifier: MIT
// A step: plan -> forward -> logits in chunks of LOGIT_ROWS (never prompt x vocabulary) -> scores and draws -> events.
#include "engine/infer/lane.h"

#include "base/mem.h"
#include "engine/infer/adapter_rows.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

// What a wanted row's logits are for.
struct wanted_row {
    struct live *live;
    bool draw;        // the next token; otherwise the score of `target`
    uint32_t target;  // prompt scoring: the token that follows
};
struct wanted_result {
    struct token_record record;
    struct top_logprob top[ENGINE_MAX_LOGPROBS + 1];
    bool ok;
};

void event_list_add(struct event_list *l, struct engine_event *e) {
    if (!e) return;
    if (!l->first) l->last = &l->first;
    *l->last = e;
    l->last = &e->next;
}

// ---- sequences ------------------------------------------------------------------------------------------------------

// Copies the params' arrays into l->memory.
static void params_copy(struct live *l, const struct sampling_params *p) {
    char *at = l->memory;
    l->params = *p;
    if (p->n_logit_bias) l->params.logit_bias = memcpy(at, p->logit_bias, p->n_logit_bias * sizeof *p->logit_bias);
    if (p->n_stop_ids) l->params.stop_ids = memcpy(at + p->n_logit_bias * sizeof *p->logit_bias, p->stop_ids, p->n_stop_ids * sizeof *p->stop_ids);
    l->params.stops = NULL; // output_create has its own copy
}

static const uint32_t *model_stop_ids(const struct model *m, size_t *n) {
    *n = 0;
    return model_tokenizer(m) ? tokenizer_stop_ids(model_tokenizer(m), n) : NULL;
}

// What the request's own numbers size: reported, not aborted.
static bool live_alloc(struct live *l, const struct sampling_params *p, size_t n_tokens, size_t n_stop, struct err *err) {
    size_t bytes = p->n_logit_bias * sizeof *p->logit_bias + p->n_stop_ids * sizeof *p->stop_ids;
    l->q.tokens = mem_try_alloc(n_tokens, sizeof *l->q.tokens, "a sequence", err);
    l->q.blocks = l->q.tokens ? mem_try_alloc((n_tokens + KV_BLOCK - 1) / KV_BLOCK, sizeof *l->q.blocks, "a sequence", err) : NULL;
    l->memory = l->q.blocks ? mem_try_alloc(bytes, 1, "sampling parameters", err) : NULL;
    l->banned = l->memory ? mem_try_alloc(n_stop + p->n_stop_ids, sizeof *l->banned, "sampling parameters", err) : NULL;
    if (!l->banned || !sampler_needs_counts(p)) return l->banned;
    return l->counted = token_counts_init(&l->counts, n_tokens, err);
}

struct live *live_create(struct lane *lane, const struct sequence_request *r, uint64_t now_ns, struct err *err) {
    const struct model_config *c = model_config(lane->model);
    const struct sampling_params *p = &r->params;
    assert(r->n_prompt > 0 && r->n_prompt + p->max_tokens <= c->n_ctx && p->n_logprobs <= ENGINE_MAX_LOGPROBS);
    for (size_t i = 0; i < r->n_prompt; i++) assert(r->prompt[i] < c->n_vocab);
    const struct adapter_rows *adapter = model_adapter(r->model);
    struct live *l = mem_new(struct live);
    size_t n = r->n_prompt + p->max_tokens, n_stop;
    const uint32_t *stop = model_stop_ids(lane->model, &n_stop);
    l->lane = lane;
    l->model = model_acquire(r->model);
    l->submitted_ns = now_ns;
    l->q = (struct sequence){.id = r->id, .group = r->group, .adapter = adapter ? adapter->version : 0, .n_tokens = r->n_prompt,
                             .n_prompt = r->n_prompt, .max_tokens = p->max_tokens, .score_prompt = p->prompt_logprobs, .owner = l};
    if (!live_alloc(l, p, n, n_stop, err)) {
        live_destroy(l);
        return NULL;
    }
    memcpy(l->q.tokens, r->prompt, r->n_prompt * sizeof *r->prompt);
    params_copy(l, p);
    for (size_t i = 0; i < n_stop && !p->ignore_eos; i++) l->banned[l->n_banned++] = stop[i];
    for (size_t i = 0; i < p->n_stop_ids; i++) l->banned[l->n_banned++] = p->stop_ids[i];
    l->output = output_create(model_tokenizer(lane->model), p);
    return l;
}

void live_destroy(struct live *l) {
    if (!l) return;
    if (l->counted) token_counts_finish(&l->counts);
    output_destroy(l->output);
    free(l->banned);
    free(l->memory);
    free(l->q.tokens);
    free(l->q.blocks);
    model_release(l->model);
    free(l);
}

void lane_end(struct live *l, enum finish_reason reason, struct event_list *events) {
    struct engine_event *e = output_take(l->output, l->q.id, EVENT_FINISH);
    uint64_t now = clock_ns(), admitted = l->admitted_ns ? l->admitted_ns : now, first = l->first_token_ns ? l->first_token_ns : now;
    e->finish = reason;
    e->n_prompt = l->q.n_prompt;
    e->n_cached = l->q.n_cached;
    e->n_generated = l->n_generated;
    e->queued_ns = admitted - l->submitted_ns;
    e->prefill_ns = first > admitted ? first - admitted : 0;
    e->decode_ns = now > first ? now - first : 0;
    event_list_add(events, e);
    scheduler_remove(&l->lane->scheduler, &l->q);
}

// ---- lane -----------------------------------------------------------------------------------------------------------

bool lane_init(struct lane *lane, struct model *model, size_t kv_bytes, size_t max_running, size_t step_rows, struct pool *pool,
               struct err *err) {
    size_t threads = pool_threads(pool);
    *lane = (struct lane){.pool = pool, .max_running = max_running, .step_rows = step_rows};
    lane->kv = kv_cache_create(model_config(model), kv_bytes, err);
    lane->transformer = lane->kv ? transformer_create(model_weights(model), step_rows, pool, err) : NULL;
    lane->samplers = mem_alloc(threads, sizeof(struct sampler *));
    bool ok = lane->transformer != NULL;
    for (size_t i = 0; ok && i < threads; i++) ok = (lane->samplers[i] = sampler_create(model_config(model)->n_vocab, err)) != NULL;
    scheduler_init(&lane->scheduler, lane->kv, max_running, step_rows);
    lane->plan = mem_alloc(max_running, sizeof(struct sequence *));
    lane->sequences = mem_alloc(max_running, sizeof *lane->sequences);
    lane->ids = mem_alloc(step_rows, sizeof *lane->ids);
    lane->wanted = mem_alloc(step_rows, sizeof *lane->wanted);
    lane->rows = mem_alloc(step_rows, sizeof *lane->rows);
    lane->results = mem_alloc(LOGIT_ROWS, sizeof *lane->results);
    lane->model = model_acquire(model);
    if (!ok) lane_finish(lane);
    return ok;
}

void lane_finish(struct lane *lane) {
    if (!lane->model) return;
    for (size_t i = 0; i < pool_threads(lane->pool); i++) sampler_destroy(lane->samplers[i]);
    free(lane->samplers);
    scheduler_finish(&lane->scheduler);
    transformer_destroy(lane->transformer);
    kv_cache_destroy(lane->kv);
    free(lane->plan);
    free(lane->sequences);
    free(lane->ids);
    free(lane->wanted);
    free(lane->rows);
    free(lane->results);
    model_release(lane->model);
    *lane = (struct lane){0};
}

bool lane_has_work(const struct lane *lane) { return lane->scheduler.n_running + lane->scheduler.n_waiting > 0; }

// ---- the step -------------------------------------------------------------------------------------------------------

// Lays the plan out as rows and notes which rows' logits are wanted, and what for. Returns how many are.
static size_t step_layout(struct lane *lane, size_t n) {
    size_t n_wanted = 0;
    for (size_t i = 0; i < n; i++) {
        struct sequence *q = lane->plan[i];
        struct live *l = q->owner;
        lane->sequences[i] = (struct step_sequence){.row = q->step_row, .n_rows = q->step_rows, .position = q->n_computed, .blocks = q->blocks,
                                                    .adapter = model_adapter(l->model)};
        memcpy(lane->ids + q->step_row, q->tokens + q->n_computed, q->step_rows * sizeof *q->tokens);
        for (size_t r = 0; r < q->step_rows; r++) {
            size_t position = q->n_computed + r;
            struct wanted_row row = {.live = l};
            if (position + 1 == q->n_tokens && q->max_tokens > 0) row.draw = true;
            // Position p scores token p + 1; records [0, n_scored) are out already, also after a preemption.
            else if (q->score_prompt && position + 1 < q->n_prompt && position + 1 >= l->n_scored) row.target = q->tokens[position + 1];
            else continue;
            lane->rows[n_wanted] = row;
            lane->wanted[n_wanted++] = (uint32_t)(q->step_row + r);
        }
    }
    return n_wanted;
}

static void sample_task(void *ctx, size_t i) {
    struct lane *lane = ctx;
    struct wanted_row *row = &lane->rows[lane->first_row + i];
    struct wanted_result *result = &lane->results[i];
    struct live *l = row->live;
    struct sampler *sampler = lane->samplers[pool_self()];
    const float *logits = lane->logits + i * lane->logit_stride;
    size_t n_vocab = model_config(lane->model)->n_vocab;
    result->ok = false;
    if (!l) return; // ended by an earlier row of this step
    result->record = (struct token_record){.top = result->top};
    if (!row->draw) {
        result->ok = sampler_score(sampler, logits, n_vocab, row->target, (size_t)MAX(l->params.n_logprobs, 0), l->params.ranks, &result->record);
        return;
    }
    bool early = l->n_generated < l->params.min_tokens;
    struct sampler_input in = {.logits = logits, .n_vocab = n_vocab, .params = &l->params, .counts = l->counted ? &l->counts : NULL,
                               .banned = l->banned, .n_banned = early ? l->n_banned : 0, .position = l->n_generated};
    result->ok = sampler_draw(sampler, &in, &result->record);
}

static bool id_in(uint32_t id, const uint32_t *ids, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (ids[i] == id) return true;
    return false;
}

// Takes in a drawn token. Returns true and the reason when it ends the sequence; *by_id: one of the request's own stop ids.
static bool token_take(struct live *l, const struct token_record *r, enum finish_reason *reason, bool *by_id) {
    size_t n_stop;
    const uint32_t *stop = model_stop_ids(l->lane->model, &n_stop);
    if (l->n_generated++ == 0) l->first_token_ns = clock_ns();
    l->q.tokens[l->q.n_tokens++] = r->id;
    if (l->counted) token_counts_add_generated(&l->counts, r->id);
    *reason = FINISH_STOP;
    *by_id = id_in(r->id, l->params.stop_ids, l->params.n_stop_ids);
    if (*by_id || (!l->params.ignore_eos && id_in(r->id, stop, n_stop))) {
        if (output_finish(l->output)) *by_id = false; // a stop string, completed by what was held, came first
        else output_add_end(l->output, r);
        return true;
    }
    if (output_push(l->output, r)) return true;
    if (l->n_generated < l->q.max_tokens) return false;
    *reason = output_finish(l->output) ? FINISH_STOP : FINISH_LENGTH;
    return true;
}

struct step_end {
    void (*finished)(void *ctx, struct live *l);
    void *ctx;
    struct event_list *events;
};

static void sequence_end(struct live *l, enum finish_reason reason, bool by_id, uint32_t id, const struct step_end *end) {
    struct engine_event **last = end->events->first ? end->events->last : &end->events->first;
    lane_end(l, reason, end->events);
    (*last)->stopped_by_id = by_id;
    (*last)->stop_id = by_id ? id : 0;
    end->finished(end->ctx, l);
}

static void drawn(struct live *l, const struct wanted_result *result, const struct step_end *end) {
    enum finish_reason reason = FINISH_ERROR;
    bool by_id = false;
    l->lane->generated_tokens += result->ok;
    if (!result->ok || token_take(l, &result->record, &reason, &by_id)) sequence_end(l, reason, by_id, result->record.id, end);
    else event_list_add(end->events, output_take(l->output, l->q.id, EVENT_TOKENS));
}

// Results [i, i + n) of the chunk score neighbouring prompt tokens of one sequence: one event.
static void scored(struct live *l, const struct wanted_result *results, size_t n, const struct step_end *end) {
    struct token_record records[LOGIT_ROWS + 1];
    size_t k = 0;
    if (l->n_scored == 0) records[k++] = (struct token_record){.id = l->q.tokens[0]};
    for (size_t i = 0; i < n; i++) records[k++] = results[i].record;
    event_list_add(end->events, event_create(l->q.id, EVENT_PROMPT, records, k, NULL, 0));
    l->n_scored += k;
}

// Hands out the results of a chunk, in order of rows.
static void chunk_consume(struct lane *lane, size_t n, const struct step_end *end) {
    for (size_t i = 0; i < n;) {
        const struct wanted_row *row = &lane->rows[lane->first_row + i];
        struct live *l = row->live;
        if (!l) {
            i++;
            continue;
        }
        if (row->draw) {
            drawn(l, &lane->results[i++], end);
            continue;
        }
        size_t k = 0;
        bool ok = true;
        for (; i + k < n && row[k].live == l && !row[k].draw && ok; k++) ok = lane->results[i + k].ok;
        if (ok) {
            scored(l, &lane->results[i], k, end);
        } else {
            sequence_end(l, FINISH_ERROR, false, 0, end);
            for (size_t j = lane->first_row + i + k; j < lane->n_wanted; j++)
                if (lane->rows[j].live == l) lane->rows[j].live = NULL;
        }
        i += k;
    }
}

// Prompts that were only to be scored draw nothing: they end when their last row is done.
static void end_scored_only(struct lane *lane, size_t n, const struct step_end *end) {
    for (size_t i = 0; i < n; i++) {
        struct sequence *q = lane->plan[i];
        if (q && q->max_tokens == 0 && q->n_computed == q->n_tokens) sequence_end(q->owner, FINISH_LENGTH, false, 0, end);
    }
}

// A sequence that ended must not be looked at again in this step.
struct forget {
    struct lane *lane;
    size_t n;
    void (*finished)(void *ctx, struct live *l);
    void *ctx;
};

static void plan_forget(void *ctx, struct live *l) {
    struct forget *f = ctx;
    for (size_t i = 0; i < f->n; i++)
        if (f->lane->plan[i] == &l->q) f->lane->plan[i] = NULL;
    f->finished(f->ctx, l);
}

bool lane_step(struct lane *lane, struct event_list *events, void (*finished)(void *ctx, struct live *l), void *ctx) {
    uint64_t start = clock_ns();
    size_t n_rows, n = scheduler_plan(&lane->scheduler, lane->plan, &n_rows);
    if (n == 0) return false;
    struct forget forget = {lane, n, finished, ctx};
    struct step_end end = {plan_forget, &forget, events};
    for (size_t i = 0; i < n; i++) {
        struct live *l = lane->plan[i]->owner;
        if (!l->admitted_ns) l->admitted_ns = start;
        lane->prompt_tokens += MIN(lane->plan[i]->step_rows, l->q.n_prompt - MIN(l->q.n_prompt, l->q.n_computed));
    }
    size_t n_wanted = lane->n_wanted = step_layout(lane, n);
    struct step step = {.n_rows = n_rows, .ids = lane->ids, .sequences = lane->sequences, .n_sequences = n, .wanted = lane->wanted, .n_wanted = n_wanted};
    transformer_forward(lane->transformer, lane->kv, &step);
    scheduler_done(&lane->scheduler, lane->plan, n);
    for (size_t i = 0; i < n; i++) { // a prompt of one token has no row that scores it
        struct live *l = lane->plan[i]->owner;
        if (l->q.score_prompt && l->q.n_prompt == 1 && l->n_scored == 0) scored(l, NULL, 0, &end);
    }
    for (lane->first_row = 0; lane->first_row < n_wanted; lane->first_row += LOGIT_ROWS) {
        size_t chunk = MIN((size_t)LOGIT_ROWS, n_wanted - lane->first_row);
        lane->logits = transformer_logits(lane->transformer, lane->first_row, chunk, &lane->logit_stride);
        pool_run(chunk > 1 ? lane->pool : NULL, sample_task, lane, chunk);
        chunk_consume(lane, chunk, &end);
    }
    end_scored_only(lane, n, &end);
    lane->steps++;
    lane->rows_done += n_rows;
    lane->busy_ns += clock_ns() - start;
    return true;
}
