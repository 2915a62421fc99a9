// SPDX-License-Identifier: MIT
// The life of a dataset, its report, its views. How rows and texts become tokens: dataset_rows.c, dataset_text.c.
#include "engine/train/dataset_impl.h"

#include "base/mem.h"
#include "base/rng.h"
#include "base/utf8.h"

#include <assert.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>

enum { PROBLEMS_MAX = 100, NOTES_MAX = 50 }; // harmless ones never crowd out fatal ones

// ---- report

void dataset_report_finish(struct dataset_report *r) {
    free(r->problems);
    *r = (struct dataset_report){0};
}

void loader_problem(struct loader *l, size_t line, bool fatal, const char *format, ...) {
    struct dataset_report *r = l->report;
    char text[sizeof((struct err *)0)->message];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    struct err clean = {0};
    err_set(&clean, ERR_INVALID, "%s", text); // rows are quoted: without control characters
    r->n_problems++;
    if (fatal && !r->n_fatal++) {
        if (line) err_set(&l->failure, ERR_INVALID, "%s %s %zu: %s", l->name, dataset_place(r), line, clean.message);
        else err_set(&l->failure, ERR_INVALID, "%s: %s", l->name, clean.message);
    }
    if (r->n_problems_kept >= (fatal ? PROBLEMS_MAX : NOTES_MAX)) return;
    mem_grow(&r->problems, &r->problems_cap, r->n_problems_kept + 1);
    struct data_problem *p = &r->problems[r->n_problems_kept++];
    *p = (struct data_problem){.line = line, .fatal = fatal};
    size_t len = strlen(clean.message);
    if (len >= sizeof p->message) len = utf8_complete_prefix(clean.message, sizeof p->message - 1);
    memcpy(p->message, clean.message, len);
}

bool loader_check_ids(struct loader *l, const uint32_t *ids, size_t n, size_t line) {
    for (size_t i = 0; i < n; i++) {
        if (TOKEN_ID(ids[i]) < l->o->n_vocab) continue;
        loader_problem(l, line, true, "token %u is outside the model's vocabulary of %zu", TOKEN_ID(ids[i]), l->o->n_vocab);
        return false;
    }
    return true;
}

// ---- reading

void loader_advance(struct loader *l, size_t at) {
    enum { STEP = 1 << 20, PAGE = 1 << 16 }; // a multiple of every page size
    if (at < l->len && at < l->released + STEP) return;
    if (l->o->progress) l->o->progress(l->o->progress_ctx, at, l->len);
    size_t end = at / PAGE * PAGE;
    madvise((void *)((uintptr_t)l->map.data + l->released), end - l->released, MADV_DONTNEED);
    l->released = end;
}

bool loader_add_example(struct loader *l, const uint32_t *tokens, size_t n, size_t n_supervised, size_t line, struct err *err) {
    struct dataset *d = l->d;
    if (d->count == DATASET_MAX_EXAMPLES) return err_set(err, ERR_TOO_LARGE, "%s has more than %zu rows", l->name, d->count);
    if (d->count == d->cap) {
        size_t cap = MAX(d->cap * 2, 256);
        struct example *grown = mem_try_alloc(cap, sizeof *grown, "the list of examples", err);
        if (!grown) return false;
        if (d->count) memcpy(grown, d->examples, d->count * sizeof *grown);
        free(d->examples);
        d->examples = grown;
        d->cap = cap;
    }
    d->examples[d->count++] = (struct example){.at = d->store.n, .n = (uint32_t)n, .line = (uint32_t)MIN(line, UINT32_MAX),
                                             .row = (uint32_t)(MAX(l->report->n_rows, 1) - 1)};
    token_store_add(&d->store, tokens, n);
    struct dataset_report *r = l->report;
    r->n_tokens += n;
    r->n_supervised += n_supervised;
    r->longest = MAX(r->longest, n);
    return true;
}

enum shape { SHAPE_TEXT, SHAPE_LINES, SHAPE_ARRAY };

