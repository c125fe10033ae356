// What "equal to the reference" means for an operation.
//
// The metric: max_i |got_i - want_i| / max_i |want_i|, the largest error relative to the largest value of the
// result. It must stay below 1e-5 where the operation ran in f32 and 1e-2 in bf16. A result that should be
// all zero must be.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "runtime/device/device.h"
#include "runtime/ops/ops.h"
#include "runtime/tensor.h"

namespace cohort::runtime {

inline double Tolerance(DataType dtype) { return dtype == DataType::kBF16 ? 1e-2 : 1e-5; }

inline double RelativeError(const std::vector<double>& got, const std::vector<double>& want) {
  if (got.size() != want.size()) return INFINITY;
  double worst = 0, largest = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    if (!std::isfinite(got[i])) return INFINITY;
    worst = std::max(worst, std::abs(got[i] - want[i]));
    largest = std::max(largest, std::abs(want[i]));
  }
  return worst == 0 ? 0 : (largest == 0 ? INFINITY : worst / largest);
}

inline void ExpectClose(const Tensor& got, const Tensor& want, DataType computed_in, const char* what) {
  EXPECT_EQ(got.shape(), want.shape()) << what;
  EXPECT_LT(RelativeError(ToHost(got), ToHost(want)), Tolerance(computed_in))
      << what << ": " << got.DebugString() << " against " << want.DebugString();
}

inline void ExpectSameBits(const Tensor& a, const Tensor& b, const char* what) {
  const std::vector<double> x = ToHost(a), y = ToHost(b);
  ASSERT_EQ(x.size(), y.size()) << what;
  for (size_t i = 0; i < x.size(); ++i) ASSERT_EQ(x[i], y[i]) << what << ", element " << i;
}

// One tensor on both devices with the same values: the CPU's, rounded to its type; the reference's in f64.
struct Twin {
  Tensor cpu;
  Tensor reference;
};

class OpsTest : public ::testing::Test {
 protected:
  ~OpsTest() override { SetCpuThreads(threads_before_); }

  Ops& cpu() { return CpuDevice().ops(); }
  Ops& reference() { return ReferenceDevice().ops(); }

  // Normal values.
  Twin Random(Shape shape, DataType dtype, double stddev = 1) {
    Twin twin{Tensor::Empty(CpuDevice(), shape, dtype), Tensor()};
    std::normal_distribution<double> normal(0, stddev);
    std::vector<double> values(twin.cpu.size());
    for (double& value : values) value = normal(generator_);
    twin.cpu = Tensor::FromHost(CpuDevice(), shape, dtype, values);
    twin.reference = twin.cpu.To(ReferenceDevice(), DataType::kF64);
    return twin;
  }
  Twin Indices(Shape shape, int32_t low, int32_t high) {
    std::uniform_int_distribution<int32_t> uniform(low, high);
    std::vector<int32_t> values(Tensor::Empty(CpuDevice(), shape, DataType::kI32).size());
    for (int32_t& value : values) value = uniform(generator_);
    return FromIndices(shape, values);
  }
  Twin FromIndices(Shape shape, const std::vector<int32_t>& values) {
    return {Tensor::FromHost(CpuDevice(), shape, values), Tensor::FromHost(ReferenceDevice(), shape, values)};
  }
  // Outputs: filled with a value that must not survive.
  Twin Output(Shape shape, DataType dtype) {
    Twin twin{Tensor::Empty(CpuDevice(), shape, dtype),
              Tensor::Empty(ReferenceDevice(), shape, DataType::kF64)};
    cpu().Fill(twin.cpu, 1e6);
    reference().Fill(twin.reference, 1e6);
    return twin;
  }
  Twin Clone(const Twin& twin) { return {twin.cpu.Clone(), twin.reference.Clone()}; }
  void ExpectTwin(const Twin& twin, DataType computed_in, const char* what) {
    ExpectClose(twin.cpu, twin.reference, computed_in, what);
  }

  std::mt19937_64 generator_{20240917};

 private:
  const int threads_before_ = CpuThreads();
};

// The types and numbers of threads that each test goes through.
inline constexpr DataType kComputeTypes[] = {DataType::kF32, DataType::kBF16};
inline constexpr int kThreadCounts[] = {1, 2, 3};

}  // namespace cohort::runtime
