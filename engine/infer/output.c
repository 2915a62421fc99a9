// SPDX-License-Identifier: MIT
// See output.h.
//
// Invariants
//   O1 text holds the bytes [taken, produced) of the sequence's text; [taken, released) may be taken at any time
//   O2 places of queued tokens never decrease; a token without bytes stands at the place before it
//   O3 released is at a character's boundary and never past the beginning of what may become a stop string
#include "engine/infer/output.h"

#include "base/buf.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "engine/infer/stop_matcher.h"
#include "tokenizer/text_stream.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct place { // of a queued token
    size_t at;
    bool bare; // the token has no bytes
};

struct output {
    const struct tokenizer *tokenizer;
    size_t min_tokens, n_pushed;
    struct text_stream stream;
    struct stop_matcher stops;
    struct buf text;
    size_t taken, released;       // absolute offsets in the sequence's text (O1)
    size_t n, n_released;         // queued tokens, and how many from the front may be taken
    struct token_record *records; // [n]; top is set when they are taken
    struct place *places;         // [n]
    struct top_logprob *tops;     // [n][stride]
    size_t stride, records_cap, places_cap, tops_cap;
    bool stopped, ended;
    size_t stop_index;
};

struct output *output_create(const struct tokenizer *t, const struct sampling_params *p) {
    struct output *o = mem_new(struct output);
    o->tokenizer = t;
    o->min_tokens = p->min_tokens;
    o->stride = p->n_logprobs > 0 ? (size_t)p->n_logprobs : 0;
    stop_matcher_init(&o->stops, p->stops, t ? p->n_stops : 0);
    return o;
}

void output_destroy(struct output *o) {
    if (!o) return;
    stop_matcher_finish(&o->stops);
    buf_finish(&o->text);
    free(o->records);
    free(o->places);
    free(o->tops);
    free(o);
}

static size_t output_produced(const struct output *o) { return o->taken + o->text.len; }

// ---- releasing ----

static void release_to(struct output *o, size_t limit) {
    assert(limit >= o->released && limit <= output_produced(o));
    o->released = limit;
    while (o->n_released < o->n) {
        const struct place *p = &o->places[o->n_released];
        if (!p->bare && p->at >= limit) break;
        o->n_released++;
    }
}

// A boundary at or before `limit`: stop strings that are not UTF-8 can begin inside a character.
static size_t character_boundary(const struct output *o, size_t limit) {
    return o->released + utf8_complete_prefix(o->text.data + (o->released - o->taken), limit - o->released);
}

static void cut_at(struct output *o, size_t cut) {
    assert(cut >= o->released); // O3
    cut = character_boundary(o, cut);
    o->stopped = true;
    o->text.len = cut - o->taken;
    o->text.data[o->text.len] = '\0';
    size_t keep = o->n_released;
    while (keep < o->n && (o->places[keep].bare || o->places[keep].at < cut)) keep++;
    o->n = keep;
    release_to(o, cut);
    assert(o->n_released == o->n);
}

// Text from `from` on is new. True: a stop string ends in it.
static bool text_added(struct output *o, size_t from) {
    if (output_produced(o) == from) {
        release_to(o, o->released); // a token without bytes may follow released ones
        return false;
    }
    if (o->n_pushed > o->min_tokens && o->stops.n) {
        size_t used, index;
        if (stop_matcher_feed(&o->stops, o->text.data + (from - o->taken), output_produced(o) - from, &used, &index)) {
            o->stop_index = index;
            cut_at(o, from + used - stop_matcher_length(&o->stops, index));
            return true;
        }
    }
    release_to(o, character_boundary(o, output_produced(o) - stop_matcher_held(&o->stops)));
    return false;
}

// ---- pushing ----

static void queue_add(struct output *o, const struct token_record *r, struct place place) {
    assert(r->n_top <= o->stride);
    mem_grow(&o->records, &o->records_cap, o->n + 1);
    mem_grow(&o->places, &o->places_cap, o->n + 1);
    mem_grow(&o->tops, &o->tops_cap, (o->n + 1) * o->stride);
    if (r->n_top) memcpy(o->tops + o->n * o->stride, r->top, r->n_top * sizeof *r->top);
    o->records[o->n] = *r;
    o->places[o->n++] = place;
}

