// Executes reshard plans: every rank writes what others need straight into their memory (comm/transfer), and counts
// what it gets.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "comm/communicator.h"
#include "comm/transfer/transfer_engine.h"
#include "parallel/reshard/reshard_plan.h"

namespace cohort::parallel {

// Where this rank's pieces lie, in the order of the layouts' lists; host memory. A new piece may be in the memory of an
// equal old one, whose contents it keeps; other pieces do not overlap. Null where the piece is empty.
struct PieceMemory {
  std::vector<const void*> before;
  std::vector<void*> after;
};

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
  // where a rank was lost.
  absl::Status Run(const Layout& before, const Layout& after, const ReshardPlan& plan,
                   const PieceMemory& memory, absl::Duration timeout);

 private:
  struct Regions;
  explicit Resharder(comm::Communicator& world) : world_(world) {}
  absl::Status Exchange(const Layout& before, const ReshardPlan& plan, const Regions& regions,
                        absl::Time deadline);

  comm::Communicator& world_;
  std::unique_ptr<comm::transfer::TransferEngine> engine_;
  std::map<int, comm::transfer::PeerId> peers_;  // by rank
  uint32_t round_ = 0;  // the immediates of a plan that failed do not count for the next one
};

}  // namespace cohort::parallel
