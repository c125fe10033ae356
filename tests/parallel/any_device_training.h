// Short trainings of ranks on any device, and all that can differ between two of them.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "parallel/arrangement.h"
#include "runtime/optim/optimizer.h"
#include "tests/parallel/training_run.h"

namespace cohort::parallel {

inline constexpr int kSpreadSteps = 6;

struct DeviceSpread {
  std::string name;
  std::string family;
  int ranks = 2;
  MeshShape shape = {};
  std::string sharding = "ddp";
  ParallelOptions options = {};  // but for what is said beside them
};
inline void PrintTo(const DeviceSpread& spread, std::ostream* out) { *out << spread.name; }
inline std::string NameOf(const ::testing::TestParamInfo<DeviceSpread>& info) { return info.param.name; }

inline std::vector<DeviceSpread> DenseDeviceSpreads() {
  const ContextOptions ulysses = {.split = SplitKind::kZigzag,
                                  .ways = {{.head_parts = 2}, {.head_parts = 2}}};
  const ContextOptions token_ring = {.split = SplitKind::kZigzag,
                                     .ways = {{.moves = Moves::kQueries}, {.moves = Moves::kQueries}}};
  return {
      {"ddp", "llama", 2},
      {"ddp_bf16", "llama", 2, {}, "ddp", {.compute = DataType::kBF16}},
      {"zero_3", "llama", 2, {.shard = 2}, "zero-3"},
      {"zero_3_recompute_bf16",
       "llama",
       2,
       {.shard = 2},
       "zero-3",
       {.compute = DataType::kBF16, .recompute = true}},
      {"frontier_of_four", "llama", 4, {.shard = 2}, "frontier"},
      {"codecs", "llama", 4, {.shard = 2}, "zero++"},
      {"deterministic", "llama", 2, {.shard = 2}, "zero-1", {.deterministic = true}},
      {"tensor", "llama", 2, {.tensor = 2}, "zero-1"},
      {"tensor_split_batch",
       "llama",
       2,
       {.tensor = 2},
       "ddp",
       {.split_batch = SplitRule{.tile = 1, .least = 2}}},
      {"ring", "llama", 2, {.context = 2}, "zero-2"},
      {"token_ring", "llama", 2, {.context = 2}, "ddp", {.context = token_ring}},
      {"ulysses", "llama", 2, {.context = 2}, "zero-3", {.context = ulysses}},
      {"context_and_tensor", "llama", 4, {.context = 2, .tensor = 2}, "zero-1"},
      {"hybrid", "llama", 2, {}, "ddp", {.hybrid = HybridOptions{.tokens = 8}}},
      {"pipeline", "llama", 2, {.pipeline = 2}, "ddp"},
      {"pipeline_of_tied", "qwen3_tied", 2, {.pipeline = 2}, "ddp"},
      {"pipeline_as_a_v_and_shard",
       "qwen3_tied",
       4,
       {.pipeline = 2, .shard = 2},
       "zero-2",
       {.schedule = "zb-v", .stages_per_rank = 2}},
      {"pipeline_and_tensor", "llama", 4, {.pipeline = 2, .tensor = 2}, "ddp"},
  };
}

inline std::vector<DeviceSpread> SparseDeviceSpreads() {
  return {
      {"expert", "qwen3_moe", 2, {.shard = 2, .expert = 2}, "zero-1"},
      {"expert_bf16", "mixtral", 2, {.shard = 2, .expert = 2}, "zero-3", {.compute = DataType::kBF16}},
      {"expert_deterministic", "mixtral", 2, {.expert = 2}, "ddp", {.deterministic = true}},
      {"expert_of_zero_3", "mixtral", 2, {.shard = 2}, "zero-3"},
      {"expert_and_tensor", "qwen3_moe", 4, {.tensor = 2, .expert = 2}, "hsdp"},
      {"expert_and_context", "qwen3_moe", 4, {.shard = 2, .context = 2, .expert = 2}, "mics"},
      {"expert_and_pipeline", "mixtral", 4, {.pipeline = 2, .shard = 2, .expert = 2}, "zero-2"},
  };
}

// The bits of tensors, as a number that a double holds.
class BitSum {
 public:
  void Add(const runtime::Tensor& tensor) {
    if (!tensor.defined()) return;
    const runtime::Tensor host = OnHost(tensor);
    const auto* const bytes = static_cast<const unsigned char*>(host.raw());
    for (size_t i = 0; i < host.bytes(); ++i) sum_ = (sum_ ^ bytes[i]) * 1099511628211u;  // FNV-1a
  }
  double Value() const { return static_cast<double>(sum_ >> 12); }

