// The vector kernels for AVX-512. Library headers come before the target pragma: their inline functions are
// shared with files for other machines.
#if defined(__x86_64__)
#include "runtime/ops/cpu/kernel_includes.h"
#include "runtime/ops/cpu/kernels.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,fma,prefer-vector-width=512")
#define COHORT_ISA avx512
#define COHORT_ISA_AVX512
#include "runtime/ops/cpu/kernel_table.h"
#pragma GCC pop_options
#endif
