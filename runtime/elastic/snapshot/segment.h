// A segment of slots in shared memory: who reads it sees only whole generations, whenever its writer dies.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "runtime/elastic/snapshot/image.h"
#include "runtime/elastic/snapshot/slots.h"

namespace cohort::runtime::elastic {

// The first page of a segment. A slot's stamp is zero while its bytes are not a whole image, and set last.
struct SegmentHeader {
  uint64_t magic;
  uint64_t slot_bytes;
  uint64_t slots;
  struct alignas(64) Stamp {
    std::atomic<uint64_t> count;  // of generations of this segment, this one included; 0: torn
    uint64_t image_bytes;
  } stamps[kMostSlots];
};

// Bytes of a segment of so many slots for images of up to so many bytes.
size_t SegmentBytes(uint64_t image_bytes, int slots);

// The writer's side. One thread.
class SegmentWriter {
 public:
  // Of zeros, or written by an earlier SegmentWriter of as many slots of this size.
  SegmentWriter(absl::Span<std::byte> segment, uint64_t image_bytes, int slots);
  // From here on the slot is torn, and its bytes can be written.
  absl::Span<std::byte> Open(int slot);
  // The bytes are an image of that size.
  void Close(int slot, uint64_t image_bytes);

 private:
  SegmentHeader* header_;
  std::vector<absl::Span<std::byte>> slots_;
  uint64_t count_ = 0;
};

// The whole generations of a segment, newest first; none where it is no segment of slots. The bytes of
// pieces are not verified (VerifyImage). Where the writer lives, an image can be overwritten later: StillWhole.
struct StoredImage {
  Image image;
  int slot = 0;
  uint64_t count = 0;
};
std::vector<StoredImage> WholeImages(absl::Span<const std::byte> segment);
// Whether what was read of it until now was of the image.
bool StillWhole(absl::Span<const std::byte> segment, const StoredImage& stored);

}  // namespace cohort::runtime::elastic
