// SPDX-License-Identifier: MIT
// The one forward pass, over a ragged batch: any number of sequences, each with any number of consecutive rows. Decoding is one row,
// reading a prompt is many; both may be in the same step and give each row the same bits as alone.
//
// A transformer is the workspace of one model: all arrays of a step, allocated once. Thread: one at a time; work is spread over
// the pool inside each call. Nothing here can fail.
#pragma once

#include "engine/infer/kv_cache.h"
#include "engine/infer/weights.h"

// Looking inside: called for every named array of a tapped sequence, on the thread that runs the forward, in the order of the
// computation. `shape` has n_dims entries, the first counts the sequence's rows in this step (for weights: rows x positions, one call
// a head). data is valid during the call. Names: embedding, norm1, q, k, v, scores, weights, context, attention, norm2, mlp, block.
// scores are q . k, not scaled, -infinity where the mask forbids. layer and head are -1 where there is none.
//
// The arithmetic is the served one, unless one of the changes is asked for.
struct tap {
    void (*see)(void *ctx, const char *name, int layer, int head, const float *data, const size_t *shape, int n_dims);
    // May change a head's attention weights, [rows][positions], before they are shown: true, and they meet the values anew. Heads
    // come in order. May be NULL.
    bool (*change)(void *ctx, int layer, int head, float *weights, size_t n_rows, size_t n_positions);
    // Asked before every layer: true ends the step there, without wanted rows. NULL: never.
    bool (*stop)(void *ctx, int layer);
    void *ctx;
    float *maps;       // [2][heads of a key/value head][rows][positions]: room for scores and weights, as large as callers allow it to be
    bool no_mask;      // rows attend to every position up to the step's last
    bool no_positions; // no learned position is added, no rotation done
};

struct adapter_rows;
struct step_sequence {
    size_t row, n_rows, position;  // rows of the step; position of the first
    const uint32_t *blocks;        // block table, covering position + n_rows
    const struct adapter_rows *adapter; // NULL: none. Rows of one adapter are best neighbours
    const struct tap *tap;         // NULL: none
};

struct step {
    size_t n_rows;                 // 1 .. max_rows
    const uint32_t *ids;           // [n_rows]
    const struct step_sequence *sequences;
    size_t n_sequences;
    const uint32_t *wanted;        // rows whose logits are wanted, ascending
    size_t n_wanted;
};

struct transformer;

struct transformer *transformer_create(const struct weights *w, size_t max_rows, struct pool *pool, struct err *err) MUST_CHECK;
void transformer_destroy(struct transformer *t); // accepts NULL

// Writes keys and values of every row to the cache and keeps the final hidden state of the wanted rows.
void transformer_forward(struct transformer *t, struct kv_cache *kv, const struct step *step);

// Logits of wanted rows [first, first + n) of the last step, n <= LOGIT_ROWS: [n][logit_stride]. Valid until the next call.
enum { LOGIT_ROWS = 32 };
const float *transformer_logits(struct transformer *t, size_t first, size_t n, size_t *logit_stride);

// The last norm of a row of the residual stream: x, out [n_embd].
void transformer_last_norm(const struct transformer *t, const float *x, float *out);
// As transformer_logits, for rows of the residual stream that were kept: x [n][n_embd], n <= LOGIT_ROWS and max_rows. Takes the
// place of the last step's.
const float *transformer_read(struct transformer *t, const float *x, size_t n, const struct adapter_rows *adapter, size_t *logit_stride);
