// SPDX-License-Identifier: MIT
// The tokens of a dataset on disk: an unlinked temporary file of u32, written once from front to back, then read anywhere with pread.
// Bit 31 marks a supervised target. The file goes away with its descriptor, whatever ends the process.
// Writing: one thread. Reading: any number.
#pragma once

#include "base/err.h"
#include "base/sha256.h"

#define TOKEN_SUPERVISED ((uint32_t)1 << 31)
#define TOKEN_ID(t)      ((t) & ~TOKEN_SUPERVISED)

struct token_store {
    int fd;
    uint32_t *buffer; // not yet written
    size_t used;
    uint64_t n;           // tokens added
    struct sha256 digest; // of all that was written
    int error;            // errno of the first failed write: sticky, comes out at finish
};

bool token_store_open(struct token_store *s, const char *dir, struct err *err) MUST_CHECK; // dir NULL: TMPDIR or /tmp
void token_store_add(struct token_store *s, const uint32_t *tokens, size_t n);
bool token_store_finish(struct token_store *s, struct err *err) MUST_CHECK; // nothing is added afterwards
// tokens[0..n) of the store from `at`; the range was added.
bool token_store_read(const struct token_store *s, uint64_t at, uint32_t *tokens, size_t n, struct err *err) MUST_CHECK;
void token_store_close(struct token_store *s); // accepts one whose open failed
