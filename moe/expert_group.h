// The ranks among which the experts of each block are divided.
#pragma once

#include <memory>
#include <utility>

#include "comm/communicator.h"

namespace cohort::moe {

// Rank r of the group holds experts [r n, (r + 1) n), n = experts / ranks. The communicator is used by the
// group's layers alone, so that their exchanges stay in one order on every rank.
//
// apart: an expert's rows from different ranks are computed apart from each other, in products of the sizes
// that they have where all experts are on one rank, and their weight gradients go to a tensor of their own
// for each source rank (Parameter::grad, then other_grads). So what comes out does not depend on the ranks.
class ExpertGroup {
 public:
  // All experts on this rank.
  ExpertGroup() : ExpertGroup(comm::Communicator::Single()) {}
  // over_device: the same ranks over the memory of the layers' device (runtime/collectives), which rows move in; null:
  // the communicator itself.
  explicit ExpertGroup(std::shared_ptr<comm::Communicator> communicator, bool apart = false,
                       std::shared_ptr<comm::Communicator> over_device = nullptr)
      : communicator_(std::move(communicator)),
        over_device_(over_device != nullptr ? std::move(over_device) : communicator_),
        rank_(communicator_->rank()),
        size_(communicator_->size()),
        apart_(apart) {}
  // A place in a group that is not there: enough to say who holds what, not to compute.
  ExpertGroup(int rank, int size) : rank_(rank), size_(size) {}

  // For what lies on the host, and for tensors.
  comm::Communicator& communicator() const { return *communicator_; }
  comm::Communicator& over_device() const { return *over_device_; }
  int rank() const { return rank_; }
  int size() const { return size_; }
  bool apart() const { return apart_; }

 private:
  std::shared_ptr<comm::Communicator> communicator_, over_device_;
  int rank_, size_;
  bool apart_ = false;
};

}  // namespace cohort::moe
