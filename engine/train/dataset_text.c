// SPDX-License-Identifier: MIT
// Plain text -> windows. The text is encoded piece by piece, and the ids are those of the whole text: it is cut only where every
// pre-tokenizer surely cuts.
//
// The place: behind a letter or a number, before a character of another class. Why that is one for PRE_GPT2, PRE_SMOLLM and PRE_LLAMA3
//   - What ends there: a letter or number is only ever in the last run of its piece ( ?\p{L}+, [^\r\n\p{L}\p{N}]?\p{L}+, ?\p{N}+, \p{N}{1,3},
//     \p{N}, a contraction), and that run stops at the end of the text as it does before another class. A contraction looks two letters
//     ahead: what follows is none, and 's, 't, 'm, 'd match whatever follows. So the part before is cut as in the whole text.
//   - What begins there: a piece, and no rule looks behind itself. smollm cuts what lies between numbers as if it were alone; that
//     reaches from here to the next number in both cases. So the part behind is cut as in the whole text.
// Tokens added to the vocabulary are matched across such places: a place inside one is not taken.
//
// <|endoftext|> stands between documents, as in GPT-2's own corpus and the seed's loader, and becomes its token. No other special token is read
// out of a text.
#include "engine/train/dataset_impl.h"

#include "base/mem.h"
#include "base/utf8.h"
#include "tokenizer/unicode_class.h"

#include <stdlib.h>
#include <string.h>

static const char end_of_text[] = "<|endoftext|>";
enum { END_LEN = sizeof end_of_text - 1 };
#define CHUNK_BYTES ((size_t)1 << 20)
#define CHUNK_MAX   ((size_t)1 << 30) // far above any text with letters or numbers in it; the tokenizer takes less than 4 GiB

struct added { // an added token that a cut could fall into
    const char *bytes;
    size_t len;
};
struct cutter {
    const char *text;
    size_t len;
    bool has_end; // the vocabulary has <|endoftext|>
    uint32_t end;
    struct added *added;
    size_t n_added, added_cap;
};

// p > 0, at a character's first byte or not.
static bool between_classes(const char *text, size_t len, size_t p) {
    if (((unsigned char)text[p] & 0xc0) == 0x80) return false;
    size_t q = p - 1;
    while (q > 0 && p - q < 4 && ((unsigned char)text[q] & 0xc0) == 0x80) q--;
    uint32_t before, behind;
    utf8_decode(text + q, p - q, &before);
    utf8_decode(text + p, len - p, &behind);
    enum char_class class = unicode_class(before);
    return (class == CHAR_LETTER || class == CHAR_NUMBER) && unicode_class(behind) != class;
}

// Ordinary tokens have no such place inside, or are never met whole: the pre-tokenizer cuts them. One that encodes to itself all
// the same was added.
static void cutter_init(struct cutter *c, const struct tokenizer *t, const char *text, size_t len) {
    *c = (struct cutter){.text = text, .len = len};
    c->has_end = tokenizer_find(t, end_of_text, END_LEN, &c->end) && tokenizer_is_special(t, c->end);
    struct ids ids = {0};
    for (uint32_t id = 0; id < tokenizer_size(t); id++) {
        size_t n, p = 1;
        const char *bytes = tokenizer_bytes(t, id, &n);
        while (p < n && !between_classes(bytes, n, p)) p++;
        if (p >= n) continue;
        ids.len = 0;
        tokenizer_encode(t, bytes, n, false, &ids);
        if ((ids.len != 1 || ids.data[0] != id) && !(c->has_end && id == c->end)) continue;
        mem_grow(&c->added, &c->added_cap, c->n_added + 1);
        c->added[c->n_added++] = (struct added){bytes, n};
    }
    ids_finish(&ids);
}

static bool inside_added(const struct cutter *c, size_t p) {
    for (size_t i = 0; i < c->n_added; i++) {
        const struct added *a = &c->added[i];
        for (size_t back = 1; back < a->len && back <= p; back++)
            if (a->len <= c->len - (p - back) && !memcmp(c->text + p - back, a->bytes, a->len)) return true;
    }
    return false;
}

