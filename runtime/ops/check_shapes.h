// The checks of arguments that every device makes the same way. A failure is a bug of the caller.
#pragma once

#include "comm/check.h"
#include "runtime/tensor.h"

namespace cohort::runtime {

inline bool IsFloat(DataType dtype) {
  return dtype == DataType::kF32 || dtype == DataType::kBF16 || dtype == DataType::kF16 ||
         dtype == DataType::kF64;
}

inline void CheckSameShape(const char* op, const Tensor& a, const Tensor& b) {
  COHORT_CHECK(a.shape() == b.shape(), "%s of %s and %s, which differ in shape", op, a.DebugString().c_str(),
               b.DebugString().c_str());
}

inline void CheckShape(const char* op, const Tensor& a, const Shape& shape) {
  COHORT_CHECK(a.shape() == shape, "%s of %s where %s was due", op, a.DebugString().c_str(),
               Tensor::Wrap(a.device(), nullptr, nullptr, shape, a.dtype()).DebugString().c_str());
}

inline void CheckType(const char* op, const Tensor& a, DataType dtype) {
  COHORT_CHECK(a.dtype() == dtype, "%s of %s where %s was due", op, a.DebugString().c_str(), Name(dtype));
}

inline void CheckSameType(const char* op, const Tensor& a, const Tensor& b) {
  COHORT_CHECK(a.dtype() == b.dtype(), "%s of %s and %s, which differ in type", op, a.DebugString().c_str(),
               b.DebugString().c_str());
}

// The sizes of c[m,n] = op(a)[m,k] op(b)[k,n].
struct MatMulSizes {
  int64_t m, n, k;
};
inline MatMulSizes CheckMatMul(const Tensor& a, const Tensor& b, const Tensor& c, bool transpose_a,
                               bool transpose_b) {
  COHORT_CHECK(a.rank() == 2 && b.rank() == 2 && c.rank() == 2,
               "MatMul of %s and %s into %s: two dimensions each", a.DebugString().c_str(),
               b.DebugString().c_str(), c.DebugString().c_str());
  const MatMulSizes sizes = {c.dim(0), c.dim(1), transpose_a ? a.dim(0) : a.dim(1)};
  COHORT_CHECK(a.dim(transpose_a ? 1 : 0) == sizes.m && b.dim(transpose_b ? 0 : 1) == sizes.n &&
                   b.dim(transpose_b ? 1 : 0) == sizes.k,
               "MatMul of %s%s and %s%s into %s", a.DebugString().c_str(), transpose_a ? " transposed" : "",
               b.DebugString().c_str(), transpose_b ? " transposed" : "", c.DebugString().c_str());
  return sizes;
}

// Offsets of groups, ascending from 0 to rows, read on the host.
inline const int32_t* CheckOffsets(const char* op, const Tensor& offsets, int64_t groups, int64_t rows) {
  CheckShape(op, offsets, {groups + 1});
  const int32_t* o = offsets.data<int32_t>();
  bool good = o[0] == 0 && o[groups] == rows;
  for (int64_t g = 0; g < groups; ++g) good = good && o[g] <= o[g + 1];
  COHORT_CHECK(good, "%s: %ld group offsets that do not ascend from 0 to %ld rows", op,
               static_cast<long>(groups), static_cast<long>(rows));
  return o;
}

}  // namespace cohort::runtime
