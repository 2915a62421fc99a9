// SPDX-License-Identifier: MIT
// Spreads the panels of a linear layer over the pool. Which thread computes a panel changes no bit (kernels.h K1).
#include "engine/infer/linear.h"

#include "base/mem.h"

struct linear_job {
    const struct linear *l;
    const struct linear_rows *rows;
    const struct kernels *kernels;
    size_t panels_each;
};

// Panels [first, first + n) counted over all parts.
static void linear_range(const struct linear_job *job, size_t first, size_t n) {
    const struct linear_rows *r = job->rows;
    for (size_t i = 0; i < job->l->n_parts && n > 0; i++) {
        const struct linear_part *p = &job->l->parts[i];
        if (first >= p->w.n_panels) {
            first -= p->w.n_panels;
            continue;
        }
        size_t here = MIN(n, p->w.n_panels - first);
        job->kernels->matmul(&p->w, first, here, r->x, r->x_stride, r->n, r->y + p->column, r->y_stride);
        n -= here;
        first = 0;
    }
}

static void linear_task(void *ctx, size_t part) {
    const struct linear_job *job = ctx;
    linear_range(job, part * job->panels_each, job->panels_each);
}

void linear_forward(const struct linear *l, const struct linear_rows *rows, const struct kernels *kernels, struct pool *pool) {
    struct linear_job job = {l, rows, kernels, 0};
    size_t n_panels = 0, threads = pool_threads(pool);
    for (size_t i = 0; i < l->n_parts; i++) n_panels += l->parts[i].w.n_panels;
    // A few parts a thread even out a core that others are using; an even number of panels suits the one-row kernel.
    size_t n_parts = threads == 1 ? 1 : MIN(threads * 4, (n_panels + 1) / 2);
    job.panels_each = ((n_panels + n_parts - 1) / n_parts + 1) & ~(size_t)1;
    pool_run(pool, linear_task, &job, (n_panels + job.panels_each - 1) / job.panels_each);
}
