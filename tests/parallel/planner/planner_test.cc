// The planner against cases that were worked out by hand, the decoder's own parameters, and comm's own prices.
#include "parallel/planner/planner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "comm/algorithms/algorithm.h"
#include "moe/expert_group.h"
#include "moe/moe_layer.h"
#include "parallel/planner/calibration.h"
#include "parallel/planner/legal_plans.h"
#include "tests/support/tiny_model.h"

namespace cohort::parallel::planner {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr char kTwoHosts[] =
    "cohort-topology 1\nhosts 2 ranks 4\nrails 1\ninside_host 1 100\nbetween_hosts 30 1\nmemory_gbit_per_s "
    "100\n";

Cluster ClusterOf(const std::string& topology, double flops = 1e11, int64_t memory = 0) {
  auto cluster = DescribedCluster(topology, "test", flops, memory);
  EXPECT_TRUE(cluster.ok()) << cluster.status();
  return *cluster;
}

runtime::ModelConfig DenseConfig() {
  runtime::ModelConfig config;
  config.vocab_size = 1000;
  config.hidden_size = 512;
  config.intermediate_size = 1024;
  config.num_hidden_layers = 8;
  config.num_attention_heads = 8;
  config.num_key_value_heads = 8;
  config.head_dim = 64;
  config.max_position_embeddings = 4096;
  return config;
}

runtime::ModelConfig SparseConfig() {
  runtime::ModelConfig config = DenseConfig();
  config.model_type = "mixtral";
  config.num_experts = 8;
  config.num_experts_per_tok = 2;
  config.moe_intermediate_size = 1024;
  return config;
}

Work WorkOf(int64_t sequence_length, int64_t global_batch) {
  Work work;
  work.sequence_length = sequence_length;
  work.global_batch = global_batch;
  return work;
}

MeshPlan PlanOf(const std::string& text) {
  const auto choices = ParseChoices(text);
  EXPECT_TRUE(choices.ok()) << choices.status();
  return choices->Complete(1);
}

TEST(ModelCostTest, CountsTheParametersThatDecodersOfAllFamiliesHave) {
  for (const runtime::Family& family : runtime::Families()) {
    const runtime::ModelConfig config = runtime::TinyConfig(family.model_type);
    runtime::DecoderOptions options;
    options.experts = moe::MakeMoeFactory(std::make_shared<moe::ExpertGroup>());
    const auto decoder = runtime::MakeDecoder(config, runtime::CpuDevice(), options);
    ASSERT_NE(decoder, nullptr);
    int64_t all = 0, experts = 0;
    for (const runtime::Parameter* parameter : runtime::AllParameters(*decoder)) {
      if (parameter->buffer) continue;
      all += parameter->value.size();
      if (parameter->placement == runtime::Placement::kExpert) experts += parameter->value.size();
    }
    const ParameterCount count = ModelCost(config, 16).parameters();
    EXPECT_EQ(count.total(), all) << family.model_type;
    EXPECT_EQ(count.total(), config.NumParameters()) << family.model_type;
    EXPECT_EQ(count.expert, experts) << family.model_type;
  }
}

TEST(ModelCostTest, CountsTheFlopsThatUtilisationIsMeasuredBy) {
  for (const runtime::Family& family : runtime::Families()) {
    const runtime::ModelConfig config = runtime::SmallConfig(family.model_type);
    // Utilisation counts the norms' weights like any other.
    const int64_t norms =
        config.num_hidden_layers * (2 * config.hidden_size + (config.qk_norm ? 2 * config.head_dim : 0)) +
        config.hidden_size;
    const double flops = 3 * ModelCost(config, 32).forward_flops() + 6.0 * static_cast<double>(norms);
    EXPECT_NEAR(flops / config.TrainFlopsPerToken(32), 1, 1e-9) << family.model_type;
  }
}

TEST(ModelCostTest, BlocksKeepWhatAHandCountSays) {
  const ModelCost model(DenseConfig(), 64);
  // Rows of 512 f32: x and x_mid; attention's input, q, k, v, y; the feed-forward's input; gate, up and activation of
  // 1024. Statistics: two norms and eight heads.
  EXPECT_DOUBLE_EQ(model.KeptBytes(Layer::kDense, 1, 1, 4, false),
                   4.0 * (2 * 512 + 5 * 512 + 512 + 3 * 1024 + 2 + 8));
  EXPECT_DOUBLE_EQ(model.KeptBytes(Layer::kDense, 1, 1, 4, true), 4.0 * 512);
  // Over two tensor ranks the inputs of matrices stay whole.
  EXPECT_DOUBLE_EQ(model.KeptBytes(Layer::kDense, 2, 2, 4, false),
                   4.0 * (2 * 512 + 2 + 2 * (512 + 4 * 256 + 4) + 2 * (512 + 3 * 512)));
}

TEST(LinkPricesTest, AreCommsOwn) {
  const Cluster cluster = ClusterOf(kTwoHosts);
  LinkPrices links(cluster.machine);
  comm::Machine host = cluster.machine;
  host.hosts = comm::HostMap::OneHost(4);
  double cheapest = HUGE_VAL;
  for (const comm::Algorithm& algorithm : comm::Algorithms()) {
    if (algorithm.operation != comm::Operation::kAllGather || algorithm.by_host) continue;
    const auto price = comm::PriceOf(algorithm, host, (1 << 20) / 4, 4);
    if (price.ok()) cheapest = std::min(cheapest, price->seconds);
  }
  EXPECT_NEAR(links.Seconds(comm::Operation::kAllGather, {4, 1}, 1 << 20) / cheapest, 1, 1e-6);
}

TEST(LinkPricesTest, GroupsThatCrossHostsShareTheirLinks) {
  LinkPrices four(ClusterOf(kTwoHosts).machine);
  EXPECT_EQ(four.OnOneHost({4, 1}), 4);
  EXPECT_EQ(four.OnOneHost({2, 4}), 1);
  EXPECT_EQ(four.OnOneHost({4, 2}), 2);
  LinkPrices one(
      ClusterOf("cohort-topology 1\nhosts 2 ranks 1\nrails 1\ninside_host 1 100\nbetween_hosts 30 1\n")
          .machine);
  const double alone = one.Seconds(comm::Operation::kAllReduce, {2, 1}, 64 << 20);
  const double shared = four.Seconds(comm::Operation::kAllReduce, {2, 4}, 64 << 20);
  EXPECT_GT(shared, 3.5 * alone);
  EXPECT_LT(shared, 4.5 * alone);
}

TEST(MeshPricerTest, MemoryOfZeroStagesIsWhatTheTableSays) {
  const ModelCost model(DenseConfig(), 64);
  MeshPricer pricer(model, WorkOf(64, 8), ClusterOf("cohort-topology 1\nhosts 1 ranks 4\n"));
  const double all = static_cast<double>(model.parameters().total());
  const struct {
    const char* sharding;
    double parameters, gradients, optimizer;  // bytes of an element
  } rows[] = {{"ddp", 4, 4, 8}, {"zero-1", 4, 4 + 1, 2}, {"zero-2", 4, 1, 2}, {"zero-3", 1, 1, 2}};
  for (const auto& row : rows) {
    const StepMemory memory = pricer.Price(PlanOf(std::string("sharding=") + row.sharding)).memory;
    EXPECT_NEAR(memory.parameters / all, row.parameters, 1e-9) << row.sharding;
    EXPECT_NEAR(memory.gradients / all, row.gradients, 1e-9) << row.sharding;
    EXPECT_NEAR(memory.optimizer / all, row.optimizer, 1e-9) << row.sharding;
  }
}

TEST(MeshPricerTest, ASlowLinkBetweenHostsPrefersHybridSharding) {
  const ModelCost model(DenseConfig(), 64);
  MeshPricer pricer(model, WorkOf(64, 16), ClusterOf(kTwoHosts));
  const double hybrid = pricer.Price(PlanOf("shard=4 sharding=hsdp")).time.total();
  const double flat = pricer.Price(PlanOf("sharding=zero-3")).time.total();
  EXPECT_LT(1.5 * hybrid, flat);
}

TEST(MeshPricerTest, ComputingIsDividedOverTensorContextAndData) {
  const ModelCost model(DenseConfig(), 64);
  MeshPricer pricer(model, WorkOf(64, 8), ClusterOf(kTwoHosts, 1e11));
  const double seconds = 3 * model.forward_flops() * 64 * 8 / 8 / 1e11;
  for (const char* mesh : {"", "tensor=2", "context=2", "tensor=2 context=4"}) {
    EXPECT_NEAR(pricer.Price(PlanOf(mesh)).time.compute / seconds, 1, 1e-9) << mesh;
  }
}

TEST(MeshPricerTest, FormulasOfPipelinesAreNearTheSimulator) {
  const ModelCost model(DenseConfig(), 64);
  MeshPricer pricer(model, WorkOf(64, 16),
                    ClusterOf("cohort-topology 1\nhosts 1 ranks 4\ninside_host 1 100\n"));
  for (const std::string& schedule : PlannedSchedules()) {
    const MeshPlan plan = PlanOf(std::string("pipeline=4 schedule=") + schedule);
    ASSERT_TRUE(pricer.Check(plan).ok()) << pricer.Check(plan);
    const auto simulated = pricer.Simulate(plan);
    ASSERT_TRUE(simulated.ok()) << simulated.status();
    EXPECT_TRUE(simulated->simulated);
    EXPECT_NEAR(pricer.Price(plan).time.total() / simulated->time.total(), 1, 0.2) << schedule;
  }
}

TEST(PlannerTest, EveryLegalMeshOfEightRanksIsThere) {
  Refusals refused;
  const Cluster cluster = ClusterOf(kTwoHosts);
  // Three factors of two, dealt to five axes.
  const ModelCost dense(DenseConfig(), 64);
  EXPECT_EQ(LegalShapes(dense, WorkOf(64, 8), cluster.ranks(), {}, refused).size(), 35u);
  // For each pipeline, the rest dealt to four axes, and any power of two of the stage to experts: 1 + 8 + 30 + 80.
  const ModelCost sparse(SparseConfig(), 64);
  EXPECT_EQ(LegalShapes(sparse, WorkOf(64, 8), cluster.ranks(), {}, refused).size(), 119u);
  EXPECT_THAT(refused.rows(), IsEmpty());
  EXPECT_EQ(CountLegalShapes(sparse, WorkOf(64, 8), cluster.ranks(), {}), 119u);
  // Four tokens are too few for a context axis of four.
  EXPECT_EQ(CountLegalShapes(sparse, WorkOf(4, 8), cluster.ranks(), {}),
            LegalShapes(sparse, WorkOf(4, 8), cluster.ranks(), {}, refused).size());
  EXPECT_THAT(refused.rows(), Not(IsEmpty()));
}

// The head's stage has the embedding too, and both send its gradients to each other.
TEST(PlannerTest, TiedEmbeddingsArePricedInBothStages) {
  runtime::ModelConfig config = DenseConfig();
  const ModelCost apart(config, 64);
  config.tie_word_embeddings = true;
  const ModelCost tied(config, 64);
  const Cluster cluster = ClusterOf(kTwoHosts);
  const auto price = [&](const ModelCost& model, const char* mesh) {
    MeshPricer pricer(model, WorkOf(64, 8), cluster);
    const MeshPlan plan = PlanOf(mesh);
    EXPECT_TRUE(pricer.Check(plan).ok()) << pricer.Check(plan);
    return pricer.Price(plan);
  };
  EXPECT_LT(price(tied, "").memory.parameters, price(apart, "").memory.parameters);
  EXPECT_EQ(price(tied, "pipeline=2").memory.parameters, price(apart, "pipeline=2").memory.parameters);
  EXPECT_GT(price(tied, "pipeline=2").time.reductions, price(apart, "pipeline=2").time.reductions);
  EXPECT_EQ(price(tied, "pipeline=2 schedule=zb-v").time.reductions,
            price(apart, "pipeline=2 schedule=zb-v").time.reductions);  // on one rank
}

TEST(PlannerTest, WhatDoesNotDivideIsRefusedByReason) {
  runtime::ModelConfig config = DenseConfig();
  config.num_key_value_heads = 2;
  config.num_hidden_layers = 2;
  const ModelCost model(config, 64);
  const auto ranking = RankMeshes(model, WorkOf(64, 8), ClusterOf(kTwoHosts));
  ASSERT_TRUE(ranking.ok()) << ranking.status();
  EXPECT_GT(ranking->refused.NumberOf("heads that do not divide"), 0);
  EXPECT_GT(ranking->refused.NumberOf("more stages than blocks"), 0);
  // Each says what was refused, and with which numbers.
  for (const Refusal& row : ranking->refused.rows()) {
    EXPECT_THAT(row.what, AnyOf("meshes", "shardings of a mesh", "plans"));
    EXPECT_FALSE(row.as.empty()) << row.DebugString();
  }
  for (const PlannedMesh& mesh : ranking->best) {
    EXPECT_LE(mesh.plan.shape.tensor, 2);
    EXPECT_LE(mesh.plan.shape.pipeline * mesh.plan.chunks, 2);
  }
  const auto none = RankMeshes(model, WorkOf(64, 8), ClusterOf(kTwoHosts), *ParseChoices("tensor=4"));
  EXPECT_EQ(none.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(none.status().message()), HasSubstr("heads that do not divide"));
}

TEST(PlannerTest, TheRankingIsSortedAndTheBestFits) {
  const ModelCost model(DenseConfig(), 64);
  const auto ranking = RankMeshes(model, WorkOf(64, 32), ClusterOf(kTwoHosts));
  ASSERT_TRUE(ranking.ok()) << ranking.status();
  EXPECT_EQ(ranking->best.size(), policy::kKeptPlans);
  EXPECT_TRUE(std::is_sorted(ranking->best.begin(), ranking->best.end(),
                             [](const auto& a, const auto& b) { return a.seconds() < b.seconds(); }));
  ASSERT_TRUE(ranking->data_parallel.has_value());
  EXPECT_TRUE(ranking->data_parallel_fits);
  EXPECT_LE(ranking->best[0].seconds(), ranking->data_parallel->seconds());
  EXPECT_THAT(ranking->Why(ClusterOf(kTwoHosts)), HasSubstr("assumed"));
}

TEST(PlannerTest, LittleMemoryPicksSharding) {
  const ModelCost model(DenseConfig(), 64);
  const Choices data = *ParseChoices("pipeline=1 context=1 tensor=1 micro-batch=1");
  MeshPricer pricer(model, WorkOf(64, 8), ClusterOf(kTwoHosts));
  const auto copies = static_cast<int64_t>(pricer.Price(PlanOf("")).memory.total());
  const auto ranking = RankMeshes(model, WorkOf(64, 8), ClusterOf(kTwoHosts, 1e11, copies * 6 / 10), data);
  ASSERT_TRUE(ranking.ok()) << ranking.status();
  EXPECT_NE(ranking->best[0].plan.sharding_name, "ddp");
  EXPECT_LE(ranking->best[0].price.memory.total(), static_cast<double>(copies) * 0.6);
  EXPECT_FALSE(ranking->data_parallel_fits);
  const auto none = RankMeshes(model, WorkOf(64, 8), ClusterOf(kTwoHosts, 1e11, 1000), data);
  EXPECT_EQ(none.status().code(), absl::StatusCode::kResourceExhausted);
}

TEST(PlannerTest, PlansTenThousandRanks) {
  runtime::ModelConfig config = DenseConfig();
  config.vocab_size = 128'000;
  config.hidden_size = 8192;
  config.intermediate_size = 28'672;
  config.num_hidden_layers = 80;
  config.num_attention_heads = 64;
  config.head_dim = 128;
  const ModelCost model(config, 4096);
  Work work = WorkOf(4096, 2048);
  work.compute_bytes = 2;
  const auto ranking = RankMeshes(
      model, work,
      ClusterOf("cohort-topology 1\nhosts 1250 ranks 8\nrails 8\ninside_host 1 3600\nbetween_hosts 3 400\n",
                5e14, int64_t{80'000'000'000}));
  ASSERT_TRUE(ranking.ok()) << ranking.status();
  EXPECT_GT(ranking->meshes, 500);
  EXPECT_GT(ranking->priced, 500);
  EXPECT_FALSE(ranking->data_parallel_fits);
}

TEST(ChoicesTest, SayWhatIsWrong) {
  const std::map<std::string, std::string> wrong = {{"pipeline", "key=value"},
                                                    {"pipeline=0", "1 or more"},
                                                    {"pipelines=2", "nothing that a mesh has"},
                                                    {"tensor=2 tensor=2", "twice"},
                                                    {"sharding=zero-4", "zero-3"},
                                                    {"schedule=best", "zb-v"},
                                                    {"micro-batch=x", "whole number"},
                                                    {"recompute=1", "yes or no"}};
  for (const auto& [text, message] : wrong) {
    EXPECT_THAT(std::string(ParseChoices(text).status().message()), HasSubstr(message)) << text;
  }
  const std::string text = "pipeline=2 tensor=2 sharding=zero-1 schedule=zb-h1 micro-batch=3 recompute=yes";
  EXPECT_EQ(PlanOf(text).DebugString(), text);
}

TEST(CalibrationTest, FindsThatEverythingTakesTwiceAsLong) {
  const ModelCost model(DenseConfig(), 64);
  const Work work = WorkOf(64, 8);
  const Cluster cluster = ClusterOf(kTwoHosts);
  MeshPricer pricer(model, work, cluster);
  std::vector<MeasuredStep> steps;
  for (const char* mesh : {"", "tensor=2", "sharding=zero-3", "shard=4 sharding=hsdp"}) {
    steps.push_back({PlanOf(mesh), 2 * pricer.Price(PlanOf(mesh)).time.total()});
  }
  const auto calibration = Calibrate(model, work, cluster, steps);
  ASSERT_TRUE(calibration.ok()) << calibration.status();
  EXPECT_NEAR(calibration->computing, 2, 0.02);
  EXPECT_NEAR(calibration->communication, 2, 0.02);
  EXPECT_LT(calibration->error, 0.01);
  EXPECT_EQ(calibration->steps, 4);
}

TEST(CalibrationTest, FilesSayWhereTheyAreWrong) {
  const auto steps = ParseMeasuredSteps("# measured\n1.5 tensor=2\n\n0.25\n", "steps.txt", 1);
  ASSERT_TRUE(steps.ok()) << steps.status();
  ASSERT_EQ(steps->size(), 2u);
  EXPECT_EQ((*steps)[0].seconds, 1.5);
  EXPECT_EQ((*steps)[0].plan.shape.tensor, 2);
  EXPECT_THAT(std::string(ParseMeasuredSteps("1 tensor=2\n-1 tensor=2\n", "steps.txt", 1).status().message()),
              HasSubstr("steps.txt:2"));
  EXPECT_THAT(std::string(ParseMeasuredSteps("1 tensors=2\n", "steps.txt", 1).status().message()),
              HasSubstr("steps.txt:1"));
}

}  // namespace
}  // namespace cohort::parallel::planner
