// Work: a communication in flight.
#pragma once

#include <memory>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace cohort::comm {

// What an operation in flight does for its handle. Implemented by the executor.
class WorkState {
 public:
  virtual ~WorkState() = default;
  virtual bool Done() = 0;
  virtual absl::Status Wait(absl::Time deadline) = 0;
};

// A handle on one asynchronous operation; copies share it. Thread-safe. The buffers handed to the
// operation must stay as they are (inputs) or untouched (outputs) until Wait returns; dropping
// the handle does not cancel.
class Work {
 public:
  // Already over, with this status.
  explicit Work(absl::Status status = absl::OkStatus()) : status_(std::move(status)) {}
  explicit Work(std::shared_ptr<WorkState> state) : state_(std::move(state)) {}

  // Whether Wait would return at once. Makes progress as a side effect.
  bool Done() const { return state_ == nullptr || state_->Done(); }

  // Blocks until the operation is over: brief spin, yield, then sleep. OK means that this rank's outputs are
  // complete and its inputs may be reused. UNAVAILABLE names ranks that were lost, DEADLINE_EXCEEDED those
  // that did not answer in time (the operation's own deadline, set by the communicator's options, or
  // `deadline`, whichever is earlier), INVALID_ARGUMENT a wrong argument.
  [[nodiscard]] absl::Status Wait(absl::Time deadline = absl::InfiniteFuture()) const {
    return state_ == nullptr ? status_ : state_->Wait(deadline);
  }

 private:
  absl::Status status_;
  std::shared_ptr<WorkState> state_;
};

}  // namespace cohort::comm
