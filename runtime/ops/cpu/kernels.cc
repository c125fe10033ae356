#include "runtime/ops/cpu/kernels.h"

#include "runtime/device/cpu_features.h"

namespace cohort::runtime {

template <>
const Kernels<float>& KernelsOf<float>() {
#if defined(__x86_64__)
  if (ActiveCpuIsa() >= CpuIsa::kAmx) return avx512_bf16::kFloatKernels;
  if (ActiveCpuIsa() >= CpuIsa::kAvx512) return avx512::kFloatKernels;
#endif
  return portable::kFloatKernels;
}

template <>
const Kernels<BFloat16>& KernelsOf<BFloat16>() {
#if defined(__x86_64__)
  if (ActiveCpuIsa() >= CpuIsa::kAmx) return avx512_bf16::kBFloat16Kernels;
  if (ActiveCpuIsa() >= CpuIsa::kAvx512) return avx512::kBFloat16Kernels;
#endif
  return portable::kBFloat16Kernels;
}

}  // namespace cohort::runtime
