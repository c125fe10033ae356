// Pieces in the memory of devices, on the host while they move.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "parallel/reshard/layout.h"
#include "parallel/reshard/reshard_plan.h"
#include "runtime/device/device.h"

namespace cohort::parallel {

// Where this rank's pieces lie, in the order of the layouts' lists. A new piece may be in the memory of an equal old one,
// whose contents it keeps; other pieces do not overlap. Null where the piece is empty.
struct PieceMemory {
  std::vector<const void*> before;
  std::vector<void*> after;
  // Whose memory; none: all is the host's.
  std::vector<runtime::Device*> before_on = {}, after_on = {};
};

// One rank's, of one plan. Nothing is copied of what lies on the host.
class StagedPieces {
 public:
  // Copies of what the plan reads of old pieces, as they are after all that was enqueued; room for new ones. Of new pieces
  // every byte is written (CheckReshard). What a device computes meanwhile is not waited for.
  static absl::StatusOr<StagedPieces> Create(PieceMemory memory, absl::Span<const HeldPiece> before,
                                             absl::Span<const HeldPiece> after, const ReshardPlan& plan,
                                             int rank);

  const PieceMemory& on_host() const { return on_host_; }
  // New pieces to where they belong: enqueued there.
  void BringBack() const;

 private:
  struct Back {
    size_t piece;
    void* to;
    int64_t bytes;
  };
  PieceMemory on_host_;
  std::vector<std::shared_ptr<void>> rooms_;
  std::vector<Back> back_;
};

}  // namespace cohort::parallel
