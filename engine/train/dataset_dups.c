// SPDX-License-Identifier: MIT
// What is in the data twice: rows equal to earlier ones, and validation examples whose text training has seen.
#include "engine/train/dataset_impl.h"

#include "base/map.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "tokenizer/unicode_class.h"

#include <stdlib.h>

// ---- rows

static bool line_set_grow(struct line_set *s, struct err *err) {
    struct line_set grown = {.n = s->n, .n_slots = MAX(s->n_slots * 2, 1024)};
    grown.hashes = mem_try_alloc(grown.n_slots, sizeof *grown.hashes, "the hashes of rows", err);
    grown.lines = grown.hashes ? mem_try_alloc(grown.n_slots, sizeof *grown.lines, "the hashes of rows", err) : NULL;
    if (!grown.lines) {
        free(grown.hashes);
        return false;
    }
    for (size_t i = 0; i < s->n_slots; i++) {
        if (!s->hashes[i]) continue;
        size_t k = s->hashes[i] & (grown.n_slots - 1);
        while (grown.hashes[k]) k = (k + 1) & (grown.n_slots - 1);
        grown.hashes[k] = s->hashes[i];
        grown.lines[k] = s->lines[i];
    }
    line_set_finish(s);
    *s = grown;
    return true;
}

bool line_set_add(struct line_set *s, uint64_t hash, size_t line, size_t *earlier, struct err *err) {
    if (s->n >= s->n_slots / 4 * 3 && !line_set_grow(s, err)) return false;
    if (!hash) hash = 1;
    size_t k = hash & (s->n_slots - 1);
    while (s->hashes[k] && s->hashes[k] != hash) k = (k + 1) & (s->n_slots - 1);
    *earlier = s->hashes[k] ? s->lines[k] : 0;
    if (s->hashes[k]) return true;
    s->hashes[k] = hash;
    s->lines[k] = (uint32_t)MIN(line, UINT32_MAX);
    s->n++;
    return true;
}

void line_set_finish(struct line_set *s) {
    free(s->hashes);
    free(s->lines);
    *s = (struct line_set){0};
}

static uint32_t lower(uint32_t c) {
    if ((c >= 'A' && c <= 'Z') || (c >= 0xc0 && c <= 0xde && c != 0xd7) || (c >= 0x391 && c <= 0x3a9) || (c >= 0x410 && c <= 0x42f)) return c + 32;
    return c >= 0x400 && c <= 0x40f ? c + 80 : c;
}

void text_fold(const char *text, size_t len, struct buf *out) {
    bool space = false, begun = false;
    for (size_t i = 0; i < len;) {
        uint32_t c;
        i += utf8_decode(text + i, len - i, &c);
        if (unicode_class(c) == CHAR_SPACE) {
            space = true;
            continue;
        }
        if (space && begun) buf_add_byte(out, ' ');
        buf_add_utf8(out, lower(c));
        space = false;
        begun = true;
    }
}

// ---- leaks

// Runs of RUN tokens in validation, by hash. Only every step-th place of it has one, so that memory is bounded: then a shared run of
// RUN + step - 1 tokens is found for certain.
enum { RUN = 13, RUNS_MAX = 1 << 20, COMMON_ROWS = 10, COMMON_SHARE = 100 };
struct run {
    uint64_t hash;            // 0: empty slot
    uint32_t n_rows, last_row; // training rows that have it; the last of them, from 1
};
struct run_table {
    struct run *runs;
    size_t n_slots, step;
    uint32_t *ids; // one example
};

static uint64_t run_hash(const uint32_t *ids) {
    uint64_t h = hash_bytes(ids, RUN * sizeof *ids, 0);
    return h ? h : 1;
}

static struct run *run_find(const struct run_table *t, uint64_t hash) {
    size_t k = hash & (t->n_slots - 1);
    while (t->runs[k].hash && t->runs[k].hash != hash) k = (k + 1) & (t->n_slots - 1);
    return &t->runs[k];
}

static bool run_table_init(struct run_table *t, const struct data_view *train, const struct data_view *validation, struct err *err) {
    size_t total = 0, longest = 0;
    for (size_t i = 0; i < validation->n; i++) {
        size_t n = dataset_length(validation->data, validation->items[i]) + 1;
        total += n;
        longest = MAX(longest, n);
    }
    for (size_t i = 0; i < train->n; i++) longest = MAX(longest, dataset_length(train->data, train->items[i]) + 1);
    t->step = total / RUNS_MAX + 1;
    size_t n_runs = total / t->step + validation->n; // an example has up to one more than its share
    for (t->n_slots = 1024; t->n_slots < n_runs * 2;) t->n_slots *= 2;
    t->runs = mem_try_alloc(t->n_slots, sizeof *t->runs, "the runs of validation tokens", err);
    t->ids = t->runs ? mem_try_alloc(longest, sizeof *t->ids, "one example", err) : NULL;
    return t->ids;
}

// Enters the example's runs, or (row > 0) counts those that are there.
static bool run_table_add(struct run_table *t, const struct data_view *v, size_t i, uint32_t row, struct err *err) {
    size_t n = dataset_length(v->data, v->items[i]) + 1;
    if (!dataset_tokens(v->data, v->items[i], t->ids, err)) return false;
    for (size_t at = 0; at + RUN <= n; at += row ? 1 : t->step) {
        uint64_t hash = run_hash(t->ids + at);
        struct run *r = run_find(t, hash);
        if (!row) r->hash = hash;
        if (!row || !r->hash || r->last_row == row) continue;
        r->last_row = row;
        r->n_rows++;
    }
    return true;
}

// Does the example in t->ids have a run that training has, none of whose tokens belongs to a common run?
static bool example_leaks(const struct run_table *t, size_t n, size_t n_train) {
    size_t common_end = 0, last = SIZE_MAX; // tokens before common_end are common or were passed; start of a run that may count
    for (size_t at = 0; at + RUN <= n; at += t->step) {
        if (last != SIZE_MAX && at >= last + RUN) return true; // no common run reached back into it
        const struct run *r = run_find(t, run_hash(t->ids + at));
        if (r->n_rows >= COMMON_ROWS && r->n_rows > n_train / COMMON_SHARE) {
            common_end = at + RUN;
            last = SIZE_MAX;
        } else if (r->n_rows && at >= common_end && last == SIZE_MAX) {
            last = at;
        }
    }
    return last != SIZE_MAX;
}

size_t data_view_leaks(const struct data_view *train, const struct data_view *validation, struct err *err) {
    struct run_table t = {0};
    size_t leaks = 0;
    bool ok = run_table_init(&t, train, validation, err);
    for (size_t i = 0; ok && i < validation->n; i++) ok = run_table_add(&t, validation, i, 0, err);
    for (size_t i = 0; ok && i < train->n; i++) ok = run_table_add(&t, train, i, (uint32_t)i + 1, err);
    for (size_t i = 0; ok && i < validation->n; i++) {
        ok = dataset_tokens(validation->data, validation->items[i], t.ids, err);
        leaks += ok && example_leaks(&t, dataset_length(validation->data, validation->items[i]) + 1, train->n);
    }
    free(t.runs);
    free(t.ids);
    return ok ? leaks : SIZE_MAX;
}
