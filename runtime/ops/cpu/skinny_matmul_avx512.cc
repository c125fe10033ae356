// Skinny products with f32 arithmetic, compiled for avx512 (see runtime/CMakeLists.txt).
#include "runtime/ops/cpu/skinny_matmul_rows.h"

namespace cohort::runtime::skinny {

extern const Kernels kAvx512F32 = FloatKernels<float>();
extern const Kernels kAvx512BF16 = FloatKernels<uint16_t>();

}  // namespace cohort::runtime::skinny
