// What the executor keeps is what the memory model says, and an error of one stage ends the step on all ranks.
#include "parallel/pipeline/executor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "parallel/pipeline/memory.h"
#include "parallel/pipeline/schedules/schedules.h"
#include "tests/parallel/training_run.h"

namespace cohort::parallel::pipeline {
namespace {

constexpr int kLength = 48;

// Sequences of one length, so that all micro-batches keep the same.
class EqualSource final : public BatchSource {
 public:
  explicit EqualSource(int64_t vocabulary) : vocabulary_(vocabulary) {}
  absl::StatusOr<Samples> Training(int64_t step, int64_t begin, int64_t count) override {
    const std::vector<int> lengths(static_cast<size_t>(count), kLength);
    Samples samples;
    samples.tokens =
        runtime::RandomBatch(runtime::CpuDevice(), lengths, vocabulary_, static_cast<uint32_t>(begin));
    if (step == wrong_at_step) samples.tokens.tokens.data<int32_t>()[3] = 10'000;
    return samples;
  }
  int64_t held_out() const override { return 0; }
  absl::StatusOr<Samples> HeldOut(int64_t, int64_t) override { return absl::UnimplementedError("none"); }

  int64_t wrong_at_step = -1;

 private:
  const int64_t vocabulary_;
};

std::unique_ptr<ParallelModel> Make(const ScheduleGenerator& row, int micro_batches,
                                    comm::Communicator& world, std::unique_ptr<EqualSource> source) {
  runtime::SetCpuThreads(1);
  runtime::ModelConfig config = runtime::SmallConfig("llama");
  config.num_hidden_layers = 8;
  config.tie_word_embeddings = false;
  const auto mesh = MakeMesh({.pipeline = world.size()}, world);
  EXPECT_TRUE(mesh.ok()) << mesh.status();
  auto model = ParallelModel::Create(config, runtime::CpuDevice(),
                                     {.compute = DataType::kF32,
                                      .global_batch = micro_batches,
                                      .micro_batch = 1,
                                      .schedule = row.name,
                                      .stages_per_rank = row.min_chunks},
                                     *mesh, std::shared_ptr<comm::Communicator>(&world, [](auto*) {}),
                                     std::move(source));
  EXPECT_TRUE(model.ok()) << model.status();
  if (!model.ok()) return nullptr;
  (*model)->Initialize(1);
  return *std::move(model);
}

ExecutorTrace TraceOf(const ScheduleGenerator& row, int micro_batches, int receives_ahead,
                      comm::Communicator& world, Schedule& schedule) {
  const auto model = Make(row, micro_batches, world,
                          std::make_unique<EqualSource>(runtime::SmallConfig("llama").vocab_size));
  model->executor().SetReceivesAhead(receives_ahead);
  ExecutorTrace trace;
  EXPECT_TRUE(model->ComputeGradients(0).ok());
  const size_t before = runtime::CpuDevice().allocated_bytes();
  model->TracePipeline(&trace);
  EXPECT_TRUE(model->ComputeGradients(1).ok());
  EXPECT_EQ(runtime::CpuDevice().allocated_bytes(), before) << "a step leaves something behind";
  schedule = model->plan().schedule();
  return trace;
}

// Of this rank's stages: what one micro-batch keeps when it is alone, after its forward and between its gradients.
std::vector<StageCosts> CostsOfOne(const ScheduleGenerator& row, comm::Communicator& world) {
  Schedule schedule;
  const ExecutorTrace trace = TraceOf(row, 1, 0, world, schedule);
  std::vector<StageCosts> costs(static_cast<size_t>(schedule.stages()));
  for (size_t i = 0; i < trace.line.size(); ++i) {
    const Action& action = trace.line[i].action;
    const auto more = static_cast<double>(trace.kept[i] - (i == 0 ? 0 : trace.kept[i - 1]));
    if (action.kind == ActionKind::kForward) costs[action.stage].activations = more;
    if (action.kind == ActionKind::kBackwardWeight) costs[action.stage].kept_for_weight = -more;
  }
  return costs;
}

// The most that a schedule keeps, and the messages that are posted ahead, are what a step really takes: no sent tensor,
// and nothing of what a backward is through with, stays longer than that.
TEST(PipelineExecutor, KeepsWhatTheMemoryModelSays) {
  testing::RunRanks(2, [](comm::Communicator& world) {
    const double message = kLength * static_cast<double>(runtime::SmallConfig("llama").hidden_size) * 4;
    for (const ScheduleGenerator& row : ScheduleGenerators()) {
      const std::vector<StageCosts> costs = CostsOfOne(row, world);
      Schedule schedule;
      const ExecutorTrace trace = TraceOf(row, 6, policy::kReceivesAhead, world, schedule);
      const double most = static_cast<double>(*std::max_element(trace.kept.begin(), trace.kept.end()));
      const double activations = FindPeakActivations(schedule, costs)[world.rank()].held;
      const double modelled = activations + policy::kReceivesAhead * message;
      EXPECT_NEAR(most, modelled, 0.05 * modelled)
          << row.name << ", rank " << world.rank() << ", activations " << activations;
      EXPECT_GT(activations, 40 * message) << row.name;
    }
  });
}

// The others would wait for a message that never comes.
TEST(PipelineExecutor, AnErrorOfOneStageEndsTheStepOnAllRanks) {
  testing::RunRanks(3, [](comm::Communicator& world) {
    auto source = std::make_unique<EqualSource>(runtime::SmallConfig("llama").vocab_size);
    source->wrong_at_step = 1;
    const auto model = Make(*FindScheduleGenerator("1f1b"), 4, world, std::move(source));
    ASSERT_TRUE(model->ComputeGradients(0).ok());
    const absl::Time begin = absl::Now();
    const absl::Status status = model->ComputeGradients(1).status();
    EXPECT_LT(absl::Now() - begin, absl::Seconds(10)) << "it waited for its deadline";
    EXPECT_THAT(status.message(), ::testing::HasSubstr("pipeline action "));
    EXPECT_THAT(status.message(), ::testing::HasSubstr("token 10000 in a batch for a model"));
  });
}

}  // namespace
}  // namespace cohort::parallel::pipeline
