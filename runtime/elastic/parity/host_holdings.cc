#include "runtime/elastic/parity/host_holdings.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "runtime/elastic/snapshot/segment.h"
#include "runtime/elastic/snapshot/snapshotter.h"

namespace cohort::runtime::elastic {

RecoverySources HostHoldings::Sources() const {
  RecoverySources sources;
  for (const auto& [rank, image] : snapshots) sources.images[rank] = image.bytes;
  for (const auto& [rank, image] : parity) {
    if (const Image::Piece* piece = image.Find(kParityPiece)) sources.parity[rank] = piece->data;
  }
  return sources;
}

absl::StatusOr<HostHoldings> FindHoldings(Keeper& keeper, GenerationName name) {
  COHORT_ASSIGN_OR_RETURN(const std::vector<SegmentEntry> entries, keeper.List());
  HostHoldings holdings;
  for (const SegmentEntry& entry : entries) {
    if (entry.owner.epoch != name.epoch) continue;
    auto* images = entry.kind == kSnapshotKind ? &holdings.snapshots
                   : entry.kind == kParityKind ? &holdings.parity
                                               : nullptr;
    if (images == nullptr) continue;
    absl::StatusOr<MappedSegment> memory = keeper.Map(entry.id);
    if (absl::IsNotFound(memory.status())) continue;  // released since
    COHORT_RETURN_IF_ERROR(memory.status());
    for (StoredImage& stored : WholeImages(memory->bytes())) {
      if (stored.image.name != name) continue;
      (*images)[entry.owner.rank] = std::move(stored.image);
      holdings.memory.push_back(*std::move(memory));
      break;
    }
  }
  return holdings;
}

absl::StatusOr<Survivors> AgreeSurvivors(comm::Communicator& communicator, const StripePlan& plan,
                                         const HostHoldings& holdings, bool receives) {
  const auto ranks = static_cast<size_t>(plan.ranks());
  const auto size = static_cast<size_t>(communicator.size());
  // Of each: whether it takes images, then for each rank of the plan what it has of it.
  enum : uint8_t { kImage = 1, kParity = 2 };
  const size_t row = ranks + 1;
  std::vector<uint8_t> mine(row), all(row * size);
  mine[ranks] = receives ? 1 : 0;
  for (size_t r = 0; r < ranks; ++r) {
    const auto rank = static_cast<int>(r);
    if (const auto at = holdings.snapshots.find(rank); at != holdings.snapshots.end()) mine[r] |= kImage;
    if (const auto at = holdings.parity.find(rank); at != holdings.parity.end()) mine[r] |= kParity;
  }
  const std::vector<size_t> counts(size, row);
  COHORT_RETURN_IF_ERROR(communicator.AllGather(mine.data(), all.data(), counts, DataType::kU8).Wait());

  std::vector<uint64_t> bytes(ranks), load(size);
  for (const StripeRequest::Host& host : plan.request.hosts) {
    for (const StripeRequest::Member& member : host.members)
      bytes[static_cast<size_t>(member.rank)] = member.bytes;
  }
  const auto least = [&](auto&& may) {
    int best = -1;
    for (size_t n = 0; n < size; ++n) {
      if (may(n) && (best < 0 || load[n] < load[static_cast<size_t>(best)])) best = static_cast<int>(n);
    }
    return best;
  };
  Survivors survivors;
  for (size_t r = 0; r < ranks; ++r) {
    const int image = least([&](size_t n) { return (all[n * row + r] & kImage) != 0; });
    if (image >= 0) load[static_cast<size_t>(image)] += bytes[r];
    survivors.image_at.push_back(image);
    survivors.parity_at.push_back(least([&](size_t n) { return (all[n * row + r] & kParity) != 0; }));
  }
  for (size_t r = 0; r < ranks; ++r) {
    int target = -1;
    if (survivors.image_at[r] < 0 && plan.host_of[r] >= 0) {
      target = least([&](size_t n) { return all[n * row + ranks] != 0; });
      if (target < 0) {
        return absl::FailedPreconditionError("parity: none of those who recover takes what was lost");
      }
      load[static_cast<size_t>(target)] += bytes[r];
    }
    survivors.target.push_back(target);
  }
  return survivors;
}

}  // namespace cohort::runtime::elastic
