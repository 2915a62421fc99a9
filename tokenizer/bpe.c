// SPDX-License-Identifier: MIT
// Merging: short pieces (nearly all) by scanning an array for the lowest rank, long ones by a heap over a linked list.
// Both give the same ids; SHORT_PIECE is only where one becomes faster than the other.
#include "tokenizer/bpe.h"

#include "base/mem.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define SHORT_PIECE 48

struct bpe_slot {
    uint32_t left, right;
    uint32_t rank, result; // rank BPE_NONE: empty
};

// One symbol of the piece being merged. rank and result describe the merge with the next symbol.
struct bpe_symbol {
    uint32_t id; // BPE_NONE: swallowed by the symbol on its left
    uint32_t start;
    uint32_t rank, result;
    uint32_t prev, next; // heap merging only
};

bool bpe_init(struct bpe *b, size_t n_merges, struct err *err) {
    int bits = 4;
    while (((size_t)1 << bits) < n_merges * 2) bits++;
    struct bpe_slot *slots = mem_try_alloc((size_t)1 << bits, sizeof *slots, "the merge table", err);
    if (!slots) return false;
    for (size_t i = 0; i < (size_t)1 << bits; i++) slots[i].rank = BPE_NONE;
    uint64_t seeds[2] = {(uintptr_t)slots, 0x9e3779b97f4a7c15};
    if (getrandom(seeds, sizeof seeds, GRND_NONBLOCK) < 0) seeds[1] ^= seeds[0]; // no entropy yet: correct all the same
    *b = (struct bpe){.slots = slots, .n_slots = (size_t)1 << bits, .seed = seeds[0], .multiplier = seeds[1] | 1};
    memset(b->byte_id, 0xff, sizeof b->byte_id);
    return true;
}

void bpe_finish(struct bpe *b) {
    free(b->slots);
    *b = (struct bpe){0};
}

// The slot that holds the pair, or the empty one where it would go.
static inline struct bpe_slot *slot_of(const struct bpe *b, uint32_t left, uint32_t right) {
    __uint128_t product = (__uint128_t)(((uint64_t)left << 32 | right) ^ b->seed) * b->multiplier;
    size_t i = (size_t)(product ^ product >> 64) & (b->n_slots - 1);
    struct bpe_slot *s = &b->slots[i];
    while (s->rank != BPE_NONE && (s->left != left || s->right != right)) s = &b->slots[i = (i + 1) & (b->n_slots - 1)];
    return s;
}

void bpe_add(struct bpe *b, uint32_t left, uint32_t right, uint32_t rank, uint32_t result) {
    *slot_of(b, left, right) = (struct bpe_slot){left, right, rank, result};
}

uint32_t bpe_rank(const struct bpe *b, uint32_t left, uint32_t right, uint32_t *result) {
    const struct bpe_slot *slot = slot_of(b, left, right);
    *result = slot->result;
    return slot->rank;
}

static inline void symbol_pair(const struct bpe *b, struct bpe_symbol *s, const struct bpe_symbol *next) {
    const struct bpe_slot *slot = slot_of(b, s->id, next->id);
    s->rank = slot->rank;
    s->result = slot->result;
}

static inline void emit(const struct bpe_symbol *s, struct ids *out, struct ids *offsets) {
    ids_add(out, s->id);
    if (offsets) ids_add(offsets, s->start);
}

// The piece as symbols of one byte each, linked; returns their number.
static size_t symbols_init(const struct bpe *b, struct bpe_symbol *s, const char *piece, size_t len, uint32_t at) {
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        uint32_t id = b->byte_id[(unsigned char)piece[i]];
        if (id == BPE_NONE) continue;
        s[n] =
            (struct bpe_symbol){.id = id, .start = at + (uint32_t)i, .prev = (uint32_t)n - 1, .next = (uint32_t)n + 1};
        n++;
    }
    for (size_t i = 0; i + 1 < n; i++) symbol_pair(b, &s[i], &s[i + 1]);
    if (n) s[n - 1].rank = s[n - 1].next = BPE_NONE;
    return n;
}

