// Elementwise operations on the CPU.
#include <array>
#include <cstring>
#include <vector>

#include "runtime/ops/check_shapes.h"
#include "runtime/ops/convert.h"
#include "runtime/ops/cpu/compute_type.h"
#include "runtime/ops/cpu/cpu_ops.h"
#include "runtime/ops/cpu/kernels.h"
#include "runtime/ops/cpu/parallel.h"
#include "runtime/ops/cpu/policy.h"
#include "runtime/ops/normal.h"

namespace cohort::runtime {
namespace {

using namespace cpu_policy;

bool Fast(DataType dtype) { return dtype == DataType::kF32 || dtype == DataType::kBF16; }

template <typename Body>
void ForElements(int64_t n, const Body& body) {
  ParallelFor(n, kElementGrain, kElementAlign, body);
}

// y[i] = convert(x[i], y[i]) for any pair of float types, an element at a time.
template <typename ElementBody>
void AnyFloats(const Tensor& x, const Tensor& y, const ElementBody& element) {
  WithFloatType(x.dtype(), [&](auto from) {
    WithFloatType(y.dtype(), [&](auto to) {
      const auto* in = x.data<decltype(from)>();
      auto* out = y.data<decltype(to)>();
      ForElements(x.size(), [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) element(in[i], out[i]);
      });
    });
  });
}

}  // namespace

void CpuOps::Fill(const Tensor& x, double value) {
  switch (x.dtype()) {
#define COHORT_X(enumerator, type, name, accumulator)                                  \
  case DataType::enumerator: {                                                         \
    const type element = FromDouble<type>(value);                                      \
    type* out = x.data<type>();                                                        \
    ForElements(x.size(), [out, element, value](int64_t begin, int64_t end) {          \
      if (value == 0) {                                                                \
        std::memset(static_cast<void*>(out + begin), 0, (end - begin) * sizeof(type)); \
      } else {                                                                         \
        std::fill(out + begin, out + end, element);                                    \
      }                                                                                \
    });                                                                                \
    break;                                                                             \
  }
    COHORT_DATA_TYPES(COHORT_X)
#undef COHORT_X
  }
}

void CpuOps::Copy(const Tensor& x, const Tensor& y) {
  CheckSameShape("Copy", x, y);
  if (x.dtype() == y.dtype()) {
    if (x.raw() == y.raw()) return;
    ForElements(static_cast<int64_t>(x.bytes()), [&](int64_t begin, int64_t end) {
      std::memcpy(static_cast<char*>(y.raw()) + begin, static_cast<const char*>(x.raw()) + begin,
                  end - begin);
    });
  } else if (x.dtype() == DataType::kBF16 && y.dtype() == DataType::kF32) {
    ForElements(x.size(), [in = x.data<BFloat16>(), out = y.data<float>()](int64_t begin, int64_t end) {
      KernelsOf<BFloat16>().to_float(in + begin, out + begin, end - begin);
    });
  } else if (x.dtype() == DataType::kF32 && y.dtype() == DataType::kBF16) {
    ForElements(x.size(), [in = x.data<float>(), out = y.data<BFloat16>()](int64_t begin, int64_t end) {
      KernelsOf<BFloat16>().from_float(in + begin, out + begin, end - begin);
    });
  } else {
    AnyFloats(x, y, [](auto from, auto& to) { to = Convert<std::decay_t<decltype(to)>>(from); });
  }
}

void CpuOps::Accumulate(const Tensor& x, double scale, const Tensor& y) {
  CheckSameShape("Accumulate", x, y);
  const float factor = static_cast<float>(scale);
  if (Fast(x.dtype()) && (y.dtype() == DataType::kF32 || y.dtype() == x.dtype())) {
    WithComputeType("Accumulate", x, [&]<typename T>(T) {
      ForElements(x.size(), [&](int64_t begin, int64_t end) {
        const T* in = x.data<T>() + begin;
        if (y.dtype() == DataType::kF32) {
          KernelsOf<T>().accumulate_state(in, factor, y.data<float>() + begin, end - begin);
        } else {
          KernelsOf<T>().accumulate(in, factor, y.data<T>() + begin, end - begin);
        }
      });
    });
    return;
  }
  AnyFloats(x, y, [scale](auto from, auto& to) {
    to = FromDouble<std::decay_t<decltype(to)>>(ToDouble(to) + scale * ToDouble(from));
  });
}

void CpuOps::Add(const Tensor& a, const Tensor& b, const Tensor& c) {
  CheckSameShape("Add", a, b);
  CheckSameShape("Add", a, c);
  CheckSameType("Add", a, b);
  CheckSameType("Add", a, c);
  WithComputeType("Add", a, [&]<typename T>(T) {
    ForElements(a.size(), [&](int64_t begin, int64_t end) {
      KernelsOf<T>().add(a.data<T>() + begin, b.data<T>() + begin, c.data<T>() + begin, end - begin);
    });
  });
}

void CpuOps::Scale(const Tensor& x, double factor) {
  WithComputeType("Scale", x, [&]<typename T>(T) {
    ForElements(x.size(), [&](int64_t begin, int64_t end) {
      KernelsOf<T>().scale(x.data<T>() + begin, static_cast<float>(factor), end - begin);
    });
  });
}

void CpuOps::FillNormal(const Tensor& x, uint64_t seed, uint32_t purpose, uint64_t first_index,
                        double stddev) {
  WithFloatType(x.dtype(), [&]<typename T>(T) {
    T* out = x.data<T>();
    ParallelFor(x.size(), 1024, kElementAlign, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end;) {
        uint64_t lane = (first_index + static_cast<uint64_t>(i)) % 4;
        const std::array<double, 4> numbers =
            NormalBlock(seed, purpose, (first_index + static_cast<uint64_t>(i)) / 4);
        for (; lane < 4 && i < end; ++lane, ++i) out[i] = FromDouble<T>(stddev * numbers[lane]);
      }
    });
  });
}

void CpuOps::SumSquares(const Tensor& x, const Tensor& out) {
  CheckShape("SumSquares", out, {1});
  const int64_t n = x.size(), chunks = (n + kSumChunk - 1) / kSumChunk;
  std::vector<double> partial(chunks);
  WithComputeType("SumSquares", x, [&]<typename T>(T) {
    ParallelFor(chunks, 1, 1, [&](int64_t begin, int64_t end) {
      for (int64_t c = begin; c < end; ++c) {
        const int64_t first = c * kSumChunk;
        partial[c] = KernelsOf<T>().sum_squares(x.data<T>() + first, std::min(kSumChunk, n - first));
      }
    });
  });
  for (double sum : partial) out.data<double>()[0] += sum;
}

}  // namespace cohort::runtime
