// What a model that is spread over ranks promises to the step loop and to checkpoints.
#include "parallel/parallel_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <map>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "tests/parallel/training_run.h"

namespace cohort::parallel {
namespace {

using ::testing::HasSubstr;

Training Mixture(int ranks, int expert) {
  Training run = {.config = runtime::TinyConfig("qwen3_moe"), .ranks = ranks, .expert = expert};
  run.config.router.gate = "sigmoid";
  run.config.router.bias_update_rate = 0.001;
  return run;
}

TEST(ParallelModel, EveryParameterHasOneWriterAndItsOptimizerState) {
  for (const auto& [ranks, expert] : {std::pair{1, 1}, {2, 2}, {4, 2}, {4, 1}}) {
    const Training run = Mixture(ranks, expert);
    testing::RunRanks(ranks, [&](comm::Communicator& world) {
      const auto model = MakeModel(run, world);
      std::vector<std::string> written;
      std::vector<int64_t> covered(model->slices().size(), 0);
      for (const runtime::StateEntry& entry : model->state()) {
        if (entry.writes) written.push_back(entry.piece.name);
        EXPECT_EQ(model->decoder().Find(entry.piece.name), entry.parameter);
        EXPECT_EQ(entry.slice < 0, entry.parameter->buffer) << entry.piece.name;
        if (entry.slice < 0) continue;
        // The slice's elements there are the parameter's own memory.
        const runtime::OptimizerSlice& slice = model->slices()[entry.slice];
        EXPECT_EQ(slice.master.data<float>() + entry.offset, entry.parameter->master.data<float>())
            << entry.piece.name;
        EXPECT_EQ(slice.grad.data<float>() + entry.offset, entry.parameter->grad.data<float>())
            << entry.piece.name;
        covered[entry.slice] += entry.parameter->value.size();
      }
      for (size_t i = 0; i < covered.size(); ++i) EXPECT_EQ(covered[i], model->slices()[i].master.size());

      const auto lists = model->GatherStrings(absl::StrJoin(written, ","));
      ASSERT_TRUE(lists.ok()) << lists.status();
      std::map<std::string, int> writers;
      for (const std::string& list : *lists) {
        for (const auto name : absl::StrSplit(list, ',', absl::SkipEmpty())) ++writers[std::string(name)];
      }
      for (const auto& [name, count] : writers) EXPECT_EQ(count, 1) << name;
      // All names of the model on one rank, whichever rank has them here.
      const auto alone = comm::Communicator::Single();
      const auto whole = MakeModel(Mixture(1, 1), *alone);
      EXPECT_EQ(writers.size(), whole->state().size());
      for (const runtime::StateEntry& entry : whole->state())
        EXPECT_EQ(writers.count(entry.piece.name), 1u) << entry.piece.name;
    });
  }
}

TEST(ParallelModel, RanksStartWithTheSameWeightsWhereverTheyLie) {
  testing::RunRanks(2, [](comm::Communicator& world) {
    const auto model = MakeModel(Mixture(2, 2), world);
    const auto alone = comm::Communicator::Single();
    const auto whole = MakeModel(Mixture(1, 1), *alone);
    for (runtime::Parameter* parameter : runtime::AllParameters(model->decoder())) {
      EXPECT_EQ(ToHost(parameter->value), ToHost(whole->decoder().Find(parameter->name)->value))
          << parameter->name;
    }
    EXPECT_EQ(model->decoder().Find("model.layers.0.mlp.experts.0.up_proj.weight") != nullptr,
              world.rank() == 0);
    EXPECT_EQ(model->decoder().Find("model.layers.0.mlp.experts.3.up_proj.weight") != nullptr,
              world.rank() == 1);
  });
}

TEST(ParallelModel, Bf16KeepsMastersAndReducesInF32) {
  testing::RunRanks(2, [](comm::Communicator& world) {
    Training run = Mixture(2, 1);
    run.options.compute = DataType::kBF16;
    const auto model = MakeModel(run, world);
    for (const runtime::OptimizerSlice& slice : model->slices()) {
      EXPECT_EQ(slice.master.dtype(), DataType::kF32);
      EXPECT_EQ(slice.grad.dtype(), DataType::kF32);
      EXPECT_EQ(slice.value.dtype(), DataType::kBF16);
    }
    Optimizer optimizer(*model);
    double first = 0, last = 0;
    for (int step = 0; step < 12; ++step) {
      const auto result = model->ComputeGradients(0);  // the same batch again: it must be learned
      ASSERT_TRUE(result.ok()) << result.status();
      const auto norm = model->GradientNorm();
      ASSERT_TRUE(norm.ok()) << norm.status();
      optimizer.Step(*norm);
      last = result->sums.loss;
      if (step == 0) first = last;
    }
    EXPECT_LT(last, 0.8 * first);
    // Replicas stay equal bit for bit.
    for (const runtime::OptimizerSlice& slice : model->slices()) {
      double sum = 0;
      for (const double value : ToHost(slice.master)) sum += value * value;
      double both = sum;
      ASSERT_TRUE(world.AllReduce(&sum, &both, 1, DataType::kF64, comm::ReduceOp::kMax).Wait().ok());
      EXPECT_EQ(sum, both) << slice.name;
    }
  });
}

TEST(ParallelModel, RanksAgreeOnSmallThings) {
  testing::RunRanks(3, [](comm::Communicator& world) {
    Training run = {.config = runtime::TinyConfig("llama"), .ranks = 3};
    const auto model = MakeModel(run, world);
    EXPECT_EQ(model->rank(), world.rank());
    EXPECT_EQ(model->world(), 3);
    const auto most = model->AgreeMax(world.rank() == 1 ? 42 : -1);
    ASSERT_TRUE(most.ok());
    EXPECT_EQ(*most, 42);
    const auto strings = model->GatherStrings(std::string(static_cast<size_t>(world.rank()) * 1000, 'a'));
    ASSERT_TRUE(strings.ok());
    for (size_t rank = 0; rank < 3; ++rank) EXPECT_EQ((*strings)[rank], std::string(rank * 1000, 'a'));
    EXPECT_TRUE(model->Barrier().ok());
  });
}

TEST(ParallelModel, AnErrorReadingOnOneRankFailsTheStepOnAllAndTheNextOneWorks) {
  testing::RunRanks(3, [](comm::Communicator& world) {
    Training run = {.config = runtime::TinyConfig("llama"), .ranks = 3};
    auto source = std::make_unique<TestSource>(runtime::CpuDevice(), run.config.vocab_size);
    if (world.rank() == 1) source->fail_at_step = 4;
    const auto model = MakeModel(run, world, std::move(source));
    const absl::Status status = model->ComputeGradients(4).status();
    EXPECT_FALSE(status.ok());
    EXPECT_THAT(status.message(), HasSubstr("ends in the middle of a document"));
    if (world.rank() != 1) {
      EXPECT_THAT(status.message(), HasSubstr("rank 1"));
    }
    EXPECT_TRUE(model->ComputeGradients(5).ok());
  });
}

TEST(ParallelModel, AKilledRankIsAnErrorOnEverySurvivorThatNamesIt) {
  for (const int expert : {1, 2}) {
    testing::RunRanks(4,
                      [&](comm::Communicator& world) {
                        const auto model = MakeModel(Mixture(4, expert), world);
                        absl::Status status;
                        for (int step = 0; step < 1000 && status.ok(); ++step) {
                          if (world.rank() == 2 && step == 3) {
                            // In the middle of a step, while the others compute or reduce.
                            if (fork() == 0) {
                              absl::SleepFor(absl::Milliseconds(1));
                              kill(getppid(), SIGKILL);
                              _exit(0);
                            }
                          }
                          status = model->ComputeGradients(step).status();
                          if (status.ok()) status = model->GradientNorm().status();
                        }
                        EXPECT_FALSE(status.ok());
                        EXPECT_THAT(status.ToString(), HasSubstr("rank 2 was lost"));
                        EXPECT_FALSE(model->ComputeGradients(0).ok()) << "a group with a lost rank goes on";
                        EXPECT_FALSE(model->Barrier().ok());
                      },
                      {.victims = {2}});
  }
}

TEST(ParallelModel, BadOptionsAreErrorsThatNameTheNumbers) {
  Training run = {.config = runtime::TinyConfig("llama")};
  std::shared_ptr<comm::Communicator> single = comm::Communicator::Single();
  const auto mesh = MakeMesh({}, *single);
  ASSERT_TRUE(mesh.ok());
  run.options.global_batch = 0;
  const auto model =
      ParallelModel::Create(run.config, runtime::CpuDevice(), run.options, *mesh, single, nullptr);
  EXPECT_EQ(model.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(model.status().message(), HasSubstr("train.global_batch is 0"));
}

}  // namespace
}  // namespace cohort::parallel
