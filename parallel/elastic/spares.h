// Ranks of the world that no mesh has room for: they wait, and hear at each step boundary how it goes on.
#pragma once

#include <cstdint>
#include <functional>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "comm/communicator.h"
#include "runtime/train/step_loop.h"

namespace cohort::parallel {

// A spare rank's wait: until rank `first` of the world, which is rank 0 of the mesh, says that no further step follows. It
// is told at each boundary whether this rank wants the ranks to change. A step longer than the communicator's timeout is
// an error, as it is for all others.
absl::StatusOr<runtime::StepCallbacks::Next> WaitAsSpare(comm::Communicator& world, int first,
                                                         const std::function<bool()>& wants_change);

// The other side, of rank 0 of the mesh, once each at every boundary.
absl::StatusOr<bool> SparesAsk(comm::Communicator& world, absl::Span<const int> spares);
absl::Status TellSpares(comm::Communicator& world, absl::Span<const int> spares,
                        runtime::StepCallbacks::Next next);

// At a boundary where all have left their loops: rank `first` tells those who wait a number.
absl::Status TellWaiting(comm::Communicator& world, absl::Span<const int> waiting, int64_t value);
absl::StatusOr<int64_t> HearAsWaiting(comm::Communicator& world, int first);

}  // namespace cohort::parallel
