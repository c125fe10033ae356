// Skinny products with f32 arithmetic, compiled for portable (see runtime/CMakeLists.txt).
#include "runtime/ops/cpu/skinny_matmul_rows.h"

namespace cohort::runtime::skinny {

extern const Kernels kPortableF32 = FloatKernels<float>();
extern const Kernels kPortableBF16 = FloatKernels<uint16_t>();

}  // namespace cohort::runtime::skinny
