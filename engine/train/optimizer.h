// SPDX-License-Identifier: MIT
// AdamW (Loshchilov & Hutter 2019; PyTorch's formula) and SGD over params' trained block, with clipping by global norm; learning-rate schedules.
// Moments are flat blocks with the layout of params.trained. Results do not depend on the thread count. Thread: the trainer's.
#pragma once

#include "base/pool.h"
#include "engine/kernels/train_kernels.h"
#include "engine/train/params.h"

enum optimizer_kind { OPTIMIZER_ADAMW, OPTIMIZER_SGD };
struct optimizer_config {
    enum optimizer_kind kind;
    float beta1, beta2, eps; // SGD: beta1 is the momentum, as PyTorch's without dampening or Nesterov
    float weight_decay;      // decoupled for both: p *= 1 - lr * weight_decay before the step, where param.decay
    float clip;              // global norm; 0: none. Factor clip / (norm + 1e-6) when norm > clip
};
struct optimizer {
    struct optimizer_config config;
    struct params *params; // borrowed, as pool
    float *m, *v;          // [params.n_trained]; SGD: v NULL, m too where the momentum is 0
    uint64_t steps;        // taken so far
    struct pool *pool;
    const struct train_kernels *kernels;
    struct optimizer_piece *pieces; // of the trained block: equal decay, at most OPTIMIZER_CHUNK floats
    size_t n_pieces;
    double *sums; // scratch of optimizer_grad_norm, one a chunk
};
enum { OPTIMIZER_CHUNK = 1 << 16 }; // floats a part of the pool's work: fixed, so that sums are

bool optimizer_init(struct optimizer *o, const struct optimizer_config *c, struct params *p, struct pool *pool, struct err *err) MUST_CHECK;
void optimizer_finish(struct optimizer *o);                // accepts a zeroed one
double optimizer_grad_norm(const struct optimizer *o);     // global norm of params.grads; NaN or inf where a gradient is not finite
bool optimizer_weights_finite(const struct optimizer *o);  // of params.trained
// One update with the gradients as they stand; `norm` from optimizer_grad_norm, finite.
void optimizer_step(struct optimizer *o, double lr, double norm);

// Warm-up is linear: lr * step / warmup. Then the share of the way to `total` that lies behind the update falls off linearly or along a
// cosine to min_lr: without warm-up the first update has lr, the last one still a step above min_lr (as transformers' schedules).
enum schedule_kind { SCHEDULE_CONSTANT, SCHEDULE_LINEAR, SCHEDULE_COSINE };
struct schedule {
    enum schedule_kind kind;
    double lr, min_lr;
    uint64_t warmup, total; // updates
};
double schedule_rate(const struct schedule *s, uint64_t step); // step counts from 1
