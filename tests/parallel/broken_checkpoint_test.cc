// Broken checkpoints and full disks, met by real ranks whose state is split: every rank says the same, names the file
// and the tensor, and none hangs. And what a save costs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "parallel/global_sums.h"
#include "runtime/checkpoint/agree.h"
#include "runtime/checkpoint/checkpoint.h"
#include "runtime/file.h"
#include "tests/parallel/arranged_training.h"
#include "tests/runtime/checkpoint/file_size_limit.h"
#include "tests/support/temp_folder.h"

namespace cohort::parallel {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

const Spread& Three() {
  static const Spread* three = new Spread(Over("three, zero-3", 3, {.shard = 3}, "zero-3"));
  return *three;
}

class BrokenCheckpointTest : public ::testing::Test {
 protected:
  BrokenCheckpointTest() {
    testing::RunRanks(3, [&](comm::Communicator& world) {
      ArrangedTraining training = ArrangedTraining::Make(config_, DataType::kBF16, Three(), world);
      training.model->Initialize(5);
      ASSERT_TRUE(Save(training, 1).ok());
    });
  }
  absl::Status Save(ArrangedTraining& training, int64_t step) const {
    runtime::TrainerState state;
    state.step = step;
    return SaveCheckpoint(*training.model, training.optimizer, state,
                          {.root = temp_.path(), .config = config_, .tokenizer = "", .shard_bytes = 4000})
        .status();
  }
  std::string Folder() const { return temp_.Path("step-00000001"); }
  std::string Path(const std::string& file) const { return Folder() + "/" + file; }
  // Cuts off its last bytes.
  void Truncate(const std::string& file, int64_t bytes) const {
    fs::resize_file(Path(file), fs::file_size(Path(file)) - static_cast<uintmax_t>(bytes));
  }
  // Of the files of weights the last one.
  std::string LastShard() const {
    std::string last;
    for (const auto& entry : fs::directory_iterator(Folder())) {
      const std::string name = entry.path().filename();
      if (name.starts_with("model-")) last = std::max(last, name);
    }
    return last;
  }
  // Every rank gets this error, whether it resumes from the folder or imports its weights.
  void ExpectErrors(const std::vector<std::string>& parts, bool weights_too) const {
    testing::RunRanks(3, [&](comm::Communicator& world) {
      const auto expect = [&](const absl::Status& status) {
        ASSERT_FALSE(status.ok());
        for (const std::string& part : parts) {
          EXPECT_THAT(std::string(status.message()), HasSubstr(part)) << "rank " << world.rank();
        }
        const auto all = GatherStrings(world, status.ToString());
        ASSERT_TRUE(all.ok()) << all.status();
        EXPECT_EQ((*all)[0], status.ToString()) << "all ranks say the same";
      };
      ArrangedTraining training = ArrangedTraining::Make(config_, DataType::kBF16, Three(), world);
      expect(LoadCheckpoint(*training.model, config_, training.optimizer, Folder()).status());
      if (weights_too) expect(AgreeStatus(*training.model, training.model->LoadWeights(Folder())));
    });
  }

