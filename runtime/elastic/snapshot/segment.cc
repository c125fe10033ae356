#include "runtime/elastic/snapshot/segment.h"

#include <algorithm>
#include <utility>

#include "comm/check.h"
#include "runtime/elastic/snapshot/policy.h"

namespace cohort::runtime::elastic {
namespace {

constexpr uint64_t kSegmentMagic = 0x3247455354524843;  // "CHRTSEG2"
static_assert(sizeof(SegmentHeader) <= snapshot_policy::kPageBytes);
static_assert(std::atomic<uint64_t>::is_always_lock_free);

uint64_t Pages(uint64_t bytes) {
  return (bytes + snapshot_policy::kPageBytes - 1) / snapshot_policy::kPageBytes *
         snapshot_policy::kPageBytes;
}

const SegmentHeader* HeaderOf(absl::Span<const std::byte> segment) {
  if (segment.size() < snapshot_policy::kPageBytes) return nullptr;
  const auto* header = reinterpret_cast<const SegmentHeader*>(segment.data());
  const uint64_t slot_bytes = header->slot_bytes;
  const uint64_t slots = header->slots;
  if (header->magic != kSegmentMagic || slot_bytes > segment.size() || slots > kMostSlots ||
      slot_bytes * slots + snapshot_policy::kPageBytes > segment.size()) {
    return nullptr;
  }
  return header;
}

}  // namespace

size_t SegmentBytes(uint64_t image_bytes, int slots) {
  return snapshot_policy::kPageBytes + static_cast<size_t>(slots) * Pages(image_bytes);
}

SegmentWriter::SegmentWriter(absl::Span<std::byte> segment, uint64_t image_bytes, int slots)
    : header_(reinterpret_cast<SegmentHeader*>(segment.data())) {
  COHORT_CHECK(segment.size() >= SegmentBytes(image_bytes, slots), "a segment of %zu bytes", segment.size());
  const uint64_t slot_bytes = Pages(image_bytes);
  for (int i = 0; i < slots; ++i) {
    slots_.push_back(
        segment.subspan(snapshot_policy::kPageBytes + static_cast<size_t>(i) * slot_bytes, slot_bytes));
    count_ = std::max(count_, header_->stamps[i].count.load(std::memory_order_relaxed));
  }
  header_->slot_bytes = slot_bytes;
  header_->slots = static_cast<uint64_t>(slots);
  std::atomic_thread_fence(std::memory_order_release);
  header_->magic = kSegmentMagic;
}

absl::Span<std::byte> SegmentWriter::Open(int slot) {
  header_->stamps[slot].count.store(0, std::memory_order_seq_cst);
  // No byte of the slot changes before that is seen, streamed stores included.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  return slots_[static_cast<size_t>(slot)];
}

void SegmentWriter::Close(int slot, uint64_t image_bytes) {
  header_->stamps[slot].image_bytes = image_bytes;
  header_->stamps[slot].count.store(++count_, std::memory_order_release);
}

std::vector<StoredImage> WholeImages(absl::Span<const std::byte> segment) {
  std::vector<StoredImage> found;
  const SegmentHeader* header = HeaderOf(segment);
  if (header == nullptr) return found;
  const uint64_t slot_bytes = header->slot_bytes;
  const auto slots = static_cast<int>(header->slots);
  for (int i = 0; i < slots; ++i) {
    const uint64_t count = header->stamps[i].count.load(std::memory_order_acquire);
    const uint64_t bytes = header->stamps[i].image_bytes;
    if (count == 0 || bytes > slot_bytes) continue;
    absl::StatusOr<Image> image =
        ReadImage(segment.subspan(snapshot_policy::kPageBytes + static_cast<size_t>(i) * slot_bytes, bytes));
    StoredImage stored{{}, i, count};
    if (!image.ok() || !StillWhole(segment, stored)) continue;
    stored.image = *std::move(image);
    found.push_back(std::move(stored));
  }
  std::sort(found.begin(), found.end(),
            [](const StoredImage& a, const StoredImage& b) { return a.count > b.count; });
  return found;
}

bool StillWhole(absl::Span<const std::byte> segment, const StoredImage& stored) {
  // What was read before is not moved behind this look.
  std::atomic_thread_fence(std::memory_order_acquire);
  const SegmentHeader* header = HeaderOf(segment);
  return header != nullptr &&
         header->stamps[stored.slot].count.load(std::memory_order_relaxed) == stored.count;
}

}  // namespace cohort::runtime::elastic
