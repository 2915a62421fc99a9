// SPDX-License-Identifier: MIT
// Files of training data: every way to be wrong with its line, texts as windows with the ids of the whole text, duplicates, views, leaks.
#include "tests/unit/train/data_test.h"

// ---- what is wrong with a row

static const struct bad_row {
    const char *row, *message;
} bad_rows[] = {
    {"{\"text\":\"a\"", "column 13: expected ',' or '}', found the end of the text"},
    {"{\"text\":\"a\"} {", "column 14: expected the end of the text, found an object"},
    {"nonsense", "column 1: expected an object, found null"},
    {"[1]", "column 1: expected an object, found an array"},
    {"{}", "a row has \"text\", or \"prompt\" and \"completion\", or \"messages\", or \"instruction\" and \"output\", or \"tokens\""},
    {"{\"text\":null}",
     "a row has \"text\", or \"prompt\" and \"completion\", or \"messages\", or \"instruction\" and \"output\", or \"tokens\""},
    {"{\"text\":\"a\",\"id\":1}", "column 18: unknown key \"id\""},
    {"{\"te\\u0001xt\":\"a\"}", "column 15: unknown key \"te\\x01xt\""},
    {"{\"text\":\"a\",\"text\":\"b\"}", "column 20: key \"text\" twice"},
    {"{\"text\":7}", "column 9: expected a string, found a number"},
    {"{\"text\":\"\"}", "\"text\" is empty"},
    {"{\"prompt\":\"a\"}", "\"prompt\" without \"completion\""},
    {"{\"completion\":\"a\"}", "\"completion\" without \"prompt\""},
    {"{\"prompt\":\"a\",\"completion\":\"\"}", "\"completion\" is empty"},
    {"{\"prompt\":\"a\",\"output\":\"b\"}", "keys of two kinds of rows: \"prompt\" and others"},
    {"{\"instruction\":\"a\",\"output\":\"\"}", "\"output\" is empty"},
    {"{\"input\":\"a\"}", "\"input\" without \"instruction\""},
    {"{\"tokens\":[1]}", "\"tokens\" holds 1 ids: two are the least"},
    {"{\"tokens\":[1,263]}", "column 17: token 263 is outside the model's vocabulary of 263"},
    {"{\"tokens\":[1,-1]}", "column 14: expected a non-negative integer"},
    {"{\"tokens\":[1,1.5]}", "column 14: expected an integer, found a fraction"},
    {"{\"tokens\":[1,\"a\"]}", "column 14: expected an integer, found a string"},
    {"{\"messages\":[]}", "\"messages\" is empty"},
    {"{\"messages\":\"a\"}", "column 13: expected an array, found a string"},
    {"{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}", "the last message is not the assistant's"},
    {"{\"messages\":[{\"role\":\"assistant\",\"content\":\"a\"}]}", "the first message is the assistant's"},
    {"{\"messages\":[{\"role\":\"tool\",\"content\":\"a\"}]}",
     "column 28: role \"tool\" cannot be trained on: only system, user and assistant"},
    {"{\"messages\":[{\"role\":\"user\"}]}", "column 29: a message without \"content\""},
    {"{\"messages\":[{\"content\":\"a\"}]}", "column 29: a message without \"role\""},
    {"{\"messages\":[{\"role\":\"user\",\"content\":[]}]}", "column 39: expected a string, found an array"},
    {"{\"messages\":[{\"role\":\"user\",\"content\":\"a\",\"name\":\"b\"}]}", "column 50: unknown key \"name\" in a message"},
    {"{\"messages\":[{\"role\":\"user\",\"content\":\"a\",\"weight\":1}]}", "column 54: \"weight\" belongs to messages of the assistant"},
    {"{\"messages\":[{\"role\":\"assistant\",\"content\":\"a\",\"weight\":2}]}", "column 58: \"weight\" is 0 or 1"},
    {"{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"\"}]}",
     "column 77: an assistant message is empty"},
    {"{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"b\",\"weight\":0}]}",
     "nothing to learn: no target is supervised"},
    {"{\"text\":\"\xff\"}", "not UTF-8"},
};

