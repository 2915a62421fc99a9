// SPDX-License-Identifier: MIT
// The model in training: the op list of engine/infer/transformer.c over a ragged batch, keeping what the backward needs, and that list
// reversed. One activation block, allocated at create for max_rows rows, huge pages advised, never freed between steps.
//
// Kept per layer and row: x [C], qkv [Q + 2K] (rotated), lse [NH], att [Q], x after attention [C], up [F or 2F]; norms and activations are computed
// again in the backward. With `recompute` only x is kept and the layer's forward is run again. Head and loss go in chunks of LOSS_ROWS rows of
// the supervised rows only: no [R][V] array, no head product for targets that are ignored. Thread: one; work is spread over the pool.
#pragma once

#include "base/pool.h"
#include "engine/train/batch.h"
#include "engine/train/params.h"

enum { LOSS_ROWS = 256 };

struct network_config {
    size_t max_rows;    // of a batch
    size_t max_segment; // rows of the longest segment, <= n_ctx
    float dropout_embedding, dropout_attention, dropout_residual; // GPT-2's three (the Llama family has none but attention's)
    float dropout_lora;
    uint64_t dropout_seed;
    bool recompute;
    bool inference; // forward only: one layer's activations
};
struct network;

// Borrows params and pool. ERR_NO_MEMORY.
struct network *network_create(struct params *p, const struct network_config *c, struct pool *pool, struct err *err) MUST_CHECK;
void network_destroy(struct network *n); // accepts NULL
size_t network_bytes(const struct params *p, const struct network_config *c); // what create would map, with a thread for every processor

struct loss_sums { // over supervised targets
    double loss; // sum of -log p, natural
    size_t n_targets, n_correct; // correct: the target is the likeliest token
};
// Forward and backward. Gradients of (sum of losses) * grad_scale are added to params' grads; where `fresh` they replace them (no
// zeroing needed between updates). step: the update's number, a dropout counter.
void network_train(struct network *n, const struct batch *b, float grad_scale, bool fresh, uint32_t step, struct loss_sums *out);
// Forward only, no dropout. token_losses: [n_rows] or NULL (ignored targets get 0).
void network_evaluate(struct network *n, const struct batch *b, struct loss_sums *out, float *token_losses);
// Forward only, no dropout: logits of the given rows, out [n_wanted][V]; any n_wanted.
void network_logits(struct network *n, const struct batch *b, const uint32_t *wanted, size_t n_wanted, float *out);

// Differences of the loss against the analytic gradient, for `per_param` elements of every trained array (seeded choice): four forwards each.
// Dropout is off; grads are left as the batch's.
struct gradient_check {
    char worst[128]; // parameter
    double worst_error; // |difference| / max(norm of that array's gradient / sqrt(n), 1e-6): what f32 resolves of it varies
    size_t n_checked, n_failed; // failed: by more than rounding can explain (gradient_check.c)
};
void network_check_gradients(struct network *n, const struct batch *b, size_t per_param, uint64_t seed, struct gradient_check *out);

// Milliseconds since create, by phase, for `--json` tables and the speed work.
struct network_times {
    double embed_ms, linear_forward_ms, attention_forward_ms, rows_forward_ms, head_loss_ms, linear_backward_ms, attention_backward_ms, rows_backward_ms;
};
const struct network_times *network_times(const struct network *n);
