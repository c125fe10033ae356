// Checkpoints that are written from snapshots while the training goes on, and trainings that need them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "parallel/elastic/elastic_run.h"
#include "runtime/checkpoint/checkpoint_folders.h"
#include "tests/parallel/elastic/saving_scenario.h"
#include "tests/support/temp_folder.h"

namespace cohort::parallel {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

// Every file of a folder of checkpoints, by its path in it.
std::map<std::string, std::string> FilesIn(const std::string& root) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(root)) {
    const std::string name = fs::relative(entry.path(), root).string();
    if (entry.is_symlink()) {
      files[name] = fs::read_symlink(entry.path()).string();
    } else if (entry.is_regular_file()) {
      std::stringstream text;
      text << std::ifstream(entry.path()).rdbuf();
      files[name] = text.str();
    }
  }
  return files;
}

std::vector<std::string> NamesOf(const std::map<std::string, std::string>& files) {
  std::vector<std::string> names;
  for (const auto& [name, text] : files) names.push_back(name);
  return names;
}

// The same files, to the byte, as ranks write that wait.
void ExpectSameFiles(SavingScenario scenario) {
  const TempFolder here, there;
  scenario.checkpoints = here.Path("checkpoints");
  SavesTold told;
  PlaySaving(scenario, told);
  EXPECT_THAT(told.Steps(SavesTold::kSaved), ElementsAre(3, 6, 9, 12));
  EXPECT_EQ(told.inside[6], 0);
  EXPECT_EQ(told.inside[12], 1) << "the last one is there when the run ends";
  EXPECT_EQ(told.losses.Take(), SaveInside(scenario, there.Path("checkpoints")));
  const auto files = FilesIn(scenario.checkpoints), want = FilesIn(there.Path("checkpoints"));
  EXPECT_EQ(NamesOf(files), NamesOf(want));
  EXPECT_GT(files.size(), 4u * 6);
  for (const auto& [name, text] : want) EXPECT_TRUE(files.contains(name) && files.at(name) == text) << name;
}

TEST(ElasticSave, TheSameFilesAsOfRanksThatWait) { ExpectSameFiles({}); }

TEST(ElasticSave, TheSameFilesInBf16WithExpertsWhereFewStepsHaveSnapshots) {
  ExpectSameFiles({.model = "qwen3_moe", .dtype = "bf16", .snapshot_every = 5});
}

TEST(ElasticSave, TheSameFilesOfDevices) {
  ExpectSameFiles({.model = "qwen3_moe", .dtype = "bf16", .far = true});
}

TEST(ElasticSave, TheSameFilesWithParity) {
  ExpectSameFiles({.founders = 4, .hosts = {"a", "b", "c", "d"}, .lost_hosts = 1});
}

// Three processes write; one is in the middle of it when it dies.
TEST(ElasticSave, ARankThatDiesWhileACheckpointIsWritten) {
  const TempFolder folder;
  SavesTold told;
  SavingScenario scenario = {.checkpoints = folder.Path("checkpoints"), .victims = {1}};
  scenario.before_write = [&](int process, int64_t step) {
    if (process != 1 || step != 6) return;
    told.together.Add();
    absl::SleepFor(absl::Seconds(30));
  };
  scenario.at_step = [&](int process, int64_t step, bool&) {
    if (process != 1 || step != 8) return;
    EXPECT_TRUE(told.together.WaitFor(1));
    EXPECT_EQ(fs::read_symlink(scenario.checkpoints + "/latest").string(), "step-00000003");
    kill(getpid(), SIGKILL);
  };
  PlaySaving(scenario, told);
  EXPECT_THAT(told.Steps(SavesTold::kFailed), ElementsAre(6));
  EXPECT_THAT(told.Steps(SavesTold::kSaved), ElementsAre(3, 9, 12));
  EXPECT_THAT(runtime::ListSteps(scenario.checkpoints), ElementsAre(3, 9, 12));
  for (const std::string& name : NamesOf(FilesIn(scenario.checkpoints)))
    EXPECT_THAT(name, Not(HasSubstr("partial")));
  const TempFolder there;
  EXPECT_EQ(told.losses.Take(), SaveInside(scenario, there.Path("checkpoints")));
  EXPECT_EQ(told.loads[0], 1);
}