// The end of the chunk that begins at `at`: the last cut within a chunk's length, or within twice that, and so on. 0: none within CHUNK_MAX.
static size_t chunk_end(const struct cutter *c, size_t at) {
    for (size_t size = CHUNK_BYTES, from = at; size <= CHUNK_MAX; size *= 2) {
        if (size >= c->len - at) return c->len;
        for (size_t p = at + size; p > from; p--)
            if (between_classes(c->text, c->len, p) && !inside_added(c, p)) return p;
        from = at + size; // what lies before was searched
    }
    return 0;
}

static size_t line_of(const char *text, size_t at) {
    size_t line = 1;
    for (size_t i = 0; i < at; i++) line += text[i] == '\n';
    return line;
}

// UTF-8 without NUL? Otherwise notes where not.
static bool check_text(struct loader *l, size_t from, size_t to) {
    const char *s = l->text + from, *nul = memchr(s, 0, to - from);
    const size_t len = nul ? (size_t)(nul - s) : to - from, bad = utf8_valid_prefix(s, len);
    if (!nul && bad == len) return true;
    size_t line = line_of(l->text, from + bad);
    if (bad == len) loader_problem(l, line, true, "a NUL byte: not a text");
    else loader_problem(l, line, true, "not UTF-8: byte 0x%02X", (unsigned char)s[bad]);
    return false;
}

static bool add_windows(struct loader *l, struct err *err) {
    struct dataset *d = l->d;
    struct dataset_report *r = l->report;
    uint64_t n = d->store.n;
    if (n < 2) {
        loader_problem(l, 0, true, "a text of two tokens is the shortest that can be trained on");
        return true;
    }
    uint64_t windows = n > d->context ? (n - 1 - d->context) / d->stride + 1 : 1;
    if (windows > DATASET_MAX_EXAMPLES)
        return err_set(err, ERR_TOO_LARGE, "%s gives %llu windows at stride %zu, more than %zu", l->name, (unsigned long long)windows,
                       d->stride, DATASET_MAX_EXAMPLES);
    d->count = (size_t)windows;
    r->n_tokens = n;
    r->longest = (size_t)MIN(n, d->context + 1);
    r->n_supervised = d->count * (r->longest - 1);
    return true;
}

static void encode_documents(const struct cutter *c, const struct tokenizer *t, size_t from, size_t to, struct ids *out) {
    for (const char *at = c->text + from, *stop = c->text + to; at < stop;) {
        const char *end = c->has_end ? memmem(at, (size_t)(stop - at), end_of_text, END_LEN) : NULL;
        tokenizer_encode(t, at, (size_t)((end ? end : stop) - at), false, out);
        if (end) ids_add(out, c->end);
        at = end ? end + END_LEN : stop;
    }
}

bool dataset_load_text(struct loader *l, struct err *err) {
    const struct tokenizer *t = l->o->tokenizer;
    if (!t) return err_set(err, ERR_INVALID, "%s is a text, and the model has no tokenizer: only {\"tokens\"} rows can be read", l->name);
    struct cutter c;
    struct ids ids = {0};
    cutter_init(&c, t, l->text, l->len);
    bool ok = true;
    for (size_t at = 0, end; ok && at < l->len && !l->d->store.error; at = end) { // a full disk comes out at the store's finish
        end = chunk_end(&c, at);
        if (!end) {
            ok = err_set(err, ERR_TOO_LARGE, "%s: %zu bytes without a letter or a number that something else follows", l->name, CHUNK_MAX);
            break;
        }
        ids.len = 0;
        if (!check_text(l, at, end)) break;
        encode_documents(&c, t, at, end, &ids);
        if (!loader_check_ids(l, ids.data, ids.len, 0)) break;
        for (size_t i = 0; i < ids.len; i++) ids.data[i] |= TOKEN_SUPERVISED;
        token_store_add(&l->d->store, ids.data, ids.len);
        loader_advance(l, end);
    }
    ids_finish(&ids);
    free(c.added);
    return ok && (l->report->n_fatal || add_windows(l, err));
}
