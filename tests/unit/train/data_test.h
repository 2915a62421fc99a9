// SPDX-License-Identifier: MIT
// Shared by the tests of training data: a tokenizer whose ids are bytes, a file with a given content, and what became of it.
#pragma once

#include "base/mem.h"
#include "engine/train/dataset.h"
#include "tests/unit/tokenizer/golden.h"

enum { ID_END = 256, ID_IM_START, ID_IM_END, ID_BEGIN, ID_START_HEADER, ID_END_HEADER, ID_EOT, N_IDS };
static const char *const marker_names[] = {"<|endoftext|>",       "<|im_start|>",      "<|im_end|>", "<|begin_of_text|>",
                                           "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"};

static inline struct tokenizer *byte_tokenizer(int64_t bos, int64_t eos) { // bos -1: none
    struct vocab_entry vocab[N_IDS] = {0};
    char bytes[256];
    for (size_t i = 0; i < 256; i++) {
        bytes[i] = (char)i;
        vocab[i] = (struct vocab_entry){.bytes = &bytes[i], .len = 1};
    }
    for (size_t i = 0; i < ARRAY_LEN(marker_names); i++)
        vocab[256 + i] = (struct vocab_entry){.bytes = marker_names[i], .len = strlen(marker_names[i]), .special = true};
    struct tokenizer_spec spec = {.vocab = vocab, .n_vocab = N_IDS, .pre = PRE_GPT2, .bos = bos, .eos = eos, .pad = -1, .add_bos = bos >= 0};
    struct err err = {0};
    struct tokenizer *t = tokenizer_create(&spec, &err);
    if (!t) fprintf(stderr, "%s\n", err.message), abort();
    return t;
}

// One file, opened. Everything in it is freed by data_finish.
struct data {
    struct dataset_options options;
    struct tokenizer *tokenizer;
    struct dataset *set;
    struct dataset_report report;
    struct err err;
};

static inline void data_init(struct data *d) {
    *d = (struct data){.tokenizer = byte_tokenizer(-1, ID_END)};
    d->options = (struct dataset_options){.tokenizer = d->tokenizer, .n_vocab = N_IDS, .context = 1000};
}

static inline void data_close(struct data *d) {
    dataset_close(d->set);
    dataset_report_finish(&d->report);
    d->set = NULL;
    d->err = (struct err){0};
}

static inline void data_finish(struct data *d) {
    data_close(d);
    tokenizer_destroy(d->tokenizer);
}

// As a file called `name`. Messages name it "FILE".
static inline bool data_open(struct data *d, const char *name, const void *content, size_t len) {
    data_close(d);
    struct scratch_dir dir;
    if (!scratch_init(&dir)) return false;
    scratch_write(&dir, name, content, len);
    char *path = path_join(dir.path, name);
    d->set = dataset_open(path, &d->options, &d->report, &d->err);
    char *at = strstr(d->err.message, path);
    if (at) {
        memmove(at + 4, at + strlen(path), strlen(at + strlen(path)) + 1);
        memcpy(at, "FILE", 4);
    }
    unlink(path);
    free(path);
    scratch_finish(&dir);
    return d->set != NULL;
}

#define DATA_OPEN(d, name, literal) data_open((d), (name), (literal), sizeof(literal) - 1) // may hold NUL

static inline bool data_rows(struct data *d, const char *lines) { return data_open(d, "rows.jsonl", lines, strlen(lines)); }

// Example i with its supervised targets between { and }.
static inline const char *data_shown(const struct data *d, size_t i) {
    static struct buf shown;
    struct err err = {0};
    size_t n = dataset_length(d->set, i);
    uint32_t *ids = mem_alloc(n, sizeof *ids);
    int32_t *targets = mem_alloc(n, sizeof *targets);
    buf_clear(&shown);
    if (!dataset_read(d->set, i, ids, targets, &err)) TEST_FAIL("%s", err.message);
    bool inside = false;
    for (size_t t = 0; t <= n; t++) {
        bool supervised = t > 0 && targets[t - 1] != TARGET_IGNORED;
        uint32_t id = t < n ? ids[t] : supervised ? (uint32_t)targets[t - 1] : UINT32_MAX;
        if (supervised != inside) buf_add_byte(&shown, supervised ? '{' : '}');
        inside = supervised;
        if (supervised && (uint32_t)targets[t - 1] != id) TEST_FAIL("target %zu is not the next token", t - 1);
        size_t len = 1;
        const char *bytes = id == UINT32_MAX ? "?" : tokenizer_bytes(d->tokenizer, id, &len);
        buf_add(&shown, bytes, len);
    }
    if (inside) buf_add_byte(&shown, '}');
    free(ids);
    free(targets);
    return buf_str(&shown);
}
