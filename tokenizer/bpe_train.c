// SPDX-License-Identifier: MIT
// The trainer: texts are cut into parts that the pool counts, then merges are learned, then a tokenizer is made of them.
//
// Invariants: (1) n_tokens ids have been given, tokens[0..n_tokens) are known; (2) a special token without an id (special_last) is
// waiting for one behind the merges, so n_tokens + n_waiting <= vocab_size; (3) counts are sums: neither the cut nor the threads show.
#include "tokenizer/bpe_train.h"

#include "base/map.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "tokenizer/bpe_learn.h"
#include "tokenizer/byte_alphabet.h"
#include "tokenizer/tokenizer_impl.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define PART_BYTES      ((size_t)1 << 20) // of a text that one thread counts at a time
#define MAX_TOKEN_BYTES ((size_t)1 << 20) // what the loaders take
#define NO_ID           UINT32_MAX

struct trained_token {
    size_t at, len; // in bytes
    bool special;
};

struct bpe_trainer {
    struct bpe_train_options o; // special: NULL, see below
    struct pool *pool;
    struct word_counts *counts; // [pool_threads]; the first receives the others' at the end
    size_t n_counts;

    struct map special;   // text -> index
    uint32_t *special_id; // [n_special], NO_ID while waiting
    size_t n_special, n_waiting;
    struct buf special_texts; // one after the other, for those that get their ids last
    size_t *special_len;

    struct trained_token *tokens; // [vocab_size]
    struct buf bytes;
    size_t n_tokens;
    struct merge_entry *merges; // [n_merges]
    size_t n_merges;
    struct buf joined, spelling; // scratch
};

void bpe_trainer_destroy(struct bpe_trainer *t) {
    if (!t) return;
    for (size_t i = 0; i < t->n_counts; i++) word_counts_finish(&t->counts[i]);
    free(t->counts);
    map_finish(&t->special);
    free(t->special_id);
    free(t->special_len);
    buf_finish(&t->special_texts);
    free(t->tokens);
    buf_finish(&t->bytes);
    free(t->merges);
    buf_finish(&t->joined);
    buf_finish(&t->spelling);
    free(t);
}

static bool specials_copy(struct bpe_trainer *t, const struct bpe_train_options *o, struct err *err) {
    t->special_id = mem_alloc(o->n_special, sizeof *t->special_id);
    t->special_len = mem_alloc(o->n_special, sizeof *t->special_len);
    for (size_t i = 0; i < o->n_special; i++) {
        size_t len = strlen(o->special[i]);
        if (!len || len > MAX_TOKEN_BYTES || !utf8_valid(o->special[i], len))
            return err_set(err, ERR_INVALID, "special token %zu is empty or not UTF-8", i + 1);
        uint32_t known;
        if (map_get(&t->special, o->special[i], len, &known)) continue;
        map_put(&t->special, o->special[i], len, (uint32_t)t->n_special);
        t->special_id[t->n_special] = NO_ID;
        t->special_len[t->n_special++] = len;
        buf_add(&t->special_texts, o->special[i], len);
    }
    t->n_waiting = t->n_special;
    return true;
}

struct bpe_trainer *bpe_trainer_create(const struct bpe_train_options *o, struct pool *pool, struct err *err) {
    if (o->vocab_size > TOKENIZER_MAX_IDS || o->n_special > TOKENIZER_MAX_IDS || o->vocab_size < 256 + o->n_special)
        return err_set(err, ERR_INVALID, "a vocabulary of %zu ids cannot hold 256 bytes and %zu special tokens, or is over %zu", o->vocab_size,
                       o->n_special, TOKENIZER_MAX_IDS), NULL;
    struct bpe_trainer *t = mem_new(struct bpe_trainer);
    t->o = *o;
    t->o.special = NULL;
    t->pool = pool;
    t->n_counts = pool_threads(pool);
    t->counts = mem_alloc(t->n_counts, sizeof *t->counts);
    t->tokens = mem_alloc(o->vocab_size, sizeof *t->tokens);
    t->merges = mem_alloc(o->vocab_size, sizeof *t->merges);
    if (specials_copy(t, o, err)) return t;
    bpe_trainer_destroy(t);
    return NULL;
}

