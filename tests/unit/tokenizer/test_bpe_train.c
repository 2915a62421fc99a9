// SPDX-License-Identifier: MIT
// The trainer against one that recounts everything before each merge, on texts small enough for that; and what must not change a result:
// threads, cuts, the order of texts. (HF's trainer itself is the reference of tests/api/test_tokenizer_train.py.)
#include "base/mem.h"
#include "tests/unit/tokenizer/golden.h"
#include "tokenizer/bpe_train.h"
#include "tokenizer/pretokenize.h"
#include "tokenizer/tokenizer_write.h"
#include "tokenizer/word_counts.h"

static const enum pre_tokenizer all_pre[] = {PRE_GPT2, PRE_SMOLLM, PRE_LLAMA3};

// ---- texts

// Words over few letters, so that pairs overlap, tie and repeat; sometimes long ones, other scripts, line ends of all kinds.
static void text_random(struct buf *out, size_t len, uint64_t *state) {
    static const char *const pieces[] = {"a", "b", "a", "ab", "c", " ", " a", "\n", "é", "1", "12", "'s", "--", "aaaaaaa", "中文", "\r\n", "\t", "!\n",
                                         " \xc2\xa0", "\xe3\x80\x80", "。", "  ", "pneumonoultramicroscopic", "'LL", "\xc5\xbf"};
    buf_clear(out);
    while (out->len < len) buf_add_str(out, pieces[random_next(state) % ARRAY_LEN(pieces)]);
}

static struct tokenizer *train_with(const struct bpe_train_options *o, struct pool *pool, const char *text, size_t len, struct err *err) {
    struct bpe_trainer *t = bpe_trainer_create(o, pool, err);
    struct tokenizer *made = t && bpe_trainer_add(t, text, len, 0, err) ? bpe_trainer_finish(t, err) : NULL;
    bpe_trainer_destroy(t);
    return made;
}

static struct tokenizer *train(const struct bpe_train_options *o, const char *text) {
    struct err err = {0};
    struct tokenizer *t = train_with(o, NULL, text, strlen(text), &err);
    if (!t) TEST_FAIL("%s", err.message);
    return t;
}

static bool same(const struct tokenizer *a, const struct tokenizer *b) {
    bool equal = a && b && tokenizer_size(a) == tokenizer_size(b) && tokenizer_merge_count(a) == tokenizer_merge_count(b);
    for (uint32_t id = 0; equal && id < tokenizer_size(a); id++) {
        size_t n, m;
        const char *s = tokenizer_bytes(a, id, &n), *r = tokenizer_bytes(b, id, &m);
        equal = n == m && !memcmp(s, r, n) && tokenizer_is_special(a, id) == tokenizer_is_special(b, id);
    }
    for (size_t i = 0; equal && i < tokenizer_merge_count(a); i++) {
        uint32_t l, r, m, s;
        tokenizer_merge(a, i, &l, &r);
        tokenizer_merge(b, i, &m, &s);
        equal = l == m && r == s;
    }
    return equal;
}

// ---- the slow reference: every pre-token of the text on its own, pairs counted anew for each merge

#define MAX_PLAIN 700

struct plain {
    uint32_t *ids; // all words, UINT32_MAX between them
    size_t n;
};

static uint32_t (*plain_counts)[MAX_PLAIN];

static bool plain_merge(struct plain *p, size_t min, uint32_t id, uint32_t *left, uint32_t *right) {
    memset(plain_counts, 0, sizeof *plain_counts * MAX_PLAIN);
    for (size_t i = 0; i + 1 < p->n; i++)
        if (p->ids[i] != UINT32_MAX && p->ids[i + 1] != UINT32_MAX) plain_counts[p->ids[i]][p->ids[i + 1]]++;
    // A pair's count is the sum of its neighbourhoods: "aaa" holds (a, a) twice, as HF counts.
    uint32_t best = 0;
    for (uint32_t a = 0; a < id; a++)
        for (uint32_t b = 0; b < id; b++)
            if (plain_counts[a][b] > best) best = plain_counts[a][b], *left = a, *right = b;
    if (!best || best < min) return false;
    size_t out = 0;
    for (size_t i = 0; i < p->n; i++) {
        bool pair = i + 1 < p->n && p->ids[i] == *left && p->ids[i + 1] == *right;
        p->ids[out++] = pair ? id : p->ids[i];
        i += pair;
    }
    p->n = out;
    return true;
}

