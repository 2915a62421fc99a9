// SPDX-License-Identifier: MIT
// Serving comes first: whether the trainer may run just now. A pure function of figures and time.
//
// While nothing is served it runs. While requests are served it gets a small share of every period, as one slice at its end, as long as the time
// between two tokens keeps to the target; without a target, or past it, nothing.
// Thread: the runner's.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { YIELD_TICK_MS = 25, YIELD_PERIOD_MS = 500, YIELD_WINDOW = 40 }; // the window: one second of ticks

struct yield_policy {
    unsigned share_percent; // of the time, while requests are served
    double target_ms;       // mean time between two tokens over the last second; 0: always give way
};
struct yield_figures {
    uint64_t now_ns;
    bool serving;    // anything runs or waits
    uint64_t steps;  // of the engine, ever: a running sequence gets a token a step
};
struct yield {
    struct yield_policy policy;
    uint64_t serving_since_ns; // 0: not serving
    struct yield_figures window[YIELD_WINDOW]; // of the looks since then, a ring
    size_t n_looks;
};

void yield_init(struct yield *y, const struct yield_policy *p);
bool yield_look(struct yield *y, const struct yield_figures *now); // may the trainer run until the next look?