// ---- counting

struct count_run {
    struct bpe_trainer *t;
    const char *text;
    size_t *cuts; // [n_parts + 1]
    struct err *errs; // [n_parts]
    uint64_t offset;
};

static bool text_check(const char *text, size_t len, uint64_t offset, struct err *err) {
    const size_t bad = utf8_valid_prefix(text, len);
    return bad == len || err_set(err, ERR_INVALID, "not UTF-8 at byte %llu", (unsigned long long)(offset + bad));
}

static void count_part(void *ctx, size_t part) {
    struct count_run *run = ctx;
    size_t start = run->cuts[part], len = run->cuts[part + 1] - start;
    const char *text = run->text + start;
    struct err *err = &run->errs[part];
    if (text_check(text, len, run->offset + start, err))
        (void)!word_counts_add_text(&run->t->counts[pool_self()], run->t->o.pre, text, len, err);
}

bool bpe_trainer_add(struct bpe_trainer *t, const char *text, size_t len, uint64_t offset, struct err *err) {
    size_t n = len / PART_BYTES + 1;
    struct count_run run = {.t = t, .text = text, .cuts = mem_alloc(n + 1, sizeof *run.cuts), .errs = mem_alloc(n, sizeof *run.errs), .offset = offset};
    for (size_t i = 1; i <= n; i++) {
        size_t at = MAX(run.cuts[i - 1], i * (len / n));
        while (i < n && at < len && (!at || !text_can_cut(t->o.pre, text, at))) at++;
        run.cuts[i] = i < n ? at : len;
    }
    pool_run(t->pool, count_part, &run, n);
    bool ok = true;
    for (size_t i = 0; i < n && ok; i++) { // the first fault in the text is told, whoever found one first
        ok = !run.errs[i].code;
        if (!ok && err) *err = run.errs[i];
    }
    free(run.cuts);
    free(run.errs);
    return ok;
}

size_t bpe_trainer_cut(const struct bpe_trainer *t, const char *text, size_t len) {
    size_t at = len ? len - 1 : 0;
    while (at && !text_can_cut(t->o.pre, text, at)) at--;
    return at;
}

// ---- ids

// The id of a token made of these bytes: a new one, or that of the special token which is spelled so. NO_ID: failed.
static uint32_t token_add(struct bpe_trainer *t, const char *bytes, size_t len, struct err *err) {
    buf_clear(&t->spelling);
    byte_alphabet_encode(bytes, len, &t->spelling);
    uint32_t special = NO_ID, id = (uint32_t)t->n_tokens;
    if (map_get(&t->special, t->spelling.data, t->spelling.len, &special)) {
        if (t->spelling.len != len)
            return err_set(err, ERR_INVALID, "the special token \"%.60s\" is what the vocabulary calls other bytes", t->spelling.data), NO_ID;
        if (t->special_id[special] != NO_ID) return t->special_id[special];
        t->special_id[special] = id;
        t->n_waiting--;
    }
    assert(t->n_tokens < t->o.vocab_size);
    t->tokens[t->n_tokens++] = (struct trained_token){t->bytes.len, len, special != NO_ID};
    buf_add(&t->bytes, bytes, len);
    return id;
}

// Every special token that is still waiting gets the next id.
static void specials_add(struct bpe_trainer *t) {
    size_t at = 0;
    for (size_t i = 0; i < t->n_special; at += t->special_len[i++]) {
        if (t->special_id[i] != NO_ID) continue;
        t->special_id[i] = (uint32_t)t->n_tokens;
        t->tokens[t->n_tokens++] = (struct trained_token){t->bytes.len, t->special_len[i], true};
        buf_add(&t->bytes, t->special_texts.data + at, t->special_len[i]);
    }
    t->n_waiting = 0;
}

