// SPDX-License-Identifier: MIT
// Learning merges: counts of pairs, and lists of the words where each pair occurs, kept up to date merge by merge.
//
// A merge of (a, b) into the new id n changes only pairs with the neighbours of its occurrences: (x, a) becomes (x, n), (b, y) becomes
// (n, y). So the occurrences are first summed by neighbour in two plain arrays; the tables are touched once a distinct neighbour.
//
// Invariants:
//  1. A pair's count is exact at any time: the sum over words of word count x occurrences, without overlaps that were merged away.
//  2. Every word that holds a pair is in the pair's list; words in the list may have lost it.
//  3. Every pair with a count has one candidate in the heap, with a count that is at least its own: no pair gains after the merge that made
//     it, because a new pair holds a new id. Hence a candidate on top whose count is still right is the best.
//  4. A place is made for each pair of neighbours at the start and at most two for each merged occurrence: never more than 3 x symbols.
#include "tokenizer/bpe_learn.h"

#include "base/mem.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define NONE     UINT32_MAX
#define NO_PAIR  UINT64_MAX
#define WAYS     4 // children of a heap node

struct word {
    uint64_t count;
    uint32_t at, len; // in symbols
};

struct place { // of a pair, or in the list of unused ones
    uint32_t word, next;
};

struct pair {
    uint64_t key, count; // left << 32 | right; NO_PAIR: an empty slot. Count 0: gone for ever
    uint32_t places;
};

struct candidate {
    uint64_t count, key;
};

// What stands on one side of the occurrences that are being merged.
struct side {
    struct neighbour {
        uint64_t count; // 0: not met
        uint32_t places;
    } *of;         // [max_ids]
    uint32_t *met; // [n_met]
    size_t n_met;
};

struct bpe_learner {
    struct word *words;
    uint32_t *symbols;
    size_t n_words;
    struct place *places;
    size_t n_places, places_bytes; // n_places: ever used
    uint32_t unused;
    struct pair *pairs; // open addressing
    size_t n_slots, n_pairs; // n_pairs: with those that are gone
    struct candidate *heap;
    size_t n_heap, heap_cap;
    struct side left, right;
    uint64_t seed[2];
};

// ---- pairs

static inline uint64_t pair_key(uint32_t left, uint32_t right) { return (uint64_t)left << 32 | right; }

// The pair's slot, or the empty one where it would go.
static inline struct pair *pair_slot(const struct bpe_learner *l, uint64_t key) {
    __uint128_t product = (__uint128_t)(key ^ l->seed[0]) * (l->seed[1] | 1);
    size_t mask = l->n_slots - 1, i = (size_t)((uint64_t)product ^ (uint64_t)(product >> 64)) & mask;
    while (l->pairs[i].key != key && l->pairs[i].key != NO_PAIR) i = (i + 1) & mask;
    return &l->pairs[i];
}

// Pairs that are gone are left behind.
static bool pairs_grow(struct bpe_learner *l, struct err *err) {
    struct pair *old = l->pairs;
    size_t n_old = l->n_slots, live = 0;
    for (size_t i = 0; i < n_old; i++) live += old[i].key != NO_PAIR && old[i].count;
    size_t n_slots = 1 << 12;
    while (n_slots < live * 3) n_slots *= 2;
    struct pair *pairs = mem_try_alloc(n_slots, sizeof *pairs, "the table of pairs", err);
    if (!pairs) return false;
    for (size_t i = 0; i < n_slots; i++) pairs[i].key = NO_PAIR;
    l->pairs = pairs;
    l->n_slots = n_slots;
    l->n_pairs = live;
    for (size_t i = 0; i < n_old; i++)
        if (old[i].key != NO_PAIR && old[i].count) *pair_slot(l, old[i].key) = old[i];
    free(old);
    return true;
}

// NULL: no memory. A new pair has count 0 and no place.
static struct pair *pair_at(struct bpe_learner *l, uint64_t key, struct err *err) {
    if (l->n_pairs >= l->n_slots / 4 * 3 && !pairs_grow(l, err)) return NULL;
    struct pair *p = pair_slot(l, key);
    if (p->key == NO_PAIR) {
        *p = (struct pair){.key = key, .places = NONE};
        l->n_pairs++;
    }
    return p;
}

