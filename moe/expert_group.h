// The ranks among which the experts of each block are divided.
#pragma once

#include <memory>
#include <utility>

#include "comm/communicator.h"

namespace cohort::moe {

// Rank r of the group holds experts [r n, (r + 1) n), n = experts / ranks. The communicator is used by the
// group's layers alone, so that their exchanges stay in one order on every rank.
class ExpertGroup {
 public:
  // All experts on this rank.
  ExpertGroup() : ExpertGroup(comm::Communicator::Single()) {}
  explicit ExpertGroup(std::shared_ptr<comm::Communicator> communicator)
      : communicator_(std::move(communicator)), rank_(communicator_->rank()), size_(communicator_->size()) {}
  // A place in a group that is not there: enough to say who holds what, not to compute.
  ExpertGroup(int rank, int size) : rank_(rank), size_(size) {}

  comm::Communicator& communicator() const { return *communicator_; }
  int rank() const { return rank_; }
  int size() const { return size_; }

 private:
  std::shared_ptr<comm::Communicator> communicator_;
  int rank_, size_;
};

}  // namespace cohort::moe
