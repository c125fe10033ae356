// The vector kernels for AVX-512 with bf16 conversions, which every machine with AMX has.
#if defined(__x86_64__)
#include "runtime/ops/cpu/kernel_includes.h"
#include "runtime/ops/cpu/kernels.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma,prefer-vector-width=512")
#define COHORT_ISA avx512_bf16
#define COHORT_ISA_AVX512
#define COHORT_ISA_BF16
#include "runtime/ops/cpu/kernel_table.h"
#pragma GCC pop_options
#endif