static inline void place_push(struct bpe_learner *l, uint32_t *list, uint32_t word) {
    if (*list != NONE && l->places[*list].word == word) return; // several times in one word
    uint32_t i = l->unused;
    if (i != NONE) l->unused = l->places[i].next;
    else i = (uint32_t)l->n_places++;
    l->places[i] = (struct place){word, *list};
    *list = i;
}

// ---- candidates

static inline bool is_before(const struct candidate *a, const struct candidate *b) {
    return a->count != b->count ? a->count > b->count : a->key < b->key;
}

static bool candidate_push(struct bpe_learner *l, uint64_t key, uint64_t count, struct err *err) {
    if (l->n_heap == l->heap_cap) {
        size_t cap = l->heap_cap ? l->heap_cap * 2 : 1 << 12;
        struct candidate *grown = realloc(l->heap, cap * sizeof *grown);
        if (!grown) return err_set(err, ERR_NO_MEMORY, "not enough memory for %zu pairs", cap);
        l->heap = grown;
        l->heap_cap = cap;
    }
    struct candidate c = {count, key};
    size_t i = l->n_heap++;
    for (; i && is_before(&c, &l->heap[(i - 1) / WAYS]); i = (i - 1) / WAYS) l->heap[i] = l->heap[(i - 1) / WAYS];
    l->heap[i] = c;
    return true;
}

// Puts c in the place of the top one.
static void candidate_replace(struct bpe_learner *l, struct candidate c) {
    size_t i = 0;
    for (size_t child; (child = WAYS * i + 1) < l->n_heap;) {
        size_t last = MIN(child + WAYS, l->n_heap), best = child;
        for (size_t k = child + 1; k < last; k++)
            if (is_before(&l->heap[k], &l->heap[best])) best = k;
        if (!is_before(&l->heap[best], &c)) break;
        l->heap[i] = l->heap[best];
        i = best;
    }
    l->heap[i] = c;
}

static void candidate_pop(struct bpe_learner *l) {
    struct candidate last = l->heap[--l->n_heap];
    if (l->n_heap) candidate_replace(l, last);
}

// ---- the start

static bool words_copy(struct bpe_learner *l, const struct word_counts *words, const uint32_t ids[256], struct err *err) {
    if (words->n_words >= NONE || words->n_bytes >= NONE / 3)
        return err_set(err, ERR_TOO_LARGE, "%zu different pre-tokens of %llu bytes are more than this trainer handles", words->n_words,
                       (unsigned long long)words->n_bytes);
    l->words = mem_try_alloc(words->n_words, sizeof *l->words, "the pre-tokens", err);
    l->symbols = l->words ? mem_try_alloc((size_t)words->n_bytes, sizeof *l->symbols, "the pre-tokens", err) : NULL;
    if (!l->symbols) return false;
    const char *bytes;
    uint32_t n_symbols = 0;
    size_t len;
    uint64_t count;
    for (size_t at = 0; word_counts_next(words, &at, &bytes, &len, &count);) {
        if (len < 2) continue;
        l->words[l->n_words++] = (struct word){count, n_symbols, (uint32_t)len};
        for (size_t i = 0; i < len; i++) l->symbols[n_symbols++] = ids[(unsigned char)bytes[i]];
    }
    l->places_bytes = ((size_t)n_symbols * 3 + 1) * sizeof *l->places;
    l->places = mem_map_array(l->places_bytes, "the places of pairs", err);
    l->unused = NONE;
    return l->places != NULL;
}

static bool pairs_count(struct bpe_learner *l, struct err *err) {
    for (uint32_t w = 0; w < l->n_words; w++) {
        const struct word *word = &l->words[w];
        const uint32_t *s = l->symbols + word->at;
        for (uint32_t i = 0; i + 1 < word->len; i++) {
            struct pair *p = pair_at(l, pair_key(s[i], s[i + 1]), err);
            if (!p) return false;
            p->count += word->count;
            place_push(l, &p->places, w);
        }
    }
    for (size_t i = 0; i < l->n_slots; i++)
        if (l->pairs[i].key != NO_PAIR && !candidate_push(l, l->pairs[i].key, l->pairs[i].count, err)) return false;
    return true;
}

static bool side_init(struct side *s, size_t max_ids, struct err *err) {
    s->of = mem_try_alloc(max_ids, sizeof *s->of, "the vocabulary", err);
    s->met = s->of ? mem_try_alloc(max_ids, sizeof *s->met, "the vocabulary", err) : NULL;
    return s->met != NULL;
}