TEST(every_mistake_has_its_line) {
    struct data d;
    data_init(&d);
    d.options.chat = chat_template_recognise("chatml");
    for (size_t i = 0; i < ARRAY_LEN(bad_rows); i++) {
        struct buf file = {0};
        buf_printf(&file, "{\"text\":\"first\"}\n\n%s\r\n{\"text\":\"last\"}\n", bad_rows[i].row);
        CHECK(!data_rows(&d, file.data));
        CHECK_INT(d.report.n_fatal, 1);
        CHECK_INT(d.report.n_rows, 3);
        REQUIRE(d.report.n_problems_kept == 1);
        CHECK_INT(d.report.problems[0].line, 3);
        CHECK_STR(d.report.problems[0].message, bad_rows[i].message);
        char whole[400];
        snprintf(whole, sizeof whole, "FILE line 3: %s", bad_rows[i].message);
        CHECK_STR(d.err.message, whole);
        buf_finish(&file);
    }
    CHECK(!DATA_OPEN(&d, "rows.jsonl", "{\"text\":\"a\0b\"}"));
    CHECK_STR(d.err.message, "FILE line 1: column 11: control character 0x00 inside a string");
    d.options.chat = NULL;
    CHECK(!data_rows(&d, "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"b\"}]}"));
    CHECK_STR(d.err.message, "FILE line 1: the model has no chat template, which \"messages\" need");
    data_finish(&d);
}

TEST(template_without_its_end_token) {
    struct data d;
    data_init(&d);
    tokenizer_destroy(d.tokenizer);
    d.options.tokenizer = d.tokenizer = golden_load("gpt2");
    REQUIRE(d.tokenizer);
    d.options.n_vocab = tokenizer_size(d.tokenizer);
    d.options.chat = chat_template_recognise("chatml");
    CHECK(!data_rows(&d, "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"b\"}]}"));
    CHECK_STR(d.err.message, "FILE line 1: the vocabulary lacks the token that ends an answer of the chat template");
    d.options.n_vocab = 10;
    CHECK(!data_rows(&d, "{\"text\":\"hello\"}"));
    CHECK(strstr(d.err.message, "is outside the model's vocabulary of 10"));
    data_finish(&d);
}

TEST(files_that_are_none) {
    struct data d;
    data_init(&d);
    CHECK(!data_rows(&d, ""));
    CHECK_STR(d.err.message, "FILE is empty");
    CHECK(!data_rows(&d, "\xef\xbb\xbf"));
    CHECK_STR(d.err.message, "FILE is empty");
    CHECK(!data_rows(&d, "\n \r\n\n"));
    CHECK_STR(d.err.message, "FILE holds no rows");
    CHECK(!DATA_OPEN(&d, "rows.json", "[]"));
    CHECK_STR(d.err.message, "FILE holds no rows");
    CHECK(!dataset_open("/tmp", &d.options, NULL, &d.err));
    CHECK_STR(d.err.message, "cannot map /tmp: it is a directory");
    CHECK(!dataset_open("/nowhere/at/all", &d.options, NULL, &d.err));
    d.options.temp_dir = "/nowhere/at/all";
    CHECK(!data_rows(&d, "{\"text\":\"a\"}"));
    CHECK_STR(d.err.message, "cannot create a temporary file in /nowhere/at/all: No such file or directory");
    data_finish(&d);
}

TEST(problems_are_counted_beyond_those_kept) {
    struct data d;
    struct buf file = {0};
    data_init(&d);
    for (int i = 0; i < 300; i++) buf_add_str(&file, "{\"text\":\"the same\"}\n");
    for (int i = 0; i < 300; i++) buf_add_str(&file, "{\"text\":\"\"}\n");
    CHECK(!data_rows(&d, file.data));
    CHECK_INT(d.report.n_duplicates, 299);
    CHECK_INT(d.report.n_problems, 599);
    CHECK_INT(d.report.n_fatal, 300);
    CHECK_INT(d.report.n_problems_kept, 100);
    CHECK_INT(d.report.problems[99].line, 350);
    CHECK_STR(d.err.message, "FILE line 301: \"text\" is empty");
    buf_finish(&file);
    data_finish(&d);
}

