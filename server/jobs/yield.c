// SPDX-License-Identifier: MIT
// See yield.h.
#include "server/jobs/yield.h"

void yield_init(struct yield *y, const struct yield_policy *p) { *y = (struct yield){.policy = *p}; }

// Over the last second, or since serving began where that is less.
static double mean_token_ms(const struct yield *y, const struct yield_figures *now) {
    const size_t back = y->n_looks < YIELD_WINDOW ? 0 : y->n_looks % YIELD_WINDOW; // the oldest one kept
    const struct yield_figures *then = &y->window[back];
    const uint64_t steps = now->steps - then->steps;
    return steps ? (double)(now->now_ns - then->now_ns) / 1e6 / (double)steps : 0;
}

bool yield_look(struct yield *y, const struct yield_figures *now) {
    const struct yield_policy *p = &y->policy;
    if (!now->serving) {
        y->serving_since_ns = 0;
        y->n_looks = 0;
        return true;
    }
    if (!y->serving_since_ns) y->serving_since_ns = now->now_ns;
    const double mean = y->n_looks ? mean_token_ms(y, now) : 0;
    y->window[y->n_looks++ % YIELD_WINDOW] = *now;
    if (p->target_ms <= 0 || mean > p->target_ms) return false;
    const uint64_t into_ms = (now->now_ns - y->serving_since_ns) / 1000000 % YIELD_PERIOD_MS;
    return into_ms >= (uint64_t)YIELD_PERIOD_MS * (100 - p->share_percent) / 100;
}
