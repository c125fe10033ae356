// Matrix products on the CPU.
#include "runtime/ops/cpu/matmul.h"

#include <omp.h>

#include <oneapi/dnnl/dnnl.h>
#include <cstring>
#include <memory>

#include "runtime/device/cpu_features.h"
#include "runtime/ops/check_shapes.h"
#include "runtime/ops/cpu/cpu_ops.h"
#include "runtime/ops/cpu/kernels.h"
#include "runtime/ops/cpu/parallel.h"
#include "runtime/ops/cpu/policy.h"

namespace cohort::runtime {
namespace {

using namespace cpu_policy;

void MultiplyFloat(const Product& p, const float* a, const float* b, float* c) {
  omp_set_num_threads(CpuThreads());
  const dnnl_status_t status =
      dnnl_sgemm(p.transpose_a ? 'T' : 'N', p.transpose_b ? 'T' : 'N', p.m, p.n, p.k, 1.0f, a,
                 p.transpose_a ? p.m : p.k, b, p.transpose_b ? p.k : p.n, p.accumulate ? 1.0f : 0.0f, c, p.n);
  COHORT_CHECK(status == dnnl_success, "oneDNN refused a product of %ld x %ld x %ld: status %d",
               static_cast<long>(p.m), static_cast<long>(p.n), static_cast<long>(p.k),
               static_cast<int>(status));
}

std::shared_ptr<float> Widened(const void* x, int64_t n) {
  auto wide = std::static_pointer_cast<float>(CpuDevice().Allocate(static_cast<size_t>(n) * sizeof(float)));
  ParallelFor(n, kElementGrain, kElementAlign, [&](int64_t begin, int64_t end) {
    KernelsOf<BFloat16>().to_float(static_cast<const BFloat16*>(x) + begin, wide.get() + begin, end - begin);
  });
  return wide;
}

// bf16 on machines without bf16 instructions: the product of the widened operands.
void MultiplyWidened(const Product& p, const void* a, const void* b, void* c) {
  const std::shared_ptr<float> wide_a = Widened(a, p.m * p.k), wide_b = Widened(b, p.k * p.n);
  Product wide = p;
  wide.input = wide.output = DataType::kF32;
  if (p.output == DataType::kF32)
    return MultiplyFloat(wide, wide_a.get(), wide_b.get(), static_cast<float*>(c));
  const std::shared_ptr<float> wide_c =
      p.accumulate ? Widened(c, p.m * p.n)
                   : std::static_pointer_cast<float>(CpuDevice().Allocate(p.m * p.n * sizeof(float)));
  MultiplyFloat(wide, wide_a.get(), wide_b.get(), wide_c.get());
  ParallelFor(p.m * p.n, kElementGrain, kElementAlign, [&](int64_t begin, int64_t end) {
    KernelsOf<BFloat16>().from_float(wide_c.get() + begin, static_cast<BFloat16*>(c) + begin, end - begin);
  });
}

}  // namespace

void Multiply(const Product& p, const void* a, const void* b, void* c) {
  if (p.m == 0 || p.n == 0) return;
  if (p.k == 0) {
    if (!p.accumulate) std::memset(c, 0, static_cast<size_t>(p.m * p.n) * SizeOf(p.output));
    return;
  }
  if (p.input == DataType::kF32) {
    MultiplyFloat(p, static_cast<const float*>(a), static_cast<const float*>(b), static_cast<float*>(c));
  } else if (ActiveCpuIsa() >= CpuIsa::kAvx512) {
    MultiplyWithPrimitive(p, a, b, c);
  } else {
    MultiplyWidened(p, a, b, c);
  }
}

void CpuOps::MatMul(const Tensor& a, const Tensor& b, const Tensor& c, MatMulOptions options) {
  const auto [m, n, k] = CheckMatMul(a, b, c, options.transpose_a, options.transpose_b);
  CheckSameType("MatMul", a, b);
  if (c.dtype() != DataType::kF32) CheckSameType("MatMul", a, c);
  Multiply({m, n, k, options.transpose_a, options.transpose_b, options.accumulate, a.dtype(), c.dtype()},
           a.raw(), b.raw(), c.raw());
}

void CpuOps::GroupedMatMul(const Tensor& x, const Tensor& offsets, const Tensor& w, bool transpose_w,
                           const Tensor& y) {
  const int64_t in = x.dim(1), out = y.dim(1), experts = w.dim(0);
  CheckShape("GroupedMatMul", w, transpose_w ? Shape{experts, in, out} : Shape{experts, out, in});
  CheckShape("GroupedMatMul", y, {x.dim(0), out});
  CheckSameType("GroupedMatMul", x, w);
  const int32_t* o = CheckOffsets("GroupedMatMul", offsets, experts, x.dim(0));
  for (int64_t g = 0; g < experts; ++g) {
    Multiply({o[g + 1] - o[g], out, in, false, !transpose_w, false, x.dtype(), y.dtype()},
             x.Slice(o[g], o[g + 1]).raw(), w.Row(g).raw(), y.Slice(o[g], o[g + 1]).raw());
  }
}

void CpuOps::GroupedMatMulWeightGrad(const Tensor& dy, const Tensor& x, const Tensor& offsets,
                                     const Tensor& dw) {
  const int64_t in = x.dim(1), out = dy.dim(1), experts = dw.dim(0);
  CheckShape("GroupedMatMulWeightGrad", dw, {experts, out, in});
  CheckShape("GroupedMatMulWeightGrad", dy, {x.dim(0), out});
  CheckSameType("GroupedMatMulWeightGrad", dy, x);
  CheckType("GroupedMatMulWeightGrad", dw, DataType::kF32);
  const int32_t* o = CheckOffsets("GroupedMatMulWeightGrad", offsets, experts, x.dim(0));
  for (int64_t g = 0; g < experts; ++g) {
    Multiply({out, in, o[g + 1] - o[g], true, false, true, x.dtype(), DataType::kF32},
             dy.Slice(o[g], o[g + 1]).raw(), x.Slice(o[g], o[g + 1]).raw(), dw.Row(g).raw());
  }
}

}  // namespace cohort::runtime
