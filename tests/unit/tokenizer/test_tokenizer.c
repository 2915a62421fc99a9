// SPDX-License-Identifier: MIT
// Properties of encode and decode that hold for any text: round trips, offsets, special tokens, lengths without end.
#include "base/utf8.h"
#include "tests/unit/tokenizer/golden.h"
#include "tokenizer/bpe_steps.h"

// Text that meets every rule: bytes, fragments, runs.
static size_t random_text(uint64_t *state, char *out, size_t max) {
    static const char *const fragments[] = {" ",
                                            "  ",
                                            "\n",
                                            "\t",
                                            "'s",
                                            "'ll",
                                            "1",
                                            "23",
                                            "the",
                                            " of",
                                            "\xc3\xa9",
                                            "\xe4\xb8\xad",
                                            "\xf0\x9f\x98\x80",
                                            "\xe2\x80\x83",
                                            "<|im_end|>",
                                            "<|endoftext|>",
                                            "<|im",
                                            "...",
                                            "[tool]"};
    size_t len = random_next(state) % max, n = 0;
    bool bytes = random_next(state) % 2;
    while (n < len) {
        uint64_t r = random_next(state);
        const char *f = fragments[r % (sizeof fragments / sizeof *fragments)];
        if (bytes || (r >> 32) % 8 == 0) out[n++] = (char)(r >> 40);
        else if (n + strlen(f) > len) break;
        else memcpy(out + n, f, strlen(f)), n += strlen(f);
    }
    return n;
}

static void check_round_trip(const struct tokenizer *t, const char *text, size_t len, bool special) {
    struct ids ids = {0}, again = {0}, offsets = {0};
    struct buf back = {0};
    struct err err = {0};
    tokenizer_encode(t, text, len, special, &ids);
    tokenizer_encode_offsets(t, text, len, special, &again, &offsets);
    CHECK(ids.len == again.len && (!ids.len || !memcmp(ids.data, again.data, ids.len * sizeof *ids.data)));
    CHECK_INT(offsets.len, ids.len);
    size_t at = 0;
    for (size_t i = 0; i < ids.len; i++) { // with all 256 bytes tokens lie side by side
        size_t n;
        tokenizer_bytes(t, ids.data[i], &n);
        CHECK_INT(offsets.data[i], at);
        at += n;
    }
    CHECK_INT(at, len);
    CHECK(tokenizer_decode(t, ids.data, ids.len, true, &back, &err));
    CHECK(back.len == len && (!len || !memcmp(back.data, text, len)));
    ids_finish(&ids);
    ids_finish(&again);
    ids_finish(&offsets);
    buf_finish(&back);
}

TEST(round_trip) { // 10^6 of them: COUPLET_ROUND_TRIPS=1000000
    const char *full = gpt2_vocabulary_dir();
    struct tokenizer *t[2] = {full ? tokenizer_load_dir(full, NULL) : golden_load("gpt2"), golden_load("llama3")};
    REQUIRE(t[0] && t[1]);
    CHECK(tokenizer_has_all_bytes(t[0]) && tokenizer_has_all_bytes(t[1]));
    uint64_t state = 1;
    char text[120];
    for (size_t i = 0, n = repeats("COUPLET_ROUND_TRIPS", 20000); i < n && test_failures < 10; i++)
        check_round_trip(t[i % 2], text, random_text(&state, text, sizeof text), i % 4 < 2);
    tokenizer_destroy(t[0]);
    tokenizer_destroy(t[1]);
}