// ---- shapes of files

TEST(array) {
    struct data d;
    data_init(&d);
    const char *file = "\xef\xbb\xbf [\r\n  {\"text\": \"a\"},\n\n  {\n    \"prompt\": \"b\",\n    \"completion\": \"c\"\n  }, {\"tokens\": [100, 101]}\n]\n";
    REQUIRE(data_open(&d, "rows.json", file, strlen(file)));
    CHECK_INT(dataset_count(d.set), 3);
    CHECK_INT(dataset_format(d.set), DATA_ROWS);
    CHECK_INT(dataset_line(d.set, 0), 2);
    CHECK_INT(dataset_line(d.set, 1), 4);
    CHECK_INT(dataset_line(d.set, 2), 7);
    CHECK_STR(data_shown(&d, 1), "b{c<|endoftext|>}");
    CHECK(data_open(&d, "upload-1234", file, strlen(file))); // told by content
    CHECK_INT(dataset_count(d.set), 3);
    CHECK(!DATA_OPEN(&d, "a.json", "[\n{\"text\":\"a\"},\n{\n\"text\":\n7}]"));
    CHECK_STR(d.err.message, "FILE line 3: line 5, column 1: expected a string, found a number");
    CHECK(!DATA_OPEN(&d, "a.json", "[\n{\"text\":\"a\"},\n{\"text\":\"b\"}\n{}]"));
    CHECK_STR(d.err.message, "FILE line 3: line 4, column 1: expected ',' or ']', found an object");
    CHECK(!DATA_OPEN(&d, "a.json", "[\n{\"text\":\"a\"}]\n7"));
    CHECK_STR(d.err.message, "FILE line 2: line 3, column 1: expected the end of the text, found a number");
    REQUIRE(DATA_OPEN(&d, "a.json", "[{\"text\":\"a\"}, {\"text\":\"b\"}, {\"text\":\"b\"}]\n")); // one line: told by row
    CHECK(d.report.by_row);
    CHECK_INT(dataset_line(d.set, 2), 3);
    CHECK_INT(d.report.problems[0].line, 3);
    CHECK_STR(d.report.problems[0].message, "the same as row 2");
    CHECK(!DATA_OPEN(&d, "a.json", "[{\"text\":\"a\"}, {\"text\":7}]"));
    CHECK_STR(d.err.message, "FILE row 2: column 9: expected a string, found a number");
    CHECK(!DATA_OPEN(&d, "a.json", "[{\"text\":\"a\"}, {\"text\":\"b\"} {}]"));
    CHECK_STR(d.err.message, "FILE row 2: line 1, column 29: expected ',' or ']', found an object");
    data_finish(&d);
}

TEST(format_by_name_and_content) {
    struct data d;
    data_init(&d);
    REQUIRE(DATA_OPEN(&d, "a.json", "{\"text\":\"a\"}\n{\"text\":\"b\"}"));
    CHECK_INT(dataset_count(d.set), 2);
    REQUIRE(DATA_OPEN(&d, "a.TXT", "{\"text\":\"a\"}"));
    CHECK_INT(dataset_format(d.set), DATA_TEXT);
    REQUIRE(DATA_OPEN(&d, "upload", "\n {\"text\":\"a\"}"));
    CHECK_INT(dataset_format(d.set), DATA_ROWS);
    CHECK_INT(dataset_line(d.set, 0), 2);
    REQUIRE(DATA_OPEN(&d, "upload", "[Music] {"));
    CHECK_INT(dataset_format(d.set), DATA_TEXT);
    data_finish(&d);
}

// ---- texts

