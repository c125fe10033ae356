// Checkpoints that are written from snapshots while the training goes on, and trainings that need them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "comm/check.h"
#include "parallel/elastic/elastic_run.h"
#include "parallel/elastic/part_snapshots.h"
#include "runtime/checkpoint/checkpoint.h"
#include "runtime/checkpoint/checkpoint_folders.h"
#include "tests/parallel/training_run.h"
#include "tests/runtime/checkpoint/file_size_limit.h"
#include "tests/support/ranks.h"
#include "tests/support/temp_folder.h"

namespace cohort::parallel {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr int kSteps = 12;

// What processes tell the test. By step: losses, and how checkpoints ended.
struct Told {
  static constexpr double kSaved = 1, kFailed = 2;
  SharedDoubles losses{kSteps}, saved{kSteps + 1}, inside{kSteps + 1}, ends{8}, loads{1}, changes{1},
      from_disk{1}, pids{8};
  testing::SharedCounter together;

  std::vector<int64_t> Steps(double how) const {
    std::vector<int64_t> steps;
    const std::vector<double> all = saved.Take();
    for (size_t step = 0; step < all.size(); ++step) {
      if (all[step] == how) steps.push_back(static_cast<int64_t>(step));
    }
    return steps;
  }
};

struct Scenario {
  std::string checkpoints = {};
  std::string model = "llama";
  std::string dtype = "f32";
  int founders = 3;
  int64_t save_every = 3, snapshot_every = 1;
  std::vector<std::string> hosts = {};  // of the processes, as names; none: all on one
  int lost_hosts = 0;
  std::vector<int> victims = {};
  // In the middle of computing the gradients of the step after `step`; sets `leaves` where that is to leave.
  std::function<void(int process, int64_t step, bool& leaves)> at_step = [](int, int64_t, bool&) {};
  // Before this process writes anything of that checkpoint, in the thread that does.
  std::function<void(int process, int64_t step)> before_write = [](int, int64_t) {};
  rlim_t disk = RLIM_INFINITY;  // while step 6 is written
};

v1::TrainConfig ConfigOf(const Scenario& scenario) {
  v1::TrainConfig config;
  config.mutable_train()->set_steps(kSteps);
  config.mutable_train()->set_global_batch(8);
  config.mutable_train()->set_micro_batch(1);
  config.mutable_train()->set_dtype(scenario.dtype);
  config.mutable_train()->set_deterministic(true);
  config.mutable_train()->set_virtual_shards(8);
  config.mutable_data()->set_sequence_length(16);
  v1::ParallelSection& parallel = *config.mutable_parallel();
  parallel.set_sharding("zero-3");
  parallel.set_pipeline(1);
  parallel.set_tensor(1);
  parallel.set_expert(1);
  parallel.set_context(1);
  parallel.set_shard(scenario.founders);
  parallel.set_context_split("zigzag");
  parallel.set_context_way("ring");
  parallel.set_schedule("1f1b");
  return config;
}

runtime::ModelConfig ModelOf(const std::string& family) {
  runtime::ModelConfig config = runtime::TinyConfig(family);
  config.num_hidden_layers = 4;
  config.tie_word_embeddings = false;
  return config;
}

class SavingHost final : public ElasticHost {
 public:
  SavingHost(const Scenario& scenario, const runtime::ModelConfig& model, int process,
             const std::string& folder, Told& told)
      : scenario_(scenario),
        model_(model),
        process_(process),
        told_(told),
        snapshots_({.job = folder, .command = {COHORT_TEST_KEEPER}, .idle_life = absl::Seconds(1)},
                   {.every = scenario.snapshot_every,
                    .parity = {.data = 4, .lost_hosts = scenario.lost_hosts},
                    .saves = true}) {}

