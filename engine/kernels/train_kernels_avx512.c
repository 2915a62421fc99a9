// SPDX-License-Identifier: MIT
// Training's vector kernels for AVX-512 F/BW/DQ/VL (compiled with those flags; run only where CPUID has them).
#define TRAIN_KERNELS_NAME "avx512"
#define TRAIN_KERNELS_TABLE train_kernels_avx512
#include "engine/kernels/train_kernels_simd.h"