static void encode_short(const struct bpe *b, const char *piece, size_t len, uint32_t at, struct ids *out,
                         struct ids *offsets) {
    struct bpe_symbol s[SHORT_PIECE];
    size_t n = symbols_init(b, s, piece, len, at);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (s[i].rank < s[best].rank) best = i;
        if (s[best].rank == BPE_NONE) break;
        s[best].id = s[best].result;
        memmove(&s[best + 1], &s[best + 2], (n - best - 2) * sizeof *s);
        n--;
        if (best + 1 < n) symbol_pair(b, &s[best], &s[best + 1]);
        else s[best].rank = BPE_NONE;
        if (best) symbol_pair(b, &s[best - 1], &s[best]);
    }
    for (size_t i = 0; i < n; i++) emit(&s[i], out, offsets);
}

// ---- long pieces: a 4-ary heap of keys rank << 32 | symbol. A key is stale when its symbol was swallowed or got another
// rank.

static void heap_sift_down(uint64_t *heap, size_t n, size_t i) {
    uint64_t key = heap[i];
    for (size_t child; (child = 4 * i + 1) < n;) {
        size_t last = MIN(child + 4, n), best = child;
        for (size_t c = child + 1; c < last; c++)
            if (heap[c] < heap[best]) best = c;
        if (heap[best] >= key) break;
        heap[i] = heap[best];
        i = best;
    }
    heap[i] = key;
}

static void heap_push(struct bpe_scratch *s, size_t *n, uint64_t key) {
    mem_grow(&s->heap, &s->heap_cap, *n + 1);
    size_t i = (*n)++;
    for (; i && s->heap[(i - 1) / 4] > key; i = (i - 1) / 4) s->heap[i] = s->heap[(i - 1) / 4];
    s->heap[i] = key;
}

static inline uint64_t heap_key(const struct bpe_symbol *symbols, uint32_t i) {
    return (uint64_t)symbols[i].rank << 32 | i;
}

// Looks the pair (i, its next) up again after one of the two changed.
static void pair_refresh(const struct bpe *b, struct bpe_scratch *s, size_t *n_heap, uint32_t i) {
    struct bpe_symbol *symbol = &s->symbols[i];
    symbol->rank = BPE_NONE;
    if (symbol->next == BPE_NONE) return;
    symbol_pair(b, symbol, &s->symbols[symbol->next]);
    if (symbol->rank != BPE_NONE) heap_push(s, n_heap, heap_key(s->symbols, i));
}

static void encode_long(const struct bpe *b, struct bpe_scratch *s, const char *piece, size_t len, uint32_t at,
                        struct ids *out, struct ids *offsets) {
    mem_grow(&s->symbols, &s->symbols_cap, len);
    struct bpe_symbol *symbols = s->symbols;
    size_t n = symbols_init(b, symbols, piece, len, at), n_heap = 0;
    if (!n) return;
    mem_grow(&s->heap, &s->heap_cap, n);
    for (uint32_t i = 0; i < n; i++)
        if (symbols[i].rank != BPE_NONE) s->heap[n_heap++] = heap_key(symbols, i);
    for (size_t i = n_heap / 4 + 1; i-- > 0;)
        if (i < n_heap) heap_sift_down(s->heap, n_heap, i);
    while (n_heap) {
        uint64_t key = s->heap[0];
        s->heap[0] = s->heap[--n_heap];
        if (n_heap) heap_sift_down(s->heap, n_heap, 0);
        uint32_t i = (uint32_t)key;
        struct bpe_symbol *left = &symbols[i];
        if (left->id == BPE_NONE || left->rank != (uint32_t)(key >> 32)) continue;
        struct bpe_symbol *right = &symbols[left->next];
        assert(right->prev == i && right->id != BPE_NONE);
        left->id = left->result;
        left->next = right->next;
        right->id = BPE_NONE;
        if (left->next != BPE_NONE) symbols[left->next].prev = i;
        pair_refresh(b, s, &n_heap, i);
        if (i) pair_refresh(b, s, &n_heap, left->prev);
    }
    for (uint32_t i = 0; i != BPE_NONE; i = symbols[i].next) emit(&symbols[i], out, offsets);
}

void bpe_encode(const struct bpe *b, struct bpe_scratch *s, const char *piece, size_t len, uint32_t at, struct ids *out,
                struct ids *offsets) {
    if (len <= SHORT_PIECE) encode_short(b, piece, len, at, out, offsets);
    else encode_long(b, s, piece, len, at, out, offsets);
}

void bpe_scratch_finish(struct bpe_scratch *s) {
    free(s->symbols);
    free(s->heap);
    *s = (struct bpe_scratch){0};
}