static const char *skip_space(const char *p, const char *end) {
    while (p < end && strchr(" \t\r\n", *p) && *p) p++;
    return p;
}

// By extension; a file that has none of ours (an upload kept under its id) by how it begins.
static enum shape file_shape(const char *path, const char *text, size_t len) {
    const char *extension = strrchr(path, '.'), *end = text + len;
    if (extension && (!strcasecmp(extension, ".txt") || !strcasecmp(extension, ".md"))) return SHAPE_TEXT;
    bool known = extension && (!strcasecmp(extension, ".jsonl") || !strcasecmp(extension, ".json"));
    const char *first = skip_space(text, end);
    char a = first < end ? *first : 0;
    if (known) return a == '[' ? SHAPE_ARRAY : SHAPE_LINES;
    if (a == '{') return SHAPE_LINES;
    const char *second = a == '[' ? skip_space(first + 1, end) : end;
    return second < end && *second == '{' ? SHAPE_ARRAY : SHAPE_TEXT;
}

static bool loader_start(struct loader *l, struct err *err) {
    if (!file_map_open(&l->map, l->path, err)) return false;
    l->text = (const char *)l->map.data;
    l->len = l->map.len;
    if (l->len >= 3 && memcmp(l->text, "\xef\xbb\xbf", 3) == 0) l->text += 3, l->len -= 3;
    return l->len || err_set(err, ERR_INVALID, "%s is empty", l->name);
}

static bool loader_end(struct loader *l, struct err *err) {
    struct dataset_report *r = l->report;
    r->n_examples = l->d->count;
    if (!token_store_finish(&l->d->store, err)) return false;
    if (r->n_fatal) {
        if (err) *err = l->failure;
        return false;
    }
    if (r->n_examples) return true;
    if (r->n_rows) return err_set(err, ERR_INVALID, "%s: no example is left, all %zu rows were dropped", l->name, r->n_rows);
    return err_set(err, ERR_INVALID, "%s holds no rows", l->name);
}

struct dataset *dataset_open(const char *path, const struct dataset_options *o, struct dataset_report *report, struct err *err) {
    assert(o->context > 0 && o->context < UINT32_MAX - 1 && o->n_vocab > 0 && o->n_vocab <= TOKEN_SUPERVISED);
    struct dataset *d = mem_new(struct dataset);
    struct dataset_report own = {0};
    struct loader l = {.d = d, .o = o, .path = path, .name = o->name ? o->name : path, .report = report ? report : &own};
    *l.report = own;
    d->context = o->context;
    d->stride = o->stride ? o->stride : o->context;
    bool ok = token_store_open(&d->store, o->temp_dir, err) && loader_start(&l, err);
    if (ok) {
        enum shape shape = file_shape(l.name, l.text, l.len);
        d->format = shape == SHAPE_TEXT ? DATA_TEXT : DATA_ROWS;
        ok = shape == SHAPE_TEXT ? dataset_load_text(&l, err) : dataset_load_rows(&l, shape == SHAPE_ARRAY, err);
        ok = ok && loader_end(&l, err);
    }
    file_map_close(&l.map);
    dataset_report_finish(&own);
    if (ok) return d;
    dataset_close(d);
    return NULL;
}

void dataset_close(struct dataset *d) {
    if (!d) return;
    token_store_close(&d->store);
    free(d->examples);
    free(d);
}

// ---- examples

static struct example example_at(const struct dataset *d, size_t i) {
    assert(i < d->count);
    if (d->format == DATA_ROWS) return d->examples[i];
    return (struct example){.at = (uint64_t)i * d->stride, .n = (uint32_t)MIN(d->context + 1, d->store.n)};
}

size_t dataset_count(const struct dataset *d) { return d->count; }
size_t dataset_length(const struct dataset *d, size_t i) { return example_at(d, i).n - 1; }
size_t dataset_line(const struct dataset *d, size_t i) { return example_at(d, i).line; }
size_t dataset_row(const struct dataset *d, size_t i) { return example_at(d, i).row; }
enum data_format dataset_format(const struct dataset *d) { return d->format; }