// Adds a token's bytes to the text and returns the place of its first byte: where the text ended, unless that byte
// broke off an unfinished character, which then became a U+FFFD before it.
static size_t text_add(struct output *o, const char *bytes, size_t len) {
    size_t end = output_produced(o);
    struct text_stream before = o->stream;
    text_stream_add(&o->stream, bytes, 1, &o->text);
    size_t added = output_produced(o) - end;
    const char *out = o->text.data + (end - o->taken);
    bool completes =
        added == before.n_held + 1 && memcmp(out, before.held, before.n_held) == 0 && out[added - 1] == bytes[0];
    size_t place = before.n_held == 0 || added == 0 || completes ? end : end + 3;
    text_stream_add(&o->stream, bytes + 1, len - 1, &o->text);
    return place;
}

bool output_push(struct output *o, const struct token_record *r) {
    assert(!o->stopped && !o->ended);
    o->n_pushed++;
    size_t len = 0, from = output_produced(o);
    const char *bytes = "";
    bool known = o->tokenizer && r->id < tokenizer_size(o->tokenizer); // a model's vocabulary may be padded
    if (known && !tokenizer_is_special(o->tokenizer, r->id)) bytes = tokenizer_bytes(o->tokenizer, r->id, &len);
    size_t place = len ? text_add(o, bytes, len) : from;
    queue_add(o, r, (struct place){.at = place, .bare = len == 0});
    return text_added(o, from);
}

bool output_finish(struct output *o) {
    assert(!o->stopped && !o->ended);
    size_t from = output_produced(o);
    text_stream_end(&o->stream, &o->text);
    if (text_added(o, from)) return true;
    o->ended = true;
    release_to(o, output_produced(o));
    assert(o->n_released == o->n);
    return false;
}

void output_add_end(struct output *o, const struct token_record *r) {
    assert(o->ended);
    queue_add(o, r, (struct place){.at = output_produced(o), .bare = true});
    release_to(o, output_produced(o));
}

// ---- events ----

struct engine_event *event_create(uint64_t id, enum event_kind kind, const struct token_record *tokens, size_t n,
                                  const char *text, size_t len) {
    size_t n_tops = 0;
    for (size_t i = 0; i < n; i++) n_tops += tokens[i].n_top;
    size_t size = sizeof(struct engine_event) + n * sizeof *tokens + n_tops * sizeof *tokens->top + len + 1;
    struct engine_event *e = mem_alloc(1, size);
    struct token_record *records = (struct token_record *)(e + 1);
    struct top_logprob *tops = (struct top_logprob *)(records + n);
    char *copy = (char *)(tops + n_tops);
    *e = (struct engine_event){.id = id, .kind = kind, .n_tokens = n, .tokens = records, .text = copy, .text_len = len};
    for (size_t i = 0; i < n; i++) {
        records[i] = tokens[i];
        records[i].top = tops;
        for (size_t k = 0; k < tokens[i].n_top; k++) *tops++ = tokens[i].top[k];
    }
    if (len) memcpy(copy, text, len);
    return e;
}

void engine_event_free(struct engine_event *e) { free(e); }

// Forgets what was taken: n tokens and len bytes from the front.
static void output_drop(struct output *o, size_t n, size_t len) {
    o->n -= n;
    o->n_released -= n;
    if (o->n) {
        memmove(o->records, o->records + n, o->n * sizeof *o->records);
        memmove(o->places, o->places + n, o->n * sizeof *o->places);
        if (o->stride) memmove(o->tops, o->tops + n * o->stride, o->n * o->stride * sizeof *o->tops);
    }
    o->taken += len;
    o->text.len -= len;
    if (len) memmove(o->text.data, o->text.data + len, o->text.len + 1);
}

struct engine_event *output_take(struct output *o, uint64_t id, enum event_kind kind) {
    size_t n = o->n_released, len = o->released - o->taken;
    if (kind == EVENT_TOKENS && n == 0 && len == 0) return NULL;
    for (size_t i = 0; i < n && o->stride; i++) o->records[i].top = o->tops + i * o->stride;
    struct engine_event *e = event_create(id, kind, o->records, n, o->text.data, len);
    e->stopped_by_string = kind == EVENT_FINISH && o->stopped;
    e->stop_index = e->stopped_by_string ? o->stop_index : 0;
    output_drop(o, n, len);
    return e;
}