static void check_against_plain(enum pre_tokenizer pre, const struct buf *text, size_t vocab_size, size_t min) {
    const struct bpe_train_options o = {.vocab_size = vocab_size, .pre = pre, .min_frequency = min};
    struct tokenizer *t = train(&o, text->data);
    REQUIRE(t);
    struct plain p = {.ids = mem_alloc(text->len * 2 + 1, sizeof *p.ids)};
    plain_counts = mem_alloc(MAX_PLAIN, sizeof *plain_counts);
    struct pretokenizer cut;
    const char *piece;
    size_t len, n = 0;
    pretokenizer_init(&cut, pre, text->data, text->len);
    while (pretokenizer_next(&cut, &piece, &len)) {
        for (size_t i = 0; i < len; i++) {
            uint32_t id = 0;
            CHECK(tokenizer_find(t, piece + i, 1, &id));
            p.ids[p.n++] = id;
        }
        p.ids[p.n++] = UINT32_MAX;
    }
    uint32_t left = 0, right = 0, l = 0, r = 0;
    for (; 256 + n < vocab_size && plain_merge(&p, min, (uint32_t)(256 + n), &left, &right); n++) {
        if (n == tokenizer_merge_count(t)) break;
        tokenizer_merge(t, n, &l, &r);
        if (l == left && r == right) continue;
        TEST_FAIL("merge %zu is (%u, %u), expected (%u, %u)", n, l, r, left, right);
        break;
    }
    CHECK_INT(tokenizer_merge_count(t), n);
    free(p.ids);
    free(plain_counts);
    tokenizer_destroy(t);
}

TEST(against_the_slow_trainer) {
    uint64_t state = 4;
    struct buf text = {0};
    for (size_t i = 0; i < repeats("COUPLET_BPE_TEXTS", 12); i++) {
        text_random(&text, 20 + 150 * i, &state);
        check_against_plain(all_pre[i % 3], &text, 256 + 30 * (i + 1), i % 4);
    }
    buf_finish(&text);
}

TEST(runs_of_one_letter) {
    struct buf text = {0};
    for (size_t n = 1; n < 40; n++) {
        for (size_t i = 0; i < n; i++) buf_add_byte(&text, "aab"[i % 3 * (n & 1)]);
        buf_add_byte(&text, n % 5 ? ' ' : '\n');
    }
    check_against_plain(PRE_GPT2, &text, 400, 0);
    buf_finish(&text);
}

// ---- cutting

// Wherever the text may be cut, the pre-tokens of both halves are those of the whole.
TEST(cuts_change_no_pre_token) {
    uint64_t state = 9;
    struct buf text = {0};
    size_t n_cuts = 0;
    for (size_t round = 0; round < 300; round++) {
        text_random(&text, 60, &state);
        for (size_t k = 0; k < ARRAY_LEN(all_pre); k++) {
            for (size_t at = 1; at < text.len; at++) {
                if (!text_can_cut(all_pre[k], text.data, at)) continue;
                n_cuts++;
                struct pretokenizer whole, half;
                const char *a, *b;
                size_t n, m;
                pretokenizer_init(&whole, all_pre[k], text.data, text.len);
                pretokenizer_init(&half, all_pre[k], text.data, at);
                bool equal = true;
                while (equal && pretokenizer_next(&whole, &a, &n)) {
                    if (half.at == text.data + at) pretokenizer_init(&half, all_pre[k], text.data + at, text.len - at);
                    equal = pretokenizer_next(&half, &b, &m) && a == b && n == m;
                }
                if (!equal) TEST_FAIL("pre %zu: cut at %zu of \"%s\"", k, at, text.data);
            }
        }
    }
    CHECK(n_cuts > 1000);
    buf_finish(&text);
}

TEST(threads_parts_and_order_change_nothing) {
    uint64_t state = 2;
    struct buf text = {0};
    struct err err = {0};
    text_random(&text, 5u << 20, &state);
    const struct bpe_train_options o = {.vocab_size = 600};
    struct tokenizer *alone = train_with(&o, NULL, text.data, text.len, &err);
    for (size_t threads = 1; threads <= 4; threads += 3) {
        struct pool *pool = pool_create(threads, &err);
        struct tokenizer *t = train_with(&o, pool, text.data, text.len, &err);
        CHECK(same(alone, t));
        tokenizer_destroy(t);
        struct bpe_trainer *parts = bpe_trainer_create(&o, pool, &err); // from the back to the front
        for (size_t end = text.len, at; end; end = at) {
            at = end > 700000 ? bpe_trainer_cut(parts, text.data, end - 600000) : 0;
            CHECK(bpe_trainer_add(parts, text.data + at, end - at, at, &err));
        }
        t = bpe_trainer_finish(parts, &err);
        CHECK(same(alone, t));
        tokenizer_destroy(t);
        bpe_trainer_destroy(parts);
        pool_destroy(pool);
    }
    tokenizer_destroy(alone);
    buf_finish(&text);
}

TEST(no_place_to_cut) {
    struct err err = {0};
    struct bpe_trainer *t = bpe_trainer_create(&(struct bpe_train_options){.vocab_size = 300}, NULL, &err);
    CHECK_INT(bpe_trainer_cut(t, "abc", 3), 0);
    CHECK_INT(bpe_trainer_cut(t, "", 0), 0);
    CHECK_INT(bpe_trainer_cut(t, "a  b", 4), 1);
    CHECK_INT(bpe_trainer_cut(t, "  b", 3), 0);
    bpe_trainer_destroy(t);
    size_t len = 3u << 20;
    char *text = mem_alloc(len, 1);
    for (size_t i = 0; i < len; i++) text[i] = "acgt"[i * 2654435761u >> 30 & 3];
    struct tokenizer *made = train_with(&(struct bpe_train_options){.vocab_size = 270}, NULL, text, len, &err);
    CHECK_INT(made ? tokenizer_size(made) : 0, 270);
    tokenizer_destroy(made);
    free(text);
}

