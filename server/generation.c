// SPDX-License-Identifier: MIT
// The way of a generation: submitted as one group, events in, one reply or a stream of chunks out.
//
// Invariants: (1) every choice with `live` set is watched and known to the engine; (2) n_live counts them; (3) after `over`
// nothing is sent and the request may be gone at any moment, so the function that sets it returns at once.
#include "server/generation.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/sha256.h"
#include "base/utf8.h"
#include "server/json_body.h"
#include "server/request_model.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { LOOP_REPLY_BYTES = 64 << 10 }; // a larger reply is put together on the pool

// -- Making ------------------------------------------------------------------------------------------------------------------
static void make_id(char *out, size_t size, const char *prefix) {
    unsigned char random[12];
    char hex[2 * sizeof random + 1];
    random_bytes(random, sizeof random);
    hex_write(random, sizeof random, hex);
    snprintf(out, size, "%s-%s", prefix, hex);
}

bool generation_init(struct generation *g, struct http_request *r, const struct sampling_fields *f,
                     const struct reply_format *format) {
    *g = (struct generation){.request = r, .format = format, .fields = *f, .model_id = f->model.s};
    g->model = request_model(r, f->model);
    if (!g->model) return false;
    g->tokenizer = model_tokenizer(g->model);
    g->created_s = (int64_t)time(NULL);
    make_id(g->id, sizeof g->id, format->id_prefix);
    return true;
}

static void generation_release(struct generation *g) {
    model_release(g->model);
    g->model = NULL;
}

bool generation_check_length(struct generation *g, const char *param, struct prompt *p, int64_t max_tokens,
                             size_t absent_max) {
    size_t n_ctx = model_config(g->model)->n_ctx;
    bool absent = max_tokens == FIELD_ABSENT;
    size_t room = p->n_ids < n_ctx ? n_ctx - p->n_ids : 0;
    size_t wanted = absent ? 1 : (size_t)max_tokens;
    if (p->n_ids > n_ctx || wanted > room)
        return request_fail(g->request, 400, "context_length_exceeded",
                            p->n_ids > n_ctx || absent ? param : "max_tokens",
                            "The model's context is %zu tokens; the prompt has %zu%s.", n_ctx, p->n_ids,
                            p->n_ids > n_ctx ? ""
                            : absent         ? " and leaves no room"
                                             : " and max_tokens asks for more than the rest");
    p->max_tokens = absent ? MIN(room, absent_max) : wanted;
    return true;
}

static bool check_totals(struct generation *g) {
    struct http_request *r = g->request;
    if (g->n_prompts > GENERATION_MAX_SEQUENCES / g->best_of)
        return request_fail(r, 400, "value_out_of_range", "prompt",
                            "A request may ask for at most %d texts (prompts times n or best_of).",
                            GENERATION_MAX_SEQUENCES);
    size_t prompt_tokens = 0, generated = 0, logprobs = 0;
    for (size_t i = 0; i < g->n_prompts; i++)
        prompt_tokens += g->prompts[i].n_ids, generated += g->prompts[i].max_tokens;
    size_t tokens = (prompt_tokens + generated) * g->best_of; // <= 256 * (body + context): no overflow
    if (g->params.n_logprobs >= 0)
        logprobs = (generated + (g->params.prompt_logprobs ? prompt_tokens : 0)) * g->best_of *
                   ((size_t)g->params.n_logprobs + 1);
    if (tokens > GENERATION_MAX_TOKENS)
        return request_fail(r, 400, "value_out_of_range", "prompt",
                            "A request may take at most %d tokens: prompts and max_tokens, times n or best_of.",
                            GENERATION_MAX_TOKENS);
    if (logprobs > GENERATION_MAX_LOGPROBS)
        return request_fail(r, 400, "value_out_of_range", "logprobs",
                            "A reply may hold at most %d log-probabilities: ask for fewer, or for fewer tokens.",
                            GENERATION_MAX_LOGPROBS);
    return true;
}

// Here on the pool, and once for all choices of the prompt.
static void write_prompt_ids(struct generation *g, struct prompt *p) {
    struct buf list = {0};
    for (size_t i = 0; i < p->n_ids; i++) buf_printf(&list, i ? ",%u" : "%u", p->ids[i]);
    p->ids_json = arena_strndup(&g->request->arena, buf_str(&list), list.len);
    p->ids_json_len = list.len;
    buf_finish(&list);
}