  bool AskedToLeave() override { return leaves_; }
  std::unique_ptr<BatchSource> MakeSource() override {
    return std::make_unique<Source>(*this, runtime::CpuDevice(), model_.vocab_size);
  }
  absl::StatusOr<ElasticCounts> Load(ElasticPart& part) override {
    if (part.group->rank() == 0) told_.loads[0] += 1;
    const auto latest = runtime::LatestCheckpoint(scenario_.checkpoints);
    if (!latest) {
      part.model->Initialize(5);
      return ElasticCounts();
    }
    COHORT_ASSIGN_OR_RETURN(const runtime::TrainerState state,
                            LoadCheckpoint(*part.model, model_, part.optimizer, *latest));
    return ElasticCounts{.step = state.step, .tokens = state.tokens, .seconds = 0};
  }
  absl::Status Save(ElasticPart& part, const ElasticCounts& counts, bool more) override {
    Tell(snapshots_.Saved(/*wait=*/true));
    runtime::TrainerState state;
    state.step = counts.step;
    state.tokens = counts.tokens;
    const runtime::CheckpointOptions options = {
        .root = scenario_.checkpoints, .config = model_, .tokenizer = "", .keep = 100, .shard_bytes = 60'000};
    if (more && snapshots_.saves()) {
      snapshots_.Save(part, counts, [this, state, options](auto& ranks, auto written, const auto& attempt) {
        scenario_.before_write(process_, state.step);
        std::unique_ptr<runtime::FileSizeLimit> full;
        if (state.step == 6 && scenario_.disk != RLIM_INFINITY)
          full = std::make_unique<runtime::FileSizeLimit>(scenario_.disk);
        return SaveWritten(ranks, written, state, options, attempt);
      });
      return absl::OkStatus();
    }
    auto saved = SaveCheckpoint(*part.model, part.optimizer, state, options);
    COHORT_RETURN_IF_ERROR(saved.status());
    if (first_) told_.inside[static_cast<size_t>(counts.step)] = 1;
    Tell({{counts.step, *std::move(saved), 0}});
    return absl::OkStatus();
  }
  absl::Status OnChange(ElasticPart& part, const ElasticChange& change) override {
    first_ = !part.spare() && part.group->rank() == 0;
    done_ = change.counts.step;
    COHORT_RETURN_IF_ERROR(snapshots_.Follow(part, change.member, change.counts));
    EXPECT_TRUE(snapshots_.problem().ok()) << snapshots_.problem();
    EXPECT_EQ(snapshots_.saves(), scenario_.snapshot_every > 0 && !part.spare());
    Tell(snapshots_.Saved(/*wait=*/false));
    if (first_) told_.changes[0] += 1;
    if (first_ && change.from_disk) {
      told_.from_disk[0] += 1;
      EXPECT_EQ(change.counts.step, 6) << "the newest checkpoint";
      EXPECT_THAT(change.why, HasSubstr("is not whole"));
      EXPECT_THAT(change.why,
                  HasSubstr("something is missing of 3 hosts, parity of 2 blocks for 4 makes up for 2"));
      EXPECT_THAT(change.why, HasSubstr("of hosts b ("));
      EXPECT_THAT(change.why, HasSubstr("go on from a checkpoint"));
    }
    return absl::OkStatus();
  }
  absl::StatusOr<std::string> Recover(comm::Communicator& world) override {
    return snapshots_.Recover(world);
  }
  std::vector<KeptState> Kept(const comm::Communicator& world) override { return snapshots_.Kept(world); }
  absl::Status AfterGradients() override { return snapshots_.AfterGradients(); }
  absl::Status BeforeUpdate() override { return snapshots_.BeforeUpdate(), absl::OkStatus(); }
  absl::Status AfterUpdate(ElasticPart&, const ElasticCounts& counts) override {
    snapshots_.AfterUpdate(counts);
    Tell(snapshots_.Saved(/*wait=*/false));
    done_ = counts.step;
    return snapshots_.problem();
  }
  void OnStep(const runtime::StepReport& report) override {
    if (first_) told_.losses[static_cast<size_t>(report.step - 1)] = report.loss;
  }

 private:
  void Tell(const std::optional<BackgroundSave::Outcome>& saved) {
    if (!saved || !first_) return;
    if (!saved->path.ok()) std::cout << "step " << saved->step << ": " << saved->path.status() << "\n";
    told_.saved[static_cast<size_t>(saved->step)] = saved->path.ok() ? Told::kSaved : Told::kFailed;
  }

  class Source final : public BatchSource {
   public:
    Source(SavingHost& host, runtime::Device& device, int64_t vocabulary)
        : host_(host), data_(device, vocabulary) {}
    absl::StatusOr<Samples> Training(int64_t step, int64_t begin, int64_t count) override {
      host_.scenario_.at_step(host_.process_, step, host_.leaves_);
      return data_.Training(step, begin, count);
    }
    int64_t held_out() const override { return 0; }
    absl::StatusOr<Samples> HeldOut(int64_t begin, int64_t count) override {
      return data_.HeldOut(begin, count);
    }

   private:
    SavingHost& host_;
    TestSource data_;
  };

  const Scenario& scenario_;
  const runtime::ModelConfig& model_;
  const int process_;
  Told& told_;
  PartSnapshots snapshots_;
  int64_t done_ = 0;
  bool first_ = false, leaves_ = false;
};

void Play(const Scenario& scenario, Told& told) {
  const runtime::ModelConfig model = ModelOf(scenario.model);
  testing::RankOptions ranks;
  ranks.victims = scenario.victims;
  testing::RunProcesses(
      scenario.founders,
      [&](int process, int, const std::string& folder) {
        runtime::SetCpuThreads(1);
        if (!scenario.hosts.empty()) {
          setenv("COHORT_HOST_ID", scenario.hosts[static_cast<size_t>(process)].c_str(), 1);
        }
        auto world =
            comm::Communicator::Create(comm::FileRendezvous(folder + "/meet", process, scenario.founders),
                                       {.timeout = absl::Seconds(20)});
        ASSERT_TRUE(world.ok()) << world.status();
        SavingHost host(scenario, model, process, folder + "/board", told);
        ElasticOptions elastic = {.config = ConfigOf(scenario), .model = model};
        elastic.loop.steps = kSteps;
        elastic.loop.save_every = scenario.save_every;
        elastic.loop.schedule = {
            .peak = 0.004, .total_steps = kSteps, .warmup_steps = 0, .decay = runtime::Decay::kConstant};
        const auto end = RunElastic(*std::move(world), elastic, runtime::CpuDevice(), host);
        ASSERT_TRUE(end.ok()) << "process " << process << ": " << end.status();
        told.ends[static_cast<size_t>(process)] = 1 + static_cast<double>(*end);
      },
      ranks);
}

// The run whose ranks save while they wait, and which nobody disturbs.
std::vector<double> SaveInside(Scenario scenario, const std::string& checkpoints) {
  scenario.checkpoints = checkpoints;
  scenario.snapshot_every = scenario.lost_hosts = 0;
  scenario.victims.clear();
  scenario.at_step = [](int, int64_t, bool&) {};
  scenario.before_write = [](int, int64_t) {};
  Told told;
  Play(scenario, told);
  for (const int64_t step : told.Steps(Told::kSaved)) EXPECT_EQ(told.inside[static_cast<size_t>(step)], 1);
  return told.losses.Take();
}

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
void ExpectSameFiles(Scenario scenario) {
  const TempFolder here, there;
  scenario.checkpoints = here.Path("checkpoints");
  Told told;
  Play(scenario, told);
  EXPECT_THAT(told.Steps(Told::kSaved), ElementsAre(3, 6, 9, 12));
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

TEST(ElasticSave, TheSameFilesWithParity) {
  ExpectSameFiles({.founders = 4, .hosts = {"a", "b", "c", "d"}, .lost_hosts = 1});
}

// Three processes write; one is in the middle of it when it dies.
TEST(ElasticSave, ARankThatDiesWhileACheckpointIsWritten) {
  const TempFolder folder;
  Told told;
  Scenario scenario = {.checkpoints = folder.Path("checkpoints"), .victims = {1}};
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
  Play(scenario, told);
  EXPECT_THAT(told.Steps(Told::kFailed), ElementsAre(6));
  EXPECT_THAT(told.Steps(Told::kSaved), ElementsAre(3, 9, 12));
  EXPECT_THAT(runtime::ListSteps(scenario.checkpoints), ElementsAre(3, 9, 12));
  for (const std::string& name : NamesOf(FilesIn(scenario.checkpoints)))
    EXPECT_THAT(name, Not(HasSubstr("partial")));
  const TempFolder there;
  EXPECT_EQ(told.losses.Take(), SaveInside(scenario, there.Path("checkpoints")));
  EXPECT_EQ(told.loads[0], 1);
}

TEST(ElasticSave, AFullDiskIsToldAndTheTrainingGoesOn) {
  const TempFolder folder;
  Told told;
  const Scenario scenario = {.checkpoints = folder.Path("checkpoints"), .disk = 1'000};
  Play(scenario, told);
  EXPECT_THAT(told.Steps(Told::kFailed), ElementsAre(6));
  EXPECT_THAT(told.Steps(Told::kSaved), ElementsAre(3, 9, 12));
  EXPECT_THAT(runtime::ListSteps(scenario.checkpoints), ElementsAre(3, 9, 12));
}

// Its image is not written over, however many steps are made meanwhile; the next checkpoint waits for it.
TEST(ElasticSave, ADiskThatIsSlow) {
  const TempFolder here, there;
  Told told;
  Scenario scenario = {.checkpoints = here.Path("checkpoints")};
  scenario.before_write = [&](int process, int64_t step) {
    if (process == 2 && step == 3) {
      EXPECT_TRUE(told.together.WaitFor(1));
    }
  };
  scenario.at_step = [&](int process, int64_t step, bool&) {
    if (process == 0 && step == 5) told.together.Add();
  };
  Play(scenario, told);
  EXPECT_THAT(told.Steps(Told::kSaved), ElementsAre(3, 6, 9, 12));
  EXPECT_EQ(told.losses.Take(), SaveInside(scenario, there.Path("checkpoints")));
  EXPECT_TRUE(FilesIn(here.Path("checkpoints")) == FilesIn(there.Path("checkpoints")));
}

// All are told to stop while one is lost: what is left becomes whole, and is saved.
TEST(ElasticSave, AllLeaveWhenOneWasLost) {
  const TempFolder here, there;
  Told told;
  Scenario scenario = {.checkpoints = here.Path("checkpoints"), .save_every = 0, .victims = {1}};
  scenario.at_step = [&](int process, int64_t step, bool& leaves) {
    if (step != 5) return;
    leaves = true;
    if (process == 1) kill(getpid(), SIGKILL);
  };
  Play(scenario, told);
  EXPECT_EQ(told.ends[0], 1 + static_cast<double>(ElasticEnd::kStopped));
  EXPECT_EQ(told.ends[2], 1 + static_cast<double>(ElasticEnd::kStopped));
  EXPECT_THAT(told.Steps(Told::kSaved), ElementsAre(4)) << "whose snapshots were whole";
  EXPECT_EQ(told.loads[0], 1) << "the state came from the disk";
  // Others go on from there.
  scenario.at_step = [](int, int64_t, bool&) {};
  scenario.victims.clear();
  Play(scenario, told);
  EXPECT_EQ(told.losses.Take(), SaveInside(scenario, there.Path("checkpoints")));
}

// Three hosts of six with parity for two, at one moment.
TEST(ElasticSave, MoreHostsThanParityMakesUpFor) {
  const TempFolder here, there;
  Told told;
  Scenario scenario = {.checkpoints = here.Path("checkpoints"),
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
  Play(scenario, told);
  EXPECT_EQ(told.loads[0], 2) << "the beginning, and the checkpoint";
  EXPECT_EQ(told.from_disk[0], 1);
  EXPECT_THAT(told.Steps(Told::kFailed), IsEmpty());
  EXPECT_EQ(told.losses.Take(), SaveInside(scenario, there.Path("checkpoints")));
}

}  // namespace
}  // namespace cohort::parallel
