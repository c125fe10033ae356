// Parity over hosts of a part's snapshots: while the training goes on it is encoded, and after hosts were lost it gives
// back what they held.
#pragma once

#include <future>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "comm/communicator.h"
#include "runtime/elastic/keeper/keeper.h"
#include "runtime/elastic/parity/exchange.h"
#include "runtime/elastic/snapshot/image.h"
#include "runtime/elastic/snapshot/slots.h"

namespace cohort::parallel {

// So many hosts may be lost at once, of stripes of so many; 0: none.
struct ParityOptions {
  int data = 4;
  int lost_hosts = 0;
};

// One thread, and one of its own that encodes.
class PartParity {
 public:
  // Collective over `group`, the ranks of a mesh. Null where these are on too few hosts for what is asked.
  static absl::StatusOr<std::unique_ptr<PartParity>> Create(runtime::elastic::Keeper& keeper,
                                                            const runtime::elastic::SegmentOwner& owner,
                                                            comm::Communicator& group, uint64_t image_bytes,
                                                            const ParityOptions& options);
  ~PartParity();

  // All ranks begin with the same generation, whose image stays until Finish.
  void Begin(runtime::elastic::GenerationName name, absl::Span<const std::byte> image);
  bool begun() const { return encoding_.valid(); }
  // Waits for it. Whether the others are done, they must say.
  absl::Status Finish();
  // All are.
  void Complete(runtime::elastic::GenerationName name) { store_->Complete(name); }
  // Gives the memory back.
  void Drop();

 private:
  PartParity() = default;
  std::unique_ptr<comm::Communicator> group_;  // nobody else's
  runtime::elastic::StripePlan plan_;
  std::unique_ptr<runtime::elastic::ParityStore> store_;
  std::future<absl::Status> encoding_;
};

// An image that came back.
struct RecoveredImage {
  int mesh_rank = 0;
  std::vector<std::byte> bytes;
};

// Collective over `world`, after members were lost: of the newest generation of which enough is left, the images of ranks
// that no host has any more, each on one rank. None where nothing is missing, or parity was not made. Which ranks may
// have lost something is found out here. `problem` tells why a generation cannot come back: hosts and bytes.
absl::StatusOr<std::vector<RecoveredImage>> RecoverLostImages(comm::Communicator& world,
                                                              runtime::elastic::Keeper* keeper,
                                                              absl::Status* problem);

}  // namespace cohort::parallel