  const runtime::ModelConfig config_ = ArrangedConfig("qwen3_moe");
  TempFolder temp_ = TempFolder(TempFolder::Memory());
};

TEST_F(BrokenCheckpointTest, ATruncatedFileOfWeights) {
  const std::string file = LastShard();
  Truncate(file, 10);
  ExpectErrors({file}, /*weights_too=*/true);
}

TEST_F(BrokenCheckpointTest, ATruncatedFileOfOptimizerState) {
  Truncate("optimizer-00001-of-00003.safetensors", 4);
  ExpectErrors({"optimizer-00001-of-00003.safetensors"}, false);
}

TEST_F(BrokenCheckpointTest, AMissingIndexAndAMissingFile) {
  fs::rename(Path("model.safetensors.index.json"), Path("index"));
  ExpectErrors({Folder(), "model.safetensors.index.json"}, true);
  fs::rename(Path("index"), Path("model.safetensors.index.json"));
  fs::remove(Path(LastShard()));
  ExpectErrors({"is missing", "of tensor '"}, true);
}

TEST_F(BrokenCheckpointTest, AnOptimizerFileThatIsNotThere) {
  fs::remove(Path("optimizer-00000-of-00003.safetensors"));
  ExpectErrors({"optimizer-00000-of-00003.safetensors", "No such file"}, false);
}

TEST_F(BrokenCheckpointTest, AWrongShapeOfWeightsAndOfState) {
  // The same number of bytes: only the model knows better. model.norm.weight is [10].
  for (const auto& entry : fs::directory_iterator(Folder())) {
    if (entry.path().extension() != ".safetensors") continue;
    const std::string name = entry.path().filename(), text = *runtime::ReadFile(entry.path());
    for (const char* tensor : {"\"model.norm.weight\"", "\"model.norm.weight/m\""}) {
      const size_t at = text.find(tensor);
      if (at == std::string::npos) continue;
      const size_t shape = text.find("[10]", at);
      ASSERT_NE(shape, std::string::npos);
      std::string changed = text;
      // JSON may have blanks, and the header keeps its length.
      changed.replace(shape, 4, "[5,2]");
      const size_t blank = changed.find(" ", shape);
      ASSERT_LT(blank, changed.size());
      changed.erase(blank, 1);
      std::ofstream(entry.path(), std::ios::binary) << changed;
      if (std::string(tensor).find("/m") == std::string::npos) {
        ExpectErrors({"wrong shapes: model.norm.weight is [5,2] instead of [10]"}, true);
      } else {
        ExpectErrors({name, "model.norm.weight/m", "[5,2]"}, false);
      }
      std::ofstream(entry.path(), std::ios::binary) << text;
    }
  }
}

TEST_F(BrokenCheckpointTest, AFolderOfAnotherModel) {
  const runtime::ModelConfig other = ArrangedConfig("llama");
  testing::RunRanks(1, [&](comm::Communicator& world) {
    const Spread alone = Over("alone", 1, {}, "ddp");
    ArrangedTraining training = ArrangedTraining::Make(other, DataType::kF32, alone, world);
    training.model->Initialize(5);
    fs::remove_all(Folder());
    ASSERT_TRUE(Save(training, 1).ok());
  });
  ExpectErrors({"do not fit the model (qwen3_moe)", "missing: model.layers.0.mlp.experts.0.down_proj.weight",
                "unexpected: model.layers.0.mlp.down_proj.weight"},
               true);
}

TEST_F(BrokenCheckpointTest, NonsenseInsteadOfTheTrainersState) {
  std::ofstream(Path("trainer_state.json")) << "{\"step\": [}";
  ExpectErrors({"trainer_state.json"}, false);
}

// The disk of one rank is full; all are told, the folder is as it was, and training goes on.
TEST_F(BrokenCheckpointTest, AFullDiskOnAnyRank) {
  testing::RunRanks(3, [&](comm::Communicator& world) {
    ArrangedTraining training = ArrangedTraining::Make(config_, DataType::kBF16, Three(), world);
    training.model->Initialize(5);
    training.Step();
    for (int full = 0; full < 3; ++full) {
      for (const rlim_t bytes : {0, 2000, 20000}) {
        absl::Status status;
        {
          const runtime::FileSizeLimit limit(world.rank() == full ? bytes : RLIM_INFINITY);
          status = Save(training, 2);
        }
        EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << full << ", " << bytes << status;
        EXPECT_THAT(std::string(status.message()),
                    HasSubstr("rank " + std::to_string(full) + ": cannot write"));
        EXPECT_THAT(std::string(status.message()), HasSubstr(".safetensors"));
      }
    }
    EXPECT_GT(training.Step(), 0);
    if (world.rank() == 0) {
      EXPECT_FALSE(fs::exists(temp_.Path("step-00000002.partial")));
      EXPECT_EQ(fs::read_symlink(temp_.Path("latest")), "step-00000001");
    }
    EXPECT_TRUE(Save(training, 2).ok());
  });
}

// All ranks together write as many bytes as the files have: nobody writes what another one does, and nothing goes to
// one rank first.
TEST_F(BrokenCheckpointTest, NothingIsWrittenTwice) {
  for (const Spread& spread : SparseSpreads()) {
    std::vector<std::unique_ptr<SharedDoubles>> written;
    for (int rank = 0; rank < spread.ranks; ++rank) written.push_back(std::make_unique<SharedDoubles>(1));
    testing::RunRanks(spread.ranks, [&](comm::Communicator& world) {
      // rchar, wchar, ..: what this process has asked the system to write.
      const auto so_far = [] {
        std::ifstream io("/proc/self/io");
        std::string key;
        double value = 0;
        while (io >> key >> value && key != "wchar:") {
        }
        return value;
      };
      ArrangedTraining training = ArrangedTraining::Make(config_, DataType::kF32, spread, world);
      training.model->Initialize(5);
      const double before = so_far();
      ASSERT_TRUE(Save(training, 7).ok());
      (*written[static_cast<size_t>(world.rank())])[0] = so_far() - before;
    });
    double all = 0, files = 0, most = 0;
    for (const auto& rank : written) {
      all += (*rank)[0];
      most = std::max(most, (*rank)[0]);
    }
    for (const auto& entry : fs::directory_iterator(temp_.Path("step-00000007"))) {
      files += static_cast<double>(entry.file_size());
    }
    EXPECT_GT(all, files * 0.99) << spread.name;
    // Ranks wake each other with a few bytes.
    EXPECT_LT(all, files * 1.01 + 4000) << spread.name;
    EXPECT_LT(most, files / spread.ranks * 1.5 + 20000) << spread.name << ": all write about as much";
    fs::remove_all(temp_.Path("step-00000007"));
  }
}

}  // namespace
}  // namespace cohort::parallel
