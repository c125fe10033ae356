// The ranks that hold tokens of the same sequences, in whatever communicator they are.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "comm/communicator.h"

namespace cohort::parallel {

// Members of a communicator, in an order of their own: no communicator has to be made for a group that is there for one
// micro-batch only (hybrid_batches.h). All members make the same calls in the same order.
struct ContextGroup {
  std::shared_ptr<comm::Communicator> comm;  // over the memory of the device (runtime/collectives)
  std::vector<int> members;                  // their ranks in comm
  int rank = 0;                              // this one's place among them
  int size() const { return static_cast<int>(members.size()); }
  // All ranks of the communicator in their order.
  bool IsWhole() const;
  // Every stride-th member from `first` on, `count` of them; this rank is one.
  ContextGroup Part(int first, int count, int stride) const;
};

// All of the communicator.
ContextGroup WholeGroup(std::shared_ptr<comm::Communicator> comm);

// Waits for all; the first error. Buffers may be touched again afterwards also where one fails.
absl::Status WaitForAll(absl::Span<const comm::Work> works);

}  // namespace cohort::parallel
