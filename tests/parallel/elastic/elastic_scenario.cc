#include "tests/parallel/elastic/elastic_scenario.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <utility>

#include "absl/time/clock.h"
#include "comm/check.h"
#include "comm/membership/join_board.h"
#include "tests/support/ranks.h"

namespace cohort::parallel {
namespace {

using ::testing::AllOf;
using ::testing::Ge;
using ::testing::Le;

class TestHost final : public ElasticHost {
 public:
  TestHost(const Scenario& scenario, const runtime::ModelConfig& model, int process,
           const std::string& folder, Told& told)
      : scenario_(scenario),
        model_(model),
        process_(process),
        board_(comm::FolderJoinBoard(folder)),
        told_(told),
        snapshots_(TestKeeper(folder), {.parity = {.data = 4, .lost_hosts = scenario.lost_hosts}}) {}

  std::shared_ptr<comm::JoinBoard> board() override { return board_; }
  // They come in together.
  bool NewcomersWait() override {
    const auto waiting = board_->Waiting();
    const size_t enough = they_came_ ? 1 : static_cast<size_t>(std::max(scenario_.newcomers, 1));
    they_came_ |= waiting.ok() && waiting->size() >= enough;
    return waiting.ok() && waiting->size() >= enough;
  }
  bool AskedToLeave() override { return leaves_; }
  std::unique_ptr<BatchSource> MakeSource() override {
    if (process_ >= scenario_.founders || sources_ > 0) At(Event::kDiesMaking);
    if (process_ >= scenario_.founders) StopAt(Event::kStopsMaking);
    ++sources_;
    return std::make_unique<ElasticSource>(scenario_.device(), model_.vocab_size,
                                           [this](int64_t step) { AtStep(step); });
  }
  absl::StatusOr<ElasticCounts> Load(ElasticPart& part) override {
    part.model->Initialize(5);
    if (part.group->rank() == 0) told_.loads[0] += 1;
    return ElasticCounts();
  }
  absl::Status Save(ElasticPart& part, const ElasticCounts&, bool) override {
    At(Event::kDiesSaving);
    for (const Event& event : scenario_.events) {
      if (event.what == Event::kSavesSlowly) absl::SleepFor(1.5 * scenario_.timeout);
    }
    COHORT_RETURN_IF_ERROR(part.group->Barrier().Wait());
    if (part.group->rank() == 0) told_.saves[0] += 1;
    return absl::OkStatus();
  }
  void OnMove(const ElasticChange& change) override {
    EXPECT_TRUE(change.beside);
    moving_ = true;
    At(Event::kDiesMoving);
  }
  absl::Status OnChange(ElasticPart& part, const ElasticChange& change) override {
    moving_ = false;
    if (change.beside) At(Event::kDiesEntering);
    first_ = !part.spare() && part.group->rank() == 0;
    part_ = &part;
    done_ = change.counts.step;
    joined_ = change.epoch > 0;
    const absl::Status followed = snapshots_.Follow(part, change.member, change.counts);
    EXPECT_TRUE(followed.ok() || absl::IsUnavailable(followed)) << followed;
    COHORT_RETURN_IF_ERROR(followed);
    EXPECT_TRUE(snapshots_.problem().ok()) << snapshots_.problem();
    if (std::getenv("COHORT_TEST_TELLS") != nullptr) {
      std::cerr << "process " << process_ << ": epoch " << change.epoch << " after step "
                << change.counts.step << ": " << change.mesh << " (" << change.why << ") in "
                << change.seconds << " s, because of " << change.cause << "\n";
    }
    if (first_) {
      told_.changes[0] += 1;
      if (change.beside) told_.entered[0] += 1;
      told_.longest[0] = std::max(told_.longest[0], change.epoch == 0 ? 0 : change.seconds);
    }
    return absl::OkStatus();
  }
  absl::StatusOr<std::string> Recover(comm::Communicator& world) override {
    return snapshots_.Recover(world);
  }
  std::vector<KeptState> Kept(const comm::Communicator& world) override { return snapshots_.Kept(world); }
  absl::Status AfterGradients() override {
    if (moving_) At(Event::kDiesHandingOver);
    return snapshots_.AfterGradients();
  }
  absl::Status BeforeUpdate() override {
    snapshots_.BeforeUpdate();
    for (const Event& event : scenario_.events) {
      if (event.what != Event::kFlipsABit || event.process != process_ || event.step != done_) continue;
      const runtime::Tensor& master = part_->model->slices()[1].master;
      void* const place = scenario_.far ? runtime::NearAddress(master.raw()) : master.raw();
      scenario_.device().Synchronize();
      static_cast<uint8_t*>(place)[5] ^= 4;
    }
    return absl::OkStatus();
  }
  absl::Status AfterUpdate(ElasticPart&, const ElasticCounts& counts) override {
    for (const Event& event : scenario_.events) {
      if (event.what == Event::kKillsKeeper && event.process == process_ && event.step == counts.step) {
        kill(snapshots_.keeper_pid(), SIGKILL);
      }
    }
    snapshots_.AfterUpdate(counts);
    done_ = counts.step;
    return snapshots_.problem();
  }
  void OnRepair(int64_t step, const std::string& words) override {
    EXPECT_THAT(words, ::testing::HasSubstr("had other bits than its peers in"));
    if (first_) told_.repairs[0] += static_cast<double>(step);
  }
  void OnStep(const runtime::StepReport& report) override {
    const absl::Time now = absl::Now();
    if (first_) told_.pause[0] = std::max(told_.pause[0], absl::ToDoubleSeconds(now - stepped_));
    stepped_ = now;
    if (!first_) return;
    told_.losses[static_cast<size_t>(report.step - 1)] = report.loss;
    told_.times[static_cast<size_t>(report.step - 1)] += 1;
  }

