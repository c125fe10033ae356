// Ranks whose devices have links of their own train over those: tensors move in NCCL's calls, of which a stand-in
// runs here over memory that no host can reach. Two ranks' sums have one order, so all bits are those of the CPU.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/parallel/any_device_training.h"
#include "tests/runtime/device/fake_links.h"
#include "tests/runtime/device/far_device.h"
#include "tests/support/temp_folder.h"

namespace cohort::parallel {
namespace {

class ConnectedDevices : public ::testing::TestWithParam<DeviceSpread> {};

TEST_P(ConnectedDevices, TrainWithTheSameBits) {
  const std::vector<double> want = TrainOn(runtime::CpuDevice, GetParam());
  const TempFolder temp;
  testing::SharedCounter calls;
  const std::vector<double> got =
      TrainOn(runtime::FarDevice, GetParam(), runtime::FakeLinks(temp.Path(""), calls));
  EXPECT_GT(calls.Get(), 0) << "nothing went that way";
  if (GetParam().ranks == 2) {
    EXPECT_EQ(got, want);
    return;
  }
  for (int step = 0; step < kSpreadSteps; ++step) {
    EXPECT_NEAR(LossOf(got, step), LossOf(want, step), 1e-5 * LossOf(want, step)) << "step " << step;
  }
}

std::vector<DeviceSpread> ConnectedSpreads() {
  const std::vector<std::string> names = {
      "ddp",     "zero_3_recompute_bf16", "frontier_of_four", "deterministic",     "tensor",
      "ulysses", "pipeline_of_tied",      "expert_bf16",      "expert_and_tensor", "expert_and_pipeline"};
  std::vector<DeviceSpread> some;
  for (const auto& all : {DenseDeviceSpreads(), SparseDeviceSpreads()}) {
    for (const DeviceSpread& spread : all) {
      if (std::find(names.begin(), names.end(), spread.name) != names.end()) some.push_back(spread);
    }
  }
  return some;
}

INSTANTIATE_TEST_SUITE_P(Some, ConnectedDevices, ::testing::ValuesIn(ConnectedSpreads()), NameOf);

}  // namespace
}  // namespace cohort::parallel
