// SPDX-License-Identifier: MIT
// Vocabulary files: what is understood, what is refused by name, what a damaged one does (one sentence, nothing else).
#include "tests/unit/tokenizer/golden.h"

#define VOCAB      "\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"\xc4\xa0\":3}"
#define BYTE_LEVEL "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true}"
#define MODEL      "\"model\":{\"type\":\"BPE\"," VOCAB ",\"merges\":[\"a b\"]}"
#define PRE        "\"pre_tokenizer\":" BYTE_LEVEL

static struct tokenizer *load_json(const char *text, struct err *err) {
    struct scratch_dir d;
    if (!scratch_init(&d)) return TEST_FAIL("no scratch directory"), NULL;
    scratch_write(&d, "tokenizer.json", text, strlen(text));
    struct tokenizer *t = tokenizer_load_dir(d.path, err);
    scratch_finish(&d);
    return t;
}

static struct tokenizer *load_files(const char *vocab, const char *merges, struct err *err) {
    struct scratch_dir d;
    if (!scratch_init(&d)) return TEST_FAIL("no scratch directory"), NULL;
    scratch_write(&d, "vocab.json", vocab, strlen(vocab));
    scratch_write(&d, "merges.txt", merges, strlen(merges));
    struct tokenizer *t = tokenizer_load_dir(d.path, err);
    scratch_finish(&d);
    return t;
}

