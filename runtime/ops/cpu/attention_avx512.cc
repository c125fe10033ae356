// The attention kernels with f32 products, compiled for avx512 (see runtime/CMakeLists.txt).
#include "runtime/ops/cpu/attention_float_backend.h"

namespace cohort::runtime::attention {

extern const Kernels kAvx512F32 = FloatKernels<float>();
extern const Kernels kAvx512BF16 = FloatKernels<uint16_t>();

}  // namespace cohort::runtime::attention
