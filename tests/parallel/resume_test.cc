// Checkpoints saved on one mesh and gone on with on others: the losses are those of a run that was not interrupted, and
// what the other mesh saves holds the same bytes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "runtime/checkpoint/checkpoint.h"
#include "runtime/checkpoint/safetensors.h"
#include "tests/parallel/arranged_training.h"
#include "tests/runtime/device/far_device.h"
#include "tests/support/temp_folder.h"

namespace cohort::parallel {
namespace {

constexpr int kBefore = 3, kAfter = 4;  // steps
// Meshes that divide matrices among other numbers of ranks are one rounding apart in bf16 from the first loss on: each
// rank's summand of a product is rounded before the sum, and where one rank holds all, the gradients of a layer's input
// are rounded from matrix to matrix instead. Measured: 8.8e-4.
constexpr LossTolerance kRoundedElsewhere = {kOneRounding, kOneRounding};

struct Case {
  const char* name;
  const char* family;
  DataType compute;
  size_t from;  // which one saves
};
// Printed by gtest.
void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

// The bytes of every tensor in the files of a checkpoint.
std::map<std::string, std::string> Contents(const std::string& folder) {
  std::map<std::string, std::string> contents;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() != ".safetensors") continue;
    const auto file = runtime::SafetensorsFile::Open(entry.path());
    EXPECT_TRUE(file.ok()) << file.status();
    for (const runtime::TensorInfo& tensor : file->tensors()) {
      const auto values = file->Read(tensor.name);
      EXPECT_TRUE(values.ok()) << values.status();
      const auto [it, is_new] = contents.try_emplace(tensor.name, static_cast<const char*>(values->raw()),
                                                     static_cast<size_t>(values->bytes()));
      EXPECT_TRUE(is_new) << tensor.name << " is in two files";
    }
  }
  return contents;
}

class Resume : public ::testing::TestWithParam<Case> {
 protected:
  runtime::CheckpointOptions Options(const std::string& root) const {
    return {.root = temp_.Path(root), .config = config_, .tokenizer = "", .keep = 9, .shard_bytes = 20000};
  }
  void Save(ArrangedTraining& training, const std::string& root) const {
    runtime::TrainerState state;
    state.step = training.optimizer.step;
    const auto saved = SaveCheckpoint(*training.model, training.optimizer, state, Options(root));
    ASSERT_TRUE(saved.ok()) << saved.status();
  }

  // Trains, saves, and goes on: the losses from then on.
  std::vector<double> WithoutInterruption(const Spread& spread,
                                          runtime::Device& (*device)() = runtime::CpuDevice,
                                          const std::string& root = "first") {
    SharedDoubles losses(kAfter);
    testing::RunRanks(spread.ranks, [&](comm::Communicator& world) {
      ArrangedTraining training =
          ArrangedTraining::Make(config_, GetParam().compute, spread, world, device());
      training.model->Initialize(5);
      for (int i = 0; i < kBefore; ++i) training.Step();
      Save(training, root);
      training.Steps(kAfter, losses, 0);
    });
    return losses.Take();
  }
  std::vector<double> GoneOn(const Spread& spread, runtime::Device& (*device)() = runtime::CpuDevice,
                             const std::string& root = "first", const std::string& saves_in = "") {
    SharedDoubles losses(kAfter);
    testing::RunRanks(spread.ranks, [&](comm::Communicator& world) {
      ArrangedTraining training =
          ArrangedTraining::Make(config_, GetParam().compute, spread, world, device());
      const auto state =
          LoadCheckpoint(*training.model, config_, training.optimizer, temp_.Path(root) + "/latest");
      ASSERT_TRUE(state.ok()) << state.status();
      EXPECT_EQ(state->step, kBefore);
      Save(training, saves_in.empty() ? spread.name : saves_in);
      training.Steps(kAfter, losses, 0);
    });
    return losses.Take();
  }

  const runtime::ModelConfig config_ = ArrangedConfig(GetParam().family);
  TempFolder temp_ = TempFolder(TempFolder::Memory());  // saves wait for their disk
};

TEST_P(Resume, GoesOnOnEveryOtherMesh) {
  const Case& c = GetParam();
  const std::vector<Spread> all = config_.num_experts > 0 ? SparseSpreads() : DenseSpreads();
  const std::vector<double> want = WithoutInterruption(all[c.from]);
  ASSERT_GT(want[0], 0);
  const std::string step = "/step-00000003";
  const auto saved = Contents(temp_.Path("first") + step);
  ASSERT_GT(saved.size(), 40u);
  int compared = 0;
  for (size_t i = 0; i < all.size(); ++i) {
    const Spread& other = all[i];
    const std::vector<double> got = GoneOn(other);
    // What it holds is what was saved, bit for bit, whatever the types.
    EXPECT_EQ(Contents(temp_.Path(other.name) + step), saved) << other.name;
    if (i == c.from) {
      EXPECT_EQ(got, want) << other.name;
      continue;
    }
    const auto tensor = [](const Spread& spread) { return spread.arrangement.shape.tensor; };
    const bool rounds_alike = c.compute != DataType::kBF16 || tensor(other) == tensor(all[c.from]);
    ExpectSameLosses(got, want, rounds_alike ? ToleranceOf(c.compute) : kRoundedElsewhere, other.name);
    if (rounds_alike) ++compared;
  }
  EXPECT_GE(compared, 5);
}

