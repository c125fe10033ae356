// Every row of the sharding table computes what one rank computes: each parameter's gradient and the losses of a short
// training, with accumulation and recomputation, dense and with experts; ranks that hold the same piece hold the same
// bits; and each rank holds what the table says.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"
#include "tests/parallel/training_run.h"

namespace cohort::parallel {
namespace {

using ::testing::HasSubstr;

constexpr double kGradientTolerance = 1e-5;  // relative
constexpr int kSteps = 5;

// A place for every element of a model, by parameter.
class Places {
 public:
  explicit Places(const runtime::ModelConfig& config) {
    const auto alone = comm::Communicator::Single();
    const auto model = MakeModel({.config = config}, *alone);
    for (const runtime::Parameter* parameter : runtime::AllParameters(model->decoder())) {
      if (parameter->buffer) continue;
      places_[parameter->name] = {size_, parameter->elements()};
      size_ += static_cast<size_t>(parameter->elements());
    }
  }
  struct Place {
    size_t begin;
    int64_t count;
  };
  size_t size() const { return size_; }
  const std::map<std::string, Place>& all() const { return places_; }
  size_t Of(const OwnedRun& run) const {
    return places_.at(run.parameter->name).begin + static_cast<size_t>(run.first);
  }

 private:
  std::map<std::string, Place> places_;
  size_t size_ = 0;
};

// The first rank of those that hold an element writes it, the others compare.
void WriteOrCompare(ParallelModel& model, const Places& places,
                    runtime::Tensor runtime::OptimizerSlice::*member, SharedDoubles& elements,
                    const std::string& what) {
  for (const bool writes : {true, false}) {
    for (const OwnedRun& run : model.parameters().runs()) {
      const ReplicaGroup& group = model.parameters().GroupOf(run.parameter->placement);
      if ((group.copy() == 0) != writes) continue;
      const runtime::Tensor& flat = model.slices()[run.slice].*member;
      const std::vector<double> values = ToHost(flat.Slice(run.offset, run.offset + run.count));
      for (size_t i = 0; i < values.size(); ++i) {
        double& place = elements[places.Of(run) + i];
        if (writes) {
          place = values[i];
        } else {
          ASSERT_EQ(values[i], place) << what << ": ranks differ in " << run.parameter->name;
        }
      }
    }
    ASSERT_TRUE(model.Barrier().ok());
  }
}

// What a rank holds against what the table says, after a step.
void ExpectMemoryAsPlanned(ParallelModel& model, const std::string& what) {
  const StateMemory& plan = model.parameters().plan();
  const MemoryCounter& counter = model.parameters().memory();
  int64_t moments = 0;
  for (const runtime::OptimizerSlice& slice : model.slices())
    moments += 2 * static_cast<int64_t>(slice.master.bytes());
  EXPECT_EQ(counter.bytes() + moments, plan.resident()) << what;
  EXPECT_NEAR(static_cast<double>(counter.peak() + moments), static_cast<double>(plan.peak),
              0.05 * static_cast<double>(plan.peak))
      << what;
}

struct Trained {
  std::vector<double> gradients, masters, losses;
};

// One training of every sharding in the same processes.
std::vector<Trained> TrainAll(const Training& run,
                              const std::vector<std::pair<std::string, Sharding>>& shardings) {
  const Places places(run.config);
  std::vector<std::unique_ptr<SharedDoubles>> gradients, masters, losses;
  for (size_t i = 0; i < shardings.size(); ++i) {
    gradients.push_back(std::make_unique<SharedDoubles>(places.size()));
    masters.push_back(std::make_unique<SharedDoubles>(places.size()));
    losses.push_back(std::make_unique<SharedDoubles>(kSteps));
  }
  testing::RunRanks(
      run.ranks,
      [&](comm::Communicator& world) {
        for (size_t i = 0; i < shardings.size(); ++i) {
          Training row = run;
          row.options.sharding = shardings[i].second;
          const std::string what = absl::StrCat(shardings[i].first, " on ", run.ranks, " ranks");
          const auto model = MakeModel(row, world);
          ASSERT_NE(model, nullptr) << what;
          Optimizer optimizer(*model);
          model->parameters().memory().ResetPeak();
          for (int step = 0; step < kSteps; ++step) {
            const auto result = model->ComputeGradients(step);
            ASSERT_TRUE(result.ok()) << what << ": " << result.status();
            if (step == 0) {
              WriteOrCompare(*model, places, &runtime::OptimizerSlice::grad, *gradients[i], what);
              ExpectMemoryAsPlanned(*model, what);
            }
            const auto norm = model->GradientNorm();
            ASSERT_TRUE(norm.ok()) << what << ": " << norm.status();
            optimizer.Step(*norm);
            ASSERT_TRUE(model->AfterStep(*result).ok()) << what;
            const double loss = result->sums.loss / static_cast<double>(result->sums.tokens);
            if (world.rank() == 0) (*losses[i])[step] = loss;
            ASSERT_TRUE(model->Barrier().ok());
            EXPECT_EQ(loss, (*losses[i])[step]) << what << ": ranks differ in the loss";
          }
          WriteOrCompare(*model, places, &runtime::OptimizerSlice::master, *masters[i], what);
          const auto evaluation = model->Evaluate(0);
          EXPECT_TRUE(evaluation.ok()) << what << ": " << evaluation.status();
        }
      },
      {.timeout = absl::Seconds(60), .limit = absl::Seconds(240)});
  std::vector<Trained> trained;
  for (size_t i = 0; i < shardings.size(); ++i) {
    trained.push_back({gradients[i]->Take(), masters[i]->Take(), losses[i]->Take()});
  }
  return trained;
}

void ExpectSame(const Trained& got, const Trained& want, const Places& places, const std::string& what) {
  for (const auto& [name, place] : places.all()) {
    const auto part = [&, place = place](const std::vector<double>& all) {
      const auto begin = all.begin() + static_cast<std::ptrdiff_t>(place.begin);
      return std::vector<double>(begin, begin + place.count);
    };
    EXPECT_LT(runtime::RelativeError(part(got.gradients), part(want.gradients)), kGradientTolerance)
        << what << ", " << name;
  }
  for (int step = 0; step < kSteps; ++step) {
    EXPECT_NEAR(got.losses[step], want.losses[step], kGradientTolerance * want.losses[step])
        << what << ", step " << step;
  }
}

// All rows with exact arithmetic; those whose levels do not fit so many ranks are left out.
std::vector<std::pair<std::string, Sharding>> Rows(int shard, int ranks) {
  std::vector<std::pair<std::string, Sharding>> rows;
  for (const ShardingRow& row : ShardingRows()) {
    const std::string name = row.name;
    const bool one_of_each = name.starts_with("paro:") || name == "zero++" || name == "frontier";
    Sharding sharding = row.sharding;
    sharding.gather_codec = sharding.reduce_codec = std::nullopt;
    if (one_of_each && Resolve(sharding, shard, ranks).ok()) rows.emplace_back(name, sharding);
  }
  return rows;
}

struct Case {
  const char* name;
  const char* family;
  bool tied, recompute;
  int64_t global_batch, micro_batch;
  int ranks, shard, expert;
};
constexpr Case kCases[] = {
    {"dense_2", "llama", false, false, 6, 1, 2, 2, 1},
    {"dense_3", "llama", false, true, 7, 1, 3, 1, 1},
    {"dense_4", "llama", false, true, 9, 1, 4, 2, 1},
    {"dense_8", "llama", false, false, 9, 1, 8, 4, 1},
    {"tied_4", "llama", true, true, 8, 1, 4, 2, 1},
    {"experts_3", "qwen3_moe", false, false, 7, 1, 3, 3, 1},
    {"experts_4", "qwen3_moe", false, true, 7, 1, 4, 2, 2},
    {"experts_8", "qwen3_moe", true, false, 9, 1, 8, 4, 2},
};

class SameGradients : public ::testing::TestWithParam<Case> {};

TEST_P(SameGradients, AsOneRank) {
  const Case& c = GetParam();
  Training run = {.config = runtime::TinyConfig(c.family), .repeat = true};
  run.config.num_hidden_layers = 3;
  run.config.tie_word_embeddings = c.tied;
  run.options.global_batch = c.global_batch;
  const Places places(run.config);
  const Trained one = TrainAll(run, {{"ddp", Sharding()}})[0];
  EXPECT_LT(one.losses.back(), one.losses.front()) << "nothing was learned";
  run.options.micro_batch = c.micro_batch;
  run.options.recompute = c.recompute;
  run.ranks = c.ranks;
  run.shard = c.shard;
  run.expert = c.expert;
  const auto rows = Rows(c.shard, c.ranks);
  EXPECT_GE(rows.size(), 15u);
  const std::vector<Trained> trained = TrainAll(run, rows);
  for (size_t i = 0; i < rows.size(); ++i) ExpectSame(trained[i], one, places, rows[i].first);
}

INSTANTIATE_TEST_SUITE_P(Meshes, SameGradients, ::testing::ValuesIn(kCases),
                         [](const auto& info) { return std::string(info.param.name); });

// One step of a model of 8 blocks on 4 ranks; its gradients are not looked at.
void ExpectPartsAsPlanned(comm::Communicator& world, const runtime::ModelConfig& config,
                          const MeshShape& shape, const ParallelOptions& options, const std::string& what) {
  const auto mesh = MakeMesh(shape, world);
  ASSERT_TRUE(mesh.ok());
  const auto model =
      ParallelModel::Create(config, runtime::CpuDevice(), options, *mesh,
                            std::shared_ptr<comm::Communicator>(&world, [](comm::Communicator*) {}),
                            std::make_unique<TestSource>(runtime::CpuDevice(), config.vocab_size));
  ASSERT_TRUE(model.ok()) << model.status();
  (*model)->Initialize(5);
  for (ModelPart& part : (*model)->parts()) part.parameters->memory().ResetPeak();
  const auto result = (*model)->ComputeGradients(0);
  ASSERT_TRUE(result.ok()) << result.status();
  for (ModelPart& part : (*model)->parts()) {
    int64_t moments = 0;
    for (const runtime::OptimizerSlice& slice : part.parameters->slices()) {
      moments += 2 * static_cast<int64_t>(slice.master.bytes());
    }
    const StateMemory& plan = part.parameters->plan();
    EXPECT_EQ(part.parameters->memory().bytes() + moments, plan.resident())
        << what << ", stage " << part.stage;
    EXPECT_EQ(part.parameters->memory().peak() + moments, plan.peak)
        << what << ", stage " << part.stage << ", rank " << world.rank();
  }
}

// Pipelines too, whatever their schedule, and deterministic mode: 8 virtual shards of two micro-batches, or 3 of five or
// six, of which one rank has one and the other two.
TEST(Sharded, StagesOfPipelinesHoldWhatTheTableSays) {
  struct Row {
    const char* schedule;
    int stages_per_rank;
  };
  testing::RunRanks(4,
                    [](comm::Communicator& world) {
                      runtime::SetCpuThreads(1);
                      runtime::ModelConfig config = runtime::TinyConfig("llama");
                      config.num_hidden_layers = 8;
                      for (const Row& row : {Row{"gpipe", 1}, Row{"1f1b", 1}, Row{"interleaved", 2},
                                             Row{"zb-h1", 1}, Row{"zb-v", 2}, Row{"dualpipe-v", 2}}) {
                        for (const char* sharding : {"ddp", "zero-1", "zero-2", "zero-3"}) {
                          for (const int shards : {0, 8, 3}) {
                            ParallelOptions options;
                            options.sharding = *ParseSharding(sharding);
                            options.global_batch = 16;
                            options.micro_batch = 1;
                            options.schedule = row.schedule;
                            options.stages_per_rank = row.stages_per_rank;
                            options.deterministic = shards > 0;
                            options.virtual_shards = shards;
                            ExpectPartsAsPlanned(
                                world, config, {.pipeline = 2}, options,
                                absl::StrCat(row.schedule, ", ", sharding, ", ", shards, " shards"));
                          }
                        }
                      }
                    },
                    {.timeout = absl::Seconds(60), .limit = absl::Seconds(240)});
}

// Whose gradients come from other ranks' tokens, or are of parts of the same sequences; with an embedding tied to the
// head; ranks without a shard.
TEST(Sharded, DeterministicMeshesHoldWhatTheTableSays) {
  struct Row {
    const char* family;
    bool tied;
    MeshShape shape;
  };
  testing::RunRanks(
      4,
      [](comm::Communicator& world) {
        runtime::SetCpuThreads(1);
        for (const Row& row :
             {Row{"llama", false, {}}, Row{"llama", true, {.shard = 2}}, Row{"llama", true, {.pipeline = 2}},
              Row{"llama", false, {.tensor = 2}}, Row{"llama", false, {.context = 2}},
              Row{"qwen3_moe", false, {.shard = 2, .expert = 2}}, Row{"qwen3_moe", true, {.pipeline = 4}}}) {
          runtime::ModelConfig config = runtime::TinyConfig(row.family);
          config.num_hidden_layers = 8;
          config.tie_word_embeddings = row.tied;
          for (const char* sharding : {"zero-1", "zero-3", "NIG"}) {
            if (row.shape.pipeline == 4 && std::string(sharding) == "NIG") continue;
            for (const int shards : {8, 5, 3}) {
              ParallelOptions options;
              options.sharding = *ParseSharding(sharding);
              options.global_batch = 9;
              options.micro_batch = 1;
              options.deterministic = true;
              options.virtual_shards = shards;
              ExpectPartsAsPlanned(world, config, row.shape, options,
                                   absl::StrCat(row.family, " on ", row.shape.DebugString(), ", ", sharding,
                                                ", ", shards, " shards"));
            }
          }
        }
      },
      {.timeout = absl::Seconds(60), .limit = absl::Seconds(240)});
}

TEST(Sharded, CodecsChangeLittleAndRanksStillAgree) {
  Training run = {.config = runtime::SmallConfig("llama")};
  run.options.global_batch = 4;
  run.options.micro_batch = 1;
  const Trained one = TrainAll(run, {{"ddp", Sharding()}})[0];
  run.ranks = 4;
  run.shard = 2;
  Sharding ddp8;
  ddp8.reduce_codec = comm::CodecKind::kInt8;
  const std::vector<Trained> trained = TrainAll(
      run,
      {{"zero++", *ParseSharding("zero++")}, {"qsdp", *ParseSharding("qsdp")}, {"ddp, int8 sums", ddp8}});
  for (const Trained& encoded : trained) {
    EXPECT_NE(encoded.gradients, one.gradients) << "nothing was encoded";
    for (int step = 0; step < kSteps; ++step) {
      EXPECT_NEAR(encoded.losses[step], one.losses[step], 0.02 * one.losses[step]) << "step " << step;
    }
  }
}

TEST(Sharded, MastersOfABf16ModelAreSplitToo) {
  Training run = {.config = runtime::SmallConfig("qwen3_moe")};
  run.options = {.compute = DataType::kBF16, .recompute = true, .global_batch = 4, .micro_batch = 1};
  run.ranks = 4;
  run.shard = 2;
  run.expert = 2;
  std::vector<std::pair<std::string, Sharding>> rows;
  for (const char* name : {"ddp", "zero-1", "zero-3", "hsdp", "paro:NIG", "zero++"}) {
    rows.emplace_back(name, *ParseSharding(name));
    rows.back().second.gather_codec = rows.back().second.reduce_codec = std::nullopt;
  }
  const std::vector<Trained> trained = TrainAll(run, rows);
  for (size_t i = 1; i < rows.size(); ++i) {
    for (int step = 0; step < kSteps; ++step) {
      // Rounding to bf16 makes something of the order of sums.
      EXPECT_NEAR(trained[i].losses[step], trained[0].losses[step], 2e-3 * trained[0].losses[step])
          << rows[i].first << ", step " << step;
    }
  }
}

TEST(Sharded, WhatDoesNotFitIsRefusedOnAllRanks) {
  testing::RunRanks(2, [](comm::Communicator& world) {
    Training run = {.config = runtime::TinyConfig("llama"), .ranks = 2};
    run.options.sharding = *ParseSharding("3/3/3");
    const auto mesh = MakeMesh({.shard = 1}, world);
    ASSERT_TRUE(mesh.ok());
    std::shared_ptr<comm::Communicator> borrowed(&world, [](comm::Communicator*) {});
    const auto model =
        ParallelModel::Create(run.config, runtime::CpuDevice(), run.options, *mesh, borrowed, nullptr);
    EXPECT_EQ(model.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(model.status().message(), HasSubstr("over 3 ranks, which does not divide the 2 ranks"));

    auto decoder = runtime::Decoder::Create(run.config, runtime::CpuDevice(), {.allocate = false});
    ASSERT_TRUE(decoder.ok());
    auto groups = Connect(*mesh, borrowed);
    ASSERT_TRUE(groups.ok());
    const auto large = ShardedParameters::Create(**decoder, Sharding(), *groups, 1000);
    EXPECT_EQ(large.status().code(), absl::StatusCode::kResourceExhausted);
    EXPECT_THAT(large.status().message(), HasSubstr("parallel.sharding"));
  });
}

TEST(Sharded, AKilledRankIsAnErrorOnEverySurvivorWhereverParametersAre) {
  testing::RunRanks(4,
                    [](comm::Communicator& world) {
                      Training run = {.config = runtime::TinyConfig("qwen3_moe"), .ranks = 4, .expert = 2};
                      run.shard = 2;
                      run.options.sharding = *ParseSharding("GIG");
                      const auto model = MakeModel(run, world);
                      ASSERT_NE(model, nullptr);
                      absl::Status status;
                      for (int step = 0; step < 1000 && status.ok(); ++step) {
                        if (world.rank() == 2 && step == 2) kill(getpid(), SIGKILL);
                        const auto result = model->ComputeGradients(step);
                        status = result.status();
                        if (status.ok()) status = model->AfterStep(*result);
                      }
                      EXPECT_THAT(status.ToString(), HasSubstr("rank 2 was lost"));
                      EXPECT_FALSE(model->ComputeGradients(0).ok()) << "a group with a lost rank goes on";
                    },
                    {.victims = {2}});
}

}  // namespace
}  // namespace cohort::parallel
