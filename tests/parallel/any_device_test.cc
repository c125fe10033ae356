// A model trains, is saved and goes on bit for bit the same on a device whose memory the host cannot reach and whose
// operations run late: nothing between the step loop and the operations knows which device it is on.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "runtime/checkpoint/checkpoint.h"
#include "tests/parallel/arranged_training.h"
#include "tests/runtime/device/far_device.h"
#include "tests/support/temp_folder.h"

namespace cohort::parallel {
namespace {

constexpr int kDeviceSteps = 20;

struct DeviceCase {
  const char* name;
  const char* family;
  DataType compute;
};
void PrintTo(const DeviceCase& c, std::ostream* out) { *out << c.name; }

using MakeDevice = runtime::Device& (*)();

class AnyDevice : public ::testing::TestWithParam<DeviceCase> {
 protected:
  runtime::CheckpointOptions Options(const std::string& root) const {
    return {.root = temp_.Path(root), .config = config_, .tokenizer = "", .keep = 9, .shard_bytes = 20000};
  }

  // The losses of kDeviceSteps steps and what is held out; saved half-way in `root`. In a process of its own.
  std::vector<double> Train(MakeDevice device, const std::string& root) const {
    SharedDoubles losses(kDeviceSteps + 1);
    testing::RunRanks(1, [&](comm::Communicator& world) {
      ArrangedTraining training =
          ArrangedTraining::Make(config_, GetParam().compute, DenseSpreads()[0], world, device());
      training.model->Initialize(5);
      training.Steps(kDeviceSteps / 2, losses, 0);
      runtime::TrainerState state;
      state.step = training.optimizer.step;
      const auto saved = SaveCheckpoint(*training.model, training.optimizer, state, Options(root));
      ASSERT_TRUE(saved.ok()) << saved.status();
      training.Steps(kDeviceSteps / 2, losses, kDeviceSteps / 2);
      const auto evaluation = training.model->Evaluate(0);
      ASSERT_TRUE(evaluation.ok()) << evaluation.status();
      losses[kDeviceSteps] = evaluation->loss;
    });
    return losses.Take();
  }

  // The losses of the steps after what was saved in `root`.
  std::vector<double> GoOn(MakeDevice device, const std::string& root) const {
    SharedDoubles losses(kDeviceSteps / 2);
    testing::RunRanks(1, [&](comm::Communicator& world) {
      ArrangedTraining training =
          ArrangedTraining::Make(config_, GetParam().compute, DenseSpreads()[0], world, device());
      const auto state = LoadCheckpoint(*training.model, config_, training.optimizer,
                                        *runtime::LatestCheckpoint(temp_.Path(root)));
      ASSERT_TRUE(state.ok()) << state.status();
      training.Steps(kDeviceSteps / 2, losses, 0);
    });
    return losses.Take();
  }

  // The held-out loss of the weights that were saved there, read as those of a model from elsewhere.
  double Weigh(MakeDevice device, const std::string& root) const {
    SharedDoubles loss(1);
    testing::RunRanks(1, [&](comm::Communicator& world) {
      ArrangedTraining training =
          ArrangedTraining::Make(config_, GetParam().compute, DenseSpreads()[0], world, device());
      const absl::Status status = training.model->LoadWeights(*runtime::LatestCheckpoint(temp_.Path(root)));
      ASSERT_TRUE(status.ok()) << status;
      const auto evaluation = training.model->Evaluate(0);
      ASSERT_TRUE(evaluation.ok()) << evaluation.status();
      loss[0] = evaluation->loss;
    });
    return loss[0];
  }

  const runtime::ModelConfig config_ = ArrangedConfig(GetParam().family);
  const TempFolder temp_;
};

TEST_P(AnyDevice, TrainsAndGoesOnWithTheSameBits) {
  const std::vector<double> want = Train(runtime::CpuDevice, "cpu");
  ASSERT_LT(want[kDeviceSteps - 1], want[0]);
  EXPECT_EQ(Train(runtime::FarDevice, "far"), want);
  const std::vector<double> rest(want.begin() + kDeviceSteps / 2, want.begin() + kDeviceSteps);
  EXPECT_EQ(GoOn(runtime::FarDevice, "cpu"), rest);
  EXPECT_EQ(GoOn(runtime::CpuDevice, "far"), rest);
  EXPECT_EQ(Weigh(runtime::FarDevice, "far"), Weigh(runtime::CpuDevice, "cpu"));
}

INSTANTIATE_TEST_SUITE_P(All, AnyDevice,
                         ::testing::Values(DeviceCase{"dense_f32", "llama", DataType::kF32},
                                           DeviceCase{"dense_tied_bf16", "qwen3_tied", DataType::kBF16},
                                           DeviceCase{"experts_f32", "qwen3_moe", DataType::kF32},
                                           DeviceCase{"experts_bf16", "mixtral", DataType::kBF16}),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace cohort::parallel
