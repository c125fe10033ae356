// What the planner measures, what it makes of it, and pipelines on cores that ranks share.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "parallel/pipeline/schedules/schedules.h"
#include "parallel/pipeline/simulate.h"
#include "parallel/planner/cluster.h"
#include "parallel/planner/layer_times.h"
#include "parallel/planner/measure_layers.h"
#include "parallel/planner/plan_config.h"
#include "parallel/planner/planner.h"
#include "parallel/planner/shared_cores.h"
#include "runtime/config/yaml_message.h"
#include "tests/support/ranks.h"
#include "tests/support/tiny_model.h"

namespace cohort::parallel::planner {
namespace {

TEST(LayerTimesTest, GoesInStraightLinesBetweenPointsAndInProportionBeyond) {
  LayerTimes times;
  EXPECT_FALSE(times.Of(Layer::kDense, 1, 1, 10).has_value());
  times.Add(Layer::kDense, 1, 1, 10, {2, 4});
  times.Add(Layer::kDense, 1, 1, 30, {4, 8});
  times.Add(Layer::kDense, 2, 1, 10, {1.5, 3});
  const auto forward = [&](int tensor, double tokens) {
    return times.Of(Layer::kDense, tensor, 1, tokens)->forward;
  };
  EXPECT_DOUBLE_EQ(forward(1, 10), 2);
  EXPECT_DOUBLE_EQ(forward(1, 20), 3);
  EXPECT_DOUBLE_EQ(forward(1, 60), 8);     // in proportion to the largest
  EXPECT_DOUBLE_EQ(forward(1, 5), 1.5);    // along the first line
  EXPECT_DOUBLE_EQ(forward(2, 20), 3);     // one point: in proportion
  EXPECT_DOUBLE_EQ(forward(4, 10), 0.75);  // as over two, in proportion
  EXPECT_FALSE(times.Of(Layer::kSparse, 1, 1, 10).has_value());
  const LayerTimes again = LayerTimes::Decode(times.Encode());
  EXPECT_DOUBLE_EQ(again.Of(Layer::kDense, 1, 1, 20)->backward, 6);
  EXPECT_DOUBLE_EQ(times.Slower(2).Of(Layer::kDense, 1, 1, 20)->backward, 12);
}

TEST(MeasureLayersTest, MeasuresEveryKindOfLayer) {
  runtime::SetCpuThreads(1);
  const runtime::ModelConfig config = runtime::TinyConfig("qwen3_moe");
  const ModelCost model(config, 16);
  const auto times = MeasureLayers(model, runtime::CpuDevice(), DataType::kF32,
                                   {.fewest = 8, .most = 64, .tensor = 2, .expert = 2});
  ASSERT_TRUE(times.ok()) << times.status();
  for (const Layer layer : {Layer::kHead, model.block(0)}) {
    const auto seconds = times->Of(layer, 1, 1, 64);
    ASSERT_TRUE(seconds.has_value());
    EXPECT_GT(seconds->forward, 0);
  }
  EXPECT_GT(times->BestRate(model), 0);
  EXPECT_GT(MeasureUpdate(runtime::CpuDevice(), DataType::kF32), 0);
}

TEST(RunningClusterTest, IsTheSameOnAllRanks) {
  testing::RunRanks(2, [](comm::Communicator& world) {
    runtime::SetCpuThreads(1);
    const runtime::ModelConfig config = runtime::TinyConfig("llama");
    const ModelCost model(config, 16);
    const Work work = {.sequence_length = 16, .global_batch = 4};
    const auto cluster = RunningCluster(world, runtime::CpuDevice(), DataType::kF32, model, work);
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    std::vector<double> numbers = cluster->layers.Encode();
    for (const double number : {cluster->flops, cluster->cores, cluster->meeting, cluster->drift,
                                cluster->update_seconds, static_cast<double>(cluster->memory)}) {
      numbers.push_back(number);
    }
    std::vector<double> first = numbers;
    ASSERT_TRUE(world.Broadcast(first.data(), first.size(), DataType::kF64, 0).Wait().ok());
    EXPECT_EQ(numbers, first);
    EXPECT_GT(cluster->cores, 0);
    EXPECT_LE(cluster->cores, 1);
    const auto ranking = RankMeshes(model, work, *cluster);
    ASSERT_TRUE(ranking.ok()) << ranking.status();
  });
}

pipeline::ScheduleRequest RequestOf(int ranks, int chunks, int micro_batches) {
  pipeline::ScheduleRequest request;
  request.ranks = ranks;
  request.chunks = chunks;
  request.micro_batches = micro_batches;
  return request;
}

TEST(SharedCoresTest, IsTheSimulatorWhereEachRankHasACore) {
  for (const std::string& name : PlannedSchedules()) {
    const int chunks = ChunksOf(name);
    const auto schedule = pipeline::MakeSchedule(name, RequestOf(4, chunks, 8));
    ASSERT_TRUE(schedule.ok()) << schedule.status();
    std::vector<SharedStage> stages;
    pipeline::PipelineCosts costs;
    for (int stage = 0; stage < schedule->stages(); ++stage) {
      const double forward = 1 + 0.1 * stage;
      stages.push_back({.forward = forward, .input = 1.2, .weight = 0.8});
      costs.stages.push_back({forward, 1.2, 0.8, 1, 1});
    }
    costs.transfer = {0.25, 0, 0};
    const auto simulated = pipeline::SimulateSchedule(*schedule, costs);
    ASSERT_TRUE(simulated.ok()) << simulated.status();
    EXPECT_NEAR(SecondsOnSharedCores(*schedule, stages, 0.25, 4), simulated->seconds, 1e-9) << name;
  }
}

TEST(SharedCoresTest, ABubbleCostsLittleWhereOthersUseTheCore) {
  const auto schedule = pipeline::MakeSchedule("1f1b", RequestOf(4, 1, 4));
  ASSERT_TRUE(schedule.ok()) << schedule.status();
  const std::vector<SharedStage> stages(4, {.forward = 1, .input = 1, .weight = 1});
  const double work = 4 * 4 * 3;
  // On one core nobody ever waits: it always has something to do.
  EXPECT_NEAR(SecondsOnSharedCores(*schedule, stages, 0, 1), work, 1e-9);
  // On four it is 1F1B: micro-batches and what fills and drains.
  EXPECT_NEAR(SecondsOnSharedCores(*schedule, stages, 0, 4), (4 + 3) * 3, 1e-9);
  const double two = SecondsOnSharedCores(*schedule, stages, 0, 2);
  EXPECT_GE(two, work / 2);
  EXPECT_LT(two, 1.25 * work / 2);
}

TEST(PlanConfigTest, WritesWhatItReads) {
  const auto choices = ParseChoices(
      "pipeline=2 shard=2 context=1 tensor=2 expert=1 sharding=hsdp schedule=zb-v micro-batch=2 "
      "recompute=yes");
  ASSERT_TRUE(choices.ok()) << choices.status();
  const MeshPlan plan = choices->Complete(1);
  v1::TrainConfig config;
  config.mutable_parallel()->set_mesh("auto");
  WritePlan(plan, config);
  EXPECT_FALSE(config.parallel().has_mesh());
  EXPECT_EQ(config.parallel().stages_per_rank(), 2);
  config.mutable_parallel()->clear_stages_per_rank();
  const auto again = ChoicesOf(config);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->Complete(1).DebugString(), plan.DebugString());
  config.mutable_parallel()->set_gather_codec("int8");
  EXPECT_FALSE(ChoicesOf(config).ok());
  // What is printed can be read as a configuration.
  v1::TrainConfig read;
  const absl::Status parsed =
      runtime::ParseYaml(PlanYaml(plan, {.sequence_length = 8, .global_batch = 4}), "test", read);
  ASSERT_TRUE(parsed.ok()) << parsed;
  EXPECT_EQ(read.parallel().sharding(), "hsdp");
  EXPECT_EQ(read.train().micro_batch(), 2);
}

}  // namespace
}  // namespace cohort::parallel::planner
