// The step loop over a Trainable that is a quadratic bowl: what it calls, when, and what
// it does when things fail.
#include "runtime/train/step_loop.h"

#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cohort::runtime {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// loss = |x - 3|^2 / 2 in four dimensions.
class Bowl : public Trainable {
 public:
  Bowl() {
    slices_.push_back({.name = "x",
                       .master = Tensor::Zeros(ReferenceDevice(), {4}, DataType::kF64),
                       .grad = Tensor::Zeros(ReferenceDevice(), {4}, DataType::kF64),
                       .value = {},
                       .decay = false});
  }
  int rank() const override { return 0; }
  int world() const override { return 1; }
  absl::StatusOr<StepResult> ComputeGradients(int64_t step) override {
    StepResult result;
    result.sums.tokens = 10;
    for (int i = 0; i < 4; ++i) {
      const double d = slices_[0].master.data<double>()[i] - 3;
      slices_[0].grad.data<double>()[i] = d;
      result.sums.loss += 10 * d * d / 2;
    }
    if (step == poison) result.sums.loss = std::numeric_limits<double>::quiet_NaN();
    return result;
  }
  absl::StatusOr<double> GradientNorm() override {
    double sum = 0;
    for (int i = 0; i < 4; ++i) sum += std::pow(slices_[0].grad.data<double>()[i], 2);
    return std::sqrt(sum);
  }
  const std::vector<OptimizerSlice>& slices() override { return slices_; }
  absl::Status AfterStep(const StepResult&) override { return absl::OkStatus(); }
  absl::StatusOr<Evaluation> Evaluate(int64_t) override {
    return Evaluation{.loss = 1, .bits_per_byte = 2, .tokens = 3};
  }
  const std::vector<StateEntry>& state() override { return entries_; }
  absl::Status Barrier() override { return absl::OkStatus(); }
  absl::StatusOr<int64_t> AgreeMax(int64_t value) override { return value; }
  absl::StatusOr<std::vector<std::string>> GatherStrings(const std::string& mine) override {
    return std::vector<std::string>{mine};
  }

  int64_t poison = -1;

 private:
  std::vector<OptimizerSlice> slices_;
  std::vector<StateEntry> entries_;
};

StepLoopOptions Options(int64_t steps) {
  StepLoopOptions options;
  options.steps = steps;
  options.schedule = {.peak = 0.1, .total_steps = 100, .warmup_steps = 0, .decay = Decay::kConstant};
  options.evaluate = true;
  return options;
}

TEST(StepLoopTest, TrainsEvaluatesAndSavesWhenDue) {
  Bowl bowl;
  OptimizerState optimizer = OptimizerState::For(bowl.slices());
  StepLoopOptions options = Options(7);
  options.eval_every = 3;
  options.save_every = 2;
  std::vector<int64_t> saved, evaluated;
  std::vector<double> losses;
  StepCallbacks callbacks;
  callbacks.on_step = [&](const StepReport& report) { losses.push_back(report.loss); };
  callbacks.on_evaluation = [&](int64_t step, const Trainable::Evaluation&) { evaluated.push_back(step); };
  callbacks.save = [&](int64_t step, bool more) {
    EXPECT_EQ(more, step < 7);
    return saved.push_back(step), absl::OkStatus();
  };
  const auto result = RunSteps(bowl, optimizer, options, callbacks);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->step, 7);
  EXPECT_FALSE(result->interrupted);
  EXPECT_THAT(saved, ElementsAre(2, 4, 6, 7));
  EXPECT_THAT(evaluated, ElementsAre(3, 6, 7));
  ASSERT_EQ(losses.size(), 7u);
  EXPECT_EQ(losses.front(), 18.0);
  EXPECT_LT(losses.back(), losses.front());
}

TEST(StepLoopTest, AResumedRunDoesWhatIsLeft) {
  Bowl bowl;
  OptimizerState optimizer = OptimizerState::For(bowl.slices());
  optimizer.step = 5;
  int steps = 0;
  StepCallbacks callbacks;
  callbacks.on_step = [&](const StepReport& report) { EXPECT_EQ(report.step, 6 + steps++); };
  ASSERT_TRUE(RunSteps(bowl, optimizer, Options(8), callbacks).ok());
  EXPECT_EQ(steps, 3);
}

TEST(StepLoopTest, StopEndsAtTheNextBoundaryWithACheckpoint) {
  Bowl bowl;
  OptimizerState optimizer = OptimizerState::For(bowl.slices());
  std::atomic<bool> stop = false;
  std::vector<int64_t> saved;
  StepCallbacks callbacks;
  callbacks.on_step = [&](const StepReport& report) { stop = report.step == 3; };
  callbacks.save = [&](int64_t step, bool) { return saved.push_back(step), absl::OkStatus(); };
  const auto result = RunSteps(bowl, optimizer, Options(100), callbacks, &stop);
  ASSERT_TRUE(result.ok());
  EXPECT_TRUE(result->interrupted);
  EXPECT_THAT(saved, ElementsAre(3));
}

