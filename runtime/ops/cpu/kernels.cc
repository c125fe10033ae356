#include "runtime/ops/cpu/kernels.h"

#include "runtime/device/cpu_features.h"

namespace cohort::runtime {

#if defined(__x86_64__)
template <>
const Kernels<float>& KernelsOf<float>() {
  return ActiveCpuIsa() >= CpuIsa::kAvx512 ? avx512::kFloatKernels : portable::kFloatKernels;
}
template <>
const Kernels<BFloat16>& KernelsOf<BFloat16>() {
  return ActiveCpuIsa() >= CpuIsa::kAvx512 ? avx512::kBFloat16Kernels : portable::kBFloat16Kernels;
}
#else
template <>
const Kernels<float>& KernelsOf<float>() {
  return portable::kFloatKernels;
}
template <>
const Kernels<BFloat16>& KernelsOf<BFloat16>() {
  return portable::kBFloat16Kernels;
}
#endif

}  // namespace cohort::runtime
