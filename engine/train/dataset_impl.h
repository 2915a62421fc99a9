// SPDX-License-Identifier: MIT
// What a struct dataset is made of, and what its readers share while it is made. For dataset*.c only.
//
// Invariants
//   D1 rows: examples[i] are n tokens of the store from `at`, 2 <= n <= context + 1, one supervised beside the first at least
//   D2 texts: the store is the text; example i begins at i * stride, and only a text shorter than a window gives a shorter one
//   D3 every token is below n_vocab
#pragma once

#include "base/file.h"
#include "engine/train/dataset.h"
#include "engine/train/token_store.h"

#define DATASET_MAX_EXAMPLES ((size_t)1 << 28) // a view and an epoch's order take 4 bytes of memory each

struct example {
    uint64_t at;
    uint32_t n, line, row; // row: of the file's, from 0
};
struct dataset {
    struct token_store store;
    enum data_format format;
    size_t context, stride;
    struct example *examples; // rows only
    size_t count, cap;
};

// One dataset_open. The file is mapped; pages that were read are given back, so that its size does not become the process's.
struct loader {
    struct dataset *d;
    const struct dataset_options *o;
    const char *path, *name; // name: what messages call it
    struct file_map map;
    const char *text; // the file behind its byte order mark
    size_t len, released;
    struct dataset_report *report;
    struct err failure; // the first fatal problem
};
// Notes a problem of a line (0: of the file) and goes on.
void loader_problem(struct loader *l, size_t line, bool fatal, const char *format, ...) PRINTF_LIKE(4, 5);
void loader_advance(struct loader *l, size_t at); // text before `at` is not looked at again
// Appends an example of a row; n_supervised: of its targets. False: no memory or too many.
bool loader_add_example(struct loader *l, const uint32_t *tokens, size_t n, size_t n_supervised, size_t line, struct err *err) MUST_CHECK;
bool loader_check_ids(struct loader *l, const uint32_t *ids, size_t n, size_t line); // D3; false: noted as a problem

// dataset_text.c, dataset_rows.c. False: reading cannot go on (memory, disk); what is wrong with the data goes to loader_problem.
bool dataset_load_text(struct loader *l, struct err *err) MUST_CHECK;
bool dataset_load_rows(struct loader *l, bool array, struct err *err) MUST_CHECK;

bool dataset_tokens(const struct dataset *d, size_t i, uint32_t *ids, struct err *err) MUST_CHECK; // length + 1 of them, unmarked

// dataset_dups.c: 64-bit hashes of rows and the lines they were first seen in. A chance collision among n rows: n^2 / 2^65.
struct line_set {
    uint64_t *hashes; // 0: empty slot
    uint32_t *lines;
    size_t n, n_slots;
};
// *earlier: the line that was there already, or 0.
bool line_set_add(struct line_set *s, uint64_t hash, size_t line, size_t *earlier, struct err *err) MUST_CHECK;
void line_set_finish(struct line_set *s);
// Appends text lower-cased (ASCII, Latin-1, Greek, Cyrillic), runs of white space as one space, none at its ends.
void text_fold(const char *text, size_t len, struct buf *out);
