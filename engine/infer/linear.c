// SPDX-License-Identifier: MIT
// Spreads the panels of a linear layer over the pool. Which thread computes a panel changes no bit (kernels.h K1).
//
// With adapters: first every group's lower product x A^T, small and shared by all panels; then each panel task adds the upper product
// for its own columns, so that there is at most one more barrier.
#include "engine/infer/linear.h"

#include "base/mem.h"

struct linear_job {
    const struct linear *l;
    const struct linear_rows *rows;
    const struct kernels *kernels;
    size_t panels_each;
};

// ---- lower products ---------------------------------------------------------------------------------------------------

enum { LOW_ROWS = 16, LOW_RANKS = 32 }; // of one task
enum { LOW_ALONE = 1 << 15 };           // multiply-adds that are done before another thread has begun

static size_t ceil_div(size_t a, size_t b) { return (a + b - 1) / b; }

static size_t low_units(const struct row_group *g, const struct adapter_part *p) { return ceil_div(g->n, LOW_ROWS) * ceil_div(p->r, LOW_RANKS); }

static void low_unit(const struct linear_job *job, const struct row_group *g, const struct adapter_part *p, size_t unit) {
    const size_t row = unit / ceil_div(p->r, LOW_RANKS) * LOW_ROWS, rank = unit % ceil_div(p->r, LOW_RANKS) * LOW_RANKS;
    const size_t n_in = job->l->n_in;
    job->kernels->dots(p->a + rank * n_in, MIN(p->r - rank, (size_t)LOW_RANKS), n_in, job->rows->x + (g->first + row) * job->rows->x_stride,
                       job->rows->x_stride, MIN(g->n - row, (size_t)LOW_ROWS), g->low + row * g->adapter->rank + p->low + rank, g->adapter->rank);
}

static void low_task(void *ctx, size_t unit) {
    const struct linear_job *job = ctx;
    for (size_t i = 0; i < job->rows->n_groups; i++)
        for (size_t k = 0; k < job->l->n_parts; k++) {
            const struct row_group *g = &job->rows->groups[i];
            const size_t n = low_units(g, &g->adapter->parts[k]);
            if (unit < n) {
                low_unit(job, g, &g->adapter->parts[k], unit);
                return;
            }
            unit -= n;
        }
}

static void low_products(struct linear_job *job, struct pool *pool) {
    size_t n = 0, work = 0;
    for (size_t i = 0; i < job->rows->n_groups; i++) {
        const struct row_group *g = &job->rows->groups[i];
        for (size_t k = 0; k < job->l->n_parts; k++) n += low_units(g, &g->adapter->parts[k]);
        work += g->n * g->adapter->rank * job->l->n_in;
    }
    if (n > 0) pool_run(work < LOW_ALONE ? NULL : pool, low_task, job, n);
}

// ---- panels -------------------------------------------------------------------------------------------------------------

enum { DELTA_ROWS = 16, DELTA_PANELS = 4 };

// y += low B^T for the columns of panels [panel, panel + n) of a part.
static void delta_add(const struct linear_job *job, const struct row_group *g, size_t part, size_t panel, size_t n) {
    const struct adapter_part *p = &g->adapter->parts[part];
    const size_t rank = g->adapter->rank, stride = job->rows->y_stride;
    float delta[DELTA_ROWS * DELTA_PANELS * PANEL]; // [rows][panels][PANEL]
    for (size_t end = panel + n; panel < end; panel += DELTA_PANELS) {
        struct packed b = p->b; // what is left of it
        b.data += panel * b.panel_bytes;
        b.n_out -= panel * PANEL;
        const size_t panels = MIN(end - panel, (size_t)DELTA_PANELS), width = MIN(panels * PANEL, b.n_out);
        for (size_t row = 0; row < g->n; row += DELTA_ROWS) {
            const size_t rows = MIN(g->n - row, (size_t)DELTA_ROWS);
            float *y = job->rows->y + (g->first + row) * stride + job->l->parts[part].column + panel * PANEL;
            job->kernels->matmul(&b, 0, panels, g->low + row * rank + p->low, rank, rows, delta, DELTA_PANELS * PANEL);
            for (size_t r = 0; r < rows; r++) job->kernels->add(y + r * stride, delta + r * DELTA_PANELS * PANEL, width);
        }
    }
}

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
        for (size_t k = 0; k < r->n_groups; k++)
            if (r->groups[k].adapter->parts[i].r) delta_add(job, &r->groups[k], i, first, here);
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
    low_products(&job, pool);
    for (size_t i = 0; i < l->n_parts; i++) n_panels += l->parts[i].w.n_panels;
    // A few parts a thread even out a core that others are using; an even number of panels suits the one-row kernel.
    size_t n_parts = threads == 1 ? 1 : MIN(threads * 4, (n_panels + 1) / 2);
    job.panels_each = ((n_panels + n_parts - 1) / n_parts + 1) & ~(size_t)1;
    pool_run(pool, linear_task, &job, (n_panels + job.panels_each - 1) / job.panels_each);
}
