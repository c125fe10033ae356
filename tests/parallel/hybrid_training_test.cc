// Hybrid batches train the model that one rank trains: every parameter's gradient, the loss and the evaluation, whatever
// the plan does with long and short sequences, and beside other axes.
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "tests/parallel/training_run.h"

namespace cohort::parallel {
namespace {

// Sequences of 1 to 40 tokens: a rank holds 16, so some take two or three ranks and most one.
class MixedSource final : public BatchSource {
 public:
  explicit MixedSource(int64_t vocabulary) : vocabulary_(vocabulary) {}

  absl::StatusOr<Samples> Training(int64_t step, int64_t begin, int64_t count) override {
    return Make(step * 100, begin, count);
  }
  int64_t held_out() const override { return 5; }
  absl::StatusOr<Samples> HeldOut(int64_t begin, int64_t count) override {
    return Make(100000, begin, count);
  }

 private:
  Samples Make(int64_t first, int64_t begin, int64_t count) {
    constexpr int kLengths[] = {3, 30, 16, 1, 7, 32, 2, 9, 21};
    std::vector<std::vector<int32_t>> sequences;
    Samples samples;
    for (int64_t i = begin; i < begin + count; ++i) {
      const int length = kLengths[i % 9];
      sequences.push_back(
          runtime::RandomSequences({length}, vocabulary_, static_cast<uint32_t>(first + i))[0]);
      samples.bytes += 3 * length;
    }
    samples.tokens = runtime::PackBatch(runtime::CpuDevice(), sequences);
    return samples;
  }
  const int64_t vocabulary_;
};

struct HybridCase {
  std::string name;
  int ranks;
  MeshShape shape;
  std::string sharding = "ddp";
  int fixed_ranks = 0;
};

struct HybridResult {
  std::vector<double> gradients;
  double loss = 0, aux_loss = 0, norm = 0, held_out = 0, bits_per_byte = 0;
};

// Gradients at their places among all of the model's elements; parameters are whole or split over their first
// dimension or their second (FeedForward's and attention's output matrices).
int64_t PlaceInWhole(const runtime::Parameter& parameter, int64_t i) {
  const auto dim = static_cast<size_t>(parameter.split_dim);
  int64_t inner = 1;
  for (size_t d = dim + 1; d < parameter.shape.size(); ++d) inner *= parameter.shape[d];
  const int64_t run = parameter.shape[dim] * inner;
  return i / run * parameter.full_shape[dim] * inner + parameter.split_begin * inner + i % run;
}

HybridResult ComputeHybrid(const runtime::ModelConfig& config, const HybridCase& c, bool hybrid) {
  std::map<std::string, int64_t> places;
  int64_t size = 0;
  {
    const auto alone = comm::Communicator::Single();
    const auto model = MakeModel({.config = config}, *alone);
    for (runtime::Parameter* parameter : runtime::AllParameters(model->decoder())) {
      places[parameter->name] = size;
      int64_t elements = 1;
      for (const int64_t dim : parameter->full_shape) elements *= dim;
      size += elements;
    }
  }
  SharedDoubles out(static_cast<size_t>(size) + 5);
  testing::RunRanks(c.ranks, [&](comm::Communicator& world) {
    runtime::SetCpuThreads(1);
    const auto mesh = MakeMesh(c.shape, world);
    ASSERT_TRUE(mesh.ok()) << mesh.status();
    const auto sharding = ParseSharding(c.sharding);
    ASSERT_TRUE(sharding.ok()) << sharding.status();
    ParallelOptions options = {.global_batch = 9, .sharding = *sharding};
    if (hybrid) options.hybrid = HybridOptions{.tokens = 16, .fixed_ranks = c.fixed_ranks};
    std::shared_ptr<comm::Communicator> borrowed(&world, [](comm::Communicator*) {});
    auto made = ParallelModel::Create(config, runtime::CpuDevice(), options, *mesh, borrowed,
                                      std::make_unique<MixedSource>(config.vocab_size));
    ASSERT_TRUE(made.ok()) << made.status();
    ParallelModel& model = **made;
    model.Initialize(5);
    const auto result = model.ComputeGradients(0);
    ASSERT_TRUE(result.ok()) << result.status();
    const auto norm = model.GradientNorm();
    ASSERT_TRUE(norm.ok()) << norm.status();
    for (ModelPart& part : model.parts()) {
      for (const OwnedRun& owned : part.parameters->runs()) {
        const runtime::Tensor& grad = part.parameters->slices()[owned.slice].grad;
        const std::vector<double> values = ToHost(grad.Slice(owned.offset, owned.offset + owned.count));
        for (int64_t e = 0; e < owned.count; ++e) {
          const int64_t place =
              places.at(owned.parameter->name) + PlaceInWhole(*owned.parameter, owned.first + e);
          out[static_cast<size_t>(place)] = values[static_cast<size_t>(e)];
        }
      }
    }
    const auto held_out = model.Evaluate(0);
    ASSERT_TRUE(held_out.ok()) << held_out.status();
    if (world.rank() != 0) return;
    const auto at = static_cast<size_t>(size);
    out[at] = result->sums.loss / static_cast<double>(result->sums.tokens);
    out[at + 1] = result->sums.aux_loss;
    out[at + 2] = *norm;
    out[at + 3] = held_out->loss;
    out[at + 4] = held_out->bits_per_byte;
  });
  std::vector<double> values = out.Take();
  const auto at = static_cast<size_t>(size);
  HybridResult got{{}, values[at], values[at + 1], values[at + 2], values[at + 3], values[at + 4]};
  values.resize(at);
  got.gradients = std::move(values);
  return got;
}

constexpr double kHybridTolerance = 1e-5;

void ExpectSame(const runtime::ModelConfig& config, const std::vector<HybridCase>& cases) {
  const HybridResult one = ComputeHybrid(config, {"one rank", 1, {}}, /*hybrid=*/false);
  ASSERT_GT(one.loss, 0);
  for (const HybridCase& c : cases) {
    const HybridResult got = ComputeHybrid(config, c, /*hybrid=*/true);
    EXPECT_LT(runtime::RelativeError(got.gradients, one.gradients), kHybridTolerance) << c.name;
    double largest = 0, worst = 0;
    for (size_t i = 0; i < one.gradients.size(); ++i) {
      largest = std::max(largest, std::abs(one.gradients[i]));
      worst = std::max(worst, std::abs(one.gradients[i] - got.gradients[i]));
    }
    EXPECT_LT(worst, kHybridTolerance * largest) << c.name;
    EXPECT_NEAR(got.loss, one.loss, kHybridTolerance * one.loss) << c.name;
    EXPECT_NEAR(got.aux_loss, one.aux_loss, kHybridTolerance * one.aux_loss) << c.name;
    EXPECT_NEAR(got.norm, one.norm, kHybridTolerance * one.norm) << c.name;
    EXPECT_NEAR(got.held_out, one.held_out, kHybridTolerance * one.held_out) << c.name;
    EXPECT_NEAR(got.bits_per_byte, one.bits_per_byte, kHybridTolerance * one.bits_per_byte) << c.name;
  }
}

TEST(HybridTraining, GradientsOfOneRankFromADenseModel) {
  runtime::ModelConfig config = runtime::TinyConfig("llama");
  config.tie_word_embeddings = false;
  ExpectSame(config, {{"two", 2, {}},
                      {"three", 3, {}},
                      {"four", 4, {}},
                      {"zero-3", 3, {}, "zero-3"},
                      {"zero-2 in pairs", 4, {.shard = 2}, "zero-2"},
                      {"tensor", 4, {.tensor = 2}},
                      {"pipeline", 4, {.pipeline = 2}},
                      {"a static mesh", 4, {}, "ddp", 2}});
}

TEST(HybridTraining, GradientsOfOneRankFromExperts) {
  runtime::ModelConfig config = runtime::TinyConfig("qwen3_moe");
  config.router.z_loss_coef = 0.001;
  ExpectSame(config, {{"two", 2, {}},
                      {"expert", 2, {.expert = 2}},
                      {"expert and data", 4, {.expert = 2}, "zero-1"},
                      {"tensor", 4, {.tensor = 2}},
                      {"a static mesh", 2, {.expert = 2}, "ddp", 2}});
}

TEST(HybridTraining, WhatDoesNotFitIsRefused) {
  testing::RunRanks(2, [&](comm::Communicator& world) {
    runtime::SetCpuThreads(1);
    const runtime::ModelConfig config = runtime::TinyConfig("llama");
    std::shared_ptr<comm::Communicator> borrowed(&world, [](comm::Communicator*) {});
    const auto make = [&](const MeshShape& shape, int64_t tokens) {
      return ParallelModel::Create(
          config, runtime::CpuDevice(), {.global_batch = 9, .hybrid = HybridOptions{.tokens = tokens}},
          *MakeMesh(shape, world), borrowed, std::make_unique<MixedSource>(config.vocab_size));
    };
    const auto context = make({.context = 2}, 16);
    EXPECT_EQ(context.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(context.status().message().find("parallel.context gives it 2"), std::string::npos);
    const auto small = make({}, 10);
    ASSERT_TRUE(small.ok()) << small.status();
    const auto result = (*small)->ComputeGradients(0);
    EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(result.status().message().find("sequence 1 of 30 tokens needs 3 ranks of 10 tokens"),
              std::string::npos)
        << result.status();
  });
}

}  // namespace
}  // namespace cohort::parallel
