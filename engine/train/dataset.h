// SPDX-License-Identifier: MIT
// Training data: files -> examples of token ids with a mask, every problem with its line; order and batches from a seed alone.
//
// A file is read once, streaming. Tokens go to an unlinked temporary file (token_store.h) and are read back with pread: a text of any
// size takes some 10 MB of memory, a row 16 to 32 bytes (while it is read 50 more, to find its duplicates). An example of n tokens gives
// n - 1 inputs and targets.
//
// Rows, told by their keys; null means absent, an unknown key is a mistake. BOS stands before all but the last two where the tokenizer
// adds one at serving; every example but those of `tokens` ends with the end token, which is supervised. Contents of rows never become
// special tokens.
//   {"text"}                            all supervised
//   {"prompt", "completion"}            supervised: the completion. Encoded apart, as a client will send the prompt and the model go on
//   {"instruction", "input"?, "output"} the Alpaca wording as one text; supervised: the tokens that begin in the output
//   {"messages": [{role, content, weight?}]} the ids of chat_template_encode; supervised: what the assistant says, each time up to the token
//                                       that ends it there; weight 0 turns one off. The last message is the assistant's, the first is not
//   {"tokens": [ids]}                   all supervised, as they are
// Texts: windows of `context` inputs, `stride` apart, all supervised, ids as of the whole text. Every window is full (tokens behind the last
// one are not used), but a text shorter than one is one short example. Nothing is put between windows or at the end; <|endoftext|> in the text,
// between documents, becomes its token where the vocabulary has it (as in the seed's loader); no other special token is read out of a text.
// Threads: a dataset does not change; any number may read it.
#pragma once

#include "base/buf.h"
#include "engine/train/batch.h"
#include "tokenizer/chat_template.h"

// .txt .md | .jsonl, .json (rows by line, or an array); other names by content: rows where it begins with { or with [ and {.
enum data_format { DATA_TEXT, DATA_ROWS };
enum excess_length { EXCESS_ERROR, EXCESS_TRUNCATE, EXCESS_DROP };

struct dataset_options {
    const char *name;                   // stands for the path in messages and decides the format (an upload kept under its id); NULL: the path
    const struct tokenizer *tokenizer;  // NULL: only {"tokens"} rows
    const struct chat_template *chat;   // NULL: messages rows are refused
    size_t n_vocab, context, stride;    // context counts inputs; stride 0: context
    bool train_on_inputs;               // rows: everything is supervised, but for answers of weight 0
    enum excess_length excess;
    const char *temp_dir;               // where the token file goes (4 bytes a token); NULL: TMPDIR or /tmp
    void (*progress)(void *ctx, uint64_t bytes_done, uint64_t bytes_total); // may be NULL
    void *progress_ctx;
};
struct data_problem {
    size_t line; // 1-based, in the file; of a .json array: the line where the element begins, or which row it is (by_row)
    bool fatal;  // the row could not be used under these options
    char message[200];
};
struct dataset_report {
    size_t n_rows, n_examples, n_tokens, n_supervised, longest; // supervised targets; longest example in tokens. Of a text n_rows is 0
    size_t n_truncated, n_dropped;
    bool by_row; // an array on one line: its rows have numbers, where others have lines
    size_t n_duplicates, n_near_duplicates; // rows equal to an earlier one, exactly | only after lower-casing and folding white space
    struct data_problem *problems;          // the first 100, of them at most 50 that are not fatal
    size_t n_problems, n_fatal;             // in all
    size_t n_problems_kept, problems_cap;
};
void dataset_report_finish(struct dataset_report *r);
static inline const char *dataset_place(const struct dataset_report *r) { return r->by_row ? "row" : "line"; } // what a problem's `line` counts

// What a model is given of an instruction row (Alpaca's wording, the seed's): all but the answer. input: empty where there is none.
void dataset_instruction_prompt(const struct buf *instruction, const struct buf *input, struct buf *out);

struct dataset;
// On failure (unreadable, empty, not UTF-8, any fatal problem) NULL; *err is the first problem, "FILE line N: ..." (row N); *report (may be NULL) has all.
struct dataset *dataset_open(const char *path, const struct dataset_options *o, struct dataset_report *report, struct err *err) MUST_CHECK;
void dataset_close(struct dataset *d); // accepts NULL
size_t dataset_count(const struct dataset *d);             // examples; of a text: windows
size_t dataset_length(const struct dataset *d, size_t i);  // inputs of example i
size_t dataset_line(const struct dataset *d, size_t i);    // line of its row; 0 for texts
size_t dataset_row(const struct dataset *d, size_t i);     // which of the file's rows it is, from 0; 0 for texts
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
// seed, keeping file order inside each part. At least one example each; where that cannot be: ERR_INVALID.
bool data_view_split(const struct dataset *d, double fraction, uint64_t seed, struct data_view *train, struct data_view *validation,
                     struct err *err) MUST_CHECK;
void data_view_finish(struct data_view *v);
// Examples of `validation` that share a run of 13 tokens with an example of `train`. Templates do not count: a token of a run that more than 1 %
// (and at least 10) of the training examples have belongs to no such run. Memory is bounded: validation beyond a million tokens is looked at
// every k-th token, and shared runs shorter than 12 + k may be missed. SIZE_MAX: the tokens could not be read.
size_t data_view_leaks(const struct data_view *train, const struct data_view *validation, struct err *err);

// Batches of a view, in an order that is a function of (seed, epoch) alone. One update = up to `accumulate` batches of `batch_size` rows;
// the last, short update of an epoch is kept. packing: a row is filled with several whole examples up to `context` inputs (first
// fit in order, 64 examples ahead). Rows are never padded, so nothing is gained by sorting them by length, and they are not.
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
// Epoch and update to come next: the data cursor of a checkpoint. index may be that behind the epoch's last.
bool batcher_seek(struct batcher *b, uint64_t epoch, size_t index, struct err *err) MUST_CHECK;
bool batcher_next(struct batcher *b, struct update *out, struct err *err) MUST_CHECK; // goes on to the next epoch by itself
