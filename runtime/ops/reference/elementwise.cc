// Elementwise operations. Fill, Copy and Accumulate take any types; the others f64.
#include <cstring>

#include "runtime/ops/check_shapes.h"
#include "runtime/ops/convert.h"
#include "runtime/ops/normal.h"
#include "runtime/ops/reference/reference_ops.h"

namespace cohort::runtime {

void ReferenceOps::Fill(const Tensor& x, double value) {
  switch (x.dtype()) {
#define COHORT_X(enumerator, type, name, accumulator)                                   \
  case DataType::enumerator:                                                            \
    for (int64_t i = 0; i < x.size(); ++i) x.data<type>()[i] = FromDouble<type>(value); \
    break;
    COHORT_DATA_TYPES(COHORT_X)
#undef COHORT_X
  }
}

void ReferenceOps::Copy(const Tensor& x, const Tensor& y) {
  CheckSameShape("Copy", x, y);
  if (x.dtype() == y.dtype()) {
    if (x.bytes() > 0 && x.raw() != y.raw()) std::memcpy(y.raw(), x.raw(), x.bytes());
    return;
  }
  WithFloatType(x.dtype(), [&](auto from) {
    WithFloatType(y.dtype(), [&](auto to) {
      const auto* in = x.data<decltype(from)>();
      auto* out = y.data<decltype(to)>();
      for (int64_t i = 0; i < x.size(); ++i) out[i] = Convert<decltype(to)>(in[i]);
    });
  });
}

void ReferenceOps::Accumulate(const Tensor& x, double scale, const Tensor& y) {
  CheckSameShape("Accumulate", x, y);
  WithFloatType(x.dtype(), [&](auto from) {
    WithFloatType(y.dtype(), [&](auto to) {
      const auto* in = x.data<decltype(from)>();
      auto* out = y.data<decltype(to)>();
      for (int64_t i = 0; i < x.size(); ++i) {
        out[i] = FromDouble<decltype(to)>(ToDouble(out[i]) + scale * ToDouble(in[i]));
      }
    });
  });
}

void ReferenceOps::Add(const Tensor& a, const Tensor& b, const Tensor& c) {
  CheckSameShape("Add", a, b);
  CheckSameShape("Add", a, c);
  for (int64_t i = 0; i < c.size(); ++i) c.data<double>()[i] = a.data<double>()[i] + b.data<double>()[i];
}

void ReferenceOps::Scale(const Tensor& x, double factor) {
  for (int64_t i = 0; i < x.size(); ++i) x.data<double>()[i] *= factor;
}

void ReferenceOps::FillNormal(const Tensor& x, uint64_t seed, uint32_t purpose, uint64_t first_index,
                              double stddev) {
  WithFloatType(x.dtype(), [&](auto type) {
    auto* out = x.data<decltype(type)>();
    for (int64_t i = 0; i < x.size(); ++i) {
      const uint64_t index = first_index + static_cast<uint64_t>(i);
      out[i] = FromDouble<decltype(type)>(stddev * NormalBlock(seed, purpose, index / 4)[index % 4]);
    }
  });
}

void ReferenceOps::SumSquares(const Tensor& x, const Tensor& out) {
  CheckShape("SumSquares", out, {1});
  double sum = 0;
  for (int64_t i = 0; i < x.size(); ++i) sum += x.data<double>()[i] * x.data<double>()[i];
  out.data<double>()[0] += sum;
}

}  // namespace cohort::runtime