bool generation_prepare(struct generation *g) {
    assert(g->n >= 1 && g->best_of >= g->n && g->n_prompts >= 1);
    if (!check_totals(g)) return false;
    g->params.ranks = g->logprobs && g->fields.return_token_ids;
    for (size_t i = 0; g->fields.return_token_ids && i < g->n_prompts; i++) write_prompt_ids(g, &g->prompts[i]);
    g->n_choices = g->n_prompts * g->best_of;
    g->choices = arena_alloc(&g->request->arena, g->n_choices, sizeof *g->choices);
    for (size_t i = 0; i < g->n_choices; i++) {
        struct choice *c = &g->choices[i];
        *c = (struct choice){.generation = g, .prompt = &g->prompts[i / g->best_of], .index = i};
        c->chars.whole = c->prompt->n_chars;
    }
    return true;
}

// -- Token texts -------------------------------------------------------------------------------------------------------------
size_t char_counter_add(struct char_counter *c, const char *bytes, size_t len) {
    // A held start and a byte that does not continue it: the start alone is a (replaced) character.
    bool continues = len && ((unsigned char)bytes[0] & 0xc0) == 0x80;
    size_t at = c->whole + (c->n_held && len && !continues ? 1 : 0);
    char joined[8];
    while (len) {
        size_t n = MIN(len, sizeof joined - c->n_held), total = c->n_held + n;
        memcpy(joined, c->held, c->n_held);
        memcpy(joined + c->n_held, bytes, n);
        bytes += n, len -= n;
        size_t complete = utf8_complete_prefix(joined, total);
        c->whole += utf8_count(joined, complete);
        c->n_held = total - complete;
        memcpy(c->held, joined + complete, c->n_held);
    }
    return at;
}

void token_text(const struct generation *g, uint32_t id, const char *prefix, struct buf *out) {
    if (!g->tokenizer || id >= tokenizer_size(g->tokenizer)) {
        buf_printf(out, "<%u>", id);
        return;
    }
    size_t len;
    const char *bytes = tokenizer_bytes(g->tokenizer, id, &len);
    if (utf8_valid(bytes, len)) {
        buf_add(out, bytes, len);
        return;
    }
    buf_add_str(out, prefix);
    for (size_t i = 0; i < len; i++) buf_printf(out, "\\x%02x", (unsigned char)bytes[i]);
}

const char *finish_name(const struct choice *c) { return c->finish == FINISH_STOP ? "stop" : "length"; }

void generation_write_stop_reason(const struct choice *c, struct buf *out) {
    const struct sampling_params *p = &c->generation->params;
    buf_add_str(out, ",\"stop_reason\":");
    if (!c->has_stop_reason) buf_add_str(out, "null");
    else if (c->stopped_by_string) buf_add_json_string(out, p->stops[c->stop_index].bytes, p->stops[c->stop_index].len);
    else buf_printf(out, "%u", c->stop_id);
}

void generation_write_token_ids(const struct choice *c, bool with_prompt, struct buf *out) {
    if (with_prompt) {
        buf_add_str(out, ",\"prompt_token_ids\":[");
        buf_add(out, c->prompt->ids_json, c->prompt->ids_json_len);
        buf_add_byte(out, ']');
    }
    buf_add_str(out, ",\"token_ids\":[");
    buf_add(out, buf_str(&c->token_ids), c->token_ids.len);
    buf_add_byte(out, ']');
}

// -- Answers -----------------------------------------------------------------------------------------------------------------
static void write_head(const struct generation *g, const char *object, struct buf *out) {
    buf_printf(out, "{\"id\":\"%s\",\"object\":\"%s\",\"created\":%lld,\"model\":", g->id, object,
               (long long)g->created_s);
    buf_add_json_string(out, g->model_id, strlen(g->model_id));
    buf_printf(out, ",\"system_fingerprint\":\"fp_%s\",\"choices\":[", model_fingerprint(g->model));
}

static void write_usage(const struct generation *g, struct buf *out) {
    buf_printf(out,
               "\"usage\":{\"prompt_tokens\":%zu,\"completion_tokens\":%zu,\"total_tokens\":%zu,\"prompt_tokens_"
               "details\":{\"cached_tokens\":%zu}}",
               g->prompt_tokens, g->completion_tokens, g->prompt_tokens + g->completion_tokens, g->cached_tokens);
}