TEST(ElasticSave, AFullDiskIsToldAndTheTrainingGoesOn) {
  const TempFolder folder;
  SavesTold told;
  const SavingScenario scenario = {.checkpoints = folder.Path("checkpoints"), .disk = 1'000};
  PlaySaving(scenario, told);
  EXPECT_THAT(told.Steps(SavesTold::kFailed), ElementsAre(6));
  EXPECT_THAT(told.Steps(SavesTold::kSaved), ElementsAre(3, 9, 12));
  EXPECT_THAT(runtime::ListSteps(scenario.checkpoints), ElementsAre(3, 9, 12));
}

// Its image is not written over, however many steps are made meanwhile; the next checkpoint waits for it.
TEST(ElasticSave, ADiskThatIsSlow) {
  const TempFolder here, there;
  SavesTold told;
  SavingScenario scenario = {.checkpoints = here.Path("checkpoints")};
  scenario.before_write = [&](int process, int64_t step) {
    if (process == 2 && step == 3) {
      EXPECT_TRUE(told.together.WaitFor(1));
    }
  };
  scenario.at_step = [&](int process, int64_t step, bool&) {
    if (process == 0 && step == 5) told.together.Add();
  };
  PlaySaving(scenario, told);
  EXPECT_THAT(told.Steps(SavesTold::kSaved), ElementsAre(3, 6, 9, 12));
  EXPECT_EQ(told.losses.Take(), SaveInside(scenario, there.Path("checkpoints")));
  EXPECT_TRUE(FilesIn(here.Path("checkpoints")) == FilesIn(there.Path("checkpoints")));
}

// All are told to stop while one is lost: what is left becomes whole, and is saved.
TEST(ElasticSave, AllLeaveWhenOneWasLost) {
  const TempFolder here, there;
  SavesTold told;
  SavingScenario scenario = {.checkpoints = here.Path("checkpoints"), .save_every = 0, .victims = {1}};
  scenario.at_step = [&](int process, int64_t step, bool& leaves) {
    if (step != 5) return;
    leaves = true;
    if (process == 1) kill(getpid(), SIGKILL);
  };
  PlaySaving(scenario, told);
  EXPECT_EQ(told.ends[0], 1 + static_cast<double>(ElasticEnd::kStopped));
  EXPECT_EQ(told.ends[2], 1 + static_cast<double>(ElasticEnd::kStopped));
  EXPECT_THAT(told.Steps(SavesTold::kSaved), ElementsAre(4)) << "whose snapshots were whole";
  EXPECT_EQ(told.loads[0], 1) << "the state came from the disk";
  // Others go on from there.
  scenario.at_step = [](int, int64_t, bool&) {};
  scenario.victims.clear();
  PlaySaving(scenario, told);
  EXPECT_EQ(told.losses.Take(), SaveInside(scenario, there.Path("checkpoints")));
}

// Three hosts of six with parity for two, at one moment.
TEST(ElasticSave, MoreHostsThanParityMakesUpFor) {
  const TempFolder here, there;
  SavesTold told;
  SavingScenario scenario = {.checkpoints = here.Path("checkpoints"),
                             .founders = 6,
                             .hosts = {"a", "b", "c", "d", "e", "f"},
                             .lost_hosts = 2,
                             .victims = {1, 3, 4}};
  scenario.at_step = [&](int process, int64_t step, bool&) {
    if (step != 8 || (process != 1 && process != 3 && process != 4)) return;
    const auto saved = [&] {
      std::error_code none;
      return fs::read_symlink(scenario.checkpoints + "/latest", none) == "step-00000006";
    };
    for (int i = 0; !saved() && i < 1000; ++i) absl::SleepFor(absl::Milliseconds(10));
    // The last one ends all.
    told.pids[static_cast<size_t>(process)] = getpid();
    told.together.Add();
    EXPECT_TRUE(told.together.WaitFor(3));
    for (const int victim : scenario.victims)
      kill(static_cast<pid_t>(told.pids[static_cast<size_t>(victim)]), SIGKILL);
  };
  PlaySaving(scenario, told);
  EXPECT_EQ(told.loads[0], 2) << "the beginning, and the checkpoint";
  EXPECT_EQ(told.from_disk[0], 1);
  EXPECT_THAT(told.Steps(SavesTold::kFailed), IsEmpty());
  EXPECT_EQ(told.losses.Take(), SaveInside(scenario, there.Path("checkpoints")));
}

}  // namespace
}  // namespace cohort::parallel
