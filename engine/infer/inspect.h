// SPDX-License-Identifier: MIT
// Looking inside a served model: one forward over a short text, with its arrays kept (transformer.h's tap), and the same mathematics on matrices that
// the caller brings, without a model. Names as in /v1/inspect.
//
// Shapes: T tokens, L layers, H heads, G key/value heads, HS head size, C width, K best. A layer or a head that was chosen loses its dimension:
// weights are [L][H][T][T], with a layer [H][T][T], with a head too [T][T].
//
// Thread: any, one at a time for each inspection; it owns a workspace of its own and touches neither engine nor caches of requests.
#pragma once

#include "engine/infer/model.h"

enum {
    INSPECT_EMBEDDINGS = 1 << 0,
    INSPECT_QKV = 1 << 1,
    INSPECT_SCORES = 1 << 2,
    INSPECT_WEIGHTS = 1 << 3,
    INSPECT_CONTEXT = 1 << 4,
    INSPECT_BLOCK = 1 << 5,
    INSPECT_LENS = 1 << 6,
    INSPECT_NEIGHBOURS = 1 << 7,
};
enum { INSPECT_MAX_DIMS = 4, INSPECT_MAX_BEST = 20 };

// Row-major; data NULL: not asked for, or the model has none.
struct inspect_array {
    float *data;
    size_t shape[INSPECT_MAX_DIMS];
    int n_dims;
};

struct head_place {
    uint32_t layer, head;
};

// Dropout of attention weights as torch does it after manual_seed(seed): the same weights are dropped, the kept ones scaled by 1/(1-p). p 0: none.
struct inspect_dropout {
    double p; // 0 <= p < 1
    uint64_t seed;
};

struct inspect_request {
    struct model *model;     // borrowed
    const uint32_t *ids;     // [n_ids], all below n_vocab; 1 <= n_ids <= n_ctx
    size_t n_ids;
    unsigned what;           // INSPECT_*
    int layer, head;         // -1: all; head is a query head
    bool no_mask, no_positions; // attend to what follows too; leave out learned positions, or the rotation
    struct inspect_dropout dropout;
    const struct head_place *ablate; // these heads give nothing to their block
    size_t n_ablate;
    size_t n_best;    // lens and neighbours: 1..INSPECT_MAX_BEST
    size_t lens_rows; // the lens looks at the last so many tokens; 0: all
    size_t max_bytes; // of all arrays of the answer together; ERR_TOO_LARGE past it, before anything is computed
    size_t n_threads; // of the forward
    bool (*cancelled)(void *ctx); // asked between layers and every few milliseconds of other work; may be NULL. true: ends with ERR_BUSY
    void *ctx;
};

struct inspection {
    // embeddings [T][C]: the token's row, the position's (NULL data: rotary, or left out), their sum: what the first block reads
    struct inspect_array token, position, embedding;
    struct inspect_array q, k, v;   // [L][H][T][HS]; k and v [L][G][T][HS], with a head the ones that it reads. After the rotation where there is one
    struct inspect_array scores;    // [L][H][T][T]: q . k, not scaled; -infinity where the mask forbids
    struct inspect_array weights;   // [L][H][T][T]: softmax(scores * scale), then dropout; 0 where forbidden or ablated
    struct inspect_array context;   // [L][H][T][HS]: weights . v
    struct inspect_array block;     // [L][T][C]: the residual stream after each block
    // With a layer and INSPECT_BLOCK, [T][C]: what the block's parts read and add. block = input + attention + mlp
    struct inspect_array input, norm1, attention, norm2, mlp;
    struct inspect_array final_norm; // [T][C]: the last block's output after the last norm; with INSPECT_BLOCK and no layer, or the last one
    float scale;                    // 1/sqrt(HS)
    // lens: what the model would say if it stopped after n blocks. [L + 1][rows][K], entry 0 is the embedding; with a layer [rows][K], that block's
    // output. Of the last `rows` tokens. The last entry is the next-token distribution itself.
    struct inspect_best {
        uint32_t *ids;
        float *values; // lens: probabilities; neighbours: cosines, descending
        size_t shape[3];
        int n_dims;
    } lens, neighbours; // neighbours [T][K]: nearest rows of the embedding table to each token's own, itself left out
    size_t lens_first;  // token that the first row of lens belongs to
};

bool inspect_model(const struct inspect_request *r, struct inspection *out, struct err *err) MUST_CHECK;
void inspection_finish(struct inspection *i); // accepts a zeroed one

// The seed's worked examples: attention over given vectors. Without W_q, W_k, W_v queries, keys and values are the inputs themselves and scores are
// not scaled. Matrices stand as in x W: [d_in][d_out].
struct inspect_matrices {
    const float *inputs; // [T][d_in]
    size_t n_tokens, d_in;
    const float *w_q, *w_k, *w_v; // all or none. [n_matrices][d_in][d_out]: one each for every head
    size_t n_matrices, d_out;     // n_matrices 1: the columns are divided among n_heads
    size_t n_heads;               // >= 1; divides d_out where n_matrices is 1, equals n_matrices otherwise
    bool heads_dimension;         // arrays of the answer keep [H] in front although there is one head
    const float *w_o, *b_o;       // [n_heads * head size][d_o], [d_o]; NULL: none
    size_t d_o;
    bool no_mask;
    struct inspect_dropout dropout;
    size_t max_bytes; // as in struct inspect_request, as are the others
    bool (*cancelled)(void *ctx);
    void *ctx;
};
// Fills q, k, v (where there are W), scores, weights, context, scale; *output: [T][n_heads * head size] heads side by side, times w_o where there
// is one; its data is the caller's to free().
bool inspect_matrices(const struct inspect_matrices *m, struct inspection *out, struct inspect_array *output, struct err *err) MUST_CHECK;
