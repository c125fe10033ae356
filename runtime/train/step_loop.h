// The step loop: gradients, clipping, optimizer, evaluation, checkpoints, until the steps are
// done or somebody says stop. It sees a Trainable and knows nothing of ranks, files or
// terminals: those are its callbacks.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>

#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "runtime/optim/optimizer.h"
#include "runtime/optim/schedule.h"
#include "runtime/train/trainable.h"

namespace cohort::runtime {

struct StepLoopOptions {
  int64_t steps = 0;                                // in all; a resumed run does what is left
  absl::Duration limit = absl::InfiniteDuration();  // stop at the first step boundary past it
  double clip_grad_norm = 1;
  AdamWSettings adamw;
  Schedule schedule;
  int64_t eval_every = 0;      // 0: only at the end
  int64_t eval_sequences = 0;  // 0: all
  bool evaluate = false;       // whether there is held-out data
  int64_t save_every = 0;      // 0: only at the end
};

// One step, as it is reported. Numbers are over the whole global batch and equal on every rank.
struct StepReport {
  int64_t step = 0;  // counted from 1: how many are done
  double loss = 0;   // mean nats a predicted token
  double aux_loss = 0;
  double grad_norm = 0;  // before clipping
  double lr = 0;
  double seconds = 0;         // this step's, on this rank
  double waited_seconds = 0;  // of them, for other ranks
  int64_t tokens = 0;
  const std::vector<std::vector<int64_t>>* expert_load = nullptr;
  int64_t dropped = 0;
};

// A step whose gradients are complete and that no update has followed yet. With it, and with the gradients in its slices,
// another Trainable makes the update: on other ranks than those that have computed them.
struct StepGradients {
  StepResult result;
  double norm = 0;                         // of the gradients, before clipping
  double seconds = 0, waited_seconds = 0;  // spent on it so far
};

struct StepCallbacks {
  std::function<void(const StepReport&)> on_step;
  std::function<void(int64_t step, const Trainable::Evaluation&)> on_evaluation;
  // Writes a checkpoint after `step` steps. `more`: another step follows here, so that it may be written meanwhile; else it
  // is on the disk when this returns. RESOURCE_EXHAUSTED (a full disk) is reported to on_save_failed
  // and training goes on, except at the end; other errors end the run.
  std::function<absl::Status(int64_t step, bool more)> save;
  std::function<void(int64_t step, const absl::Status&)> on_save_failed;

  // For who keeps copies of the state; an error ends the run. When this rank's gradients are complete; before the
  // optimizer changes the state, when all ranks have come past after_gradients; and when a step has changed it (and
  // gates' balancing biases).
  std::function<absl::Status()> after_gradients;
  std::function<absl::Status()> before_update;
  std::function<absl::Status(const StepReport&)> after_update;
  // Where there is one, it gets the gradients of the first step in place of the optimizer, after before_update, and the
  // loop ends there.
  std::function<absl::Status(StepGradients)> hand_over;
  // For who changes the ranks. Asked at each step boundary: where any rank says yes, all leave the loop there, to go on
  // in another one; what is due at that boundary is done before.
  std::function<bool()> pause;
  // All ranks have agreed how it goes on after a step: no further step is made here, and why.
  enum class Next : int64_t { kStep = 0, kPause = 1, kEnd = 2 };
  std::function<absl::Status(int64_t step, Next next)> on_boundary;
};

struct StepLoopResult {
  int64_t step = 0;                                 // steps done in all
  bool interrupted = false;                         // stopped by `stop`, after saving
  bool paused = false;                              // left by `pause`
  bool handed_over = false;                         // to hand_over
  std::optional<Trainable::Evaluation> evaluation;  // the last one
};

// Collective, as all of Trainable's calls are. `stop`, where not null and set on any rank, ends the run at
// the next step boundary with a checkpoint. A loss or gradient that is not finite is an error that names the
// step; nothing is saved after it. `begun`, where not null: the slices hold the gradients of the first step already, which
// begins with its update; of the callbacks before that none is called.
absl::StatusOr<StepLoopResult> RunSteps(Trainable& trainable, OptimizerState& optimizer,
                                        const StepLoopOptions& options, const StepCallbacks& callbacks,
                                        const std::atomic<bool>* stop = nullptr,
                                        const StepGradients* begun = nullptr);

}  // namespace cohort::runtime