TEST(missing_bytes_vanish) {
    struct tokenizer *t = golden_load("smollm");
    REQUIRE(t);
    CHECK(!tokenizer_has_all_bytes(t));
    bool has[256];
    for (int c = 0; c < 256; c++) {
        uint32_t id;
        char byte = (char)c;
        has[c] = tokenizer_find(t, &byte, 1, &id);
    }
    uint64_t state = 2;
    char text[120], kept[120];
    for (int i = 0; i < 5000 && test_failures < 10; i++) {
        size_t len = random_text(&state, text, sizeof text), n_kept = 0;
        for (size_t k = 0; k < len; k++)
            if (has[(unsigned char)text[k]]) kept[n_kept++] = text[k];
        struct ids ids = {0}, offsets = {0};
        struct buf back = {0};
        tokenizer_encode_offsets(t, text, len, false, &ids, &offsets);
        CHECK(tokenizer_decode(t, ids.data, ids.len, true, &back, NULL));
        CHECK(back.len == n_kept && (!n_kept || !memcmp(back.data, kept, n_kept)));
        for (size_t k = 0; k < ids.len; k++) { // a token's first byte is where its offset says
            size_t n;
            const char *bytes = tokenizer_bytes(t, ids.data[k], &n);
            CHECK(offsets.data[k] < len && text[offsets.data[k]] == bytes[0]);
        }
        ids_finish(&ids);
        ids_finish(&offsets);
        buf_finish(&back);
    }
    tokenizer_destroy(t);
}

// Long texts use a cache of pieces, calls with offsets do not: the ids must agree.
TEST(long_texts_equal_short_ones) {
    struct tokenizer *t = golden_load("llama3");
    REQUIRE(t);
    uint64_t state = 3;
    size_t cap = 200000, len = 0;
    char *text = malloc(cap);
    while (len + 120 < cap) len += random_text(&state, text + len, 120);
    check_round_trip(t, text, len, true);
    check_round_trip(t, text, len, false);
    free(text);
    tokenizer_destroy(t);
}

// One MiB of whatever could make an algorithm quadratic; a quadratic one takes hours here, so finishing is the check.
TEST(one_mebibyte_of_anything) {
    static const char *const patterns[] = {
        "a",   " ",   "\n",           "7",  "'", "<",        "\xe4\xb8\xad", "\xff", "ab",
        " \n", "\t ", "<|endoftext|", "x ", "!", "\xcc\x81", "[tool"};
    static const char *const names[] = {"gpt2", "smollm", "llama3"};
    size_t size = (size_t)1 << 20;
    char *text = malloc(size);
    for (size_t v = 0; v < 3; v++) {
        struct tokenizer *t = golden_load(names[v]);
        REQUIRE(t);
        for (size_t p = 0; p <= sizeof patterns / sizeof *patterns; p++) {
            uint64_t state = 4;
            bool letters = p == sizeof patterns / sizeof *patterns; // the last: random letters
            for (size_t i = 0; i < size; i++)
                text[i] = letters ? (char)('a' + random_next(&state) % 26) : patterns[p][i % strlen(patterns[p])];
            struct ids ids = {0};
            struct buf back = {0};
            tokenizer_encode(t, text, size, true, &ids);
            CHECK(tokenizer_decode(t, ids.data, ids.len, true, &back, NULL));
            CHECK(v == 1 || (back.len == size && !memcmp(back.data, text, size)));
            ids_finish(&ids);
            buf_finish(&back);
        }
        tokenizer_destroy(t);
    }
    free(text);
}

// ---- hand-made vocabularies

// Tokens 0.. for the letters "abc", then what a test adds.
struct vocabulary {
    struct vocab_entry tokens[16];
    struct merge_entry merges[8];
    struct tokenizer_spec spec;
};

static void vocabulary_init(struct vocabulary *v) {
    *v = (struct vocabulary){.tokens = {{"a", 1}, {"b", 1}, {"c", 1}}};
    v->spec =
        (struct tokenizer_spec){.vocab = v->tokens, .n_vocab = 3, .merges = v->merges, .bos = -1, .eos = -1, .pad = -1};
}

