#include <utility>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "runtime/elastic/parity/exchange.h"
#include "runtime/elastic/snapshot/segment.h"
#include "runtime/elastic/snapshot/sum.h"

namespace cohort::runtime::elastic {

namespace {

// What is complete, and what is being encoded.
constexpr int kParitySlots = 2;

}  // namespace

struct ParityStore::Impl {
  Keeper& keeper;
  StripePlan plan;
  ImagePlan image;
  Keeper::Created segment;
  SegmentWriter writer;
  Slots slots;

  Impl(Keeper& the_keeper, const StripePlan& the_plan, ImagePlan the_image, Keeper::Created created)
      : keeper(the_keeper),
        plan(the_plan),
        image(std::move(the_image)),
        segment(std::move(created)),
        writer(segment.memory.writable(), image.bytes, kParitySlots),
        slots(kParitySlots) {}
};

ParityStore::ParityStore(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ParityStore::~ParityStore() = default;

absl::StatusOr<std::unique_ptr<ParityStore>> ParityStore::Create(Keeper& keeper, const SegmentOwner& owner,
                                                                 const StripePlan& plan, int rank) {
  ImagePlan image = PlanImage({{kParityPiece, plan.KeptBytes(rank)}}, ToText(plan.request));
  COHORT_ASSIGN_OR_RETURN(Keeper::Created segment,
                          keeper.Create(owner, kParityKind, SegmentBytes(image.bytes, kParitySlots)));
  return std::unique_ptr<ParityStore>(
      new ParityStore(std::make_unique<Impl>(keeper, plan, std::move(image), std::move(segment))));
}

absl::Status ParityStore::Encode(comm::Communicator& communicator, GenerationName name,
                                 absl::Span<const std::byte> mine, absl::Time deadline) {
  absl::StatusOr<int> slot = impl_->slots.Begin(name);
  if (!slot.ok()) {
    communicator.Abort(slot.status());
    return slot.status();
  }
  const absl::Span<std::byte> bytes = impl_->writer.Open(*slot);
  const absl::Span<std::byte> kept = bytes.subspan(impl_->image.offsets[0], impl_->image.pieces[0].bytes);
  if (const absl::Status status = EncodeParity(communicator, impl_->plan, mine, kept, deadline);
      !status.ok()) {
    impl_->slots.Abandon();
    return status;
  }
  const uint64_t sum = SumOfPiece(kept);
  WriteImageHead(impl_->image, name, absl::MakeConstSpan(&sum, 1), bytes);
  impl_->writer.Close(*slot, impl_->image.bytes);
  impl_->slots.Written();
  return absl::OkStatus();
}

void ParityStore::Complete(GenerationName name) { impl_->slots.Complete(name); }

absl::StatusOr<Image> ParityStore::ImageOf(GenerationName name) const {
  for (StoredImage& stored : WholeImages(impl_->segment.memory.bytes())) {
    if (stored.image.name == name) return std::move(stored.image);
  }
  return absl::NotFoundError(absl::StrCat("parity: none of ", ToString(name)));
}

absl::Status ParityStore::Drop() { return impl_->keeper.Drop(impl_->segment.handle); }

}  // namespace cohort::runtime::elastic
