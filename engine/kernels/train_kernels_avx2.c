// SPDX-License-Identifier: MIT
// Training's vector kernels for AVX2 + FMA + F16C (compiled with those flags; run only where CPUID has them).
#define TRAIN_KERNELS_NAME "avx2"
#define TRAIN_KERNELS_TABLE train_kernels_avx2
#include "engine/kernels/train_kernels_simd.h"
