#include "runtime/checkpoint/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "runtime/checkpoint/agree.h"
#include "runtime/checkpoint/checkpoint_folders.h"
#include "runtime/checkpoint/hf_folder.h"
#include "tests/runtime/checkpoint/fake_trainable.h"
#include "tests/support/temp_folder.h"

namespace cohort::runtime {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class CheckpointTest : public ::testing::Test {
 protected:
  CheckpointTest() : root_(temp_.path() + "/checkpoints") {
    options_.root = root_;
    options_.config = FakeConfig();
  }
  // A world of `ranks`, experts split over `split`, filled with the step, saves it.
  void Save(int64_t step, int ranks = 1, int split = 1, DataType compute = DataType::kBF16) {
    RunRanks(ranks, [&](std::shared_ptr<FakeWorld> world, int rank) {
      FakeTrainable trainable(world, rank, split, compute);
      trainable.Fill(static_cast<double>(step));
      auto saved = SaveCheckpoint(trainable, trainable.optimizer, StateOf(step), options_);
      EXPECT_TRUE(saved.ok()) << saved.status();
    });
  }
  static TrainerState StateOf(int64_t step) {
    TrainerState state;
    state.step = step;
    state.tokens = step * 512;
    state.seed = 0xfedcba9876543210u;
    state.data_fingerprint = "abc";
    return state;
  }
  // Every rank of another world loads the folder and has what step's Fill had.
  void ExpectLoads(const std::string& folder, int64_t step, int ranks = 1, int split = 1,
                   DataType compute = DataType::kBF16) {
    RunRanks(ranks, [&](std::shared_ptr<FakeWorld> world, int rank) {
      FakeTrainable trainable(world, rank, split, compute);
      auto state = LoadCheckpoint(trainable, FakeConfig(), trainable.optimizer, folder);
      ASSERT_TRUE(state.ok()) << state.status();
      EXPECT_EQ(trainable.Difference(static_cast<double>(step)), "");
      EXPECT_EQ(state->step, step);
      EXPECT_EQ(state->tokens, step * 512);
      EXPECT_EQ(state->seed, 0xfedcba9876543210u);
      EXPECT_EQ(state->data_fingerprint, "abc");
    });
  }
  absl::Status Load(const std::string& folder) {
    FakeTrainable trainable(std::make_shared<FakeWorld>(1), 0, 1, DataType::kBF16);
    return LoadCheckpoint(trainable, FakeConfig(), trainable.optimizer, folder).status();
  }
  std::vector<std::string> Names() {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(root_)) names.push_back(entry.path().filename().string());
    std::sort(names.begin(), names.end());
    return names;
  }

  TempFolder temp_;
  std::string root_;
  CheckpointOptions options_;
};

TEST_F(CheckpointTest, AnyArrangementLoadsWhatAnyOtherWrote) {
  const std::pair<int, int> arrangements[] = {{1, 1}, {2, 1}, {2, 2}, {3, 2}, {4, 4}};
  int64_t step = 1;
  for (const auto& [ranks, split] : arrangements) {
    Save(++step, ranks, split);
    for (const auto& [more, other] : arrangements) ExpectLoads(root_ + "/latest", step, more, other);
  }
}

TEST_F(CheckpointTest, MasterIsTheValueInF32) {
  Save(5, 2, 2, DataType::kF32);
  ExpectLoads(root_ + "/latest", 5, 1, 1, DataType::kF32);
}

TEST_F(CheckpointTest, LayoutIsHuggingFaces) {
  std::ofstream(temp_.path() + "/tokenizer.json") << "{}";
  std::ofstream(temp_.path() + "/tokenizer_config.json") << "{\"a\":1}";
  options_.tokenizer = temp_.path() + "/tokenizer.json";
  Save(7, 2, 2);
  const std::string folder = root_ + "/step-00000007";
  EXPECT_EQ(fs::read_symlink(root_ + "/latest"), "step-00000007");
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename().string());
  EXPECT_THAT(names, ::testing::UnorderedElementsAre(
                         "config.json", "model-00001-of-00002.safetensors",
                         "model-00002-of-00002.safetensors", "model.safetensors.index.json",
                         "optimizer-00000-of-00002.safetensors", "optimizer-00001-of-00002.safetensors",
                         "tokenizer.json", "tokenizer_config.json", "trainer_state.json"));
  const auto config = nlohmann::json::parse(*ReadFile(folder + "/config.json"), nullptr, false);
  EXPECT_EQ(config["torch_dtype"], "bfloat16");
  auto weights = HfFolder::Open(folder);
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_EQ(weights->names().size(), 7u);
  EXPECT_EQ(weights->Find("w")->dtype, DataType::kBF16);
  EXPECT_EQ(weights->Find("bias")->dtype, DataType::kF32);  // a buffer is state
}

TEST_F(CheckpointTest, KeepsTheNewestAndRemovesLeftovers) {
  Save(100);
  fs::create_directories(root_ + "/step-00000150.partial/deep");
  fs::create_symlink("nowhere", root_ + "/latest.partial");
  fs::create_directories(root_ + "/step-5");  // not a name of ours
  Save(200);
  Save(300);
  EXPECT_THAT(Names(), ElementsAre("latest", "step-00000200", "step-00000300", "step-5"));
  ExpectLoads(root_ + "/latest", 300);
  ExpectLoads(root_ + "/step-00000200", 200);
}

