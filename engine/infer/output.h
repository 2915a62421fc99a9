// SPDX-License-Identifier: MIT
// A sequence's way out: sampled tokens in, events of released tokens and whole UTF-8 text out.
//
// A token's place in the text is that of the character its first byte belongs to. Text is held while it might become
// part of a stop string, and unfinished characters are; a token is released with the text at its place. A token without
// bytes (a special one, a hole) is released with what precedes it. When a stop string is found the text is cut where it
// begins: tokens whose place is at or past the cut are dropped, a token that straddles it is kept whole.
// Stop strings are looked for from the text on that comes after the first min_tokens tokens, afresh: nothing before
// takes part in a match. A token that ends a sequence (eos, a stop id) is not pushed: output_add_end puts its record
// behind all others, without text. Owned by the sequence, engine thread.
#pragma once

#include "engine/infer/engine.h"

struct output;

// Copies what it needs of the params; the tokenizer is borrowed. NULL tokenizer: no text, tokens are released at once.
struct output *output_create(const struct tokenizer *t, const struct sampling_params *p);
void output_destroy(struct output *o); // accepts NULL

// True: a stop string ended the text; neither push nor finish may follow. Copies the record and its tops.
bool output_push(struct output *o, const struct token_record *r) MUST_CHECK;
// The end by length, eos, stop id or cancel: releases what is held, an unfinished character as U+FFFD. True: that
// completed a stop string.
bool output_finish(struct output *o);
// The record of the eos or stop id that ended the sequence; after output_finish returned false.
void output_add_end(struct output *o, const struct token_record *r);

// What was released since the last take, as an event of one malloc block (engine_event_free). EVENT_TOKENS: NULL when
// there is nothing. EVENT_FINISH: never NULL; stopped_by_string and stop_index are set, the rest is for the
// engine to fill.
struct engine_event *output_take(struct output *o, uint64_t id, enum event_kind kind);

// An event of one block with copies of records and text, everything else zero (prompt records, plain ends). len
// may be 0.
struct engine_event *event_create(uint64_t id, enum event_kind kind, const struct token_record *tokens, size_t n,
                                  const char *text, size_t len);
