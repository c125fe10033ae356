// Newcomers enter a mesh that was made beside the one that trains, which does not wait for them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "parallel/elastic/elastic_run.h"
#include "tests/parallel/elastic/elastic_scenario.h"

namespace cohort::parallel {
namespace {

Scenario Joins(v1::ParallelSection mesh, int founders, int newcomers, std::vector<Event> events = {}) {
  events.push_back({.process = 0, .step = 2, .what = Event::kWaitsForNewcomers});
  return {.parallel = std::move(mesh), .founders = founders, .newcomers = newcomers, .events = events};
}

TEST(ElasticNewcomers, TwoEnterAShardedMesh) {
  v1::ParallelSection zero;
  zero.set_sharding("zero-3");
  ExpectUndisturbed(Joins(zero, 2, 2), 1, 1);
}

TEST(ElasticNewcomers, OneEntersCopiesThatAreNotDeterministic) {
  Scenario scenario = Joins({}, 2, 1);
  scenario.deterministic = false;
  ExpectUndisturbed(scenario, 1, 1);
}

TEST(ElasticNewcomers, FourEnterAPipelineOfTensorGroups) {
  v1::ParallelSection mesh;
  mesh.set_pipeline(2);
  mesh.set_tensor(2);
  mesh.set_sharding("zero-1");
  ExpectUndisturbed(Joins(mesh, 4, 4), 1, 1);
}

TEST(ElasticNewcomers, TwoEnterAMeshOfExperts) {
  v1::ParallelSection mesh;
  mesh.set_expert(2);
  mesh.set_sharding("zero-2");
  Scenario scenario = Joins(mesh, 2, 2);
  scenario.model = "qwen3_moe";
  ExpectUndisturbed(scenario, 1, 1);
}

// The mesh that trains does not notice a newcomer that does not live to enter.
TEST(ElasticNewcomers, ANewcomerDiesWhileItsPartIsMade) {
  v1::ParallelSection zero;
  zero.set_sharding("zero-3");
  ExpectUndisturbed(Joins(zero, 2, 1, {{.process = 2, .step = 0, .what = Event::kDiesMaking}}), 0);
}

// Nor one that is stopped, which says nothing and holds what it has: others wait for it until its silence counts as loss.
TEST(ElasticNewcomers, ANewcomerIsStoppedWhileItsPartIsMade) {
  v1::ParallelSection zero;
  zero.set_sharding("zero-3");
  Told told;
  ExpectUndisturbed(Joins(zero, 2, 1, {{.process = 2, .step = 0, .what = Event::kStopsMaking}}), told, 0);
  EXPECT_LT(told.pause[0], 4) << "seconds without a step; an operation's timeout is 20";
}

TEST(ElasticNewcomers, ANewcomerDiesWhileItReceives) {
  v1::ParallelSection zero;
  zero.set_sharding("zero-3");
  ExpectUndisturbed(Joins(zero, 2, 2, {{.process = 3, .step = 0, .what = Event::kDiesMoving}}), 1);
}

TEST(ElasticNewcomers, ANewcomerDiesWhenItHasEntered) {
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

INSTANTIATE_TEST_SUITE_P(ElasticNewcomers, WhileNewcomersReceive,
                         ::testing::Values(Event::kDiesMaking, Event::kDiesMoving, Event::kDiesComputing,
                                           Event::kDiesHandingOver, Event::kDiesEntering));

}  // namespace
}  // namespace cohort::parallel
