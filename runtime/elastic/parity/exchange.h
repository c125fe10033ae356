// Running the plans of parity over a communicator: encoding a generation, bringing lost images back.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "comm/communicator.h"
#include "runtime/elastic/keeper/keeper.h"
#include "runtime/elastic/parity/recovery_plan.h"
#include "runtime/elastic/parity/stripe_plan.h"
#include "runtime/elastic/snapshot/image.h"
#include "runtime/elastic/snapshot/slots.h"

namespace cohort::runtime::elastic {

inline constexpr char kParityKind[] = "parity";
// The one piece of a parity image: what the plan says that its rank keeps.
inline constexpr char kParityPiece[] = "parity";

// Collective: the request that all ranks make together, from where they are and what each has to protect.
absl::StatusOr<StripeRequest> GatherStripeRequest(comm::Communicator& communicator, uint64_t image_bytes,
                                                  int data, int parity);

// Collective: the parity of everybody's `mine` (of the bytes that the plan says) lands in `kept` (plan.KeptBytes(rank)).
// Rank r of the communicator is rank r of the plan. An error, which names who is lost or late, ends what is
// in flight in this communicator on all ranks (Communicator::Abort): give it one of its own (Split), which nobody uses
// meanwhile. Some ranks may have succeeded before: parity counts once all say that they have it.
absl::Status EncodeParity(comm::Communicator& communicator, const StripePlan& plan,
                          absl::Span<const std::byte> mine, absl::Span<std::byte> kept, absl::Time deadline);

// What a rank brings to a recovery: images and kept parity by rank of the plan, as Survivors says that it has them.
struct RecoverySources {
  std::map<int, absl::Span<const std::byte>> images, parity;
};
// Collective over the survivors: gives back the images that have this rank for target, by rank of the plan. Whether they
// are whole, VerifyImage says. Errors as in EncodeParity.
absl::StatusOr<std::map<int, std::vector<std::byte>>> RecoverImages(comm::Communicator& communicator,
                                                                    const StripePlan& plan,
                                                                    const RecoveryPlan& recovery,
                                                                    const RecoverySources& sources,
                                                                    absl::Time deadline);

// The parity that one rank keeps, in a segment of the keeper with two slots as snapshots have. The layout of
// its images is the text of the stripe request (ParseStripeRequest): who finds one can make the plan again.
class ParityStore {
 public:
  static absl::StatusOr<std::unique_ptr<ParityStore>> Create(Keeper& keeper, const SegmentOwner& owner,
                                                             const StripePlan& plan, int rank);
  ~ParityStore();
  // Collective: EncodeParity of this generation into the slot that is not needed.
  absl::Status Encode(comm::Communicator& communicator, GenerationName name, absl::Span<const std::byte> mine,
                      absl::Time deadline);
  // All ranks have encoded this generation.
  void Complete(GenerationName name);
  // The image of a generation that is here.
  absl::StatusOr<Image> ImageOf(GenerationName name) const;
  absl::Status Drop();

 private:
  struct Impl;
  explicit ParityStore(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace cohort::runtime::elastic
