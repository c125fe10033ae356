// Deterministic mode: losses and parameters of a training are the same bits on any number of ranks. And
// without it, the same bits in every run of one mesh, and on all of its ranks (TrainForBits looks).
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "parallel/pipeline/schedules/schedules.h"
#include "runtime/checkpoint/checkpoint.h"
#include "tests/parallel/determinism/deterministic_run.h"

namespace cohort::parallel {
namespace {

// Wide enough for vectors and their remainders; as many blocks as stages of the longest pipeline.
BitRun Small(const char* family) {
  BitRun run = {.config = runtime::TinyConfig(family), .options = {}};
  run.config.hidden_size = 40;
  run.config.intermediate_size = 51;
  run.config.num_hidden_layers = 2;
  run.config.tie_word_embeddings = false;
  run.config.initializer_range = 0.1;
  if (run.config.num_experts > 0) {
    run.config.num_experts = 12;
    run.config.moe_intermediate_size = 21;
    run.config.router.z_loss_coef = 0.001;
    run.config.router.gate = "sigmoid";
    run.config.router.bias_update_rate = 0.001;
  }
  run.options.global_batch = 11;  // virtual shards of one and of two sequences
  run.options.deterministic = true;
  return run;
}

struct Spread {
  int ranks;
  MeshShape shape;
  const char* sharding = "ddp";
  const char* schedule = "1f1b";
  int stages_per_rank = 1;
};

std::string NameOf(const Spread& s) {
  return std::to_string(s.ranks) + " ranks, " + s.shape.DebugString() + ", " + s.sharding + ", " + s.schedule;
}

BitRun On(BitRun run, const Spread& s) {
  run.ranks = s.ranks;
  run.shape = s.shape;
  run.options.sharding = *ParseSharding(s.sharding);
  run.options.schedule = s.schedule;
  run.options.stages_per_rank = s.stages_per_rank;
  return run;
}

void ExpectOneTraining(const BitRun& run, const std::vector<Spread>& spreads) {
  const Bits one = TrainForBits(run);
  ASSERT_FALSE(one.parameters.empty());
  for (const Spread& spread : spreads) ExpectSameBits(TrainForBits(On(run, spread)), one, NameOf(spread));
}

TEST(Determinism, DenseOverFiftySteps) {
  ExpectOneTraining(Small("llama"), {{2, {.pipeline = 2}},
                                     {3, {}, "zero-3"},
                                     {4, {.pipeline = 2}, "zero-2", "zb-h1"},
                                     {8, {.shard = 2}, "hsdp"}});
}

TEST(Determinism, MixtureOfExpertsOverFiftySteps) {
  ExpectOneTraining(Small("qwen3_moe"), {{2, {.expert = 2}},
                                         {3, {.expert = 3}, "zero-3"},
                                         {4, {.pipeline = 2, .expert = 2}, "zero-2", "zb-h1"},
                                         {8, {.shard = 4, .expert = 4}, "paro:IIG"}});
}

// The two uses of an embedding are summed apart, wherever they are.
TEST(Determinism, TiedEmbeddings) {
  BitRun run = Small("qwen3_moe");
  run.config.tie_word_embeddings = true;
  run.config.num_hidden_layers = 4;
  run.steps = 8;
  ExpectOneTraining(run, {{2, {.pipeline = 2}},
                          {3, {}, "zero-3"},
                          {3, {.pipeline = 3}, "ddp", "zb-h1"},
                          {2, {.pipeline = 2}, "ddp", "zb-v", 2},
                          {4, {.pipeline = 2, .expert = 2}, "zero-2", "interleaved", 2},
                          {4, {.pipeline = 2, .shard = 2}, "zero-3"}});
}

TEST(Determinism, EveryShardingWithoutCodecs) {
  BitRun run = Small("qwen3_moe");
  run.steps = 3;
  std::vector<Spread> spreads;
  std::vector<Sharding> seen;
  for (const ShardingRow& row : ShardingRows()) {
    if (row.sharding.gather_codec || row.sharding.reduce_codec) continue;
    if (std::find(seen.begin(), seen.end(), row.sharding) != seen.end()) continue;
    seen.push_back(row.sharding);
    spreads.push_back({4, {.shard = 2, .expert = 2}, row.name});
  }
  ExpectOneTraining(run, spreads);
}

TEST(Determinism, MicroBatchesWithinVirtualShards) {
  BitRun run = Small("qwen3_moe");
  run.steps = 4;
  run.options.virtual_shards = 3;
  run.options.micro_batch = 2;
  run.options.recompute = true;
  run.config.num_hidden_layers = 4;
  ExpectOneTraining(run, {{2, {.expert = 2}},
                          {4, {}, "zero-3"},  // one rank has no shard
                          {2, {.pipeline = 2}, "ddp", "interleaved", 2},
                          {4, {.pipeline = 2}, "ddp", "dualpipe-v", 2}});
}

// Eleven shards on two or three pipelines: each time one has a micro-batch less, in whose place it gets an empty one,
// between the halves of whose backward come other micro-batches.
TEST(Determinism, SplitBackwardsOfMicroBatchesThatAreEmpty) {
  for (const char* family : {"llama", "qwen3_moe"}) {
    BitRun run = Small(family);
    run.steps = 3;
    run.options.virtual_shards = 11;
    run.config.num_hidden_layers = 4;
    ExpectOneTraining(run, {{4, {.pipeline = 2}, "zero-2", "zb-h1"},
                            {4, {.pipeline = 2}, "ddp", "zb-v", 2},
                            {6, {.pipeline = 2, .shard = 3}, "zero-3", "dualpipe-v", 2}});
  }
}

TEST(Determinism, InBf16) {
  BitRun run = Small("qwen3_moe");
  run.steps = 4;
  run.options.compute = DataType::kBF16;
  ExpectOneTraining(run, {{2, {.expert = 2}}, {3, {}, "zero-3"}, {2, {.pipeline = 2}}});
}

TEST(Determinism, WithTheSameTensorAndContextGroups) {
  BitRun run = Small("llama");
  run.steps = 4;
  const BitRun one = On(run, {4, {.context = 2, .tensor = 2}});
  const Bits bits = TrainForBits(one);
  for (const Spread& spread : std::vector<Spread>{{8, {.context = 2, .tensor = 2}, "zero-3"},
                                                  {8, {.pipeline = 2, .context = 2, .tensor = 2}}}) {
    ExpectSameBits(TrainForBits(On(run, spread)), bits, NameOf(spread));
  }
}

TEST(Determinism, OnAnyNumberOfThreads) {
  BitRun run = Small("qwen3_moe");
  run.steps = 1;
  run.options.global_batch = 4;
  run.config.hidden_size = 560;  // more than a tile of a product
  const Bits one = TrainForBits(run);
  run.threads = 2;
  ExpectSameBits(TrainForBits(run), one, "two threads");
}

// Otherwise these tests would show nothing.
TEST(Determinism, WithoutItBitsDependOnTheRanks) {
  BitRun run = Small("llama");
  run.options.deterministic = false;
  run.steps = 5;
  EXPECT_NE(TrainForBits(run).parameters, TrainForBits(On(run, {3, {}, "zero-3"})).parameters);
}

TEST(Determinism, FastRunsOfOneMeshHaveTheSameBits) {
  BitRun run = Small("qwen3_moe");
  run.options.deterministic = false;
  run.steps = 10;
  for (const Spread& spread : std::vector<Spread>{{3, {}, "zero-3"},
                                                  {4, {.shard = 2, .expert = 2}, "paro:IIG"},
                                                  {4, {.pipeline = 2, .context = 2}}}) {
    const BitRun on = On(run, spread);
    ExpectSameBits(TrainForBits(on), TrainForBits(on), NameOf(spread));
  }
}

TEST(Determinism, ResumesOnAnotherMeshBitForBit) {
  const std::filesystem::path root = std::filesystem::path(::testing::TempDir()) / "determinism-resume";
  std::filesystem::remove_all(root);
  BitRun run = Small("qwen3_moe");
  run.steps = 6;
  const Bits straight = TrainForBits(run);
  BitRun first = On(run, {3, {.expert = 3}, "zero-3"});
  first.steps = 3;
  first.around = [&](ParallelModel& model, runtime::OptimizerState& optimizer, bool before) {
    if (before) return;
    runtime::TrainerState state;
    state.step = 3;
    runtime::CheckpointOptions options;
    options.root = root.string();
    options.config = model.decoder().config();
    const auto saved = runtime::SaveCheckpoint(model, optimizer, state, options);
    ASSERT_TRUE(saved.ok()) << saved.status();
  };
  TrainForBits(first);
  for (const Spread& spread :
       std::vector<Spread>{{1, {}}, {4, {.expert = 2}, "zero-1"}, {2, {.pipeline = 2}}}) {
    BitRun second = On(run, spread);
    second.steps = 3;
    second.around = [&](ParallelModel& model, runtime::OptimizerState& optimizer, bool before) {
      if (!before) return;
      const auto state =
          runtime::LoadCheckpoint(model, model.decoder().config(), optimizer, (root / "latest").string());
      ASSERT_TRUE(state.ok()) << state.status();
      ASSERT_EQ(optimizer.step, 3);
    };
    const Bits resumed = TrainForBits(second);
    EXPECT_EQ(resumed.parameters, straight.parameters) << NameOf(spread);
    EXPECT_EQ(resumed.steps, std::vector<double>(straight.steps.begin() + 9, straight.steps.end()))
        << NameOf(spread);
  }
  std::filesystem::remove_all(root);
}

// Micro-batches of one virtual shard accumulate into one tensor: in their order, whatever the schedule.
TEST(Determinism, EverySchedulesMicroBatchesAscendInEachStage) {
  for (const pipeline::ScheduleGenerator& generator : pipeline::ScheduleGenerators()) {
    for (const int ranks : {2, 3, 4}) {
      for (const int micro_batches : {1, 2, 3, 4, 8, 12}) {
        const auto schedule = pipeline::MakeSchedule(
            generator.name, {.ranks = ranks, .chunks = generator.min_chunks, .micro_batches = micro_batches});
        if (!schedule.ok()) continue;
        std::map<std::pair<int, pipeline::ActionKind>, int> next;
        for (const auto& actions : schedule->actions) {
          for (const pipeline::Action& action : actions) {
            int& due = next[{action.stage, action.kind}];
            EXPECT_GE(action.micro_batch, due) << generator.name << ": " << action.DebugString();
            due = action.micro_batch + 1;
          }
        }
      }
    }
  }
}

// A file may have any order: one that changes the sums is refused.
TEST(Determinism, ScheduleFilesWhoseGradientsDoNotAscendAreRefused) {
  const std::filesystem::path path = std::filesystem::path(::testing::TempDir()) / "order.schedule";
  const std::shared_ptr<comm::Communicator> world = comm::Communicator::Single();
  BitRun run = Small("llama");
  run.options.global_batch = 4;
  run.options.virtual_shards = 2;
  run.options.schedule = path.string();
  const auto made = [&](int micro_batch, const char* text) {
    std::ofstream(path) << text;
    run.options.micro_batch = micro_batch;
    return ParallelModel::Create(run.config, runtime::CpuDevice(), run.options, *MakeMesh({}, *world), world,
                                 std::make_unique<TestSource>(runtime::CpuDevice(), 19))
        .status();
  };
  EXPECT_TRUE(made(1, "0F3,0F2,0F1,0F0,0B0,0B1,0B2,0B3\n").ok());
  const absl::Status refused = made(1, "0F0,0F1,0F2,0F3,0B1,0B0,0B2,0B3\n");
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(refused.message().find("2 micro-batches of a virtual shard"), std::string::npos) << refused;
  EXPECT_NE(refused.message().find(path.string()), std::string::npos) << refused;
  EXPECT_TRUE(made(2, "0F0,0F1,0B1,0B0\n").ok());  // each is a virtual shard of its own
  std::filesystem::remove(path);
}

TEST(Determinism, CodecsAreRefusedWithTheReason) {
  const std::shared_ptr<comm::Communicator> world = comm::Communicator::Single();
  BitRun run = Small("llama");
  run.options.sharding = *ParseSharding("qsdp");
  const auto model =
      ParallelModel::Create(run.config, runtime::CpuDevice(), run.options, *MakeMesh({}, *world), world,
                            std::make_unique<TestSource>(runtime::CpuDevice(), 19));
  ASSERT_EQ(model.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(model.status().message().find("train.deterministic cannot go with codecs"), std::string::npos)
      << model.status();
}

}  // namespace
}  // namespace cohort::parallel
