// SPDX-License-Identifier: MIT
// The vector kernels for AVX2 + FMA + F16C (compiled with those flags; run only where CPUID has them).
#define KERNELS_NAME "avx2"
#define KERNELS_TABLE kernels_avx2
#define TILE_ROWS 3 // 3 rows x 4 ymm sums leave room for weights and a broadcast in 16 registers
#include "engine/kernels/kernels_simd.h"
