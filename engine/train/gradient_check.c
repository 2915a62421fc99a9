// SPDX-License-Identifier: MIT
// The analytic gradient held against differences of the loss.
//
// The numeric side takes four points, (8 (f(h) - f(-h)) - (f(2h) - f(-2h))) / 12h, whose error falls with h^4: h may be a tenth of what
// a parameter's weights are in the mean, large enough for a loss in f32. Such a loss is rounded by up to NOISE of itself, which leaves
// the difference uncertain by NOISE * loss / h. Beyond that and TOLERANCE of the array's gradient, or the element's own, a check has failed.
#include "engine/train/network_internal.h"

#include "base/mem.h"
#include "base/rng.h"

#include <math.h>
#include <stdio.h>

#define TOLERANCE 0.02
#define NOISE 3e-7

static double rms(const float *x, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)x[i] * x[i];
    return sqrt(sum / (double)n);
}

static double mean_of(const struct loss_sums *s) { return s->loss / (double)MAX(s->n_targets, (size_t)1); }

// The loss with *w moved by `by`.
static double loss_at(struct network *n, const struct batch *b, float *w, float by) {
    struct loss_sums sums;
    float kept = *w;
    *w = kept + by;
    network_evaluate(n, b, &sums, NULL);
    *w = kept;
    return mean_of(&sums);
}

static void element_check(struct network *n, const struct batch *b, const struct param *p, size_t i, double loss, double typical, float h,
                          struct gradient_check *out) {
    double near = loss_at(n, b, p->w + i, h) - loss_at(n, b, p->w + i, -h);
    double far = loss_at(n, b, p->w + i, 2 * h) - loss_at(n, b, p->w + i, -2 * h);
    double numeric = (8 * near - far) / (12 * (double)h), error = fabs(numeric - (double)p->grad[i]);
    double allowed = TOLERANCE * MAX(typical, fabs((double)p->grad[i])) + NOISE * loss / (double)h;
    out->n_checked++;
    out->n_failed += !(error <= allowed);
    if (error / typical <= out->worst_error) return;
    out->worst_error = error / typical;
    snprintf(out->worst, sizeof out->worst, "%s", p->name);
}

void network_check_gradients(struct network *n, const struct batch *b, size_t per_param, uint64_t seed, struct gradient_check *out) {
    struct network_config c = n->c;
    struct loss_sums sums;
    *out = (struct gradient_check){0};
    n->c.dropout_embedding = n->c.dropout_attention = n->c.dropout_residual = n->c.dropout_lora = 0;
    network_train(n, b, 1.0f / (float)MAX(b->n_supervised, (size_t)1), true, 0, &sums);
    const double loss = mean_of(&sums);
    for (size_t k = 0; k < n->p->n_items; k++) {
        const struct param *p = &n->p->items[k];
        if (!p->grad) continue;
        double typical = MAX(rms(p->grad, p->n), 1e-6);
        float h = (float)fmin(fmax(rms(p->w, p->n) / 10, 2e-3), 5e-2);
        for (size_t i = 0; i < per_param; i++)
            element_check(n, b, p, (size_t)(rng_uniform(seed, k * per_param + i) * (double)p->n), loss, typical, h, out);
    }
    n->c = c;
}
