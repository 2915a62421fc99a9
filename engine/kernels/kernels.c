// SPDX-License-Identifier: MIT
// Which table is in force: decided once, from CPUID or COUPLET_ISA.
#include "engine/kernels/kernels.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>

extern const struct kernels kernels_avx2, kernels_avx512;

static bool cpu_has_f16c(void) { // clang 14's __builtin_cpu_supports does not know this one
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
static bool cpu_has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && cpu_has_f16c();
}
static bool cpu_has_avx512(void) {
    return cpu_has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

static bool cpu_has_c(void) { return true; }

// Best first.
static const struct {
    const struct kernels *kernels;
    bool (*supported)(void);
} tables[] = {
#if defined(__x86_64__)
    {&kernels_avx512, cpu_has_avx512},
    {&kernels_avx2, cpu_has_avx2},
#endif
    {&kernels_c, cpu_has_c},
};
enum { N_TABLES = sizeof tables / sizeof tables[0] };

const struct kernels *kernels_by_name(const char *name, struct err *err) {
    for (size_t i = 0; i < N_TABLES; i++) {
        if (strcmp(tables[i].kernels->name, name) != 0) continue;
        if (tables[i].supported()) return tables[i].kernels;
        err_set(err, ERR_UNSUPPORTED, "this processor lacks the instruction set \"%s\"", name);
        return NULL;
    }
    err_set(err, ERR_UNSUPPORTED, "unknown instruction set \"%s\" (c, avx2 or avx512)", name);
    return NULL;
}

static const struct kernels *chosen;
static struct err choice_error;

static void choose(void) {
    const char *forced = getenv("COUPLET_ISA");
    if (forced && *forced) {
        chosen = kernels_by_name(forced, &choice_error);
        err_prefix(&choice_error, "COUPLET_ISA");
        return;
    }
    for (size_t i = 0; !chosen; i++)
        if (tables[i].supported()) chosen = tables[i].kernels;
}

const struct kernels *kernels_get(struct err *err) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, choose);
    if (!chosen && err) *err = choice_error;
    return chosen;
}
