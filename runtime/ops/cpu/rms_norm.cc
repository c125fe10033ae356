// RMSNorm on the CPU.
#include <algorithm>

#include "runtime/ops/check_shapes.h"
#include "runtime/ops/cpu/compute_type.h"
#include "runtime/ops/cpu/cpu_ops.h"
#include "runtime/ops/cpu/kernels.h"
#include "runtime/ops/cpu/parallel.h"
#include "runtime/ops/cpu/policy.h"

namespace cohort::runtime {
namespace {

using namespace cpu_policy;

// residual undefined: the norm of x.
void Norm(const char* op, const Tensor& x, const Tensor& residual, const Tensor& w, double eps,
          const Tensor& sum, const Tensor& y, const Tensor& rstd) {
  const int64_t rows = x.dim(0), d = x.dim(1);
  CheckSameShape(op, x, y);
  CheckSameType(op, x, y);
  CheckShape(op, w, {d});
  CheckSameType(op, x, w);
  CheckShape(op, rstd, {rows});
  WithComputeType(op, x, [&]<typename T>(T) {
    const T* other = residual.defined() ? residual.data<T>() : nullptr;
    T* total = residual.defined() ? sum.data<T>() : nullptr;
    ParallelFor(rows, 1 + kElementGrain / (d + 1), 1, [&](int64_t begin, int64_t end) {
      const int64_t first = begin * d;
      KernelsOf<T>().rms_norm(x.data<T>() + first, other == nullptr ? nullptr : other + first, w.data<T>(),
                              static_cast<float>(eps), other == nullptr ? nullptr : total + first,
                              y.data<T>() + first, rstd.data<float>() + begin, end - begin, d);
    });
  });
}

}  // namespace

void CpuOps::RmsNorm(const Tensor& x, const Tensor& w, double eps, const Tensor& y, const Tensor& rstd) {
  Norm("RmsNorm", x, Tensor(), w, eps, Tensor(), y, rstd);
}

void CpuOps::AddRmsNorm(const Tensor& x, const Tensor& residual, const Tensor& w, double eps,
                        const Tensor& sum, const Tensor& y, const Tensor& rstd) {
  CheckSameShape("AddRmsNorm", x, residual);
  CheckSameShape("AddRmsNorm", x, sum);
  Norm("AddRmsNorm", x, residual, w, eps, sum, y, rstd);
}

void CpuOps::RmsNormGrad(const Tensor& dy, const Tensor& x, const Tensor& w, const Tensor& rstd,
                         const Tensor& add, const Tensor& dx) {
  const int64_t rows = x.dim(0), d = x.dim(1);
  CheckSameShape("RmsNormGrad", dy, x);
  CheckSameShape("RmsNormGrad", dx, x);
  CheckShape("RmsNormGrad", w, {d});
  CheckShape("RmsNormGrad", rstd, {rows});
  if (add.defined()) CheckSameShape("RmsNormGrad", add, x);
  WithComputeType("RmsNormGrad", x, [&]<typename T>(T) {
    const T* other = add.defined() ? add.data<T>() : nullptr;
    ParallelFor(rows, 1 + kElementGrain / (d + 1), 1, [&](int64_t begin, int64_t end) {
      const int64_t first = begin * d;
      KernelsOf<T>().rms_norm_grad(dy.data<T>() + first, x.data<T>() + first, w.data<T>(),
                                   rstd.data<float>() + begin, other == nullptr ? nullptr : other + first,
                                   dx.data<T>() + first, end - begin, d);
    });
  });
}

void CpuOps::RmsNormWeightGrad(const Tensor& dy, const Tensor& x, const Tensor& rstd, const Tensor& dw) {
  const int64_t rows = x.dim(0), d = x.dim(1);
  CheckSameShape("RmsNormWeightGrad", dy, x);
  CheckSameType("RmsNormWeightGrad", dy, x);
  CheckShape("RmsNormWeightGrad", rstd, {rows});
  CheckShape("RmsNormWeightGrad", dw, {d});
  // Partial sums over kSumRows rows each, then the sums of those in order.
  const int64_t chunks = (rows + kSumRows - 1) / kSumRows;
  const Tensor partial = Tensor::Empty(dw.device(), {chunks, d}, DataType::kF32);
  float* sums = partial.data<float>();
  WithComputeType("RmsNormWeightGrad", x, [&]<typename T>(T) {
    ParallelFor(chunks, 1, 1, [&](int64_t begin, int64_t end) {
      for (int64_t c = begin; c < end; ++c) {
        const int64_t first = c * kSumRows;
        std::fill(sums + c * d, sums + (c + 1) * d, 0.0f);
        KernelsOf<T>().rms_norm_weight_grad(dy.data<T>() + first * d, x.data<T>() + first * d,
                                            rstd.data<float>() + first, sums + c * d,
                                            std::min(kSumRows, rows - first), d);
      }
    });
  });
  float* total = dw.data<float>();
  ParallelFor(d, 1 + kElementGrain / (chunks + 1), kElementAlign, [&](int64_t begin, int64_t end) {
    for (int64_t c = 0; c < chunks; ++c) {
      KernelsOf<float>().accumulate(sums + c * d + begin, 1.0f, total + begin, end - begin);
    }
  });
}

}  // namespace cohort::runtime
