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
      : communicator_(std::move(communicator)) {}

  comm::Communicator& communicator() const { return *communicator_; }
  int rank() const { return communicator_->rank(); }
  int size() const { return communicator_->size(); }

 private:
  std::shared_ptr<comm::Communicator> communicator_;
};

}  // namespace cohort::moe
