// Ranks whose devices have links of their own train over those: tensors move in NCCL's calls, of which a stand-in
// runs here over memory that no host can reach. Two ranks' sums have one order, so all bits are those of the CPU.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "comm/nccl/device_communicator.h"
#include "tests/comm/nccl/fake_nccl.h"
#include "tests/parallel/any_device_training.h"
#include "tests/runtime/device/far_device.h"
#include "tests/support/temp_folder.h"

namespace cohort::parallel {
namespace {

using comm::nccl::DeviceCommunicator;
using comm::nccl::FakeNccl;

class ConnectedDevices : public ::testing::TestWithParam<DeviceSpread> {
 protected:
  // What each rank does before it makes its model: the stand-in, for as long as that lives.
  std::function<std::shared_ptr<void>()> Connect() {
    return [this] {
      auto fake = std::shared_ptr<FakeNccl>(new FakeNccl(temp_.Path(""), runtime::NearAddress),
                                            [this](FakeNccl* last) {
                                              calls_.Add(last->calls());
                                              runtime::SetConnectFar(nullptr);
                                              delete last;
                                            });
      // One queue for all groups, as a device has it: ranks that do not go by one order wait for each other for ever.
      const comm::nccl::Stream stream = *fake->CreateStream();
      runtime::SetConnectFar([fake = fake.get(), stream](std::shared_ptr<comm::Communicator> host)
                                 -> absl::StatusOr<std::unique_ptr<comm::Communicator>> {
        return DeviceCommunicator::Create(std::move(host), {.stream = stream}, *fake);
      });
      return fake;
    };
  }

  const TempFolder temp_;
  testing::SharedCounter calls_;
};

TEST_P(ConnectedDevices, TrainWithTheSameBits) {
  const std::vector<double> want = TrainOn(runtime::CpuDevice, GetParam());
  const std::vector<double> got = TrainOn(runtime::FarDevice, GetParam(), Connect());
  EXPECT_GT(calls_.Get(), 0) << "nothing went that way";
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
