// SPDX-License-Identifier: MIT
// Ids are those of HF tokenizers and tiktoken: small vocabularies of every kind, and GPT-2's own where it is present.
#include "tests/unit/tokenizer/golden.h"

static void check_golden(const char *vocabulary, const char *vectors, enum pre_tokenizer pre) {
    struct tokenizer *t = golden_load(vocabulary);
    if (!t) return;
    CHECK_INT(tokenizer_pre(t), pre);
    char *path = path_join(GOLDEN_DIR, vectors);
    CHECK(vectors_check(t, path) > 400);
    free(path);
    tokenizer_destroy(t);
}

TEST(gpt2) { check_golden("gpt2", "gpt2/vectors.jsonl", PRE_GPT2); }

TEST(gpt2_from_two_files) { check_golden("gpt2_files", "gpt2/vectors.jsonl", PRE_GPT2); }

TEST(smollm_with_missing_bytes) { check_golden("smollm", "smollm/vectors.jsonl", PRE_SMOLLM); }

TEST(llama3_with_added_token) { check_golden("llama3", "llama3/vectors.jsonl", PRE_LLAMA3); }

TEST(gpt2_full_vocabulary) {
    const char *dir = gpt2_vocabulary_dir();
    if (!dir) {
        printf("skipped: GPT-2's vocabulary is not there (./start brings it to models/gpt2-vocab)\n");
        return;
    }
    struct err err = {0};
    struct tokenizer *t = tokenizer_load_dir(dir, &err);
    if (!t) TEST_FAIL("%s", err.message);
    if (!t) return;
    CHECK_INT(tokenizer_size(t), 50257);
    CHECK_INT(tokenizer_eos(t), 50256);
    CHECK_INT(tokenizer_bos(t), 50256);
    CHECK(tokenizer_has_all_bytes(t));
    CHECK(vectors_check(t, GOLDEN_DIR "/gpt2_vectors.jsonl") > 300);
    tokenizer_destroy(t);
}

TEST_MAIN("tokenizer_vectors")
