// SPDX-License-Identifier: MIT
// The three pre-tokenizers as hand-written matchers (regular expressions in tokenizer.h).
//
// An invalid byte is one character of class CHAR_OTHER. Every match_* takes a non-empty text and returns the end of its
// first piece.
#include "tokenizer/pretokenize.h"

#include "base/utf8.h"
#include "tokenizer/unicode_class.h"

#include <string.h>

// One character: its class and the number of its bytes.
struct character {
    enum char_class class;
    size_t len;
};

static inline struct character character_at(const char *s, const char *end) {
    unsigned char c = (unsigned char)*s;
    if (c < 0x80) return (struct character){unicode_class(c), 1};
    uint32_t code_point;
    size_t len = utf8_decode(s, (size_t)(end - s), &code_point);
    return (struct character){unicode_class(code_point), len};
}

// The end of the run of characters of one class that starts at s (s may be end).
static const char *run_end(const char *s, const char *end, enum char_class class) {
    while (s < end) {
        struct character c = character_at(s, end);
        if (c.class != class) break;
        s += c.len;
    }
    return s;
}

static inline bool is_newline(char c) { return c == '\r' || c == '\n'; }

// 's|'t|'re|'ve|'m|'ll|'d: the length of the match at s, or 0. Case folding (fold) is Unicode's: U+017F, the long s,
// folds to s; none of the other letters has a partner outside ASCII.
static size_t contraction_len(const char *s, const char *end, bool fold) {
    size_t left = (size_t)(end - s);
    if (left < 2 || s[0] != '\'') return 0;
    char bit = fold ? 0x20 : 0;
    char a = s[1] | bit;
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
    if (fold && left >= 3 && memcmp(s + 1, "\xc5\xbf", 2) == 0) return 3;
    if (left < 3) return 0;
    char b = s[2] | bit;
    return (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l') ? 3 : 0;
}

// \s+(?!\S)|\s+ at a white space character: the run without its last character when something else follows (that
// character goes with what follows), but never nothing.
static const char *match_space(const char *s, const char *end) {
    const char *last = s, *p = s;
    while (p < end) {
        struct character c = character_at(p, end);
        if (c.class != CHAR_SPACE) break;
        last = p;
        p += c.len;
    }
    return p == end || last == s ? p : last;
}

static const char *match_gpt2(const char *s, const char *end) {
    size_t n = contraction_len(s, end, false);
    if (n) return s + n;
    const char *p = s;
    struct character c = character_at(p, end);
    if (*p == ' ' && p + 1 < end) {
        struct character next = character_at(p + 1, end);
        if (next.class != CHAR_SPACE) p++, c = next;
    }
    return c.class == CHAR_SPACE ? match_space(s, end) : run_end(p + c.len, end, c.class);
}

// \s*[\r\n]+|\s+(?!\S)|\s+
static const char *match_space_llama3(const char *s, const char *end) {
    const char *run = run_end(s, end, CHAR_SPACE);
    for (const char *p = run; p > s; p--)
        if (is_newline(p[-1])) return p;
    return match_space(s, end);
}

static const char *match_llama3(const char *s, const char *end) {
    size_t n = contraction_len(s, end, true);
    if (n) return s + n;
    struct character c = character_at(s, end);
    if (c.class == CHAR_LETTER) return run_end(s + c.len, end, CHAR_LETTER);
    const char *p = s + c.len;
    if (c.class == CHAR_NUMBER) {
        for (int i = 1; i < 3 && p < end && (c = character_at(p, end)).class == CHAR_NUMBER; i++) p += c.len;
        return p;
    }
    if (!is_newline(*s) && p < end) { // [^\r\n\p{L}\p{N}]?\p{L}+
        struct character next = character_at(p, end);
        if (next.class == CHAR_LETTER) return run_end(p + next.len, end, CHAR_LETTER);
        if (*s == ' ' && next.class == CHAR_OTHER) c = next, p += next.len;
    }
    if (c.class != CHAR_OTHER) return match_space_llama3(s, end);
    p = run_end(p, end, CHAR_OTHER);
    while (p < end && is_newline(*p)) p++;
    return p;
}

// smollm: a number is a piece of its own; what lies between numbers is cut by gpt2's rules as if it were alone.
static const char *match_smollm(struct pretokenizer *p) {
    if (p->at >= p->segment_end) {
        struct character c = character_at(p->at, p->end);
        if (c.class == CHAR_NUMBER) return p->at + c.len;
        const char *s = p->at + c.len;
        while (s < p->end && (c = character_at(s, p->end)).class != CHAR_NUMBER) s += c.len;
        p->segment_end = s;
    }
    return match_gpt2(p->at, p->segment_end);
}

void pretokenizer_init(struct pretokenizer *p, enum pre_tokenizer kind, const char *text, size_t len) {
    *p = (struct pretokenizer){.kind = kind, .at = text, .end = text + len, .segment_end = text};
}

bool pretokenizer_next(struct pretokenizer *p, const char **piece, size_t *len) {
    if (p->at >= p->end) return false;
    const char *end = NULL;
    switch (p->kind) {
    case PRE_GPT2: end = match_gpt2(p->at, p->end); break;
    case PRE_SMOLLM: end = match_smollm(p); break;
    case PRE_LLAMA3: end = match_llama3(p->at, p->end); break;
    }
    *piece = p->at;
    *len = (size_t)(end - p->at);
    p->at = end;
    return true;
}
