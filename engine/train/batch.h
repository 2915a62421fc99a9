// SPDX-License-Identifier: MIT
// What one forward and backward works on: a ragged batch. Examples lie one behind the other without padding; each is a segment of
// its own, where positions begin at 0 and attention does not look back past its beginning. So padding is never computed, and packing several
// examples into one row changes nothing but which examples share a batch.
#pragma once

#include <stddef.h>
#include <stdint.h>

#define TARGET_IGNORED (-100) // as in PyTorch

struct batch {
    size_t n_rows;           // tokens in all, R
    const uint32_t *ids;     // [R]
    const int32_t *targets;  // [R] the next token, or TARGET_IGNORED
    size_t n_segments;
    const uint32_t *starts;  // [n_segments + 1]: rows of segment i are [starts[i], starts[i + 1]); starts[n_segments] = R
    size_t n_supervised;     // targets that are not ignored
    size_t first_row;        // rows of the same update before this batch: the dropout's counter
};