// Bytes in the order of their characters in the printable alphabet: HF sorts so, and GPT-2's own vocabulary begins so.
static bool bytes_add(struct bpe_trainer *t, uint32_t ids[256], struct err *err) {
    struct buf byte = {0};
    bool ok = true;
    for (uint32_t c = '!'; ok && c < 0x144; c++) {
        char text[4];
        buf_clear(&byte);
        if (!byte_alphabet_decode(text, utf8_encode(c, text), &byte)) continue;
        uint32_t id = token_add(t, byte.data, 1, err);
        ids[(unsigned char)byte.data[0]] = id;
        ok = id != NO_ID;
    }
    buf_finish(&byte);
    return ok;
}

// ---- merging

static bool merge_add(struct bpe_trainer *t, struct bpe_learner *l, uint32_t left, uint32_t right, struct err *err) {
    const struct trained_token a = t->tokens[left], b = t->tokens[right];
    if (a.len + b.len > MAX_TOKEN_BYTES)
        return err_set(err, ERR_TOO_LARGE, "a token would have more than %zu bytes: the text repeats itself without end", MAX_TOKEN_BYTES);
    buf_clear(&t->joined);
    buf_add(&t->joined, t->bytes.data + a.at, a.len);
    buf_add(&t->joined, t->bytes.data + b.at, b.len);
    uint32_t id = token_add(t, t->joined.data, t->joined.len, err);
    if (id == NO_ID || !bpe_learner_merge(l, id, err)) return false;
    t->merges[t->n_merges++] = (struct merge_entry){left, right, id};
    return true;
}

static bool merges_learn(struct bpe_trainer *t, struct bpe_learner *l, struct err *err) {
    const size_t wanted = t->o.vocab_size - t->n_tokens - t->n_waiting;
    uint32_t left, right;
    uint64_t count;
    while (t->n_tokens + t->n_waiting < t->o.vocab_size && bpe_learner_best(l, &left, &right, &count) && count >= t->o.min_frequency) {
        if (!merge_add(t, l, left, right, err)) return false;
        if (t->o.progress) t->o.progress(t->o.progress_ctx, t->n_merges, wanted);
    }
    return true;
}

static struct tokenizer *tokenizer_make(struct bpe_trainer *t, struct err *err) {
    struct vocab_entry *vocab = mem_alloc(t->n_tokens, sizeof *vocab);
    for (size_t i = 0; i < t->n_tokens; i++)
        vocab[i] = (struct vocab_entry){.bytes = t->bytes.data + t->tokens[i].at, .len = t->tokens[i].len, .special = t->tokens[i].special};
    static const char end_of_text[] = "<|endoftext|>";
    uint32_t end;
    int64_t end_id = map_get(&t->special, end_of_text, strlen(end_of_text), &end) ? (int64_t)t->special_id[end] : -1;
    const struct tokenizer_spec spec = {.vocab = vocab, .n_vocab = t->n_tokens, .merges = t->merges, .n_merges = t->n_merges, .pre = t->o.pre,
                                        .bos = end_id, .eos = end_id, .pad = -1};
    struct tokenizer *made = tokenizer_create(&spec, err);
    free(vocab);
    return made;
}

struct tokenizer *bpe_trainer_finish(struct bpe_trainer *t, struct err *err) {
    for (size_t i = 1; i < t->n_counts; i++) {
        if (!word_counts_add_all(&t->counts[0], &t->counts[i], err)) return NULL;
        word_counts_finish(&t->counts[i]);
    }
    if (!t->counts[0].n_words) return err_set(err, ERR_INVALID, "there is no text to learn from"), NULL;
    uint32_t ids[256];
    if (t->o.special_first) specials_add(t);
    if (!bytes_add(t, ids, err)) return NULL;
    struct bpe_learner *l = bpe_learner_create(&t->counts[0], ids, t->o.vocab_size, err);
    word_counts_finish(&t->counts[0]);
    bool ok = l && merges_learn(t, l, err);
    bpe_learner_destroy(l);
    if (!ok) return NULL;
    specials_add(t);
    return tokenizer_make(t, err);
}