bool dataset_tokens(const struct dataset *d, size_t i, uint32_t *ids, struct err *err) {
    struct example e = example_at(d, i);
    if (!token_store_read(&d->store, e.at, ids, e.n, err)) return false;
    for (size_t t = 0; t < e.n; t++) ids[t] = TOKEN_ID(ids[t]);
    return true;
}

bool dataset_read(const struct dataset *d, size_t i, uint32_t *ids, int32_t *targets, struct err *err) {
    struct example e = example_at(d, i);
    size_t n = e.n - 1;
    uint32_t last;
    if (!token_store_read(&d->store, e.at, ids, n, err) || !token_store_read(&d->store, e.at + n, &last, 1, err)) return false;
    for (size_t t = 0; t < n; t++) {
        uint32_t next = t + 1 < n ? ids[t + 1] : last;
        targets[t] = next & TOKEN_SUPERVISED ? (int32_t)TOKEN_ID(next) : TARGET_IGNORED;
        ids[t] = TOKEN_ID(ids[t]);
    }
    return true;
}

void dataset_hash(const struct dataset *d, unsigned char out[32]) {
    struct sha256 s = d->store.digest; // the tokens and their marks; then where examples begin and end
    uint64_t windows[2] = {d->stride, d->context};
    if (d->format == DATA_TEXT) sha256_update(&s, windows, sizeof windows);
    else
        for (size_t i = 0; i < d->count; i++) sha256_update(&s, &d->examples[i].n, sizeof d->examples[i].n);
    sha256_digest(&s, out);
}

// ---- views

void data_view_finish(struct data_view *v) {
    free(v->items);
    *v = (struct data_view){0};
}

static struct data_view view_of(const struct dataset *d, size_t cap) {
    return (struct data_view){.data = d, .items = mem_alloc(cap, sizeof(uint32_t))};
}

void data_view_all(struct data_view *v, const struct dataset *d) {
    *v = view_of(d, d->count);
    while (v->n < d->count) v->items[v->n] = (uint32_t)v->n, v->n++;
}

// Selection sampling (Knuth, TAOCP 2, 3.4.2 S): every set of n_chosen is equally likely, and file order stays.
static void split_rows(const struct dataset *d, size_t n_chosen, uint64_t seed, struct data_view *train, struct data_view *validation) {
    for (size_t i = 0; i < d->count; i++) {
        bool chosen = (double)(d->count - i) * rng_uniform(seed, i) < (double)(n_chosen - validation->n);
        struct data_view *v = chosen ? validation : train;
        v->items[v->n++] = (uint32_t)i;
    }
}

// A training window may end in the token that validation begins with: that one is a target there and never one here.
static void split_windows(const struct dataset *d, size_t n_chosen, struct data_view *train, struct data_view *validation) {
    size_t first = d->count - n_chosen;
    for (size_t i = first; i < d->count; i++) validation->items[validation->n++] = (uint32_t)i;
    for (size_t i = 0; i < first && i * d->stride + d->context <= first * d->stride; i++) train->items[train->n++] = (uint32_t)i;
}

bool data_view_split(const struct dataset *d, double fraction, uint64_t seed, struct data_view *train, struct data_view *validation,
                     struct err *err) {
    assert(fraction > 0 && fraction < 1);
    if (d->count < 2) return err_set(err, ERR_INVALID, "one example cannot be split into training and validation");
    size_t n = (size_t)llround((double)d->count * fraction);
    n = MIN(MAX(n, 1), d->count - 1);
    struct data_view a = view_of(d, d->count), b = view_of(d, n);
    if (d->format == DATA_TEXT) split_windows(d, n, &a, &b);
    else split_rows(d, n, seed, &a, &b);
    if (!a.n) {
        data_view_finish(&a);
        data_view_finish(&b);
        return err_set(err, ERR_INVALID, "the text is too short to split: every window overlaps the last %zu", n);
    }
    *train = a;
    *validation = b;
    return true;
}
