// SPDX-License-Identifier: MIT
// A hash table made for pre-tokens: nearly all have at most 15 bytes and live in their slot, so that counting one costs one cache miss.
//
// Invariants: (1) n_words <= 3/4 n_slots; (2) a slot with count 0 is empty; (3) the last byte of a key is the length of a short word, or
// KEY_LONG: then key[0] is a hash and the other 7 bytes of key[1] say where in longs the word's length (8 bytes) and its bytes are.
// Keys are read as little-endian, as are the processors this program has kernels for.
#include "tokenizer/word_counts.h"

#include "base/map.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "tokenizer/pretokenize.h"
#include "tokenizer/unicode_class.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define SHORT_WORD 15
#define KEY_LONG   255

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "keys hold words as little-endian integers");

struct word_slot {
    uint64_t key[2], count;
};

void word_counts_finish(struct word_counts *w) {
    free(w->slots);
    free(w->longs);
    *w = (struct word_counts){0};
}

// ---- keys

// A short word's bytes with zeroes behind and its length last. Bytes up to `end` may be read.
static inline void key_short(uint64_t key[2], const char *word, size_t len, const char *end) {
    if (end - word >= 16) {
        memcpy(key, word, 16);
        if (len < 8) key[0] &= ((uint64_t)1 << 8 * len) - 1, key[1] = 0;
        else key[1] &= ((uint64_t)1 << 8 * (len - 8)) - 1;
    } else {
        key[0] = key[1] = 0;
        memcpy(key, word, len);
    }
    key[1] |= (uint64_t)len << 56;
}

static inline uint8_t key_kind(const uint64_t key[2]) { return (uint8_t)(key[1] >> 56); }

static const char *long_word(const struct word_counts *w, const uint64_t key[2], size_t *len) {
    const char *p = w->longs + (key[1] & 0xffffffffffffff);
    memcpy(len, p, sizeof *len);
    return p + sizeof *len;
}

// Folded multiplication, as in base/map.c. A long word's place is no part of its hash.
static inline size_t key_hash(const struct word_counts *w, const uint64_t key[2]) {
    uint64_t second = key_kind(key) == KEY_LONG ? 0 : key[1];
    __uint128_t product = (__uint128_t)(key[0] ^ w->seed[0]) * (second ^ w->seed[1]);
    return (size_t)((uint64_t)product ^ (uint64_t)(product >> 64));
}

// ---- the table

static bool table_grow(struct word_counts *w, struct err *err) {
    size_t n = w->n_slots ? w->n_slots * 2 : 1 << 12;
    struct word_slot *slots = mem_try_alloc(n, sizeof *slots, "the table of pre-tokens", err);
    if (!slots) return false;
    if (!w->n_slots && getrandom(w->seed, sizeof w->seed, GRND_NONBLOCK) < 0) w->seed[1] = 0x9e3779b97f4a7c15;
    for (size_t k = 0; k < w->n_slots; k++) {
        if (!w->slots[k].count) continue;
        size_t i = key_hash(w, w->slots[k].key) & (n - 1);
        while (slots[i].count) i = (i + 1) & (n - 1);
        slots[i] = w->slots[k];
    }
    free(w->slots);
    w->slots = slots;
    w->n_slots = n;
    return true;
}

// Room for one more word.
static inline bool table_ready(struct word_counts *w, struct err *err) {
    return w->n_words < w->n_slots / 4 * 3 || table_grow(w, err);
}

static inline bool add_short(struct word_counts *w, const uint64_t key[2], uint64_t count, struct err *err) {
    if (!table_ready(w, err)) return false;
    size_t mask = w->n_slots - 1, i = key_hash(w, key) & mask;
    struct word_slot *s = &w->slots[i];
    while (s->count && (s->key[0] != key[0] || s->key[1] != key[1])) s = &w->slots[i = (i + 1) & mask];
    if (!s->count) {
        *s = (struct word_slot){.key = {key[0], key[1]}};
        w->n_words++;
        w->n_bytes += key_kind(key);
    }
    s->count += count;
    return true;
}

