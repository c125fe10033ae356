// Executes reshard plans: every rank writes what others need straight into their memory (comm/transfer), and counts
// what it gets.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "comm/communicator.h"
#include "comm/transfer/transfer_engine.h"
#include "parallel/reshard/reshard_plan.h"
#include "parallel/reshard/staged_pieces.h"

namespace cohort::parallel {

// One for each rank of `world`, whose ranks are those of the layouts. Keeps its connections for the next plan. One
// thread.
class Resharder {
 public:
  // `world` outlives it.
  static absl::StatusOr<std::unique_ptr<Resharder>> Create(comm::Communicator& world,
                                                           comm::transfer::Options options = {});

  comm::Communicator& world() { return world_; }

  // Collective: all ranks bring the same layouts and plan, which CheckReshard passes. Numbers past the communicator's
  // are of lost ranks, in no copy. When it returns OK, every rank's
  // new pieces are complete and nobody needs the old ones. After an error, which every rank returns, the new pieces are
  // undefined and the old ones are what they were. Waits no longer than `timeout`, then DEADLINE_EXCEEDED; UNAVAILABLE
  // where a rank was lost. What lies on a device goes by way of the host, where there must be room for it; beside what
  // the device computes, which must leave the old pieces as they are.
  absl::Status Run(const Layout& before, const Layout& after, const ReshardPlan& plan,
                   const PieceMemory& memory, absl::Duration timeout);

 private:
  struct Regions;
  explicit Resharder(comm::Communicator& world) : world_(world) {}
  // status: why this rank cannot take part, which all ranks return then.
  absl::Status RunOnHost(const Layout& before, absl::Span<const HeldPiece> old_pieces,
                         absl::Span<const HeldPiece> new_pieces, const ReshardPlan& plan,
                         const PieceMemory& memory, absl::Status status, absl::Time deadline);
  absl::Status Exchange(const Layout& before, const ReshardPlan& plan, const Regions& regions,
                        absl::Time deadline);

  comm::Communicator& world_;
  std::unique_ptr<comm::transfer::TransferEngine> engine_;
  std::map<int, comm::transfer::PeerId> peers_;  // by rank
  uint32_t round_ = 0;  // the immediates of a plan that failed do not count for the next one
};

}  // namespace cohort::parallel
