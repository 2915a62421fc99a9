// SPDX-License-Identifier: MIT
// Final norm, head and cross-entropy over the supervised rows alone, LOSS_ROWS at a time: there is no array of all logits.
#include "engine/train/network_internal.h"

#include "base/clock.h"
#include "base/mem.h"

#include <string.h>

void network_supervise(struct network *n) {
    n->n_supervised = 0;
    for (size_t r = 0; r < n->b->n_rows; r++)
        if (n->b->targets[r] >= 0) n->supervised[n->n_supervised++] = (uint32_t)r;
}

struct chunk {
    const uint32_t *rows; // of the batch
    size_t n, first;      // rows[0] is supervised row `first`
    float scale;
    bool backward;
};

static const float *final_x(const struct network *n, uint32_t row) { return n->layers[n->L].x + row * n->C; }

static void final_norm_block(struct network *n, const void *ctx, size_t first, size_t end, float *partial) {
    const uint32_t *rows = ctx;
    for (size_t i = first; i < end; i++) norm_row(n, n->hidden + i * n->C, final_x(n, rows[i]), n->p->norm_w, n->p->norm_b);
}

void network_head(struct network *n, const uint32_t *rows, size_t n_rows, float *out, size_t stride) {
    for_blocks(n, final_norm_block, rows, n_rows, 0);                                      // hidden [n_rows][C]
    gemm_run(&(struct gemm){.trans_b = true, .m = n_rows, .n = n->V, .k = n->C, .alpha = 1, .a = n->hidden, .lda = n->C,
                            .b = n->p->head->w, .ldb = n->C, .c = out, .ldc = stride}, n->pool); // out [n_rows][V]
}

struct entropy_job {
    struct network *n;
    const struct chunk *c;
};

static void entropy_part(void *ctx, size_t i) { // one row
    const struct entropy_job *j = ctx;
    struct network *n = j->n;
    size_t target = (size_t)n->b->targets[j->c->rows[i]], likeliest;
    n->losses[j->c->first + i] = n->train->cross_entropy(n->logits + i * n->vocab_stride, n->V, target, j->c->scale, j->c->backward, &likeliest);
    n->correct[j->c->first + i] = likeliest == target;
}

static void final_norm_backward_block(struct network *n, const void *ctx, size_t first, size_t end, float *partial) {
    const uint32_t *rows = ctx;
    bool w = param_trained(n->p->norm_w), b = param_trained(n->p->norm_b);
    for (size_t i = first; i < end; i++)
        norm_row_backward(n, n->dx + rows[i] * n->C, w ? partial : NULL, b ? partial + n->C : NULL, n->hidden + i * n->C, final_x(n, rows[i]),
                          n->p->norm_w);
}

// logits holds dlogits, hidden the final norm's output.
static void head_backward(struct network *n, const struct chunk *c) {
    bool fresh = n->fresh && c->first == 0;
    const struct param *head = n->p->head;
    if (param_trained(head)) // dW = dlogits^T hidden
        gemm_run(&(struct gemm){.trans_a = true, .beta_one = !fresh, .m = n->V, .n = n->C, .k = c->n, .alpha = 1, .a = n->logits,
                                .lda = n->vocab_stride, .b = n->hidden, .ldb = n->C, .c = head->grad, .ldc = n->C}, n->pool);
    if (n->lowest == n->L && !n->stem_trained && !param_trained(n->p->norm_w)) return;
    gemm_run(&(struct gemm){.m = c->n, .n = n->C, .k = n->V, .alpha = 1, .a = n->logits, .lda = n->vocab_stride, .b = head->w, .ldb = n->C,
                            .c = n->hidden, .ldc = n->C}, n->pool);                        // hidden: its gradient
    for_blocks(n, final_norm_backward_block, c->rows, c->n, 2 * n->C);                     // dx of those rows
    blocks_reduce(n, n->p->norm_w, c->n, 0, fresh);
    blocks_reduce(n, n->p->norm_b, c->n, n->C, fresh);
}

void network_loss(struct network *n, bool backward, float grad_scale, struct loss_sums *out) {
    uint64_t at = clock_ns();
    if (backward) memset(n->dx, 0, n->b->n_rows * n->C * sizeof *n->dx);
    for (size_t first = 0; first < n->n_supervised; first += LOSS_ROWS) {
        struct chunk c = {n->supervised + first, MIN((size_t)LOSS_ROWS, n->n_supervised - first), first, grad_scale, backward};
        struct entropy_job job = {n, &c};
        network_head(n, c.rows, c.n, n->logits, n->vocab_stride);
        pool_run(n->pool, entropy_part, &job, c.n);
        if (backward) head_backward(n, &c);
    }
    for (size_t i = 0; i < n->n_supervised; i++) {
        out->loss += n->losses[i];
        out->n_correct += n->correct[i];
    }
    out->n_targets = n->n_supervised;
    time_add(&n->times.head_loss_ms, &at);
}
