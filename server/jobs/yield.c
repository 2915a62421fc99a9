// SPDX-License-Identifier: MIT
// See yield.h.
#include "server/jobs/yield.h"

void yield_init(struct yield *y, const struct yield_policy *p) { *y = (struct yield){.policy = *p}; }

// Of a running sequence, whatever runs beside it: over the last second, or since serving began where that is less.
static double mean_token_ms(const struct yield *y, const struct yield_look *now) {
    const struct yield_look *then = &y->window[y->n_looks < YIELD_WINDOW ? 0 : y->n_looks % YIELD_WINDOW]; // the oldest one kept
    const uint64_t tokens = now->tokens - then->tokens;
    return (now->sequence_ms - then->sequence_ms) / (double)(tokens ? tokens : 1);
}

bool yield_look(struct yield *y, const struct yield_figures *f) {
    const struct yield_policy *p = &y->policy;
    struct yield_look now = {.now_ns = f->now_ns, .tokens = f->tokens};
    if (f->running + f->waiting == 0) {
        y->serving_since_ns = 0;
        y->n_looks = 0;
        return true;
    }
    if (y->n_looks) {
        const struct yield_look *last = &y->window[(y->n_looks - 1) % YIELD_WINDOW];
        now.sequence_ms = last->sequence_ms + (double)f->running * (double)(now.now_ns - last->now_ns) / 1e6;
    } else {
        y->serving_since_ns = now.now_ns;
    }
    const double mean = y->n_looks ? mean_token_ms(y, &now) : 0;
    y->window[y->n_looks++ % YIELD_WINDOW] = now;
    if (p->target_ms <= 0 || mean > p->target_ms) return false;
    const uint64_t into_ms = (now.now_ns - y->serving_since_ns) / 1000000 % YIELD_PERIOD_MS;
    return into_ms >= (uint64_t)YIELD_PERIOD_MS * (100 - p->share_percent) / 100;
}
