// SPDX-License-Identifier: MIT
// The monotonic clock, in nanoseconds. For measuring; nothing that must be reproducible reads it.
#pragma once

#include <stdint.h>
#include <time.h>

static inline uint64_t clock_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
