#include "runtime/train/step_loop.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_format.h"
#include "comm/check.h"
#include "runtime/metrics/waited.h"

namespace cohort::runtime {
namespace {

// function(), as an event of the trace.
template <typename Function>
auto Traced(const char* name, Function&& function) {
  const TraceScope scope(name);
  return function();
}

// Why a run ends before its steps are done; the largest of all ranks' reasons counts.
enum Reason : int64_t { kGoOn = 0, kPause = 1, kTimeIsUp = 2, kToldToStop = 3 };

class StepLoop {
 public:
  StepLoop(Trainable& trainable, OptimizerState& optimizer, const StepLoopOptions& options,
           const StepCallbacks& callbacks, const std::atomic<bool>* stop, const StepGradients* begun)
      : trainable_(trainable),
        optimizer_(optimizer),
        options_(options),
        callbacks_(callbacks),
        stop_(stop),
        begun_(begun) {}

  absl::StatusOr<StepLoopResult> Run() {
    const absl::Time end = absl::Now() + options_.limit;
    result_.step = optimizer_.step;
    int64_t reason = kGoOn;
    while (result_.step < options_.steps && reason == kGoOn) {
      if (begun_ != nullptr) {
        COHORT_RETURN_IF_ERROR(Update(*std::exchange(begun_, nullptr)));
      } else {
        COHORT_ASSIGN_OR_RETURN(StepGradients step, Gradients());
        if (callbacks_.hand_over) {
          result_.handed_over = true;
          COHORT_RETURN_IF_ERROR(callbacks_.hand_over(std::move(step)));
          return result_;
        }
        COHORT_RETURN_IF_ERROR(Update(step));
      }
      COHORT_ASSIGN_OR_RETURN(reason, trainable_.AgreeMax(OwnReason(end)));
      const bool last = result_.step >= options_.steps || reason == kTimeIsUp;
      if (options_.evaluate && reason != kToldToStop && (last || Due(options_.eval_every))) {
        COHORT_RETURN_IF_ERROR(Evaluate());
      }
      if (last || reason == kToldToStop || Due(options_.save_every)) {
        COHORT_RETURN_IF_ERROR(Save(last || reason == kToldToStop, reason == kPause));
      }
      result_.paused = reason == kPause && !last;
      if (callbacks_.on_boundary) {
        using Next = StepCallbacks::Next;
        COHORT_RETURN_IF_ERROR(callbacks_.on_boundary(result_.step, result_.paused ? Next::kPause
                                                                    : last || reason == kToldToStop
                                                                        ? Next::kEnd
                                                                        : Next::kStep));
      }
    }
    result_.interrupted = reason == kToldToStop;
    return result_;
  }

 private:
  Reason OwnReason(absl::Time end) const {
    // Asked at each boundary, whatever else ends the loop there: others may wait for the question.
    const bool pause = callbacks_.pause && callbacks_.pause();
    if (stop_ != nullptr && stop_->load(std::memory_order_relaxed)) return kToldToStop;
    if (absl::Now() >= end) return kTimeIsUp;
    return pause ? kPause : kGoOn;
  }

  bool Due(int64_t every) const { return every > 0 && result_.step % every == 0; }

  // Up to the update.
  absl::StatusOr<StepGradients> Gradients() {
    const absl::Time begin = absl::Now();
    const double waited = WaitedSeconds();
    StepGradients step;
    COHORT_ASSIGN_OR_RETURN(step.result,
                            Traced("gradients", [&] { return trainable_.ComputeGradients(result_.step); }));
    if (callbacks_.after_gradients) COHORT_RETURN_IF_ERROR(callbacks_.after_gradients());
    COHORT_ASSIGN_OR_RETURN(step.norm, Traced("gradient norm", [&] { return trainable_.GradientNorm(); }));
    const double loss = LossOf(step.result);
    if (!std::isfinite(loss) || !std::isfinite(step.norm)) {
      return absl::FailedPreconditionError(
          absl::StrFormat("step %d: the loss (%g) or the gradient norm (%g) is not finite; the weights were "
                          "not updated. A lower "
                          "learning rate, a longer warm-up or train.dtype f32 usually helps",
                          result_.step + 1, loss, step.norm));
    }
    if (callbacks_.before_update) COHORT_RETURN_IF_ERROR(callbacks_.before_update());
    step.seconds = absl::ToDoubleSeconds(absl::Now() - begin);
    step.waited_seconds = WaitedSeconds() - waited;
    return step;
  }

  static double LossOf(const StepResult& step) {
    return step.sums.tokens > 0 ? step.sums.loss / static_cast<double>(step.sums.tokens) : 0.0;
  }

  absl::Status Update(const StepGradients& step) {
    const absl::Time begin = absl::Now();
    const double waited = WaitedSeconds();
    const double lr = options_.schedule.At(result_.step);
    Traced("optimizer", [&] {
      AdamWStep(trainable_.slices(), options_.adamw, lr, ClipFactor(step.norm, options_.clip_grad_norm),
                optimizer_);
    });
    COHORT_RETURN_IF_ERROR(Traced("after step", [&] { return trainable_.AfterStep(step.result); }));
    ++result_.step;
    const StepReport report = {.step = result_.step,
                               .loss = LossOf(step.result),
                               .aux_loss = step.result.sums.aux_loss,
                               .grad_norm = step.norm,
                               .lr = lr,
                               .seconds = step.seconds + absl::ToDoubleSeconds(absl::Now() - begin),
                               .waited_seconds = step.waited_seconds + WaitedSeconds() - waited,
                               .tokens = step.result.sums.tokens,
                               .expert_load = &step.result.sums.expert_load,
                               .dropped = step.result.sums.dropped};
    if (callbacks_.after_update) COHORT_RETURN_IF_ERROR(callbacks_.after_update(report));
    if (callbacks_.on_step) callbacks_.on_step(report);
    return absl::OkStatus();
  }

  absl::Status Evaluate() {
    COHORT_ASSIGN_OR_RETURN(result_.evaluation, trainable_.Evaluate(options_.eval_sequences));
    if (callbacks_.on_evaluation) callbacks_.on_evaluation(result_.step, *result_.evaluation);
    return absl::OkStatus();
  }

  absl::Status Save(bool final, bool pause) {
    if (!callbacks_.save) return absl::OkStatus();
    const absl::Status status = callbacks_.save(result_.step, /*more=*/!final && !pause);
    if (final || !absl::IsResourceExhausted(status)) return status;
    if (callbacks_.on_save_failed) callbacks_.on_save_failed(result_.step, status);
    return absl::OkStatus();
  }

  Trainable& trainable_;
  OptimizerState& optimizer_;
  const StepLoopOptions& options_;
  const StepCallbacks& callbacks_;
  const std::atomic<bool>* stop_;
  const StepGradients* begun_;
  StepLoopResult result_;
};

}  // namespace

absl::StatusOr<StepLoopResult> RunSteps(Trainable& trainable, OptimizerState& optimizer,
                                        const StepLoopOptions& options, const StepCallbacks& callbacks,
                                        const std::atomic<bool>* stop, const StepGradients* begun) {
  return StepLoop(trainable, optimizer, options, callbacks, stop, begun).Run();
}

}  // namespace cohort::runtime
