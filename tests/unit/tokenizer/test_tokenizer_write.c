// SPDX-License-Identifier: MIT
// Tokenizers written and read again: same ids, same roles, and the second writing gives the first one's bytes.
#include "base/mem.h"
#include "tests/unit/tokenizer/golden.h"
#include "tokenizer/tokenizer_write.h"

static const char *const files[] = {"vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json"};

static struct tokenizer *write_and_load(const struct tokenizer *t, const struct scratch_dir *d) {
    struct err err = {0};
    struct tokenizer *again = tokenizer_write(t, d->path, &err) ? tokenizer_load_dir(d->path, &err) : NULL;
    if (!again) TEST_FAIL("%s", err.message);
    return again;
}

static void check_same(const struct tokenizer *a, const struct tokenizer *b) {
    CHECK_INT(tokenizer_size(a), tokenizer_size(b));
    CHECK_INT(tokenizer_merge_count(a), tokenizer_merge_count(b));
    CHECK_INT(tokenizer_pre(a), tokenizer_pre(b));
    CHECK_INT(tokenizer_bos(a), tokenizer_bos(b));
    CHECK_INT(tokenizer_eos(a), tokenizer_eos(b));
    CHECK_INT(tokenizer_pad(a), tokenizer_pad(b));
    CHECK_INT(tokenizer_add_bos(a), tokenizer_add_bos(b));
    CHECK_STR(tokenizer_chat_template(a) ? tokenizer_chat_template(a) : "", tokenizer_chat_template(b) ? tokenizer_chat_template(b) : "");
    for (uint32_t id = 0; id < tokenizer_size(a) && id < tokenizer_size(b); id++) {
        size_t n, m;
        const char *s = tokenizer_bytes(a, id, &n), *r = tokenizer_bytes(b, id, &m);
        bool equal = n == m && !memcmp(s, r, n) && tokenizer_is_special(a, id) == tokenizer_is_special(b, id) &&
                     tokenizer_is_added(a, id) == tokenizer_is_added(b, id) && tokenizer_is_absent(a, id) == tokenizer_is_absent(b, id);
        if (!equal) TEST_FAIL("token %u is another after it was written", id);
    }
}

static void check_round_trip(const struct tokenizer *t, const char *vectors) {
    struct scratch_dir d, e;
    REQUIRE(scratch_init(&d) && scratch_init(&e));
    struct tokenizer *once = write_and_load(t, &d), *twice = once ? write_and_load(once, &e) : NULL;
    if (twice) check_same(t, twice);
    if (once && vectors) CHECK(vectors_check(once, vectors) > 100);
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        char *a = path_join(d.path, files[i]), *b = path_join(e.path, files[i]);
        struct file_map m = {0}, n = {0};
        struct err err = {0};
        CHECK(file_map_open(&m, a, &err) && file_map_open(&n, b, &err) && m.len == n.len && !memcmp(m.data, n.data, m.len));
        file_map_close(&m);
        file_map_close(&n);
        free(a);
        free(b);
    }
    tokenizer_destroy(once);
    tokenizer_destroy(twice);
    scratch_finish(&d);
    scratch_finish(&e);
}

TEST(golden) {
    static const char *const names[] = {"gpt2", "smollm", "llama3"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct tokenizer *t = golden_load(names[i]);
        REQUIRE(t);
        char *dir = path_join(GOLDEN_DIR, names[i]), *vectors = path_join(dir, "vectors.jsonl");
        check_round_trip(t, vectors);
        free(dir);
        free(vectors);
        tokenizer_destroy(t);
    }
}

TEST(gpt2_files) {
    struct tokenizer *t = golden_load("gpt2_files");
    REQUIRE(t);
    check_round_trip(t, NULL);
    tokenizer_destroy(t);
    if (!gpt2_vocabulary_dir()) return;
    struct err err = {0};
    t = tokenizer_load_dir(gpt2_vocabulary_dir(), &err);
    REQUIRE(t);
    check_round_trip(t, GOLDEN_DIR "/gpt2_vectors.jsonl");
    tokenizer_destroy(t);
}

#define ENTRY(s, ...) {.bytes = (s), .len = sizeof(s) - 1, __VA_ARGS__}

static struct tokenizer *make(const struct vocab_entry *vocab, size_t n, const struct merge_entry *merges, size_t n_merges) {
    struct err err = {0};
    const struct tokenizer_spec spec = {.vocab = vocab, .n_vocab = n, .merges = merges, .n_merges = n_merges, .pre = PRE_LLAMA3, .ignore_merges = true,
                                        .bos = 1, .eos = 6, .pad = 8, .add_bos = true, .chat_template = "{{ \"x\" }}\n"};
    struct tokenizer *t = tokenizer_create(&spec, &err);
    if (!t) TEST_FAIL("%s", err.message);
    return t;
}

