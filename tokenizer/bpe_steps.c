// SPDX-License-Identifier: MIT
// See bpe_steps.h.
#include "tokenizer/bpe_steps.h"

#include "tokenizer/pretokenize.h"
#include "tokenizer/tokenizer_impl.h"

#include <string.h>

// Replaces the pair of lowest rank, the leftmost of equals. false: no neighbours are in the merge list.
static bool merge_one(const struct bpe *b, struct ids *ids) {
    size_t best = 0;
    uint32_t lowest = BPE_NONE, result, merged = 0;
    for (size_t i = 0; i + 1 < ids->len; i++) {
        const uint32_t rank = bpe_rank(b, ids->data[i], ids->data[i + 1], &result);
        if (rank < lowest) lowest = rank, best = i, merged = result;
    }
    if (lowest == BPE_NONE) return false;
    ids->data[best] = merged;
    memmove(&ids->data[best + 1], &ids->data[best + 2], (ids->len - best - 2) * sizeof *ids->data);
    ids->len--;
    return true;
}

static void watch_word(const struct tokenizer *t, const char *word, size_t len, struct ids *ids, const struct bpe_watcher *w) {
    uint32_t whole;
    ids->len = 0;
    for (size_t i = 0; i < len; i++) {
        const uint32_t id = t->bpe.byte_id[(unsigned char)word[i]];
        if (id != BPE_NONE) ids_add(ids, id);
    }
    do w->step(w->ctx, ids->data, ids->len);
    while (merge_one(&t->bpe, ids));
    if (!t->ignore_merges || !map_get(&t->plain, word, len, &whole) || (ids->len == 1 && ids->data[0] == whole)) return;
    ids->len = 0;
    ids_add(ids, whole);
    w->step(w->ctx, ids->data, ids->len);
}

void tokenizer_watch(const struct tokenizer *t, const char *text, size_t len, bool special, const struct bpe_watcher *w) {
    const struct special_matcher *m = special ? &t->any : &t->added;
    const struct special_entry *found = NULL;
    struct ids ids = {0};
    for (size_t at = 0; at < len;) {
        const size_t stop = special_matcher_find(m, text, at, len, &found);
        struct pretokenizer p;
        const char *piece;
        pretokenizer_init(&p, t->pre, text + at, stop - at);
        for (size_t n; pretokenizer_next(&p, &piece, &n);) {
            watch_word(t, piece, n, &ids, w);
            w->word(w->ctx, (size_t)(piece - text), n, ids.data, ids.len);
        }
        if (stop == len) break;
        w->step(w->ctx, &found->id, 1);
        w->word(w->ctx, stop, found->len, &found->id, 1);
        at = stop + found->len;
    }
    ids_finish(&ids);
}
