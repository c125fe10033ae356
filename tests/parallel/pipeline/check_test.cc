// Broken schedules are refused with the right reason, times are as counted by hand, and files are read.
#include "parallel/pipeline/check.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "parallel/pipeline/schedule_file.h"
#include "parallel/pipeline/schedules/schedules.h"
#include "parallel/pipeline/simulate.h"

namespace cohort::parallel::pipeline {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr ActionKind F = ActionKind::kForward, I = ActionKind::kBackwardInput,
                     W = ActionKind::kBackwardWeight, B = ActionKind::kBackward;

// Two stages on two ranks.
Schedule Two(int micro_batches, std::vector<Action> first, std::vector<Action> second) {
  return {micro_batches, {0, 1}, {std::move(first), std::move(second)}};
}

std::string Said(const Schedule& schedule, const MemoryLimit& limit = {}) {
  return std::string(CheckSchedule(schedule, limit).message());
}

TEST(PipelineCheck, Placement) {
  EXPECT_THAT(Said({}), HasSubstr("a schedule has stages, ranks and micro-batches"));
  EXPECT_THAT(Said({1, {0, 2}, {{}, {}}}), HasSubstr("stage 1 is on rank 2, but the ranks are 0 to 1"));
  EXPECT_THAT(Said({1, {0, 0}, {{}, {}}}), HasSubstr("rank 1 has no stage: 2 stages do not fill 2 ranks"));
}

TEST(PipelineCheck, EveryActionOnce) {
  const std::vector<Action> second = {{F, 1, 0}, {B, 1, 0}};
  EXPECT_EQ(Said(Two(1, {{F, 0, 0}, {B, 0, 0}}, second)), "");
  EXPECT_EQ(Said(Two(1, {{F, 0, 0}, {I, 0, 0}, {W, 0, 0}}, second)), "");
  EXPECT_THAT(Said(Two(1, {{F, 0, 0}}, second)),
              HasSubstr("rank 0 has no backward (B, or I and W) of stage 0, micro-batch 0"));
  EXPECT_THAT(Said(Two(1, {{F, 0, 0}, {W, 0, 0}}, second)),
              HasSubstr("rank 0 has no gradient of the input (I) of stage 0, micro-batch 0"));
  EXPECT_THAT(Said(Two(1, {{F, 0, 0}, {I, 0, 0}}, second)),
              HasSubstr("rank 0 has no gradient of the weights (W) of stage 0, micro-batch 0"));
  EXPECT_THAT(Said(Two(1, {{I, 0, 0}, {W, 0, 0}}, second)),
              HasSubstr("rank 0 has no forward (F) of stage 0"));
  EXPECT_THAT(Said(Two(1, {{F, 0, 0}, {F, 0, 0}}, second)),
              HasSubstr("rank 0, action 1 (0F0): is there twice"));
  EXPECT_THAT(Said(Two(1, {{F, 0, 0}, {B, 0, 0}, {W, 0, 0}}, second)),
              HasSubstr("rank 0, action 2 (0W0): the backward is there whole (B) and in parts"));
  EXPECT_THAT(Said(Two(1, {{F, 1, 0}, {B, 0, 0}}, second)),
              HasSubstr("rank 0, action 0 (1F0): stage 1 is on rank 1"));
  EXPECT_THAT(Said(Two(1, {{F, 7, 0}, {B, 0, 0}}, second)), HasSubstr("the stages are 0 to 1"));
  EXPECT_THAT(Said(Two(1, {{F, 0, 1}, {B, 0, 0}}, second)), HasSubstr("the micro-batches are 0 to 0"));
  EXPECT_THAT(Said(Two(1, {{F, 0, -1}, {B, 0, 0}}, second)), HasSubstr("the micro-batches are 0 to 0"));
}

TEST(PipelineCheck, OrderAndDeadlock) {
  const std::vector<Action> second = {{F, 1, 0}, {B, 1, 0}};
  EXPECT_THAT(
      Said(Two(1, {{F, 0, 0}, {W, 0, 0}, {I, 0, 0}}, second)),
      HasSubstr("wrong order: rank 0, action 1 (0W0): waits for the gradient of stage 0, micro-batch 0, "
                "which comes later in the same list"));
  EXPECT_THAT(Said(Two(1, {{F, 0, 0}, {B, 0, 0}}, {{B, 1, 0}, {F, 1, 0}})),
              HasSubstr("wrong order: rank 1, action 0 (1B0): waits for the forward of stage 1"));
  // Each list is in order by itself; together they wait for ever.
  EXPECT_EQ(Said(Two(2, {{F, 0, 0}, {B, 0, 0}, {F, 0, 1}, {B, 0, 1}},
                     {{F, 1, 0}, {F, 1, 1}, {B, 1, 0}, {B, 1, 1}})),
            "deadlock: rank 0, action 1 (0B0): waits for the gradient of stage 1, micro-batch 0, of rank 1; "
            "rank 1, action 1 (1F1): waits for the forward of stage 0, micro-batch 1, of rank 0");
}

TEST(PipelineCheck, Memory) {
  const Schedule schedule = *MakeSchedule("gpipe", {2, 1, 3});
  EXPECT_EQ(Said(schedule, {.activations = 3}), "");
  EXPECT_THAT(Said(schedule, {.activations = 2}),
              HasSubstr("rank 0, action 2 (0F2): the rank would hold activations of 3 here; the limit is 2"));
  const std::vector<StageCosts> costs = {{.activations = 0.5}, {.activations = 2}};
  EXPECT_THAT(Said(schedule, {.activations = 5, .costs = costs}), HasSubstr("rank 1, action 2 (1F2)"));
  EXPECT_THAT(Said(schedule, {.activations = 5, .costs = {costs.data(), 1}}), HasSubstr("costs of 1 stages"));
  // What is kept between the two gradients counts.
  const Schedule split = {2, {0}, {{{F, 0, 0}, {I, 0, 0}, {F, 0, 1}, {I, 0, 1}, {W, 0, 0}, {W, 0, 1}}}};
  const std::vector<StageCosts> half = {{.kept_for_weight = 0.5}};
  EXPECT_EQ(Said(split, {.activations = 1.5, .costs = half}), "");
  EXPECT_THAT(Said(split, {.activations = 1.5}), HasSubstr("(0F1)"));
}

// Any two neighbours of a list swapped: the checker and a plain search for an order agree.
TEST(PipelineCheck, ASwapIsRefusedExactlyWhereItMustBe) {
  const Schedule good = *MakeSchedule("1f1b", {3, 1, 4});
  int refused = 0, accepted = 0;
  for (int rank = 0; rank < good.ranks(); ++rank) {
    for (size_t i = 0; i + 1 < good.actions[rank].size(); ++i) {
      Schedule schedule = good;
      std::swap(schedule.actions[rank][i], schedule.actions[rank][i + 1]);
      // The plain search: do whatever is next and has all it needs, until nothing is.
      std::vector<Action> done;
      std::vector<size_t> at(schedule.ranks());
      const auto has = [&](ActionKind kind, int stage, int micro_batch) {
        return std::find(done.begin(), done.end(), Action{kind, stage, micro_batch}) != done.end();
      };
      for (bool moved = true; moved;) {
        moved = false;
        for (int r = 0; r < schedule.ranks(); ++r) {
          if (at[r] == schedule.actions[r].size()) continue;
          const Action& next = schedule.actions[r][at[r]];
          const bool ready = next.kind == F
                                 ? next.stage == 0 || has(F, next.stage - 1, next.micro_batch)
                                 : has(F, next.stage, next.micro_batch) &&
                                       (next.stage == 2 || has(B, next.stage + 1, next.micro_batch));
          if (ready) done.push_back(next), ++at[r], moved = true;
        }
      }
      const bool possible = done.size() == 24;
      EXPECT_EQ(CheckSchedule(schedule).ok(), possible) << schedule.DebugString();
      ++(possible ? accepted : refused);
    }
  }
  EXPECT_GT(refused, 3);
  EXPECT_GT(accepted, 3);
}

TEST(PipelineSimulate, TimesAreAsCountedByHand) {
  const Schedule schedule = *MakeSchedule("1f1b", {2, 1, 2});  // 0F0 0F1 0B0 0B1 / 1F0 1B0 1F1 1B1
  PipelineCosts costs;
  costs.stages = {{1, 1, 2}, {2, 1, 1}};
  costs.transfer = {.latency = 0.5, .bytes = 10, .seconds_per_byte = 0.1};
  costs.speeds = {1, 2};
  const Simulation simulation = *SimulateSchedule(schedule, costs);
  std::vector<double> ends;
  for (const auto& line : simulation.timeline) {
    for (const TimedAction& timed : line) ends.push_back(timed.end);
  }
  // Rank 1: 1F0 from 1 + 1.5 takes 1, 1B0 1; then 1F1 (there at 3.5) and 1B1. Rank 0: 0B0 from 4.5 + 1.5 takes 3.
  EXPECT_THAT(ends, ElementsAre(1, 2, 9, 12, 3.5, 4.5, 5.5, 6.5));
  EXPECT_EQ(simulation.seconds, 12);
  EXPECT_THAT(simulation.busy, ElementsAre(8, 4));
  EXPECT_DOUBLE_EQ(simulation.BubbleFraction(), 0.5);
  EXPECT_DOUBLE_EQ(simulation.BubbleOverBusy(), 1);
  EXPECT_THAT(simulation.peak_activations, ElementsAre(2, 1));
}

TEST(PipelineSimulate, AMeasuredStepIsReplayed) {
  const Schedule schedule = *MakeSchedule("1f1b", {2, 1, 2});  // 0F0 0F1 0B0 0B1 / 1F0 1B0 1F1 1B1
  PipelineCosts costs;
  costs.actions = {{1, 2, 1, 1}, {4, 1, 1, 3}};
  const Simulation simulation = *SimulateSchedule(schedule, costs);
  EXPECT_EQ(simulation.timeline[0][2].begin, 6);  // 1F0 from 1 to 5, 1B0 to 6
  EXPECT_EQ(simulation.seconds, 11);              // 1F1 to 7, 1B1 to 10, 0B1
  EXPECT_THAT(simulation.busy, ElementsAre(5, 9));
  costs.actions[1].pop_back();
  EXPECT_THAT(SimulateSchedule(schedule, costs).status().message(), HasSubstr("one for each action"));
}

TEST(PipelineSimulate, MessagesOfALinkQueue) {
  const Schedule schedule = *MakeSchedule("gpipe", {2, 1, 3});
  PipelineCosts costs;
  costs.transfer = {.latency = 0, .bytes = 1, .seconds_per_byte = 4};
  const Simulation simulation = *SimulateSchedule(schedule, costs);
  std::vector<double> begins;
  for (const TimedAction& timed : simulation.timeline[1]) begins.push_back(timed.begin);
  EXPECT_THAT(begins, ElementsAre(5, 9, 13, 14, 16, 18));
}

TEST(PipelineSimulate, BadCostsAreRefused) {
  const Schedule schedule = *MakeSchedule("gpipe", {2, 1, 3});
  const auto said = [&](const PipelineCosts& costs) {
    return std::string(SimulateSchedule(schedule, costs).status().message());
  };
  EXPECT_THAT(said({.stages = {{}}}), HasSubstr("do not fit a schedule of 2 stages on 2 ranks"));
  EXPECT_THAT(said({.stages = {{}, {.forward = -1}}}), HasSubstr("costs of stage 1"));
  EXPECT_THAT(said({.speeds = {1, 0}}), HasSubstr("the speed of rank 1 is 0"));
  EXPECT_THAT(said({.transfer = {.latency = kNoLimit}}), HasSubstr("costs of a transfer"));
}

TEST(PipelineScheduleFile, APersonsFileIsRead) {
  const Schedule schedule =
      *ParseSchedule("# mine\n0F0, 0F1,,0B0 ,0B1\r\n\n1F0,1I0,1F1,1W0,1B1\n", "mine.csv");
  EXPECT_EQ(schedule, Two(2, {{F, 0, 0}, {F, 0, 1}, {B, 0, 0}, {B, 0, 1}},
                          {{F, 1, 0}, {I, 1, 0}, {F, 1, 1}, {W, 1, 0}, {B, 1, 1}}));
  EXPECT_EQ(schedule.DebugString(),
            "2 stages on 2 ranks, 2 micro-batches\nrank 0 (stages 0): 0F0 0F1 0B0 0B1\n"
            "rank 1 (stages 1): 1F0 1I0 1F1 1W0 1B1\n");
}

TEST(PipelineScheduleFile, BrokenFilesAreRefusedWithTheirLine) {
  const auto said = [](const std::string& text) {
    return std::string(ParseSchedule(text, "mine.csv").status().message());
  };
  for (const char* cell :
       {"F0", "0F", "0", "0X0", "0F0 0B0", "0F-1", "0F0x", "99999999999F0", "0f0", "1.5F0"}) {
    EXPECT_THAT(said(std::string("# mine\n0F0,") + cell + "\n"),
                HasSubstr(std::string("mine.csv:2: '") + cell + "': an action is a stage"));
  }
  EXPECT_THAT(said("0F0,0B0\n1F0,0B1\n"),
              HasSubstr("mine.csv:2: '0B1': stage 0 is on rank 0 already (line 1), and this is rank 1"));
  EXPECT_THAT(said("0F0,0B0\n2F0,2B0\n"), HasSubstr("mine.csv:2: has stage 2, but no line has stage 1"));
  EXPECT_THAT(said("0F0,0B0\n,,\n"), HasSubstr("mine.csv:2: rank 1 has no action"));
  EXPECT_THAT(said("# nothing\n"), HasSubstr("mine.csv: empty"));
  EXPECT_THAT(said(""), HasSubstr("mine.csv: empty"));
  // What the checker finds, with the line of the rank.
  EXPECT_THAT(said("# mine\n0B0,0F0\n"), HasSubstr("mine.csv:2: wrong order: rank 0, action 0 (0B0)"));
  EXPECT_THAT(said("0F0,0B0\n\n1F0,\n"), HasSubstr("mine.csv:3: rank 1 has no backward (B, or I and W) of "
                                                   "stage 1, micro-batch 0"));
  EXPECT_THAT(said("0F0,0I0\n1F0,1B0\n"), HasSubstr("mine.csv:1: rank 0 has no gradient of the weights (W)"));
  EXPECT_THAT(said("0F0,0B0\n1F0,1B0,1F0\n"),
              HasSubstr("mine.csv:2: rank 1, action 2 (1F0): is there twice"));
  EXPECT_THAT(said("0F0,0B0\n1F0,1B0,1W0\n"),
              HasSubstr("mine.csv:2: rank 1, action 2 (1W0): the backward is"));
  EXPECT_THAT(said("# a\n0F0,0B0,0F1,0B1\n1F0,1F1,1B0,1B1\n"),
              HasSubstr("mine.csv:2: deadlock: rank 0, action 1 (0B0): waits for the gradient of stage 1"));
  EXPECT_THAT(said("0F0,0B0,0F2,0B2\n1F0,1B0,1F2,1B2\n"),
              HasSubstr("mine.csv:1: rank 0 has no forward (F) of stage 0, micro-batch 1"));
  EXPECT_THAT(said("0F0,0B0,0F900000,0B900000\n"), HasSubstr("need 1800002 actions or more"));
}

}  // namespace
}  // namespace cohort::parallel::pipeline
