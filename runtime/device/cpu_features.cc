#include "runtime/device/cpu_features.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace cohort::runtime {
namespace {

#if defined(__x86_64__)
// Linux hands out the 8 KiB of tile registers only to processes that ask (Documentation/x86/xstate).
bool RequestTiles() {
  constexpr int kArchReqXcompPerm = 0x1023;
  constexpr int kXfeatureXtileData = 18;
  return syscall(SYS_arch_prctl, kArchReqXcompPerm, kXfeatureXtileData) == 0;
}

CpuIsa Detect() {
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("avx512dq") ||
      !__builtin_cpu_supports("fma")) {
    return CpuIsa::kPortable;
  }
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  const bool leaf7 = __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0;
  const bool amx = leaf7 && (edx & (1u << 22)) != 0 && (edx & (1u << 24)) != 0;  // AMX-BF16, AMX-TILE
  if (amx && __builtin_cpu_supports("avx512bf16") && RequestTiles()) return CpuIsa::kAmx;
  return CpuIsa::kAvx512;
}
#else
CpuIsa Detect() { return CpuIsa::kPortable; }
#endif

CpuIsa Choose() {
  const CpuIsa detected = Detect();
  const char* asked = std::getenv("COHORT_CPU_ISA");
  if (asked == nullptr || *asked == '\0') return detected;
  for (CpuIsa isa : {CpuIsa::kPortable, CpuIsa::kAvx512, CpuIsa::kAmx}) {
    if (std::strcmp(asked, Name(isa)) == 0) return isa < detected ? isa : detected;
  }
  std::fprintf(stderr, "COHORT_CPU_ISA=%s is not one of portable, avx512, amx; using %s\n", asked,
               Name(detected));
  return detected;
}

}  // namespace

CpuIsa ActiveCpuIsa() {
  static const CpuIsa isa = Choose();
  return isa;
}

const char* Name(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kPortable:
      return "portable";
    case CpuIsa::kAvx512:
      return "avx512";
    case CpuIsa::kAmx:
      return "amx";
  }
  return "?";
}

}  // namespace cohort::runtime
