// SPDX-License-Identifier: MIT
// See gemm.h.
#include "engine/train/gemm.h"

#include <cblas.h>

void gemm_part(const struct gemm *g) {
    float beta = g->beta_one ? 1.0f : 0.0f;
    if (g->bias) {
        for (size_t i = 0; i < g->m; i++)
            for (size_t j = 0; j < g->n; j++) g->c[i * g->ldc + j] = g->bias[j];
        beta = 1.0f;
    }
    cblas_sgemm(CblasRowMajor, g->trans_a ? CblasTrans : CblasNoTrans, g->trans_b ? CblasTrans : CblasNoTrans, (blasint)g->m,
                (blasint)g->n, (blasint)g->k, g->alpha, g->a, (blasint)g->lda, g->b, (blasint)g->ldb, beta, g->c, (blasint)g->ldc);
}

void gemm_run(const struct gemm *g, struct pool *pool) { gemm_part(g); }

const char *gemm_start(void) {
    openblas_set_num_threads(1);
    return openblas_get_corename();
}
