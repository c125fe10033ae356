// Trainings whose ranks compute on devices of which no host reaches the memory, and die, come and go: the losses are those
// of a run on CPUs that nobody disturbed, bit for bit.
#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "tests/parallel/elastic/elastic_scenario.h"
#include "tests/runtime/device/fake_links.h"
#include "tests/support/temp_folder.h"

namespace cohort::parallel {
namespace {

v1::ParallelSection Sharded(const char* sharding) {
  v1::ParallelSection mesh;
  mesh.set_sharding(sharding);
  return mesh;
}

TEST(ElasticDevices, ACopyDies) {
  ExpectUndisturbed({.events = {{.process = 1, .step = 4, .what = Event::kDies}}, .far = true}, 1);
}

// What they held is in their snapshots alone.
TEST(ElasticDevices, ShardsThatNobodyHasACopyOf) {
  ExpectUndisturbed({.parallel = Sharded("zero-3"),
                     .events = {{.process = 1, .step = 3, .what = Event::kDies},
                                {.process = 2, .step = 3, .what = Event::kDies},
                                {.process = 0, .step = 9, .what = Event::kDies}},
                     .far = true},
                    2, /*entered=*/0, 3);
}

TEST(ElasticDevices, ExpertsInBf16LoseTwoRanks) {
  v1::ParallelSection mesh = Sharded("zero-1");
  mesh.set_expert(2);
  ExpectUndisturbed({.model = "qwen3_moe",
                     .parallel = mesh,
                     .events = {{.process = 3, .step = 3, .what = Event::kDies},
                                {.process = 0, .step = 6, .what = Event::kDies}},
                     .dtype = "bf16",
                     .far = true},
                    2);
}

TEST(ElasticDevices, APipelineLosesARank) {
  v1::ParallelSection mesh;
  mesh.set_pipeline(2);
  ExpectUndisturbed(
      {.parallel = mesh, .events = {{.process = 2, .step = 5, .what = Event::kDies}}, .far = true}, 1);
}

// With its keeper: parity has what it held.
TEST(ElasticDevices, AHostDies) {
  ExpectUndisturbed({.parallel = Sharded("zero-3"),
                     .events = {{.process = 1, .step = 5, .what = Event::kDies}},
                     .hosts = {"a", "b", "c", "d"},
                     .lost_hosts = 1,
                     .far = true},
                    1);
}

// The state and the gradients move to a mesh that is made beside the one that trains.
TEST(ElasticDevices, ARankLeavesAndAnotherJoins) {
  ExpectUndisturbed({.parallel = Sharded("zero-3"),
                     .founders = 3,
                     .newcomers = 1,
                     .events = {{.process = 0, .step = 3, .what = Event::kWaitsForNewcomers},
                                {.process = 1, .step = 10, .what = Event::kLeaves}},
                     .far = true},
                    2, 1);
}

TEST(ElasticDevices, AnOldRankDiesWhileANewcomerReceives) {
  ExpectUndisturbed({.parallel = Sharded("zero-3"),
                     .founders = 3,
                     .newcomers = 1,
                     .events = {{.process = 1, .step = 0, .what = Event::kDiesMoving},
                                {.process = 0, .step = 2, .what = Event::kWaitsForNewcomers}},
                     .far = true},
                    1);
}

// Devices with links of their own, of which each mesh has its own set: after a loss, and beside the mesh that trains. Sums of
// ranks have an order of their own there, but for those of the deterministic tree.
TEST(ElasticDevices, LinksOfDevicesAreMadeAnew) {
  const TempFolder folder;
  testing::SharedCounter calls;
  ExpectUndisturbed({.parallel = Sharded("zero-3"),
                     .founders = 3,
                     .newcomers = 1,
                     .events = {{.process = 0, .step = 3, .what = Event::kWaitsForNewcomers},
                                {.process = 1, .step = 10, .what = Event::kDies}},
                     .far = true,
                     .prepare = runtime::FakeLinks(folder.Path(""), calls)},
                    2, 1);
  EXPECT_GT(calls.Get(), 0) << "nothing went that way";
}

TEST(ElasticDevices, ARankThatDiffersIsRepaired) {
  Told told;
  ExpectUndisturbed({.founders = 3,
                     .events = {{.process = 1, .step = 4, .what = Event::kFlipsABit}},
                     .check_every = 1,
                     .far = true},
                    told, 0);
  EXPECT_EQ(told.repairs[0], 5) << "the step after which it was found, once";
}

}  // namespace
}  // namespace cohort::parallel
