// What the planner says that parameters, gradients and optimizer state take is what the engine plans for them.
#include <gtest/gtest.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "parallel/planner/price.h"
#include "tests/parallel/training_run.h"

namespace cohort::parallel::planner {
namespace {

constexpr int kRanks = 4;

// The bytes of the fullest rank.
double Priced(const runtime::ModelConfig& config, const MeshPlan& plan) {
  const ModelCost model(config, 16);
  Work work;
  work.sequence_length = 16;
  work.global_batch = 16;
  const auto cluster = DescribedCluster("cohort-topology 1\nhosts 1 ranks 4\n", "test", 1e11, 0);
  EXPECT_TRUE(cluster.ok()) << cluster.status();
  MeshPricer pricer(model, work, *cluster);
  EXPECT_TRUE(pricer.Check(plan).ok()) << pricer.Check(plan);
  const StepMemory memory = pricer.Price(plan).memory;
  return memory.total() - memory.activations - memory.working;
}

TEST(MeshPricerTest, StateOfPipelinesIsWhatTheEnginePlans) {
  runtime::ModelConfig config = runtime::TinyConfig("llama");
  config.num_hidden_layers = 8;
  std::vector<MeshPlan> plans;
  for (const std::string& schedule : PlannedSchedules()) {
    for (const char* sharding : {"ddp", "zero-1", "zero-2", "zero-3"}) {
      const auto choices =
          ParseChoices(absl::StrCat("pipeline=2 schedule=", schedule, " sharding=", sharding));
      ASSERT_TRUE(choices.ok()) << choices.status();
      plans.push_back(choices->Complete(1));
    }
  }
  SharedDoubles planned(plans.size() * kRanks);
  testing::RunRanks(kRanks, [&](comm::Communicator& world) {
    for (size_t i = 0; i < plans.size(); ++i) {
      const auto mesh = MakeMesh(plans[i].shape, world);
      ASSERT_TRUE(mesh.ok());
      ParallelOptions options;
      options.sharding = plans[i].sharding;
      options.global_batch = 16;
      options.micro_batch = 1;
      options.schedule = plans[i].schedule;
      options.stages_per_rank = plans[i].chunks;
      const auto model =
          ParallelModel::Create(config, runtime::CpuDevice(), options, *mesh,
                                std::shared_ptr<comm::Communicator>(&world, [](comm::Communicator*) {}),
                                std::make_unique<TestSource>(runtime::CpuDevice(), config.vocab_size));
      ASSERT_TRUE(model.ok()) << model.status();
      double bytes = 0;
      for (ModelPart& part : (*model)->parts()) bytes += static_cast<double>(part.parameters->plan().peak);
      planned[i * kRanks + static_cast<size_t>(world.rank())] = bytes;
      ASSERT_TRUE((*model)->Barrier().ok());
    }
  });
  const std::vector<double> bytes = planned.Take();
  for (size_t i = 0; i < plans.size(); ++i) {
    const auto first = bytes.begin() + static_cast<std::ptrdiff_t>(i * kRanks);
    const double fullest = *std::max_element(first, first + kRanks);
    EXPECT_NEAR(Priced(config, plans[i]) / fullest, 1, 0.05) << plans[i].DebugString();
  }
}

}  // namespace
}  // namespace cohort::parallel::planner