 private:
  void At(Event::What what) {
    for (const Event& event : scenario_.events) {
      if (event.process == process_ && event.what == what) kill(getpid(), SIGKILL);
    }
  }

  // Whoever is stopped ends nothing itself.
  void StopAt(Event::What what) {
    for (const Event& event : scenario_.events) {
      if (event.process != process_ || event.what != what) continue;
      const pid_t self = getpid();
      if (fork() == 0) {
        sleep(8);
        kill(self, SIGKILL);
        _exit(0);
      }
      raise(SIGSTOP);
    }
  }

  // In the middle of computing gradients.
  void AtStep(int64_t step) {
    if (moving_) At(Event::kDiesComputing);
    for (const Event& event : scenario_.events) {
      if (event.process != process_) continue;
      if (event.what == Event::kWaitsForNewcomers && step > event.step && !joined_) {
        absl::SleepFor(absl::Milliseconds(100));
      }
      if (event.step != step) continue;
      if (event.what == Event::kDies) kill(getpid(), SIGKILL);
      if (event.what == Event::kLeaves) leaves_ = true;
      for (int i = 0; event.what == Event::kWaitsForNewcomers && !they_came_ && !NewcomersWait() && i < 1000;
           ++i) {
        absl::SleepFor(absl::Milliseconds(10));
      }
    }
  }

  const Scenario& scenario_;
  const runtime::ModelConfig& model_;
  const int process_;
  const std::shared_ptr<comm::JoinBoard> board_;
  Told& told_;
  PartSnapshots snapshots_;
  ElasticPart* part_ = nullptr;
  int64_t done_ = 0;
  absl::Time stepped_ = absl::InfiniteFuture();
  std::atomic<int> sources_ = 0;
  bool first_ = false, joined_ = false, leaves_ = false, moving_ = false, they_came_ = false;
};

}  // namespace

void Play(const Scenario& scenario, Told& told) {
  const runtime::ModelConfig model = ElasticModel(scenario.model);
  testing::RankOptions ranks;
  for (const Event& event : scenario.events) {
    if (event.dies()) ranks.victims.push_back(event.process);
  }
  testing::RunProcesses(
      scenario.founders + scenario.newcomers,
      [&](int process, int, const std::string& folder) {
        BeginProcess(process, scenario.hosts);
        const std::shared_ptr<void> kept = scenario.prepare ? scenario.prepare() : nullptr;
        const comm::CommunicatorOptions options = {.timeout = scenario.timeout};
        auto world = process < scenario.founders
                         ? comm::Communicator::Create(
                               comm::FileRendezvous(folder + "/meet", process, scenario.founders), options)
                         : comm::Communicator::Join(comm::FolderJoinBoard(folder + "/board"), options);
        ASSERT_TRUE(world.ok()) << world.status();
        TestHost host(scenario, model, process, folder + "/board", told);
        ElasticOptions elastic = ElasticRunOptions(scenario.parallel, scenario.founders, model);
        elastic.config.mutable_train()->set_deterministic(scenario.deterministic);
        elastic.config.mutable_train()->set_dtype(scenario.dtype);
        elastic.config.mutable_elastic()->set_lost_hosts(scenario.lost_hosts);
        elastic.check_every = scenario.check_every;
        const auto end = RunElastic(*std::move(world), elastic, scenario.device(), host);
        ASSERT_TRUE(end.ok()) << "process " << process << ": " << end.status();
        told.ends[static_cast<size_t>(process)] = 1 + static_cast<double>(*end);
      },
      ranks);
}

std::vector<double> Undisturbed(Scenario scenario) {
  scenario.events.clear();
  scenario.newcomers = 0;
  scenario.far = false;
  scenario.prepare = nullptr;
  Told told;
  Play(scenario, told);
  EXPECT_EQ(told.loads[0], 1);
  return told.losses.Take();
}

void ExpectUndisturbed(const Scenario& scenario, int changes, int entered, int most_changes) {
  Told told;
  ExpectUndisturbed(scenario, told, changes, entered, most_changes);
}

void ExpectUndisturbed(const Scenario& scenario, Told& told, int changes, int entered, int most_changes) {
  Play(scenario, told);
  const std::vector<double> losses = told.losses.Take(), want = Undisturbed(scenario);
  EXPECT_LT(want.back(), want.front());
  for (size_t step = 0; step < kElasticSteps; ++step) {
    if (scenario.deterministic) {
      EXPECT_EQ(losses[step], want[step]) << "step " << step;
    } else {
      EXPECT_NEAR(losses[step], want[step], (scenario.dtype == "f64" ? 1e-12 : 1e-5) * want[step])
          << "step " << step;
    }
  }
  EXPECT_EQ(told.loads[0], 1) << "the state came from the disk";
  EXPECT_EQ(told.saves[0], 1) << "at the end";
  EXPECT_THAT(told.changes[0], AllOf(Ge(1 + changes), Le(1 + std::max(changes, most_changes))));
  EXPECT_EQ(told.entered[0], entered);
  std::cout << "longest change " << told.longest[0] << " s\n";
}

}  // namespace cohort::parallel