// Holes, tokens matched in every text, special ones that look like spellings of other bytes, that are no ASCII, that hold spaces or quotes,
// one that is reached by merging; bytes that are no UTF-8.
static const struct vocab_entry odd[] = {
    ENTRY("a"), ENTRY("<s>", .special = true), ENTRY("", .absent = true), ENTRY("b"), ENTRY("ab", .special = true), ENTRY("  \n", .added = true),
    ENTRY("<|\xc3\xa9t\xc3\xa9|>", .special = true), ENTRY("\xc3"), ENTRY("\"\\\x01", .special = true), ENTRY("\xa9"), ENTRY("\xc3\xa9"),
    ENTRY("\xc3\xa9", .special = true), ENTRY(" "), ENTRY("", .absent = true), ENTRY("\xf0\x9f"), ENTRY("\xe4\xb8\xad", .added = true),
};
static const struct merge_entry odd_merges[] = {{0, 3, 4}, {7, 9, 10}};

TEST(odd_vocabulary) {
    struct tokenizer *t = make(odd, ARRAY_LEN(odd), odd_merges, ARRAY_LEN(odd_merges));
    REQUIRE(t);
    check_round_trip(t, NULL);
    struct scratch_dir d;
    REQUIRE(scratch_init(&d));
    struct tokenizer *again = write_and_load(t, &d);
    static const char text[] = "ab  \nab<|\xc3\xa9t\xc3\xa9|>\xc3\xa9\"\\\x01 b\xe4\xb8\xad";
    for (int special = 0; again && special < 2; special++) {
        struct ids a = {0}, b = {0};
        tokenizer_encode(t, text, sizeof text - 1, special, &a);
        tokenizer_encode(again, text, sizeof text - 1, special, &b);
        CHECK(a.len > 5 && a.len == b.len && !memcmp(a.data, b.data, a.len * sizeof *a.data));
        ids_finish(&a);
        ids_finish(&b);
    }
    tokenizer_destroy(again);
    tokenizer_destroy(t);
    scratch_finish(&d);
}

TEST(vocabulary_without_tokenizer_json) {
    struct tokenizer *t = golden_load("gpt2"), *again;
    struct scratch_dir d;
    REQUIRE(t && scratch_init(&d));
    tokenizer_destroy(write_and_load(t, &d));
    scratch_remove(&d, "tokenizer.json");
    struct err err = {0};
    again = tokenizer_load_dir(d.path, &err);
    REQUIRE(again);
    struct ids a = {0}, b = {0};
    static const char text[] = "It's plain text, \xe4\xb8\xad 42.\n";
    tokenizer_encode(t, text, sizeof text - 1, false, &a);
    tokenizer_encode(again, text, sizeof text - 1, false, &b);
    CHECK(a.len && a.len == b.len && !memcmp(a.data, b.data, a.len * sizeof *a.data));
    CHECK_INT(tokenizer_eos(again), tokenizer_eos(t));
    ids_finish(&a);
    ids_finish(&b);
    tokenizer_destroy(t);
    tokenizer_destroy(again);
    scratch_finish(&d);
}

static void check_refused(const struct vocab_entry *vocab, size_t n, const char *says) {
    struct tokenizer *t = make(vocab, n, NULL, 0);
    struct scratch_dir d;
    struct err err = {0};
    REQUIRE(t && scratch_init(&d));
    CHECK(!tokenizer_write(t, d.path, &err) && strstr(err.message, says));
    CHECK_INT(rmdir(d.path), 0); // nothing was left behind
    tokenizer_destroy(t);
}

TEST(what_files_cannot_hold) {
    struct vocab_entry same[9], broken[9];
    for (size_t i = 0; i < 9; i++) same[i] = broken[i] = (struct vocab_entry){.bytes = &"abcdefghi"[i], .len = 1};
    same[7].bytes = same[2].bytes;
    broken[5] = (struct vocab_entry){.bytes = "\xff", .len = 1, .special = true};
    check_refused(same, 9, "token 7 is spelled like another");
    check_refused(broken, 9, "token 5 is not valid UTF-8");
    struct tokenizer *t = golden_load("gpt2");
    struct err err = {0};
    CHECK(!tokenizer_write(t, "/nonexistent/directory", &err) && err.code == ERR_NOT_FOUND);
    tokenizer_destroy(t);
}

TEST_MAIN("tokenizer_write")
