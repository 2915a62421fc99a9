// SPDX-License-Identifier: MIT
// See gemm.h. Every tile is one single-threaded cblas_sgemm. OpenBLAS packs both operands anew for each tile, so tiles are long strips: a
// partition costs rows_parts * n + column_parts * m elements of packing for every k. k is never split.
#include "engine/train/gemm.h"

#include "base/mem.h"

#include <cblas.h>
#include <string.h>
#include <strings.h>

enum {
    MAX_PARTS = 8, MAX_PARTS_HUGE = 16, // shared out evenly among 2, 4 or 8 threads; from HUGE_WORK on among 16
    PART_WORK = 3 << 18,                // multiply-adds worth a part of their own; up to 10^6 OpenBLAS has kernels that pack nothing
    STRIP_COLUMNS = 192,                // narrower strips lose more to packing than the second thread gives back
    STRIP_ROWS = 128,                   // (measured with SkylakeX's kernels, two threads)
    LONG_SIDE = 512,                    // what a strip's other side may be cut into
    EDGE = 16,                          // cuts lie on the kernels' own blocks
};
#define HUGE_WORK ((size_t)1 << 31)

void gemm_part(const struct gemm *g) {
    float beta = g->beta_one ? 1.0f : 0.0f;
    if (g->bias && !g->beta_one) {
        for (size_t i = 0; i < g->m; i++) memcpy(g->c + i * g->ldc, g->bias, g->n * sizeof *g->c);
        beta = 1.0f;
    }
    cblas_sgemm(CblasRowMajor, g->trans_a ? CblasTrans : CblasNoTrans, g->trans_b ? CblasTrans : CblasNoTrans, (blasint)g->m,
                (blasint)g->n, (blasint)g->k, g->alpha, g->a, (blasint)g->lda, g->b, (blasint)g->ldb, beta, g->c, (blasint)g->ldc);
}

struct partition {
    const struct gemm *g;
    size_t rows, columns; // parts along m and n
};

// Strips across the first of two sides, the other cut only where it is long.
static void cut(size_t first, size_t first_strip, size_t second, size_t limit, size_t *first_parts, size_t *second_parts) {
    *first_parts = MAX(MIN(first / first_strip, limit), (size_t)1);
    *second_parts = MAX(MIN(second / LONG_SIDE, limit / *first_parts), (size_t)1);
}

static struct partition partition_of(const struct gemm *g) {
    size_t work = g->m * g->n * g->k, limit = MIN(work / PART_WORK, (size_t)(work < HUGE_WORK ? MAX_PARTS : MAX_PARTS_HUGE));
    struct partition by_column = {.g = g}, by_row = {.g = g};
    cut(g->n, STRIP_COLUMNS, g->m, limit, &by_column.columns, &by_column.rows);
    cut(g->m, STRIP_ROWS, g->n, limit, &by_row.rows, &by_row.columns);
    // The cheaper packing; but one part only where neither way gives two.
    if (by_column.rows * by_column.columns == 1) return by_row;
    if (by_row.rows * by_row.columns == 1) return by_column;
    return by_column.rows * g->n + by_column.columns * g->m <= by_row.rows * g->n + by_row.columns * g->m ? by_column : by_row;
}

// Where part i of n along a side begins.
static size_t cut_at(size_t side, size_t i, size_t n) { return i == n ? side : side * i / n / EDGE * EDGE; }

static void gemm_tile(void *ctx, size_t part) {
    const struct partition *p = ctx;
    struct gemm g = *p->g;
    size_t row = cut_at(g.m, part % p->rows, p->rows), column = cut_at(g.n, part / p->rows, p->columns);
    g.m = cut_at(g.m, part % p->rows + 1, p->rows) - row;
    g.n = cut_at(g.n, part / p->rows + 1, p->columns) - column;
    g.a += g.trans_a ? row : row * g.lda;
    g.b += g.trans_b ? column * g.ldb : column;
    g.c += row * g.ldc + column;
    if (g.bias) g.bias += column;
    gemm_part(&g);
}

void gemm_run(const struct gemm *g, struct pool *pool) {
    struct partition p = partition_of(g);
    pool_run(pool, gemm_tile, &p, p.rows * p.columns);
}

const char *gemm_start(void) {
    openblas_set_num_threads(1);
    return openblas_get_corename();
}

// The cores of OpenBLAS 0.3 for x86-64 by what their sgemm uses.
static const char *const avx512_cores[] = {"SkylakeX", "Cooperlake", "SapphireRapids"};
static const char *const avx2_cores[] = {"Haswell", "Zen", "Excavator"}; // Excavator's own kernels are FMA ones

static bool is_among(const char *name, const char *const *names, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (strcasecmp(name, names[i]) == 0) return true;
    return false;
}

const char *gemm_core_for(const char *core, bool has_avx2, bool has_avx512) {
    if (is_among(core, avx512_cores, ARRAY_LEN(avx512_cores))) return NULL;
    if (has_avx512) return "SkylakeX";
    if (is_among(core, avx2_cores, ARRAY_LEN(avx2_cores))) return NULL;
    return has_avx2 ? "Haswell" : NULL;
}

const char *gemm_better_core(void) {
#if defined(__x86_64__)
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                  __builtin_cpu_supports("avx512vl");
    return gemm_core_for(openblas_get_corename(), avx2, avx512);
#else
    return NULL;
#endif
}
