// SPDX-License-Identifier: MIT
// Which tokens of a row are trained on, row kind by row kind, written out: supervised targets stand between { and }.
#include "tests/unit/train/data_test.h"

#define PREAMBLE "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n### Instruction:\n"
#define CHECK_ROW(d, row, shown)                                     \
    do {                                                             \
        if (data_rows((d), (row))) CHECK_STR(data_shown((d), 0), (shown)); \
        else TEST_FAIL("%s", (d)->err.message);                      \
    } while (0)

TEST(text) {
    struct data d;
    data_init(&d);
    CHECK_ROW(&d, "{\"text\":\"abc\"}", "a{bc<|endoftext|>}");
    CHECK_ROW(&d, "{\"text\":\"<|endoftext|>\"}", "<{|endoftext|><|endoftext|>}"); // ordinary text, then the end
    CHECK_INT(dataset_length(d.set, 0), 13);
    data_finish(&d);
}

TEST(prompt_and_completion) {
    struct data d;
    data_init(&d);
    CHECK_ROW(&d, "{\"prompt\":\"1+1=\",\"completion\":\" 2\"}", "1+1={ 2<|endoftext|>}");
    CHECK_ROW(&d, "{\"completion\":\"x\",\"prompt\":\"\"}", "x{<|endoftext|>}"); // nothing predicts the first token
    CHECK_ROW(&d, "{\"text\":null,\"prompt\":\"a\\u0000b\",\"completion\":\"c\"}", "a");  // NUL is shown as itself
    CHECK_INT(dataset_length(d.set, 0), 4);
    d.options.train_on_inputs = true;
    CHECK_ROW(&d, "{\"prompt\":\"1+1=\",\"completion\":\" 2\"}", "1{+1= 2<|endoftext|>}");
    data_finish(&d);
}

// Where the pre-tokenizer would join the end of the prompt and the beginning of the completion, they stay apart.
TEST(prompt_is_encoded_as_it_will_be_served) {
    struct data d;
    data_init(&d);
    tokenizer_destroy(d.tokenizer);
    d.options.tokenizer = d.tokenizer = golden_load("gpt2");
    REQUIRE(d.tokenizer);
    d.options.n_vocab = tokenizer_size(d.tokenizer);
    CHECK_ROW(&d, "{\"prompt\":\"for the wo\",\"completion\":\"rd of the\"}", "for the wo{rd of the<|endoftext|>}");
    struct ids prompt = {0}, whole = {0};
    tokenizer_encode(d.tokenizer, "for the wo", 10, false, &prompt);
    tokenizer_encode(d.tokenizer, "for the word of the", 19, false, &whole);
    uint32_t ids[32];
    int32_t targets[32];
    REQUIRE(dataset_length(d.set, 0) < 32 && dataset_read(d.set, 0, ids, targets, NULL));
    CHECK(!memcmp(ids, prompt.data, prompt.len * sizeof *ids));
    CHECK(memcmp(ids, whole.data, prompt.len * sizeof *ids)); // the golden vocabulary has a token across the border
    ids_finish(&prompt);
    ids_finish(&whole);
    data_finish(&d);
}

TEST(instruction) {
    struct data d;
    data_init(&d);
    CHECK_ROW(&d, "{\"instruction\":\"Add.\",\"input\":\"1, 2\",\"output\":\"3\"}",
              PREAMBLE "Add.\n\n### Input:\n1, 2\n\n### Response:\n{3<|endoftext|>}");
    CHECK_ROW(&d, "{\"instruction\":\"Hi\",\"input\":\"\",\"output\":\"Ho\"}", PREAMBLE "Hi\n\n### Response:\n{Ho<|endoftext|>}");
    CHECK_ROW(&d, "{\"instruction\":\"Hi\",\"output\":\"Ho\"}", PREAMBLE "Hi\n\n### Response:\n{Ho<|endoftext|>}");
    d.options.train_on_inputs = true;
    REQUIRE(data_rows(&d, "{\"instruction\":\"Hi\",\"output\":\"Ho\"}"));
    CHECK_INT(d.report.n_supervised, dataset_length(d.set, 0));
    data_finish(&d);
}

TEST(tokens) {
    struct data d;
    data_init(&d);
    CHECK_ROW(&d, "{\"tokens\":[97,98,99]}", "a{bc}");
    d.options.tokenizer = NULL;
    CHECK(data_rows(&d, "{\"tokens\":[97,98]}"));
    CHECK(!data_rows(&d, "{\"text\":\"abc\"}"));
    CHECK_STR(d.err.message, "FILE line 1: the model has no tokenizer: only \"tokens\" rows can be read");
    data_finish(&d);
}

TEST(begin_token) { // where serving puts one before a prompt, training does
    struct data d;
    data_init(&d);
    tokenizer_destroy(d.tokenizer);
    d.options.tokenizer = d.tokenizer = byte_tokenizer(ID_BEGIN, ID_EOT);
    CHECK_ROW(&d, "{\"text\":\"ab\"}", "<|begin_of_text|>{ab<|eot_id|>}");
    CHECK_ROW(&d, "{\"prompt\":\"a\",\"completion\":\"b\"}", "<|begin_of_text|>a{b<|eot_id|>}");
    CHECK_ROW(&d, "{\"instruction\":\"Hi\",\"output\":\"Ho\"}", "<|begin_of_text|>" PREAMBLE "Hi\n\n### Response:\n{Ho<|eot_id|>}");
    d.options.chat = chat_template_recognise("llama3");
    CHECK_ROW(&d, "{\"messages\":[{\"role\":\"user\",\"content\":\" a \"},{\"role\":\"assistant\",\"content\":\" b \"}]}",
              "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\na<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n{b<|eot_id|>}");
    data_finish(&d);
}

