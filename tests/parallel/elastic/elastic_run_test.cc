// Trainings whose ranks die and go: the losses are those of a run that nobody disturbed.
#include "parallel/elastic/elastic_run.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "parallel/elastic/state_check.h"
#include "tests/parallel/elastic/elastic_scenario.h"

namespace cohort::parallel {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(ElasticRun, ACopyDies) {
  ExpectUndisturbed({.events = {{.process = 1, .step = 4, .what = Event::kDies}}}, 1);
}

TEST(ElasticRun, TheFirstRankDiesThenAnother) {
  ExpectUndisturbed({.events = {{.process = 0, .step = 2, .what = Event::kDies},
                                {.process = 3, .step = 7, .what = Event::kDies}},
                     .deterministic = false},
                    2);
}

// In f32 a token whose choice of experts is close takes another one for the last bits of a sum; not so in f64, where
// what is left of a run that goes on with other ranks, adding in another order, is its mathematics.
TEST(ElasticRun, ExpertsThatAreNotDeterministicInDouble) {
  v1::ParallelSection mesh;
  mesh.set_expert(2);
  mesh.set_sharding("zero-1");
  ExpectUndisturbed({.model = "qwen3_moe",
                     .parallel = mesh,
                     .founders = 4,
                     .events = {{.process = 1, .step = 2, .what = Event::kDies},
                                {.process = 2, .step = 7, .what = Event::kDies}},
                     .deterministic = false,
                     .dtype = "f64"},
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

// Three ranks make no mesh of tensor pairs: one stays over, and its number in the world becomes another.
TEST(ElasticRun, ARankLeavesAndAnotherIsSpare) {
  v1::ParallelSection mesh;
  mesh.set_tensor(2);
  ExpectUndisturbed({.parallel = mesh, .events = {{.process = 1, .step = 5, .what = Event::kLeaves}}}, 1);
}

// It hears nothing of the others for longer than an operation may take, and is there when they have done.
TEST(ElasticRun, ASpareWaitsWhileTheOthersSave) {
  v1::ParallelSection mesh;
  mesh.set_tensor(2);
  Told told;
  ExpectUndisturbed({.parallel = mesh,
                     .events = {{.process = 1, .step = 5, .what = Event::kLeaves},
                                {.process = 0, .step = 0, .what = Event::kSavesSlowly}},
                     .timeout = absl::Seconds(2)},
                    told, 1);
  std::vector<double> ends = told.ends.Take();
  ends.resize(4);
  EXPECT_EQ(ends, (std::vector<double>{1, 3, 1, 1})) << "one has left, the spare too was there at the end";
}

TEST(ElasticRun, ARankDiesWhenTheLastStepIsDone) {
  v1::ParallelSection zero;
  zero.set_sharding("zero-3");
  ExpectUndisturbed({.parallel = zero, .events = {{.process = 2, .step = 0, .what = Event::kDiesSaving}}}, 1);
}

// The ranks bring what they keep to another one, so a rank that dies some steps later loses nothing.
TEST(ElasticRun, TheKeeperDiesThenARank) {
  v1::ParallelSection zero;
  zero.set_sharding("zero-3");
  ExpectUndisturbed({.parallel = zero,
                     .events = {{.process = 2, .step = 3, .what = Event::kKillsKeeper},
                                {.process = 1, .step = 8, .what = Event::kDies}}},
                    1);
}

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