static void send_event(struct generation *g, struct buf *json) {
    struct buf event = {0};
    buf_add_str(&event, "data: ");
    buf_add(&event, buf_str(json), json->len);
    buf_add_str(&event, "\n\n");
    http_stream_send(g->request, event.data, event.len);
    buf_finish(&event);
}

void generation_send_chunk(struct generation *g, const struct buf *choice_json) {
    struct buf json = {0};
    write_head(g, g->format->chunk_object, &json);
    if (choice_json) buf_add(&json, buf_str(choice_json), choice_json->len);
    buf_add_byte(&json, ']');
    if (g->fields.include_usage && choice_json) buf_add_str(&json, ",\"usage\":null");
    if (!choice_json) {
        buf_add_byte(&json, ',');
        write_usage(g, &json);
    }
    buf_add_byte(&json, '}');
    send_event(g, &json);
    buf_finish(&json);
}

static void finish_stream(struct generation *g) {
    if (g->fields.include_usage) generation_send_chunk(g, NULL);
    http_stream_send(g->request, "data: [DONE]\n\n", 14);
    g->over = true;
    http_stream_close(g->request);
}

// The n best of a prompt's best_of choices by mean log-probability, ties to the earlier one.
static void rank_choices(struct generation *g, size_t first, size_t *order) {
    for (size_t k = 0; k < g->best_of; k++) order[k] = first + k;
    if (g->best_of == g->n) return;
    for (size_t k = 1; k < g->best_of; k++) { // insertion: best_of <= 20
        const struct choice *c = &g->choices[first + k];
        double mean = c->n_logprob ? c->logprob_sum / (double)c->n_logprob : 0;
        size_t j = k;
        for (; j > 0; j--) {
            const struct choice *o = &g->choices[order[j - 1]];
            if ((o->n_logprob ? o->logprob_sum / (double)o->n_logprob : 0) >= mean) break;
            order[j] = order[j - 1];
        }
        order[j] = first + k;
    }
}

static void choice_finish(struct choice *c) {
    struct buf *bufs[] = {&c->text,        &c->tokens,      &c->token_logprobs, &c->top_logprobs, &c->top_token_ids,
                          &c->token_ranks, &c->text_offset, &c->content,        &c->token_ids};
    for (size_t i = 0; i < ARRAY_LEN(bufs); i++) buf_finish(bufs[i]);
}

// Pool or loop: every sequence has ended, nothing else touches the generation.
static bool write_reply(struct http_request *r) {
    struct generation *g = r->state;
    struct buf *json = &g->reply;
    size_t order[20];
    assert(g->best_of <= ARRAY_LEN(order));
    write_head(g, g->format->object, json);
    for (size_t p = 0; p < g->n_prompts; p++) {
        rank_choices(g, p * g->best_of, order);
        for (size_t k = 0; k < g->n; k++) {
            if (p || k) buf_add_byte(json, ',');
            g->format->write_choice(&g->choices[order[k]], p * g->n + k, json);
        }
    }
    buf_add_str(json, "],");
    write_usage(g, json);
    buf_add_byte(json, '}');
    for (size_t i = 0; i < g->n_choices; i++) choice_finish(&g->choices[i]);
    return true;
}

static void send_reply(struct http_request *r) { http_reply_json(r, 200, &((struct generation *)r->state)->reply); }

static void finish_reply(struct generation *g) {
    struct http_request *r = g->request;
    size_t bytes = 0;
    for (size_t i = 0; i < g->n_choices; i++) {
        const struct choice *c = &g->choices[i];
        bytes += c->text.len + c->tokens.len + c->token_logprobs.len + c->top_logprobs.len + c->top_token_ids.len +
                 c->token_ranks.len + c->text_offset.len + c->content.len + c->token_ids.len + c->prompt->ids_json_len +
                 (g->echo ? c->prompt->text_len : 0);
    }
    g->over = true;
    if (bytes > LOOP_REPLY_BYTES) {
        http_more_work(r, write_reply, send_reply);
    } else if (write_reply(r)) {
        send_reply(r);
    }
}

static void cancel_all(struct generation *g) {
    for (size_t i = 0; i < g->n_choices; i++) {
        struct choice *c = &g->choices[i];
        if (!c->live) continue;
        metrics_add(&g->request->server->metrics, METRIC_SUCCESS_ABORT, 1);
        server_cancel_sequence(g->request->server, c->sequence);
        c->live = false;
    }
    g->n_live = 0;
}

