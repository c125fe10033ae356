// Short trainings of a small model over real processes, and what they report.
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "parallel/parallel_model.h"
#include "tests/support/ranks.h"
#include "tests/support/tiny_model.h"

namespace cohort::parallel {

// Numbers that forked processes hand to the test that made them.
class SharedDoubles {
 public:
  explicit SharedDoubles(size_t size) : size_(size) {
    void* memory =
        mmap(nullptr, size * sizeof(double), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    EXPECT_NE(memory, MAP_FAILED);
    values_ = static_cast<double*>(memory);
  }
  SharedDoubles(const SharedDoubles&) = delete;
  ~SharedDoubles() { munmap(values_, size_ * sizeof(double)); }
  double& operator[](size_t i) { return values_[i]; }
  std::vector<double> Take() const { return {values_, values_ + size_}; }

 private:
  size_t size_;
  double* values_;
};

// Sequences of different lengths, with ignored targets: what each is depends on step and index alone.
class TestSource final : public BatchSource {
 public:
  TestSource(runtime::Device& device, int64_t vocabulary) : device_(device), vocabulary_(vocabulary) {}

  absl::StatusOr<Samples> Training(int64_t step, int64_t begin, int64_t count) override {
    if (step == fail_at_step)
      return absl::DataLossError("the training data ends in the middle of a document");
    return Make(1000 + (repeat ? 0 : step * 100), begin, count);
  }
  int64_t held_out() const override { return 7; }
  absl::StatusOr<Samples> HeldOut(int64_t begin, int64_t count) override { return Make(0, begin, count); }

  int64_t fail_at_step = -1;
  bool repeat = false;  // every step brings the batch of the first

 private:
  Samples Make(int64_t first, int64_t begin, int64_t count) {
    std::vector<std::vector<int32_t>> sequences;
    Samples samples;
    for (int64_t i = begin; i < begin + count; ++i) {
      const auto seed = static_cast<uint32_t>(first + i);
      const int length = 5 + static_cast<int>(seed * 7919u % 9);
      sequences.push_back(runtime::RandomSequences({length}, vocabulary_, seed)[0]);
      samples.bytes += 3 * (length - 1);
    }
    samples.tokens = runtime::PackBatch(device_, sequences);
    return samples;
  }

  runtime::Device& device_;
  const int64_t vocabulary_;
};

struct Training {
  runtime::ModelConfig config;
  int ranks = 1;
  int expert = 1;
  ParallelOptions options = {
      .compute = DataType::kF32, .recompute = false, .global_batch = 8, .micro_batch = 0};
  int shard = 1;
  int steps = 20;
  bool repeat = false;  // one batch again and again: what is learned shows in a few steps
};

struct Report {
  std::vector<double> losses, aux_losses, norms;  // by step
  std::vector<std::vector<double>> loads;         // by step: all blocks' experts, one after another
  double eval_loss = 0, bits_per_byte = 0, eval_tokens = 0, dropped = 0;
};

inline std::unique_ptr<ParallelModel> MakeModel(const Training& run, comm::Communicator& world,
                                                std::unique_ptr<BatchSource> source = nullptr) {
  runtime::SetCpuThreads(1);
  runtime::Device& device = runtime::CpuDevice();
  auto mesh = MakeMesh({.shard = run.shard, .expert = run.expert}, world);
  EXPECT_TRUE(mesh.ok()) << mesh.status();
  if (source == nullptr) {
    auto test_source = std::make_unique<TestSource>(device, run.config.vocab_size);
    test_source->repeat = run.repeat;
    source = std::move(test_source);
  }
  std::shared_ptr<comm::Communicator> borrowed(&world, [](comm::Communicator*) {});
  auto model =
      ParallelModel::Create(run.config, device, run.options, *mesh, std::move(borrowed), std::move(source));
  EXPECT_TRUE(model.ok()) << model.status();
  if (!model.ok()) return nullptr;
  (*model)->Initialize(5);
  return *std::move(model);
}

// A plain step loop: clipping by global norm, AdamW on every slice.
class Optimizer {
 public:
  explicit Optimizer(ParallelModel& model) : model_(model) {
    for (const runtime::OptimizerSlice& slice : model.slices()) {
      m_.push_back(runtime::Tensor::Zeros(slice.master.device(), slice.master.shape(), slice.master.dtype()));
      v_.push_back(m_.back().Clone());
    }
  }
  void Step(double norm) {
    ++step_;
    const auto& slices = model_.slices();
    for (size_t i = 0; i < slices.size(); ++i) {
      slices[i].master.device().ops().AdamW(slices[i].master, slices[i].grad, m_[i], v_[i], slices[i].value,
                                            {.lr = 0.004,
                                             .beta1 = 0.9,
                                             .beta2 = 0.95,
                                             .eps = 1e-8,
                                             .weight_decay = slices[i].decay ? 0.1 : 0.0,
                                             .step = step_,
                                             .grad_scale = std::min(1.0, 1 / norm)});
    }
  }

