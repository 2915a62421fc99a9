// SPDX-License-Identifier: MIT
// Streaming decode: token bytes in, whole UTF-8 characters out; a character is never split between two outputs.
#pragma once

#include "base/buf.h"

struct text_stream {
    char held[4]; // the start of an unfinished character
    size_t n_held;
};

// Appends to *out what has become whole; invalid sequences become U+FFFD as Python's bytes.decode("utf-8", "replace")
// does (one per maximal invalid subpart), whatever the cut between calls.
void text_stream_add(struct text_stream *s, const char *bytes, size_t len, struct buf *out);
// The end: an unfinished character becomes one U+FFFD.
void text_stream_end(struct text_stream *s, struct buf *out);
