// Copying at memory speed, with a sum that says later whether the bytes are still those.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"

namespace cohort::runtime::elastic {

// 64 bits of these bytes and their number. Not against an adversary; of other differences one in some
// 2^64 goes unnoticed.
uint64_t SumOf(const void* bytes, size_t count);
// The same of `from`, while it is copied to `to`. `stream`: around the caches. They do not overlap.
uint64_t CopyAndSum(void* to, const void* from, size_t count, bool stream);

// The sum of a piece, from those of its chunks (policy.h: kChunkBytes), which several threads can make.
uint64_t SumOfChunks(absl::Span<const uint64_t> chunks);
// The same from the bytes.
uint64_t SumOfPiece(absl::Span<const std::byte> piece);

}  // namespace cohort::runtime::elastic
