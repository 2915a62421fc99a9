// SPDX-License-Identifier: MIT
// What the files of the network share: its arrays, its helpers over rows, linear layers and losses.
//
// Dropout sites (the counter's `site` word): 0 the embedding; layer l begins at 1 + l * (SITE_HEADS + NH): + 0 attention's residual,
// + 1 the mlp's, + 2 .. + 8 LoRA's inputs (q|k|v, out, up|gate, down by LINEAR_*), + SITE_HEADS + h attention's head h. The row word
// counts rows of the update, so that eight batches of one drop what one batch of eight does.
//
// Sums over rows (gradients of norms and biases) are taken per block of ROW_BLOCK rows and then in block order: the same bits on any number
// of threads.
#pragma once

#include "engine/kernels/kernels.h"
#include "engine/kernels/train_kernels.h"
#include "engine/train/attention.h"
#include "engine/train/gemm.h"
#include "engine/train/network.h"

enum { ROW_BLOCK = 32 };
enum { LINEAR_QKV = 0, LINEAR_OUT = 3, LINEAR_UP = 4, LINEAR_DOWN = 6, LINEARS = 7 };
enum { SITE_EMBEDDING = 0, SITE_ATTENTION = 0, SITE_MLP = 1, SITE_LORA = 2, SITE_HEADS = SITE_LORA + LINEARS };

struct layer_arrays { // what the forward keeps for the backward; R rows
    float *x;          // [R][C] input
    float *qkv;        // [R][Q + 2K], rotated
    float *lse;        // [NH][R]
    float *att;        // [R][Q]
    float *x_mid;      // [R][C] after attention
    float *up;         // [R][F] or gate|up [R][2F]
    float *u[LINEARS]; // [R][rank]: LoRA's x A^T; NULL where the layer has none
};

struct network {
    struct params *p;
    struct network_config c;
    struct pool *pool;
    const struct kernels *kernels;
    const struct train_kernels *train;
    size_t C, Q, K, F, UP, QKV, V, L, vocab_stride; // UP: F or 2F; QKV: Q + 2K
    struct attention_shape shape;
    float *memory;
    size_t memory_bytes;
    struct layer_arrays *layers; // [L + 1]; of the last only x: the final norm's input
    // scratch of one layer
    float *h;        // [R][C] a norm's output, then its gradient
    float *proj;     // [R][C] what a half layer adds to x; backward: the gradient behind its dropout
    float *act;      // [R][F] the mlp's activation, then its gradient
    float *dx;       // [R][C] gradient of the residual stream
    float *datt;     // [R][Q]
    float *dqkv;     // [R][Q + 2K]
    float *dup;      // [R][UP]; gelu: act's own memory
    float *du;       // [R][rank]
    float *dropped;  // [R][max(C, Q, F)] LoRA's input behind its dropout; NULL: none
    float *partial;  // [blocks][partial_width]
    float *rope;     // [R][3 HS / 2] cosines, sines, negated sines; NULL: none
    float *attention_scratch;
    float *hidden;   // [LOSS_ROWS][C] final norm of the supervised rows, then its gradient
    float *logits;   // [LOSS_ROWS][vocab_stride]
    float *losses;   // [R]
    uint32_t *positions, *supervised, *correct; // [R] position in the segment; rows with a target; 1: its target is the likeliest
    size_t partial_width;
    float *rope_frequency; // [HS / 2]
    size_t lowest;         // first layer with something trained in it or below; L: none
    bool stem_trained;     // embedding or positions
    struct network_times times;
    // the pass in progress
    const struct batch *b;
    bool training; // dropout
    bool fresh;
    uint32_t step;
    size_t n_supervised;
};

// ---- network.c ----
typedef void block_fn(struct network *n, const void *ctx, size_t first, size_t end, float *partial);
// fn over blocks of ROW_BLOCK of `rows` rows, on the pool. partial: [width] zeroed, the block's own; width 0: NULL.
void for_blocks(struct network *n, block_fn *fn, const void *ctx, size_t rows, size_t width);
// Adds columns [column, column + p->n) of the blocks' partial sums to p's gradient (fresh: writes). p NULL or frozen: nothing.
void blocks_reduce(struct network *n, const struct param *p, size_t rows, size_t column, bool fresh);
struct dropout_row dropout_at(const struct network *n, float p, size_t site, size_t row);
size_t layer_site(const struct network *n, size_t layer, size_t in_layer);
void norm_row(const struct network *n, float *y, const float *x, const struct param *w, const struct param *b);
static inline bool param_trained(const struct param *p) { return p && p->grad; }
static inline bool linear_trained(const struct param_linear *l) {
    return param_trained(l->w) || param_trained(l->bias) || param_trained(l->lora.a);
}

// Adds the time since *since to *ms and moves *since to now.
void time_add(double *ms, uint64_t *since);

// ---- network_forward.c: of n->b ----
void network_forward(struct network *n);
void layer_recompute(struct network *n, size_t layer); // from x: all that the backward reads
void act_row(const struct network *n, float *act, const float *up);
struct attention_arrays attention_of(const struct network *n, size_t layer);
struct attention_dropout attention_dropout_of(const struct network *n, size_t layer);
// x behind LoRA's own dropout: x itself or n->dropped.
const float *lora_input(struct network *n, const struct param_linear *l, size_t layer, size_t number, const float *x);

// ---- network_backward.c ----
void network_backward(struct network *n); // from dx, the gradient of the last layer's output, down
void norm_row_backward(const struct network *n, float *dx, float *dw, float *db, const float *dy, const float *x, const struct param *w);

// ---- network_loss.c ----
void network_supervise(struct network *n); // lists the supervised rows of n->b
// Losses of the supervised rows; where `backward` also dx and the gradients of head and final norm.
void network_loss(struct network *n, bool backward, float grad_scale, struct loss_sums *out);
// Logits of up to LOSS_ROWS rows of the last layer's output into out, rows `stride` apart.
void network_head(struct network *n, const uint32_t *rows, size_t n_rows, float *out, size_t stride);
