// The limits of snapshots, in one place.
#pragma once

#include <cstddef>

namespace cohort::runtime::elastic::snapshot_policy {

// A piece is copied and summed in chunks of this size. Part of the format: the sum of a piece is one over its chunks'.
inline constexpr size_t kChunkBytes = size_t{4} << 20;
// Where pieces begin in a slot: a cache line, a vector.
inline constexpr size_t kAlignment = 64;
// Slots, and what is mapped by itself, begin at a page.
inline constexpr size_t kPageBytes = 4096;
// Copies of more bytes than this go around the caches: neither does the slot fit them nor is it read soon.
inline constexpr size_t kStreamBytes = size_t{1} << 20;
// More is taken for garbage when a segment is read.
inline constexpr size_t kMostPieces = size_t{1} << 20;
inline constexpr size_t kMostTableBytes = size_t{1} << 30;

}  // namespace cohort::runtime::elastic::snapshot_policy