static void fail(struct generation *g, enum finish_reason why) {
    struct http_request *r = g->request;
    cancel_all(g);
    bool shutdown = why == FINISH_CANCELLED; // this request's own cancels are not watched any more
    if (shutdown) request_fail(r, 503, "shutting_down", NULL, "The server is shutting down.");
    else request_fail(r, 500, "internal_error", NULL, "The computation failed.");
    g->over = true;
    if (!g->streaming) {
        http_reply_error(r);
        return;
    }
    struct buf json = {0};
    buf_printf(&json, "{\"error\":{\"message\":\"%s\",\"type\":\"server_error\",\"param\":null,\"code\":\"%s\"}}",
               r->err.message, r->err_code);
    send_event(g, &json);
    buf_finish(&json);
    http_stream_close(r);
}

// -- Figures -----------------------------------------------------------------------------------------------------------------
static void count_tokens(struct choice *c, const struct engine_event *e) {
    if (e->kind == EVENT_PROMPT || !e->n_tokens) return;
    const struct http_request *r = c->generation->request;
    uint64_t now = clock_ns();
    if (c->last_token_ns)
        metrics_observe(&r->server->metrics, METRIC_INTER_TOKEN_LATENCY, (double)(now - c->last_token_ns) / 1e9);
    else metrics_observe(&r->server->metrics, METRIC_TIME_TO_FIRST_TOKEN, (double)(now - r->received_ns) / 1e9);
    c->last_token_ns = now;
}

static void count_finish(const struct choice *c, const struct engine_event *e) {
    static const enum metric_counter by_reason[] = {METRIC_SUCCESS_STOP, METRIC_SUCCESS_LENGTH, METRIC_SUCCESS_ABORT,
                                                    METRIC_SUCCESS_ERROR};
    const struct http_request *r = c->generation->request;
    struct metrics *m = &r->server->metrics;
    metrics_add(m, by_reason[e->finish], 1);
    metrics_add(m, METRIC_PROMPT_TOKENS, e->n_prompt);
    metrics_add(m, METRIC_GENERATION_TOKENS, e->n_generated);
    metrics_observe(m, METRIC_QUEUE_TIME, (double)e->queued_ns / 1e9);
    metrics_observe(m, METRIC_PREFILL_TIME, (double)e->prefill_ns / 1e9);
    metrics_observe(m, METRIC_DECODE_TIME, (double)e->decode_ns / 1e9);
    metrics_observe(m, METRIC_E2E_LATENCY, (double)(clock_ns() - r->received_ns) / 1e9);
    metrics_observe(m, METRIC_REQUEST_PROMPT_TOKENS, (double)e->n_prompt);
    metrics_observe(m, METRIC_REQUEST_GENERATION_TOKENS, (double)e->n_generated);
}

// -- Events ------------------------------------------------------------------------------------------------------------------
static void take_finish(struct choice *c, const struct engine_event *e) {
    struct generation *g = c->generation;
    c->live = false;
    c->finished = true;
    g->n_live--;
    c->finish = e->finish;
    c->has_stop_reason = e->stopped_by_id || e->stopped_by_string;
    c->stopped_by_string = e->stopped_by_string;
    c->stop_index = e->stop_index;
    c->stop_id = e->stop_id;
    // A prompt is charged once, however many choices it has.
    if (c->index % g->best_of == 0) g->prompt_tokens += e->n_prompt, g->cached_tokens += e->n_cached;
    g->completion_tokens += e->n_generated;
    count_finish(c, e);
}

static enum token_place place_of(const struct engine_event *e, size_t i) {
    if (e->kind == EVENT_PROMPT) return TOKEN_OF_PROMPT;
    bool by_token = e->kind == EVENT_FINISH && e->finish == FINISH_STOP && !e->stopped_by_string;
    return by_token && i + 1 == e->n_tokens ? TOKEN_END : TOKEN_OF_TEXT;
}

