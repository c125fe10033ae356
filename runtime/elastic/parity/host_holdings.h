// What a host still has after a failure, and who brings what to a recovery.
#pragma once

#include <map>
#include <vector>

#include "absl/status/statusor.h"
#include "comm/communicator.h"
#include "runtime/elastic/keeper/keeper.h"
#include "runtime/elastic/parity/exchange.h"
#include "runtime/elastic/parity/recovery_plan.h"
#include "runtime/elastic/snapshot/image.h"

namespace cohort::runtime::elastic {

// Images of one generation that a host's keeper holds, of living and dead ranks, by the rank of their owner in the mesh
// of that epoch. Whole, as their segments' stamps say; whether memory has kept their bytes, VerifyImage says of each, and of
// what is recovered from them.
struct HostHoldings {
  std::map<int, Image> snapshots, parity;
  std::vector<MappedSegment> memory;  // what the images are views of

  // As RecoverImages takes them: whole images, and what of parity images the plan speaks of.
  RecoverySources Sources() const;
};
absl::StatusOr<HostHoldings> FindHoldings(Keeper& keeper, GenerationName name);

// Collective over those who recover: who has what, everything at one of those who have it, evenly; and lost images go to
// whoever has the fewest bytes, those it holds of the plan counted. The same on all. Only ranks with `receives` get
// images.
absl::StatusOr<Survivors> AgreeSurvivors(comm::Communicator& communicator, const StripePlan& plan,
                                         const HostHoldings& holdings, bool receives = true);

}  // namespace cohort::runtime::elastic
