// Steps that ranks take together, each rank its own part of them, in one order that all know.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "comm/communicator.h"
#include "comm/work.h"
#include "runtime/elastic/parity/policy.h"

namespace cohort::runtime::elastic {

// A place for a step in flight: the messages that it waits for, those that may still leave when it is over, and memory.
struct StepSlot {
  std::vector<comm::Work> arriving, leaving;
  std::vector<std::unique_ptr<std::byte[]>> buffers;

  // Buffer i of at least kPieceBytes, made when it is first asked for.
  std::byte* Buffer(size_t i) {
    while (buffers.size() <= i)
      buffers.push_back(std::unique_ptr<std::byte[]>(new std::byte[parity_policy::kPieceBytes]));
    return buffers[i].get();
  }
};

// Calls start(i, slot) for some steps ahead of the one for which, its messages having arrived, finish(i, slot) is called.
// If all ranks take their steps in a common order, nobody waits for a step that waits for him: the earliest that is not
// over has been started by all its ranks. Where something fails, everything in flight in the communicator is ended, on
// all ranks, before this returns.
absl::Status RunSteps(comm::Communicator& communicator, size_t steps, absl::Time deadline,
                      const std::function<void(size_t, StepSlot&)>& start,
                      const std::function<absl::Status(size_t, StepSlot&)>& finish);

}  // namespace cohort::runtime::elastic
