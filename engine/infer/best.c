// SPDX-License-Identifier: MIT
// See best.h.
#include "engine/infer/best.h"

#include "base/mem.h"
#include "engine/infer/logit_row.h"

#include <string.h>

static bool comes_before(uint32_t id, float value, const struct top_logprob *than) {
    return value > than->logprob || (value == than->logprob && id < than->id);
}

void best_offer(struct best *b, uint32_t id, float value) {
    size_t at = b->n;
    while (at > 0 && comes_before(id, value, &b->top[at - 1])) at--;
    if (at == b->cap) return;
    if (b->n < b->cap) b->n++;
    memmove(&b->top[at + 1], &b->top[at], (b->n - 1 - at) * sizeof *b->top);
    b->top[at] = (struct top_logprob){.id = id, .logprob = value};
}

size_t row_best(const float *x, size_t n, const float *block_max, size_t n_top, struct top_logprob *top) {
    struct best b = {.cap = n_top, .top = top};
    if (n_top == 0) return 0;
    for (size_t block = 0, at = 0; at < n; block++, at += ROW_BLOCK) { // ids rise: what equals the last one comes too late
        if (b.n == b.cap && !(block_max[block] > top[b.n - 1].logprob)) continue;
        for (size_t i = at; i < MIN(at + ROW_BLOCK, n); i++)
            if (b.n < b.cap || x[i] > top[b.n - 1].logprob) best_offer(&b, (uint32_t)i, x[i]);
    }
    return b.n;
}
