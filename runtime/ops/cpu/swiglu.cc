// SwiGLU on the CPU.
#include "runtime/ops/check_shapes.h"
#include "runtime/ops/cpu/compute_type.h"
#include "runtime/ops/cpu/cpu_ops.h"
#include "runtime/ops/cpu/kernels.h"
#include "runtime/ops/cpu/parallel.h"
#include "runtime/ops/cpu/policy.h"

namespace cohort::runtime {

using namespace cpu_policy;

void CpuOps::SwiGlu(const Tensor& gate, const Tensor& up, const Tensor& y) {
  for (const Tensor* other : {&up, &y}) {
    CheckSameShape("SwiGlu", gate, *other);
    CheckSameType("SwiGlu", gate, *other);
  }
  WithComputeType("SwiGlu", y, [&]<typename T>(T) {
    ParallelFor(y.size(), kElementGrain, kElementAlign, [&](int64_t begin, int64_t end) {
      KernelsOf<T>().swiglu(gate.data<T>() + begin, up.data<T>() + begin, y.data<T>() + begin, end - begin);
    });
  });
}

void CpuOps::SwiGluGrad(const Tensor& dy, const Tensor& gate, const Tensor& up, const Tensor& dgate,
                        const Tensor& dup) {
  for (const Tensor* other : {&gate, &up, &dgate, &dup}) {
    CheckSameShape("SwiGluGrad", dy, *other);
    CheckSameType("SwiGluGrad", dy, *other);
  }
  WithComputeType("SwiGluGrad", dy, [&]<typename T>(T) {
    ParallelFor(dy.size(), kElementGrain, kElementAlign, [&](int64_t begin, int64_t end) {
      KernelsOf<T>().swiglu_grad(dy.data<T>() + begin, gate.data<T>() + begin, up.data<T>() + begin,
                                 dgate.data<T>() + begin, dup.data<T>() + begin, end - begin);
    });
  });
}

}  // namespace cohort::runtime