TEST(json_accepted) {
    static const struct {
        const char *text;
        enum pre_tokenizer pre;
    } cases[] = {
        {"{" PRE "," MODEL "}", PRE_GPT2},
        {"{" MODEL "," PRE ",\"normalizer\":null,\"decoder\":null,\"post_processor\":null,\"added_tokens\":[]}",
         PRE_GPT2},
        {"{" PRE ",\"model\":{\"merges\":[[\"a\",\"b\"]]," VOCAB "}}", PRE_GPT2},
        {"{" PRE ",\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":null,\"continuing_subword_prefix\":\"\","
                 "\"end_of_word_suffix\":\"\","
         "\"fuse_unk\":false,\"byte_fallback\":false,\"ignore_merges\":true," VOCAB ",\"merges\":[\"a b\"]}}",
         PRE_GPT2},
        {"{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\",\"individual_digits\":true}"
         "," BYTE_LEVEL "]}," MODEL "}",
         PRE_SMOLLM},
        {"{\"pre_tokenizer\":{\"pretokenizers\":[" BYTE_LEVEL "],\"type\":\"Sequence\"}," MODEL "}", PRE_GPT2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct err err = {0};
        struct tokenizer *t = load_json(cases[i].text, &err);
        if (!t) TEST_FAIL("case %zu: %s", i, err.message);
        if (!t) continue;
        CHECK_INT(tokenizer_pre(t), cases[i].pre);
        CHECK_INT(tokenizer_size(t), 4);
        struct ids ids = {0};
        tokenizer_encode(t, "ab a", 4, false, &ids);
        CHECK_INT(ids.len, 3);
        CHECK(ids.len == 3 && ids.data[0] == 2 && ids.data[1] == 3 && ids.data[2] == 0);
        ids_finish(&ids);
        tokenizer_destroy(t);
    }
}

TEST(json_refused) {
    static const struct {
        const char *text;
        enum err_code code;
        const char *says;
    } cases[] = {
        {"", ERR_CORRUPT, "tokenizer.json"},
        {"[]", ERR_CORRUPT, "tokenizer.json"},
        {"{}", ERR_CORRUPT, "model"},
        {"{" MODEL "}", ERR_UNSUPPORTED, "pre_tokenizer"},
        {"{" PRE "," MODEL "} x", ERR_CORRUPT, "tokenizer.json"},
        {"{\"pre_tokenizer\":null," MODEL "}", ERR_UNSUPPORTED, "pre_tokenizer"},
        {"{\"pre_tokenizer\":{\"type\":\"Whitespace\"}," MODEL "}", ERR_UNSUPPORTED, "Whitespace"},
        {"{\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"_\"}," MODEL "}", ERR_UNSUPPORTED, "Metaspace"},
        {"{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true}," MODEL "}", ERR_UNSUPPORTED,
         "add_prefix_space"},
        {"{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"use_regex\":false}," MODEL "}", ERR_UNSUPPORTED, "ByteLevel"},
        {"{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[]}," MODEL "}", ERR_UNSUPPORTED,
         "pre_tokenizer"},
        {"{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\",\"individual_digits\":"
         "false}," BYTE_LEVEL "]}," MODEL "}",
         ERR_UNSUPPORTED, "Digits"},
        {"{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[a-"
         "z]+\"},\"behavior\":\"Isolated\","
         "\"invert\":false},{\"type\":\"ByteLevel\",\"use_regex\":false}]}," MODEL "}",
         ERR_UNSUPPORTED, "[a-z]+"},
        {"{\"normalizer\":{\"type\":\"NFC\"}," PRE "," MODEL "}", ERR_UNSUPPORTED, "NFC"},
        {"{\"decoder\":{\"type\":\"WordPiece\"}," PRE "," MODEL "}", ERR_UNSUPPORTED, "WordPiece"},
        {"{\"post_processor\":{\"type\":\"BertProcessing\"}," PRE "," MODEL "}", ERR_UNSUPPORTED, "BertProcessing"},
        {"{" PRE ",\"model\":{\"type\":\"WordPiece\",\"vocab\":{}}}", ERR_UNSUPPORTED, "WordPiece"},
        {"{" PRE ",\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",0.5]]}}", ERR_UNSUPPORTED, "Unigram"},
        {"{" PRE ",\"model\":{\"type\":\"BPE\",\"byte_fallback\":true," VOCAB ",\"merges\":[]}}", ERR_UNSUPPORTED,
         "byte_fallback"},
        {"{" PRE ",\"model\":{\"type\":\"BPE\",\"dropout\":0.1," VOCAB ",\"merges\":[]}}", ERR_UNSUPPORTED, "dropout"},
        {"{" PRE ",\"model\":{\"type\":\"BPE\",\"unk_token\":\"a\"," VOCAB ",\"merges\":[]}}", ERR_UNSUPPORTED,
         "unk_token"},
        {"{" PRE ",\"model\":{\"type\":\"BPE\",\"end_of_word_suffix\":\"</w>\"," VOCAB ",\"merges\":[]}}",
         ERR_UNSUPPORTED, "</w>"},
        {"{" PRE ",\"model\":{\"type\":\"BPE\",\"merges\":[]}}", ERR_CORRUPT, "vocab"},
        {"{" PRE ",\"model\":{\"type\":\"BPE\"," VOCAB "}}", ERR_CORRUPT, "merges"},
        {"{" PRE ",\"model\":{\"vocab\":{},\"merges\":[]}}", ERR_CORRUPT, "empty"},
        {"{" PRE ",\"model\":{\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}}", ERR_CORRUPT, "twice"},
        {"{" PRE ",\"model\":{\"vocab\":{\"a\":0,\"a\":1},\"merges\":[]}}", ERR_CORRUPT, "twice"},
        {"{" PRE ",\"model\":{\"vocab\":{\"a\":-1},\"merges\":[]}}", ERR_CORRUPT, ""},
        {"{" PRE ",\"model\":{\"vocab\":{\"a\":4294967296},\"merges\":[]}}", ERR_TOO_LARGE, "limit"},
        {"{" PRE ",\"model\":{\"vocab\":{\"a\":1000000},\"merges\":[]}}", ERR_CORRUPT, "1000000"},
        {"{" PRE ",\"model\":{" VOCAB ",\"merges\":[\"a\"]}}", ERR_CORRUPT, "merge 1"},
        {"{" PRE ",\"model\":{" VOCAB ",\"merges\":[\"a  b\"]}}", ERR_CORRUPT, "merge 1"},
        {"{" PRE ",\"model\":{" VOCAB ",\"merges\":[\"a b\",\"a x\"]}}", ERR_CORRUPT, "merge 2"},
        {"{" PRE ",\"model\":{" VOCAB ",\"merges\":[\"b a\"]}}", ERR_CORRUPT, "\"ba\""},
        {"{" PRE ",\"model\":{" VOCAB ",\"merges\":[[\"a\"]]}}", ERR_CORRUPT, "merge 1"},
        {"{" PRE ",\"model\":{" VOCAB ",\"merges\":[[\"a\",\"b\",\"a\"]]}}", ERR_CORRUPT, "merge 1"},
        {"{" PRE ",\"model\":{" VOCAB ",\"merges\":[7]}}", ERR_CORRUPT, ""},
        {"{\"added_tokens\":[{\"id\":1,\"content\":\"a\"}]," PRE "," MODEL "}", ERR_CORRUPT, "two ids"},
        {"{\"added_tokens\":[{\"id\":1,\"content\":\"<x>\"}]," PRE "," MODEL "}", ERR_CORRUPT, "twice"},
        {"{\"added_tokens\":[{\"content\":\"<x>\"}]," PRE "," MODEL "}", ERR_CORRUPT, "no id"},
        {"{\"added_tokens\":[{\"id\":9,\"content\":\"<x>\",\"lstrip\":true}]," PRE "," MODEL "}", ERR_UNSUPPORTED,
         "lstrip"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct err err = {0};
        struct tokenizer *t = load_json(cases[i].text, &err);
        if (t) TEST_FAIL("case %zu was accepted: %s", i, cases[i].text);
        else if (err.code != cases[i].code || !strstr(err.message, cases[i].says))
            TEST_FAIL("case %zu: code %d, \"%s\"", i, (int)err.code, err.message);
        tokenizer_destroy(t);
    }
}

