// Every pipeline schedule computes the gradients of one rank, in real processes: all rows of the table over several
// ranks, stages a rank and micro-batches, files with schedules of a user's own, dense models and mixtures of experts,
// stages of unequal size, and groups whose parameters are sharded besides. What cannot be is refused with its numbers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "parallel/pipeline/schedules/schedules.h"
#include "tests/parallel/training_run.h"
#include "tests/support/temp_folder.h"

namespace cohort::parallel {
namespace {

using ::testing::HasSubstr;

constexpr double kTolerance = 1e-5;  // relative to the norm of a parameter's gradient

struct ScheduleCase {
  std::string schedule;
  int stages_per_rank = 1;
  int batch = 7;        // sequences
  int micro_batch = 1;  // of each rank's
  MeshShape shape = {};
  std::string sharding = "ddp";
  bool recompute = false;
  BlockCosts costs = {};

  std::string DebugString() const {
    return absl::StrCat(schedule, ", ", stages_per_rank, " stages a rank, ", batch, " sequences in ",
                        micro_batch, "s, ", shape.DebugString(), ", ", sharding,
                        recompute ? ", recomputed" : "");
  }
};

runtime::ModelConfig DeepConfig(const std::string& family, int blocks, bool tied = false) {
  runtime::ModelConfig config = runtime::TinyConfig(family);
  config.num_hidden_layers = blocks;
  config.tie_word_embeddings = tied;
  config.initializer_range = 0.15;
  config.router.z_loss_coef = 0.001;
  return config;
}

absl::StatusOr<std::unique_ptr<ParallelModel>> Make(const runtime::ModelConfig& config, const ScheduleCase& c,
                                                    comm::Communicator& world) {
  runtime::SetCpuThreads(1);
  COHORT_ASSIGN_OR_RETURN(const Mesh mesh, MakeMesh(c.shape, world));
  COHORT_ASSIGN_OR_RETURN(const Sharding sharding, ParseSharding(c.sharding, "", "", ""));
  runtime::Device& device = runtime::CpuDevice();
  return ParallelModel::Create(config, device,
                               {.compute = DataType::kF32,
                                .recompute = c.recompute,
                                .global_batch = c.batch,
                                .micro_batch = c.micro_batch,
                                .sharding = sharding,
                                .schedule = c.schedule,
                                .stages_per_rank = c.stages_per_rank,
                                .block_costs = c.costs},
                               mesh, std::shared_ptr<comm::Communicator>(&world, [](comm::Communicator*) {}),
                               std::make_unique<TestSource>(device, config.vocab_size));
}

// Where every parameter's elements lie among all of the model's.
struct Places {
  std::map<std::string, std::pair<size_t, size_t>> of;  // first, count
  size_t size = 0;
};

Places PlacesOf(ParallelModel& whole) {
  Places places;
  for (const runtime::Parameter* parameter : runtime::AllParameters(whole.decoder())) {
    const auto count = static_cast<size_t>(parameter->value.size());
    places.of[parameter->name] = {places.size, count};
    places.size += count;
  }
  return places;
}

struct Numbers {
  double loss = 0, aux_loss = 0, norm = 0, held_out = 0;
};

// `copies`: what the head's copies of embeddings have, where they are.
absl::StatusOr<Numbers> OneStep(ParallelModel& model, const Places& places, std::vector<float>& gradients,
                                std::vector<float>& copies) {
  model.Initialize(5);
  COHORT_ASSIGN_OR_RETURN(const runtime::StepResult result, model.ComputeGradients(0));
  gradients.assign(places.size, 0);
  copies.assign(places.size, 0);
  for (ModelPart& part : model.parts()) {
    for (const OwnedRun& run : part.parameters->runs()) {
      const float* grad = part.parameters->slices()[run.slice].grad.data<float>() + run.offset;
      std::vector<float>& into = run.parameter->copy ? copies : gradients;
      std::copy(grad, grad + run.count,
                into.begin() + static_cast<int64_t>(places.of.at(run.parameter->name).first) + run.first);
    }
  }
  Numbers numbers;
  numbers.loss = result.sums.loss / static_cast<double>(result.sums.tokens);
  numbers.aux_loss = result.sums.aux_loss;
  COHORT_ASSIGN_OR_RETURN(numbers.norm, model.GradientNorm());
  COHORT_ASSIGN_OR_RETURN(const auto held_out, model.Evaluate(0));
  numbers.held_out = held_out.loss;
  return numbers;
}

// What one rank makes of a case's batch, at once and in its micro-batches.
struct OneRank {
  Places places;
  std::vector<float> at_once, in_micro_batches;
  Numbers numbers;
};

OneRank Alone(const runtime::ModelConfig& config, const ScheduleCase& c, comm::Communicator& alone) {
  OneRank one;
  for (std::vector<float>* gradients : {&one.in_micro_batches, &one.at_once}) {
    const int micro_batch = gradients == &one.at_once ? 0 : c.micro_batch;
    const auto model =
        Make(config, {.schedule = "1f1b", .batch = c.batch, .micro_batch = micro_batch}, alone);
    EXPECT_TRUE(model.ok()) << model.status();
    if (!model.ok()) return one;
    one.places = PlacesOf(**model);
    std::vector<float> none;
    const auto numbers = OneStep(**model, one.places, *gradients, none);
    EXPECT_TRUE(numbers.ok()) << numbers.status();
    if (numbers.ok()) one.numbers = *numbers;
  }
  return one;
}

std::vector<double> Part(const std::vector<float>& values, std::pair<size_t, size_t> place) {
  const auto begin = values.begin() + static_cast<int64_t>(place.first);
  return {begin, begin + static_cast<int64_t>(place.second)};
}

// Each case in the same processes, beside one rank that has the whole batch at once, and beside one that makes the same
// micro-batches: no schedule changes the order of a sum, so where no other axis does either, bits agree with it.
void ExpectOneRanksGradients(int ranks, const runtime::ModelConfig& config,
                             const std::vector<ScheduleCase>& cases) {
  testing::RunRanks(
      ranks,
      [&](comm::Communicator& world) {
        const auto alone = comm::Communicator::Single();
        std::map<std::pair<int, int>, OneRank> ones;  // by batch and micro-batch
        for (const ScheduleCase& c : cases) {
          const std::string what = absl::StrCat(c.DebugString(), ", rank ", world.rank());
          OneRank& one = ones[{c.batch, c.micro_batch}];
          if (one.places.size == 0) one = Alone(config, c, *alone);
          const Places& places = one.places;
          const std::vector<float>&want = one.at_once, &same = one.in_micro_batches;
          const Numbers* want_numbers = &one.numbers;
          std::vector<float> got, got_copies;
          const auto model = Make(config, c, world);
          ASSERT_TRUE(model.ok()) << what << ": " << model.status();
          const auto numbers = OneStep(**model, places, got, got_copies);
          ASSERT_TRUE(numbers.ok()) << what << ": " << numbers.status();
          // Every element is held by one rank of a stage, and elsewhere 0.
          std::vector<float> all(places.size);
          const bool one_copy = c.shape.pipeline == ranks || c.sharding == "zero-3";
          ASSERT_TRUE(one_copy);
          ASSERT_TRUE(world.AllReduce(got.data(), all.data(), places.size, DataType::kF32).Wait().ok());
          for (const auto& [name, place] : places.of) {
            EXPECT_LT(runtime::RelativeError(Part(all, place), Part(want, place)), kTolerance)
                << what << ", " << name;
          }
          if (config.tie_word_embeddings) {  // both have the sum, the same bits of it
            std::vector<float> copies(places.size);
            ASSERT_TRUE(
                world.AllReduce(got_copies.data(), copies.data(), places.size, DataType::kF32).Wait().ok());
            const auto& place = places.of.at("model.embed_tokens.weight");
            EXPECT_EQ(Part(copies, place), Part(all, place)) << what;
          } else if (c.shape.pipeline == ranks && config.num_experts == 0) {
            EXPECT_EQ(all, same) << what << ": the same sums in another order";
          }
          EXPECT_NEAR(numbers->loss, want_numbers->loss, kTolerance * want_numbers->loss) << what;
          EXPECT_NEAR(numbers->aux_loss, want_numbers->aux_loss, kTolerance * want_numbers->aux_loss) << what;
          EXPECT_NEAR(numbers->norm, want_numbers->norm, kTolerance * want_numbers->norm) << what;
          EXPECT_NEAR(numbers->held_out, want_numbers->held_out, kTolerance * want_numbers->held_out) << what;
        }
      },
      {.timeout = absl::Seconds(60), .limit = absl::Seconds(120)});
}

// All rows of the table with as many stages a rank as the blocks allow, and each of these counts of micro-batches.
std::vector<ScheduleCase> EveryRow(int ranks, int blocks, const std::vector<int>& micro_batches) {
  std::vector<ScheduleCase> cases;
  for (const pipeline::ScheduleGenerator& row : pipeline::ScheduleGenerators()) {
    const int most = row.max_chunks > 0 ? row.max_chunks : 3;
    for (int chunks = row.min_chunks; chunks <= most && chunks * ranks <= blocks; ++chunks) {
      for (const int count : micro_batches) {
        cases.push_back(
            {.schedule = row.name, .stages_per_rank = chunks, .batch = count, .shape = {.pipeline = ranks}});
      }
    }
  }
  return cases;
}

// 7 blocks: stages of one, two and more of them.
TEST(EverySchedule, OnTwoRanks) {
  ExpectOneRanksGradients(2, DeepConfig("llama", 7), EveryRow(2, 7, {1, 2, 3, 8}));
}
TEST(EverySchedule, OnThreeRanks) {
  ExpectOneRanksGradients(3, DeepConfig("llama", 7), EveryRow(3, 7, {2, 7}));
}
TEST(EverySchedule, OnFourRanks) {
  ExpectOneRanksGradients(4, DeepConfig("llama", 9), EveryRow(4, 9, {3, 9}));
}
TEST(EverySchedule, OfAMixtureOfExperts) {
  ExpectOneRanksGradients(3, DeepConfig("qwen3_moe", 7), EveryRow(3, 7, {5}));
}

// Micro-batches of several sequences, the last smaller; activations made again; blocks dealt by measured costs.
TEST(EverySchedule, OfOtherMicroBatchesAndStages) {
  std::vector<ScheduleCase> cases = EveryRow(2, 7, {7});
  for (ScheduleCase& c : cases) {
    c.micro_batch = 3;
    c.recompute = true;
    c.costs = {{5, 1, 1, 1, 1, 1, 1}, 0, 3};
  }
  ExpectOneRanksGradients(2, DeepConfig("llama", 7), cases);
}

// Stages of two ranks that share out the batch and the parameters, and in a mixture the experts: all ranks of a stage
// follow the same list, so that what they do together is in one order.
TEST(EverySchedule, BesideOtherAxes) {
  for (const char* family : {"llama", "qwen3_moe"}) {
    std::vector<ScheduleCase> cases = EveryRow(2, 5, {7});
    for (ScheduleCase& c : cases) {
      c.shape = {.pipeline = 2, .shard = 2, .expert = family[0] == 'q' ? 2 : 1};
      c.sharding = "zero-3";
    }
    ExpectOneRanksGradients(4, DeepConfig(family, 5), cases);
  }
}

// The embedding in the first stage, a copy of it in the last one: on two ranks or, in a V, on one.
TEST(EverySchedule, OfTiedEmbeddings) {
  ExpectOneRanksGradients(2, DeepConfig("llama", 7, /*tied=*/true), EveryRow(2, 7, {3}));
  ExpectOneRanksGradients(3, DeepConfig("qwen3_moe", 7, /*tied=*/true), EveryRow(3, 7, {4}));
  std::vector<ScheduleCase> sharded = EveryRow(2, 5, {7});
  for (ScheduleCase& c : sharded) {
    c.shape = {.pipeline = 2, .shard = 2};
    c.sharding = "zero-3";
  }
  ExpectOneRanksGradients(4, DeepConfig("llama", 5, /*tied=*/true), sharded);
}

class ScheduleFile {
 public:
  explicit ScheduleFile(const std::string& text) : path_(folder_.path() + "/schedule.csv") {
    std::ofstream(path_) << text;
  }
  const std::string& path() const { return path_; }