static bool longs_reserve(struct word_counts *w, size_t extra, struct err *err) {
    size_t need;
    if (!size_add(w->longs_len, extra, &need)) return err_set(err, ERR_NO_MEMORY, "not enough memory for the pre-tokens");
    if (need <= w->longs_cap) return true;
    size_t cap = MAX(need, w->longs_cap * 2);
    char *grown = realloc(w->longs, cap);
    if (!grown) return err_set(err, ERR_NO_MEMORY, "not enough memory for the pre-tokens");
    w->longs = grown;
    w->longs_cap = cap;
    return true;
}

static bool add_long(struct word_counts *w, const char *word, size_t len, uint64_t count, struct err *err) {
    if (!table_ready(w, err) || !longs_reserve(w, sizeof len + len, err)) return false;
    uint64_t key[2] = {hash_bytes(word, len, w->seed[0]), (uint64_t)KEY_LONG << 56 | w->longs_len};
    size_t mask = w->n_slots - 1, known_len;
    for (size_t i = key_hash(w, key) & mask;; i = (i + 1) & mask) {
        struct word_slot *s = &w->slots[i];
        if (!s->count) {
            *s = (struct word_slot){.key = {key[0], key[1]}, .count = count};
            break;
        }
        if (s->key[0] != key[0] || key_kind(s->key) != KEY_LONG) continue;
        const char *known = long_word(w, s->key, &known_len);
        if (known_len == len && !memcmp(known, word, len)) {
            s->count += count;
            return true;
        }
    }
    memcpy(w->longs + w->longs_len, &len, sizeof len);
    memcpy(w->longs + w->longs_len + sizeof len, word, len);
    w->longs_len += sizeof len + len;
    w->n_words++;
    w->n_bytes += len;
    return true;
}

bool word_counts_add_text(struct word_counts *w, enum pre_tokenizer pre, const char *text, size_t len, struct err *err) {
    struct pretokenizer p;
    pretokenizer_init(&p, pre, text, len);
    const char *word, *end = text + len;
    for (size_t n; pretokenizer_next(&p, &word, &n);) {
        uint64_t key[2];
        if (n <= SHORT_WORD) key_short(key, word, n, end);
        if (!(n <= SHORT_WORD ? add_short(w, key, 1, err) : add_long(w, word, n, 1, err))) return false;
    }
    return true;
}

bool word_counts_add_all(struct word_counts *w, const struct word_counts *other, struct err *err) {
    for (size_t i = 0; i < other->n_slots; i++) {
        const struct word_slot *s = &other->slots[i];
        size_t len;
        if (!s->count) continue;
        const char *word = key_kind(s->key) == KEY_LONG ? long_word(other, s->key, &len) : NULL;
        if (!(word ? add_long(w, word, len, s->count, err) : add_short(w, s->key, s->count, err))) return false;
    }
    return true;
}

bool word_counts_next(const struct word_counts *w, size_t *at, const char **bytes, size_t *len, uint64_t *count) {
    while (*at < w->n_slots && !w->slots[*at].count) ++*at;
    if (*at == w->n_slots) return false;
    const struct word_slot *s = &w->slots[(*at)++];
    *count = s->count;
    *len = key_kind(s->key);
    *bytes = *len == KEY_LONG ? long_word(w, s->key, len) : (const char *)s->key;
    return true;
}

// ---- cutting

bool text_can_cut(enum pre_tokenizer pre, const char *text, size_t at) {
    char c = text[at];
    if (c != ' ' && c != '\n' && c != '\r' && c != '\t') return false;
    size_t start = at - 1; // of the character before
    while (start && at - start < 4 && (text[start] & 0xc0) == 0x80) start--;
    uint32_t before;
    utf8_decode(text + start, at - start, &before);
    enum char_class class = unicode_class(before);
    if (pre == PRE_LLAMA3 && class == CHAR_OTHER && (c == '\n' || c == '\r')) return false; // a piece of punctuation takes line ends along
    return class != CHAR_SPACE;
}