 private:
  ParallelModel& model_;
  std::vector<runtime::Tensor> m_, v_;
  int64_t step_ = 0;
};

// Trains in run.ranks processes; rank 0's report, after every rank agreed with it on every number. `prepare`
// changes the initial model on every rank.
inline Report Train(const Training& run, const std::function<void(ParallelModel&)>& prepare = nullptr) {
  const size_t experts = static_cast<size_t>(run.config.num_experts * run.config.num_hidden_layers);
  const size_t row = 3 + experts, size = static_cast<size_t>(run.steps) * row + 4;
  std::vector<std::unique_ptr<SharedDoubles>> reports;
  for (int rank = 0; rank < run.ranks; ++rank) reports.push_back(std::make_unique<SharedDoubles>(size));
  testing::RunRanks(run.ranks, [&](comm::Communicator& world) {
    const auto model = MakeModel(run, world);
    ASSERT_NE(model, nullptr);
    if (prepare) prepare(*model);
    Optimizer optimizer(*model);
    SharedDoubles& report = *reports[world.rank()];
    size_t next = 0;
    int64_t dropped = 0;
    for (int step = 0; step < run.steps; ++step) {
      const auto result = model->ComputeGradients(step);
      ASSERT_TRUE(result.ok()) << result.status();
      const auto norm = model->GradientNorm();
      ASSERT_TRUE(norm.ok()) << norm.status();
      optimizer.Step(*norm);
      ASSERT_TRUE(model->AfterStep(*result).ok());
      dropped += result->sums.dropped;
      report[next++] = result->sums.loss / static_cast<double>(result->sums.tokens);
      report[next++] = result->sums.aux_loss;
      report[next++] = *norm;
      for (const auto& block : result->sums.expert_load) {
        for (const int64_t count : block) report[next++] = static_cast<double>(count);
      }
    }
    const auto evaluation = model->Evaluate(0);
    ASSERT_TRUE(evaluation.ok()) << evaluation.status();
    report[next++] = evaluation->loss;
    report[next++] = evaluation->bits_per_byte;
    report[next++] = static_cast<double>(evaluation->tokens);
    report[next++] = static_cast<double>(dropped);
    ASSERT_EQ(next, size);
  });
  const std::vector<double> values = reports[0]->Take();
  for (int rank = 1; rank < run.ranks; ++rank) {
    EXPECT_EQ(reports[rank]->Take(), values) << "rank " << rank << " reports other numbers than rank 0";
  }
  Report report;
  auto next = values.begin();
  for (int step = 0; step < run.steps; ++step) {
    report.losses.push_back(*next++);
    report.aux_losses.push_back(*next++);
    report.norms.push_back(*next++);
    report.loads.emplace_back(next, next + static_cast<std::ptrdiff_t>(experts));
    next += static_cast<std::ptrdiff_t>(experts);
  }
  report.eval_loss = *next++;
  report.bits_per_byte = *next++;
  report.eval_tokens = *next++;
  report.dropped = *next++;
  return report;
}

// Equal training runs, as far as the order of f32 sums allows.
inline void ExpectSameTraining(const Report& got, const Report& want, const std::string& what) {
  constexpr double kTolerance = 1e-5;  // relative
  ASSERT_EQ(got.losses.size(), want.losses.size()) << what;
  for (size_t step = 0; step < want.losses.size(); ++step) {
    EXPECT_NEAR(got.losses[step], want.losses[step], kTolerance * want.losses[step])
        << what << ", step " << step;
    EXPECT_NEAR(got.aux_losses[step], want.aux_losses[step], kTolerance * want.aux_losses[step])
        << what << ", step " << step;
  }
  EXPECT_NEAR(got.norms[0], want.norms[0], kTolerance * want.norms[0]) << what;
  EXPECT_EQ(got.loads[0], want.loads[0]) << what;
  EXPECT_NEAR(got.eval_loss, want.eval_loss, 2 * kTolerance * want.eval_loss) << what;
  EXPECT_NEAR(got.bits_per_byte, want.bits_per_byte, 2 * kTolerance * want.bits_per_byte) << what;
  EXPECT_EQ(got.eval_tokens, want.eval_tokens) << what;
}

}  // namespace cohort::parallel
