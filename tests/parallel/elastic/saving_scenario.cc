#include "tests/parallel/elastic/saving_scenario.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "comm/check.h"
#include "runtime/checkpoint/checkpoint.h"
#include "runtime/checkpoint/checkpoint_folders.h"
#include "tests/runtime/checkpoint/file_size_limit.h"

namespace cohort::parallel {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;

class SavingHost final : public ElasticHost {
 public:
  SavingHost(const SavingScenario& scenario, const runtime::ModelConfig& model, int process,
             const std::string& folder, SavesTold& told)
      : scenario_(scenario),
        model_(model),
        process_(process),
        told_(told),
        snapshots_(TestKeeper(folder), {.every = scenario.snapshot_every,
                                        .parity = {.data = 4, .lost_hosts = scenario.lost_hosts},
                                        .saves = true}) {}

  bool AskedToLeave() override { return leaves_; }
  std::unique_ptr<BatchSource> MakeSource() override {
    return std::make_unique<ElasticSource>(scenario_.device(), model_.vocab_size, [this](int64_t step) {
      scenario_.at_step(process_, step, leaves_);
    });
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
    COHORT_RETURN_IF_ERROR(snapshots_.Follow(part, change.member, change.counts));
    EXPECT_TRUE(snapshots_.problem().ok()) << snapshots_.problem();
    EXPECT_EQ(snapshots_.saves(), scenario_.snapshot_every > 0 && !part.spare());
    Tell(snapshots_.Saved(/*wait=*/false));
    if (first_) told_.changes[0] += 1;
    if (first_ && change.from_disk) {
      told_.from_disk[0] += 1;
      EXPECT_EQ(change.counts.step, 6) << "the newest checkpoint";
      EXPECT_THAT(change.why, HasSubstr("is not whole"));
      // A host that lives may be behind with its own parity, and counts then.
      EXPECT_THAT(
          change.why,
          ContainsRegex("something is missing of [3-6] hosts, parity of 2 blocks for 4 makes up for 2"));
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
    return snapshots_.problem();
  }
  void OnStep(const runtime::StepReport& report) override {
    if (first_) told_.losses[static_cast<size_t>(report.step - 1)] = report.loss;
  }

 private:
  void Tell(const std::optional<BackgroundSave::Outcome>& saved) {
    if (!saved || !first_) return;
    if (!saved->path.ok()) std::cout << "step " << saved->step << ": " << saved->path.status() << "\n";
    told_.saved[static_cast<size_t>(saved->step)] = saved->path.ok() ? SavesTold::kSaved : SavesTold::kFailed;
  }

  const SavingScenario& scenario_;
  const runtime::ModelConfig& model_;
  const int process_;
  SavesTold& told_;
  PartSnapshots snapshots_;
  bool first_ = false, leaves_ = false;
};

}  // namespace

void PlaySaving(const SavingScenario& scenario, SavesTold& told) {
  const runtime::ModelConfig model = ElasticModel(scenario.model);
  testing::RankOptions ranks;
  ranks.victims = scenario.victims;
  testing::RunProcesses(
      scenario.founders,
      [&](int process, int, const std::string& folder) {
        BeginProcess(process, scenario.hosts);
        auto world =
            comm::Communicator::Create(comm::FileRendezvous(folder + "/meet", process, scenario.founders),
                                       {.timeout = absl::Seconds(20)});
        ASSERT_TRUE(world.ok()) << world.status();
        SavingHost host(scenario, model, process, folder + "/board", told);
        v1::ParallelSection zero;
        zero.set_sharding("zero-3");
        ElasticOptions elastic = ElasticRunOptions(zero, scenario.founders, model);
        elastic.config.mutable_train()->set_dtype(scenario.dtype);
        elastic.loop.save_every = scenario.save_every;
        const auto end = RunElastic(*std::move(world), elastic, scenario.device(), host);
        ASSERT_TRUE(end.ok()) << "process " << process << ": " << end.status();
        told.ends[static_cast<size_t>(process)] = 1 + static_cast<double>(*end);
      },
      ranks);
}

std::vector<double> SaveInside(SavingScenario scenario, const std::string& checkpoints) {
  scenario.checkpoints = checkpoints;
  scenario.snapshot_every = scenario.lost_hosts = 0;
  scenario.victims.clear();
  scenario.far = false;
  scenario.at_step = [](int, int64_t, bool&) {};
  scenario.before_write = [](int, int64_t) {};
  SavesTold told;
  PlaySaving(scenario, told);
  for (const int64_t step : told.Steps(SavesTold::kSaved))
    EXPECT_EQ(told.inside[static_cast<size_t>(step)], 1);
  return told.losses.Take();
}

}  // namespace cohort::parallel
