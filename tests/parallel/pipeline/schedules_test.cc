// Every generator's schedules: proved for all small sizes, and as good as the papers say.
#include "parallel/pipeline/schedules/schedules.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "parallel/pipeline/check.h"
#include "parallel/pipeline/memory.h"
#include "parallel/pipeline/schedule_file.h"
#include "parallel/pipeline/simulate.h"

namespace cohort::parallel::pipeline {
namespace {

using ::testing::HasSubstr;

constexpr int kMaxRanks = 8, kMaxChunks = 4, kMaxMicroBatches = 17;

Schedule Make(const std::string& name, const ScheduleRequest& request) {
  absl::StatusOr<Schedule> schedule = MakeSchedule(name, request);
  EXPECT_TRUE(schedule.ok()) << schedule.status();
  return schedule.ok() ? *schedule : Schedule{};
}

Simulation Simulated(const std::string& name, const ScheduleRequest& request) {
  absl::StatusOr<Simulation> simulation = SimulateSchedule(Make(name, request), request.costs);
  EXPECT_TRUE(simulation.ok()) << simulation.status();
  return simulation.ok() ? *simulation : Simulation{};
}

double Most(const std::vector<double>& values) { return *std::max_element(values.begin(), values.end()); }

TEST(PipelineSchedules, EveryGeneratorIsRightForEverySize) {
  int made = 0;
  for (const ScheduleGenerator& row : ScheduleGenerators()) {
    const int most = row.max_chunks > 0 ? row.max_chunks : kMaxChunks;
    for (int ranks = 1; ranks <= kMaxRanks; ++ranks) {
      for (int chunks = row.min_chunks; chunks <= most; ++chunks) {
        for (int micro_batches = 1; micro_batches <= kMaxMicroBatches; ++micro_batches) {
          const std::string where = absl::StrCat(row.name, " ", ranks, " ", chunks, " ", micro_batches);
          const absl::StatusOr<Schedule> schedule = MakeSchedule(row.name, {ranks, chunks, micro_batches});
          ASSERT_TRUE(schedule.ok()) << where << ": " << schedule.status();
          ASSERT_EQ(schedule->rank_of, PlaceStages(row.placement, ranks, chunks)) << where;
          ASSERT_EQ(schedule->micro_batches, micro_batches) << where;
          ASSERT_TRUE(WeightGradientsAscend(*schedule)) << where;
          const bool split =
              std::any_of(schedule->actions[0].begin(), schedule->actions[0].end(),
                          [](const Action& action) { return action.kind == ActionKind::kBackwardInput; });
          ASSERT_TRUE(!split || row.split_backward) << where;
          // A file of it says the same.
          const absl::StatusOr<Schedule> read = ParseSchedule(ScheduleText(*schedule), "file");
          ASSERT_TRUE(read.ok()) << where << ": " << read.status();
          ASSERT_EQ(*read, *schedule) << where;
          ++made;
        }
      }
    }
  }
  EXPECT_GT(made, 2000);
}

TEST(PipelineSchedules, BubblesAreThoseOfThePapers) {
  for (int ranks = 1; ranks <= 8; ++ranks) {
    for (int micro_batches = 1; micro_batches <= 17; ++micro_batches) {
      const double p = ranks, m = micro_batches;
      for (const char* name : {"gpipe", "1f1b"}) {
        EXPECT_NEAR(Simulated(name, {ranks, 1, micro_batches}).BubbleFraction(), (p - 1) / (m + p - 1), 1e-12)
            << name << " " << p << " " << m;
      }
      // Forward, input and weight gradients take the same: a third of 1F1B's bubble of 3 (p - 1).
      if (micro_batches >= ranks) {
        EXPECT_NEAR(Simulated("zb-h1", {ranks, 1, micro_batches}).seconds, 3 * m + p - 1, 1e-9)
            << p << " " << m;
      }
      // The fill alone is left: half of ZB-H1's, where a stage has half the blocks.
      if (micro_batches >= 2 * ranks) {
        EXPECT_NEAR(Simulated("zb-v", {ranks, 2, micro_batches}).seconds, 6 * m + p - 1, 1e-9)
            << p << " " << m;
      }
      if (micro_batches % ranks != 0) continue;
      for (int chunks = 2; chunks <= 4; ++chunks) {
        EXPECT_NEAR(Simulated("interleaved", {ranks, chunks, micro_batches}).BubbleOverBusy(),
                    (p - 1) / (chunks * m), 1e-12)
            << p << " " << m << " " << chunks;
      }
    }
  }
}

TEST(PipelineSchedules, ActivationsAreThoseOfThePapers) {
  const int p = 4, m = 12;
  const auto peak = [](const std::string& name, int chunks) {
    return Most(Simulated(name, {p, chunks, m}).peak_activations);
  };
  EXPECT_EQ(peak("gpipe", 1), m);
  EXPECT_EQ(peak("1f1b", 1), p);
  EXPECT_EQ(peak("zb-h1", 1), p);
  EXPECT_EQ(peak("zb-v", 2), 2 * p);
  EXPECT_EQ(peak("dualpipe-v", 2), 2 * p + 1);
  for (const int chunks : {2, 3}) EXPECT_EQ(peak("interleaved", chunks), chunks * p + p - 1);
}

// More activations buy a smaller bubble, a limit is never exceeded, and what cannot fit is refused.
TEST(PipelineSchedules, TheListSchedulerKeepsItsLimit) {
  for (const std::string name : {"zb-auto", "zb-auto-v"}) {
    const int chunks = name == "zb-auto" ? 1 : 2;
    double before = kNoLimit;
    for (const int held : {1, 2, 4, 8}) {
      ScheduleRequest request = {4, chunks, 12};
      request.activation_limit = held * chunks;
      const Simulation simulation = Simulated(name, request);
      EXPECT_LE(Most(simulation.peak_activations), request.activation_limit);
      EXPECT_LE(simulation.seconds, before);
      before = simulation.seconds;
    }
    ScheduleRequest request = {4, chunks, 12};
    request.activation_limit = chunks - 0.5;
    EXPECT_THAT(MakeSchedule(name, request).status().message(),
                HasSubstr("one micro-batch keeps activations of"));
  }
  // With the memory of 1F1B it does no worse than ZB-H1.
  ScheduleRequest request = {4, 1, 16};
  request.activation_limit = 4;
  EXPECT_LE(Simulated("zb-auto", request).seconds, Simulated("zb-h1", request).seconds);
}

TEST(PipelineSchedules, TheListSchedulerHeedsUnevenCosts) {
  ScheduleRequest request = {4, 1, 16};
  request.costs.stages = {{1, 1.5, 0.5}, {1, 1.5, 0.5}, {1.2, 1, 1}, {2, 2, 2}};
  request.costs.transfer = {0.1, 1, 0.2};
  request.costs.speeds = {1, 1.1, 1, 0.9};
  request.activation_limit = 4;
  EXPECT_LE(Simulated("zb-auto", request).seconds, Simulated("zb-h1", request).seconds);
}

TEST(PipelineSchedules, WhatIsNotLegalIsRefusedWithAReason) {
  const auto refused = [](const std::string& name, const ScheduleRequest& request) {
    return std::string(MakeSchedule(name, request).status().message());
  };
  EXPECT_THAT(refused("2f2b", {}), HasSubstr("no pipeline schedule is called '2f2b'; there are gpipe, 1f1b"));
  EXPECT_THAT(refused("1f1b", {4, 2, 8}), HasSubstr("1f1b cannot have 2 stages a rank: it has one"));
  EXPECT_THAT(refused("zb-v", {4, 1, 8}), HasSubstr("zb-v cannot have 1 stage a rank: the way goes down"));
  EXPECT_THAT(refused("gpipe", {0, 1, 8}), HasSubstr("must be 1 or more, not 0, 1 and 8"));
  EXPECT_THAT(refused("gpipe", {2, 1, 8, {.stages = {{}}}}), HasSubstr("costs of 1 stages"));
  ScheduleRequest limited = {4, 1, 8};
  limited.activation_limit = 4;
  EXPECT_THAT(refused("gpipe", limited), HasSubstr("gpipe: rank 0, action 7 (0F7): the rank would hold"));
  EXPECT_TRUE(MakeSchedule("1f1b", limited).ok());
}

}  // namespace
}  // namespace cohort::parallel::pipeline