// ---- special tokens, limits, mistakes

static uint32_t id_of(const struct tokenizer *t, const char *text) {
    uint32_t id = UINT32_MAX;
    (void)!tokenizer_find(t, text, strlen(text), &id);
    return id;
}

TEST(special_tokens) {
    static const char *const special[] = {"<|endoftext|>", "the", "<|endoftext|>", "<|été|>", "a"};
    struct bpe_train_options o = {.vocab_size = 275, .special = special, .n_special = ARRAY_LEN(special)};
    static const char text[] = "the\nthe\nthe\nthe cat, the hat, the bat and the mat: that is the thing";
    struct tokenizer *last = train(&o, text);
    REQUIRE(last);
    CHECK_INT(tokenizer_size(last), 275);
    CHECK_INT(id_of(last, "!"), 0);
    CHECK_INT(id_of(last, "<|endoftext|>"), 273); // the merge to "the" and the byte "a" became special where they were
    CHECK_INT(id_of(last, "<|été|>"), 274);
    CHECK(tokenizer_is_special(last, id_of(last, "the")) && id_of(last, "the") < 273 && id_of(last, "a") < 256);
    CHECK_INT(tokenizer_bos(last), 273);
    CHECK_INT(tokenizer_eos(last), 273);
    o.special_first = true;
    struct tokenizer *first = train(&o, text);
    REQUIRE(first);
    CHECK_INT(tokenizer_size(first), 275);
    CHECK_INT(id_of(first, "<|endoftext|>"), 0);
    CHECK_INT(id_of(first, "the"), 1);
    CHECK_INT(id_of(first, "<|été|>"), 2);
    CHECK_INT(id_of(first, "a"), 3);
    CHECK_INT(id_of(first, "!"), 4);
    CHECK_INT(tokenizer_eos(first), 0);
    tokenizer_destroy(first);
    tokenizer_destroy(last);
}

TEST(stops_where_pairs_end) {
    struct tokenizer *t = train(&(struct bpe_train_options){.vocab_size = 1000}, "ab ab abc");
    CHECK_INT(tokenizer_size(t), 259); // "ab", " ab", " abc"
    tokenizer_destroy(t);
    t = train(&(struct bpe_train_options){.vocab_size = 1000, .min_frequency = 2}, "ab ab abc");
    CHECK_INT(tokenizer_size(t), 258);
    tokenizer_destroy(t);
    t = train(&(struct bpe_train_options){.vocab_size = 257}, "ab ab abc");
    CHECK_INT(tokenizer_size(t), 257);
    CHECK(tokenizer_eos(t) == -1 && tokenizer_has_all_bytes(t));
    tokenizer_destroy(t);
}

static void check_fails(const struct bpe_train_options *o, const char *text, size_t len, const char *says) {
    struct err err = {0};
    struct tokenizer *t = train_with(o, NULL, text, len, &err);
    CHECK(!t && err.code == ERR_INVALID);
    if (!strstr(err.message, says)) TEST_FAIL("\"%s\" does not say \"%s\"", err.message, says);
    tokenizer_destroy(t);
}

TEST(mistakes) {
    static const char *const one[] = {"<|x|>"}, *const empty[] = {""}, *const broken[] = {"\xff"}, *const taken[] = {"é"};
    check_fails(&(struct bpe_train_options){.vocab_size = 300}, "", 0, "no text");
    check_fails(&(struct bpe_train_options){.vocab_size = 255}, "a", 1, "255 ids");
    check_fails(&(struct bpe_train_options){.vocab_size = 256, .special = one, .n_special = 1}, "a", 1, "256 ids");
    check_fails(&(struct bpe_train_options){.vocab_size = (size_t)1 << 40}, "a", 1, "is over");
    check_fails(&(struct bpe_train_options){.vocab_size = 300, .special = empty, .n_special = 1}, "a", 1, "special token 1");
    check_fails(&(struct bpe_train_options){.vocab_size = 300, .special = broken, .n_special = 1}, "a", 1, "special token 1");
    check_fails(&(struct bpe_train_options){.vocab_size = 300, .special = taken, .n_special = 1}, "a", 1, "other bytes");
    check_fails(&(struct bpe_train_options){.vocab_size = 300}, "abc\xff", 4, "byte 3");
    check_fails(&(struct bpe_train_options){.vocab_size = 300}, "abc\xe2\x82", 5, "byte 3");
    size_t len = (size_t)4 << 20;
    char *text = mem_alloc(len, 1);
    memset(text, 'a', len);
    for (size_t i = 0; i < len; i += 10) text[i] = ' ';
    text[3000000] = text[3500000] = (char)0x80;
    check_fails(&(struct bpe_train_options){.vocab_size = 300}, text, len, "byte 3000000");
    free(text);
}

TEST_MAIN("bpe_train")
