// SPDX-License-Identifier: MIT
// Fork-join thread pool for kernels: one caller, n threads, short tasks (microseconds to milliseconds).
//
// pool_run calls fn(ctx, part, n_parts... ) for part = 0..n_parts-1, each once, on the caller and the workers, and returns when all
// are done; parts are handed out in order by an atomic counter, so results must not depend on which thread ran which part.
// One pool_run at a time a pool (asserted). Workers spin a short while for the next task, then sleep on a futex/condvar.
#pragma once

#include "base/err.h"

struct pool;

typedef void pool_fn(void *ctx, size_t part);

// n_threads counts the caller: 1 creates no thread. Never NULL but on ERR_NO_MEMORY / refused thread creation.
struct pool *pool_create(size_t n_threads, struct err *err) MUST_CHECK;
void pool_destroy(struct pool *p); // accepts NULL
void pool_run(struct pool *p, pool_fn *fn, void *ctx, size_t n_parts); // p may be NULL: runs on the caller alone
size_t pool_threads(const struct pool *p); // 1 for NULL
size_t pool_cpu_count(void);               // processors this process may use (affinity mask, cgroup 2 quota rounded up), at least 1
// Index of the calling thread inside the pool_run in progress: 0 = caller, 1.. = workers; always < pool_threads. For scratch memory.
size_t pool_self(void);
