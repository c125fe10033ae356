// Ranks whose devices have memory that no host can reach train as ranks on the CPU do, bit for bit: whatever moves
// between ranks goes by way of the hosts, in the same calls, on meshes of every axis.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/parallel/any_device_training.h"
#include "tests/runtime/device/far_device.h"

namespace cohort::parallel {
namespace {

class AnyDeviceRanks : public ::testing::TestWithParam<DeviceSpread> {};

TEST_P(AnyDeviceRanks, TrainWithTheSameBits) {
  const std::vector<double> want = TrainOn(runtime::CpuDevice, GetParam());
  ASSERT_LT(LossOf(want, kSpreadSteps - 1), LossOf(want, 0));
  EXPECT_EQ(TrainOn(runtime::FarDevice, GetParam()), want);
}

INSTANTIATE_TEST_SUITE_P(Dense, AnyDeviceRanks, ::testing::ValuesIn(DenseDeviceSpreads()), NameOf);
INSTANTIATE_TEST_SUITE_P(Sparse, AnyDeviceRanks, ::testing::ValuesIn(SparseDeviceSpreads()), NameOf);

}  // namespace
}  // namespace cohort::parallel