 private:
  uint64_t sum_ = 14695981039346656037u;
};

// What a rank says of a step: its loss, the gradient's norm, and the bits of this rank's gradients and, after the step, of
// what it updated. And in the end the held-out loss.
inline constexpr size_t kNumbersAStep = 4;
inline constexpr size_t kNumbersARank = kSpreadSteps * kNumbersAStep + 1;
inline double LossOf(const std::vector<double>& numbers, int step) {
  return numbers[static_cast<size_t>(step) * kNumbersAStep];
}

// By rank. prepare: what a rank needs for as long as it trains.
inline std::vector<double> TrainOn(runtime::Device& (*device)(), const DeviceSpread& spread,
                                   const std::function<std::shared_ptr<void>()>& prepare = nullptr) {
  runtime::ModelConfig config = runtime::TinyConfig(spread.family.substr(0, spread.family.find("_tied")));
  config.num_hidden_layers = 4;
  config.tie_word_embeddings = spread.family.find("_tied") != std::string::npos;
  config.router.z_loss_coef = config.num_experts > 0 ? 0.001 : 0;
  SharedDoubles numbers(kNumbersARank * static_cast<size_t>(spread.ranks));
  testing::RunRanks(spread.ranks, [&](comm::Communicator& world) {
    runtime::SetCpuThreads(1);
    const std::shared_ptr<void> kept = prepare ? prepare() : nullptr;
    const auto mesh = MakeMesh(spread.shape, world);
    ASSERT_TRUE(mesh.ok()) << mesh.status();
    ParallelOptions options = spread.options;
    const auto sharding = ParseSharding(spread.sharding);
    ASSERT_TRUE(sharding.ok()) << sharding.status();
    options.sharding = *sharding;
    options.global_batch = 7;
    options.micro_batch = options.hybrid ? 0 : 1;
    std::shared_ptr<comm::Communicator> borrowed(&world, [](comm::Communicator*) {});
    auto source = std::make_unique<TestSource>(device(), config.vocab_size);
    source->repeat = true;
    auto made =
        ParallelModel::Create(config, device(), options, *mesh, std::move(borrowed), std::move(source));
    ASSERT_TRUE(made.ok()) << made.status();
    ParallelModel& model = **made;
    model.Initialize(5);
    runtime::OptimizerState optimizer = runtime::OptimizerState::For(model.slices());
    size_t at = kNumbersARank * static_cast<size_t>(world.rank());
    const auto bits = [&](runtime::Tensor runtime::OptimizerSlice::*member) {
      BitSum sum;
      for (const runtime::OptimizerSlice& slice : model.slices()) sum.Add(slice.*member);
      return sum.Value();
    };
    for (int step = 0; step < kSpreadSteps; ++step) {
      const auto result = model.ComputeGradients(step);
      ASSERT_TRUE(result.ok()) << result.status();
      const auto norm = model.GradientNorm();
      ASSERT_TRUE(norm.ok()) << norm.status();
      numbers[at++] = result->sums.loss / static_cast<double>(result->sums.tokens);
      numbers[at++] = *norm;
      numbers[at++] = bits(&runtime::OptimizerSlice::grad);
      runtime::AdamWStep(model.slices(), {}, /*lr=*/0.004, runtime::ClipFactor(*norm, 1), optimizer);
      ASSERT_TRUE(model.AfterStep(*result).ok());
      numbers[at++] = bits(&runtime::OptimizerSlice::master);
    }
    const auto evaluation = model.Evaluate(0);
    ASSERT_TRUE(evaluation.ok()) << evaluation.status();
    numbers[at] = evaluation->loss;
  });
  return numbers.Take();
}

}  // namespace cohort::parallel
