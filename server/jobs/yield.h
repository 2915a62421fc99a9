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
    size_t running, waiting; // sequences
    uint64_t tokens;         // generated, ever
};
struct yield {
    struct yield_policy policy;
    uint64_t serving_since_ns; // 0: not serving
    struct yield_look {
        uint64_t now_ns, tokens;
        double sequence_ms; // time spent by all running sequences together, since serving began
    } window[YIELD_WINDOW]; // a ring
    size_t n_looks; // since serving began
};

void yield_init(struct yield *y, const struct yield_policy *p);
bool yield_look(struct yield *y, const struct yield_figures *now); // may the trainer run until the next look?
