// Trainings whose ranks die, come and go: the losses are those of a run that nobody disturbed.
#include "parallel/elastic/elastic_run.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "comm/membership/join_board.h"
#include "parallel/elastic/part_snapshots.h"
#include "parallel/elastic/state_check.h"
#include "tests/parallel/training_run.h"
#include "tests/support/ranks.h"

namespace cohort::parallel {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::Ge;
using ::testing::IsEmpty;
using ::testing::Le;

constexpr int kSteps = 12;

// What happens to a process before it computes a step; or, whatever the step, when newcomers come.
struct Event {
  enum What {
    kDies,
    kLeaves,
    kWaitsForNewcomers,  // and makes its steps slowly until they are in
    kFlipsABit,
    kDiesMaking,     // its part of the mesh with the newcomers
    kDiesMoving,     // when the state begins to move there
    kDiesComputing,  // the gradients of the step beside which it moves
    kDiesHandingOver,
    kDiesEntering,  // when it has made its first update on that mesh
    kDiesSaving,    // what the last step has left
  };
  int process;
  int64_t step;
  What what;

  bool dies() const { return what != kLeaves && what != kWaitsForNewcomers && what != kFlipsABit; }
};

struct Scenario {
  std::string model = "llama";
  v1::ParallelSection parallel = {};
  int founders = 4;
  int newcomers = 0;
  std::vector<Event> events = {};
  bool deterministic = true;
  std::vector<std::string> hosts = {};  // of the processes, as names; none: all on one
  int64_t check_every = 0;
  int lost_hosts = 0;  // that parity brings back
};

v1::TrainConfig ConfigOf(const Scenario& scenario) {
  v1::TrainConfig config;
  config.mutable_train()->set_steps(kSteps);
  config.mutable_train()->set_global_batch(8);
  config.mutable_train()->set_micro_batch(1);
  config.mutable_train()->set_dtype("f32");
  config.mutable_train()->set_deterministic(scenario.deterministic);
  config.mutable_train()->set_virtual_shards(8);
  config.mutable_data()->set_sequence_length(16);
  *config.mutable_parallel() = scenario.parallel;
  config.mutable_elastic()->set_lost_hosts(scenario.lost_hosts);
  v1::ParallelSection& parallel = *config.mutable_parallel();
  if (!parallel.has_sharding()) parallel.set_sharding("ddp");
  if (!parallel.has_pipeline()) parallel.set_pipeline(1);
  if (!parallel.has_tensor()) parallel.set_tensor(1);
  if (!parallel.has_expert()) parallel.set_expert(1);
  parallel.set_context(1);
  parallel.set_shard(scenario.founders / parallel.pipeline() / parallel.tensor());
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

// What processes tell the test: the loss of each step, and how often it was made; what the first one saw of changes.
struct Told {
  SharedDoubles losses{kSteps}, times{kSteps}, ends{16}, changes{1}, entered{1}, loads{1}, longest{1},
      repairs{1}, saves{1};
};

class TestHost final : public ElasticHost {
 public:
  TestHost(const Scenario& scenario, const runtime::ModelConfig& model, int process,
           const std::string& folder, Told& told)
      : scenario_(scenario),
        model_(model),
        process_(process),
        board_(comm::FolderJoinBoard(folder)),
        told_(told),
        snapshots_({.job = folder, .command = {COHORT_TEST_KEEPER}, .idle_life = absl::Seconds(1)},
                   {.parity = {.data = 4, .lost_hosts = scenario.lost_hosts}}) {}

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
    ++sources_;
    return std::make_unique<Source>(*this, runtime::CpuDevice(), model_.vocab_size);
  }
  absl::StatusOr<ElasticCounts> Load(ElasticPart& part) override {
    part.model->Initialize(5);
    if (part.group->rank() == 0) told_.loads[0] += 1;
    return ElasticCounts();
  }
  absl::Status Save(ElasticPart& part, const ElasticCounts&, bool) override {
    At(Event::kDiesSaving);
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
      auto* bits = static_cast<uint8_t*>(part_->model->slices()[1].master.raw());
      bits[5] ^= 4;
    }
    return absl::OkStatus();
  }
  absl::Status AfterUpdate(ElasticPart&, const ElasticCounts& counts) override {
    snapshots_.AfterUpdate(counts);
    done_ = counts.step;
    return snapshots_.problem();
  }
  void OnRepair(int64_t step, const std::string& words) override {
    EXPECT_THAT(words, ::testing::HasSubstr("had other bits than its peers in"));
    if (first_) told_.repairs[0] += static_cast<double>(step);
  }
  void OnStep(const runtime::StepReport& report) override {
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

  class Source final : public BatchSource {
   public:
    Source(TestHost& host, runtime::Device& device, int64_t vocabulary)
        : host_(host), data_(device, vocabulary) {}
    absl::StatusOr<Samples> Training(int64_t step, int64_t begin, int64_t count) override {
      host_.AtStep(step);
      return data_.Training(step, begin, count);
    }
    int64_t held_out() const override { return 0; }
    absl::StatusOr<Samples> HeldOut(int64_t begin, int64_t count) override {
      return data_.HeldOut(begin, count);
    }

   private:
    TestHost& host_;
    TestSource data_;
  };

  const Scenario& scenario_;
  const runtime::ModelConfig& model_;
  const int process_;
  const std::shared_ptr<comm::JoinBoard> board_;
  Told& told_;
  PartSnapshots snapshots_;
  ElasticPart* part_ = nullptr;
  int64_t done_ = 0;
  std::atomic<int> sources_ = 0;
  bool first_ = false, joined_ = false, leaves_ = false, moving_ = false, they_came_ = false;
};

void Play(const Scenario& scenario, Told& told) {
  const runtime::ModelConfig model = ModelOf(scenario.model);
  testing::RankOptions ranks;
  for (const Event& event : scenario.events) {
    if (event.dies()) ranks.victims.push_back(event.process);
  }
  testing::RunProcesses(
      scenario.founders + scenario.newcomers,
      [&](int process, int, const std::string& folder) {
        runtime::SetCpuThreads(1);
        if (!scenario.hosts.empty()) {
          setenv("COHORT_HOST_ID", scenario.hosts[static_cast<size_t>(process)].c_str(), 1);
        }
        const comm::CommunicatorOptions options = {.timeout = absl::Seconds(20)};
        auto world = process < scenario.founders
                         ? comm::Communicator::Create(
                               comm::FileRendezvous(folder + "/meet", process, scenario.founders), options)
                         : comm::Communicator::Join(comm::FolderJoinBoard(folder + "/board"), options);
        ASSERT_TRUE(world.ok()) << world.status();
        TestHost host(scenario, model, process, folder + "/board", told);
        ElasticOptions elastic = {.config = ConfigOf(scenario), .model = model};
        elastic.loop.steps = kSteps;
        elastic.check_every = scenario.check_every;
        elastic.loop.schedule = {
            .peak = 0.004, .total_steps = kSteps, .warmup_steps = 0, .decay = runtime::Decay::kConstant};
        const auto end = RunElastic(*std::move(world), elastic, runtime::CpuDevice(), host);
        ASSERT_TRUE(end.ok()) << "process " << process << ": " << end.status();
        told.ends[static_cast<size_t>(process)] = 1 + static_cast<double>(*end);
      },
      ranks);
}

// The run that nobody disturbs, on as many ranks as the scenario begins with.
std::vector<double> Undisturbed(Scenario scenario) {
  scenario.events.clear();
  scenario.newcomers = 0;
  Told told;
  Play(scenario, told);
  EXPECT_EQ(told.loads[0], 1);
  return told.losses.Take();
}

// `entered`: of the changes, those to meshes that were made beside the one before. most_changes: where several die at once,
// who goes may be found out one after another.
void ExpectUndisturbed(const Scenario& scenario, int changes, int entered = 0, int most_changes = 0) {
  Told told;
  Play(scenario, told);
  const std::vector<double> losses = told.losses.Take(), want = Undisturbed(scenario);
  EXPECT_LT(want.back(), want.front());
  for (size_t step = 0; step < kSteps; ++step) {
    if (scenario.deterministic) {
      EXPECT_EQ(losses[step], want[step]) << "step " << step;
    } else {
      EXPECT_NEAR(losses[step], want[step], 1e-5 * want[step]) << "step " << step;
    }
  }
  EXPECT_EQ(told.loads[0], 1) << "the state came from the disk";
  EXPECT_EQ(told.saves[0], 1) << "at the end";
  EXPECT_THAT(told.changes[0], AllOf(Ge(1 + changes), Le(1 + std::max(changes, most_changes))));
  EXPECT_EQ(told.entered[0], entered);
  std::cout << "longest change " << told.longest[0] << " s\n";
}

TEST(ElasticRun, ACopyDies) {
  ExpectUndisturbed({.events = {{.process = 1, .step = 4, .what = Event::kDies}}}, 1);
}

TEST(ElasticRun, TheFirstRankDiesThenAnother) {
  ExpectUndisturbed({.events = {{.process = 0, .step = 2, .what = Event::kDies},
                                {.process = 3, .step = 7, .what = Event::kDies}},
                     .deterministic = false},
                    2);
}

TEST(ElasticRun, ARankLeavesAndAnotherJoins) {
  v1::ParallelSection zero;
  zero.set_sharding("zero-3");
  ExpectUndisturbed({.parallel = zero,
                     .founders = 3,
                     .newcomers = 1,
                     .events = {{.process = 0, .step = 3, .what = Event::kWaitsForNewcomers},
                                {.process = 1, .step = 10, .what = Event::kLeaves}}},
                    2, 1);
}

// Newcomers enter a mesh that was made beside the one that trained.
// Three ranks make no mesh of tensor pairs: one stays over, and its number in the world becomes another.
TEST(ElasticRun, ARankLeavesAndAnotherIsSpare) {
  v1::ParallelSection mesh;
  mesh.set_tensor(2);
  ExpectUndisturbed({.parallel = mesh, .events = {{.process = 1, .step = 5, .what = Event::kLeaves}}}, 1);
}

TEST(ElasticRun, ARankDiesWhenTheLastStepIsDone) {
  v1::ParallelSection zero;
  zero.set_sharding("zero-3");
  ExpectUndisturbed({.parallel = zero, .events = {{.process = 2, .step = 0, .what = Event::kDiesSaving}}}, 1);
}

Scenario Joins(v1::ParallelSection mesh, int founders, int newcomers, std::vector<Event> events = {}) {
  events.push_back({.process = 0, .step = 2, .what = Event::kWaitsForNewcomers});
  return {.parallel = std::move(mesh), .founders = founders, .newcomers = newcomers, .events = events};
}

TEST(ElasticRun, TwoEnterAShardedMesh) {
  v1::ParallelSection zero;
  zero.set_sharding("zero-3");
  ExpectUndisturbed(Joins(zero, 2, 2), 1, 1);
}

TEST(ElasticRun, OneEntersCopiesThatAreNotDeterministic) {
  Scenario scenario = Joins({}, 2, 1);
  scenario.deterministic = false;
  ExpectUndisturbed(scenario, 1, 1);
}

TEST(ElasticRun, FourEnterAPipelineOfTensorGroups) {
  v1::ParallelSection mesh;
  mesh.set_pipeline(2);
  mesh.set_tensor(2);
  mesh.set_sharding("zero-1");
  ExpectUndisturbed(Joins(mesh, 4, 4), 1, 1);
}

TEST(ElasticRun, TwoEnterAMeshOfExperts) {
  v1::ParallelSection mesh;
  mesh.set_expert(2);
  mesh.set_sharding("zero-2");
  Scenario scenario = Joins(mesh, 2, 2);
  scenario.model = "qwen3_moe";
  ExpectUndisturbed(scenario, 1, 1);
}

// The mesh that trains does not notice a newcomer that does not live to enter.
TEST(ElasticRun, ANewcomerDiesWhileItsPartIsMade) {
  v1::ParallelSection zero;
  zero.set_sharding("zero-3");
  ExpectUndisturbed(Joins(zero, 2, 1, {{.process = 2, .step = 0, .what = Event::kDiesMaking}}), 0);
}

TEST(ElasticRun, ANewcomerDiesWhileItReceives) {
  v1::ParallelSection zero;
  zero.set_sharding("zero-3");
  ExpectUndisturbed(Joins(zero, 2, 2, {{.process = 3, .step = 0, .what = Event::kDiesMoving}}), 1);
}

TEST(ElasticRun, ANewcomerDiesWhenItHasEntered) {
  v1::ParallelSection zero;
  zero.set_sharding("zero-3");
  ExpectUndisturbed(Joins(zero, 2, 1, {{.process = 2, .step = 0, .what = Event::kDiesEntering}}), 2, 1);
}

// Wherever a rank is lost of which the newcomers receive: all go on from what is whole.
class WhileNewcomersReceive : public ::testing::TestWithParam<Event::What> {};

TEST_P(WhileNewcomersReceive, AnOldRankDies) {
  v1::ParallelSection zero;
  zero.set_sharding("zero-3");
  Scenario scenario = Joins(zero, 3, 1, {{.process = 1, .step = 0, .what = GetParam()}});
  const bool entered = GetParam() == Event::kDiesEntering;
  ExpectUndisturbed(scenario, entered ? 2 : 1, entered ? 1 : 0);
}

INSTANTIATE_TEST_SUITE_P(ElasticRun, WhileNewcomersReceive,
                         ::testing::Values(Event::kDiesMaking, Event::kDiesMoving, Event::kDiesComputing,
                                           Event::kDiesHandingOver, Event::kDiesEntering));

TEST(ElasticRun, ShardsThatNobodyHasACopyOf) {
  v1::ParallelSection zero;
  zero.set_sharding("zero-3");
  ExpectUndisturbed({.parallel = zero,
                     .events = {{.process = 1, .step = 3, .what = Event::kDies},
                                {.process = 2, .step = 3, .what = Event::kDies},
                                {.process = 0, .step = 9, .what = Event::kDies}}},
                    2, /*entered=*/0, 3);
}

// Two of six hosts with their keepers: whatever they held comes back from the others.
TEST(ElasticRun, TwoHostsAtOnce) {
  v1::ParallelSection zero;
  zero.set_sharding("zero-3");
  ExpectUndisturbed({.parallel = zero,
                     .founders = 6,
                     .events = {{.process = 1, .step = 5, .what = Event::kDies},
                                {.process = 4, .step = 5, .what = Event::kDies}},
                     .hosts = {"a", "b", "c", "d", "e", "f"},
                     .lost_hosts = 2},
                    1, /*entered=*/0, 2);
}

// A bit of the state of one rank is not what it is on the others: they find out, and it is given theirs.
TEST(ElasticRun, ARankThatDiffersIsRepaired) {
  const Scenario scenario = {
      .founders = 3, .events = {{.process = 1, .step = 4, .what = Event::kFlipsABit}}, .check_every = 1};
  ExpectUndisturbed(scenario, 0);
  Told told;
  Play(scenario, told);
  EXPECT_EQ(told.repairs[0], 5) << "the step after which it was found, once";
}

TEST(FindWrongPieces, TheMajorityIsRightAndOfATieTheLowestRank) {
  const runtime::Piece whole = runtime::Piece::Whole("w", {4});
  const Layout layout = {.ranks = {{{whole}}, {{whole}}, {{whole}}, {{whole}}}};
  const auto wrong = [&](const std::vector<uint64_t>& sums) {
    std::vector<PieceSums> by_rank;
    for (const uint64_t sum : sums) by_rank.push_back({sum});
    std::vector<std::pair<int, bool>> found;
    for (const WrongPiece& one : FindWrongPieces(layout, by_rank)) found.emplace_back(one.rank, one.outvoted);
    return found;
  };
  EXPECT_THAT(wrong({7, 7, 7, 7}), IsEmpty());
  EXPECT_THAT(wrong({8, 7, 7, 7}), ElementsAre(std::pair(0, true)));
  EXPECT_THAT(wrong({7, 7, 8, 9}), ElementsAre(std::pair(2, true), std::pair(3, true)));
  EXPECT_THAT(wrong({8, 7, 8, 7}), ElementsAre(std::pair(1, false), std::pair(3, false)));
}

TEST(ElasticRun, APipelineOfTensorGroupsLosesARankOfWhichItHasACopy) {
  v1::ParallelSection mesh;
  mesh.set_pipeline(2);
  ExpectUndisturbed({.parallel = mesh, .events = {{.process = 2, .step = 5, .what = Event::kDies}}}, 1);
}

TEST(ElasticRun, ExpertsLoseTwoRanks) {
  v1::ParallelSection mesh;
  mesh.set_expert(2);
  ExpectUndisturbed({.model = "qwen3_moe",
                     .parallel = mesh,
                     .events = {{.process = 3, .step = 3, .what = Event::kDies},
                                {.process = 0, .step = 6, .what = Event::kDies}}},
                    2);
}

}  // namespace
}  // namespace cohort::parallel