static void on_event(void *ctx, const struct engine_event *e) {
    struct choice *c = ctx;
    struct generation *g = c->generation;
    assert(!g->over && c->live);
    count_tokens(c, e);
    for (size_t i = 0; i < e->n_tokens; i++) {
        const struct token_record *t = &e->tokens[i];
        enum token_place place = place_of(e, i);
        if (place != TOKEN_OF_PROMPT && t->has_logprob) c->logprob_sum += (double)t->logprob, c->n_logprob++;
        g->format->add_token(c, t, place);
        if (!g->tokenizer && place == TOKEN_OF_TEXT) token_text(g, t->id, "", &c->text); // as an echoed prompt reads
    }
    buf_add(&c->text, e->text ? e->text : "", e->text_len);
    if (e->kind == EVENT_FINISH) {
        take_finish(c, e);
        if (e->finish == FINISH_ERROR || e->finish == FINISH_CANCELLED) {
            fail(g, e->finish);
            return;
        }
    }
    if (g->streaming) g->format->send_chunks(c, e->kind);
    if (g->n_live) return;
    if (g->streaming) finish_stream(g);
    else finish_reply(g);
}

// -- The request's life ------------------------------------------------------------------------------------------------------
static bool submit(struct generation *g) {
    struct http_request *r = g->request;
    struct sequence_request *requests = mem_alloc(g->n_choices, sizeof *requests);
    uint64_t group = server_next_sequence_id(r->server);
    for (size_t i = 0; i < g->n_choices; i++) {
        struct choice *c = &g->choices[i];
        c->sequence = server_next_sequence_id(r->server);
        requests[i] = (struct sequence_request){.id = c->sequence,
                                                .group = group,
                                                .model = g->model,
                                                .prompt = c->prompt->ids,
                                                .n_prompt = c->prompt->n_ids,
                                                .params = g->params};
        requests[i].params.max_tokens = c->prompt->max_tokens;
        requests[i].params.seed = sampling_seed(&g->fields, i % g->best_of);
        server_watch_sequence(r->server, c->sequence, on_event, c);
        c->live = true;
    }
    g->n_live = g->n_choices;
    bool ok = engine_submit(r->server->engine, requests, g->n_choices, &r->err);
    free(requests);
    if (ok) return true;
    for (size_t i = 0; i < g->n_choices; i++) {
        server_unwatch_sequence(r->server, g->choices[i].sequence);
        g->choices[i].live = false;
    }
    g->n_live = 0;
    return false;
}

bool generation_work(struct http_request *r, bool (*read)(struct http_request *, const json_t *, struct generation *)) {
    json_t *tree = json_body_parse(r);
    if (!tree) return false;
    struct generation *g = arena_alloc(&r->arena, 1, sizeof *g);
    bool ok = read(r, tree, g);
    json_decref(tree);
    if (ok) r->state = g;
    else generation_release(g);
    return ok || r->cold;
}

void generation_start(struct http_request *r) {
    struct generation *g = r->state;
    if (r->cold) {
        request_warm(r);
        return;
    }
    bool ok = submit(g);
    if (!ok && r->err.code == ERR_NOT_FOUND) { // replaced, or set aside, since work found it
        generation_end(r);
        r->err = (struct err){0};
        http_more_work(r, r->route->work, r->route->start);
        return;
    }
    if (g->ignored) http_set_header(r, "x-couplet-ignored", g->ignored);
    if (!ok) {
        g->over = true;
        if (r->err.code == ERR_BUSY) {
            metrics_add(&r->server->metrics, METRIC_REJECTED, 1);
            request_fail(r, 429, "rate_limit_exceeded", NULL, "Too many requests are waiting. Try again in a second.");
        } else if (r->err.code == ERR_TOO_LARGE) {
            request_fail(r, 400, "context_length_exceeded", "prompt",
                         "The prompt does not fit into the memory that this server may use for one.");
        }
        http_reply_error(r);
        return;
    }
    metrics_observe(&r->server->metrics, METRIC_REQUEST_N, (double)g->n);
    metrics_observe(&r->server->metrics, METRIC_REQUEST_MAX_TOKENS, (double)g->prompts[0].max_tokens);
    g->streaming = g->fields.stream;
    if (g->streaming) http_stream_open(r);
}

void generation_end(struct http_request *r) {
    struct generation *g = r->state;
    if (!g) return;
    r->state = NULL;
    g->over = true;
    cancel_all(g);
    for (size_t i = 0; i < g->n_choices; i++) choice_finish(&g->choices[i]);
    buf_finish(&g->reply);
    generation_release(g);
}
