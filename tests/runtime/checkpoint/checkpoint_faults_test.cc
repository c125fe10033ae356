// Full disks and kills during a save: the checkpoint before it is still there and loads.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <random>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "runtime/checkpoint/checkpoint.h"
#include "runtime/checkpoint/checkpoint_folders.h"
#include "tests/runtime/checkpoint/fake_trainable.h"
#include "tests/runtime/checkpoint/file_size_limit.h"
#include "tests/support/temp_folder.h"

namespace cohort::runtime {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

CheckpointOptions OptionsFor(const std::string& root) {
  CheckpointOptions options;
  options.root = root;
  options.config = FakeConfig();
  return options;
}

absl::Status SaveStep(FakeTrainable& trainable, const std::string& root, int64_t step) {
  trainable.Fill(static_cast<double>(step));
  TrainerState state;
  state.step = step;
  return SaveCheckpoint(trainable, trainable.optimizer, state, OptionsFor(root)).status();
}

bool HasPartial(const std::string& root) {
  for (const auto& entry : fs::directory_iterator(root)) {
    if (entry.path().extension() == ".partial") return true;
  }
  return false;
}

// The number of elements that makes files of some 100 KB.
constexpr int64_t kWide = 4096;

TEST(CheckpointFaultsTest, AFullDiskIsReportedOnEveryRankAndTrainingGoesOn) {
  TempFolder temp;
  const std::string root = temp.path() + "/checkpoints";
  RunRanks(2, [&](std::shared_ptr<FakeWorld> world, int rank) {
    FakeTrainable trainable(world, rank, 2, DataType::kBF16, kWide);
    EXPECT_TRUE(SaveStep(trainable, root, 1).ok());
  });
  for (rlim_t limit : {rlim_t{0}, rlim_t{1000}, rlim_t{20000}, rlim_t{150000}}) {
    const FileSizeLimit full(limit);
    RunRanks(2, [&](std::shared_ptr<FakeWorld> world, int rank) {
      FakeTrainable trainable(world, rank, 2, DataType::kBF16, kWide);
      const absl::Status status = SaveStep(trainable, root, 2);
      EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
      EXPECT_THAT(std::string(status.message()), HasSubstr("step 2 was not saved: rank 0: cannot write"));
    });
    EXPECT_FALSE(HasPartial(root)) << limit;
    EXPECT_EQ(fs::read_symlink(root + "/latest"), "step-00000001");
  }
  RunRanks(2, [&](std::shared_ptr<FakeWorld> world, int rank) {
    FakeTrainable trainable(world, rank, 2, DataType::kBF16, kWide);
    auto state = LoadCheckpoint(trainable, FakeConfig(), trainable.optimizer, root + "/latest");
    ASSERT_TRUE(state.ok()) << state.status();
    EXPECT_EQ(trainable.Difference(1), "");
    EXPECT_TRUE(SaveStep(trainable, root, 3).ok());
  });
  EXPECT_EQ(fs::read_symlink(root + "/latest"), "step-00000003");
}

// A real full disk: a small tmpfs in a mount namespace of a child's own.
TEST(CheckpointFaultsTest, ARealFullDisk) {
  TempFolder temp;
  const std::string root = temp.path() + "/disk";
  fs::create_directory(root);
  FakeTrainable trainable(std::make_shared<FakeWorld>(1), 0, 1, DataType::kBF16, kWide);
  enum Outcome : int { kGood, kNotPermitted, kFirstFailed, kWrongCode, kPartialLeft, kLatestLost };
  const pid_t child = fork();
  if (child == 0) {
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        mount("cohort", root.c_str(), "tmpfs", 0, "size=1m") != 0) {
      _exit(kNotPermitted);
    }
    if (!SaveStep(trainable, root, 1).ok()) _exit(kFirstFailed);
    const absl::Status status = SaveStep(trainable, root, 2);
    if (status.code() != absl::StatusCode::kResourceExhausted) _exit(kWrongCode);
    if (HasPartial(root)) _exit(kPartialLeft);
    _exit(fs::read_symlink(root + "/latest") == "step-00000001" ? kGood : kLatestLost);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == kNotPermitted) GTEST_SKIP() << "mounting a tmpfs is not permitted here";
  EXPECT_EQ(WEXITSTATUS(status), kGood);
}

TEST(CheckpointFaultsTest, AKilledSaveLeavesTheLastOne) {
  TempFolder temp;
  const std::string root = temp.path() + "/checkpoints";
  FakeTrainable writer(std::make_shared<FakeWorld>(1), 0, 1, DataType::kBF16);
  FakeTrainable reader(std::make_shared<FakeWorld>(1), 0, 1, DataType::kBF16);
  ASSERT_TRUE(SaveStep(writer, root, 1).ok());

  std::mt19937 random(7);
  int64_t last = 1;
  for (int kill_number = 0; kill_number < 12; ++kill_number) {
    const pid_t child = fork();
    if (child == 0) {
      // Every other step twice, so that kills hit replacements too.
      for (int64_t step = last + 1;; ++step) {
        if (!SaveStep(writer, root, step).ok() || !SaveStep(writer, root, step - step % 2).ok()) _exit(1);
      }
    }
    // Some kills wait for a save of this child's to be finished, however slow the disk
    // is, the others for nothing.
    if (kill_number % 3 == 0) {
      const absl::Time deadline = absl::Now() + absl::Seconds(20);
      const auto saved = [&] { return fs::read_symlink(root + "/latest").string() > StepFolderName(last); };
      while (!saved() && absl::Now() < deadline) usleep(1000);
    }
    usleep(1000 + random() % 30000);
    kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the child ended by itself with " << WEXITSTATUS(status);

    const auto latest = LatestCheckpoint(root);
    ASSERT_TRUE(latest.has_value());
    auto state = LoadCheckpoint(reader, FakeConfig(), reader.optimizer, *latest);
    ASSERT_TRUE(state.ok()) << state.status();
    EXPECT_EQ(reader.Difference(static_cast<double>(state->step)), "");
    EXPECT_GE(state->step, last - 1);
    last = std::max(last, state->step);
  }
  EXPECT_GT(last, 1) << "no save was ever finished";
}

}  // namespace
}  // namespace cohort::runtime
