#include "comm/processor.h"

#ifdef __x86_64__
#include <cpuid.h>
#endif

namespace cohort::comm {

#ifdef __x86_64__

namespace {

// Asked of the processor itself: not every compiler's __builtin_cpu_supports knows the name.
bool HasF16c() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}

}  // namespace

ProcessorLevel GetProcessorLevel() {
  static const ProcessorLevel level = [] {
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && HasF16c();
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    return avx512 ? ProcessorLevel::kAvx512 : avx2 ? ProcessorLevel::kAvx2 : ProcessorLevel::kBaseline;
  }();
  return level;
}

#else

ProcessorLevel GetProcessorLevel() { return ProcessorLevel::kBaseline; }

#endif  // __x86_64__

}  // namespace cohort::comm