 private:
  const TempFolder folder_;
  const std::string path_;
};

// Stages on ranks as no generator has them, whole backwards beside split ones, and a late gradient of weights.
TEST(EverySchedule, OfAFile) {
  const ScheduleFile file(
      "# stages 1 and 3 here, stages 0 and 2 there\n"
      "1F0,1F1,3F0,3B0,3F1,3I1,1B0,1B1,3W1,1F2,3F2,3B2,1I2,1W2\n"
      "0F0,0F1,2F0,2F1,2I0,2B1,0F2,0B0,0B1,2W0,2F2,2B2,0I2,0W2\n");
  ExpectOneRanksGradients(2, DeepConfig("llama", 6),
                          {{.schedule = file.path(), .batch = 3, .shape = {.pipeline = 2}}});
  ExpectOneRanksGradients(2, DeepConfig("qwen3_moe", 4),
                          {{.schedule = file.path(), .batch = 3, .shape = {.pipeline = 2}}});
}

// Refused on every rank, before anything runs.
TEST(EverySchedule, WhatCannotBeIsRefusedWithItsNumbers) {
  const ScheduleFile good("0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n");
  const ScheduleFile deadlock("0F0,0B0,0F1,0B1\n# second\n1F0,1F1,1B0,1B1\n");
  const ScheduleFile unknown("0F0,0B0\n1F0,1X0\n");
  const ScheduleFile missing("0F0,0B0,0F1,0B1\n1F0,1B0,1F1\n");
  const std::string absent = "/no/such/folder/schedule.csv";
  const MeshShape two = {.pipeline = 2};
  struct Refused {
    ScheduleCase c;
    std::string said;
  };
  const Refused refused[] = {
      {{.schedule = "gpipe", .stages_per_rank = 3, .shape = two}, "6 stages, and the model has 5 blocks"},
      {{.schedule = "zb-h1", .stages_per_rank = 2, .shape = two},
       "zb-h1 cannot have 2 stages a rank: it has one"},
      {{.schedule = "zb-v", .stages_per_rank = 1, .shape = two}, "zb-v cannot have 1 stage a rank"},
      {{.schedule = "interleaved", .shape = two}, "interleaved cannot have 1 stage a rank: with one"},
      {{.schedule = "gpipe", .stages_per_rank = 0, .shape = two},
       "parallel.stages_per_rank is 0; it must be 1 or more"},
      {{.schedule = "2f2b", .shape = two}, "no pipeline schedule is called '2f2b'; there are gpipe, 1f1b"},
      {{.schedule = "1f1b", .shape = two, .costs = {{1, 2, 3}, 0, 0}}, "costs of 3 blocks for a model of 5"},
      {{.schedule = good.path(), .batch = 4, .shape = two},
       "is a schedule of 2 micro-batches; a step has 4 here: change train.global_batch"},
      {{.schedule = good.path(), .batch = 2},
       "is a schedule of 2 ranks, a line each; parallel.pipeline has 1"},
      {{.schedule = deadlock.path(), .batch = 2, .shape = two}, ":1: deadlock: rank 0, action 1 (0B0)"},
      {{.schedule = unknown.path(), .batch = 1, .shape = two}, ":2: '1X0': an action is a stage"},
      {{.schedule = missing.path(), .batch = 2, .shape = two}, ":2: rank 1 has no backward"},
      {{.schedule = absent, .shape = two}, absent},
  };
  testing::RunRanks(2, [&](comm::Communicator& world) {
    const runtime::ModelConfig config = DeepConfig("llama", 5);
    for (const auto& [c, said] : refused) {
      const auto model = Make(config, c, world);
      ASSERT_FALSE(model.ok()) << said;
      EXPECT_THAT(model.status().message(), HasSubstr(said));
    }
    // And the ranks can go on.
    EXPECT_TRUE(Make(config, {.schedule = good.path(), .batch = 2, .shape = two}, world).ok());
  });
}

// Ranks whose files differ would wait for each other for ever.
TEST(EverySchedule, FilesThatDifferAreRefused) {
  const ScheduleFile first("0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n"),
      second("0F0,0F1,0B0,0B1\n1F0,1F1,1B0,1B1\n");
  testing::RunRanks(2, [&](comm::Communicator& world) {
    const auto model = Make(
        DeepConfig("llama", 4),
        {.schedule = world.rank() == 0 ? first.path() : second.path(), .batch = 2, .shape = {.pipeline = 2}},
        world);
    ASSERT_FALSE(model.ok());
    EXPECT_THAT(model.status().message(), HasSubstr("of rank 1 is not that of rank 0"));
  });
}

}  // namespace
}  // namespace cohort::parallel
