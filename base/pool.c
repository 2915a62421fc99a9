// SPDX-License-Identifier: MIT
// Fork-join pool. pool_run belongs to one thread at a time; workers belong to the pool.
//
// The run is one 64-bit word, `ticket`: the number of parts in the high half, the next part in the low half. A thread
// takes a part by adding 1 and learns both from the same word. Hence:
//  1. Whoever got part < n_parts keeps the run open until it adds to `done`; so fn and ctx stand still while they are read.
//  2. Whoever got part >= n_parts touches nothing: a worker may be late by any number of runs and nobody waits for it. So
//     with more threads than processors a run costs no more than the parts that were really taken.
//  3. The low half overshoots n_parts by at most one a thread, which cannot carry: n_parts is at most 2^31.
// Sleeping uses futexes with the usual pair of checks, sequentially consistent: the sleeper announces itself, then
// looks at the word once more; the waker changes the word, then looks for sleepers.
#include "base/pool.h"
#include "base/clock.h"
#include "base/mem.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CACHE_LINE 64
#define POOL_THREADS_MAX 1024
#define SPIN_NS 40000        // a decode step's gap between two kernels is shorter
#define SPIN_CROWDED_NS 2000 // more threads than processors: what a spinner burns, a worker lacks

struct pool_worker {
    struct pool *pool;
    pthread_t thread;
    size_t index;
};

struct pool {
    // Written by the caller between runs only (invariant 1).
    pool_fn *fn;
    void *ctx;
    size_t n_threads;
    int64_t spin_ns;
    struct pool_worker *workers; // n_threads - 1
    atomic_bool running, stop;

    _Alignas(CACHE_LINE) _Atomic uint64_t ticket;
    _Alignas(CACHE_LINE) _Atomic uint32_t epoch; // changes when there is news for the workers; they sleep on it
    _Atomic uint32_t sleepers;
    _Alignas(CACHE_LINE) _Atomic uint32_t done; // parts that workers finished in this run; the caller sleeps on it
    _Atomic uint32_t caller_sleeps;
};

static _Thread_local size_t pool_thread_index;

static inline void cpu_relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb" ::: "memory");
#endif
}

static void futex_wait(_Atomic uint32_t *word, uint32_t seen) {
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0); // EAGAIN, EINTR: the caller looks again
}

static void futex_wake(_Atomic uint32_t *word, size_t n) {
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, (int)MIN(n, (size_t)INT_MAX), NULL, NULL, 0);
}

// Spins until *word is no longer `seen`; false when spin_ns went by. Yields now and then: whoever is to change the word
// may be waiting for this very processor.
static bool spin_while(_Atomic uint32_t *word, uint32_t seen, int64_t spin_ns) {
    int64_t end = 0;
    for (;;) {
        for (int i = 0; i < 32; i++) {
            if (atomic_load_explicit(word, memory_order_acquire) != seen) return true;
            cpu_relax();
        }
        int64_t now = (int64_t)clock_ns();
        if (end == 0) end = now + spin_ns;
        else if (now >= end) return false;
        else if (end - now < spin_ns / 2) sched_yield();
    }
}

// Runs parts until none is left; returns how many this thread ran.
static uint32_t pool_take_parts(struct pool *p) {
    uint32_t n = 0;
    for (;;) {
        // Look before adding, so that late workers leave the word alone.
        uint64_t t = atomic_load_explicit(&p->ticket, memory_order_relaxed);
        if ((uint32_t)t >= t >> 32) return n;
        t = atomic_fetch_add_explicit(&p->ticket, 1, memory_order_acquire);
        if ((uint32_t)t >= t >> 32) return n;
        p->fn(p->ctx, (uint32_t)t);
        n++;
    }
}

static void *pool_worker_main(void *arg) {
    struct pool_worker *w = arg;
    struct pool *p = w->pool;
    pool_thread_index = w->index;
    for (;;) {
        uint32_t epoch = atomic_load(&p->epoch);
        if (atomic_load(&p->stop)) return NULL;
        uint32_t n = pool_take_parts(p);
        if (n) {
            atomic_fetch_add(&p->done, n);
            if (atomic_load(&p->caller_sleeps)) futex_wake(&p->done, 1);
        }
        if (spin_while(&p->epoch, epoch, p->spin_ns)) continue;
        atomic_fetch_add(&p->sleepers, 1);
        if (atomic_load(&p->epoch) == epoch) futex_wait(&p->epoch, epoch);
        atomic_fetch_sub(&p->sleepers, 1);
    }
}

static void pool_notify(struct pool *p, size_t n) {
    atomic_fetch_add(&p->epoch, 1);
    if (atomic_load(&p->sleepers)) futex_wake(&p->epoch, n);
}