TEST(files_refused) {
    static const struct {
        const char *vocab, *merges, *says;
    } cases[] = {
        {"", "", "vocab.json: "},
        {"{\"a\":\"0\"}", "", "vocab.json: "},
        {"{\"a\":0", "", "vocab.json: "},
        {"{\"a\":0}[]", "", "vocab.json: "},
        {"{\"a\":0,\"b\":1}", "a b\n", "merges.txt: line 1: merge 1 makes \"ab\""},
        {"{\"a\":0,\"b\":1,\"ab\":2}", "#version: 0.2\na b\n\nab\n", "merges.txt: line 4: merge 2 is not two tokens"},
        {"{\"a\":0,\"b\":1,\"ab\":2}", "a b c", "merges.txt: line 1: "},
        {"{\"a\":0,\"b\":1,\"ab\":2}", " b", "merges.txt: line 1: "},
        {"{\"a\":0,\"b\":1,\"ab\":2}", "c b", "merges.txt: line 1: merge 1 uses \"c\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct err err = {0};
        struct tokenizer *t = load_files(cases[i].vocab, cases[i].merges, &err);
        if (t || strncmp(err.message, cases[i].says, strlen(cases[i].says)) != 0)
            TEST_FAIL("case %zu: \"%s\"", i, err.message);
        tokenizer_destroy(t);
    }
    struct scratch_dir d;
    struct err err = {0};
    REQUIRE(scratch_init(&d));
    CHECK(!tokenizer_load_dir(d.path, &err));
    CHECK_INT(err.code, ERR_NOT_FOUND);
    scratch_write(&d, "vocab.json", "{}", 2);
    CHECK(!tokenizer_load_dir(d.path, &err));
    CHECK_INT(err.code, ERR_CORRUPT);
    CHECK_STR(err.message, "vocab.json is there without merges.txt");
    scratch_finish(&d);
}

TEST(two_files_and_end_of_text) {
    struct tokenizer *t =
        load_files("{\"a\":0,\"b\":1,\"ab\":2,\"<|endoftext|>\":3}", "#version: 0.2\r\na b\r\n", NULL);
    REQUIRE(t);
    CHECK_INT(tokenizer_eos(t), 3);
    CHECK_INT(tokenizer_bos(t), 3);
    CHECK_INT(tokenizer_pad(t), -1);
    CHECK(tokenizer_is_special(t, 3));
    size_t n;
    CHECK_INT(tokenizer_stop_ids(t, &n)[0], 3);
    CHECK_INT(n, 1);
    struct ids ids = {0};
    tokenizer_encode(t, "ab<|endoftext|>", 15, true, &ids);
    CHECK(ids.len == 2 && ids.data[0] == 2 && ids.data[1] == 3);
    ids_finish(&ids);
    tokenizer_destroy(t);
}

// bos, eos, pad, add_bos and the template from the files beside the vocabulary, in their order of precedence.
TEST(roles) {
    static const char json[] = "{\"added_tokens\":[{\"id\":4,\"content\":\"<s>\",\"special\":true},{\"id\":5,"
                               "\"content\":\"</s>\",\"special\":true},"
                               "{\"id\":9,\"content\":\"<|im_end|>\",\"special\":true}]," PRE "," MODEL "}";
    struct scratch_dir d;
    REQUIRE(scratch_init(&d));
    struct err err = {0};
    scratch_write(&d, "tokenizer.json", json, sizeof json - 1);
    const char *config =
        "{\"bos_token\":{\"content\":\"<s>\"},\"eos_token\":null,\"pad_token\":\"nowhere\",\"add_bos_token\":true,"
        "\"chat_template\":[{\"name\":\"tool\",\"template\":\"T\"},{\"template\":\"D\",\"name\":\"default\"},{\"name\":"
        "\"z\",\"template\":\"Z\"}]}";
    scratch_write(&d, "tokenizer_config.json", config, strlen(config));
    const char *map = "{\"bos_token\":\"</s>\",\"eos_token\":\"</s>\"}";
    scratch_write(&d, "special_tokens_map.json", map, strlen(map));
    const char *generation = "{\"eos_token_id\":[1,2],\"pad_token_id\":3,\"bos_token_id\":50256}";
    scratch_write(&d, "generation_config.json", generation, strlen(generation));
    struct tokenizer *t = tokenizer_load_dir(d.path, &err);
    if (!t) TEST_FAIL("%s", err.message);
    REQUIRE(t);
    CHECK_INT(tokenizer_bos(t), 4);
    CHECK_INT(tokenizer_eos(t), 5);
    CHECK_INT(tokenizer_pad(t), 3);
    CHECK(tokenizer_add_bos(t));
    CHECK_STR(tokenizer_chat_template(t), "D");
    CHECK_INT(tokenizer_size(t), 10);
    size_t n;
    const uint32_t *stop = tokenizer_stop_ids(t, &n);
    CHECK(n == 2 && stop[0] == 5 && stop[1] == 9);
    size_t len;
    tokenizer_bytes(t, 7, &len);
    CHECK_INT(len, 0); // a hole
    tokenizer_destroy(t);

    scratch_write(&d, "chat_template.jinja", "J", 1);
    t = tokenizer_load_dir(d.path, &err);
    REQUIRE(t);
    CHECK_STR(tokenizer_chat_template(t), "J");
    tokenizer_destroy(t);

    scratch_write(&d, "generation_config.json", "{\"eos", 5);
    CHECK(!tokenizer_load_dir(d.path, &err));
    CHECK_INT(err.code, ERR_CORRUPT);
    CHECK(strncmp(err.message, "generation_config.json: ", 24) == 0);
    scratch_finish(&d);
}

TEST(bos_from_the_post_processor) {
    struct tokenizer *t = golden_load("llama3");
    REQUIRE(t);
    CHECK_INT(tokenizer_bos(t), 1001);
    CHECK(tokenizer_add_bos(t));
    CHECK_INT(tokenizer_eos(t), 1000); // <|endoftext|>, as no other file says more
    tokenizer_destroy(t);
}

// ---- GGUF

#define STR(s)                                                                                                         \
    { s, sizeof s - 1 }

TEST(gguf) {
    static const struct str tokens[] = {STR("a"),     STR("b"),   STR("\xc4\xa0"), STR("ab"),
                                        STR("<|x|>"), STR("u v"), STR("[PAD6]")};
    static const int32_t types[] = {1, 1, 1, 1, 3, 4, 5};
    static const struct str merges[] = {STR("a b")};
    struct gguf_vocab v = {.tokens = tokens,
                           .merges = merges,
                           .n_tokens = 7,
                           .n_merges = 1,
                           .types = types,
                           .model = STR("gpt2"),
                           .pre = STR("smollm"),
                           .bos = 4,
                           .eos = 4,
                           .pad = -1,
                           .chat_template = "C"};
    struct err err = {0};
    struct tokenizer *t = tokenizer_create_gguf(&v, &err);
    REQUIRE(t);
    CHECK_INT(tokenizer_pre(t), PRE_SMOLLM);
    CHECK_INT(tokenizer_size(t), 6); // unused ids at the end are the model's padding
    CHECK_STR(tokenizer_chat_template(t), "C");
    struct ids ids = {0};
    tokenizer_encode(t, "ab u v<|x|>", 11, true, &ids);
    CHECK(ids.len == 4 && ids.data[0] == 3 && ids.data[1] == 2 && ids.data[2] == 5 && ids.data[3] == 4);
    ids_finish(&ids);
    tokenizer_destroy(t);

    v.types = NULL;
    v.pre = (struct str){0};
    t = tokenizer_create_gguf(&v, &err);
    REQUIRE(t);
    CHECK_INT(tokenizer_pre(t), PRE_GPT2);
    tokenizer_destroy(t);

    v.pre = (struct str)STR("qwen2");
    CHECK(!tokenizer_create_gguf(&v, &err));
    CHECK_INT(err.code, ERR_UNSUPPORTED);
    CHECK_STR(err.message, "pre-tokenizer \"qwen2\" is not supported");
    v.model = (struct str)STR("llama");
    CHECK(!tokenizer_create_gguf(&v, &err));
    CHECK(strstr(err.message, "\"llama\"") != NULL);
}

// ---- damage

// Whatever became of the file: a tokenizer that works, or one sentence.
static void check_outcome(const struct scratch_dir *d) {
    static const char text[] = "Hello, it's 2024 \xe4\xb8\xad\xff<|endoftext|>  \n x";
    struct err err = {0};
    struct tokenizer *t = tokenizer_load_dir(d->path, &err);
    if (!t) {
        CHECK(err.code != ERR_NONE && err.message[0] && !strchr(err.message, '\n'));
        return;
    }
    struct ids ids = {0};
    struct buf back = {0};
    tokenizer_encode(t, text, sizeof text - 1, true, &ids);
    CHECK(tokenizer_decode(t, ids.data, ids.len, true, &back, &err));
    CHECK(back.len <= sizeof text - 1);
    ids_finish(&ids);
    buf_finish(&back);
    tokenizer_destroy(t);
}

static void mutate(uint64_t *state, char *data, size_t *len, size_t cap) {
    static const char *const inserts[] = {"\"",      "{",       "}",    "[",     "]",         ",",       ":",
                                          "\\u0000", "\\ud800", "-",    "1e999", "999999999", "null",    " ",
                                          "\n",      "\\",      "\xff", "true",  "\"id\":",   "\xc4\xa0"};
    for (size_t k = 1 + random_next(state) % 4; k-- && *len;) {
        uint64_t r = random_next(state);
        size_t at = r % *len, n = 1 + (r >> 32) % 8;
        const char *s = inserts[(r >> 40) % (sizeof inserts / sizeof *inserts)];
        switch ((r >> 48) % 5) {
        case 0: data[at] = (char)(r >> 24); break;
        case 1: // a few bytes less
            if (n > *len - at) n = *len - at;
            memmove(data + at, data + at + n, *len - at - n);
            *len -= n;
            break;
        case 2: // a piece of syntax more
            n = strlen(s);
            if (*len + n > cap) break;
            memmove(data + at + n, data + at, *len - at);
            memcpy(data + at, s, n);
            *len += n;
            break;
        case 3: *len = (r >> 56) % 8 ? *len : at; break; // cut
        case 4: data[at] ^= (char)(1 << ((r >> 16) & 7)); break;
        }
    }
}

static void mutate_file(const char *golden, const char *name, const char *beside, size_t n) {
    struct scratch_dir d;
    REQUIRE(scratch_init(&d));
    char *dir = path_join(GOLDEN_DIR, golden);
    size_t len, beside_len;
    char *path = path_join(dir, name), *data = file_read(path, (size_t)1 << 24, &len, NULL);
    REQUIRE(data);
    free(path);
    if (beside) { // the other half of the pair stays whole
        path = path_join(dir, beside);
        char *other = file_read(path, (size_t)1 << 24, &beside_len, NULL);
        REQUIRE(other);
        scratch_write(&d, beside, other, beside_len);
        free(other);
        free(path);
    }
    free(dir);
    size_t cap = len + 1024;
    char *copy = malloc(cap);
    uint64_t state = 5;
    for (size_t i = 0; i < n && test_failures < 10; i++) {
        size_t copy_len = len;
        memcpy(copy, data, len);
        if (i % 4) mutate(&state, copy, &copy_len, cap);
        else copy_len = random_next(&state) % len;
        scratch_write(&d, name, copy, copy_len);
        check_outcome(&d);
    }
    free(copy);
    free(data);
    scratch_finish(&d);
}

// More of them: COUPLET_MUTATIONS=100000
TEST(damaged_tokenizer_json) {
    size_t n = repeats("COUPLET_MUTATIONS", 600);
    mutate_file("gpt2", "tokenizer.json", NULL, n);
    mutate_file("llama3", "tokenizer.json", NULL, n);
}

TEST(damaged_vocab_json) { mutate_file("gpt2_files", "vocab.json", "merges.txt", repeats("COUPLET_MUTATIONS", 600)); }

TEST(damaged_merges_txt) { mutate_file("gpt2_files", "merges.txt", "vocab.json", repeats("COUPLET_MUTATIONS", 600)); }

TEST_MAIN("tokenizer_load")