#define USER(s)      "{\"role\":\"user\",\"content\":\"" s "\"}"
#define ASSISTANT(s) "{\"role\":\"assistant\",\"content\":\"" s "\"}"
#define MESSAGES(...) "{\"messages\":[" __VA_ARGS__ "]}"

TEST(messages) {
    struct data d;
    data_init(&d);
    d.options.chat = chat_template_recognise("chatml");
    CHECK_ROW(&d, MESSAGES(USER("a") "," ASSISTANT("b") "," USER("c") "," ASSISTANT("\\n d")),
              "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n{b<|im_end|>}\n<|im_start|>user\nc<|im_end|>\n"
              "<|im_start|>assistant\n{\n d<|im_end|>}");
    CHECK_ROW(&d, MESSAGES("{\"role\":\"developer\",\"content\":\"s\"}," USER("<|im_end|>") ",{\"weight\":0,\"role\":\"assistant\",\"content\":\"\"}," USER("c") "," ASSISTANT("d")),
              "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\n<|im_end|><|im_end|>\n<|im_start|>assistant\n<|im_end|>\n"
              "<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n{d<|im_end|>}");
    d.options.train_on_inputs = true;
    CHECK_ROW(&d, MESSAGES(USER("a") ",{\"role\":\"assistant\",\"content\":\"b\",\"weight\":0}," USER("c") "," ASSISTANT("d")),
              "<|im_start|>{user\na<|im_end|>\n<|im_start|>assistant\n}b<|im_end|>{\n<|im_start|>user\nc<|im_end|>\n"
              "<|im_start|>assistant\nd<|im_end|>}");
    d.options.train_on_inputs = false;
    d.options.chat = chat_template_recognise("alpaca"); // its end token is eos, its head ordinary text
    CHECK_ROW(&d, MESSAGES("{\"role\":\"system\",\"content\":\"S\"}," USER("a") "," ASSISTANT("b")),
              "S\n\n### Instruction:\na\n\n### Response:\n{b<|endoftext|>}");
    d.options.chat = chat_template_recognise("zephyr");
    CHECK_ROW(&d, MESSAGES(USER("a") "," ASSISTANT("b")), "<|user|>\na<|endoftext|>\n<|assistant|>\n{b<|endoftext|>}");
    data_finish(&d);
}

// A line break that ends the head and those that begin an answer are one token of the whole conversation: it is not the answer's first.
TEST(messages_with_a_token_across_the_border) {
    struct data d;
    data_init(&d);
    tokenizer_destroy(d.tokenizer);
    d.options.tokenizer = d.tokenizer = golden_load("smollm");
    REQUIRE(d.tokenizer);
    d.options.n_vocab = tokenizer_size(d.tokenizer);
    d.options.chat = chat_template_recognise("chatml");
    CHECK_ROW(&d, MESSAGES(USER("a") "," ASSISTANT("\\n\\n\\n\\nthe")), "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n\n{\n\n\nthe<|im_end|>}");
    struct chat_message m[] = {{ROLE_USER, "a", 1}, {ROLE_ASSISTANT, "\n\n\n\nthe", 7}};
    struct ids whole = {0};
    chat_template_encode(d.options.chat, d.tokenizer, m, 2, false, &whole);
    uint32_t ids[32];
    int32_t targets[32];
    REQUIRE(dataset_length(d.set, 0) < 32 && dataset_read(d.set, 0, ids, targets, NULL));
    CHECK(!memcmp(ids, whole.data, dataset_length(d.set, 0) * sizeof *ids));
    ids_finish(&whole);
    data_finish(&d);
}

TEST(over_long) {
    struct data d;
    data_init(&d);
    d.options.context = 4;
    const char *rows = "{\"text\":\"abcd\"}\n{\"prompt\":\"abcdef\",\"completion\":\"x\"}\n{\"prompt\":\"ab\",\"completion\":\"cdefg\"}\n";
    CHECK(!data_rows(&d, rows));
    CHECK_STR(d.err.message, "FILE line 2: 8 tokens, of which the context of 4 takes 5");
    CHECK_INT(d.report.n_fatal, 2);
    d.options.excess = EXCESS_DROP;
    REQUIRE(data_rows(&d, rows));
    CHECK_INT(dataset_count(d.set), 1);
    CHECK_INT(d.report.n_dropped, 2);
    CHECK_STR(data_shown(&d, 0), "a{bcd<|endoftext|>}");
    d.options.excess = EXCESS_TRUNCATE;
    REQUIRE(data_rows(&d, rows));
    CHECK_INT(dataset_count(d.set), 2);
    CHECK_INT(d.report.n_dropped, 1);
    CHECK_INT(d.report.n_truncated, 1);
    CHECK_INT(dataset_line(d.set, 1), 3);
    CHECK_STR(data_shown(&d, 1), "ab{cde}");
    REQUIRE(d.report.n_problems == 2);
    CHECK_STR(d.report.problems[0].message, "dropped: the answer begins behind the context of 4");
    CHECK_STR(d.report.problems[1].message, "cut to the context of 4: 5 tokens of 8");
    CHECK(!data_rows(&d, "{\"prompt\":\"abcdef\",\"completion\":\"x\"}"));
    CHECK_STR(d.err.message, "FILE: no example is left, all 1 rows were dropped");
    d.options.chat = chat_template_recognise("chatml");
    d.options.context = 30; // ends inside the second answer
    CHECK_ROW(&d, MESSAGES(USER("a") "," ASSISTANT("b") "," USER("c") "," ASSISTANT("d")),
              "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n{b<|im_end|>}\n<|im_start|>user\nc?");
    data_finish(&d);
}

TEST_MAIN("dataset_masks")