TEST(StepLoopTest, ALossThatIsNotFiniteEndsTheRunUnsaved) {
  Bowl bowl;
  bowl.poison = 2;
  OptimizerState optimizer = OptimizerState::For(bowl.slices());
  int saves = 0;
  StepCallbacks callbacks;
  callbacks.save = [&](int64_t, bool) { return ++saves, absl::OkStatus(); };
  const auto result = RunSteps(bowl, optimizer, Options(10), callbacks);
  ASSERT_FALSE(result.ok());
  EXPECT_THAT(std::string(result.status().message()), HasSubstr("step 3"));
  EXPECT_EQ(saves, 0);
  EXPECT_EQ(optimizer.step, 2);
}

TEST(StepLoopTest, AFullDiskDoesNotEndTheRunUnlessAtTheEnd) {
  Bowl bowl;
  OptimizerState optimizer = OptimizerState::For(bowl.slices());
  StepLoopOptions options = Options(4);
  options.save_every = 2;
  std::vector<int64_t> failed;
  bool full = true;
  StepCallbacks callbacks;
  callbacks.save = [&](int64_t, bool) {
    return full ? absl::ResourceExhaustedError("disk full") : absl::OkStatus();
  };
  callbacks.on_save_failed = [&](int64_t step, const absl::Status&) { failed.push_back(step), full = false; };
  ASSERT_TRUE(RunSteps(bowl, optimizer, options, callbacks).ok());
  EXPECT_THAT(failed, ElementsAre(2));
  full = true;
  options.steps = 5;
  EXPECT_TRUE(absl::IsResourceExhausted(RunSteps(bowl, optimizer, options, callbacks).status()));
}

// One makes the gradients of a step, another the update: the losses are those of one that makes both.
TEST(StepLoopTest, AStepIsHandedOverAndGoesOnElsewhere) {
  StepLoopOptions options = Options(6);
  options.save_every = 3;
  std::vector<double> want, got;
  {
    Bowl bowl;
    OptimizerState optimizer = OptimizerState::For(bowl.slices());
    StepCallbacks callbacks;
    callbacks.on_step = [&](const StepReport& report) { want.push_back(report.loss); };
    ASSERT_TRUE(RunSteps(bowl, optimizer, options, callbacks).ok());
  }
  Bowl first, second;
  OptimizerState optimizer = OptimizerState::For(first.slices());
  std::vector<int64_t> saved;
  int before_updates = 0;
  std::optional<StepGradients> gradients;
  StepCallbacks callbacks;
  callbacks.on_step = [&](const StepReport& report) { got.push_back(report.loss); };
  callbacks.save = [&](int64_t step, bool) { return saved.push_back(step), absl::OkStatus(); };
  callbacks.before_update = [&] { return ++before_updates, absl::OkStatus(); };
  callbacks.pause = [&] { return got.size() == 2; };
  ASSERT_TRUE(RunSteps(first, optimizer, options, callbacks)->paused);

  callbacks.hand_over = [&](StepGradients step) { return gradients = std::move(step), absl::OkStatus(); };
  const auto handed = RunSteps(first, optimizer, options, callbacks);
  ASSERT_TRUE(handed.ok() && handed->handed_over && gradients.has_value());
  EXPECT_EQ(handed->step, 2);
  EXPECT_EQ(optimizer.step, 2) << "no update yet";
  EXPECT_EQ(before_updates, 3);
  EXPECT_THAT(saved, ::testing::IsEmpty());

  for (int i = 0; i < 4; ++i) {
    second.slices()[0].master.data<double>()[i] = first.slices()[0].master.data<double>()[i];
    second.slices()[0].grad.data<double>()[i] = first.slices()[0].grad.data<double>()[i];
  }
  callbacks.hand_over = nullptr;
  const auto result = RunSteps(second, optimizer, options, callbacks, nullptr, &*gradients);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(got, want);
  EXPECT_EQ(before_updates, 6);
  EXPECT_THAT(saved, ElementsAre(3, 6));
}

TEST(StepLoopTest, TheTimeLimitEndsTheRunAtABoundary) {
  Bowl bowl;
  OptimizerState optimizer = OptimizerState::For(bowl.slices());
  StepLoopOptions options = Options(1000000);
  options.limit = absl::Milliseconds(1);
  const auto result = RunSteps(bowl, optimizer, options, {});
  ASSERT_TRUE(result.ok());
  EXPECT_GE(result->step, 1);
  EXPECT_LT(result->step, 1000000);
  EXPECT_TRUE(result->evaluation.has_value());
}

}  // namespace
}  // namespace cohort::runtime