// The weights of the folder alone, as any Hugging Face folder is imported.
TEST_P(Resume, ImportedWeightsHaveTheSameFirstLossOnEveryMesh) {
  const Case& c = GetParam();
  const std::vector<Spread> all = config_.num_experts > 0 ? SparseSpreads() : DenseSpreads();
  WithoutInterruption(all[c.from]);
  const auto saved = runtime::ModelConfig::Load(temp_.Path("first/latest"));
  ASSERT_TRUE(saved.ok()) << saved.status();
  std::vector<double> want;  // of those that round alike
  for (const Spread& spread : all) {
    SharedDoubles loss(1);
    testing::RunRanks(spread.ranks, [&](comm::Communicator& world) {
      ArrangedTraining training = ArrangedTraining::Make(*saved, c.compute, spread, world);
      const absl::Status loaded = training.model->LoadWeights(temp_.Path("first/latest"));
      ASSERT_TRUE(loaded.ok()) << loaded;
      training.Steps(1, loss, 0);
    });
    ASSERT_GT(loss[0], 0);
    const bool rounds_alike = c.compute != DataType::kBF16 || spread.arrangement.shape.tensor == 1;
    if (rounds_alike) want.push_back(loss[0]);
    EXPECT_NEAR(loss[0], want[0], (rounds_alike ? kSameLoss : kOneRounding) * want[0]) << spread.name;
  }
  EXPECT_GE(want.size(), 5u);
}

INSTANTIATE_TEST_SUITE_P(Models, Resume,
                         ::testing::Values(Case{"dense_from_zero_3", "llama", DataType::kF32, 1},
                                           Case{"dense_from_tensor", "llama", DataType::kF32, 4},
                                           Case{"dense_from_pipeline", "llama", DataType::kF32, 6},
                                           Case{"dense_bf16", "llama", DataType::kBF16, 3},
                                           Case{"tied_from_pipeline", "llama_tied", DataType::kF32, 6},
                                           Case{"tied_from_shards", "llama_tied", DataType::kF32, 7},
                                           Case{"tied_bf16", "llama_tied", DataType::kBF16, 5},
                                           Case{"experts_from_alone", "qwen3_moe", DataType::kF32, 0},
                                           Case{"experts_from_expert_4", "qwen3_moe", DataType::kF32, 3},
                                           Case{"experts_from_tensor", "qwen3_moe", DataType::kF32, 4},
                                           Case{"experts_bf16", "qwen3_moe", DataType::kBF16, 5}),
                         [](const auto& info) { return std::string(info.param.name); });

// Ranks whose devices have memory that no host reaches save what ranks on CPUs save, to the byte, and go on from it on
// other meshes as those do, bit for bit.
class ResumeOnDevices : public Resume {};

TEST_P(ResumeOnDevices, SavesAndGoesOnAsOnCpus) {
  const Case& c = GetParam();
  const std::vector<Spread> all = config_.num_experts > 0 ? SparseSpreads() : DenseSpreads();
  const std::string step = "/step-00000003";
  EXPECT_EQ(WithoutInterruption(all[c.from], runtime::FarDevice, "devices"),
            WithoutInterruption(all[c.from]));
  const auto saved = Contents(temp_.Path("first") + step);
  ASSERT_GT(saved.size(), 40u);
  EXPECT_EQ(Contents(temp_.Path("devices") + step), saved);
  for (size_t i = 0; i < all.size(); i += 2) {
    const std::vector<double> got = GoneOn(all[i], runtime::FarDevice, "devices", "again");
    EXPECT_EQ(got, GoneOn(all[i])) << all[i].name;
    EXPECT_EQ(Contents(temp_.Path("again") + step), saved) << all[i].name;
    std::filesystem::remove_all(temp_.Path("again"));
  }
}

INSTANTIATE_TEST_SUITE_P(Models, ResumeOnDevices,
                         ::testing::Values(Case{"dense_from_zero_3", "llama", DataType::kF32, 1},
                                           Case{"tied_bf16_from_pipeline", "llama_tied", DataType::kBF16, 5},
                                           Case{"experts_from_expert_4", "qwen3_moe", DataType::kF32, 3}),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace cohort::parallel