static void check_ids(const struct tokenizer *t, const char *text, bool special, size_t n, const uint32_t *expected) {
    struct ids ids = {0};
    tokenizer_encode(t, text, strlen(text), special, &ids);
    CHECK_INT(ids.len, n);
    for (size_t i = 0; i < n && i < ids.len; i++) CHECK_INT(ids.data[i], expected[i]);
    ids_finish(&ids);
}
#define CHECK_IDS(t, text, special, ...)                                                                               \
    check_ids(t, text, special, sizeof((uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t), (uint32_t[]){__VA_ARGS__})

TEST(lowest_rank_then_leftmost) {
    struct vocabulary v;
    vocabulary_init(&v);
    v.tokens[3] = (struct vocab_entry){"aa", 2};
    v.tokens[4] = (struct vocab_entry){"ab", 2};
    v.tokens[5] = (struct vocab_entry){"aab", 3};
    v.spec.n_vocab = 6;
    v.merges[0] = (struct merge_entry){0, 1, 4}; // a b
    v.merges[1] = (struct merge_entry){0, 0, 3}; // a a
    v.merges[2] = (struct merge_entry){0, 4, 5}; // a ab
    v.spec.n_merges = 3;
    struct tokenizer *t = tokenizer_create(&v.spec, NULL);
    REQUIRE(t);
    CHECK_IDS(t, "aaa", false, 3, 0);
    CHECK_IDS(t, "aab", false, 5);
    CHECK_IDS(t, "aaab", false, 3, 4); // a a goes before a ab
    CHECK_IDS(t, "xaxbx", false, 4);   // bytes without a token vanish and what is left merges
    tokenizer_destroy(t);
}

struct watched {
    const struct tokenizer *t;
    struct ids tokens, last; // of all words; the word's latest step
    size_t at, n_steps;      // where the next word begins; steps of this word
    bool jump;               // its last step was no single merge: the vocabulary took the word whole
};

static size_t bytes_of(const struct tokenizer *t, const uint32_t *ids, size_t n, struct buf *out) {
    for (size_t i = 0; i < n; i++) {
        size_t len;
        const char *bytes = tokenizer_bytes(t, ids[i], &len);
        buf_add(out, bytes, len);
    }
    return out->len;
}

static void watch_step(void *ctx, const uint32_t *ids, size_t n) {
    struct watched *w = ctx;
    if (w->n_steps) { // one pair less than before, the rest as it was
        struct buf before = {0}, after = {0};
        size_t same = 0;
        CHECK(!w->jump);
        w->jump = n + 1 != w->last.len;
        while (!w->jump && same < n && ids[same] == w->last.data[same]) same++;
        if (!w->jump) CHECK(same < n && !memcmp(ids + same + 1, w->last.data + same + 2, (n - same - 1) * sizeof *ids));
        CHECK(bytes_of(w->t, ids, n, &after) == bytes_of(w->t, w->last.data, w->last.len, &before) && !memcmp(buf_str(&before), buf_str(&after), after.len));
        buf_finish(&before);
        buf_finish(&after);
    }
    w->n_steps++;
    w->last.len = 0;
    for (size_t i = 0; i < n; i++) ids_add(&w->last, ids[i]);
}

static void watch_word(void *ctx, size_t start, size_t len, const uint32_t *ids, size_t n) {
    struct watched *w = ctx;
    CHECK(start == w->at && len > 0 && w->n_steps > 0);
    CHECK(n == w->last.len && (!n || !memcmp(ids, w->last.data, n * sizeof *ids)));
    for (size_t i = 0; i < n; i++) ids_add(&w->tokens, ids[i]);
    w->at = start + len;
    w->n_steps = 0;
    w->jump = false;
}

TEST(merge_by_merge_to_the_same_tokens) {
    const char *full = gpt2_vocabulary_dir();
    struct tokenizer *t[3] = {full ? tokenizer_load_dir(full, NULL) : golden_load("gpt2"), golden_load("llama3"), golden_load("smollm")};
    REQUIRE(t[0] && t[1] && t[2]);
    uint64_t state = 3;
    char text[400];
    for (size_t i = 0, n = repeats("COUPLET_ROUND_TRIPS", 20000); i < n && test_failures < 10; i++) {
        const size_t len = random_text(&state, text, sizeof text);
        struct watched w = {.t = t[i % 3]};
        struct ids ids = {0};
        tokenizer_encode(w.t, text, len, i % 2, &ids);
        tokenizer_watch(w.t, text, len, i % 2, &(struct bpe_watcher){&w, watch_step, watch_word});
        CHECK_INT(w.at, len);
        CHECK(w.tokens.len == ids.len && (!ids.len || !memcmp(w.tokens.data, ids.data, ids.len * sizeof *ids.data)));
        ids_finish(&ids);
        ids_finish(&w.tokens);
        ids_finish(&w.last);
    }
    for (size_t i = 0; i < 3; i++) tokenizer_destroy(t[i]);
}

TEST(special_tokens_leftmost_longest) {
    struct vocabulary v;
    vocabulary_init(&v);
    v.tokens[3] = (struct vocab_entry){"<x", 2, .special = true};
    v.tokens[4] = (struct vocab_entry){"<x>", 3, .special = true};
    v.tokens[5] = (struct vocab_entry){"x>a", 3, .special = true};
    v.tokens[6] = (struct vocab_entry){"bc", 2, .added = true};
    v.tokens[7] = (struct vocab_entry){.absent = true};
    v.spec.n_vocab = 8;
    v.spec.eos = 4;
    struct tokenizer *t = tokenizer_create(&v.spec, NULL);
    REQUIRE(t);
    CHECK_IDS(t, "a<x>a", true, 0, 4, 0);
    CHECK_IDS(t, "<x<x>", true, 3, 4);
    CHECK_IDS(t, "x>a<", true, 5);
    CHECK_IDS(t, "<x", true, 3);
    CHECK_IDS(t, "a<x>a", false, 0, 0);
    CHECK_IDS(t, "abca", false, 0, 6, 0); // an added token is matched in every text
    CHECK_IDS(t, "abca", true, 0, 6, 0);
    struct buf out = {0};
    const uint32_t ids[] = {0, 4, 6, 7, 1};
    CHECK(tokenizer_decode(t, ids, 5, false, &out, NULL));
    CHECK_STR(buf_str(&out), "abcb");
    buf_clear(&out);
    CHECK(tokenizer_decode(t, ids, 5, true, &out, NULL));
    CHECK_STR(buf_str(&out), "a<x>bcb");
    buf_clear(&out);
    struct err err = {0};
    const uint32_t outside[] = {0, 8};
    CHECK(!tokenizer_decode(t, outside, 2, true, &out, &err));
    CHECK_INT(err.code, ERR_INVALID);
    CHECK_INT(out.len, 0);
    buf_finish(&out);
    uint32_t id;
    CHECK(tokenizer_find(t, "<x>", 3, &id) && id == 4);
    CHECK(tokenizer_find(t, "bc", 2, &id) && id == 6);
    CHECK(!tokenizer_find(t, "zz", 2, &id));
    size_t n;
    CHECK_INT(tokenizer_stop_ids(t, &n)[0], 4);
    CHECK_INT(n, 1);
    CHECK(tokenizer_is_special(t, 3) && !tokenizer_is_special(t, 0) && !tokenizer_is_special(t, 7));
    tokenizer_destroy(t);
}

TEST(a_byte_declared_special_still_serves_text) {
    struct vocabulary v;
    vocabulary_init(&v);
    v.tokens[2].special = true; // "c" used for padding
    v.spec.pad = 2;
    struct tokenizer *t = tokenizer_create(&v.spec, NULL);
    REQUIRE(t);
    CHECK_IDS(t, "abc", false, 0, 1, 2);
    tokenizer_destroy(t);
}

TEST(bad_specifications) {
    struct vocabulary v;
    struct err err = {0};
    vocabulary_init(&v);
    v.spec.n_vocab = 0;
    CHECK(!tokenizer_create(&v.spec, &err));
    vocabulary_init(&v);
    v.spec.eos = 3;
    CHECK(!tokenizer_create(&v.spec, &err));
    CHECK_INT(err.code, ERR_CORRUPT);
    vocabulary_init(&v);
    v.spec.n_merges = 1;
    v.merges[0] = (struct merge_entry){0, 1, 3};
    CHECK(!tokenizer_create(&v.spec, &err));
    CHECK_STR(err.message, "merge 1 names an id outside the vocabulary");
    v.merges[0] = (struct merge_entry){0, 1, 2};
    CHECK(!tokenizer_create(&v.spec, &err));
    CHECK_STR(err.message, "merge 1 does not join its two tokens into its result");
    tokenizer_destroy(NULL);
}

TEST_MAIN("tokenizer")