TEST(windows) {
    struct data d;
    data_init(&d);
    d.options.context = 4;
    REQUIRE(DATA_OPEN(&d, "a.txt", "0123456789abc"));
    CHECK_INT(dataset_count(d.set), 3); // 0-4, 4-8, 8-12; every window is full
    CHECK_INT(d.report.n_tokens, 13);
    CHECK_INT(d.report.n_supervised, 12);
    CHECK_STR(data_shown(&d, 0), "0{1234}");
    CHECK_STR(data_shown(&d, 2), "8{9abc}");
    CHECK_INT(dataset_line(d.set, 2), 0);
    REQUIRE(DATA_OPEN(&d, "a.txt", "0123456789ab"));
    CHECK_INT(dataset_count(d.set), 2);
    d.options.stride = 3;
    REQUIRE(DATA_OPEN(&d, "a.md", "\xef\xbb\xbf" "0123456789abc"));
    CHECK_INT(dataset_count(d.set), 3);
    CHECK_STR(data_shown(&d, 2), "6{789a}");
    REQUIRE(DATA_OPEN(&d, "a.txt", "012")); // shorter than a window
    CHECK_INT(dataset_count(d.set), 1);
    CHECK_STR(data_shown(&d, 0), "0{12}");
    CHECK(!DATA_OPEN(&d, "a.txt", "0"));
    CHECK_STR(d.err.message, "FILE: a text of two tokens is the shortest that can be trained on");
    CHECK(!DATA_OPEN(&d, "a.txt", "ab\ncd\n\xc3\x28"));
    CHECK_STR(d.err.message, "FILE line 3: not UTF-8: byte 0xC3");
    CHECK(!DATA_OPEN(&d, "a.txt", "ab\ncd\0ef\n"));
    CHECK_STR(d.err.message, "FILE line 2: a NUL byte: not a text");
    d.options.tokenizer = NULL;
    CHECK(!DATA_OPEN(&d, "a.txt", "abc"));
    data_finish(&d);
}

// Every class, every border of the pre-tokenizers' rules; few letters in some seeds, no white space in others.
static void random_text(uint64_t seed, size_t len, struct buf *out) {
    static const char *const pieces[] = {"a",    "word", "\xc3\xa9", "\xe4\xb8\xad\xe6\x96\x87", "\xd1\x8f", "7", "12345", "\xc2\xbd", " ",       "  ",
                                         "\n",   "\n\n", "\r\n",     "\t",       "\xc2\xa0", "'s", "'ll",   "'",        "\xc5\xbf", ".",
                                         "!!",   "[tool]", "[too",   "l]",       "\xf0\x9f\x98\x80", "e\xcc\x81", "<|im_end|>", "\xe3\x80\x82", "_", "K"};
    uint64_t state = seed, allowed = random_next(&state) | random_next(&state);
    buf_clear(out);
    while (out->len < len) {
        size_t i = random_next(&state) % ARRAY_LEN(pieces);
        if (allowed >> i & 1) buf_add_str(out, pieces[i]);
    }
}

static void check_whole_text(struct data *d, const char *text, size_t len) {
    struct ids want = {0};
    tokenizer_encode(d->tokenizer, text, len, false, &want);
    d->options.context = want.len; // all of it is one short example
    REQUIRE(data_open(d, "a.txt", text, len));
    CHECK_INT(d->report.n_tokens, want.len);
    REQUIRE(dataset_count(d->set) == 1 && dataset_length(d->set, 0) == want.len - 1);
    uint32_t *ids = mem_alloc(want.len, sizeof *ids);
    int32_t *targets = mem_alloc(want.len, sizeof *targets);
    CHECK(dataset_read(d->set, 0, ids, targets, NULL));
    CHECK(!memcmp(ids, want.data, (want.len - 1) * sizeof *ids));
    CHECK(!memcmp(targets, want.data + 1, (want.len - 1) * sizeof *targets));
    free(ids);
    free(targets);
    ids_finish(&want);
}

TEST(pieces_of_a_text_have_the_ids_of_the_whole) { // a text is encoded in pieces of a MiB
    static const char *const names[] = {"gpt2", "smollm", "llama3"};
    struct buf text = {0};
    for (size_t i = 0; i < 3; i++) {
        struct data d;
        data_init(&d);
        tokenizer_destroy(d.tokenizer);
        d.options.tokenizer = d.tokenizer = golden_load(names[i]);
        REQUIRE(d.tokenizer);
        d.options.n_vocab = tokenizer_size(d.tokenizer);
        for (uint64_t seed = 1; seed <= repeats("COUPLET_TEXTS", 3); seed++) {
            random_text(seed * 3 + i, (size_t)5 << 19, &text);
            check_whole_text(&d, text.data, text.len);
        }
        buf_clear(&text); // no place to cut for more than two pieces' length
        for (size_t k = 0; k < (size_t)5 << 18; k++) buf_add_str(&text, "- ");
        buf_add_str(&text, "the end\n");
        for (size_t k = 0; k < (size_t)3 << 17; k++) buf_add_str(&text, "[tool]");
        check_whole_text(&d, text.data, text.len);
        data_finish(&d);
    }
    buf_finish(&text);
}

