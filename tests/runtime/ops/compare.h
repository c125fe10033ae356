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
#include <functional>
#include <numeric>
#include <ostream>
#include <random>
#include <string>
#include <vector>

#include "absl/types/span.h"
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

// One tensor on both devices with the same values: the tested one's, rounded to its type; the reference's in f64.
struct Twin {
  Tensor tested;
  Tensor reference;
};

// The types and, on the CPU, the numbers of threads that each test goes through.
inline constexpr DataType kComputeTypes[] = {DataType::kF32, DataType::kBF16};
inline constexpr int kThreadCounts[] = {1, 2, 3};

// Tests that compare a device's operations with the reference's. The CPU's, unless OpsTest says otherwise.
class OpsFixture : public ::testing::Test {
 protected:
  ~OpsFixture() override { SetCpuThreads(threads_before_); }

  virtual Device& tested_device() const { return CpuDevice(); }
  Ops& tested() const { return tested_device().ops(); }
  Ops& reference() { return ReferenceDevice().ops(); }
  // Whether its operations take a thousand times as long as they should: fewer cases of the long tests.
  virtual bool emulated() const { return false; }
  // What to give to SetCpuThreads, which other devices do not heed.
  absl::Span<const int> thread_counts() const {
    const absl::Span<const int> all = kThreadCounts;
    return tested_device().kind() == DeviceKind::kCpu ? all : all.first(1);
  }

  // Normal values.
  Twin Random(Shape shape, DataType dtype, double stddev = 1) {
    std::normal_distribution<double> normal(0, stddev);
    std::vector<double> values(SizeOfShape(shape));
    for (double& value : values) value = normal(generator_);
    const Tensor exact = Tensor::FromHost(CpuDevice(), shape, dtype, values);
    return {Tensor::FromHost(tested_device(), shape, dtype, values),
            exact.To(ReferenceDevice(), DataType::kF64)};
  }
  Twin Indices(Shape shape, int32_t low, int32_t high) {
    std::uniform_int_distribution<int32_t> uniform(low, high);
    std::vector<int32_t> values(SizeOfShape(shape));
    for (int32_t& value : values) value = uniform(generator_);
    return FromIndices(shape, values);
  }
  Twin FromIndices(Shape shape, const std::vector<int32_t>& values) {
    return {Tensor::FromHost(tested_device(), shape, values),
            Tensor::FromHost(ReferenceDevice(), shape, values)};
  }
  // Outputs: filled with a value that must not survive.
  Twin Output(Shape shape, DataType dtype) {
    Twin twin{Tensor::Empty(tested_device(), shape, dtype),
              Tensor::Empty(ReferenceDevice(), shape, DataType::kF64)};
    tested().Fill(twin.tested, 1e6);
    reference().Fill(twin.reference, 1e6);
    return twin;
  }
  Twin Clone(const Twin& twin) { return {twin.tested.Clone(), twin.reference.Clone()}; }
  // The same tensor with its values changed on the host.
  template <typename Edit>
  static Tensor Edited(const Tensor& x, const Edit& edit) {
    std::vector<double> values = ToHost(x);
    edit(values);
    if (x.dtype() == DataType::kI32) {
      return Tensor::FromHost(x.device(), x.shape(), std::vector<int32_t>(values.begin(), values.end()));
    }
    return Tensor::FromHost(x.device(), x.shape(), x.dtype(), values);
  }
  void ExpectTwin(const Twin& twin, DataType computed_in, const char* what) {
    ExpectClose(twin.tested, twin.reference, computed_in, what);
  }

  std::mt19937_64 generator_{20240917};

 private:
  static int64_t SizeOfShape(const Shape& shape) {
    return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
  }

  const int threads_before_ = CpuThreads();
};

// A device that all cases of OpsTest go through.
struct TestedDevice {
  const char* name;  // in the names of tests
  Device& (*open)();
  bool emulated = false;
};
inline void PrintTo(const TestedDevice& device, std::ostream* out) { *out << device.name; }
// The CPU; the kernels for CUDA run on the CPU (tests/runtime/ops/cuda); and CUDA, where there is a device.
std::vector<TestedDevice> TestedDevices();

class OpsTest : public OpsFixture, public ::testing::WithParamInterface<TestedDevice> {
 protected:
  Device& tested_device() const override { return GetParam().open(); }
  bool emulated() const override { return GetParam().emulated; }
};
// The cases of a suite (TEST_P) for each device: Ops/<suite>.<case>/<device>.
#define COHORT_ON_EVERY_DEVICE(suite)                                        \
  INSTANTIATE_TEST_SUITE_P(Ops, suite, ::testing::ValuesIn(TestedDevices()), \
                           [](const auto& info) { return std::string(info.param.name); })

}  // namespace cohort::runtime
