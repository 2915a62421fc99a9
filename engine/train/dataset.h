// SPDX-License-Identifier: MIT
// Training data: files -> examples of token ids with a mask, every problem with its line; order and batches from a seed alone.
//
// A file is read once, streaming, in bounded memory. Tokens go to an unlinked temporary file (u32; bit 31: this token is a supervised target) and
// are read back with pread, so a 2 GB text takes a few MB of memory. An example of n tokens gives n - 1 inputs and targets.
#pragma once

#include "base/buf.h"
#include "engine/train/batch.h"
#include "tokenizer/chat_template.h"

enum data_format { DATA_TEXT, DATA_ROWS };                // .txt .md | .jsonl, .json with an array
enum excess_length { EXCESS_ERROR, EXCESS_TRUNCATE, EXCESS_DROP };

struct dataset_options {
    const struct tokenizer *tokenizer;  // NULL: only {"tokens"} rows
    const struct chat_template *chat;   // NULL: messages rows are refused
    size_t n_vocab, context, stride;    // context counts inputs; stride 0: context
    bool train_on_inputs;
    enum excess_length excess;
    const char *temp_dir;               // where the token file goes; NULL: TMPDIR or /tmp
    void (*progress)(void *ctx, uint64_t bytes_done, uint64_t bytes_total); // may be NULL
    void *progress_ctx;
};
struct data_problem {
    size_t line; // 1-based, in the file; of a .json array: the line where the element begins
    bool fatal;  // the row could not be used under these options
    char message[200];
};
struct dataset_report {
    size_t n_rows, n_examples, n_tokens, n_supervised, longest; // longest example in tokens
    size_t n_truncated, n_dropped;
    size_t n_duplicates, n_near_duplicates; // rows equal to an earlier one, exactly | after lower-casing and folding white space
    struct data_problem *problems;          // the first 100
    size_t n_problems, n_fatal;             // in all
    size_t n_problems_kept, problems_cap;
};
void dataset_report_finish(struct dataset_report *r);

// What a model is given of an instruction row (Alpaca's wording, the seed's): all but the answer. input: empty where there is none.
void dataset_instruction_prompt(const struct buf *instruction, const struct buf *input, struct buf *out);

struct dataset;
// On failure (unreadable, empty, not UTF-8, any fatal problem) NULL; *err is the first problem, "FILE line N: ..."; *report (may be NULL) has all.
struct dataset *dataset_open(const char *path, const struct dataset_options *o, struct dataset_report *report, struct err *err) MUST_CHECK;
void dataset_close(struct dataset *d); // accepts NULL
size_t dataset_count(const struct dataset *d);             // examples; of a text: windows
size_t dataset_length(const struct dataset *d, size_t i);  // inputs of example i
size_t dataset_line(const struct dataset *d, size_t i);    // line of its row; 0 for texts
enum data_format dataset_format(const struct dataset *d);
// ids[length], targets[length].
bool dataset_read(const struct dataset *d, size_t i, uint32_t *ids, int32_t *targets, struct err *err) MUST_CHECK;
void dataset_hash(const struct dataset *d, unsigned char out[32]); // over all tokens and masks

// A choice of a dataset's examples.
struct data_view {
    const struct dataset *data;
    uint32_t *items; // [n] example numbers, owned
    size_t n;
};
void data_view_all(struct data_view *v, const struct dataset *d);
// fraction in (0, 1): texts give their last windows to `validation` (windows that overlap both sides are left out), rows are drawn by
// seed, keeping file order inside each part. At least one example each; fewer than two examples: ERR_INVALID.
bool data_view_split(const struct dataset *d, double fraction, uint64_t seed, struct data_view *train, struct data_view *validation, struct err *err) MUST_CHECK;
void data_view_finish(struct data_view *v);
// Examples of `validation` that share a run of 13 tokens of supervised or prompt text with training (texts: windows). Instruction templates
// do not count: runs that occur in more than 1 % (and at least 10) of the training rows are ignored.
size_t data_view_leaks(const struct data_view *train, const struct data_view *validation, struct err *err);

// Batches of a view, in an order that is a function of (seed, epoch) alone. One update = up to `accumulate` batches of `batch_size` rows;
// the last, short update of an epoch is kept. packing: a row is filled with several whole examples up to `context` inputs (first fit in order).
struct batcher_config {
    size_t batch_size, accumulate, context;
    bool shuffle, packing;
    uint64_t seed;
};
struct batcher;
struct update {
    struct batch *batches; // [n_batches]; valid until the next call
    size_t n_batches, n_rows, n_supervised;
    uint64_t epoch; // from 0
    size_t index, of; // this update in its epoch
};
struct batcher *batcher_create(const struct data_view *v, const struct batcher_config *c, struct err *err) MUST_CHECK; // borrows v's dataset, copies the view
void batcher_destroy(struct batcher *b);
size_t batcher_updates_per_epoch(struct batcher *b, uint64_t epoch);
size_t batcher_max_rows(const struct batcher *b);    // of one batch, over any epoch (a bound)
size_t batcher_max_segment(const struct batcher *b); // longest example
// Epoch and update to come next: the data cursor of a checkpoint.
bool batcher_seek(struct batcher *b, uint64_t epoch, size_t index, struct err *err) MUST_CHECK;
bool batcher_next(struct batcher *b, struct update *out, struct err *err) MUST_CHECK; // goes on to the next epoch by itself