TEST(documents_of_a_text) { // <|endoftext|> becomes its token, wherever the pieces are cut; other markers stay text
    struct data d;
    struct buf text = {0};
    data_init(&d);
    buf_add_str(&text, "<|im_end|>a");
    for (size_t k = 0; k < (size_t)1 << 18; k++) buf_add_str(&text, "<|endoftext|>b<|endoftext");
    REQUIRE(data_open(&d, "a.txt", text.data, text.len));
    CHECK_INT(d.report.n_tokens, 11 + ((size_t)1 << 18) * (1 + 1 + 11));
    CHECK(!strncmp(data_shown(&d, 0), "<{|im_end|>a<|endoftext|>b<|endoftext<|endoftext|>b<|endoftext<", 63));
    buf_finish(&text);
    data_finish(&d);
}

// ---- duplicates, views, leaks

TEST(duplicates) {
    struct data d;
    data_init(&d);
    REQUIRE(data_rows(&d, "{\"prompt\":\"Hello  World\",\"completion\":\"\xc3\x84 b\"}\n"
                          "{\"completion\":\"\\u00c4 b\",\"prompt\":\"Hello  World\"}\n"   // the same in other words of JSON
                          "{\"prompt\":\" hello\\tworld \",\"completion\":\"\xc3\xa4 B\"}\n" // but for case and white space
                          "{\"prompt\":\"Hello\",\"completion\":\"World \xc3\x84 b\"}\n"
                          "{\"text\":\"Hello  World\"}\n"
                          "{\"tokens\":[1,2]}\n{\"tokens\":[1,3]}\n{\"tokens\":[1,2]}\n"));
    CHECK_INT(d.report.n_duplicates, 2);
    CHECK_INT(d.report.n_near_duplicates, 1);
    CHECK_INT(dataset_count(d.set), 8);
    REQUIRE(d.report.n_problems_kept == 3);
    CHECK_STR(d.report.problems[0].message, "the same as line 1");
    CHECK_STR(d.report.problems[1].message, "the same as line 1 but for case and white space");
    CHECK_INT(d.report.problems[2].line, 8);
    CHECK(!d.report.problems[2].fatal);
    data_finish(&d);
}

static void add_rows(struct buf *file, size_t n, uint64_t seed) {
    for (size_t i = 0; i < n; i++) {
        buf_add_str(file, "{\"text\":\"a common beginning of all rows: ");
        for (int k = 0; k < 20; k++) buf_add_byte(file, (unsigned char)('a' + random_next(&seed) % 26));
        buf_add_str(file, "\"}\n");
    }
}

