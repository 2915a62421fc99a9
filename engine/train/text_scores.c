// SPDX-License-Identifier: MIT
// See text_scores.h. Both word measures cut their texts into words first: each its own way, into one scratch string with the
// words separated by single spaces.
#include "engine/train/text_scores.h"

#include "base/buf.h"
#include "base/mem.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

struct words {
    struct buf text;
    struct word {
        const char *s;
        size_t len;
    } *items;
    size_t n, cap;
};

static void words_finish(struct words *w) {
    buf_finish(&w->text);
    free(w->items);
}

// Cuts w->text at spaces.
static void words_cut(struct words *w) {
    const char *p = buf_str(&w->text), *end = p + w->text.len;
    while (p < end) {
        const char *space = memchr(p, ' ', (size_t)(end - p));
        size_t len = (size_t)((space ? space : end) - p);
        if (len > 0) {
            mem_grow(&w->items, &w->cap, w->n + 1);
            w->items[w->n++] = (struct word){p, len};
        }
        p += len + 1;
    }
}

static bool ascii_space(unsigned char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
static bool ascii_alnum(unsigned char c) { return c < 0x80 && isalnum(c); }
static char ascii_lower(unsigned char c) { return (char)(c < 0x80 ? tolower(c) : c); }

// rouge-score: Python's lower(), then everything but [a-z0-9] separates. Two characters outside ASCII have an ASCII lower case: the Kelvin sign
// U+212A (k) and I with a dot U+0130 (i and a combining dot).
static void rouge_words(struct words *w, const char *s, size_t len) {
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)s[i];
        if (ascii_alnum(c)) buf_add_byte(&w->text, (unsigned char)ascii_lower(c));
        else if (len - i >= 3 && memcmp(s + i, "\xE2\x84\xAA", 3) == 0) buf_add_byte(&w->text, 'k'), i += 2;
        else if (len - i >= 2 && memcmp(s + i, "\xC4\xB0", 2) == 0) buf_add_str(&w->text, "i "), i += 1;
        else buf_add_byte(&w->text, ' ');
    }
    words_cut(w);
}

static bool is_article(const struct word *w) {
    return (w->len == 1 && *w->s == 'a') || (w->len == 2 && memcmp(w->s, "an", 2) == 0) || (w->len == 3 && memcmp(w->s, "the", 3) == 0);
}

// SQuAD's evaluation script: lower case, ASCII punctuation vanishes (joining what it stood between), articles vanish, white space separates.
static void squad_words(struct words *w, const char *s, size_t len) {
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)s[i];
        if (ascii_space(c)) buf_add_byte(&w->text, ' ');
        else if (c >= 0x80 || ascii_alnum(c) || c < ' ' || c == 0x7F) buf_add_byte(&w->text, (unsigned char)ascii_lower(c));
    }
    words_cut(w);
    size_t n = 0;
    for (size_t i = 0; i < w->n; i++)
        if (!is_article(&w->items[i])) w->items[n++] = w->items[i];
    w->n = n;
}

static bool word_equal(const struct word *a, const struct word *b) { return a->len == b->len && memcmp(a->s, b->s, a->len) == 0; }

static int word_compare(const void *a, const void *b) {
    const struct word *x = a, *y = b;
    int order = memcmp(x->s, y->s, MIN(x->len, y->len));
    return order ? order : (x->len > y->len) - (x->len < y->len);
}

static size_t longest_common_subsequence(const struct words *a, const struct words *b) {
    size_t *row = mem_alloc(b->n + 1, sizeof *row); // of the table for the words of `a` so far
    for (size_t i = 0; i < a->n; i++) {
        size_t diagonal = 0;
        for (size_t j = 0; j < b->n; j++) {
            size_t above = row[j + 1];
            row[j + 1] = word_equal(&a->items[i], &b->items[j]) ? diagonal + 1 : MAX(above, row[j]);
            diagonal = above;
        }
    }
    size_t longest = row[b->n];
    free(row);
    return longest;
}

// Words that both have, counted as often as both have them. Sorts both.
static size_t common_words(struct words *a, struct words *b) {
    qsort(a->items, a->n, sizeof *a->items, word_compare);
    qsort(b->items, b->n, sizeof *b->items, word_compare);
    size_t common = 0;
    for (size_t i = 0, j = 0; i < a->n && j < b->n;) {
        int order = word_compare(&a->items[i], &b->items[j]);
        common += order == 0;
        i += order <= 0;
        j += order >= 0;
    }
    return common;
}

static double f_measure(size_t common, size_t n_reference, size_t n_answer) {
    if (common == 0) return 0;
    double precision = (double)common / (double)n_answer, recall = (double)common / (double)n_reference;
    return 2 * precision * recall / (precision + recall);
}

static void trim(const char **s, size_t *len) {
    while (*len > 0 && ascii_space((unsigned char)**s)) (*s)++, (*len)--;
    while (*len > 0 && ascii_space((unsigned char)(*s)[*len - 1])) (*len)--;
}

struct text_scores text_scores(const char *reference, size_t reference_len, const char *answer, size_t answer_len) {
    struct text_scores scores = {0};
    struct words a = {0}, b = {0}, c = {0}, d = {0};
    rouge_words(&a, reference, reference_len);
    rouge_words(&b, answer, answer_len);
    scores.rouge_l = f_measure(longest_common_subsequence(&a, &b), a.n, b.n);
    squad_words(&c, reference, reference_len);
    squad_words(&d, answer, answer_len);
    // SQuAD 2: where one has no words left, both having none is a match.
    scores.token_f1 = c.n && d.n ? f_measure(common_words(&c, &d), c.n, d.n) : (double)(c.n == d.n);
    trim(&reference, &reference_len);
    trim(&answer, &answer_len);
    scores.exact_match = reference_len == answer_len && memcmp(reference, answer, answer_len) == 0;
    words_finish(&a);
    words_finish(&b);
    words_finish(&c);
    words_finish(&d);
    return scores;
}