TEST_F(CheckpointTest, TheSameStepAgainReplacesIt) {
  Save(10, 2, 2);
  Save(10);
  EXPECT_THAT(Names(), ElementsAre("latest", "step-00000010"));
  EXPECT_FALSE(fs::exists(root_ + "/step-00000010/optimizer-00001-of-00002.safetensors"));
  ExpectLoads(root_ + "/latest", 10);
}

TEST(StepsToRemoveTest, TheSavedOneStaysAndAbandonedHistoryGoesFirst) {
  EXPECT_THAT(StepsToRemove({100, 200, 300}, 300, 2), ElementsAre(100));
  EXPECT_THAT(StepsToRemove({100, 200, 300}, 300, 3), IsEmpty());
  EXPECT_THAT(StepsToRemove({100, 200, 300}, 300, 0), ElementsAre(200, 100));
  EXPECT_THAT(StepsToRemove({50, 100, 200, 300}, 100, 2), ElementsAre(200, 300));
  EXPECT_THAT(StepsToRemove({}, 1, 1), IsEmpty());
}

TEST(StepFolderNameTest, RoundTrips) {
  EXPECT_EQ(StepFolderName(100), "step-00000100");
  for (int64_t step : {0L, 7L, 123456789L, 12345678901L})
    EXPECT_EQ(ParseStepFolderName(StepFolderName(step)), step);
  for (const char* name :
       {"step-1", "step-", "step-0000010x", "latest", "step-00000100.partial", "step--0000001"}) {
    EXPECT_EQ(ParseStepFolderName(name), std::nullopt) << name;
  }
}

TEST_F(CheckpointTest, LatestCheckpoint) {
  EXPECT_EQ(LatestCheckpoint(root_), std::nullopt);
  Save(1);
  EXPECT_EQ(LatestCheckpoint(root_), root_ + "/latest");
  fs::remove(root_ + "/latest");
  EXPECT_EQ(LatestCheckpoint(root_), root_ + "/step-00000001");
}

TEST_F(CheckpointTest, BrokenCheckpointsAreClearErrors) {
  Save(1, 2, 2);
  const std::string folder = root_ + "/step-00000001";
  struct Case {
    const char* file;
    const char* text;  // null: removed
    const char* message;
  };
  const Case cases[] = {
      {"trainer_state.json", nullptr, "cannot open"},
      {"trainer_state.json", "{", "not valid JSON"},
      {"trainer_state.json", R"({"version":2})", "\"version\" must be an integer from 1 to 1"},
      {"trainer_state.json", R"({"version":1,"step":-3})", "\"step\" must be"},
      {"trainer_state.json", R"({"version":1,"step":3,"tokens":1})", "\"seed\" is missing"},
      {"model.safetensors.index.json", nullptr, "neither model.safetensors nor"},
      {"model-00002-of-00002.safetensors", nullptr, "the shard model-00002-of-00002.safetensors"},
      {"model-00001-of-00002.safetensors", "broken", "truncated"},
      {"optimizer-00001-of-00002.safetensors", nullptr, "optimizer-00001-of-00002.safetensors: No such file"},
      {"optimizer-00001-of-00002.safetensors", "12345678", "optimizer-00001-of-00002.safetensors"},
  };
  for (const Case& c : cases) {
    const std::string file = folder + "/" + c.file, kept = temp_.path() + "/kept";
    fs::rename(file, kept);
    if (c.text != nullptr) std::ofstream(file) << c.text;
    const absl::Status status = Load(folder);
    EXPECT_FALSE(status.ok()) << c.message;
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.message));
    fs::rename(kept, file);
  }
  ExpectLoads(folder, 1);

  fs::copy_file(folder + "/optimizer-00000-of-00002.safetensors",
                folder + "/optimizer-00001-of-00002.safetensors", fs::copy_options::overwrite_existing);
  EXPECT_THAT(std::string(Load(folder).message()), HasSubstr("have no tensor 'mlp.experts.2.w1/master'"));
  EXPECT_FALSE(Load(temp_.path() + "/none").ok());
}

TEST_F(CheckpointTest, OneRanksFailureIsEveryRanks) {
  Save(1);
  options_.tokenizer = temp_.path() + "/none.json";  // only rank 0 looks for it
  RunRanks(3, [&](std::shared_ptr<FakeWorld> world, int rank) {
    FakeTrainable trainable(world, rank, 1, DataType::kBF16);
    auto saved = SaveCheckpoint(trainable, trainable.optimizer, StateOf(2), options_);
    EXPECT_EQ(saved.status().code(), absl::StatusCode::kNotFound) << saved.status();
    EXPECT_THAT(std::string(saved.status().message()), HasSubstr("rank 0: cannot open"));
  });
  EXPECT_THAT(Names(), ElementsAre("latest", "step-00000001"));
  ExpectLoads(root_ + "/latest", 1);
}

TEST(AgreeStatusTest, FirstCodeAndEveryMessage) {
  RunRanks(3, [&](std::shared_ptr<FakeWorld> world, int rank) {
    FakeTrainable trainable(world, rank, 1, DataType::kBF16);
    EXPECT_TRUE(AgreeStatus(trainable, absl::OkStatus()).ok());
    const absl::Status mine = rank == 0   ? absl::OkStatus()
                              : rank == 1 ? absl::ResourceExhaustedError("full disk")
                                          : absl::InternalError("");
    const absl::Status agreed = AgreeStatus(trainable, mine);
    EXPECT_EQ(agreed, absl::ResourceExhaustedError("rank 1: full disk; rank 2: "));
  });
}

}  // namespace
}  // namespace cohort::runtime