static void pool_wait(struct pool *p, uint32_t target) {
    for (;;) {
        uint32_t done = atomic_load_explicit(&p->done, memory_order_acquire);
        if (done == target) return;
        if (spin_while(&p->done, done, p->spin_ns)) continue;
        atomic_store(&p->caller_sleeps, 1);
        if (atomic_load(&p->done) == done) futex_wait(&p->done, done);
        atomic_store(&p->caller_sleeps, 0);
    }
}

void pool_run(struct pool *p, pool_fn *fn, void *ctx, size_t n_parts) {
    size_t index = pool_thread_index;
    pool_thread_index = 0; // the caller may itself be another pool's worker
    if (!p || p->n_threads == 1 || n_parts <= 1) {
        for (size_t part = 0; part < n_parts; part++) fn(ctx, part);
        pool_thread_index = index;
        return;
    }
    assert(n_parts <= (size_t)1 << 31);
    bool was_running = atomic_exchange(&p->running, true);
    assert(!was_running);
    (void)was_running;
    p->fn = fn;
    p->ctx = ctx;
    atomic_store_explicit(&p->done, 0, memory_order_relaxed);
    atomic_store_explicit(&p->ticket, (uint64_t)n_parts << 32, memory_order_release);
    pool_notify(p, MIN(n_parts, p->n_threads) - 1);
    uint32_t own = pool_take_parts(p);
    pool_wait(p, (uint32_t)n_parts - own);
    atomic_store(&p->running, false);
    pool_thread_index = index;
}

// Starts worker i with every signal blocked: signals are the program's business, not a kernel thread's.
static int worker_start(struct pool *p, size_t i) {
    struct pool_worker *w = &p->workers[i];
    *w = (struct pool_worker){.pool = p, .index = i + 1};
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int number = pthread_create(&w->thread, NULL, pool_worker_main, w);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return number;
}

// Stops and joins the first n workers.
static void workers_stop(struct pool *p, size_t n) {
    atomic_store(&p->stop, true);
    pool_notify(p, INT_MAX);
    for (size_t i = 0; i < n; i++) pthread_join(p->workers[i].thread, NULL);
}

struct pool *pool_create(size_t n_threads, struct err *err) {
    n_threads = MAX(n_threads, 1);
    if (n_threads > POOL_THREADS_MAX) {
        err_set(err, ERR_TOO_LARGE, "%zu threads: at most %d are supported", n_threads, POOL_THREADS_MAX);
        return NULL;
    }
    struct pool *p = aligned_alloc(CACHE_LINE, sizeof *p);
    if (!p) {
        err_set(err, ERR_NO_MEMORY, "thread pool: not enough memory");
        return NULL;
    }
    memset(p, 0, sizeof *p);
    p->n_threads = n_threads;
    p->spin_ns = n_threads > pool_cpu_count() ? SPIN_CROWDED_NS : SPIN_NS;
    p->workers = mem_alloc(n_threads, sizeof *p->workers);
    for (size_t i = 0; i + 1 < n_threads; i++) {
        int number = worker_start(p, i);
        if (number == 0) continue;
        err_set(err, number == ENOMEM ? ERR_NO_MEMORY : ERR_IO, "cannot start thread %zu of %zu: %s", i + 2, n_threads,
                strerror(number));
        workers_stop(p, i);
        p->n_threads = 1;
        pool_destroy(p);
        return NULL;
    }
    return p;
}

void pool_destroy(struct pool *p) {
    if (!p) return;
    assert(!atomic_load(&p->running));
    workers_stop(p, p->n_threads - 1);
    free(p->workers);
    free(p);
}

size_t pool_threads(const struct pool *p) {
    return p ? p->n_threads : 1;
}

size_t pool_self(void) {
    return pool_thread_index;
}

static size_t affinity_count(void) {
    for (int n = 1024; n <= 1 << 16; n *= 4) { // the kernel refuses a mask shorter than its own
        cpu_set_t *set = CPU_ALLOC((size_t)n);
        if (!set) break;
        size_t bytes = CPU_ALLOC_SIZE((size_t)n);
        int count = sched_getaffinity(0, bytes, set) == 0 ? CPU_COUNT_S(bytes, set) : 0;
        CPU_FREE(set);
        if (count > 0) return (size_t)count;
    }
    return 1;
}

// A container limited to two of 64 processors sees all 64 in its mask; 64 spinning threads then spend the quota in a
// few milliseconds of each period and stand still for the rest.
static size_t quota_count(void) {
    char text[64] = "";
    int fd = open("/sys/fs/cgroup/cpu.max", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return SIZE_MAX;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    unsigned long long quota, period; // "max 100000" when unlimited
    if (n <= 0 || sscanf(text, "%llu %llu", &quota, &period) != 2 || period == 0) return SIZE_MAX;
    return (size_t)MAX((quota + period - 1) / period, 1);
}

size_t pool_cpu_count(void) {
    return MIN(affinity_count(), quota_count());
}
