// SPDX-License-Identifier: MIT
// A model and an engine without weights, behind model.h and engine.h: for tests of what stands on them.
//
// The model "says" a fixed text again and again, a byte a token, starting at the prompt's length plus, with a temperature, the seed.
// The chosen token's logprob is -0.5 - 0.125 * (place % 4); the top ones follow it by 1 each: ids (chosen + 1) % n_vocab, ...
#pragma once

#include "engine/infer/engine.h"
#include "engine/infer/inspect.h"

extern const char fake_text[]; // what the model says

// model_create_adapted gives a model whose n_ctx is the adapter's rank.
//
// Takes the tokenizer (NULL: a model without one, then 261 ids). One reference, for model_release.
struct model *fake_model_create(struct tokenizer *t, size_t n_ctx);

// 256 bytes, then <|endoftext|> 256 (bos, eos, pad), <|im_start|> 257, <|im_end|> 258, two holes; jinja NULL: no chat template.
struct tokenizer *fake_tokenizer_create(const char *jinja, bool add_bos);

// Steering, for every sequence submitted afterwards.
extern size_t fake_eos_after;                     // tokens until the model's end token; 0: never
extern bool fake_fails;                           // sequences end with FINISH_ERROR at their first step
extern bool fake_gone;                            // the next engine_submit finds no lane for the model
extern struct sequence_request fake_last_request; // of engine_submit; its pointers are dead
extern size_t fake_live, fake_cancelled;          // sequences; cancels that met a live one
extern size_t fake_lanes;                         // models added and not removed

// Looks inside: scores, weights, block and matrices' output are [2][3] {-inf, -0.25, 0, 0.1, 1, 2}; lens and neighbours the ids 97 and 195.
extern struct inspect_request fake_last_look; // its pointers are dead
extern struct inspect_matrices fake_last_matrices;
extern enum err_code fake_look_error; // what a look fails with; ERR_NONE: it does not