struct bpe_learner *bpe_learner_create(const struct word_counts *words, const uint32_t ids[256], size_t max_ids, struct err *err) {
    struct bpe_learner *l = mem_new(struct bpe_learner);
    memcpy(l->seed, words->seed, sizeof l->seed);
    if (words_copy(l, words, ids, err) && side_init(&l->left, max_ids, err) && side_init(&l->right, max_ids, err) && pairs_grow(l, err) &&
        pairs_count(l, err))
        return l;
    bpe_learner_destroy(l);
    return NULL;
}

void bpe_learner_destroy(struct bpe_learner *l) {
    if (!l) return;
    free(l->words);
    free(l->symbols);
    mem_unmap_array(l->places, l->places_bytes);
    free(l->pairs);
    free(l->heap);
    free(l->left.of);
    free(l->left.met);
    free(l->right.of);
    free(l->right.met);
    free(l);
}

// ---- a step

bool bpe_learner_best(struct bpe_learner *l, uint32_t *left, uint32_t *right, uint64_t *count) {
    while (l->n_heap) {
        struct candidate top = l->heap[0];
        uint64_t now = pair_slot(l, top.key)->count;
        if (now == top.count) {
            *left = (uint32_t)(top.key >> 32);
            *right = (uint32_t)top.key;
            *count = now;
            return true;
        }
        assert(now < top.count);
        if (now) candidate_replace(l, (struct candidate){now, top.key});
        else candidate_pop(l);
    }
    return false;
}

static inline void neighbour_add(struct bpe_learner *l, struct side *side, uint32_t id, uint32_t w, uint64_t count) {
    struct neighbour *n = &side->of[id];
    if (!n->count) {
        side->met[side->n_met++] = id;
        n->places = NONE;
    }
    n->count += count;
    place_push(l, &n->places, w);
}

static void word_merge(struct bpe_learner *l, uint32_t w, uint32_t a, uint32_t b, uint32_t id) {
    struct word *word = &l->words[w];
    uint32_t *s = l->symbols + word->at, n = word->len, i = 0;
    while (i + 1 < n && (s[i] != a || s[i + 1] != b)) i++;
    uint32_t out = i;
    while (i < n) {
        if (i + 1 == n || s[i] != a || s[i + 1] != b) {
            s[out++] = s[i++];
            continue;
        }
        if (out) neighbour_add(l, &l->left, s[out - 1], w, word->count);
        s[out++] = id;
        i += 2;
        if (i < n) neighbour_add(l, &l->right, s[i], w, word->count);
    }
    word->len = out;
}

// The neighbours' old pairs lose what their new pairs get.
static bool side_settle(struct bpe_learner *l, struct side *side, uint32_t old, uint32_t id, bool is_left, struct err *err) {
    for (size_t i = 0; i < side->n_met; i++) {
        uint32_t x = side->met[i];
        struct neighbour *n = &side->of[x];
        struct pair *before = pair_slot(l, is_left ? pair_key(x, old) : pair_key(old, x));
        assert(before->count >= n->count);
        before->count -= n->count;
        uint64_t key = is_left ? pair_key(x, id) : pair_key(id, x);
        struct pair *p = pair_at(l, key, err);
        if (!p || !candidate_push(l, key, n->count, err)) return false;
        assert(!p->count);
        p->count = n->count;
        p->places = n->places;
        n->count = 0;
    }
    side->n_met = 0;
    return true;
}

bool bpe_learner_merge(struct bpe_learner *l, uint32_t id, struct err *err) {
    uint64_t key = l->heap[0].key;
    uint32_t a = (uint32_t)(key >> 32), b = (uint32_t)key;
    candidate_pop(l);
    for (uint32_t at = pair_slot(l, key)->places, next; at != NONE; at = next) {
        next = l->places[at].next;
        uint32_t w = l->places[at].word;
        l->places[at].next = l->unused;
        l->unused = at;
        word_merge(l, w, a, b, id);
    }
    // Right first: in "abab" the second occurrence finds the first one's new pair (id, a) on its left.
    if (!side_settle(l, &l->right, b, id, false, err) || !side_settle(l, &l->left, a, id, true, err)) return false;
    pair_slot(l, key)->count = 0;
    return true;
}
