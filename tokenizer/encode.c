// SPDX-License-Identifier: MIT
// Text -> ids: special tokens cut the text, the pre-tokenizer cuts what lies between, pairs are merged inside each
// piece.
//
// All state is the call's own (struct encoder). Long texts repeat their pieces: a small direct-mapped cache remembers
// the ids of short pieces for the length of one call, so that a tokenizer stays immutable.
#include "base/mem.h"
#include "tokenizer/pretokenize.h"
#include "tokenizer/tokenizer_impl.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define CACHE_BITS     12
#define CACHE_MIN_TEXT 4096 // bytes of text from which the cache pays for being zeroed

struct cached_piece {
    char bytes[15]; // zero padded
    uint8_t len;    // 0: empty
    uint32_t ids[3];
    uint32_t n;
};

struct encoder {
    const struct tokenizer *t;
    const char *text; // offsets count from here
    struct bpe_scratch scratch;
    struct cached_piece *cache; // NULL: none
    struct ids *out, *offsets;  // offsets may be NULL
};

void ids_finish(struct ids *l) {
    free(l->data);
    *l = (struct ids){0};
}

void ids_add(struct ids *l, uint32_t id) {
    if (l->len == l->cap) mem_grow(&l->data, &l->cap, l->len + 1);
    l->data[l->len++] = id;
}

static void encode_piece(struct encoder *e, const char *piece, size_t len) {
    const struct tokenizer *t = e->t;
    uint32_t at = (uint32_t)(piece - e->text), id;
    if (t->ignore_merges && map_get(&t->plain, piece, len, &id)) {
        ids_add(e->out, id);
        if (e->offsets) ids_add(e->offsets, at);
        return;
    }
    bpe_encode(&t->bpe, &e->scratch, piece, len, at, e->out, e->offsets);
}

static void encode_piece_cached(struct encoder *e, const char *piece, size_t len) {
    struct cached_piece key = {.len = (uint8_t)len};
    memcpy(key.bytes, piece, len);
    uint64_t a, b;
    memcpy(&a, &key, 8);
    memcpy(&b, (const char *)&key + 8, 8);
    uint64_t hash = (a ^ (b << 29 | b >> 35)) * 0x9e3779b97f4a7c15;
    struct cached_piece *slot = &e->cache[hash >> (64 - CACHE_BITS)];
    if (!memcmp(slot, &key, 16)) {
        for (uint32_t i = 0; i < slot->n; i++) ids_add(e->out, slot->ids[i]);
        return;
    }
    size_t start = e->out->len;
    encode_piece(e, piece, len);
    size_t n = e->out->len - start;
    if (n > ARRAY_LEN(key.ids)) return;
    key.n = (uint32_t)n;
    for (size_t i = 0; i < n; i++) key.ids[i] = e->out->data[start + i];
    *slot = key;
}

// Text without special tokens.
static void encode_plain(struct encoder *e, const char *text, size_t len) {
    struct pretokenizer p;
    pretokenizer_init(&p, e->t->pre, text, len);
    const char *piece;
    size_t n;
    while (pretokenizer_next(&p, &piece, &n)) {
        if (e->cache && n <= sizeof e->cache->bytes) encode_piece_cached(e, piece, n);
        else encode_piece(e, piece, n);
    }
}

void tokenizer_encode_offsets(const struct tokenizer *t, const char *text, size_t len, bool special, struct ids *out,
                              struct ids *offsets) {
    assert(len < UINT32_MAX); // offsets are 32 bits; callers bound files and requests far below
    struct encoder e = {.t = t, .text = text, .out = out, .offsets = offsets};
    if (len >= CACHE_MIN_TEXT && !offsets) e.cache = mem_alloc((size_t)1 << CACHE_BITS, sizeof *e.cache);
    const struct special_matcher *m = special ? &t->any : &t->added;
    const struct special_entry *found = NULL;
    for (size_t at = 0; at < len;) {
        size_t stop = special_matcher_find(m, text, at, len, &found);
        encode_plain(&e, text + at, stop - at);
        if (stop == len) break;
        ids_add(out, found->id);
        if (offsets) ids_add(offsets, (uint32_t)stop);
        at = stop + found->len;
    }
    bpe_scratch_finish(&e.scratch);
    free(e.cache);
}

void tokenizer_encode(const struct tokenizer *t, const char *text, size_t len, bool special, struct ids *out) {
    tokenizer_encode_offsets(t, text, len, special, out, NULL);
}
