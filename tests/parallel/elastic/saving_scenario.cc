#include "tests/parallel/elastic/saving_scenario.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "comm/check.h"
#include "parallel/elastic/elastic_run.h"
#include "parallel/elastic/part_snapshots.h"
#include "runtime/checkpoint/checkpoint.h"
#include "runtime/checkpoint/checkpoint_folders.h"
#include "tests/runtime/checkpoint/file_size_limit.h"

namespace cohort::parallel {
namespace {

using ::testing::HasSubstr;

class SavingHost final : public ElasticHost {
 public:
  SavingHost(const SavingScenario& scenario, const runtime::ModelConfig& model, int process,
             const std::string& folder, SavesTold& told)
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
    told_.saved[static_cast<size_t>(saved->step)] = saved->path.ok() ? SavesTold::kSaved : SavesTold::kFailed;
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

  const SavingScenario& scenario_;
  const runtime::ModelConfig& model_;
  const int process_;
  SavesTold& told_;
  PartSnapshots snapshots_;
  int64_t done_ = 0;
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
        runtime::SetCpuThreads(1);
        if (!scenario.hosts.empty()) {
          setenv("COHORT_HOST_ID", scenario.hosts[static_cast<size_t>(process)].c_str(), 1);
        }
        auto world =
            comm::Communicator::Create(comm::FileRendezvous(folder + "/meet", process, scenario.founders),
                                       {.timeout = absl::Seconds(20)});
        ASSERT_TRUE(world.ok()) << world.status();
        SavingHost host(scenario, model, process, folder + "/board", told);
        v1::ParallelSection zero;
        zero.set_sharding("zero-3");
        ElasticOptions elastic = {.config = ElasticConfig(zero, scenario.founders), .model = model};
        elastic.config.mutable_train()->set_dtype(scenario.dtype);
        elastic.loop.steps = kElasticSteps;
        elastic.loop.save_every = scenario.save_every;
        elastic.loop.schedule = {.peak = 0.004,
                                 .total_steps = kElasticSteps,
                                 .warmup_steps = 0,
                                 .decay = runtime::Decay::kConstant};
        const auto end = RunElastic(*std::move(world), elastic, runtime::CpuDevice(), host);
        ASSERT_TRUE(end.ok()) << "process " << process << ": " << end.status();
        told.ends[static_cast<size_t>(process)] = 1 + static_cast<double>(*end);
      },
      ranks);
}

std::vector<double> SaveInside(SavingScenario scenario, const std::string& checkpoints) {
  scenario.checkpoints = checkpoints;
  scenario.snapshot_every = scenario.lost_hosts = 0;
  scenario.victims.clear();
  scenario.at_step = [](int, int64_t, bool&) {};
  scenario.before_write = [](int, int64_t) {};
  SavesTold told;
  PlaySaving(scenario, told);
  for (const int64_t step : told.Steps(SavesTold::kSaved))
    EXPECT_EQ(told.inside[static_cast<size_t>(step)], 1);
  return told.losses.Take();
}

}  // namespace cohort::parallel