TEST(split) {
    struct data d;
    struct buf file = {0};
    struct data_view a, b, c, e;
    data_init(&d);
    add_rows(&file, 200, 1);
    REQUIRE(data_rows(&d, file.data));
    REQUIRE(data_view_split(d.set, 0.1, 7, &a, &b, NULL) && data_view_split(d.set, 0.1, 8, &c, &e, NULL));
    CHECK(a.n == 180 && b.n == 20 && c.n == 180 && e.n == 20);
    CHECK(memcmp(b.items, e.items, 20 * sizeof *b.items));
    bool seen[200] = {0};
    for (size_t i = 0; i < 180; i++) seen[a.items[i]] = true;
    for (size_t i = 1; i < 180; i++) CHECK(a.items[i] > a.items[i - 1]);
    for (size_t i = 0; i < 20; i++) CHECK(!seen[b.items[i]]);
    data_view_finish(&a), data_view_finish(&b), data_view_finish(&c), data_view_finish(&e);
    REQUIRE(data_view_split(d.set, 0.0001, 7, &a, &b, NULL));
    CHECK(a.n == 199 && b.n == 1);
    data_view_finish(&a), data_view_finish(&b);

    d.options.context = 4; // a text: its last windows, and none that reaches into them
    REQUIRE(DATA_OPEN(&d, "a.txt", "0123456789abcdefg"));
    REQUIRE(data_view_split(d.set, 0.25, 7, &a, &b, NULL));
    CHECK(a.n == 3 && b.n == 1 && b.items[0] == 3);
    data_view_finish(&a), data_view_finish(&b);
    d.options.stride = 1; // 13 windows; the last three begin at 10: training ends in target 10
    REQUIRE(DATA_OPEN(&d, "a.txt", "0123456789abcdefg"));
    REQUIRE(data_view_split(d.set, 0.25, 7, &a, &b, NULL));
    CHECK(a.n == 7 && b.n == 3 && b.items[0] == 10);
    data_view_finish(&a), data_view_finish(&b);
    CHECK(!data_view_split(d.set, 0.9, 7, &a, &b, &d.err));
    CHECK_STR(d.err.message, "the text is too short to split: every window overlaps the last 12");
    REQUIRE(DATA_OPEN(&d, "a.txt", "01"));
    CHECK(!data_view_split(d.set, 0.5, 7, &a, &b, &d.err));
    buf_finish(&file);
    data_finish(&d);
}

TEST(leaks) {
    struct data d;
    struct buf file = {0};
    struct data_view all;
    data_init(&d);
    add_rows(&file, 100, 1);
    add_rows(&file, 5, 2);
    const char *letters = strstr(file.data, "rows: ") + 6;
    struct buf others = {0};
    buf_printf(&others, "{\"text\":\"seen-%.13s-so\"}\n{\"text\":\"not-%.12s-so\"}\n", letters, letters);
    buf_add(&file, others.data, others.len);
    buf_finish(&others);
    REQUIRE(data_rows(&d, file.data));
    data_view_all(&all, d.set);
    struct data_view train = all, validation = all;
    train.n = 100;
    validation.items = all.items + 100;
    validation.n = 7;
    CHECK_INT(data_view_leaks(&train, &validation, NULL), 1); // what all rows share does not count, 12 tokens neither
    train.n = 9;
    CHECK_INT(data_view_leaks(&train, &validation, NULL), 6); // of nine rows nothing is a template
    data_view_finish(&all);
    buf_finish(&file);
    data_finish(&d);
}

TEST(hash) {
    struct data d;
    unsigned char hash[5][32];
    data_init(&d);
    const char *rows[] = {"{\"prompt\":\"a\",\"completion\":\"bc\"}\n{\"text\":\"d\"}", "{\"completion\":\"bc\", \"prompt\":\"a\"}\n\n{\"text\":\"d\"}",
                          "{\"prompt\":\"ab\",\"completion\":\"c\"}\n{\"text\":\"d\"}", "{\"text\":\"abc\"}\n{\"text\":\"d\"}",
                          "{\"tokens\":[97,98]}\n{\"tokens\":[99,256,100,256]}"};
    for (size_t i = 0; i < 5; i++) {
        REQUIRE(data_rows(&d, rows[i]));
        dataset_hash(d.set, hash[i]);
    }
    CHECK(!memcmp(hash[0], hash[1], 32)); // tokens and masks alike
    for (size_t i = 2; i < 5; i++)
        for (size_t k = 0; k < i; k++) CHECK(memcmp(hash[i], hash[k], 32));
    data_finish(&d);
}

static void note_progress(void *ctx, uint64_t done, uint64_t total) {
    uint64_t *last = ctx;
    CHECK(done >= *last && done <= total);
    *last = done;
}

TEST(progress) {
    struct data d;
    uint64_t last = 0;
    data_init(&d);
    d.options.progress = note_progress;
    d.options.progress_ctx = &last;
    CHECK(data_rows(&d, "{\"text\":\"a\"}\n"));
    CHECK_INT(last, 13);
    data_finish(&d);
}

TEST_MAIN("dataset")
