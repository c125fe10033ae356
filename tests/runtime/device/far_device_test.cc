// Memory that is not the host's: how values get there and back, and that the device that other tests stand on can catch
// who looks there himself.
#include "tests/runtime/device/far_device.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "runtime/device/host_reader.h"
#include "runtime/ops/exact_squares.h"
#include "runtime/ops/ops.h"
#include "tests/support/ranks.h"

namespace cohort::runtime {
namespace {

void InAProcess(void (*body)()) {
  cohort::testing::RunProcesses(1, [&](int, int, const std::string&) { body(); });
}

TEST(FarDeviceTest, WhoLooksThereHimselfDies) {
  const auto look = [] {
    const Tensor x = Tensor::Zeros(FarDevice(), {4}, DataType::kF32);
    FarDevice().Synchronize();
    return *static_cast<volatile float*>(x.raw());
  };
  EXPECT_DEATH(look(), "");
}

TEST(FarDeviceTest, OperationsOnTensorsOfOthersDie) {
  EXPECT_DEATH(FarDevice().ops().Fill(Tensor::Zeros(CpuDevice(), {4}, DataType::kF32), 1),
               "far device on f32.4. on cpu");
}

TEST(FarDeviceTest, OperationsRunLateAndInOrder) {
  InAProcess([] {
    Device& far = FarDevice();
    const Tensor x = Tensor::FromHost(far, {2}, std::vector<float>{1, 2});
    far.ops().Scale(x, 3);
    // The memory is reused by operations that come later, not before those that use it.
    Tensor y = x.Clone();
    const void* const address = y.raw();
    y = Tensor();
    const Tensor z = Tensor::FromHost(far, {2}, std::vector<float>{7, 8});
    EXPECT_EQ(z.raw(), address);
    EXPECT_EQ(ToHost(x), (std::vector<double>{3, 6}));
    EXPECT_EQ(ToHost(z), (std::vector<double>{7, 8}));
  });
}

TEST(FarDeviceTest, ValuesMoveBetweenMemoriesInAllTypes) {
  InAProcess([] {
    const std::vector<double> values = {1, -2.5, 0.1, 3e38, -0.0};
    for (const DataType there : {DataType::kF32, DataType::kBF16, DataType::kF64}) {
      const Tensor far = Tensor::FromHost(FarDevice(), {5}, there, values);
      const Tensor near = Tensor::FromHost(CpuDevice(), {5}, there, values);
      EXPECT_EQ(ToHost(far), ToHost(near)) << Name(there);
      for (const DataType here : {DataType::kF32, DataType::kBF16, DataType::kF64}) {
        const std::vector<double> want = ToHost(near.To(CpuDevice(), here));
        EXPECT_EQ(ToHost(far.To(CpuDevice(), here)), want) << Name(there) << " to " << Name(here);
        EXPECT_EQ(ToHost(near.To(FarDevice(), here)), want) << Name(there) << " to " << Name(here);
        EXPECT_EQ(ToHost(far.To(FarDevice(), here)), want) << Name(there) << " to " << Name(here);
        EXPECT_EQ(ToHost(far.To(ReferenceDevice(), here)), want) << Name(there) << " to " << Name(here);
      }
    }
    const Tensor indices = Tensor::FromHost(FarDevice(), {3}, std::vector<int32_t>{5, -1, 1 << 30});
    EXPECT_EQ(ToHost(indices), (std::vector<double>{5, -1, 1 << 30}));
    EXPECT_TRUE(
        ToHost(Tensor::Zeros(CpuDevice(), {0, 3}, DataType::kF32).To(FarDevice(), DataType::kBF16)).empty());
  });
}

TEST(FarDeviceTest, ReadsBesideItsQueueHaveWhatWasEnqueuedBeforeTheMark) {
  InAProcess([] {
    Device& far = FarDevice();
    auto reader = MakeHostReader(far, 8);
    ASSERT_TRUE(reader.ok()) << reader.status();
    const auto read = [&](const Tensor& x) {
      std::vector<float> values(2);
      (*reader)->Read(x.raw(), 8, [&](const void* host) { std::memcpy(values.data(), host, 8); });
      return values;
    };
    const Tensor x = Tensor::FromHost(far, {2}, std::vector<float>{1, 2});
    far.ops().Scale(x, 3);
    EXPECT_EQ(read(x), (std::vector<float>{0, 0})) << "nothing was waited for";
    (*reader)->Mark();
    far.ops().Scale(Tensor::Zeros(far, {2}, DataType::kF32), 5);
    EXPECT_EQ(read(x), (std::vector<float>{3, 6}));
    auto on_host = MakeHostReader(CpuDevice(), 8);
    ASSERT_TRUE(on_host.ok()) << on_host.status();
    const Tensor near = Tensor::Zeros(CpuDevice(), {2}, DataType::kF32);
    (*on_host)->Read(near.raw(), 8, [&](const void* host) { EXPECT_EQ(host, near.raw()); });
  });
}

TEST(FarDeviceTest, WhatLiesInHostMemoryIsNotCopiedForTheHost) {
  const Tensor x = Tensor::Zeros(CpuDevice(), {4}, DataType::kF32);
  EXPECT_EQ(OnHost(x).raw(), x.raw());
  EXPECT_EQ(OnHost(Tensor::Zeros(ReferenceDevice(), {4}, DataType::kF64)).device().kind(),
            DeviceKind::kReference);
}

TEST(FarDeviceTest, ExactSquaresAreTheSame) {
  InAProcess([] {
    const std::vector<float> values = {1.5f, -3e-20f, 7e18f, 0.1f};
    ExactSquares near, far;
    near.Add(Tensor::FromHost(CpuDevice(), {4}, values));
    far.Add(Tensor::FromHost(FarDevice(), {4}, values));
    EXPECT_EQ(near.Words(), far.Words());
  });
}

}  // namespace
}  // namespace cohort::runtime
