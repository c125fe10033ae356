// Which vector instructions the processor has, asked at run time: one source is compiled for several levels.
#pragma once

#define COHORT_INLINE inline __attribute__((always_inline))
// Functions of a level. Only where the processor is an x86.
#define COHORT_AVX2 __attribute__((target("avx2,fma,f16c")))
#define COHORT_AVX512 __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")))

namespace cohort::comm {

enum class ProcessorLevel { kBaseline, kAvx2, kAvx512 };

// Always kBaseline off x86.
ProcessorLevel GetProcessorLevel();

}  // namespace cohort::comm
