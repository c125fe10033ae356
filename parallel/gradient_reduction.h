// Sums of gradients over ranks, under way while the backward goes on.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "comm/communicator.h"
#include "runtime/tensor.h"

namespace cohort::parallel {

// Gradients are divided by the global batch's counts where they are computed (LossScale), so a plain
// sum over ranks completes them. They travel in the state type, whatever the model computes in. In a
// group of one nothing moves.
class GradientReduction {
 public:
  explicit GradientReduction(std::shared_ptr<comm::Communicator> group) : group_(std::move(group)) {}
  ~GradientReduction();

  comm::Communicator& group() const { return *group_; }

  // Starts the all-reduce of grad, in place. The communicator's own thread runs it; the caller computes on.
  void Start(const runtime::Tensor& grad);
  // Waits for everything started since the last call; the first error, once all are over.
  absl::Status Finish();

 private:
  struct Pending {
    runtime::Tensor grad;
    comm::Work work;
  };
  std::shared_ptr<comm::Communicator> group_;
  std::vector<Pending> pending_;
};

}  // namespace cohort::parallel
