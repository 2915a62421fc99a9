// SPDX-License-Identifier: MIT
// The vector kernels for AVX-512 F/BW/DQ/VL (compiled with those flags; run only where CPUID has them).
#define KERNELS_NAME "avx512"
#define KERNELS_TABLE kernels_avx512
#define TILE_ROWS 12 // 12 rows x 2 zmm sums of 32 registers
#include "engine/kernels/kernels_simd.h"
