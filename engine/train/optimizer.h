// SPDX-License-Identifier: MIT
// AdamW (Loshchilov & Hutter 2019; PyTorch's formula) and SGD over params' trained block, with clipping by global norm; learning-rate schedules.
// Moments are flat blocks with the layout of params.trained. Results do not depend on the thread count. Thread: the trainer's.
#pragma once

#include "base/pool.h"
#include "engine/train/params.h"

enum optimizer_kind { OPTIMIZER_ADAMW, OPTIMIZER_SGD };
struct optimizer_config {
    enum optimizer_kind kind;
    float beta1, beta2, eps; // SGD: beta1 is the momentum
    float weight_decay;
    float clip; // global norm; 0: none. Factor clip / (norm + 1e-6) when norm > clip
};
struct optimizer {
    struct optimizer_config config;
    struct params *params;
    float *m, *v;   // [params.n_trained]; v NULL for SGD, m too where momentum is 0
    uint64_t steps; // taken so far
    struct pool *pool;
};
bool optimizer_init(struct optimizer *o, const struct optimizer_config *c, struct params *p, struct pool *pool, struct err *err) MUST_CHECK;
void optimizer_finish(struct optimizer *o);
double optimizer_grad_norm(const struct optimizer *o); // global norm of params.grads; NaN or inf where a gradient is not finite
// One update with the gradients as they stand; `norm` from optimizer_grad_norm.
void optimizer_step(struct optimizer *o, double lr, double norm);

enum schedule_kind { SCHEDULE_CONSTANT, SCHEDULE_LINEAR, SCHEDULE_COSINE };
struct schedule {
    enum schedule_kind kind;
    double lr, min_lr;
    uint64_t warmup, total; // updates
};
double schedule_rate(const struct schedule *s, uint64_t step); // step counts from 1; warm-up is linear, lr * step / warmup
