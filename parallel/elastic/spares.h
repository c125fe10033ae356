// Ranks of the world that no mesh has room for: they wait, and hear at each step boundary how it goes on.
#pragma once

#include <cstdint>
#include <functional>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "comm/communicator.h"
#include "runtime/train/step_loop.h"

namespace cohort::parallel {

// A spare rank's wait: until rank `first` of the world, which is rank 0 of the mesh, says that no further step follows. It
// is told at each boundary whether this rank wants the ranks to change. Between two boundaries the others may evaluate and
// save, which takes as long as it takes: they hear of each other meanwhile, and this rank of none of them. So it waits for
// `longest`; that `first` is dead, stopped or cut off ends it at once, as any operation.
absl::StatusOr<runtime::StepCallbacks::Next> WaitAsSpare(comm::Communicator& world, int first,
                                                         absl::Duration longest,
                                                         const std::function<bool()>& wants_change);

// The other side, of rank 0 of the mesh, once each at every boundary. Spares have nothing else to do, so one that does not
// answer within `patience` is an error: it hangs.
absl::StatusOr<bool> SparesAsk(comm::Communicator& world, absl::Span<const int> spares,
                               absl::Duration patience);
absl::Status TellSpares(comm::Communicator& world, absl::Span<const int> spares, absl::Duration patience,
                        runtime::StepCallbacks::Next next);

// At a boundary where all have left their loops: rank `first` tells those who wait a number, likewise.
absl::Status TellWaiting(comm::Communicator& world, absl::Span<const int> waiting, absl::Duration patience,
                         int64_t value);
absl::StatusOr<int64_t> HearAsWaiting(comm::Communicator& world, int first, absl::Duration longest);

}  // namespace cohort::parallel
