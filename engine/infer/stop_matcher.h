// SPDX-License-Identifier: MIT
// Stop strings in a stream of bytes: Knuth-Morris-Pratt, one automaton a pattern, all fed byte by byte.
//
// The match reported is the one that ends first; of several that end at the same byte the longest (the text is cut
// where it begins, so nothing of any of them is left), of equal ones the lowest index. At most ENGINE_MAX_STOPS
// patterns of ENGINE_MAX_STOP_BYTES: a byte costs at most a few comparisons a pattern, whatever the text. Owned by its
// sequence; not thread-safe.
#pragma once

#include "engine/infer/engine.h"

struct stop_pattern {
    const unsigned char *bytes; // [len], inside the matcher's block
    const uint16_t *border;     // [len]: length of the longest proper border of bytes[0..i]
    uint16_t len;
    uint16_t state; // bytes of the pattern that the text so far ends in
};
struct stop_matcher {
    size_t n;
    struct stop_pattern patterns[ENGINE_MAX_STOPS];
    void *block; // bytes and borders of all patterns
};

void stop_matcher_init(struct stop_matcher *m, const struct stop_string *stops, size_t n); // copies
void stop_matcher_finish(struct stop_matcher *m);                                          // accepts a zeroed one

// Reads on until a match ends or the bytes do. True: the match ends with bytes[*used - 1], is pattern *index, and has
// its length; it may have begun in an earlier call. False: everything was read. After a match the matcher is spent.
bool stop_matcher_feed(struct stop_matcher *m, const char *bytes, size_t len, size_t *used, size_t *index) MUST_CHECK;
size_t stop_matcher_length(const struct stop_matcher *m, size_t index);
// How many of the bytes read last might be the beginning of a match.
size_t stop_matcher_held(const struct stop_matcher *m);
