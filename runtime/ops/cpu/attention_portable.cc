// The attention kernels with f32 products, compiled for portable (see runtime/CMakeLists.txt).
#include "runtime/ops/cpu/attention_float_backend.h"

namespace cohort::runtime::attention {

extern const Kernels kPortableF32 = FloatKernels<float>();
extern const Kernels kPortableBF16 = FloatKernels<uint16_t>();

}  // namespace cohort::runtime::attention
